"""GIF files as blocks: comments and XMP, which libvips does not read, or only in part.

Layout: GIF 89a; XMP specification part 3, section 1.1.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

_COMMENT, _APPLICATION = 0xFE, 0xFF
_EXTENSION, _PICTURE = 0x21, 0x2C
_XMP = b"XMP DataXMP"


def comments_of(data: bytes | mmap) -> list[bytes]:
    return [b"".join(blocks) for label, blocks, _ in _extensions(data) if label == _COMMENT]


def xmp_of(data: bytes | mmap) -> bytes:
    """XMP is not cut into blocks; its trailer leads readers of blocks to its end all the same."""
    for label, blocks, start in _extensions(data):
        if label == _APPLICATION and blocks[:1] == [_XMP]:
            packet = bytes(data[start + 1 + len(_XMP) :])
            end = packet.find(b"<?xpacket end=")
            end = packet.find(b"?>", end) if end >= 0 else -1
            return packet[: end + 2] if end >= 0 else b""
    return b""


def _extensions(data: bytes | mmap) -> Iterator[tuple[int, list[bytes], int]]:
    """Label, blocks and place of the first of them; damage ends the list."""
    position = 13 + _table(data, 10)
    while position + 2 < len(data):
        if data[position] == _EXTENSION:
            start = position + 2
            blocks, position_after = _blocks(data, start)
            yield data[position + 1], blocks, start
            position = position_after
        elif data[position] == _PICTURE and position + 10 < len(data):
            position += 10 + _table(data, position + 9)
            position = _blocks(data, position + 1)[1]
        else:
            return


def _table(data: bytes | mmap, place: int) -> int:
    """Bytes of the color table that a byte of flags announces."""
    flags = data[place] if place < len(data) else 0
    return int(3 * 2 ** ((flags & 7) + 1)) if flags & 0x80 else 0


def _blocks(data: bytes | mmap, position: int) -> tuple[list[bytes], int]:
    """Blocks up to the empty one, and where what follows begins."""
    blocks = []
    while position < len(data) and (size := data[position]):
        blocks.append(bytes(data[position + 1 : position + 1 + size]))
        position += 1 + size
    return blocks, position + 1
