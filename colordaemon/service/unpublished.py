"""Finished files that have no name yet, because of a crash or of a full or missing disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from colordaemon.inbox.safe_open import Obstructed
from colordaemon.service.job import Job, State
from colordaemon.service.lifecycle import Ends
from colordaemon.service.pauses import Space

log = logging.getLogger(__name__)


class Unpublished:
    """They are tried again until they have their names.

    `now` is in seconds of a clock that never jumps, `wall` in Unix seconds.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._jobs: dict[int, Job] = {}
        self._refusals: dict[int, int] = {}
        self._due: dict[int, float] = {}  # of those whose way is obstructed

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._jobs.setdefault(job.id, job)

    def publish(
        self, ends_of: Callable[[Path], Ends | None], tries: int, now: float, wall: float
    ) -> None:
        """Those whose outboxes can be written. ends_of: None for a file that has to wait."""
        for job in [*self._jobs.values()]:
            ends = ends_of(job.source) if now >= self._due.get(job.id, now) else None
            if ends is not None and self._space.can_write(ends.places.outbox, now):
                self._publish(job, ends, tries, now, wall)

    def _publish(self, job: Job, ends: Ends, tries: int, now: float, wall: float) -> None:
        try:
            ends.recover(job, wall)
        except Obstructed as error:  # by somebody who may do so, and no other file waits for that
            if job.id not in self._due:
                log.warning("cannot publish %s: %s: %s", job.target, error.filename, error.strerror)
            self._due[job.id] = now + self._space.wait_seconds
            return
        except OSError as error:
            reason = f"cannot publish {job.target}: {error.strerror}"
            refusals = self._refusals[job.id] = self._refusals.get(job.id, 0) + 1
            if refusals < tries:
                self._space.wait(ends.places.outbox, reason, now)
                return
            ends.set_aside(job, State.FAILED, "publish", reason, wall)
        self._refusals.pop(job.id, None)
        self._due.pop(job.id, None)
        del self._jobs[job.id]
