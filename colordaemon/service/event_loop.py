"""Signals and other threads, as something that the main loop can wait for."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self


class Wake:
    """Ends a wait in the main loop from anywhere: another thread, or a signal."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    @property
    def write_fileno(self) -> int:
        return self._write

    def __call__(self) -> None:
        with suppress(BlockingIOError):  # full: the loop will wake up anyway
            os.write(self._write, b"!")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Signals:
    """How often we were asked to end, and whether to read the configuration again.

    SIGIO is ignored: it comes from the leases of `settle.is_being_written`.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self.ends = 0
        self.reload = False

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._heard)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        self._before[signal.SIGIO] = signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._before_fd = signal.set_wakeup_fd(self._wake.write_fileno, warn_on_full_buffer=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.ends += 1
