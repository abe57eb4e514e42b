"""What a film or photo holds, and what happens to each part.

This is the one list of it: made before work begins, shown in the log, the journal and to hooks.
Whoever finds out that something is kept, converted or left out adds an entry; nothing is left out
without one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal[
    "film", "sound", "subtitles", "captions", "video", "data", "attachment", "timecode",
    "chapters", "tags", "side data", "shape", "color", "time",
    "photo", "pictures", "planes", "profile",
]  # fmt: skip
Fate = Literal["kept", "converted", "left out"]
OLD = "it describes the old file"
# A film that would lose these fails, unless the loss is accepted.
GRAVE: frozenset[Kind] = frozenset(("sound", "subtitles", "captions"))
KIND_OF_STREAM: dict[str, Kind] = {
    "audio": "sound",
    "subtitle": "subtitles",
    "video": "video",
    "attachment": "attachment",
}


@dataclass(frozen=True)
class Entry:
    """One part. what: a description, with the stream's number if it is one. how: to what it was
    converted, or why it is left out."""

    kind: Kind
    what: str
    fate: Fate = "kept"
    how: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.fate}" + (f": {self.how}" if self.how else "")


Inventory = tuple[Entry, ...]


def grave_losses(entries: Iterable[Entry]) -> list[Entry]:
    return [e for e in entries if e.fate == "left out" and e.kind in GRAVE]


class Note(str):
    """A remark on something that comes out differently without a loss, and without lacking
    anything that was asked for by name. It is logged as INFO; all other remarks are warnings."""

    __slots__ = ()


def level_of(remark: str) -> int:
    """How loudly a remark is said."""
    return logging.INFO if isinstance(remark, Note) else logging.WARNING


def remarks(entries: Iterable[Entry]) -> list[str]:
    """Remarks about parts that are changed or lost, except for expected changes."""
    return [
        Note(entry) if entry.fate == "converted" and entry.kind == "sound" else str(entry)
        for entry in entries
        if _is_told(entry)
    ]


def _is_told(entry: Entry) -> bool:
    if entry.fate == "left out":
        return entry.how != OLD
    return entry.fate == "converted" and entry.kind in (*GRAVE, "color")


def as_plain(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(entry) for entry in entries]
