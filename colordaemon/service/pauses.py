"""Why the queue stands still, if it does: asked to, nowhere to write, or everything fails."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

BREAK_SECONDS = 3600.0  # after failures in a row; a share that is down is often back by then


@dataclass
class Holds:
    """`now` is in seconds of a clock that never jumps.

    failures: how many different files have to fail through the machine's fault, one after the
    other, before no further one is tried. A whole archive must not be marked as failed because a
    disk or a GPU is gone.
    """

    failures: int
    _until: dict[str, tuple[float, str]] = field(default_factory=dict)
    _failed: set[int] = field(default_factory=set)

    def hold(self, code: str, reason: str, until: float = math.inf) -> None:
        self._until[code] = (until, reason)

    def release(self, *codes: str) -> None:
        """Let go of these, or of all."""
        for code in codes or tuple(self._until):
            self._until.pop(code, None)
        if not codes or "failures" in codes:
            self._failed.clear()

    def has(self, code: str) -> bool:
        return code in self._until

    def failed(self, job: int, now: float) -> bool:
        """A file failed through the machine's fault. Returns whether that was one too many."""
        self._failed.add(job)
        if len(self._failed) < self.failures:
            return False
        self._failed.clear()
        reason = f"{self.failures} files failed one after the other"
        self.hold("failures", reason, now + BREAK_SECONDS)
        return True

    def succeeded(self) -> None:
        self._failed.clear()

    def reason(self, now: float) -> str | None:
        """In words, or None when work may go on."""
        self._until = {code: held for code, held in self._until.items() if held[0] > now}
        return next((reason for _, reason in self._until.values()), None)

    @property
    def next_end(self) -> float:
        return min((until for until, _ in self._until.values()), default=math.inf)
