"""Why work waits: a command, failures in a row, or an outbox that is full or read-only."""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from colordaemon.clock import Monotonic
from colordaemon.config import JobSettings

log = logging.getLogger(__name__)

BREAK_SECONDS = 3600.0  # after failures in a row; a share that is down is often back by then
SPACE_SECONDS = 30.0  # at most, between two checks of a disk that is full


@dataclass
class Pauses:
    """Reasons for which no work is started, each until a time or until it is removed.



    failures: how many different files have to fail in a row through the machine's fault before work
    is paused. A whole archive must not be marked as failed because a disk or a GPU is gone.
    """

    failures: int
    _until: dict[str, tuple[float, str]] = field(default_factory=dict)
    _failed: set[int] = field(default_factory=set)

    def add(self, code: str, reason: str, until: float = math.inf) -> None:
        self._until[code] = (until, reason)

    def remove(self, *codes: str) -> None:
        """End these pauses, or all."""
        for code in codes or tuple(self._until):
            self._until.pop(code, None)
        if not codes or "failures" in codes:
            self._failed.clear()

    def has(self, code: str) -> bool:
        return code in self._until

    def failed(self, job: int, now: Monotonic) -> bool:
        """Count a file that failed through the machine's fault. Returns whether work is paused
        now."""
        self._failed.add(job)
        if len(self._failed) < self.failures:
            return False
        self._failed.clear()
        reason = f"{self.failures} files failed one after the other"
        self.add("failures", reason, now + BREAK_SECONDS)
        return True

    def succeeded(self) -> None:
        self._failed.clear()

    def reason(self, now: Monotonic) -> str | None:
        """Why work is paused, for people; None if it is not."""
        self._until = {code: held for code, held in self._until.items() if held[0] > now}
        return next((reason for _, reason in self._until.values()), None)


class OutboxSpace:
    """Which outboxes can take results; those that are full or read-only are checked again later."""

    def __init__(self, settings: JobSettings) -> None:
        self.settings = settings
        self._waits: dict[Path, tuple[float, str]] = {}
        self._told: dict[Path, str] = {}

    @property
    def wait_seconds(self) -> float:
        return min(SPACE_SECONDS, self.settings.retry_seconds)

    def wait(self, outbox: Path, reason: str, now: Monotonic) -> None:
        """Start no work for an outbox for `wait_seconds`."""
        if reason != self._told.get(outbox):  # the same every half a minute would fill the log
            log.warning("work waits for space: %s", reason)
        self._told[outbox] = reason
        self._waits[outbox] = now + self.wait_seconds, reason

    def recheck(self) -> None:
        """Check all outboxes again at once."""
        self._waits.clear()

    def waits(self, outbox: Path, now: Monotonic) -> bool:
        return self._waits.get(outbox, (-math.inf, ""))[0] > now

    def with_room(self, outboxes: Iterable[Path], now: Monotonic) -> set[Path]:
        """Those of them that have enough free space; checks each."""
        return {outbox for outbox in set(outboxes) if self._has_room(outbox, now)}

    def reason(self, now: Monotonic) -> str | None:
        """Why an outbox takes no results at the moment, for people; None if all do."""
        return next((reason for until, reason in self._waits.values() if until > now), None)

    def can_write(self, outbox: Path, now: Monotonic) -> bool:
        """Whether results can be written now; a disk with errors becomes read-only."""
        return self._free_mib(outbox, now) is not None

    def _has_room(self, outbox: Path, now: Monotonic) -> bool:
        free, wanted = self._free_mib(outbox, now), self.settings.free_mib
        if free is not None and free < wanted:
            self.wait(outbox, f"{free} MiB free in {outbox}, {wanted} wanted", now)
        return free is not None and free >= wanted

    def _free_mib(self, outbox: Path, now: Monotonic) -> int | None:
        """Free space of an outbox; None if it waits or cannot be written to."""
        if self.waits(outbox, now):
            return None
        try:
            outbox.mkdir(exist_ok=True)  # it may have been removed, results and all
            if not os.access(outbox, os.W_OK):
                raise OSError(errno.EROFS, "it is read-only, or colordaemon may not write to it")
            return shutil.disk_usage(outbox).free >> 20
        except OSError as error:
            self.wait(outbox, f"cannot write to {outbox}: {error.strerror}", now)
            return None
