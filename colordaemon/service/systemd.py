"""What systemd is told over its socket: ready, alive, reloading, stopping, and a line of status.

Written by hand, as systemd's own manual advises: the protocol is a datagram. Outside systemd
nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

_SEND_SECONDS = 5.0  # as long as systemd's own sd_notify waits for systemd to read


class Notifier:
    """`now` is in seconds of a clock that never jumps."""

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

    def more_time(self, seconds: float) -> None:
        """To load a model; without this a start takes as long as the unit allows."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, line: str) -> None:
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def is_ping_due(self, now: float) -> bool:
        return self.ping_seconds is not None and now - self._pinged >= self.ping_seconds

    def ping(self, now: float) -> None:
        """Only from the main loop, and only when all is well: a ping from a thread of its own would
        go on when everything else hangs."""
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
                log.warning("systemd cannot be told: %s", error)
