"""Finds the pictures that guide the colors of a file, by their names and places.

Of references the first of these counts that there is, and no later one: pictures named like the
file, a folder named like it, the folder for all files beside it, the setting `references`. What is
named on the command line takes the place of all of them. `sidecar_names` has the names.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from colordaemon.errors import ConfigError, GuideChanged, MediaError
from colordaemon.guide.guide import Guide, GuidePicture
from colordaemon.inbox.safe_open import Obstructed, OpenedSource, anchored, opened_picture
from colordaemon.inbox.scan import is_ignored
from colordaemon.inbox.stability import Signature, signature_from
from colordaemon.sidecar_names import (
    Role,
    SidecarName,
    may_be_sidecar,
    misnamed_base,
    parse_range,
    parse_time,
    range_in,
    sidecar_file,
    sidecar_folder,
)
from colordaemon.suffixes import FILM_SUFFIXES, PHOTO_SUFFIXES

log = logging.getLogger(__name__)

_TICK_SECONDS = 3.0  # file systems' clocks are as coarse as 2; what changed since may change again
MOST_BYTES = 1 << 30  # of a picture's file: 16 bits of RGB at 178 megapixels
MOST_PICTURES = 100  # of one role and file; each takes the network as long as a frame, and 8 MB
_REFUSED = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.ENXIO}


@dataclass(frozen=True)
class Sidecar:
    """A picture that guides a file. when: what is said of its time. top: a folder below which no
    symbolic link is followed; None: it was named by the user or the operator. was_listed: whether
    it was found in a folder, and not named."""

    path: Path
    role: Role
    when: str | None = None
    top: Path | None = None
    was_listed: bool = True


@dataclass(frozen=True)
class _Beside:
    """A file or folder beside a source, whose name says that it is a sidecar of it."""

    path: Path
    name: SidecarName
    is_folder: bool


def find_guide(
    source: Path,
    *,
    top: Path | None = None,
    configured: Path | None = None,
    candidates: Path | None = None,
    named: Sequence[Sidecar] = (),
) -> Guide:
    """The guide of a file, as its pictures are now.

    top, configured: see `find_sidecars`. candidates: a folder from the settings. named: pictures
    from the command line, which take the place of all others of their role. Raises MediaError for
    too many pictures, one that cannot be opened or one whose time is none, GuideChanged if one is
    removed meanwhile, and OSError.
    """
    roles = {each.role for each in named}
    found = find_sidecars(source, top=top, configured=configured)
    if candidates is not None:
        found += pictures_in(candidates, None, "candidate")
    used = (*named, *(each for each in found if each.role not in roles))
    for role, count in Counter(each.role for each in used).items():
        if count > MOST_PICTURES:
            what = "hints" if role == "hints" else f"{role}s"
            raise MediaError(f"{source}: found {count} {what}, expected {MOST_PICTURES} at most")
    guide = Guide(tuple(map(_picture, used)))
    frames: dict[float | None, Path] = {}
    for hints in guide.hints:
        if (other := frames.setdefault(hints.start, hints.path)) is not hints.path:
            raise MediaError(f"{hints.path}: found hints for the frame that {other.name} is for")
    return guide


def find_sidecars(
    source: Path, *, top: Path | None = None, configured: Path | None = None
) -> list[Sidecar]:
    """The pictures that guide a file, none of them opened yet.

    top: the inbox that it lies in; then no symbolic link below it is followed. configured: a
    picture or a folder of pictures from the settings. Raises MediaError and OSError.
    """
    beside = _beside(source, top)
    hints = [_sidecar(each, top) for each in _closest(source, beside, "hints")]
    references = [_sidecar(each, top) for each in _closest(source, beside, "reference")]
    for folder in sorted((each for each in beside if each.is_folder), key=_distance(source)):
        references = references or pictures_in(folder.path, top)
        if not references:
            _say_empty(folder.path)
    if not references and configured is not None:
        references = pictures_at(configured)
    return references + hints


@lru_cache(maxsize=100)  # once for all files beside it
def _say_empty(folder: Path) -> None:
    log.warning("%s: found no picture in it, so it guides nothing", folder)


def check_for_new(source: Path, guide: Guide, top: Path) -> None:
    """Raises GuideChanged for a picture that guides this file alone and came after its guide was
    found: a source that is moved when it is done would take it along, unused."""
    known = {each.path for each in guide.pictures}
    own = set(own_sidecars(source, top=top))
    for found in find_sidecars(source, top=top) if own else ():
        if found.path not in known and own & {found.path, found.path.parent}:
            raise GuideChanged(f"{found.path}: came while work on {source.name} went on")


def own_sidecars(source: Path, *, top: Path | None = None) -> list[Path]:
    """The files and folders that guide a file and no other one beside it. Raises OSError, and
    MediaError for a link below `top`."""
    own = [each for each in _beside(source, top) if each.name.base]
    if not own:
        return []
    with _listing(source.parent, top) as (_, names):
        is_alone = not any(
            name.startswith(f"{source.stem}.")
            and Path(name).stem == source.stem
            and name != source.name
            and _may_be_source(name)
            for name in names
        )
    return [each.path for each in own if is_alone or each.name.base == source.name]


def pictures_at(path: Path) -> list[Sidecar]:
    """The references that a setting names: a picture, or all in a folder. Raises OSError."""
    return (
        pictures_in(path, None)
        if path.is_dir()
        else [Sidecar(path, "reference", range_in(path.name), was_listed=False)]
    )


def pictures_in(folder: Path, top: Path | None, role: Role = "reference") -> list[Sidecar]:
    """The pictures in a folder, without those in folders inside it. Raises MediaError for one with
    too many, and OSError."""
    with _listing(folder, top) as (here, all_names):
        names = sorted(
            name
            for name in all_names
            if Path(name).suffix.lower() in PHOTO_SUFFIXES
            and not is_ignored(name)
            and not (here / name).is_dir()
        )
    if len(names) > MOST_PICTURES:
        raise MediaError(f"{folder}: found {len(names)} pictures, expected {MOST_PICTURES} at most")
    times = range_in if role == "reference" else lambda name: None
    return [Sidecar(folder / name, role, times(name), top) for name in names]


def named_picture(text: str, role: Role) -> Sidecar:
    """A picture as the command line names it: FILE, or FILE@START..END of a reference, FILE@TIME of
    hints; else the time in the file's name counts. Raises ConfigError."""
    path, when = Path(text), None
    if not path.exists() and "@" in text:
        before, _, when = text.rpartition("@")
        path = Path(before)
    elif (name := sidecar_file(path.name)) is not None and name.role == role:
        when = name.when
    elif role == "reference":
        when = range_in(path.name)
    if not path.is_file():
        raise ConfigError(f"{text}: there is no such file, expected a picture")
    picture = Sidecar(path, role, when, was_listed=False)
    try:
        _times(picture)
    except MediaError as error:
        raise ConfigError(str(error)) from None
    return picture


