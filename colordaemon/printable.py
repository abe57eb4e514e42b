r"""Text for terminals and logs, with control characters shown as \n or \x1b.

The name of a file may hold line ends and commands to the terminal: raw, they would forge lines of
the log, or clear the screen.
"""

from __future__ import annotations

import logging
import re
from typing import Any

# C0 and C1 controls, Unicode's line ends and changes of direction, and bytes that are no text.
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class PrintableFormatter(logging.Formatter):
    """A line for each record. A traceback is indented, so no line of it can pass for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (named by logging)
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {printable(line)}" for line in lines)
