"""The folders that a daemon works between, and why some of them do not go together.

An output inside the input would be taken for new input, for ever: the oldest bug of watch folders.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.service.mounts import is_remote


@dataclass(frozen=True)
class Places:
    """Where files come from and go to; every path is absolute and free of symbolic links.

    archive: where sources of finished files are moved to, or None.
    """

    inbox: Path
    outbox: Path
    state: Path
    archive: Path | None = None

    @property
    def journal(self) -> Path:
        return self.state / "journal.sqlite3"

    @property
    def control(self) -> Path:
        return self.state / "control.sock"

    @property
    def failed(self) -> Path:
        """Where the reasons of failed files go."""
        return self.outbox / "failed"

    def relative(self, source: Path) -> Path:
        return source.relative_to(self.inbox)


def find_places(config: Config) -> Places:
    """The folders of a configuration. Raises ConfigError with all that is wrong with them."""
    missing = [
        f"{name}: found nothing, expected the path of a folder"
        for name in ("inbox", "outbox", "state_dir")
        if getattr(config, name) is None
    ]
    if config.after.source == "move" and config.after.archive is None:
        missing.append(
            "after.archive: found nothing, expected a folder, since after.source is move"
        )
    if missing:
        raise ConfigError("\n".join(missing))
    assert config.inbox and config.outbox and config.state_dir
    archive = config.after.archive if config.after.source == "move" else None
    places = Places(
        Path(os.path.realpath(config.inbox)),
        Path(os.path.realpath(config.outbox)),
        Path(os.path.realpath(config.state_dir)),
        archive and Path(os.path.realpath(archive)),
    )
    if mistakes := _mistakes(places, config):
        raise ConfigError("\n".join(mistakes))
    return places


def make_places(places: Places) -> None:
    """Make the folders of our own and try to write there. The inbox has to be there already.

    Raises ConfigError: better now than after an hour of work.
    """
    if not places.inbox.is_dir():
        raise ConfigError(f"inbox: {places.inbox} is no folder")
    for name, folder in _written(places):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigError(f"{name}: cannot write to {folder}: {error.strerror}") from error
    if places.archive and places.archive.stat().st_dev != places.inbox.stat().st_dev:
        raise ConfigError(
            f"after.archive: {places.archive} is on another file system than {places.inbox}; "
            "expected the same, where a file is moved in one step"
        )
    if is_remote(places.state):
        raise ConfigError(
            f"state_dir: {places.state} is on a network file system, where SQLite's journal is not "
            "safe; expected a disk of this machine"
        )


def _written(places: Places) -> list[tuple[str, Path]]:
    written = [("outbox", places.outbox), ("state_dir", places.state)]
    return written + ([("after.archive", places.archive)] if places.archive else [])


def _mistakes(places: Places, config: Config) -> list[str]:
    found = []
    for name, folder in _written(places):
        if _same(folder, places.inbox):
            found.append(f"{name}: {folder} is the inbox; expected another folder")
        elif _inside(folder, places.inbox):
            found.append(f"{name}: {folder} lies inside the inbox {places.inbox}")
        elif name != "state_dir" and _inside(places.inbox, folder):
            found.append(f"{name}: the inbox {places.inbox} lies inside {folder}")
    if config.output.folder is not None:
        found.append("output.folder: watch writes to outbox; expected null")
    return found


def _inside(path: Path, folder: Path) -> bool:
    """By name, and by what the folders are: another mount may show the same folder elsewhere."""
    return any(_same(parent, folder) for parent in path.parents)


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False
