"""What happens to a source once its result is safe: kept, moved, put into the trash, or deleted.

Only what the journal calls done is touched, and only if it still is the file that was colored. A
failure here is told and the result stands: coloring again would not help.
"""

from __future__ import annotations

import errno
import logging
import os
from itertools import count
from pathlib import Path

from colordaemon.service.publish import flush_folder, numbered
from colordaemon.service.scan import TRASH
from colordaemon.service.settle import signature_of

log = logging.getLogger(__name__)


def retire(
    source: Path, size: int, mtime_ns: int, action: str, inbox: Path, archive: Path | None
) -> None:
    """Deal with a source. action: keep, move, trash or delete. Says what goes wrong."""
    found = signature_of(source)
    if found is None:
        return  # somebody, or an earlier start, has dealt with it
    if (found.size, found.mtime_ns) != (size, mtime_ns):
        log.warning("%s: has changed since it was colored; left where it is", source)
        return
    try:
        if action == "delete":
            source.unlink()
            flush_folder(source.parent)
        elif action in ("move", "trash"):
            top, home = inbox, inbox / TRASH
            if action == "move" and archive is not None:
                top = home = archive
            _move(source, home / source.relative_to(inbox), top)
    except OSError as error:
        log.warning("%s: could not %s the source: %s", source, action, error.strerror or error)


def _move(source: Path, target: Path, top: Path) -> None:
    """Under a name that is free. Within one file system, since copying gigabytes would keep the
    daemon from its other duties; `make_places` sees to that.

    Folders below `top`, then the new name, are flushed before the old name ends: a disk may keep
    the changes of two folders in either order, and a power failure would leave neither name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    flush_folder(target.parent, top)
    for number in count(1):
        free = target if number == 1 else numbered(target, number)
        if not free.exists():
            _bring(source, free)
            break
        if free.samefile(source):  # a crash came between the link and the end of the old name
            break
    flush_folder(free.parent)
    source.unlink(missing_ok=True)
    flush_folder(source.parent)


def _bring(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise
        source.rename(target)  # no hard links here
