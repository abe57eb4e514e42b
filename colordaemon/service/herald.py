"""Ends of jobs are told to the hooks, one after the other, and again where a hook fails.

The journal knows until then what is still to be told, so nothing is lost over a restart; how often
it was tried is forgotten, and how old it is is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from colordaemon.config import AfterSettings
from colordaemon.printable import printable
from colordaemon.service.hooks import Command, Hooks, commands_of
from colordaemon.service.job import Job
from colordaemon.service.journal import Journal

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 3600.0  # seconds between two tries for one job
BREATH = 60.0  # seconds, at the most, for which nothing is told while every hook fails
END_SECONDS = 3 * 86400.0  # over a weekend; what is older than that is given up


@dataclass(frozen=True)
class _Again:
    """What is still to run for a job, and when."""

    commands: Sequence[Command]
    pause: float
    due: float


class Herald:
    """Between the journal and the hooks. `now` is in seconds of a clock that never jumps, `wall` in
    Unix seconds."""

    def __init__(self, journal: Journal, settings: AfterSettings) -> None:
        self._journal = journal
        self._take(settings)

    def _take(self, settings: AfterSettings) -> None:
        """Hooks that are new are not told of all that was done before them."""
        self._hooks = Hooks(commands_of(settings), settings.hook_seconds)
        self._again: dict[int, _Again] = {}
        self._breath = self._silent_until = 0.0
        if self._hooks and not self._journal.has_hook:
            self._journal.announce_nothing()
        self._journal.note("hook", "yes" if self._hooks else "")

    def reload(self, settings: AfterSettings) -> None:
        self._hooks.close()
        self._take(settings)

    @property
    def is_busy(self) -> bool:
        return self._hooks.is_busy

    def turn(self, now: float, wall: float) -> None:
        if not self._hooks:
            return
        if (job := self._hooks.ended(now)) is not None:
            self._ended(job, now, wall)
        if not self._hooks.is_busy and now >= self._silent_until:
            self._next(now)

    def close(self) -> None:
        self._hooks.close()

    def _ended(self, job: Job, now: float, wall: float) -> None:
        before = self._again.pop(job.id, None)
        if not self._hooks.failed:
            self._breath = 0.0
            self._journal.announced(job)
            return
        self._breath = min(BREATH, 2 * self._breath or 1.0)
        self._silent_until = now + self._breath
        if wall - job.changed >= END_SECONDS:
            log.error("hook: gave up for %s", printable(str(job.source)))
            self._journal.announced(job)
            return
        pause = min(LONGEST_PAUSE, 4 * before.pause) if before else FIRST_PAUSE
        self._again[job.id] = _Again(self._hooks.failed, pause, now + pause)

    def _next(self, now: float) -> None:
        """The job that has waited longest, past those whose pause is not over."""
        for job in self._journal.to_announce(len(self._again) + 1):
            again = self._again.get(job.id)
            if again is None or now >= again.due:
                self._hooks.start(job, now, again.commands if again else None)
                return