def _beside(source: Path, top: Path | None) -> list[_Beside]:
    """What stands beside a file and serves it. Raises OSError, and MediaError for a link."""
    folder = source.parent
    with _opened_folder(folder, top) as here:
        found = here.stat()
    is_settled = time.time() - found.st_mtime > _TICK_SECONDS
    look = _sidecars_in if is_settled else _sidecars_in.__wrapped__
    try:
        all_there = look(folder, top, (found.st_dev, found.st_ino, found.st_mtime_ns))
    except PermissionError:
        log.warning("%s: cannot be listed, so nothing beside %s guides it", folder, source.name)
        return []
    for name in {
        *all_there.misnamed.get(source.stem, ()),
        *all_there.misnamed.get(source.name, ()),
    }:
        if name != source.name:
            log.warning(
                "%s: guides nothing; expected a name as %s.reference.png or %s.hints.png",
                folder / name,
                source.stem,
                source.stem,
            )
    bases = dict.fromkeys((source.name, source.stem, ""))
    return [each for base in bases for each in all_there.by_base.get(base, ())]


@dataclass(frozen=True)
class _All:
    """The sidecars in a folder by their bases, and names that are nearly those of sidecars."""

    by_base: dict[str, list[_Beside]] = field(default_factory=dict)
    misnamed: dict[str, list[str]] = field(default_factory=dict)


