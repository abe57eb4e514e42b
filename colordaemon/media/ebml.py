"""The header of a Matroska file, for what FFmpeg can neither read nor write.

FFmpeg is made to leave room in the header, by a tag of ours; whatever is changed has to fit into
it, so that the pictures and sound behind the header stay where they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from colordaemon.errors import MediaError

SEGMENT, CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
SEEK_HEAD, TRACKS, TAGS = b"\x11\x4d\x9b\x74", b"\x16\x54\xae\x6b", b"\x12\x54\xc3\x67"
INFO, CUES = b"\x15\x49\xa9\x66", b"\x1c\x53\xbb\x6b"
CHAPTERS, ATTACHMENTS = b"\x10\x43\xa7\x70", b"\x19\x41\xa4\x69"
SEEK, SEEK_ID, SEEK_POSITION = b"\x4d\xbb", b"\x53\xab", b"\x53\xac"
TRACK, TRACK_NUMBER, TRACK_UID, TRACK_TYPE = b"\xae", b"\xd7", b"\x73\xc5", b"\x83"
LANGUAGE_BCP47 = b"\x22\xb5\x9d"
EDITION, EDITION_ORDERED = b"\x45\xb9", b"\x45\xdd"
ATOM, ATOM_START, DISPLAY = b"\xb6", b"\x91", b"\x80"
VIDEO, STEREO_MODE = b"\xe0", b"\x53\xb8"
COLOR, MOST_LIGHT, MEAN_LIGHT, MASTERING = b"\x55\xb0", b"\x55\xbc", b"\x55\xbd", b"\x55\xd0"
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"
PIXEL_CROP = (b"\x54\xcc", b"\x54\xbb", b"\x54\xdd", b"\x54\xaa")  # left, top, right, bottom
PROJECTION, PROJECTION_TYPE = b"\x76\x70", b"\x76\x71"
CODEC_ID, ENCODINGS = b"\x86", b"\x6d\x80"
TAG, SIMPLE_TAG, TAG_NAME = b"\x73\x73", b"\x67\xc8", b"\x45\xa3"
CRC, VOID = b"\xbf", b"\xec"
ROOM_TAG = "COLORDAEMON_ROOM"
_HEAD_BYTES = 16  # at most, of an id and a size
_HEADER_BYTES = 1 << 26  # a header that is longer, by its attachments, is left alone


@dataclass(frozen=True)
class Element:
    """An element with its data, and where it stands in what it was read from."""

    id: bytes
    data: bytes
    offset: int = 0

    def __bytes__(self) -> bytes:
        return self.id + _size_bytes(len(self.data)) + self.data

    @property
    def children(self) -> list[Element]:
        return list(elements(self.data))

    def child(self, name: bytes) -> bytes:
        """The data of the first child of that name, empty if there is none."""
        return next((c.data for c in self.children if c.id == name), b"")

    def with_child(self, name: bytes, children: Iterable[Element]) -> Element:
        """The same with other elements in its child of that name."""
        child = Element(name, b"".join(map(bytes, children)))
        parts = [child if c.id == name else c for c in self.children]
        return Element(self.id, b"".join(map(bytes, parts)))


@dataclass(frozen=True)
class Header:
    """The elements before the first cluster. start, end: where they stand in the file."""

    elements: list[Element]
    start: int
    end: int

    @property
    def tracks(self) -> list[Element]:
        return [t for e in self.elements if e.id == TRACKS for t in e.children if t.id == TRACK]


def read_header(path: Path) -> Header:
    """Raises MediaError where a file has none that can be read, OSError."""
    with path.open("rb") as file:
        return parse_header(file, str(path))


def parse_header(file: BinaryIO, name: str) -> Header:
    """As `read_header`, from a file of that name."""
    start = _segment_start(file, name)
    found, position = [], start
    while position - start < _HEADER_BYTES and (element := _element_at(file, position)):
        found.append(element)
        position = file.tell()
    return Header(found, start, position)


def write_header(path: Path, header: Header, changed: list[Element]) -> None:
    """Rewrite the elements of a header into the same space, with an index of their places.

    Raises MediaError if they do not fit.
    """
    body = _laid_out(changed, header.end - header.start, path)
    with path.open("r+b") as file:
        file.seek(header.start)
        file.write(body)


def describe_as(track: Element, source: Element) -> Element:
    """A track with all that a source's track says, but under its own number."""
    own = {TRACK_NUMBER: track.child(TRACK_NUMBER), TRACK_UID: track.child(TRACK_UID)}
    # FFmpeg has undone their compression, if any.
    parts = [c for c in source.children if c.id not in (ENCODINGS, CRC)]
    return Element(TRACK, b"".join(bytes(Element(c.id, own.get(c.id, c.data))) for c in parts))


def with_language(track: Element, language: str) -> Element:
    """A track with a language as BCP 47 writes it, beside the word of three letters."""
    rest = [bytes(c) for c in track.children if c.id not in (LANGUAGE_BCP47, CRC)]
    return Element(TRACK, b"".join(rest) + bytes(Element(LANGUAGE_BCP47, language.encode())))


def with_parts(header: Header, parts: Mapping[bytes, Element]) -> list[Element]:
    """The elements of a header with others in their places, or behind them, and without the room
    that was left for them."""
    kept = [parts.get(e.id) or _without_room(e) for e in header.elements if e.id not in (VOID, CRC)]
    names = {e.id for e in header.elements}
    return [*kept, *(part for name, part in parts.items() if name not in names)]


