"""Moves the table of contents of mp4 before the media, so that a film plays while it downloads.

FFmpeg writes it at the end, and so it stays until all else is put in; then the media are moved
within the file, which takes no further room on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from colordaemon.media.boxes import Box, Contents, check_ends_file, top_level

_BLOCK = 1 << 24  # bytes that are moved at once


def plays_early(path: Path) -> bool:
    """Whether the table of contents stands ahead of the media. Raises OSError."""
    with path.open("rb") as file:
        kinds = [kind for kind, *_ in top_level(file) if kind in (b"moov", b"mdat")]
    return kinds[:1] == [b"moov"]


def write_contents_first(
    path: Path, contents: Contents, behind: bytes, heartbeat: Callable[[], None]
) -> None:
    """As `boxes.write_contents`, but ahead of the media. heartbeat: called now and then."""
    with path.open("r+b") as file:
        check_ends_file(file, path, contents)
        place = next(offset for kind, offset, _, _ in top_level(file) if kind != b"ftyp")
        room = move_samples(contents.moov, len(behind))
        for _ in _move_up(file, place, contents.offset, room):
            heartbeat()
        file.seek(place)
        file.write(bytes(contents.moov) + behind)
        file.truncate(contents.offset + room)


def move_samples(moov: Box, more: int) -> int:
    """Say that all samples stand further behind, by a table of contents and `more` bytes; returns
    how many that are."""
    tables = [box for box in moov.all("trak mdia minf stbl stco") if len(box.data) > 8]
    highest = max((int(_offsets(box).max(initial=0)) for box in tables), default=0)
    room = len(bytes(moov)) + more
    if highest + room + 4 * sum(len(box.data) for box in tables) >> 32:
        for box in tables:
            box.kind, box.data = b"co64", box.data[:8] + _offsets(box).astype(">u8").tobytes()
        room = len(bytes(moov)) + more
    for box in (*moov.all("trak mdia minf stbl stco"), *moov.all("trak mdia minf stbl co64")):
        moved = _offsets(box) + room
        box.data = box.data[:8] + moved.astype(_offset_type(box)).tobytes()
    return room


def _offsets(box: Box) -> np.ndarray:
    return np.frombuffer(box.data, _offset_type(box), offset=8).astype(np.int64)


def _offset_type(box: Box) -> str:
    return ">u8" if box.kind == b"co64" else ">u4"


def _move_up(file: BinaryIO, start: int, end: int, by: int) -> Iterator[None]:
    """Move bytes of a file towards its end, the last ones first, in steps."""
    while end > start:
        size = min(_BLOCK, end - start)
        end -= size
        file.seek(end)
        data = file.read(size)
        file.seek(end + by)
        file.write(data)
        yield
