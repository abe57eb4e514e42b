"""A helper: a process that colors parts of films for another one.

It gets one task after the other through a pipe, tells of every frame and of what it would log, and
sends the result or the error. It reads and writes through files that its parent has open, so that
nobody can put others in their place. One that says nothing for too long is killed.
"""

from __future__ import annotations

import logging
import math
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from colordaemon.child import Child, die_with, ignore_signals
from colordaemon.errors import HelperDied, Interrupted
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.film.segment import SegmentWorker
from colordaemon.inbox.safe_open import by_ourselves, for_others, opened_elsewhere
from colordaemon.network.colorizer import Colorizer
from colordaemon.work_context import WorkContext

# Not with -m: there the classes of messages would be others than here.
COMMAND = (sys.executable, "-c", "from colordaemon.film.helper import main; main()")
_TELL_SECONDS = 0.1  # between two messages about progress
_STOP_SECONDS = 10.0  # until a helper is killed that was told to stop

Load = Callable[[], Colorizer]  # plain: it can be pickled, and compared with another


# To the helper


@dataclass(frozen=True)
class _Order:
    """source: where the parent has the film open. threads: of torch."""

    load: Load
    task: SegmentTask
    source: str
    threads: int


@dataclass(frozen=True)
class _Stop:
    """Leave the task, if there is one."""


@dataclass(frozen=True)
class _Close:
    """Close the film."""


# From the helper


@dataclass(frozen=True)
class Alive:
    """frames: since the last message. seconds: how far into the film the last of them is."""

    frames: int
    seconds: float


