"""What happens to a source once its result is safe: kept, moved, put into the trash, or deleted.

Pictures that guide the colors of this source alone go along with it, before it, so that none is
left behind after a crash. If a source is deleted, they stay: somebody may have painted them.

Only sources of finished jobs are touched, and only if they still are the files that were colored. A
failure here is logged and tried again later; the result stays. Folders are opened first and then
used by their descriptors, so that no symbolic link in the inbox leads to the files of others.
"""

from __future__ import annotations

import logging
import os
from itertools import count
from pathlib import Path

from colordaemon.convert.publish import numbered
from colordaemon.durable import flush_folder, rename_new
from colordaemon.errors import MediaError
from colordaemon.guide.sidecars import own_sidecars
from colordaemon.inbox.safe_open import anchored, flush_beneath, look_beneath
from colordaemon.inbox.scan import TRASH
from colordaemon.inbox.stability import Signature

log = logging.getLogger(__name__)


def retire(source: Path, queued: Signature, action: str, inbox: Path, archive: Path | None) -> bool:
    """Deal with a source. action: keep, move, trash or delete. Logs errors.

    Returns whether nothing is left to do; if False, try again later.
    """
    found = look_beneath(inbox, source)
    if found is None:
        return True  # the user or an earlier start has removed it
    if not found.is_same(queued):
        log.warning("%s: has changed since it was colored; left where it is", source)
        return True
    try:
        own = [] if action == "delete" else own_sidecars(source, top=inbox)
        with anchored(inbox, source.parent) as here:
            for path in own:
                if not (here / path.name).is_symlink():  # the work never used it
                    _retire(here, path, action, inbox, archive)
            _retire(here, source, action, inbox, archive)
    except (OSError, MediaError) as error:
        reason = getattr(error, "strerror", None) or error
        log.warning("%s: could not %s the source: %s", source, action, reason)
        return False
    return True


def _retire(here: Path, source: Path, action: str, inbox: Path, archive: Path | None) -> None:
    if action == "delete":
        (here / source.name).unlink()
        flush_folder(here)
    elif action in ("move", "trash"):
        top, home = inbox, inbox / TRASH
        if action == "move" and archive is not None:
            top = home = archive
        target = home / source.relative_to(inbox)
        with anchored(top, target.parent, make=True) as there:
            flush_beneath(top, target.parent)
            _move(here / source.name, there / target.name)
            flush_folder(there)
        flush_folder(here)


def _move(source: Path, target: Path) -> None:
    """Rename to the first free name. Both folders are on one file system, which `make_folders`
    checks, because copying gigabytes would block the daemon."""
    for number in count(1):
        free = target if number == 1 else numbered(target, number)
        if os.path.lexists(free) and os.path.samestat(free.lstat(), source.lstat()):
            source.unlink()  # a crash came between the link and the end of the old name
            return
        try:
            rename_new(source, free)
        except FileExistsError:
            continue
        return
