"""WebP files as RIFF chunks: EXIF, XMP and unknown chunks. developers.google.com/speed/webp/docs"""

from __future__ import annotations

import struct
from mmap import mmap

from colordaemon.errors import MediaError

_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
_ANEW = (b"ICCP", b"EXIF", b"XMP ", b"C2PA")
_MOST_CHUNKS = 10_000  # a still picture has a dozen
_HAS_EXIF, _HAS_XMP = 0x08, 0x04


def take_apart(data: bytes | mmap) -> list[tuple[bytes, bytes]]:
    """Names and contents of the chunks, without pixels."""
    chunks: list[tuple[bytes, bytes]] = []
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if not name.strip().isalnum():
            break
        if len(chunks) >= _MOST_CHUNKS:
            raise MediaError(f"more than {_MOST_CHUNKS} chunks, expected a sound WebP picture")
        body = b"" if name in _PIXELS else bytes(data[position + 8 : position + 8 + size])
        chunks.append((name, body))
        position += 8 + size + size % 2
    return chunks


def kept_chunks(chunks: list[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(c for c in chunks if c[0] not in (*_PIXELS, *_ANEW))


def put_together(
    encoded: bytes, *, exif: bytes, xmp: bytes, kept: tuple[tuple[bytes, bytes], ...]
) -> bytes:
    """A WebP as libvips encodes it with a profile, so that its first chunk is VP8X."""
    if encoded[12:16] != b"VP8X":
        raise ValueError("expected a WebP file with a profile")
    data = bytearray(encoded)
    data[20] |= _HAS_EXIF | _HAS_XMP
    for name, body in ((b"EXIF", exif), (b"XMP ", xmp), *kept):
        data += struct.pack("<4sI", name, len(body)) + body + bytes(len(body) % 2)
    data[4:8] = struct.pack("<I", len(data) - 8)
    return bytes(data)
