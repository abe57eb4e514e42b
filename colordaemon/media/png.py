"""PNG files as chunks. Texts, times and measures are copied unchanged, wherever in the file they
are.

libvips reads texts as Latin-1, loses the time of change and whatever it does not know, and does not
look behind the pixels. Layout: PNG specification, third edition (w3.org/TR/png-3).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from mmap import mmap

from colordaemon.errors import MediaError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP = b"XML:com.adobe.xmp\0"
# Written anew, or about pixels that are no longer there.
_GONE = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP",
     b"mDCV", b"cLLI", b"sBIT", b"bKGD", b"hIST", b"sPLT", b"eXIf", b"acTL", b"fcTL", b"fdAT",
     b"caBX", b"iDOT", b"CgBI")
)  # fmt: skip
# Texts in which ImageMagick keeps color profiles, which describe the old pixels.
_GONE_TEXTS = (b"Raw profile type icc\0", b"Raw profile type icm\0")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_MOST_CHUNKS = 10_000  # beside those of pixels; a picture has a dozen
_MOST_XMP = 1 << 24  # bytes unpacked; some KB may be packed gigabytes


@dataclass(frozen=True)
class Chunk:
    name: bytes
    data: bytes

    def encoded(self) -> bytes:
        body = self.name + self.data
        return struct.pack(">I", len(self.data)) + body + struct.pack(">I", zlib.crc32(body))

    @property
    def is_text(self) -> bool:
        return self.name in _TEXTS

    @property
    def is_packed_text(self) -> bool:
        return self.is_text and _is_packed(self.name, self.data.partition(b"\0")[2])

    @property
    def is_measure(self) -> bool:
        """Whether it tells a size or time that other formats have a place of their own for."""
        return self.name in (b"pHYs", b"tIME")

    @property
    def is_safe_to_copy(self) -> bool:
        """Whether it says of itself that it stays true when the pixels change."""
        return self.name[3:4].islower()


@dataclass(frozen=True)
class Parts:
    """The chunks of a file without its pixels, and how many bytes lie behind its end."""

    chunks: tuple[Chunk, ...]
    trailing: int = 0

    def first(self, name: bytes) -> bytes | None:
        return next((c.data for c in self.chunks if c.name == name), None)


def take_apart(data: bytes | mmap) -> Parts:
    """Chunks of pixels that follow each other stand as one. Raises MediaError."""
    chunks: list[Chunk] = []
    for name, start, end in _places(data):
        if end > len(data):
            break
        if name != b"IDAT":
            chunks.append(Chunk(name, bytes(data[start + 8 : end - 4])))
        elif chunks and chunks[-1].name != name:
            chunks.append(Chunk(name, b""))
        if name == b"IEND":
            return Parts(tuple(chunks), len(data) - end)
    return Parts(tuple(chunks))


def _places(data: bytes | mmap) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk. Damage ends the list."""
    position, count = len(SIGNATURE), 0
    while position + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        if not name.isalpha():
            return
        count += name != b"IDAT"
        if count > _MOST_CHUNKS:
            raise MediaError(f"more than {_MOST_CHUNKS} chunks, expected a sound PNG picture")
        yield name, position, position + 12 + size
        position += 12 + size


def xmp_of(parts: Parts) -> bytes:
    """The XMP packet, unpacked where it is compressed."""
    for chunk in parts.chunks:
        if chunk.name in _TEXTS and chunk.data.startswith(_XMP):
            return _text(chunk.name, chunk.data[len(_XMP) :])
    return b""


def _text(name: bytes, data: bytes) -> bytes:
    """The text behind a keyword; empty where it is damaged."""
    is_packed = _is_packed(name, data)
    text = data[1:] if is_packed else data
    if name == b"iTXt":
        text = data[2:].split(b"\0", 2)[-1]  # behind language and translated keyword
    if not is_packed:
        return text
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(text, _MOST_XMP)
    except zlib.error:
        return b""
    return unpacked if unpacking.eof else b""


def _is_packed(name: bytes, data: bytes) -> bool:
    """data: of a text, behind its keyword."""
    return name == b"zTXt" or (name == b"iTXt" and data[:1] == b"\1")


def without(data: bytes | mmap, is_unwanted: Callable[[Chunk], bool]) -> bytes | None:
    """The same file without some of its chunks; None where there are none of them."""
    kept, last = [], 0
    for name, start, end in _places(data):
        if name != b"IDAT" and is_unwanted(Chunk(name, bytes(data[start + 8 : end - 4]))):
            kept.append(bytes(data[last:start]))
            last = end
    return b"".join((*kept, bytes(data[last:]))) if kept else None


def kept_chunks(parts: Parts) -> tuple[tuple[Chunk, ...], tuple[bytes, ...]]:
    """Chunks that pass as they stand, and the names of private ones that may not."""
    known = (*_TEXTS, b"tIME", b"pHYs", b"oFFs", b"pCAL", b"sCAL", b"sTER", b"gIFg", b"gIFx")
    kept, lost = [], []
    for chunk in parts.chunks:
        if chunk.name in _GONE:
            continue
        if chunk.name in _TEXTS and chunk.data.startswith((_XMP, *_GONE_TEXTS)):
            continue
        if chunk.name in known or chunk.is_safe_to_copy:
            kept.append(chunk)
        else:
            lost.append(chunk.name)
    return tuple(kept), tuple(dict.fromkeys(lost))


def density_chunk(density: tuple[int, float, float]) -> Chunk:
    """pHYs of a density as in `jpeg.density_of`."""
    unit, across, down = density
    per_metre = {0: 1.0, 1: 1000 / 25.4, 2: 100.0}[unit]
    sizes = round(across * per_metre), round(down * per_metre)
    return Chunk(b"pHYs", struct.pack(">IIB", *sizes, int(unit > 0)))


def put_together(encoded: bytes, *, exif: bytes, xmp: bytes, kept: Iterable[Chunk]) -> bytes:
    """A PNG as libvips encodes it, with our own chunks before the pixels."""
    start = _pixels_start(encoded)
    own = [c for c in take_apart(encoded).chunks if c.name in (b"IHDR", b"iCCP")]
    text = Chunk(b"iTXt", _XMP + b"\0\0\0\0" + xmp)
    chunks = [*own, Chunk(b"eXIf", exif), *kept, text]
    return SIGNATURE + b"".join(c.encoded() for c in chunks) + encoded[start:]


def _pixels_start(data: bytes) -> int:
    position = len(SIGNATURE)
    while data[position + 4 : position + 8] != b"IDAT":
        position += 12 + struct.unpack_from(">I", data, position)[0]
    return position
