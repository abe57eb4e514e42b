"""Reads and writes the tags of TIFF files and EXIF blocks, and joins single pages to TIFF files.

libvips reads and writes the pixels. It loses a TIFF's EXIF directory, and can write several pages
only if all have one size and depth, which scanned documents seldom have; so the directories are
ours. Layout: TIFF 6.0, section 2; BigTIFF differs in the widths only (libtiff.gitlab.io/libtiff).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
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
COMPRESSION, PHOTOMETRIC, BITS_PER_SAMPLE = 259, 262, 258
XMP, IPTC, EXIF = 700, 33723, 34665
_ASCII, _SHORT, _LONG, _RATIONAL, _LONG8 = 2, 3, 4, 5, 16
_STRIP_OFFSETS, _TILE_OFFSETS, _STRIP_BYTES, _TILE_BYTES = 273, 324, 279, 325
_X_DENSITY, _Y_DENSITY, _DENSITY_UNIT = 282, 283, 296
_EXIF, _GPS, _INTEROP = 34665, 34853, 40965
# What must go when the pixels are written anew: how they were stored ...
_STORAGE = frozenset(
    (256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284, 288, 289,
     290, 291, 292, 293, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 326, 327, 328, 332, 333,
     334, 336, 337, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 512, 513, 514, 515, 517, 518,
     519, 520, 521, 529, 530, 531, 532, 559, 32953, 32995, 32996, 32997, 32998, 34675, 65563)
)  # fmt: skip
# ... and what points elsewhere in the file or shows the gray picture once more, which is said.
LOST = {
    330: "further pictures of the page (SubIFDs)",
    351: "a proxy of another picture (OPIProxy)",
    400: "a table of profiles (GlobalParametersIFD)",
    37724: "Photoshop's layers",
    50255: "Photoshop's annotations",
    52545: "a signature (C2PA)",
}  # fmt: skip
PICTURES_ELSEWHERE = frozenset((330, 351, 37724))
_UNITS = ((1,), (2,), (3,))  # of resolution; readers find a file with any other damaged
# What other formats have another place for.
ELSEWHERE = frozenset((_X_DENSITY, _Y_DENSITY, _DENSITY_UNIT, NEW_SUBFILE_TYPE, ORIENTATION))
# What a picture says about itself, and EXIF blocks of other formats may hold as well.
_DESCRIPTIVE = (269, 270, 271, 272, 285, 297, 305, 306, 315, 316, 700, 33432, 33723, 34377,
                18246, 18249, 40091, 40092, 40093, 40094, 40095)  # fmt: skip
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
_RATIONALS = (5, 10)  # two numbers of four bytes
_DIRECTORY = 13
_POINTERS = (330, 400)  # to directories that are not copied
_OLD_JPEG = frozenset((513, 514, 519, 520, 521))  # places of tables, as in TIFF 6.0 section 22
_Bytes = bytes | mmap.mmap
_DEEPEST = 3  # directories inside each other: of a page, EXIF, and Interoperability in that
_MOST_ENTRIES = 16384  # of a page and all directories within; cameras write some hundred
_SHARED_BYTES = 1 << 20  # that tags may have in common with others: resolutions, sizes of strips


def text_tag(text: str) -> Tag:
    return Tag(_ASCII, text.encode() + b"\0")


def short_tag(value: int) -> Tag:
    return short_tags(value)


def short_tags(*values: int) -> Tag:
    return Tag(_SHORT, struct.pack(f"<{len(values)}H", *values))


def file_tags(path: Path, page: int) -> Tags:
    """The tags of one page of a TIFF file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            offset, order, big = _directory(data, page)
            told = sum(length for *_, length in _entries(data, offset, order, big))
            if told > len(data) + _SHARED_BYTES:  # libtiff would read all of them into memory
                raise MediaError(
                    f"{path}: its tags are said to hold {told} bytes, expected no more than the"
                    f" file's {len(data)}"
                )
            return _read_directory(data, offset, order, big)
        except (struct.error, KeyError, OverflowError) as error:
            raise MediaError(f"{path}: damaged TIFF directory, expected page {page + 1}") from error


