"""Checks whether a file ends where its own structure says.

A header may declare a film to be longer than it is, and the film is whole all the same: after a cut
by a careless program, or where a clock does not begin at zero. It differs from a file that was cut
off by its structure: the parts of a whole file follow each other without a gap, up to its end.
Zeros in place of bytes that never arrived are no such parts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from colordaemon.errors import MediaError
from colordaemon.media import ebml
from colordaemon.media.boxes import top_level

_LEVEL_1 = frozenset(
    (ebml.SEEK_HEAD, ebml.CLUSTER, ebml.TRACKS, ebml.TAGS, ebml.INFO, ebml.CUES, ebml.CHAPTERS,
     ebml.ATTACHMENTS, ebml.VOID, ebml.CRC)
)  # fmt: skip
_FLV_TAGS = frozenset((8, 9, 18))
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MXF_KEY, _MXF_FOOTER = bytes.fromhex("060e2b34"), bytes.fromhex("0d0102010104")
_NUT_INDEX = b"NX" + bytes.fromhex("dd672f23e64e")


def ends_whole(path: Path, container: str) -> bool:
    """Whether nothing of a film is missing at its end; False where that cannot be known.

    container: FFmpeg's first name of it. Raises OSError.
    """
    check = _CHECKS.get(container)
    if check is None:
        return False
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        try:
            return check(file, size)
        except (MediaError, struct.error, IndexError):
            return False


def lacks_bytes(path: Path, container: str) -> bool:
    """Whether a file declares more bytes than it has; asked where FFmpeg then finds no duration."""
    if container != "asf":
        return False
    with path.open("rb") as file:
        data = file.read(1 << 16)
        size = file.seek(0, 2)
    place = data.find(_ASF_PROPERTIES) + 24
    if place < 24 or place + 68 > len(data):
        return False
    declared, flags = struct.unpack_from("<16xQ40xI", data, place)
    is_broadcast = bool(flags & 1)
    return not is_broadcast and bool(size < 0.95 * declared)


def _matroska(file: BinaryIO, size: int) -> bool:
    end, position = size, 0
    while position < end:
        file.seek(position)
        name, start, length = ebml.head(file.read(16))
        if length is None:  # written by a program that did not come to its end
            return False
        if name == ebml.SEGMENT:
            end, position = position + start + length, position + start
            if end > size:
                return False
            continue
        if position and end < size and name not in _LEVEL_1:
            return False
        position += start + length
    return position == end <= size


def _mp4(file: BinaryIO, size: int) -> bool:
    """Fragments may end anywhere; a table of contents names all samples."""
    kinds, end = set(), 0
    for kind, offset, _, length in top_level(file):
        kinds.add(kind)
        end = offset + length
    return kinds >= {b"moov", b"mdat"} and b"moof" not in kinds and end == size


def _avi(file: BinaryIO, size: int) -> bool:
    position = 0
    while position + 12 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            return position > 0  # the parts before it are whole
        end = position + 8 + length
        if end > size or not _avi_chunks_fit(file, position + 12, end):
            return False
        position = end + length % 2
    return position > 0


def _avi_chunks_fit(file: BinaryIO, position: int, end: int) -> bool:
    while position + 8 <= end:
        file.seek(position)
        kind, length, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if kind == b"LIST" and form in (b"movi", b"rec "):
            if not _avi_chunks_fit(file, position + 12, position + 8 + length):
                return False
        elif not kind.isalnum() and kind != b"LIST":
            return False
        position += 8 + length + length % 2
    return position <= end + 1


def _flv(file: BinaryIO, size: int) -> bool:
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4  # behind the length of no tag
    while position < size:
        file.seek(position)
        kind, coded = struct.unpack(">B3s", file.read(4))
        length = 11 + int.from_bytes(coded, "big")
        file.seek(position + length)
        if kind not in _FLV_TAGS or file.read(4) != struct.pack(">I", length):
            return False
        position += length + 4
    return position == size


def _asf(file: BinaryIO, size: int) -> bool:
    position = 0
    while position + 24 <= size:
        file.seek(position)
        name, length = struct.unpack("<16sQ", file.read(24))
        if name == _ASF_DATA:
            packets = struct.unpack("<16xQ", file.read(24))[0]
            file.seek(position + length - (length - 50) // packets if packets else 0)
            return 50 < length <= size - position and file.read(1) > b"\0"
        position += max(24, length)
    return False


def _mxf(file: BinaryIO, size: int) -> bool:
    position, footer = 0, False
    while position < size:
        file.seek(position)
        head = file.read(25)
        key, length, start = head[:16], head[16], 17
        if length & 0x80:
            count = length & 0x7F
            length, start = int.from_bytes(head[17 : 17 + count], "big"), 17 + count
        if not key.startswith(_MXF_KEY):
            return False
        footer = footer or key[8:14] == _MXF_FOOTER
        position += start + length
    return footer and position == size


def _nut(file: BinaryIO, size: int) -> bool:
    """An index ends the file, followed by its length."""
    file.seek(max(0, size - 12))
    length = struct.unpack(">Q", file.read(8))[0]
    file.seek(max(0, size - length))
    return file.read(8) == _NUT_INDEX


_CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "matroska": _matroska,
    "mov": _mp4,
    "avi": _avi,
    "flv": _flv,
    "asf": _asf,
    "mxf": _mxf,
    "nut": _nut,
}
