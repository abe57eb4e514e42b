"""Runs a function in a process of its own.

So what one measurement holds in memory, and what it warms up, is of no account to the next. The
most memory is read as VmHWM: what `getrusage` says begins with the memory of the parent.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from typing import Any, Generic, TypeVar

from colordaemon.child import Child, die_with, ignore_signals
from colordaemon.errors import ColordaemonError, Interrupted

T = TypeVar("T")

# Not with -m: there the class of results would be another than here.
COMMAND = (sys.executable, "-c", "from colordaemon.bench.process import main; main()")
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Ran(Generic[T]):
    """What a function returned, and the most memory of its process, in MiB. device_peak_mib: of the
    GPU, None without one."""

    result: T
    peak_mib: float
    device_peak_mib: float | None


def in_process(function: Callable[..., T], *arguments: Any, stop: Event) -> Ran[T]:
    """Call a function of a module, with arguments that can be pickled, in a fresh process.

    Raises what it raises of our own errors, Interrupted when a stop is asked for, and
    ChildProcessError if the process dies of anything else; it is gone in any case.
    """
    child = _StageChild(COMMAND)
    try:
        said = child.ask((function, arguments), stop)
    finally:
        child.kill()
        child.close()
    if isinstance(said, ColordaemonError):
        raise said
    assert isinstance(said, Ran)
    return said


class _StageChild(Child):
    def ask(self, order: object, stop: Event) -> object:
        """Raises Interrupted and ChildProcessError."""
        try:
            self._connection.send(order)
            while not self._connection.poll(_POLL_SECONDS):
                if stop.is_set():
                    raise Interrupted("stopped")
            return self._connection.recv()
        except (EOFError, ConnectionError):
            status = self._process.wait()
            if status == -signal.SIGKILL:
                cause = "was killed, perhaps because memory ran out"
            elif status > 0:
                cause = f"ended with status {status}; what it wrote on standard error says why"
            else:
                cause = self.cause_of_death()
            raise ChildProcessError(f"its process {cause}") from None


def peak_mib(pid: int | None = None) -> float:
    """The most memory that a process has held, in MiB; None: this one."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0 if pid else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_peak_mib() -> float | None:
    """The most that torch has reserved of the GPU; None if it has not been used."""
    if "torch" not in sys.modules:
        return None
    import torch

    reserved = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    return reserved / 2**20 if reserved else None


def children() -> list[int]:
    """The processes that this one has started and that have not ended."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += map(int, path.read_text().split())
    return found


def main() -> None:
    descriptor, parent = map(int, sys.argv[1:])
    die_with(parent)
    ignore_signals()  # they are meant for the parent
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    connection, status = Connection(descriptor), 0
    try:
        function, arguments = connection.recv()
        connection.send(Ran(function(*arguments), peak_mib(), device_peak_mib()))
    except ColordaemonError as error:
        connection.send(error)
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)  # at once: threads of libraries could hold up the usual way
