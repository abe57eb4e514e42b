"""The worker as the daemon sees it: a process that is started, spoken to, and killed if need be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe

from colordaemon.convert.routing import Routing
from colordaemon.service.messages import FromWorker, ToWorker

COMMAND = (sys.executable, "-m", "colordaemon.service.worker")


class WorkerProcess:
    """One life of a worker. command: what to run, followed by two numbers; see `worker.main`."""

    def __init__(self, routing: Routing, command: Sequence[str] = COMMAND) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            line = [*command, str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(line, pass_fds=[theirs.fileno()])  # noqa: S603
        with suppress(OSError):  # dead already: `is_dead` says so
            self._connection.send(routing)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """Readable when there is something to receive, and when the worker dies."""
        return self._connection.fileno()

    def send(self, message: ToWorker) -> None:
        with suppress(OSError):
            self._connection.send(message)

    def receive(self) -> list[FromWorker]:
        """All that it has said since; its last words too, when it is dead."""
        said: list[FromWorker] = []
        with suppress(EOFError, OSError):
            while self._connection.poll():
                said.append(self._connection.recv())
        return said

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
        """Hang up; what does not leave by itself is killed."""
        self._connection.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a GPU that hangs holds it in the kernel
                self._process.wait(seconds)
