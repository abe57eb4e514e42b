"""Changes a few values of EXIF blocks and leaves every other byte in its place.

Makers' notes point to themselves by their place in the block and count in its byte order, so a
block that is packed anew, or turned around, loses them. Here the values stay; only the first
directory is written once more, behind everything else, and the header points to it. Layout: TIFF
6.0, Exif 2.32.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from colordaemon.media import tiff

SOFTWARE, ORIENTATION = 305, 274
_EXIF_POINTER, _INTEROP_POINTER = 34665, 40965
_COLOR_SPACE, _PIXEL_X, _PIXEL_Y, _INTEROP_INDEX = 40961, 40962, 40963, 1
_THUMB_OFFSET, _THUMB_LENGTH = 513, 514
_ASCII, _SHORT, _LONG = 2, 3, 4
_SRGB = 1
_MOST_ENTRIES = 4096
LONGEST_IN_JPEG = 65533 - 6


@dataclass
class _Directory:
    """Raw entries of 12 bytes by their tags, where they stand, and the link to the next one."""

    start: int
    entries: dict[int, bytes]
    link: int

    def place_of(self, tag: int) -> int:
        """Where the four bytes of a tag's value stand."""
        return self.start + 2 + 12 * [*self.entries].index(tag) + 8


def is_readable(block: bytes) -> bool:
    try:
        _Block(block)
        return not tiff.is_tangled(block)
    except (struct.error, ValueError, KeyError):
        return False


def has_thumbnail(block: bytes) -> bool:
    try:
        return bool(_Block(block).thumbnail_entries())
    except (struct.error, ValueError):
        return False


def revised(
    block: bytes,
    software: str,
    orientation: int,
    size: tuple[int, int],
    thumbnail: bytes = b"",
) -> bytes:
    """The block of a colored picture, which is sRGB.

    size: its width and height. thumbnail: a JPEG in place of the one that shows it gray; empty
    leaves none. Raises struct.error or ValueError for what is no EXIF block.
    """
    found = _Block(block)
    found.cut_off_thumbnail()
    found.set_color_space()
    found.set_size(size)
    entries: dict[int, tuple[int, bytes]] = {
        SOFTWARE: (_ASCII, software.encode() + b"\0"),
    }
    if orientation != 1 or ORIENTATION in found.first.entries:
        entries[ORIENTATION] = (_SHORT, found.pack("H", orientation))
    return found.with_first_directory(entries, thumbnail)


class _Block:
    def __init__(self, block: bytes) -> None:
        self._data = bytearray(block)
        order = {b"II": "<", b"MM": ">"}.get(block[:2])
        if order is None:
            raise ValueError("no byte order")
        self._order = order
        self.first = self._directory(self._number("I", 4))

    def pack(self, code: str, *values: int) -> bytes:
        return struct.pack(self._order + code, *values)

    def _number(self, code: str, place: int) -> int:
        return int(struct.unpack_from(self._order + code, self._data, place)[0])

    def _directory(self, start: int) -> _Directory:
        count = self._number("H", start)
        if start < 8 or count > _MOST_ENTRIES:
            raise ValueError("no directory")
        entries = {}
        for place in range(start + 2, start + 2 + 12 * count, 12):
            entries[self._number("H", place)] = bytes(self._data[place : place + 12])
        end = start + 2 + 12 * count
        if len(entries) != count:
            raise ValueError("tags that stand twice")
        link = self._number("I", end) if end + 4 <= len(self._data) else 0
        return _Directory(start, entries, link)

    def _child(self, parent: _Directory, tag: int) -> _Directory | None:
        if tag not in parent.entries:
            return None
        try:
            return self._directory(self._value(parent, tag))
        except (struct.error, ValueError):
            return None

    def _value(self, directory: _Directory, tag: int) -> int:
        """A single number, SHORT or LONG."""
        entry = directory.entries[tag]
        kind = struct.unpack_from(self._order + "H", entry, 2)[0]
        return int(struct.unpack_from(self._order + ("H" if kind == _SHORT else "I"), entry, 8)[0])

    def _overwrite(self, place: int, data: bytes) -> None:
        self._data[place : place + len(data)] = data

    def thumbnail_entries(self) -> _Directory | None:
        if not self.first.link:
            return None
        try:
            found = self._directory(self.first.link)
        except (struct.error, ValueError):
            return None
        return found if {_THUMB_OFFSET, _THUMB_LENGTH} <= found.entries.keys() else None

    def cut_off_thumbnail(self) -> None:
        """It shows the gray picture. If it stands last, as usual, its room is used again."""
        found = self.thumbnail_entries()
        if found is None:
            return
        start, length = self._value(found, _THUMB_OFFSET), self._value(found, _THUMB_LENGTH)
        if start < 8 or start + length > len(self._data):
            return
        self._overwrite(start, bytes(length))
        if not any(self._data[start + length :]):
            del self._data[start:]

    def set_color_space(self) -> None:
        """Colors are sRGB now, whatever the source had said ("uncalibrated", Adobe RGB)."""
        exif = self._child(self.first, _EXIF_POINTER)
        if exif is None:
            return
        if _COLOR_SPACE in exif.entries:
            self._overwrite(exif.place_of(_COLOR_SPACE) - 6, self.pack("HIHH", _SHORT, 1, _SRGB, 0))
        interop = self._child(exif, _INTEROP_POINTER)
        if interop is not None and interop.entries.get(_INTEROP_INDEX, b"")[8:11] == b"R03":
            self._overwrite(interop.place_of(_INTEROP_INDEX), b"R98")

    def set_size(self, size: tuple[int, int]) -> None:
        exif = self._child(self.first, _EXIF_POINTER)
        for tag, pixels in zip((_PIXEL_X, _PIXEL_Y), size, strict=True):
            if exif is not None and tag in exif.entries:
                self._overwrite(exif.place_of(tag) - 6, self.pack("HII", _LONG, 1, pixels))

    def with_first_directory(
        self, changes: Mapping[int, tuple[int, bytes]], thumbnail: bytes
    ) -> bytes:
        self._data += bytes(len(self._data) % 2)
        raw = dict(self.first.entries)
        for tag, (kind, value) in changes.items():
            raw[tag] = self._entry(tag, kind, value)
        start = len(self._data)
        end = start + 2 + 12 * len(raw) + 4
        link = self.pack("I", end if thumbnail else 0)
        self._data += self.pack("H", len(raw)) + b"".join(raw[tag] for tag in sorted(raw)) + link
        self._overwrite(4, self.pack("I", start))
        if thumbnail:
            self._data += self._thumbnail_directory(end, thumbnail)
        return bytes(self._data)

    def _entry(self, tag: int, kind: int, value: bytes) -> bytes:
        """A directory entry; a long value goes behind everything else."""
        count = len(value) // {_ASCII: 1, _SHORT: 2, _LONG: 4}[kind]
        if len(value) > 4:
            place = len(self._data)
            self._data += value + bytes(len(value) % 2)
            value = self.pack("I", place)
        return self.pack("HHI", tag, kind, count) + value.ljust(4, b"\0")

    def _thumbnail_directory(self, start: int, thumbnail: bytes) -> bytes:
        place = start + 2 + 12 * 3 + 4
        entries = (
            self.pack("HHIHH", 259, _SHORT, 1, 6, 0),  # Compression: JPEG
            self.pack("HHII", _THUMB_OFFSET, _LONG, 1, place),
            self.pack("HHII", _THUMB_LENGTH, _LONG, 1, len(thumbnail)),
        )
        return self.pack("H", 3) + b"".join(entries) + bytes(4) + thumbnail
