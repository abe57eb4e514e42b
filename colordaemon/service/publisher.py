"""Gives finished files their names, and writes into the journal beforehand which file gets which.

So after a crash at any point the file (see `Partial`) is recognized, whichever name it has by then,
and is never mistaken for another program's:

| the power fails …          | on disk afterwards        | the next start                     |
|----------------------------|---------------------------|------------------------------------|
| before the journal knows   | the partial, row running  | colors again, over the partial     |
| after it                   | the partial               | gives it the name                  |
| after the name is given    | the target                | has nothing to do                  |
| ... where that takes a link| both names of one file    | removes the partial                |
| after the folder is synced | the target                | has nothing to do                  |

If another program's file has the name already, ours becomes "name (2)". Unfinished work is kept in
hidden folders beside the results.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Container
from itertools import count
from pathlib import Path

from colordaemon.convert.publish import RESULT, numbered, publish
from colordaemon.durable import LONGEST_PATH
from colordaemon.errors import MediaError, TargetExists
from colordaemon.inbox.safe_open import Obstructed, anchored, flush_beneath
from colordaemon.inbox.scan import DEEPEST
from colordaemon.service.job import Job, Partial

log = logging.getLogger(__name__)

_FOLDER_SUFFIX = ".work"
Tell = Callable[[Path, Partial], None]  # records that this file is about to get this name


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


def resume_delivery(job: Job, tell: Tell, *, overwrite: bool, top: Path) -> Path | None:
    """Go on where a crash has interrupted `deliver`. None: the file is lost, color it again. Raises
    OSError, and Obstructed if a link or file stands in the way, so that this cannot be known."""
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


def tag_of(token: str, job: int) -> str:
    """What the names of a job's work files begin with. token: identifies the journal."""
    return f".colordaemon-{token}-{job}"


def private_folder(folder: Path, name: str) -> Path:
    """A folder for unfinished work that no other user can read or write.

    If we made one of this name before, it is used again with all that is in it. If the name belongs
    to another user's folder or file, ours gets another name.
    """
    wanted = folder / f"{name}{_FOLDER_SUFFIX}"
    try:
        wanted.mkdir(mode=0o700)
    except FileExistsError:
        made = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=_FOLDER_SUFFIX, dir=folder))
        if not _are_alike(wanted, made):
            log.warning("%s was not made by colordaemon; working in %s", wanted.name, made.name)
            return made
        made.rmdir()
    return wanted


def check_length(source: Path, target: Path, tag: Path) -> None:
    """Raises MediaError for a result whose path would be too long to open."""
    longest_work = tag.with_name(f"{tag.name}.{'_' * 8}{_FOLDER_SUFFIX}") / RESULT
    length = max(len(os.fsencode(path)) for path in (target, longest_work))
    if length > LONGEST_PATH:
        raise MediaError(
            f"{source}: its result would have a path of {length} bytes, expected at most "
            f"{LONGEST_PATH}"
        )


def _are_alike(found: Path, made: Path) -> bool:
    """Whether a folder has the owner and mode of one that we have just made. On FAT and some shares
    all folders have the same, and there everybody may write everything anyway."""
    one, other = found.lstat(), made.lstat()
    return (one.st_uid, one.st_mode) == (other.st_uid, other.st_mode)


def remove_work(outbox: Path, folder: Path, tag: str) -> None:
    """Remove the work files of a job from a folder of the outbox."""
    try:
        with anchored(outbox, folder) as here:
            for path in (here / f"{tag}.partial", here / f"{tag}{_FOLDER_SUFFIX}"):
                _remove(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("cannot look into %s: %s", folder, error.strerror)


def sweep(outbox: Path, token: str, needed: Container[int]) -> int:
    """Remove work files of jobs that are not `needed`, anywhere; returns how many there were."""
    ours = re.compile(rf"\.colordaemon-{re.escape(token)}-(\d+)(\.\w+)?\.(partial|work)")
    removed, folders = 0, [(outbox, 1)]
    while folders:
        folder, depth = folders.pop()
        try:
            with anchored(outbox, folder) as here, os.scandir(here) as entries:
                for entry in entries:
                    match = ours.fullmatch(entry.name)
                    if match and int(match[1]) not in needed:
                        _remove(here / entry.name)
                        removed += 1
                    elif not match and depth < DEEPEST and entry.is_dir(follow_symlinks=False):
                        folders.append((folder / entry.name, depth + 1))
        except OSError:  # removed, or not readable to us: we have made nothing there
            continue
    return removed


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot remove %s: %s", path.name, error.strerror)
