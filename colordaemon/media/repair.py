"""Makes copies of photo files that libvips can read, where it cannot read the files themselves.

A lean copy lacks what would keep libvips busy for hours or use all memory: it unpacks all texts of
a PNG, and puts every EXIF block through libexif, which follows each pointer that leads to a
directory; where these lead to each other, 50 KB are minutes of work, each time. What a photo says
about itself is read from the file as it is, and not from these copies.

TIFF pages in compressions that libvips does not know are packed anew in one that it does: strips
and tiles are unpacked one by one and packed with Deflate; predictors come before packing and stay
as they are. An error names what cannot be unpacked.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Callable
from io import BytesIO
from itertools import islice
from mmap import mmap
from pathlib import Path

import zstandard

from colordaemon.errors import MediaError
from colordaemon.media import exif, heif, jpeg, png, tiff, webp
from colordaemon.media.stills import PhotoFormat

_MOST_BLOCKS = 256  # of EXIF in one file, with those of previews and of pictures behind the first
_LEAST_BYTES = 14  # of a block with a directory
_MARK_BYTES = 8  # byte order, and where the first directory stands
_DEFLATE = 8
_LZMA, _ZSTD = 34925, 50000
_NAMES = {
    _LZMA: "LZMA",
    _ZSTD: "ZSTD",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34661: "JBIG",
    34715: "JBIG2",
    32809: "ThunderScan",
    32767: "Sony raw",
    34713: "Nikon raw",
    65000: "Kodak raw",
    65535: "Pentax raw",
}
_MOST_BYTES = 4_000_000_000  # of one strip or tile


def lean_copy(data: mmap, path: Path, kind: PhotoFormat) -> bytes | None:
    """A copy without what libvips must not see; None for a file that it may read as it is.

    Raises MediaError.
    """
    try:
        if kind is PhotoFormat.PNG:
            return png.without(data, lambda chunk: chunk.is_packed_text or _is_trap(chunk))
        found = _blocks(data, path, kind)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from None
    traps = [block for block in found if not exif.is_readable(block)]
    if not traps:
        return None
    copy = bytearray(data)
    for block in traps:
        at = copy.find(block)
        if at < 0:
            raise MediaError(f"{path}: its EXIF is damaged and lies in pieces, expected one block")
        copy[at : at + _MARK_BYTES] = bytes(_MARK_BYTES)
    return bytes(copy)


def _is_trap(chunk: png.Chunk) -> bool:
    block = chunk.data.removeprefix(jpeg.EXIF)
    return chunk.name == b"eXIf" and not exif.is_readable(block)


def _blocks(data: mmap, path: Path, kind: PhotoFormat) -> list[bytes]:
    """Every EXIF block that libvips may find."""
    found: list[bytes] = []
    match kind:
        case PhotoFormat.JPEG:  # libjpeg finds segments behind stray bytes, unlike `take_apart`
            matches = islice(re.finditer(re.escape(jpeg.EXIF), data), _MOST_BLOCKS + 1)
            starts = [match.end() for match in matches]
            if len(starts) > _MOST_BLOCKS:
                raise MediaError(f"more than {_MOST_BLOCKS} EXIF blocks, expected one")
            found = [data[start : start + jpeg.LONGEST] for start in starts]
        case PhotoFormat.WEBP:
            found = [body for name, body in webp.take_apart(data) if name == b"EXIF"]
        case PhotoFormat.AVIF:
            found = [heif.exif_of(path)]
    blocks = (block.removeprefix(jpeg.EXIF) for block in found)
    return [block for block in blocks if len(block) >= _LEAST_BYTES]


def needs_packing(tags: tiff.Tags) -> bool:
    return _compression(tags) in (_LZMA, _ZSTD)


def check_compression(tags: tiff.Tags) -> None:
    """Raises MediaError, without a file's name, for what cannot be unpacked."""
    found = _compression(tags)
    if found in _NAMES and not needs_packing(tags):
        raise MediaError(
            f"packed with {_NAMES[found]} (TIFF compression {found}), expected none, LZW, Deflate,"
            " ZSTD, LZMA, PackBits, JPEG or fax"
        )


def packed_anew(data: tiff._Bytes, page: int) -> bytes:
    """A TIFF file with this page alone. Raises MediaError where a strip is damaged."""
    unpack: Callable[[bytes], bytes] = {_LZMA: _unpack_lzma, _ZSTD: _unpack_zstd}[
        _compression(tiff.read_tags(data, page))
    ]

    def repack(strip: bytes) -> bytes:
        try:
            return zlib.compress(unpack(strip), 1)
        except (lzma.LZMAError, zstandard.ZstdError, MemoryError) as error:
            raise MediaError(f"a damaged strip ({error}), expected a sound picture") from error

    file = BytesIO()
    writer = tiff.TiffWriter(file, big=False, order=tiff.byte_order(data))
    writer.copy(data, page, repack, {tiff.COMPRESSION: tiff.short_tag(_DEFLATE)})
    return file.getvalue()


def _compression(tags: tiff.Tags) -> int:
    tag = tags.get(tiff.COMPRESSION)
    return tag.numbers[0] if tag and tag.numbers else 1


def _unpack_lzma(strip: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(strip, _MOST_BYTES)


def _unpack_zstd(strip: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor().stream_reader(strip)
    return bytes(reader.read(_MOST_BYTES))
