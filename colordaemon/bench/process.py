"""Runs a function in a process of its own.

So what one measurement holds in memory, and what it warms up, is of no account to the next. The
most memory is read as VmHWM: what `getrusage` says begins with the memory of the parent.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from threading import Event
from typing import Any, Generic, TypeVar

from colordaemon.errors import ColordaemonError, Interrupted

T = TypeVar("T")

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
    ours, theirs = Pipe()
    with ours:
        with theirs:
            line = [sys.executable, "-m", __package__, str(theirs.fileno())]
            # Ctrl-C in a terminal is meant for us alone.
            process = subprocess.Popen(  # noqa: S603
                line, pass_fds=[theirs.fileno()], start_new_session=True
            )
        try:
            with suppress(OSError):  # dead already
                ours.send((function, arguments))
            while not ours.poll(_POLL_SECONDS):
                if stop.is_set():
                    raise Interrupted("stopped")
            said = ours.recv()
        except (EOFError, ConnectionError):
            raise ChildProcessError(f"its process {_cause(process.wait())}") from None
        finally:
            process.kill()
            process.wait()
    if isinstance(said, ColordaemonError):
        raise said
    assert isinstance(said, Ran)
    return said


def _cause(status: int) -> str:
    if status == -signal.SIGKILL:
        return "was killed, perhaps because memory ran out"
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}; what it wrote on standard error says why"


def peak_mib() -> float:
    """The most memory that this process has held, in MiB."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_peak_mib() -> float | None:
    """The most that torch has reserved of the GPU; None if it has not been used."""
    if "torch" not in sys.modules:
        return None
    import torch

    reserved = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    return reserved / 2**20 if reserved else None
