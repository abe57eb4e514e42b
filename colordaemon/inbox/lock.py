"""One daemon per state folder, and one per inbox: locks that the kernel lets go of with us.

The one that decides is on a file in the state folder that nobody else can open. One on an inbox can
be taken by whoever may look into it, as backup programs do: it is waited for, and named.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from colordaemon.errors import ConfigError

_LOCK_FILE = "daemon.lock"


@contextmanager
def locked_state(state: Path) -> Iterator[None]:
    """Hold the state folder for as long as this process lives.

    Raises ConfigError when another process holds it, and OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(state / _LOCK_FILE, flags, 0o600)
    try:
        if os.geteuid() == 0:  # asked by root, it must not be in the daemon's way
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
    """Hold an inbox, so that no daemon with another state folder works with it. Nothing is written.

    insists: to go on without the lock where it is another user's, neither root's nor ours: nobody
    can hold up the work of all others for ever. Raises BlockingIOError that says who holds it.
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
    """A process that holds a lock. user: -1 of one that is hidden from us, which ours are not."""

    process: int
    user: int
    name: str

    def __str__(self) -> str:
        return f"process {self.process} ({self.name})"


def _holder(found: os.stat_result, proc: Path = Path("/proc")) -> _Holder | None:
    """Who holds a folder, as far as the kernel tells us."""
    inode = str(found.st_ino)
    with suppress(OSError):
        for line in (proc / "locks").read_text().splitlines():
            # "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; waiting ones begin with "1: ->".
            # The device is not compared: that of some file systems is another than a look tells.
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
