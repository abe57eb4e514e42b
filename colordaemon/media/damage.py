"""Counts damage of a film while it is read."""

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


_LATE = 2  # packets that a parser is behind the mark that it passes on


class Marks:
    """Of packets that a demuxer calls damaged, because the numbers of the parts they came in have a
    gap. At a jump of the clock these start anew as well, so a mark next to one counts only if the
    picture itself turns out to be damaged.

    suspects: times of the pictures in question.
    """

    def __init__(self) -> None:
        self.suspects: set[int | None] = set()
        self._jumps = [0] * (_LATE + 2)  # up to the last packets, the oldest first
        self._marks: list[tuple[bool, int | None]] = [(False, None)] * (_LATE + 1)

    def feed(self, is_marked: bool, pts: int | None, jumps: int) -> int:
        """Take in the next packet of the film. Returns how many are known now to be damaged. jumps:
        of the clock, counted up to this packet."""
        self._jumps = [*self._jumps[1:], jumps]
        self._marks = [*self._marks[1:], (is_marked, pts)]
        if not self._marks[0][0]:
            return 0
        if self._jumps[0] == jumps:
            return 1
        self.suspects |= {time for _, time in self._marks}
        return 0

    def end(self) -> int:
        """As `feed`, behind the last packet."""
        return sum(self.feed(False, None, self._jumps[-1]) for _ in range(_LATE))
