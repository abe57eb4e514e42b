"""Lines of log: for journald with a priority, for people without."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console
from rich.logging import RichHandler

from colordaemon.printable import PrintableFormatter

# Of syslog; journald reads them from the beginning of a line and takes them away.
_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class JournaldFormatter(PrintableFormatter):
    """Every line of a record bears the priority, also those of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def set_up_logging(console: Console | None = None) -> None:
    """One line per event, on standard error. console: the terminal, if there may be one."""
    handler: logging.Handler = logging.StreamHandler()
    if is_journald():
        handler.setFormatter(JournaldFormatter("%(message)s"))
    elif console is not None and console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False)
        handler.setFormatter(PrintableFormatter("%(message)s"))
    else:
        handler.setFormatter(PrintableFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("pyvips").setLevel(logging.WARNING)  # it tells of its threads


def is_journald() -> bool:
    """Whether standard error is the journal; a redirection inside a unit changes that."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
