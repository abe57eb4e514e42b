"""Scans the inbox for every file that may be a photo or film.

Scans find everything, events only help: of 10,000 files created at once, watchdog reported 3,440.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Container, Iterator
from fnmatch import translate
from pathlib import Path

from colordaemon.config import Config
from colordaemon.inbox.folders import find_folders
from colordaemon.inbox.safe_open import anchored
from colordaemon.inbox.stability import Signature, signature_from
from colordaemon.sidecar_names import sidecar_file, sidecar_folder
from colordaemon.suffixes import FILM_SUFFIXES, PHOTO_SUFFIXES

log = logging.getLogger(__name__)

TRASH = ".Trash-colordaemon"
DEEPEST = 100  # folders inside each other; many functions on paths recurse for each

# Unfinished files of browsers, rsync, torrent and sync clients, and folders of operating systems.
_IGNORED = (
    ".*", "*~", "~*", "*.part", "*.partial", "*.filepart", "*.crdownload", "*.download",
    "*.opdownload", "*.tmp", "*.temp", "*.!qb", "*.!ut", "*.aria2", "*.unmanic.part", "*.lock",
    "*.lck", "*.swp", "thumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin",
    "lost+found", "system volume information",
)  # fmt: skip
_IGNORED_NAME = re.compile("|".join(map(translate, _IGNORED)))

PassOver = Callable[[str, str], None]
GUIDES = "by its name it guides the colors of files beside it"
_MOST_LINES = 100  # of one inbox; a folder full of text files must not fill the log


def is_ignored(name: str) -> bool:
    """Whether this is the name of an unfinished, hidden or system file or folder."""
    return _IGNORED_NAME.match(name.lower()) is not None


def is_candidate(path: Path, inbox: Path) -> bool:
    """Whether a path may be a photo or film to color, by all names in its path below the inbox."""
    parts = path.relative_to(inbox).parts
    known = path.suffix.lower() in PHOTO_SUFFIXES | FILM_SUFFIXES
    guides = sidecar_file(path.name) is not None or any(map(sidecar_folder, parts[:-1]))
    return known and not guides and len(parts) <= DEEPEST and not any(map(is_ignored, parts))


def is_looked_into(folder: Path, inbox: Path) -> bool:
    """Whether a folder is scanned, by all names in its path below the inbox."""
    parts = folder.relative_to(inbox).parts
    guides = any(map(sidecar_folder, parts))
    return not guides and len(parts) < DEEPEST and not any(map(is_ignored, parts))


def sidecar_of(path: Path, inbox: Path) -> Path | None:
    """The file or folder that guides the colors of others, if a path is one or lies in one; None
    also for names that are ignored."""
    parts = path.relative_to(inbox).parts
    if len(parts) > DEEPEST or any(map(is_ignored, parts)):
        return None
    for depth, name in enumerate(parts, start=1):
        if sidecar_folder(name) is not None:
            return inbox.joinpath(*parts[:depth])
    return path if sidecar_file(path.name) is not None else None


def rank_of(path: Path) -> int:
    """0 for photos, 1 for films: the minute of a photo does not wait for the hours of a film."""
    return 0 if path.suffix.lower() in PHOTO_SUFFIXES else 1


def scan(
    folder: Path, pass_over: PassOver = lambda path, reason: None, top: Path | None = None
) -> Iterator[tuple[Path, Signature]]:
    """Candidates below a folder; no symbolic links are followed, also not between `top` and it.

    pass_over: called for every ignored file that is not hidden, with the reason. Raises OSError if
    the folder itself cannot be read; for one below it `pass_over` is called.
    """
    return (found for found in walk(folder, pass_over, top) if found is not None)


def walk(
    folder: Path, pass_over: PassOver, top: Path | None = None
) -> Iterator[tuple[Path, Signature] | None]:
    """Like `scan`, but yields None for every other entry, so that the caller can stop at each."""
    top = top or folder
    folders = [(folder, 1 + len(folder.relative_to(top).parts))]
    while folders:
        here, depth = folders.pop()
        try:
            with anchored(top, here) as anchor, os.scandir(anchor) as entries:
                for entry in entries:
                    path = os.path.join(here, entry.name)  # noqa: PTH118  (a Path costs more)
                    found = _look_at(entry, path, pass_over)
                    if not isinstance(found, Path):
                        yield found
                    elif depth < DEEPEST:
                        folders.append((found, depth + 1))
                        yield None
                    else:
                        pass_over(path, f"it lies more than {DEEPEST} folders deep")
        except OSError as error:
            if here == folder:
                raise
            if not isinstance(error, FileNotFoundError):
                pass_over(str(here), f"it cannot be read: {error.strerror}")


def _look_at(
    entry: os.DirEntry[str], path: str, pass_over: PassOver
) -> tuple[Path, Signature] | Path | None:
    """A candidate, a folder to scan, or None."""
    if is_ignored(entry.name):
        if not entry.name.startswith("."):
            pass_over(path, "its name is one of unfinished or hidden files")
    elif _is_folder(entry):
        if sidecar_folder(entry.name) is None:
            return Path(path)
        pass_over(path, GUIDES)
    elif sidecar_file(entry.name) is not None:
        pass_over(path, GUIDES)
    elif signature := _candidate(entry):
        return Path(path), signature
    else:
        pass_over(path, _why_not(entry))
    return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # some file systems do not store the type, and it has to be read
        return False


def _why_not(entry: os.DirEntry[str]) -> str:
    """Why an entry is not a candidate."""
    try:
        if entry.is_symlink():
            return "it is a symbolic link, and those are not followed"
        if not entry.is_file(follow_symlinks=False):
            return "it is not a file but a pipe, a socket or a device"
    except OSError:
        return "it cannot be read"
    suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122  (a Path costs ten times this)
    return f"its suffix {suffix or '(none)'} is not one of photos or films"


def _candidate(entry: os.DirEntry[str]) -> Signature | None:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  (a Path costs ten times this)
    if suffix not in PHOTO_SUFFIXES and suffix not in FILM_SUFFIXES:
        return None
    try:
        if not entry.is_file(follow_symlinks=False):
            return None
        return signature_from(entry.stat(follow_symlinks=False))
    except OSError:  # gone meanwhile
        return None


class Ignored:
    """Logs once for each ignored path why it is ignored."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._said: set[str] = set()

    def notice(self, path: str, reason: str) -> None:
        if path in self._said or len(self._said) > _MOST_LINES:
            return
        self._said.add(path)
        if len(self._said) > _MOST_LINES:
            log.info(
                "%s: more files are ignored; `colordaemon status --ignored` lists them", self._inbox
            )
        else:
            log.info("not taken: %s: %s", path, reason)


def list_ignored(config: Config) -> Iterator[tuple[str, str]]:
    """Every ignored path in the inboxes, and why. Raises ConfigError and OSError."""
    for folders in find_folders(config):
        found: dict[str, str] = {}
        sources = {path for path, _ in scan(folders.inbox, found.__setitem__)}
        served = sources | {path.with_suffix("") for path in sources}
        for path, reason in sorted(found.items()):
            if reason is GUIDES and not _serves_any(Path(path), served):
                reason = f"{reason}, and there is none; rename it to have it colored"
            yield path, reason


def _serves_any(sidecar: Path, served: Container[Path]) -> bool:
    """Whether a file or folder has a file to guide. served: sources, with and without suffixes."""
    name = sidecar_file(sidecar.name) or sidecar_folder(sidecar.name)
    return name is not None and (not name.base or sidecar.with_name(name.base) in served)
