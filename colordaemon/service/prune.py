"""Jobs that ended long ago are forgotten, a few at a time, and their pages given back to the disk.

What a row still prevents decides, not its age alone. As long as its source lies in the inbox, the
row is all that keeps the file from being colored again; and where results may be replaced, it keeps
one source's result from those of another. Such a row stays, without its inventory, and that is most
of it. What cannot be seen, as on a disk that is not mounted, counts as being there.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

from colordaemon.config import JournalSettings
from colordaemon.service.job import ENDS, NO_INVENTORY, Job, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import JobLifecycle

log = logging.getLogger(__name__)

DAY = 86400.0  # seconds; also from one look through the journal to the next
PAUSE_SECONDS = 1.0  # between two slices
SLICE_SECONDS = 0.05  # over a share a look at a file takes a millisecond
ROWS, PAGES = 200, 500  # of a slice, at the most


class Pruning:
    """`now` is in seconds of a clock that never jumps, `wall` in Unix seconds.

    lifecycle_of: of a source; None where its inbox is no longer in the configuration. clock: how
    long a slice takes.
    """

    def __init__(
        self,
        journal: Journal,
        settings: JournalSettings,
        lifecycle_of: Callable[[Path], JobLifecycle | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._ends_of, self._clock = journal, lifecycle_of, clock
        self.reload(settings)

    def reload(self, settings: JournalSettings) -> None:
        self._seconds = (settings.keep_days or math.inf) * DAY
        self._behind = self._forgotten = 0
        self._tells = False  # whether a hook is still to be told of what is announced
        self.next_due = 0.0 if settings.keep_days else math.inf

    def turn(self, now: float, wall: float) -> None:
        """The next slice, if it is due."""
        if now < self.next_due:
            return
        is_through = self._prune(wall)
        if self._journal.shrink(PAGES) or not is_through:
            self.next_due = now + PAUSE_SECONDS
            return
        if self._forgotten:
            log.info("forgot %d jobs that ended long ago", self._forgotten)
        self._behind = self._forgotten = 0
        self.next_due = now + DAY

    def _prune(self, wall: float) -> bool:
        """Look at the jobs behind those looked at before; returns whether these are the last."""
        jobs = self._journal.following(self._behind, ROWS)
        last = self._journal.last_id  # stays, or its number would be given to another file
        self._tells = self._journal.has_hook
        to_forget, to_thin = list[int](), list[int]()
        until = self._clock() + SLICE_SECONDS
        for job in jobs:
            if self._is_over(job, wall):
                if job.id != last and not self._is_needed(job):
                    to_forget.append(job.id)
                elif job.inventory != NO_INVENTORY:
                    to_thin.append(job.id)
            self._behind = job.id
            if self._clock() >= until:
                break
        if to_thin:
            self._journal.drop_inventories(to_thin)
        if to_forget:
            self._forgotten += self._journal.forget(to_forget)
        return len(jobs) < ROWS and (not jobs or self._behind == jobs[-1].id)

    def _is_over(self, job: Job, wall: float) -> bool:
        """Whether it ended long ago, and nothing more is to be done for it."""
        is_due = (job.announce and self._tells) or (job.state is State.DONE and job.retire)
        return job.state in ENDS and not is_due and wall - job.changed > self._seconds

    def _is_needed(self, job: Job) -> bool:
        lifecycle = self._ends_of(job.source)
        return lifecycle is None or lifecycle.needs(job)