def read_tags(data: _Bytes, page: int = 0) -> Tags:
    """Tags of a TIFF or of the body of an EXIF block; unreadable ones are left out.

    Raises struct.error or KeyError where there is no directory at all.
    """
    return _read_directory(data, *_directory(data, page))


def is_tangled(block: bytes) -> bool:
    """Whether directories of an EXIF block lead to each other in circles, or by many ways to the
    same: libexif would go each of them, for hours. Raises what `read_tags` does."""
    offset, order, big = _directory(block, 0)
    visits = _Visits()
    _read_directory(block, offset, order, big, visits)
    count = struct.unpack_from(order + "H", block, offset)[0]
    link = offset + 2 + 12 * count
    if not big and link + 4 <= len(block):
        (thumbnail,) = struct.unpack_from(order + "I", block, link)
        if thumbnail:
            with suppress(struct.error, _Tangled):
                _read_directory(block, thumbnail, order, big, visits)
    return visits.is_tangled


class _Tangled(ValueError):
    """A directory is not read once more."""


@dataclass
class _Visits:
    """Where directories were read, so that each is read once, and how much of them."""

    places: set[int] = field(default_factory=set)
    entries: int = 0
    is_tangled: bool = False

    def enter(self, place: int, entries: int) -> None:
        """Raises _Tangled."""
        self.entries += entries
        if place in self.places or self.entries > _MOST_ENTRIES:
            self.is_tangled = True
            raise _Tangled
        self.places.add(place)


