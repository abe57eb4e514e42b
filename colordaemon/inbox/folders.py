"""The folders of a daemon: their rules, their file systems and their locks.

An outbox inside an inbox would be an endless loop: every result would be a new source.

Only one daemon may use a state folder, and only one an inbox. The kernel releases these locks when
the process ends. The lock on a file in the state folder is decisive, since no other user can open
that file. A lock on an inbox can be taken by everybody who may read the folder, as backup programs
do: then the daemon waits for it and names the program.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from colordaemon.config import Config
from colordaemon.errors import NO_SPACE, OF_DISKS, ConfigError

log = logging.getLogger(__name__)
# For these the kernel reports only changes by this machine, and none by others.
_REMOTE = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|ceph|glusterfs|lustre|9p|afs|virtiofs|fuse(\..+)?")
_LOCK_FILE = "daemon.lock"


@dataclass(frozen=True)
class Folders:
    """The folders of one inbox; every path is absolute and without symbolic links.

    state: of the daemon, the same for all its inboxes. archive: where sources of finished files are
    moved to, or None. label: the prefix of its settings in messages, as in "inboxes.2.".
    shares_outbox: whether another inbox has the same outbox.
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
    def thumbnails(self) -> Path:
        return self.state / "thumbnails"

    @property
    def failed(self) -> Path:
        """The folder for the reasons of failed files. Results of two inboxes in one outbox get
        numbers if their names are the same; the reasons are in separate folders instead."""
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


