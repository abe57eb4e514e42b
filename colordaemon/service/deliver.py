"""Finished files get their names, with the journal as witness.

The journal is told which file (device, inode, size) is about to get which name. So after a crash at
any point the file is recognized wherever it stands, and never taken for somebody else's:

| the power fails …          | on disk afterwards        | the next start                     |
|----------------------------|---------------------------|------------------------------------|
| before the journal is told | the partial, row running  | colors again, over the partial     |
| after it                   | the partial               | links it                           |
| after the link             | both names of one file    | removes the partial                |
| after the partial is gone  | the target                | has nothing to do                  |
| after the folder is synced | the target                | has nothing to do                  |

A file of another's that holds the name stays; ours becomes "name (2)".
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

from colordaemon.errors import TargetExists
from colordaemon.service.job import Job, Partial
from colordaemon.service.publish import flush_folder, numbered, publish

Tell = Callable[[Path, Partial], None]  # that this file is going to get this name


def deliver(partial: Partial, wanted: Path, tell: Tell, *, overwrite: bool, top: Path) -> Path:
    """Give a finished file its name, or the next that is free. Returns the name it got.

    overwrite: whether a file that has the name already is replaced. top: the outbox.
    """
    for number in count(1):
        target = wanted if number == 1 else numbered(wanted, number)
        if not overwrite and target.exists():
            continue
        tell(target, partial)
        try:
            publish(partial.path, target, overwrite=overwrite, top=top)
        except TargetExists:
            continue
        return target
    raise AssertionError


def deliver_again(job: Job, tell: Tell, *, overwrite: bool, top: Path) -> Path | None:
    """Go on where a crash has interrupted `deliver`. None: the file is lost, color it again."""
    partial, target = job.partial, job.target
    assert partial is not None and target is not None
    if partial.is_at(target):
        partial.path.unlink(missing_ok=True)
        flush_folder(target.parent, top)
        return target
    if not partial.is_at(partial.path):
        return None
    if _is_our_placeholder(target):
        target.unlink()
    return deliver(partial, target, tell, overwrite=overwrite, top=top)


def _is_our_placeholder(target: Path) -> bool:
    """Where there are no hard links, `publish` keeps a name free with an empty file."""
    return target.is_file() and not target.is_symlink() and target.stat().st_size == 0
