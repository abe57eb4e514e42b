"""The items of a HEIC or AVIF file: its pictures, and what belongs to them or stands beside them.

Layout: ISO/IEC 23008-12 and 14496-12, section 8.11.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from colordaemon.errors import MediaError
from colordaemon.media.boxes import split, top_level

_MOST_BYTES = 1 << 24  # of the boxes that list the items; a picture of 10,000 tiles has a megabyte
_PICTURES = frozenset((b"hvc1", b"av01", b"grid", b"iden", b"iovl", b"tmap", b"avc1", b"jpeg"))
_PARTS = frozenset((b"dimg", b"thmb", b"auxl"))  # what makes a picture a part of another


@dataclass(frozen=True)
class Items:
    """kinds: four letters of each item by its number. references: kind, from, to. primary: the
    number of the picture that is shown."""

    kinds: dict[int, bytes]
    references: tuple[tuple[bytes, int, int], ...]
    primary: int

    def of_kind(self, kind: bytes) -> list[int]:
        return [number for number, found in self.kinds.items() if found == kind]

    def referring(self, kind: bytes) -> list[int]:
        """Items that are to another what the kind of reference says: thumbnails, planes."""
        return [*dict.fromkeys(start for name, start, _ in self.references if name == kind)]

    def further_pictures(self) -> list[int]:
        """Pictures beside the one that is shown, which are no part of any other."""
        parts = {end if name == b"dimg" else start
                 for name, start, end in self.references if name in _PARTS}  # fmt: skip
        pictures = (number for number, kind in self.kinds.items() if kind in _PICTURES)
        return [number for number in pictures if number not in parts | {self.primary}]


def items_of(path: Path) -> Items:
    """Raises MediaError for what is damaged."""
    try:
        boxes = dict(split(_meta(path)[4:]))
        (primary,) = struct.unpack_from(">I" if boxes[b"pitm"][0] else ">H", boxes[b"pitm"], 4)
        kinds = dict(_kinds(boxes[b"iinf"]))
        return Items(kinds, tuple(_references(boxes.get(b"iref", b""))), primary)
    except (MediaError, KeyError, IndexError, struct.error) as error:
        raise MediaError(f"{path}: its list of items is damaged, expected a HEIF file") from error


def _meta(path: Path) -> bytes:
    with path.open("rb") as file:
        for kind, offset, header, size in top_level(file):
            if kind == b"meta":
                file.seek(offset + header)
                return file.read(min(size - header, _MOST_BYTES))
    raise MediaError(f"{path}: no list of items, expected a HEIF file")


def _kinds(data: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, entry in split(data[6:] if data[0] == 0 else data[8:]):
        if kind == b"infe" and entry[0] in (2, 3):
            wide = entry[0] == 3
            (number,) = struct.unpack_from(">I" if wide else ">H", entry, 4)
            start = 10 if wide else 8
            yield number, entry[start : start + 4]


def _references(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    if not data:
        return
    code = ">I" if data[0] else ">H"
    size = struct.calcsize(code)
    for kind, body in split(data[4:]):
        (start,) = struct.unpack_from(code, body)
        (count,) = struct.unpack_from(">H", body, size)
        for number in range(count):
            (end,) = struct.unpack_from(code, body, size + 2 + number * size)
            yield kind, start, end
