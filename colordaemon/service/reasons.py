"""A file that failed has its reason beside the results, where its owner looks for it."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from colordaemon import __version__
from colordaemon.durable import LONGEST_NAME, replace_file
from colordaemon.inbox.safe_open import Obstructed, anchored
from colordaemon.printable import printable
from colordaemon.service.job import Job

log = logging.getLogger(__name__)

_SUFFIX = ".error.txt"


def reason_path(failed: Path, relative: Path) -> Path:
    """In the folder `failed`, in the source's own subfolder, called after the source."""
    name = os.fsencode(relative.name)
    if len(name) > LONGEST_NAME - len(_SUFFIX):
        name = name[: LONGEST_NAME - len(_SUFFIX)]
    return failed / relative.with_name(os.fsdecode(name) + _SUFFIX)


def write_reason(path: Path, top: Path, job: Job, reason: str, now: float) -> None:
    """Tell why; a folder that cannot be written is no reason for further trouble.

    top: the outbox.
    """
    when = datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds")
    text = (
        f"{printable(str(job.source))}\n"
        f"could not be colored: {printable(reason)}\n\n"
        f"The file itself is where it was. After {job.attempts} attempt(s), the last at {when}.\n"
        f"To try again, mend or replace it, or run: colordaemon retry {job.id}\n"
        f"(colordaemon {__version__})\n"
    )
    try:
        with anchored(top, path.parent, make=True) as here:
            replace_file(here / path.name, text.encode(errors="backslashreplace"))
    except OSError as error:
        log.warning("cannot write %s: %s", path, error.strerror)


def remove_reason(path: Path, top: Path) -> None:
    """The file is done after all. top: the outbox."""
    try:
        # Behind a link or a file there is none of ours.
        with suppress(FileNotFoundError, Obstructed), anchored(top, path.parent) as here:
            (here / path.name).unlink()
    except OSError as error:
        log.warning("cannot remove %s: %s", path, error.strerror)
