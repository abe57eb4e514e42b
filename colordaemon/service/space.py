"""Which outboxes can take results: written to, and with room. The others are looked at again."""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from colordaemon.config import JobSettings

log = logging.getLogger(__name__)

SPACE_SECONDS = 30.0  # at the most between two looks at a disk that is full


class Space:
    """`now` is in seconds of a clock that never jumps."""

    def __init__(self, settings: JobSettings) -> None:
        self.settings = settings
        self._waits: dict[Path, tuple[float, str]] = {}
        self._told: dict[Path, str] = {}

    @property
    def wait_seconds(self) -> float:
        return min(SPACE_SECONDS, self.settings.retry_seconds)

    def wait(self, outbox: Path, reason: str, now: float) -> None:
        """Nothing more goes to an outbox for a while."""
        if reason != self._told.get(outbox):  # the same every half a minute would fill the log
            log.warning("work waits for space: %s", reason)
        self._told[outbox] = reason
        self._waits[outbox] = now + self.wait_seconds, reason

    def release(self) -> None:
        """Look again at once."""
        self._waits.clear()

    def waits(self, outbox: Path, now: float) -> bool:
        return self._waits.get(outbox, (-math.inf, ""))[0] > now

    def with_room(self, outboxes: Iterable[Path], now: float) -> set[Path]:
        """Those of them to which results may go, by a look at each."""
        return {outbox for outbox in set(outboxes) if self._has_room(outbox, now)}

    def reason(self, now: float) -> str | None:
        """Why there is an outbox that nothing goes to, in words."""
        return next((reason for until, reason in self._waits.values() if until > now), None)

    def next_end(self, now: float) -> float:
        """When an outbox that waits is looked at again."""
        return min((until for until, _ in self._waits.values() if until > now), default=math.inf)

    def can_write(self, outbox: Path, now: float) -> bool:
        """Whether an outbox does not wait and is not read-only, as disks with errors become."""
        return self._free_mib(outbox, now) is not None

    def _has_room(self, outbox: Path, now: float) -> bool:
        free, wanted = self._free_mib(outbox, now), self.settings.free_mib
        if free is not None and free < wanted:
            self.wait(outbox, f"{free} MiB free in {outbox}, {wanted} wanted", now)
        return free is not None and free >= wanted

    def _free_mib(self, outbox: Path, now: float) -> int | None:
        """None where nothing can be written at all, or has to wait."""
        if self.waits(outbox, now):
            return None
        try:
            outbox.mkdir(exist_ok=True)  # somebody may have taken it away, results and all
            if not os.access(outbox, os.W_OK):
                raise OSError(errno.EROFS, "it is read-only, or not ours to write to")
            return shutil.disk_usage(outbox).free >> 20
        except OSError as error:
            self.wait(outbox, f"cannot write to {outbox}: {error.strerror}", now)
            return None
