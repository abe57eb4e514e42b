"""Converts TIFF pages from compressions that libvips does not know to one that it does.

Strips and tiles are unpacked one by one and packed with Deflate; predictors come before packing and
stay as they are. An error names what cannot be unpacked.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from io import BytesIO

import zstandard

from colordaemon.errors import MediaError
from colordaemon.media import tiff

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
