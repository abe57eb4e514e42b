"""Child processes that get orders through a pipe: the daemon's worker, and helpers with a film."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe

_PR_SET_PDEATHSIG = 1


class Child:
    """A running child process. To be made by a thread that lives as long as it; see `die_with`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """command: what to run, followed by two numbers: the descriptor of its end of the pipe, and
        of the parent process. environment: in addition to ours."""
        self._connection, theirs = Pipe()
        with theirs:
            line = [*command, str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603
                line, pass_fds=[theirs.fileno()], env={**os.environ, **(environment or {})}
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """Readable when there is something to receive, and when the child dies."""
        return self._connection.fileno()

    @property
    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()

    def cause_of_death(self) -> str:
        status = self._process.returncode
        if status is not None and status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def close(self, seconds: float = 5.0) -> None:
        """Close the connection, which ends the child; kill it if it is still there afterwards."""
        self._connection.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a GPU that hangs holds it in the kernel
                self._process.wait(seconds)


def die_with(parent: int) -> None:
    """In a child: end with the parent, also if that is killed. The kernel means the thread of the
    parent that made the child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def ignore_signals() -> None:
    """In a child: leave those to the parent that a terminal or systemd sends to all of a group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
