"""Checks of the folders of a daemon: whether they can be used, and what is beneath them."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from colordaemon.config import Config
from colordaemon.doctor.finding import Finding, fault, ok, warning
from colordaemon.inbox.events import is_short_of_watches
from colordaemon.inbox.folders import Folders, file_system_of, is_remote
from colordaemon.logs import counted

_LIMITS = Path("/proc/sys/fs/inotify")
_COUNTED = 200_000  # folders at most; with more a scan of the inbox takes minutes


def folders(config: Config, all_folders: Sequence[Folders]) -> Iterator[Finding]:
    """Each inbox, outbox, archive and the state folder, for the user who asks."""
    for each in all_folders:
        yield from _inbox(each, config)
        for name, folder in each.written:
            yield from _written(name, folder, config.jobs.free_mib)
        if each.archive and _device(each.archive) != _device(each.inbox):
            yield fault(
                each.written[-1][0],
                f"{each.archive} is on another file system than {each.inbox}",
                "choose an archive on the same, where a file is moved in one step",
            )
    state = all_folders[0].state
    if is_remote(state):
        yield fault(
            "state_dir",
            f"{state} is on {file_system_of(state)}, where SQLite's journal is not safe",
            "choose a folder on a disk of this machine",
        )
    else:
        yield from _written("state_dir", state, 0)


def _inbox(each: Folders, config: Config) -> Iterator[Finding]:
    name, inbox = f"{each.label}inbox", each.inbox
    if not inbox.is_dir():
        yield fault(name, f"{inbox} is no folder, or not mounted", f"mkdir -p {inbox}")
        return
    removes = config.after.source != "keep"
    wanted = os.R_OK | os.X_OK | (os.W_OK if removes else 0)
    if not os.access(inbox, wanted):
        needed = "read and written" if removes else "read"
        found = f"{inbox} ({_owner(inbox)}) cannot be {needed} by {_me()}"
        yield fault(name, found, _grant(inbox))
        return
    said = f"{inbox}, {_owner(inbox)}, {file_system_of(inbox) or 'unknown file system'}"
    if is_remote(inbox):
        said += f"; changes by others are seen every {config.watch.poll_seconds:g} s"
    yield ok(name, said)


def _written(name: str, folder: Path, free_mib: int) -> Iterator[Finding]:
    """A folder that results or records are written to; the daemon makes one that is missing."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there != folder and not os.access(there, os.W_OK | os.X_OK):
        yield fault(name, f"{folder} is missing, and {_me()} cannot make it", f"mkdir -p {folder}")
        return
    if not there.is_dir():
        yield fault(name, f"{there} is no folder", f"move {there} away")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        found = f"{there} ({_owner(there)}) cannot be written by {_me()}"
        yield fault(name, found, _grant(there))
        return
    free = shutil.disk_usage(there).free >> 20
    said = f"{folder}, {_owner(there) if there == folder else 'not made yet'}, {free} MiB free"
    if free < free_mib:
        yield fault(
            name,
            f"{said}, {free_mib} wanted",
            f"free space on {_mount(there)}, or lower jobs.free_mib",
        )
    else:
        yield ok(name, f"{said}, {file_system_of(there) or 'unknown file system'}")


def inotify(all_folders: Sequence[Folders], limits: Path = _LIMITS) -> Iterator[Finding]:
    """Whether the kernel's limit of watches is enough for the folders of all local inboxes."""
    local = [each.inbox for each in all_folders if not is_remote(each.inbox)]
    inside = chain.from_iterable(map(_folders_below, local))
    needed = sum(1 for _, _ in zip(inside, range(_COUNTED), strict=False))
    try:
        most = int((limits / "max_user_watches").read_text())
    except (OSError, ValueError):
        yield warning("inotify", "the kernel's limits cannot be read", "none needed: scans go on")
        return
    said = f"{counted(needed, 'folder')} to watch, {most} watches allowed to one user"
    mend = f"sysctl -w fs.inotify.max_user_watches={max(524288, 2 * needed)}"
    if needed >= most or is_short_of_watches():
        used = "" if needed >= most else "; none is left"
        yield warning("inotify", f"{said}{used}: new files are found by scans only", mend)
    else:
        yield ok("inotify", said)


def _folders_below(inbox: Path) -> Iterator[str]:
    """Every folder that gets a watch; those that cannot be read get none."""
    for folder, _, _ in os.walk(inbox):
        yield folder


def _device(path: Path) -> int | None:
    """The file system of a path, or of the folder that it will be made in."""
    for each in (path, *path.parents):
        with suppress(OSError):
            return each.stat().st_dev
    return None


def _mount(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.is_mount())


def _owner(path: Path) -> str:
    found = path.stat()
    return f"of {_user(found.st_uid)}, mode {found.st_mode & 0o7777:04o}"


def _me() -> str:
    return _user(os.geteuid())


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _grant(folder: Path) -> str:
    return f"chgrp colordaemon {folder} && chmod 2775 {folder}, or run as its owner"
