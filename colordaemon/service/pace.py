"""How far a film is and how long it will take, from the worker's signs of life."""

from __future__ import annotations

import math
from collections.abc import Callable

from colordaemon.service.messages import Alive

Figure = Callable[[Alive], float]


class Pace:
    """Of one film. A film that was resumed begins somewhere; only what was done since counts.

    `now` is in seconds of a clock that never jumps.
    """

    def __init__(self) -> None:
        self._first: tuple[float, Alive] | None = None
        self._last: tuple[float, Alive] | None = None

    def feed(self, said: Alive, now: float) -> None:
        if said.frames == 0:  # the film was opened
            return
        self._first = self._first or (now, said)
        self._last = now, said

    @property
    def seconds_left(self) -> float:
        """Infinite as long as nobody knows."""
        speed, last = self._per_second(lambda said: said.done), self._last
        if last is None or not speed or not last[1].total:
            return math.inf
        return max(0.0, last[1].total - last[1].done) / speed

    def __str__(self) -> str:
        """As in "41 %, 63.0 fps, 12 min left"; empty in the beginning."""
        if self._last is None:
            return ""
        said, parts = self._last[1], list[str]()
        if said.total:
            parts.append(f"{min(1.0, said.done / said.total):.0%}")
        if fps := self._per_second(lambda said: said.frames):
            parts.append(f"{fps:.1f} fps")
        if (left := self.seconds_left) < math.inf:
            parts.append(f"{left / 60:.0f} min left" if left >= 60 else "less than a minute left")
        return ", ".join(parts)

    def _per_second(self, figure: Figure) -> float:
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return 0.0
        gone = figure(self._last[1]) - figure(self._first[1])
        return gone / (self._last[0] - self._first[0])
