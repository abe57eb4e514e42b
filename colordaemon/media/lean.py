"""Removes from photos what would keep libvips busy for hours or use all memory.

libvips unpacks all texts of a PNG, and puts every EXIF block through libexif, which goes each way
that leads to a directory: where these lead to each other, 50 KB are minutes of work, each time.
What a photo says about itself is read from the file as it is, and not from these copies.
"""

from __future__ import annotations

import re
from itertools import islice
from mmap import mmap
from pathlib import Path

from colordaemon.errors import MediaError
from colordaemon.media import exif, heif, jpeg, png, webp
from colordaemon.media.stills import PhotoFormat

_MOST_BLOCKS = 256  # of EXIF in one file, with those of previews and of pictures behind the first
_LEAST_BYTES = 14  # of a block with a directory
_MARK_BYTES = 8  # byte order, and where the first directory stands


def lean_copy(data: mmap, path: Path, kind: PhotoFormat) -> bytes | None:
    """None for a file that libvips may have as it is. Raises MediaError."""
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
        case PhotoFormat.JPEG:  # libjpeg takes up more segments than `take_apart` where bytes stray
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
