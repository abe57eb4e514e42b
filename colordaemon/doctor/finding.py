"""What a check has found: a line that says how things are, and how to mend them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """WARNING: work goes on, though slower or with a risk. FAULT: it does not."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """about: what was looked at. mend: the command or act that puts it right, empty if nothing is
    wrong."""

    level: Level
    about: str
    found: str
    mend: str = ""


def ok(about: str, found: str) -> Finding:
    return Finding(Level.OK, about, found)


def warning(about: str, found: str, mend: str) -> Finding:
    return Finding(Level.WARNING, about, found, mend)


def fault(about: str, found: str, mend: str) -> Finding:
    return Finding(Level.FAULT, about, found, mend)


def findings_of(about: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a check finds. A check that fails itself is a fault, and the others still run."""
    try:
        yield from check()
    except Exception as error:
        found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        yield fault(about, found.replace("\n", "; "), "see the message")
