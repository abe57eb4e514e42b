"""What was wrong with a film, counted while it is read."""

from __future__ import annotations

from dataclasses import dataclass

ALWAYS_TOLERATED = 8  # damaged packets, so that a short clip survives one scratch


@dataclass
class Damage:
    """Counts from the film's beginning to some frame, or to its end.

    jumps: of the film's clock, behind which all times are moved.
    overdeclared: seconds that a header promises beyond what is there, though nothing is missing.
    film_end, content_end: how far its packets, and those of all streams, reach in seconds.
    """

    packets: int = 0
    damaged: int = 0
    retimed: int = 0
    jumps: int = 0
    overdeclared: float = 0.0
    film_end: float = 0.0
    content_end: float = 0.0

    def exceeds(self, percent: float) -> bool:
        return self.damaged > max(ALWAYS_TOLERATED, self.packets * percent / 100)
