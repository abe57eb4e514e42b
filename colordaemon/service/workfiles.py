"""The hidden files of unfinished work beside the results, and the end of those nobody needs."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Container
from pathlib import Path

log = logging.getLogger(__name__)


def tag_of(token: str, job: int) -> str:
    """The beginning of the names of a job's files. token: tells journals apart."""
    return f".colordaemon-{token}-{job}"


def remove_work(folder: Path, tag: str) -> None:
    """All that a job has left in a folder."""
    for path in (folder / f"{tag}.partial", folder / f"{tag}.work"):
        _remove(path)


def sweep(outbox: Path, token: str, needed: Container[int]) -> int:
    """Remove what jobs that have come to an end left anywhere; returns how many there were."""
    ours = re.compile(rf"\.colordaemon-{re.escape(token)}-(\d+)\.(partial|work)")
    removed = 0
    for folder, folders, files in os.walk(outbox):
        for name in (*folders, *files):
            match = ours.fullmatch(name)
            if match and int(match[1]) not in needed:
                _remove(Path(folder) / name)
                removed += 1
        folders[:] = [name for name in folders if not ours.fullmatch(name)]
    return removed


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot remove %s: %s", path, error.strerror)
