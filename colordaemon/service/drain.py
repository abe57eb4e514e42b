"""The end of a daemon: what is being done may be finished within a limit, and is left otherwise."""

from __future__ import annotations

import math

ABORT_SECONDS = 10.0  # for a worker to leave a film after it was asked to


class Drain:
    """Counts down once it has begun. `now` is in seconds of a clock that never jumps."""

    def __init__(self) -> None:
        self._until = math.inf
        self._asked = False

    @property
    def has_begun(self) -> bool:
        return self._until < math.inf

    @property
    def next_due(self) -> float:
        return self._until

    def begin(self, now: float, limit_seconds: float, seconds_left: float) -> None:
        """seconds_left: what the work is going to take; not begun to wait for in vain."""
        self._until = now if seconds_left > limit_seconds else now + limit_seconds

    def should_ask(self, now: float) -> bool:
        """Whether the worker is to be asked, now and only now, to leave what it is doing."""
        if self._asked or now < self._until:
            return False
        self._asked, self._until = True, now + ABORT_SECONDS
        return True

    def is_over(self, now: float) -> bool:
        """Whether the worker has had its time to leave."""
        return self._asked and now >= self._until
