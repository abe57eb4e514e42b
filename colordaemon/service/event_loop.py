"""Waits for signals, threads, the worker and requests; and sends the daemon's state to systemd.

The protocol of sd_notify is written by hand, as systemd's own manual advises: it is a datagram.
Outside systemd nothing is sent.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import FrameType
from typing import Self

from colordaemon.clock import Monotonic
from colordaemon.service.supervisor import WorkerProcess

log = logging.getLogger(__name__)

_SEND_SECONDS = 5.0  # as long as systemd's own sd_notify waits for systemd to read


class Wake:
    """Wakes the main loop from another thread or a signal handler."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    @property
    def write_fileno(self) -> int:
        return self._write

    def __call__(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full: the loop wakes up anyway
            os.write(self._write, b"!")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Signals:
    """Counts SIGTERM and SIGINT in `ends`, and sets `reload` at SIGHUP.

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

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.ends += 1


class EventLoop:
    """Waits until something registered with `selector` is ready, or for some seconds.

    What is registered carries a function that is called when it is ready."""

    def __init__(self, wake: Wake) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(wake, selectors.EVENT_READ, wake.clear)
        self._workers: dict[WorkerProcess, int] = {}  # and their descriptors

    def listen_to(self, workers: Collection[WorkerProcess]) -> None:
        """Wake up for messages of these workers, in place of those before."""
        for worker in [*self._workers.keys() - set(workers)]:
            self.selector.unregister(self._workers.pop(worker))  # may be closed by now
        for worker in set(workers) - self._workers.keys():
            self._workers[worker] = worker.fileno()
            self.selector.register(worker.fileno(), selectors.EVENT_READ, lambda: None)

    def wait(self, seconds: float) -> None:
        for key, _ in self.selector.select(seconds):
            key.data()

    def close(self) -> None:
        self.selector.close()


class Notifier:
    """Sends to systemd: ready, alive, reloading, stopping, and a line of status."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = int(environment.get("WATCHDOG_USEC", "0")) if mine else 0
        self.ping_seconds = microseconds / 2e6 if microseconds else None
        self._pinged = float("-inf")
        self._status = ""

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Extend the start timeout of the unit, while the model is loaded for instance."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, line: str) -> None:
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def is_ping_due(self, now: Monotonic) -> bool:
        return self.ping_seconds is not None and now - self._pinged >= self.ping_seconds

    def ping(self, now: Monotonic) -> None:
        """Tell the watchdog that the daemon is alive. Call it only from the main loop: a thread of
        its own would go on when everything else hangs."""
        self._pinged = now
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_SEND_SECONDS)
            try:
                sender.sendto(message.encode(errors="replace"), self._address)
            except OSError as error:
                log.warning("cannot send to systemd: %s", error)
