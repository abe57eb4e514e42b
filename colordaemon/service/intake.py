"""Settled files become jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from colordaemon.service.ends import Ends
from colordaemon.service.job import Found, State
from colordaemon.service.journal import Journal
from colordaemon.service.scan import rank_of
from colordaemon.service.settle import Signature
from colordaemon.service.watch import Settled


class Intake:
    """Between the watch and the journal. priority_of: of a source."""

    def __init__(
        self, journal: Journal, priority_of: Callable[[Path], int] = lambda source: 0
    ) -> None:
        self._journal, self._priority_of = journal, priority_of

    def knows(self, path: Path, signature: Signature) -> bool:
        """Whether the journal has a job for exactly this file, whatever became of it."""
        found = Found(path, signature.size, signature.mtime_ns)
        return not [*self._journal.unknown([found])]

    def take(self, settled: Sequence[Settled], ends: Ends, wall: float) -> int:
        """Queue what has settled in one inbox; returns how many are new."""
        if not settled:
            return 0
        found = [self._found(each) for each in settled]
        for each in found:
            for job in self._journal.supersede(each.path, each.size, each.mtime_ns, wall):
                ends.clean(job)
        added = self._journal.add(found, wall)
        for each in found:
            if not each.size:
                (job, *_) = self._journal.of_source(each.path)
                ends.set_aside(job, State.FAILED, "empty", "the file is empty, and stays so", wall)
        return added

    def prioritize(self, priority_of: Callable[[Path], int]) -> None:
        """Take other priorities, also for what is in the queue."""
        self._priority_of = priority_of
        self._journal.prioritize(priority_of)

    def _found(self, settled: Settled) -> Found:
        path, signature = settled.path, settled.signature
        priority = self._priority_of(path)
        return Found(path, signature.size, signature.mtime_ns, rank_of(path), priority)