def _directory(data: _Bytes, page: int) -> tuple[int, str, bool]:
    """Where the directory of a page stands, and how numbers are written in it."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    link = 8 if big else 4
    for _ in range(page + 1):
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, link)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
        link = offset + (8 + 20 * count if big else 2 + 12 * count)
    return offset, order, big


def _entries(
    data: _Bytes, offset: int, order: str, big: bool
) -> Iterator[tuple[int, int, int, int]]:
    """Number, type, place and length of the values of a directory that lie within the data."""
    head, size = (8, 20) if big else (2, 12)
    for index in range(_count(data, offset, order, big)):
        position = offset + head + index * size
        code, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, position)
        length, inline = _SIZES.get(kind, 0) * number, 8 if big else 4
        start = position + size - inline
        if length > inline:
            (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, start)
        if length and start + length <= len(data):
            yield code, kind, start, length


def _count(data: _Bytes, offset: int, order: str, big: bool) -> int:
    """How many entries a directory has; a damaged count must not cost minutes."""
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    return min(int(count), 4096)


def _read_directory(
    data: _Bytes,
    offset: int,
    order: str,
    big: bool,
    visits: _Visits | None = None,
    depth: int = 1,
) -> Tags:
    """visits: to other directories before. Raises _Tangled for one of these."""
    visits = visits or _Visits()
    visits.enter(offset, _count(data, offset, order, big))
    tags: Tags = {}
    room = len(data)  # tags that share their bytes could ask for a thousand times that
    for code, kind, start, length in _entries(data, offset, order, big):
        if length > room:
            continue
        room -= length
        value = bytes(data[start : start + length])
        tag = Tag(kind, value if code == IPTC else _little(value, kind, order))
        if code in (_EXIF, _GPS, _INTEROP):
            tag = _nested(tag, data, order, big, visits, depth + 1)
        tags[code] = tag
    return tags


def _nested(tag: Tag, data: _Bytes, order: str, big: bool, visits: _Visits, depth: int) -> Tag:
    """The directory that a tag points to; empty if it points nowhere or in circles."""
    try:
        if depth <= _DEEPEST:
            children = _read_directory(data, tag.numbers[0], order, big, visits, depth)
            return Tag(_LONG, children=children)
    except (struct.error, IndexError, OverflowError, _Tangled):
        pass
    return Tag(_LONG, children={})


def _little(data: bytes, kind: int, order: str) -> bytes:
    width = 4 if kind in _RATIONALS else _SIZES[kind]
    if order == "<" or width == 1:
        return data
    return b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))


def descriptive(tags: Tags) -> Tags:
    """Those tags that an EXIF block may hold and that stay true when the picture is colored."""
    kept = {code: tags[code] for code in _DESCRIPTIVE if code in tags}
    nested = {code: tags[code] for code in (_EXIF, _GPS) if code in tags and tags[code].children}
    return kept | nested


def is_descriptive(code: int) -> bool:
    """Whether a tag is one that EXIF blocks may hold too."""
    return code in (*_DESCRIPTIVE, _EXIF, _GPS)


def kept_tags(tags: Tags) -> tuple[Tags, tuple[str, ...]]:
    """The tags that stay when a page is colored, and the names of what is lost with others."""
    kept: Tags = {}
    lost = []
    for code, tag in tags.items():
        if code in LOST:
            lost.append(LOST[code])
        elif tag.type == _DIRECTORY and tag.children is None:
            lost.append(f"a directory that is not known (tag {code})")
        elif code == _DENSITY_UNIT and not _has_unit(tags):
            lost.append("a unit of resolution that is none")
        elif code not in _STORAGE and tag.children != {}:
            kept[code] = _iptc(tag) if code == IPTC else tag
    return kept, tuple(lost)


def _iptc(tag: Tag) -> Tag:
    """Records begin with 0x1C; in big-endian files they may be stored as LONGs turned around."""
    data = tag.data
    if tag.type == _LONG and data[:1] != b"\x1c" and data[3:4] == b"\x1c":
        data = b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))
    return Tag(tag.type, data)


def density_of(tags: Tags) -> tuple[int, float, float] | None:
    """Unit (0: none, 1: per inch, 2: per cm), across and down."""
    found = []
    for code in (_X_DENSITY, _Y_DENSITY):
        if code not in tags or tags[code].type != _RATIONAL or len(tags[code].data) < 8:
            return None
        above, below = struct.unpack_from("<II", tags[code].data)
        found.append(above / below if below else 0.0)
    if not all(found):
        return None
    unit = tags[_DENSITY_UNIT].numbers[0] if _has_unit(tags) else 2
    return max(0, unit - 1), found[0], found[1]


def _has_unit(tags: Tags) -> bool:
    return _DENSITY_UNIT in tags and tags[_DENSITY_UNIT].numbers in _UNITS


def density_tags(density: tuple[int, float, float]) -> Tags:
    unit, across, down = density
    return {
        _X_DENSITY: Tag(_RATIONAL, struct.pack("<II", round(across * 1000), 1000)),
        _Y_DENSITY: Tag(_RATIONAL, struct.pack("<II", round(down * 1000), 1000)),
        _DENSITY_UNIT: short_tag(unit + 1),
    }


def exif_block(tags: Tags) -> bytes:
    """The tags as an EXIF block for other formats, from its byte order mark on."""
    return b"II*\0\x08\0\0\0" + _pack(tags, 8, big=False)[0]


def _pack(tags: Tags, base: int, big: bool, order: str = "<") -> tuple[bytes, int]:
    """A directory for file position `base`, and the position of its link to the next one."""
    size, inline, pointer = (20, 8, order + "Q") if big else (12, 4, order + "I")
    entries = struct.pack(order + ("Q" if big else "H"), len(tags))
    link = base + len(entries) + size * len(tags)
    values = bytearray()
    for code, tag in sorted(tags.items()):
        kind, data = tag.type, tag.data if code == IPTC else _little(tag.data, tag.type, order)
        start = link + inline + len(values)
        if tag.children is not None:
            kind = _LONG8 if big else _LONG
            values += _pack(tag.children, start, big, order)[0]
            data = struct.pack(pointer, start)
        elif len(data) > inline:
            values += data
            data = struct.pack(pointer, start)
        values += bytes(len(values) % 2)  # values start at even positions
        number = 1 if tag.children is not None else len(tag.data) // _SIZES[kind]
        entries += struct.pack(order + ("HHQ" if big else "HHI"), code, kind, number)
        entries += data.ljust(inline, b"\0")
    return entries + bytes(inline) + bytes(values), link


def byte_order(data: _Bytes) -> str:
    """As `struct` writes it."""
    return ">" if data[:2] == b"MM" else "<"


class TiffWriter:
    """Puts single-page TIFF files, as libvips writes them, one after another into one file.

    Little-endian like every machine that runs torch, but for copies of pages that are not. `big`:
    for 4 GiB and more.
    """

    def __init__(self, file: BinaryIO, big: bool, order: str = "<") -> None:
        self._file, self._big, self._order = file, big, order
        mark = b"MM" if order == ">" else b"II"
        head = (43, 8, 0, 0) if big else (42, 0)
        file.write(mark + struct.pack(order + ("HHHQ" if big else "HI"), *head))
        self._link = 8 if big else 4

    def add(self, page: bytes, tags: Tags) -> None:
        """Append a page that libvips has written. Of its tags, only those on how pixels are stored
        count; `tags` may put others in place of these as well."""
        base = self._align()
        self._file.write(page)
        own = read_tags(page)
        for offsets in {_STRIP_OFFSETS, _TILE_OFFSETS} & own.keys():
            own[offsets] = self._offsets([base + offset for offset in own[offsets].numbers])
        own = {code: tag for code, tag in own.items() if code in _STORAGE}
        self._link_in(own | tags)

    def copy(
        self,
        data: _Bytes,
        page: int,
        repack: Callable[[bytes], bytes] = bytes,
        changes: Tags | None = None,
    ) -> bool:
        """Append a page of another file with its pixels as they are stored. False if that is not
        possible: its byte order differs, or no tag says where its pixels are.

        repack: converts each strip or tile. changes: tags that say so.
        """
        own = read_tags(data, page)
        bits = own[BITS_PER_SAMPLE].numbers if BITS_PER_SAMPLE in own else (1,)
        places = {_STRIP_OFFSETS: _STRIP_BYTES, _TILE_OFFSETS: _TILE_BYTES}
        pairs = [(place, size) for place, size in places.items() if {place, size} <= own.keys()]
        turned = byte_order(data) != self._order and max(bits, default=1) > 8
        if turned or len(pairs) != 1 or _OLD_JPEG & own.keys():
            return False
        place, size = pairs[0]
        moved, lengths = [], []
        for start, length in zip(own[place].numbers, own[size].numbers, strict=True):
            moved.append(self._align())
            lengths.append(self._file.write(repack(data[start : start + length])))
        own[place], own[size] = self._offsets(moved), self._offsets(lengths)
        kept = {c: t for c, t in own.items() if c not in _POINTERS and t.children != {}}
        self._link_in(kept | (changes or {}))
        return True

    def _offsets(self, numbers: list[int]) -> Tag:
        kind, code = (_LONG8, "Q") if self._big else (_LONG, "I")
        return Tag(kind, struct.pack(f"<{len(numbers)}{code}", *numbers))

    def _link_in(self, tags: Tags) -> None:
        start = self._align()
        directory, link = _pack(tags, start, self._big, self._order)
        self._file.write(directory)
        self._file.seek(self._link)
        self._file.write(struct.pack(self._order + ("Q" if self._big else "I"), start))
        self._file.seek(0, 2)
        self._link = link

    def _align(self) -> int:
        self._file.write(bytes(-self._file.tell() % 16))
        return self._file.tell()
