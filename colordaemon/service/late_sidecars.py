"""Finds pictures that guide colors and came, or changed, after work on their files had begun.

Those files keep the colors that they have; the log and the status say how to color them again.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colordaemon.clock import UnixTime
from colordaemon.errors import MediaError
from colordaemon.guide.sidecars import pictures_in
from colordaemon.inbox.stability import signature_of
from colordaemon.service.job import Job, State
from colordaemon.service.journal import Journal
from colordaemon.sidecar_names import sidecar_file, sidecar_folder

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0  # between two checks of one that is still changing
_BATCH = 100  # checks in one turn, which take 20 ms
_MOST_SEEN = 10_000  # whose times are remembered, so that a scan asks the journal only for new ones
_MOST_LATE = 100
_LISTED = 3  # job numbers in one message


@dataclass(frozen=True)
class _Late:
    """A file or folder, and the jobs that it came too late for; some may still be running."""

    path: Path
    jobs: list[Job]

    @property
    def advice(self) -> str:
        """What to do about it, for people."""
        numbers = [str(job.id) for job in self.jobs]
        more = " …" if len(numbers) > _LISTED else ""
        name = self.jobs[0].source.name if len(numbers) == 1 else f"{len(numbers)} files"
        return (
            f"came or changed after work on {name} had begun;"
            f" `colordaemon retry {' '.join(numbers[:_LISTED])}{more}` colors again"
        )


class LateSidecars:
    """The late ones of one inbox. settle_seconds: see `watcher.settle_seconds`."""

    def __init__(self, journal: Journal, inbox: Path, settle_seconds: float) -> None:
        self._journal, self._inbox, self.settle_seconds = journal, inbox, settle_seconds
        self._seen: dict[Path, float] = {}
        self._waiting = deque[tuple[float, Path]]()  # until when, by the clock on the wall
        self._late: dict[Path, None] = {}

    def notice(self, path: Path) -> None:
        """Check a file or folder that an event or a scan has found, once it is left alone."""
        if self._seen.get(path) == (changed := self._changed(path)):
            return
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[path] = changed
        self._waiting.append((0.0, path))

    def turn(self, wall: UnixTime) -> None:
        """Log those that turn out to be late."""
        for _ in range(min(_BATCH, len(self._waiting))):
            until, path = self._waiting[0]
            if wall < until <= wall + CHECK_SECONDS:  # not if the clock was set back
                break
            self._waiting.popleft()
            if not self._check(path, wall):
                self._waiting.append((wall + CHECK_SECONDS, path))

    def _check(self, path: Path, wall: UnixTime) -> bool:
        """Log a file or folder if it is late. False: that cannot be said yet."""
        if 0 <= wall - self._changed(path) < self.settle_seconds:
            return False
        late = self._look_up(path)
        if any(job.state in (State.RUNNING, State.PUBLISHING) for job in late.jobs):
            return False  # a film begins anew if one of its pictures has changed
        if late.jobs and len(self._late) < _MOST_LATE:
            self._late[path] = None
            log.warning("%s %s", path, late.advice)
        return True

    def as_json(self) -> list[dict[str, Any]]:
        """Those that are still late: for the status."""
        found = [self._look_up(path) for path in self._late]
        self._late = {late.path: None for late in found if late.jobs}
        return [
            {
                "path": os.fspath(late.path),
                "jobs": [job.id for job in late.jobs],
                "why": late.advice,
            }
            for late in found
            if late.jobs
        ]

    def _look_up(self, path: Path) -> _Late:
        name = sidecar_file(path.name) or sidecar_folder(path.name)
        if name is None:
            return _Late(path, [])
        jobs = self._journal.begun_before(path.parent, name.base, self._changed(path))
        return _Late(path, [job for job in jobs if self._can_be_retried(job)])

    def _can_be_retried(self, job: Job) -> bool:
        """Whether it is the latest of its source, and that is still there."""
        (latest, *_) = self._journal.of_source(job.source)
        return latest.id == job.id and signature_of(job.source) is not None

    def _changed(self, path: Path) -> float:
        """When a file, or the latest picture in a folder, was changed last; 0 if there is none."""
        return max(self._times(path), default=0.0)

    def _times(self, path: Path) -> Iterator[float]:
        if sidecar_folder(path.name) is None:
            paths = [path]
        else:
            try:
                paths = [each.path for each in pictures_in(path, self._inbox)]
            except (OSError, MediaError):
                return
        for each in paths:
            if (found := signature_of(each)) is not None:
                yield found.ctime_ns / 1e9
