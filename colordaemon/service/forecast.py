"""How long the queue will take, by how long the last files of each kind took."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from colordaemon.service.records import Records, Span

LATEST = 500  # done jobs that are looked at, the latest ones
FILM = 1  # rank of a film; that of a photo is 0


@dataclass(frozen=True)
class Forecast:
    """seconds: until all that is known is done. unknown: queued films or photos of which none was
    done yet, so nothing is known of them."""

    seconds: float = 0.0
    unknown: int = 0

    def plus(self, running: Iterable[dict[str, Any]]) -> Forecast:
        """With the jobs that are worked on; seconds_left: of each, if it is known."""
        left = [job.get("seconds_left") or 0.0 for job in running]
        return replace(self, seconds=self.seconds + max(left, default=0.0))


def forecast(records: Records) -> Forecast:
    """A film takes as long as its bytes did before, a photo as long as the others.

    Two films of as many bytes may take different times, so this is good for hours or minutes, not
    for both.
    """
    done = records.spans(LATEST)
    seconds, unknown = 0.0, 0
    for rank, (count, size) in records.waiting().items():
        known = [span for span in done if span.rank == rank]
        amount = sum(span.size for span in known) if rank == FILM else len(known)
        if amount:
            seconds += busy_seconds(known) * (size if rank == FILM else count) / amount
        else:
            unknown += count
    return Forecast(seconds, unknown)


def busy_seconds(spans: Iterable[Span]) -> float:
    """How long at least one of these was worked on: several may have been at the same time."""
    total, until = 0.0, -math.inf
    for span in sorted(spans, key=lambda span: span.began):
        total += max(0.0, span.ended - max(until, span.began))
        until = max(until, span.ended)
    return total