@dataclass(frozen=True)
class _Logged:
    """For the log of the parent, which knows how to show it beside its progress."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True)
class Failed:
    error: Exception
    trace: str


class HelperProcess:
    """Runs segment tasks in a process of its own, which begins with `start`."""

    def __init__(
        self, environment: Mapping[str, str] | None = None, hang_seconds: float = math.inf
    ) -> None:
        """environment: of the process, in addition to ours. hang_seconds: without a sign of life,
        until it is killed."""
        self._hang_seconds = hang_seconds
        self.context = WorkContext()
        self.load: Load | None = None  # for the tasks that come
        self.threads = 1
        self._environment = environment or {}
        self._child: _HelperChild | None = None

    def start(self) -> None:
        """Start the process if there is none; by a thread that lives as long as we need it."""
        if self._child is not None and self._child.is_dead:
            self.end()
        if self._child is None:
            self._child = _HelperChild(COMMAND, self._environment)

    def end(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child = None

    def run(self, task: SegmentTask) -> SegmentResult:
        """As `SegmentWorker.run`. Raises HelperDied too."""
        assert self._child is not None and self.load is not None
        path = Path(for_others(task.path))
        order = _Order(
            self.load, replace(task, path=path), for_others(task.source.path), self.threads
        )
        try:
            said = self._answer(self._child, order)
        except (EOFError, OSError) as error:
            raise self._death(self._child, task, error) from error
        if isinstance(said, Failed):
            failure = said.error
            if isinstance(failure, OSError):
                failure.filename = by_ourselves(failure.filename)
            failure.add_note(f"in a helper:\n{said.trace}")
            raise failure
        return replace(said, path=task.path)

    def close(self) -> None:
        if self._child is not None:
            with suppress(OSError):
                self._child.send(_Close())

    def _answer(self, child: _HelperChild, order: _Order) -> SegmentResult | Failed:
        child.send(order)
        stop_at, heard_at = math.inf, time.monotonic()
        while True:
            if not child.poll(_TELL_SECONDS):
                now = time.monotonic()
                if stop_at == math.inf and self.context.should_stop():
                    child.send(_Stop())
                    stop_at = now + _STOP_SECONDS
                if now > stop_at or now > heard_at + self._hang_seconds:
                    child.kill()
                    raise TimeoutError(f"no sign of life for {now - heard_at:.0f} s")
                continue
            said, heard_at = child.receive(), time.monotonic()
            if isinstance(said, _Logged):
                logging.getLogger(said.logger).log(said.level, "%s", said.text)
                continue
            if not isinstance(said, Alive):
                return said
            for _ in range(said.frames):
                self.context.advance(said.seconds)
            if not said.frames:
                self.context.heartbeat()

    def _death(self, child: _HelperChild, task: SegmentTask, error: Exception) -> Exception:
        """What to raise for a helper that has died, or was killed."""
        with suppress(OSError):
            child.wait()
        cause = str(error) if isinstance(error, TimeoutError) else child.cause_of_death()
        self.end()
        if self.context.should_stop():
            return Interrupted(f"{task.source.path}: stopped")
        return HelperDied(f"{task.source.path}: a helper process has died, {cause}")


class _HelperChild(Child):
    def send(self, message: _Order | _Stop | _Close) -> None:
        self._connection.send(message)

    def poll(self, seconds: float) -> bool:
        return self._connection.poll(seconds)

    def receive(self) -> SegmentResult | Alive | _Logged | Failed:
        """Raises EOFError when the process has ended."""
        said: SegmentResult | Alive | _Logged | Failed = self._connection.recv()
        return said

    def wait(self) -> None:
        """Until the process has ended, which has closed its end of the pipe or was killed."""
        with suppress(subprocess.TimeoutExpired):  # a GPU that hangs holds it in the kernel
            self._process.wait(_STOP_SECONDS)


class _Log(logging.Handler):
    """Sends records to the parent. Threads may log while another message is sent."""

    def __init__(self, send: Callable[[_Logged], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # the parent is gone
            self._send(_Logged(record.name, record.levelno, self.format(record)))


class Telling(WorkContext):
    """Tells whoever asked for the work how far it is. every_seconds: at most so often."""

    def __init__(self, send: Callable[[Alive], None], every_seconds: float) -> None:
        self._send, self._every_seconds = send, every_seconds
        self._seconds = 0.0
        self.forget()

    def forget(self) -> None:
        """What was not told yet, as it was of other work."""
        self._frames, self._told_at = 0, time.monotonic()

    def advance(self, seconds: float) -> None:
        self._frames, self._seconds = self._frames + 1, seconds
        self.heartbeat()

    def heartbeat(self) -> None:
        if time.monotonic() - self._told_at >= self._every_seconds:
            self.tell()

    def tell(self) -> None:
        self._send(Alive(self._frames, self._seconds))
        self.forget()


class _Helper(Telling):
    """Of the process itself."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(self.send, _TELL_SECONDS)
        self._connection, self._sending = connection, threading.Lock()
        self._load: Load | None = None
        self._colorizer: Colorizer | None = None
        self._worker: SegmentWorker | None = None
        self._film = ExitStack()  # closes the descriptor of the film

    def run(self) -> None:
        """Raises EOFError when the parent is gone."""
        while True:
            message = self._connection.recv()
            if isinstance(message, _Close):
                self._close()
            elif isinstance(message, _Order):  # a stop came too late
                try:
                    said: SegmentResult | Failed = self._color(message)
                except Exception as error:
                    said = Failed(portable(error), traceback.format_exc())
                if self._frames:
                    self.tell()
                self.send(said)

    def _color(self, order: _Order) -> SegmentResult:
        torch.set_num_threads(order.threads)
        if self._colorizer is None or order.load != self._load:
            self._close()
            self._colorizer, self._load = order.load(), order.load
        if self._worker is None:
            self._worker = SegmentWorker(self._colorizer, self)
            path = order.task.source.path
            self._opened = self._film.enter_context(opened_elsewhere(path, order.source))
        task = replace(order.task, source=replace(order.task.source, path=self._opened))
        return self._worker.run(task)

    def _close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = None
        self._film.close()

    def send(self, message: SegmentResult | Alive | _Logged | Failed) -> None:
        with self._sending:
            self._connection.send(message)

    def should_stop(self) -> bool:
        if not self._connection.poll():
            return False
        return isinstance(self._connection.recv(), _Stop)


def portable(error: Exception) -> Exception:
    """The error, or one that says the same if it does not survive the way to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    except Exception:
        return RuntimeError(repr(error))
    return error


def main() -> None:
    descriptor, parent = map(int, sys.argv[1:])
    die_with(parent)
    ignore_signals()  # they are meant for the parent
    with Connection(descriptor) as connection, suppress(EOFError, ConnectionError):
        helper = _Helper(connection)
        logging.getLogger().addHandler(_Log(helper.send))
        logging.getLogger().setLevel(logging.INFO)
        helper.run()