def part_of(path: Path, header: Header, name: bytes) -> Element | None:
    """A part of a file, in its header or where that says. Raises MediaError, OSError."""
    for element in header.elements:
        if element.id == name:
            return element
    places = [header.start + place for found, place in _places(header.elements) if found == name]
    with path.open("rb") as file:
        elements = (_element_at(file, place) for place in places)
        return next((element for element in elements if element and element.id == name), None)


def elements(data: bytes) -> Iterator[Element]:
    """The elements that stand one behind the other. Raises MediaError."""
    position = 0
    while position < len(data):
        name, start, size = _head(data, position)
        if start + size > len(data):
            raise MediaError(f"a Matroska element ({name.hex()}) of {size} bytes does not fit")
        yield Element(name, data[start : start + size], position)
        position = start + size


def _segment_start(file: BinaryIO, name: str) -> int:
    """Where the contents of the segment begin, in which everything is."""
    position = 0
    while position < _HEADER_BYTES:
        file.seek(position)
        if not (data := file.read(_HEAD_BYTES)):
            break
        kind, start, size = head(data)
        if kind == SEGMENT:
            return position + start
        position += start + (size or 0)
    raise MediaError(f"{name}: no Matroska segment in its first {position} bytes")


def _element_at(file: BinaryIO, position: int) -> Element | None:
    """The whole element that begins there; None for a cluster, and where none fits."""
    file.seek(position)
    data = file.read(_HEAD_BYTES)
    if not data:
        return None
    name, start, size = head(data)
    if name == CLUSTER or size is None or size > _HEADER_BYTES:
        return None
    file.seek(position + start)
    body = file.read(size)
    return Element(name, body, position) if len(body) == size else None


def _laid_out(changed: list[Element], room: int, path: Path) -> bytes:
    """The elements behind each other, the index first, and what is left over void."""
    rest = [_checked(e) for e in changed if e.id not in (SEEK_HEAD, VOID)]
    later = _later_places(changed, rest)
    index = _index([(e.id, 0) for e in rest] + later)
    places, offset = [], len(bytes(index))
    for element in rest:
        places.append((element.id, offset))
        offset += len(bytes(element))
    body = bytes(_index(places + later)) + b"".join(map(bytes, rest))
    left = room - len(body)
    if left and left < 9:
        body += b"" if left < 2 else bytes([*VOID, 0x80 + left - 2]) + bytes(left - 2)
    elif left > 0:
        body += VOID + b"\x01" + (left - 9).to_bytes(7, "big") + bytes(left - 9)
    if len(body) != room:
        raise MediaError(f"{path}: {-left} bytes too few in the header of the finished film")
    return body


def _later_places(changed: list[Element], rest: list[Element]) -> list[tuple[bytes, int]]:
    """What the old index says of elements that do not stand in the header, as the cues."""
    here = {e.id for e in rest}
    return [(name, place) for name, place in _places(changed) if name not in here]


def _places(header: list[Element]) -> list[tuple[bytes, int]]:
    """What the index says: names of parts, and where they begin behind the segment's head."""
    seeks = [s for e in header if e.id == SEEK_HEAD for s in e.children if s.id == SEEK]
    return [(s.child(SEEK_ID), int.from_bytes(s.child(SEEK_POSITION), "big")) for s in seeks]


def _index(places: list[tuple[bytes, int]]) -> Element:
    """Of fixed size, whatever the places are."""
    seeks = [
        Element(
            SEEK,
            bytes(Element(SEEK_ID, name)) + bytes(Element(SEEK_POSITION, place.to_bytes(8, "big"))),
        )
        for name, place in places
    ]
    return _checked(Element(SEEK_HEAD, b"".join(map(bytes, seeks))))


def _checked(element: Element) -> Element:
    """With a checksum of its data, as FFmpeg writes it for each of these."""
    parts = [c for c in element.children if c.id not in (CRC, VOID)]
    body = b"".join(map(bytes, parts))
    crc = Element(CRC, zlib.crc32(body).to_bytes(4, "little"))
    return Element(element.id, bytes(crc) + body)


def _without_room(element: Element) -> Element:
    if element.id != TAGS:
        return element
    tags = [_without_room_tag(c) if c.id == TAG else c for c in element.children]
    return Element(TAGS, b"".join(map(bytes, tags)))


def _without_room_tag(tag: Element) -> Element:
    name = ROOM_TAG.encode()
    keep = [c for c in tag.children if c.id != SIMPLE_TAG or c.child(TAG_NAME) != name]
    return Element(TAG, b"".join(map(bytes, keep)))


def head(data: bytes, position: int = 0) -> tuple[bytes, int, int | None]:
    """Id of an element, where its data begin and how long they are; None where it does not say."""
    try:
        length = 9 - data[position].bit_length()
        name, position = data[position : position + length], position + length
        length = 9 - data[position].bit_length()
        coded = data[position : position + length]
    except IndexError:
        raise MediaError("a Matroska header that ends in the middle of an element") from None
    if length > 8 or len(name) > 4:
        raise MediaError("a Matroska header that is damaged")
    size = int.from_bytes(coded, "big") & ((1 << 7 * length) - 1)
    return name, position + length, None if size == (1 << 7 * length) - 1 else size


def _head(data: bytes, position: int) -> tuple[bytes, int, int]:
    """As `head`; what does not say how long it is goes on to the end."""
    name, start, size = head(data, position)
    return name, start, len(data) - start if size is None else size


def _size_bytes(size: int) -> bytes:
    return (size | 1 << 56).to_bytes(8, "big")