@lru_cache(maxsize=16)
def _sidecars_in(folder: Path, top: Path | None, state: tuple[int, int, int]) -> _All:
    """All sidecars in a folder. state: part of the cache key; changes whenever a name in the folder
    does. Ten thousand photos in one folder ask for the same."""
    del state
    found = _All()
    with _listing(folder, top) as (here, names):
        for name in filter(may_be_sidecar, names):
            said = sidecar_file(name)
            is_folder = said is None
            said = said or sidecar_folder(name)
            # Links count as well, so that they are opened and refused instead of passed over.
            if said is not None and is_folder == (here / name).is_dir():
                beside = _Beside(folder / name, said, is_folder)
                found.by_base.setdefault(said.base, []).append(beside)
            elif said is None and (base := misnamed_base(name)) is not None:
                found.misnamed.setdefault(base, []).append(name)
    return found


@contextmanager
def _listing(folder: Path, top: Path | None) -> Iterator[tuple[Path, list[str]]]:
    """A safe path of a folder, and the names in it. Raises what `_opened_folder` does."""
    with _opened_folder(folder, top) as here:
        yield here, os.listdir(here)  # noqa: PTH208  (three times as fast, of 100,000)


@contextmanager
def _opened_folder(folder: Path, top: Path | None) -> Iterator[Path]:
    """A path of a folder that is safe to use, and short below `top`. Raises OSError, and MediaError
    for a link below `top`."""
    try:
        with nullcontext(folder) if top is None else anchored(top, folder) as here:
            yield here
    except Obstructed as error:
        raise MediaError(f"{error.filename}: {error.strerror}") from None


def _closest(source: Path, beside: Sequence[_Beside], role: Role) -> list[_Beside]:
    """Files of a role; film.mp4.reference.jpg stands above film.reference.jpg, which is for
    film.avi as well."""
    files = [each for each in beside if each.name.role == role and not each.is_folder]
    full = [each for each in files if each.name.base == source.name]
    return sorted(full or files, key=lambda each: each.path)


def _distance(source: Path) -> Callable[[_Beside], int]:
    """The place of a folder in the order in which they count."""
    return lambda folder: [source.name, source.stem, ""].index(folder.name.base)


def _sidecar(beside: _Beside, top: Path | None) -> Sidecar:
    return Sidecar(beside.path, beside.name.role, beside.name.when, top)


def _picture(found: Sidecar) -> GuidePicture:
    """A picture with its times and its hash."""
    start, end = _times(found)
    try:
        with opened_picture(found.path, found.top) as file:
            digest = digest_of(file)
    except OSError as error:
        if error.errno == errno.ENOENT and found.was_listed:
            raise GuideChanged(f"{found.path}: was removed just now") from None
        if error.errno not in _REFUSED:
            raise
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise MediaError(f"{found.path}: cannot be read: {reason}; expected a picture") from None
    return GuidePicture(found.path, found.role, digest, start, end, found.top)


def digest_of(file: OpenedSource) -> str:
    """The sha256 of a picture's file. Raises MediaError for one that is too large, and OSError."""
    if (size := file.stat().st_size) > MOST_BYTES:
        raise MediaError(f"{file}: found {size} bytes, expected {MOST_BYTES} at most")
    signature = signature_from(file.stat())
    is_settled = time.time() - signature.ctime_ns / 1e9 > _TICK_SECONDS
    return (_digest if is_settled else _digest.__wrapped__)(file, signature)


@lru_cache(maxsize=1024)
def _digest(file: OpenedSource, signature: Signature) -> str:
    """signature: part of the cache key. Many files may share their references."""
    del signature
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _times(found: Sidecar) -> tuple[float | None, float | None]:
    """Start and end of a picture in seconds. Raises MediaError."""
    if found.when is None:
        return None, None
    try:
        return (parse_time(found.when), None) if found.role == "hints" else parse_range(found.when)
    except ValueError as error:
        raise MediaError(f"{found.path}: {error}") from None


def _may_be_source(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return suffix in PHOTO_SUFFIXES | FILM_SUFFIXES and sidecar_file(name) is None
