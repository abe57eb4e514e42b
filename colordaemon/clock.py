"""The two kinds of seconds, told apart by their types, and the clock that has both."""

from __future__ import annotations

import time
from typing import NewType

Monotonic = NewType("Monotonic", float)  # seconds that never jump; for waits
UnixTime = NewType("UnixTime", float)  # seconds since 1970, for the journal; somebody may set them


class Clock:
    """The time of this machine."""

    def monotonic(self) -> Monotonic:
        return Monotonic(time.monotonic())

    def time(self) -> UnixTime:
        return UnixTime(time.time())
