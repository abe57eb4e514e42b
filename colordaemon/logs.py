r"""Formats log lines: with a priority for journald, without one for people.

Control characters are shown as \n or \x1b. A file name may hold line ends and terminal commands,
which could otherwise forge log lines or clear the screen.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# C0 and C1 controls, Unicode's line ends and changes of direction, and bytes that are no text.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Any text on one line, for a terminal or a log."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def counted(number: int, thing: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def clock_time(seconds: float) -> str:
    """ "1:05" for 65 seconds, "1:00:00" for an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class PrintableFormatter(logging.Formatter):
    """One line for each record. Tracebacks are indented, so that none of their lines looks like a
    record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (named by logging)
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)


# Of syslog; journald reads and removes them at the beginning of a line.
_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class JournaldFormatter(PrintableFormatter):
    """Begins every line of a record with its priority, also those of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


class _TerminalHandler(logging.Handler):
    """Lines in color, above a bar of progress. rich is imported for the first of them: commands
    that log nothing shall not wait for it."""

    def __init__(self, terminal: Callable[[], Console]) -> None:
        super().__init__()
        self._terminal = terminal
        self._handler: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self._handler is None:
            from rich.logging import RichHandler

            self._handler = RichHandler(console=self._terminal(), show_path=False, show_time=False)
            self._handler.setFormatter(self.formatter)
        self._handler.emit(record)


def set_up_logging(terminal: Callable[[], Console] | None = None) -> None:
    """One line per event, on standard error. terminal: writes there, where that is one."""
    handler: logging.Handler = logging.StreamHandler()
    if is_journald():
        handler.setFormatter(JournaldFormatter("%(message)s"))
    elif terminal is not None and sys.stderr.isatty():
        handler = _TerminalHandler(terminal)
        handler.setFormatter(PrintableFormatter("%(message)s"))
    else:
        handler.setFormatter(PrintableFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("pyvips").setLevel(logging.WARNING)  # it logs its threads


def is_journald() -> bool:
    """Whether standard error is the journal; a redirection inside a unit changes that."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
