"""Records the finished segments of a film, so that an interrupted film goes on after them.

| the power fails …               | on disk afterwards        | the next call              |
|---------------------------------|---------------------------|----------------------------|
| while a segment is written      | a file without a line     | makes it again             |
| after the file is flushed       | the same, complete        | makes it again             |
| while its line is written       | a torn line               | makes it again             |
| after the line is flushed       | the file and its line     | goes on after it           |

So at most one segment of each worker is made twice. Workers finish their segments in any order, so
lines stand in any order too. Every file is read again before it is used: after a full disk
or a repair of the file system it may hold something else than its line says.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av

from colordaemon import __version__
from colordaemon.durable import flush_file, flush_folder, replace_file
from colordaemon.film.plan import ResumePoint, SegmentResult
from colordaemon.media.demux import Damage

_READ_BYTES = 1 << 20


def identity_of(*parts: object) -> str:
    """A hash of everything that affects segments; `parts` must have complete reprs.

    The versions are in it, because segments of two encoders do not join; see `media.codec`.
    """
    text = repr((__version__, av.__version__, av.library_versions, parts))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


class Manifest:
    """A text file in the folder of the segments: the identity, then a line of JSON for each."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity
        self._path = folder / "segments.jsonl"

    def load(self, heartbeat: Callable[[], None] = lambda: None) -> dict[int, SegmentResult]:
        """The intact segments by their index, some of which may be missing; removes all other
        files.

        heartbeat: called for each segment, since each is read.
        """
        kept: dict[int, SegmentResult] = {}
        lines: dict[int, str] = {}
        for line in self._lines()[1:]:
            if (result := self._result(line)) is not None:
                kept[result.index], lines[result.index] = result, line
            heartbeat()
        self._start([self._identity, *lines.values()])
        names = {result.path.name for result in kept.values()} | {self._path.name}
        for path in self._folder.iterdir():
            if path.name not in names:
                path.unlink()
        return kept

    def add(self, result: SegmentResult) -> None:
        """Flush a segment to the disk, then its line."""
        flush_file(result.path)
        line = asdict(result) | {
            "path": result.path.name,
            "size": result.path.stat().st_size,
            "crc": crc_of(result.path),
        }
        self._append(json.dumps(line))

    def _lines(self) -> list[str]:
        """The complete lines; none if the file has another identity."""
        try:
            lines = self._path.read_text(encoding="ascii").split("\n")[:-1]
        except (FileNotFoundError, UnicodeDecodeError):
            return []
        return lines if lines[:1] == [self._identity] else []

    def _result(self, line: str) -> SegmentResult | None:
        try:
            values: dict[str, Any] = json.loads(line)
            path, edges = (
                self._folder / values.pop("path"),
                [values.pop("start"), values.pop("next")],
            )
            size, crc = values.pop("size"), values.pop("crc")
            if path.stat().st_size != size or crc_of(path) != crc:
                return None
            start, following = (ResumePoint(**edge) if edge else None for edge in edges)
            return SegmentResult(
                path=path,
                start=start,
                packet_pts=tuple(values.pop("packet_pts")),
                next=following,
                cuts=tuple(values.pop("cuts")),
                beside=tuple(values.pop("beside")),
                told=tuple((name, count) for name, count in values.pop("told")),
                damage=Damage(**values.pop("damage")),
                **values,
            )
        except (ValueError, KeyError, TypeError, OSError):
            return None

    def _start(self, lines: list[str]) -> None:
        """Replace the file by one with these lines, in one step."""
        text = "".join(f"{line}\n" for line in lines)
        replace_file(self._path, text.encode("ascii"))

    def _append(self, line: str) -> None:
        flush_folder(self._folder)  # the segment's name has to be on the disk before its line
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())


def crc_of(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            crc = zlib.crc32(part, crc)
    return crc