def find_folders(config: Config) -> tuple[Folders, ...]:
    """The folders of a configuration, for each inbox. Raises ConfigError with all that is wrong."""
    if missing := [*_missing(config)]:
        raise ConfigError("\n".join(missing))
    assert config.state_dir
    found, entries = [], config.all_inboxes
    outboxes = [os.path.realpath(entry.outbox) for entry in entries]
    for number, (entry, outbox) in enumerate(zip(entries, outboxes, strict=True), start=1):
        archive = (entry.archive or config.after.archive) if _moves(config) else None
        found.append(
            Folders(
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


def check_folders(all_folders: Sequence[Folders]) -> None:
    """Raises ConfigError if results of an inbox would get into it or another inbox.

    `find_folders` checks that too, but only an inbox that exists can be checked for links.
    """
    if mistakes := [*_mistakes(all_folders)]:
        raise ConfigError("\n".join(mistakes))


def expect_inbox(folders: Folders) -> None:
    """Raises ConfigError if the inbox cannot exist: it is no folder, or not even the first folder
    of its path exists.

    An inbox that is missing otherwise may be on a disk that is not mounted yet.
    """
    name, inbox = f"{folders.label}inbox", folders.inbox
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


def make_folders(folders: Folders) -> None:
    """Make the folders of an inbox that exists, and try to write to them.

    Raises ConfigError, before an hour of work is lost. Raises OSError for a disk that is full,
    read-only or failing, which may pass.
    """
    for name, folder in folders.written:
        _make(name, folder)
    if folders.archive:
        name, archive = folders.written[-1]
        _check_moves(name, folders.inbox, archive)


def _check_moves(name: str, inbox: Path, archive: Path) -> None:
    """Try to move a folder: there may be a mount between two folders of one file system."""
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
    """Make the folder of the journal, and try to write there. Raises what `make_folders` does."""
    _make("state_dir", state)
    if is_remote(state):
        raise ConfigError(
            f"state_dir: {state} is on a network file system, where SQLite's journal is not "
            "safe; expected a disk of this machine"
        )
    _check_links(state)
    found = state.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
        log.warning(
            "state_dir: users who are neither root nor ours can write to %s, and could put another "
            "journal there; expected a folder of our own, with mode 0750 or less",
            state,
        )


def _check_links(state: Path) -> None:
    """Whoever could write there might lead the journal to any file. Raises ConfigError."""
    for path in state.iterdir():
        if path.is_symlink() and (path.name == _LOCK_FILE or path.name.startswith("journal.")):
            raise ConfigError(f"state_dir: {path} is a symbolic link, expected a file; remove it")


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


def _mistakes(all_folders: Sequence[Folders]) -> Iterator[str]:
    for one, other in combinations(all_folders, 2):
        name = f"{other.label}inbox: {other.inbox}"
        if _same(one.inbox, other.inbox):
            yield f"{name} is {one.label}inbox as well; expected another folder"
        elif _inside(other.inbox, one.inbox):
            yield f"{name} lies inside the inbox {one.inbox}"
        elif _inside(one.inbox, other.inbox):
            yield f"{name} holds the inbox {one.inbox}"
    written = [("state_dir", all_folders[0].state)]
    written += [each for folders in all_folders for each in folders.written]
    for name, folder in written:
        for inbox in (folders.inbox for folders in all_folders):
            if _same(folder, inbox):
                yield f"{name}: {folder} is the inbox; expected another folder"
            elif _inside(folder, inbox):
                yield f"{name}: {folder} lies inside the inbox {inbox}"
            elif name != "state_dir" and _inside(inbox, folder):
                yield f"{name}: the inbox {inbox} lies inside {folder}"


def _inside(path: Path, folder: Path) -> bool:
    """Compares names and inodes: another mount may show the same folder elsewhere."""
    return any(_same(parent, folder) for parent in path.parents)


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def is_remote(path: Path) -> bool:
    """Whether events of a folder are incomplete; False if the file system is unknown."""
    return bool(_REMOTE.fullmatch(file_system_of(path)))


def file_system_of(path: Path) -> str:
    """The type of the file system, such as ext4, by the longest mount point of the path."""
    try:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""
    return _find(os.path.realpath(path), table)


def _find(path: str, table: str) -> str:
    best, kind = "", ""
    for line in table.splitlines():
        fields, _, described = line.partition(" - ")
        point = _unescaped(fields.split(" ")[4])
        # Of several mounts on one point the last one counts.
        if len(point) >= len(best) and (path == point or path.startswith(point.rstrip("/") + "/")):
            best, kind = point, described.split(" ")[0]
    return kind


def _unescaped(point: str) -> str:
    r"""Spaces, tabs, line ends and backslashes are written as \040 and the like."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)


@contextmanager
def locked_state(state: Path) -> Iterator[None]:
    """Hold the state folder for as long as this process lives.

    Raises ConfigError when another process holds it, and OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(state / _LOCK_FILE, flags, 0o600)
    try:
        if os.geteuid() == 0:  # made by root, the daemon must be able to open it later
            owner = state.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"state_dir: another daemon works with {state}") from None
        yield
    finally:
        os.close(handle)


@contextmanager
def locked_inbox(inbox: Path, *, insists: bool = False) -> Iterator[None]:
    """Lock an inbox, so that no daemon with another state folder uses it. Nothing is written.

    insists: go on without the lock if it belongs to another user than root or ours, so that no user
    can block the daemon for ever. Raises BlockingIOError that names the holder.
    """
    handle = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.fstat(handle))
            if not insists or holder is None or holder.user in (0, os.geteuid()):
                said = f"{holder or 'another program'} holds a lock on it"
                raise BlockingIOError(errno.EWOULDBLOCK, said, os.fspath(inbox)) from None
        except OSError:  # a network file system may know no locks
            pass
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class _Holder:
    """A process that holds a lock. user: -1 for a hidden process, which is never one of ours."""

    process: int
    user: int
    name: str

    def __str__(self) -> str:
        return f"process {self.process} ({self.name})"


def _holder(found: os.stat_result, proc: Path = Path("/proc")) -> _Holder | None:
    """The holder of a lock on a folder, if the kernel shows it."""
    inode = str(found.st_ino)
    with suppress(OSError):
        for line in (proc / "locks").read_text().splitlines():
            # "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; waiting ones begin with "1: ->".
            # The device is not compared: on some file systems it differs from that of stat.
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                return _process(proc, int(fields[4]))
    return None


def _process(proc: Path, number: int) -> _Holder:
    process = proc / str(number)
    try:
        name = (process / "comm").read_text(errors="replace").strip()
        return _Holder(number, process.stat().st_uid, name)
    except OSError:
        return _Holder(number, -1, "of another user")
