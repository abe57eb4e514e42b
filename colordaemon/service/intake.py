"""Settled files become jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from colordaemon.inbox.scan import rank_of
from colordaemon.inbox.stability import Signature
from colordaemon.inbox.watcher import Settled
from colordaemon.service.job import Found, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import Ends

FEW = 1000  # jobs in one turn, which take 30 ms

log = logging.getLogger(__name__)


class Intake:
    """Between the watch and the journal. priority_of: of a source."""

    def __init__(
        self, journal: Journal, priority_of: Callable[[Path], int] = lambda source: 0
    ) -> None:
        self._journal, self._priority_of = journal, priority_of
        self._to_prioritize: list[int] = []

    def knows(self, path: Path, signature: Signature) -> bool:
        """Whether the journal has a job for exactly this file, whatever became of it."""
        found = Found(path, signature.size, signature.mtime_ns)
        return not [*self._journal.unknown([found])]

    def take(self, settled: Sequence[Settled], ends: Ends, wall: float) -> int:
        """Queue what has settled in one inbox; returns how many are new."""
        if not settled:
            return 0
        found = []
        for path, signature in ((each.path, each.signature) for each in settled):
            try:
                found.append(self._found(path, signature, ends, wall))
            except (OSError, ValueError, OverflowError) as error:
                log.warning("not taken: %s: %s", path, error)
        added = self._journal.add(found, wall)
        for each in found:
            if not each.size:
                (job, *_) = self._journal.of_source(each.path)
                ends.set_aside(job, State.FAILED, "empty", "the file is empty, and stays so", wall)
        return added

    def prioritize(self, priority_of: Callable[[Path], int]) -> None:
        """Take other priorities; what is in the queue gets them little by little, see `turn`."""
        self._priority_of = priority_of
        self._to_prioritize = self._journal.ids(State.QUEUED)

    def turn(self) -> None:
        """Give a few of those that wait their new priorities."""
        few, self._to_prioritize = self._to_prioritize[:FEW], self._to_prioritize[FEW:]
        if few:
            self._journal.prioritize(few, self._priority_of)

    @property
    def is_busy(self) -> bool:
        """Whether there are more of those."""
        return bool(self._to_prioritize)

    def _found(self, path: Path, signature: Signature, ends: Ends, wall: float) -> Found:
        """What goes into the queue, in place of what waits there for older content."""
        for job in self._journal.supersede(path, signature.size, signature.mtime_ns, wall):
            ends.clean(job)
        priority = self._priority_of(path)
        return Found(
            path,
            signature.size,
            signature.mtime_ns,
            rank_of(path),
            priority,
            signature.device,
            signature.inode,
            signature.ctime_ns,
        )
