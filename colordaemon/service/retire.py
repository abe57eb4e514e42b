"""What happens to a source once its result is safe: kept, moved, put into the trash, or deleted.

Only what the journal calls done is touched, and only if it still is the file that was colored. A
failure here is told and the result stands: coloring again would not help. All of it is done from
the descriptors of folders, so that no link in the inbox leads to the files of others.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from itertools import count
from pathlib import Path

from colordaemon.service.beneath import folder_beneath, look_beneath
from colordaemon.service.publish import flush_folder, numbered
from colordaemon.service.scan import TRASH
from colordaemon.service.settle import Signature

log = logging.getLogger(__name__)


def retire(source: Path, queued: Signature, action: str, inbox: Path, archive: Path | None) -> None:
    """Deal with a source. action: keep, move, trash or delete. Says what goes wrong."""
    found = look_beneath(inbox, source)
    if found is None:
        return  # somebody, or an earlier start, has dealt with it
    if not found.is_same(queued):
        log.warning("%s: has changed since it was colored; left where it is", source)
        return
    try:
        with folder_beneath(inbox, source.parent) as folder:
            _retire(folder, source, action, inbox, archive)
    except OSError as error:
        log.warning("%s: could not %s the source: %s", source, action, error.strerror or error)


def _retire(folder: int, source: Path, action: str, inbox: Path, archive: Path | None) -> None:
    if action == "delete":
        os.unlink(source.name, dir_fd=folder)
        os.fsync(folder)
    elif action in ("move", "trash"):
        top, home = inbox, inbox / TRASH
        if action == "move" and archive is not None:
            top = home = archive
        target = home / source.relative_to(inbox)
        with folder_beneath(top, target.parent, make=True) as there:
            flush_folder(target.parent, top)
            _move(folder, source.name, there, target)


def _move(folder: int, name: str, there: int, target: Path) -> None:
    """Under a name that is free. Within one file system, since copying gigabytes would keep the
    daemon from its other duties; `make_places` sees to that.

    The folders on the way, then the new name, are flushed before the old name ends: a disk may keep
    the changes of two folders in either order, and a power failure would leave neither name.
    """
    for number in count(1):
        free = target.name if number == 1 else numbered(target, number).name
        if (taken := _stat(there, free)) is None:
            _bring(folder, name, there, free)
            break
        if os.path.samestat(taken, os.stat(name, dir_fd=folder, follow_symlinks=False)):
            break  # a crash came between the link and the end of the old name
    os.fsync(there)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    os.fsync(folder)


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _bring(folder: int, name: str, there: int, free: str) -> None:
    try:
        os.link(name, free, src_dir_fd=folder, dst_dir_fd=there, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise
        os.rename(name, free, src_dir_fd=folder, dst_dir_fd=there)  # no hard links here
