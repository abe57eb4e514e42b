"""Finished files get their names, with the journal as witness.

The journal is told which file (see `Partial`) is about to get which name. So after a crash at any
point the file is recognized wherever it stands, and never taken for somebody else's:

| the power fails …          | on disk afterwards        | the next start                     |
|----------------------------|---------------------------|------------------------------------|
| before the journal is told | the partial, row running  | colors again, over the partial     |
| after it                   | the partial               | gives it the name                  |
| after the name is given    | the target                | has nothing to do                  |
| ... where that takes a link| both names of one file    | removes the partial                |
| after the folder is synced | the target                | has nothing to do                  |

A file of another's that holds the name stays; ours becomes "name (2)".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

from colordaemon.convert.publish import numbered, publish
from colordaemon.errors import TargetExists
from colordaemon.inbox.safe_open import Obstructed, anchored, flush_beneath
from colordaemon.service.job import Job, Partial

Tell = Callable[[Path, Partial], None]  # that this file is going to get this name


def deliver(partial: Partial, wanted: Path, tell: Tell, *, overwrite: bool, top: Path) -> Path:
    """Give a finished file its name, or the next that is free. Returns the name it got.

    overwrite: whether a file that has the name already is replaced. top: the outbox.
    """
    with anchored(top, wanted.parent) as here:
        there = here / partial.path.relative_to(wanted.parent)
        for number in count(1):
            target = wanted if number == 1 else numbered(wanted, number)
            if not overwrite and os.path.lexists(here / target.name):
                continue
            tell(target, partial)
            try:
                publish(there, here / target.name, overwrite=overwrite)
            except TargetExists:
                continue
            flush_beneath(top, target.parent)
            return target
    raise AssertionError


def deliver_again(job: Job, tell: Tell, *, overwrite: bool, top: Path) -> Path | None:
    """Go on where a crash has interrupted `deliver`. None: the file is lost, color it again. Raises
    OSError, and Obstructed where it cannot be told."""
    partial, target = job.partial, job.target
    assert partial is not None and target is not None
    try:
        with anchored(top, target.parent) as here:
            there = here / partial.path.relative_to(target.parent)
            waits, has_name = partial.is_at(there), partial.is_at(here / target.name)
            if waits and has_name and there.samefile(here / target.name):
                there.unlink()
                waits = False
    except Obstructed:
        raise
    except (FileNotFoundError, NotADirectoryError):
        return None
    if waits:
        return deliver(partial, target, tell, overwrite=overwrite, top=top)
    if not has_name:
        return None
    flush_beneath(top, target.parent)
    return target
