"""The tags of TIFF files and EXIF blocks, and TIFF files put together from single pages.

libvips reads and writes the pixels. It loses a TIFF's EXIF directory, and can write several pages
only if all have one size and depth, which scanned documents seldom have; so the directories are
ours. Layout: TIFF 6.0, section 2; BigTIFF differs in the widths only (libtiff.gitlab.io/libtiff).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from colordaemon.errors import MediaError


@dataclass(frozen=True)
class Tag:
    """One value of a directory: its little-endian bytes, or a directory of its own."""

    type: int
    data: bytes = b""
    children: dict[int, Tag] | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The values of an integer tag."""
        code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(self.type)
        if code is None:
            return ()
        return struct.unpack(f"<{len(self.data) // struct.calcsize(code)}{code}", self.data)


Tags = dict[int, Tag]

NEW_SUBFILE_TYPE, ORIENTATION, SOFTWARE, EXTRA_SAMPLES, DNG_VERSION = 254, 274, 305, 338, 50706
_ASCII, _SHORT, _LONG, _LONG8 = 2, 3, 4, 16
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_EXIF, _GPS, _INTEROP = 34665, 34853, 40965
# What a picture says about itself, not about its pixels: document, camera, scanner, dates, people.
_DESCRIPTIVE = (254, 269, 270, 271, 272, 285, 297, 305, 306, 315, 316, 700, 33432, 33723, 34377)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_RATIONALS = (5, 10)  # two numbers of four bytes
_Bytes = bytes | mmap.mmap


def text_tag(text: str) -> Tag:
    return Tag(_ASCII, text.encode() + b"\0")


def short_tag(value: int) -> Tag:
    return Tag(_SHORT, struct.pack("<H", value))


def file_tags(path: Path, page: int) -> Tags:
    """The tags of one page of a TIFF file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return read_tags(data, page)
        except (struct.error, KeyError) as error:
            raise MediaError(f"{path}: damaged TIFF directory, expected page {page + 1}") from error


def read_tags(data: _Bytes, page: int = 0) -> Tags:
    """Tags of a TIFF or of the body of an EXIF block; unreadable ones are left out.

    Raises struct.error or KeyError where there is no directory at all.
    """
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    link = 8 if big else 4
    for _ in range(page + 1):
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, link)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
        link = offset + (8 + 20 * count if big else 2 + 12 * count)
    return _read_directory(data, offset, order, big)


def _read_directory(data: _Bytes, offset: int, order: str, big: bool, depth: int = 0) -> Tags:
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    head, size = (8, 20) if big else (2, 12)
    tags: Tags = {}
    for index in range(min(count, 4096)):  # a damaged count must not cost minutes
        position = offset + head + index * size
        code, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, position)
        length, inline = _SIZES.get(kind, 0) * number, 8 if big else 4
        start = position + size - inline
        if length > inline:
            (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, start)
        if not length or start + length > len(data):
            continue
        tag = Tag(kind, _little(data[start : start + length], kind, order))
        if code in (_EXIF, _GPS, _INTEROP):
            tag = _nested(tag, data, order, big, depth)
        tags[code] = tag
    return tags


def _nested(tag: Tag, data: _Bytes, order: str, big: bool, depth: int) -> Tag:
    """The directory that a tag points to; empty if it points nowhere or in circles."""
    try:
        if depth < 2:
            children = _read_directory(data, tag.numbers[0], order, big, depth + 1)
            return Tag(_LONG, children=children)
    except (struct.error, IndexError):
        pass
    return Tag(_LONG, children={})


def _little(data: bytes, kind: int, order: str) -> bytes:
    width = 4 if kind in _RATIONALS else _SIZES[kind]
    if order == "<" or width == 1:
        return data
    return b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))


def descriptive(tags: Tags) -> Tags:
    """Those tags that stay true when the picture is colored and stored in another way."""
    kept = {code: tags[code] for code in _DESCRIPTIVE if code in tags}
    nested = {code: tags[code] for code in (_EXIF, _GPS) if code in tags and tags[code].children}
    return kept | nested


def exif_block(tags: Tags) -> bytes:
    """The tags as an EXIF block for JPEG, PNG and WebP."""
    return b"Exif\0\0II*\0\x08\0\0\0" + _pack(tags, 8, big=False)[0]


def _pack(tags: Tags, base: int, big: bool) -> tuple[bytes, int]:
    """A directory for file position `base`, and the position of its link to the next one."""
    size, inline, pointer = (20, 8, "<Q") if big else (12, 4, "<I")
    entries = struct.pack("<Q" if big else "<H", len(tags))
    link = base + len(entries) + size * len(tags)
    values = bytearray()
    for code, tag in sorted(tags.items()):
        kind, data = tag.type, tag.data
        start = link + inline + len(values)
        if tag.children is not None:
            kind = _LONG8 if big else _LONG
            values += _pack(tag.children, start, big)[0]
            data = struct.pack(pointer, start)
        elif len(data) > inline:
            values += data
            data = struct.pack(pointer, start)
        values += bytes(len(values) % 2)  # values start at even positions
        number = 1 if tag.children is not None else len(tag.data) // _SIZES[kind]
        entries += struct.pack("<HHQ" if big else "<HHI", code, kind, number)
        entries += data.ljust(inline, b"\0")
    return entries + bytes(inline) + bytes(values), link


class TiffWriter:
    """Puts single-page TIFF files, as libvips writes them, one after another into one file.

    Little-endian like every machine that runs torch. `big`: for 4 GiB and more.
    """

    def __init__(self, file: BinaryIO, big: bool) -> None:
        self._file, self._big = file, big
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else b"II*\0\0\0\0\0")
        self._link = 8 if big else 4

    def add(self, page: bytes, tags: Tags) -> None:
        """Append a page, with further tags where it has none of its own."""
        base = self._align()
        self._file.write(page)
        own = read_tags(page)
        kind, code = (_LONG8, "Q") if self._big else (_LONG, "I")
        for offsets in {_STRIP_OFFSETS, _TILE_OFFSETS} & own.keys():
            moved = [base + offset for offset in own[offsets].numbers]
            own[offsets] = Tag(kind, struct.pack(f"<{len(moved)}{code}", *moved))
        start = self._align()
        directory, link = _pack(tags | own, start, self._big)
        self._file.write(directory)
        self._file.seek(self._link)
        self._file.write(struct.pack("<" + code, start))
        self._file.seek(0, 2)
        self._link = link

    def _align(self) -> int:
        self._file.write(bytes(-self._file.tell() % 16))
        return self._file.tell()
