"""The folders that a daemon works between, and why some of them do not go together.

An output inside the input would be taken for new input, for ever: the oldest bug of watch folders.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from colordaemon.config import Config
from colordaemon.errors import NO_SPACE, OF_DISKS, ConfigError
from colordaemon.inbox.mounts import is_remote


@dataclass(frozen=True)
class Places:
    """Where the files of one inbox come from and go to; every path is absolute and free of symbolic
    links.

    state: of the daemon, the same for all its inboxes. archive: where sources of finished files are
    moved to, or None. label: what the names of settings begin with, as in "inboxes.2.".
    shares_outbox: whether another inbox has the same one.
    """

    inbox: Path
    outbox: Path
    state: Path
    archive: Path | None = None
    label: str = field(default="", compare=False)
    shares_outbox: bool = field(default=False, compare=False)

    @property
    def journal(self) -> Path:
        return self.state / "journal.sqlite3"

    @property
    def control(self) -> Path:
        return self.state / "control.sock"

    @property
    def failed(self) -> Path:
        """Where the reasons of failed files go. Results of two inboxes in one outbox get numbers
        where their names are the same; reasons lie apart instead."""
        failed = self.outbox / "failed"
        return failed / self.inbox.relative_to("/") if self.shares_outbox else failed

    def relative(self, source: Path) -> Path:
        return source.relative_to(self.inbox)

    @property
    def written(self) -> list[tuple[str, Path]]:
        """The folders of this inbox that are written to, by the names of their settings."""
        archive = "archive" if self.label else "after.archive"
        written = [(f"{self.label}outbox", self.outbox)]
        return written + ([(f"{self.label}{archive}", self.archive)] if self.archive else [])


def find_places(config: Config) -> tuple[Places, ...]:
    """The folders of a configuration, for each inbox. Raises ConfigError with all that is wrong."""
    if missing := [*_missing(config)]:
        raise ConfigError("\n".join(missing))
    assert config.state_dir
    found, entries = [], config.all_inboxes
    outboxes = [os.path.realpath(entry.outbox) for entry in entries]
    for number, (entry, outbox) in enumerate(zip(entries, outboxes, strict=True), start=1):
        archive = (entry.archive or config.after.archive) if _moves(config) else None
        found.append(
            Places(
                Path(os.path.realpath(entry.inbox)),
                Path(outbox),
                Path(os.path.realpath(config.state_dir)),
                archive and Path(os.path.realpath(archive)),
                label=f"inboxes.{number}." if config.inboxes else "",
                shares_outbox=outboxes.count(outbox) > 1,
            )
        )
    mistakes = [*_mistakes(found)]
    if config.output.folder is not None:
        mistakes.append("output.folder: watch writes to outbox; expected null")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return tuple(found)


def check_places(all_places: Sequence[Places]) -> None:
    """Raises ConfigError where one would feed another, or itself.

    `find_places` has seen to that, but what an inbox is that was missing shows when it comes.
    """
    if mistakes := [*_mistakes(all_places)]:
        raise ConfigError("\n".join(mistakes))


def expect_inbox(places: Places) -> None:
    """Raises ConfigError where there can be no inbox: where something else stands there, or not
    even the first folder of the path exists.

    One that is missing otherwise may lie on a disk that is not mounted, and is waited for.
    """
    name, inbox = f"{places.label}inbox", places.inbox
    for path in (inbox, *inbox.parents):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return  # a share that is down, for instance
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"{name}: {path} is no folder")
        if path == path.parent:
            raise ConfigError(f"{name}: there is no {inbox}, and no /{inbox.parts[1]} either")
        return


def make_places(places: Places) -> None:
    """Make the folders that belong to an inbox which is there, and try to write to them.

    Raises ConfigError: better now than after an hour of work. Raises OSError for a disk that is
    full, read-only or broken, and may be well again later.
    """
    for name, folder in places.written:
        _make(name, folder)
    if places.archive:
        name, archive = places.written[-1]
        _check_moves(name, places.inbox, archive)


def _check_moves(name: str, inbox: Path, archive: Path) -> None:
    """Move a file on trial: a mount may lie between two folders of one file system."""
    try:
        with tempfile.TemporaryDirectory(".trial", ".colordaemon-", inbox) as trial:
            moved = archive / Path(trial).name
            Path(trial).rename(moved)
            moved.rename(trial)
    except OSError as error:
        if error.errno in NO_SPACE | OF_DISKS:
            raise
        if error.errno == errno.EXDEV:
            raise ConfigError(
                f"{name}: {archive} is on another file system or mount than {inbox}; expected the "
                "same, where a file is moved in one step"
            ) from error
        raise ConfigError(f"{name}: cannot move {inbox} to {archive}: {error.strerror}") from error


def make_state(state: Path) -> None:
    """Make the folder of the journal, and try to write there. Raises what `make_places` does."""
    _make("state_dir", state)
    if is_remote(state):
        raise ConfigError(
            f"state_dir: {state} is on a network file system, where SQLite's journal is not "
            "safe; expected a disk of this machine"
        )


def _make(name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"{name}: cannot write to {folder}: {error.strerror}"
        if error.errno in NO_SPACE | OF_DISKS:
            raise OSError(error.errno, reason) from error
        raise ConfigError(reason) from error


def _moves(config: Config) -> bool:
    return config.after.source == "move"


def _missing(config: Config) -> Iterator[str]:
    names = ("state_dir",) if config.inboxes else ("inbox", "outbox", "state_dir")
    for name in names:
        if getattr(config, name) is None:
            yield f"{name}: found nothing, expected the path of a folder"
    archived = bool(config.inboxes) and all(entry.archive for entry in config.inboxes)
    if _moves(config) and config.after.archive is None and not archived:
        yield "after.archive: found nothing, expected a folder, since after.source is move"


def _mistakes(all_places: Sequence[Places]) -> Iterator[str]:
    for one, other in combinations(all_places, 2):
        name = f"{other.label}inbox: {other.inbox}"
        if _same(one.inbox, other.inbox):
            yield f"{name} is {one.label}inbox as well; expected another folder"
        elif _inside(other.inbox, one.inbox):
            yield f"{name} lies inside the inbox {one.inbox}"
        elif _inside(one.inbox, other.inbox):
            yield f"{name} holds the inbox {one.inbox}"
    written = [("state_dir", all_places[0].state)]
    written += [each for places in all_places for each in places.written]
    for name, folder in written:
        for inbox in (places.inbox for places in all_places):
            if _same(folder, inbox):
                yield f"{name}: {folder} is the inbox; expected another folder"
            elif _inside(folder, inbox):
                yield f"{name}: {folder} lies inside the inbox {inbox}"
            elif name != "state_dir" and _inside(inbox, folder):
                yield f"{name}: the inbox {inbox} lies inside {folder}"


def _inside(path: Path, folder: Path) -> bool:
    """By name, and by what the folders are: another mount may show the same folder elsewhere."""
    return any(_same(parent, folder) for parent in path.parents)


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False
