"""Small pictures of finished files, before and after: made by the worker, shown by the page.

They lie beside the journal, in files of their own, and nothing depends on them: who finds none
shows none. A name begins with the job's tag, which holds the journal's token, so that those of
another journal are never shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SIDES = ("before", "after")
MOST_PICTURES = 4  # of one file


class Thumbnails:
    """Those in a folder. tag: of a job, see `publisher.tag_of`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, tag: str, number: int, side: str) -> Path:
        return self._folder / f"{tag}-{number}.{side}.jpg"

    def of(self, tag: str) -> list[int]:
        """The numbers of the pictures of a job, of which both sides are there."""
        numbers = []
        for number in range(MOST_PICTURES):
            if not all(self.path(tag, number, side).is_file() for side in SIDES):
                break
            numbers.append(number)
        return numbers

    def write(self, tag: str, pictures: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep pictures of a job, JPEG before and after, in place of earlier ones. Raises
        OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for number in range(MOST_PICTURES):
            for side in SIDES:
                self.path(tag, number, side).unlink(missing_ok=True)
        for number, pair in enumerate(pictures):
            for side, data in zip(SIDES, pair, strict=True):
                self.path(tag, number, side).write_bytes(data)

    def prune(self, most: int, most_bytes: int) -> None:
        """Remove the oldest beyond these bounds. most: jobs that have pictures. Raises OSError."""
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            found = [(entry.stat(), entry) for entry in entries if entry.name.endswith(".jpg")]
            found.sort(key=lambda each: each[0].st_mtime_ns, reverse=True)
            jobs, total = set[str](), 0
            for status, entry in found:
                jobs.add(entry.name.rpartition("-")[0])
                total += status.st_size
                if len(jobs) > most or total > most_bytes:
                    Path(entry.path).unlink(missing_ok=True)
