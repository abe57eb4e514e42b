"""Settled files become jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from colordaemon.service.ends import Ends
from colordaemon.service.job import Found, State
from colordaemon.service.journal import Journal
from colordaemon.service.scan import rank_of
from colordaemon.service.settle import Signature
from colordaemon.service.watch import Settled


class Intake:
    """Between the watch and the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def knows(self, path: Path, signature: Signature) -> bool:
        """Whether the journal has a job for exactly this file, whatever became of it."""
        found = Found(path, signature.size, signature.mtime_ns)
        return not [*self._journal.unknown([found])]

    def take(self, settled: Sequence[Settled], ends: Ends, wall: float) -> int:
        """Queue what has settled; returns how many are new."""
        if not settled:
            return 0
        found = [
            Found(each.path, each.signature.size, each.signature.mtime_ns, rank_of(each.path))
            for each in settled
        ]
        for each in found:
            self._journal.supersede(each.path, each.size, each.mtime_ns, wall)
        added = self._journal.add(found, wall)
        for each in found:
            if not each.size:
                (job, *_) = self._journal.of_source(each.path)
                ends.set_aside(job, State.FAILED, "empty", "the file is empty, and stays so", wall)
        return added
