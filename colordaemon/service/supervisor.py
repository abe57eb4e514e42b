"""Starts the worker process, talks to it, kills it when it hangs, and starts the next one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from colordaemon.child import Child
from colordaemon.clock import Monotonic
from colordaemon.convert.routing import Routing
from colordaemon.errors import WorkerLost
from colordaemon.service.messages import Environment, FromWorker, Ready, ToWorker

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "colordaemon.service.worker")
KILL_SECONDS = 60.0  # a killed process that is still there after this hangs in the kernel
START_LIMIT = 3  # workers in a row that die before they are ready; then the daemon gives up


class WorkerProcess(Child):
    """A running worker. command: what to run, followed by two numbers; see `worker.main`."""

    def __init__(
        self,
        routing: Routing,
        environment: Environment | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        super().__init__(command, environment)
        with suppress(OSError):  # dead already: `is_dead` says so
            self._connection.send(routing)

    def send(self, message: ToWorker) -> None:
        with suppress(OSError):
            self._connection.send(message)

    def receive(self) -> list[FromWorker]:
        """All messages since the last call, also the last ones of a dead worker."""
        said: list[FromWorker] = []
        with suppress(EOFError, OSError):
            while self._connection.poll():
                said.append(self._connection.recv())
        return said


MakeWorker = Callable[[Routing, Environment], WorkerProcess]


class Supervisor:
    """Keeps one worker running: one of several, each of which has a number.

    environment: of the next worker, in addition to ours. lent_to: the job of another worker that
    has a helper in place of a worker here. is_outdated: whether the worker has settings of before,
    and takes no more files. beside: how many photos it takes beside its other work. part: of the
    cluster's workers, as it was told.
    """

    def __init__(self, make_worker: MakeWorker, number: int = 0) -> None:
        self.number, self.environment = number, dict[str, str]()
        self.lent_to: int | None = None
        self.is_outdated, self.beside, self.part = False, 0, 1.0
        self._make_worker = make_worker
        self.worker: WorkerProcess | None = None
        self.ready_on = ""  # the device, once the model is loaded
        self.start_at = 0.0
        self._heard_at = 0.0
        self._killed: tuple[float, str] | None = None
        self._failed_starts = 0

    @property
    def is_lost(self) -> bool:
        """Whether a killed worker does not end: only a restart of the machine may help."""
        return self._killed is not None and self._heard_at - self._killed[0] > KILL_SECONDS

    @property
    def is_ready(self) -> bool:
        return bool(self.ready_on) and self._killed is None

    def start(self, routing: Routing, now: Monotonic) -> None:
        self.worker = self._make_worker(routing, self.environment)
        self._heard_at, self._killed, self.ready_on = now, None, ""
        self.is_outdated = False

    def close(self) -> None:
        """Stop the worker; the next one may start at once. One that is still loading its model
        reads no messages, so it is killed at once."""
        self._end(5.0 if self.ready_on else 0.0)
        self.start_at = 0.0

    def receive(self, now: Monotonic) -> Iterator[FromWorker]:
        """The worker's messages since the last call."""
        for message in self.worker.receive() if self.worker else []:
            self._heard_at = now
            if isinstance(message, Ready):
                self.ready_on, self._failed_starts = message.on, 0
                self.beside, self.part = message.beside, 1.0
            yield message

    def order_sent(self, now: Monotonic) -> None:
        """An order was sent: the time without a message counts from here."""
        self._heard_at = now

    def cause_of_death(self) -> str | None:
        """Why the worker ended; None while it runs."""
        if self.worker is None or not self.worker.is_dead:
            return None
        return self._killed[1] if self._killed else self.worker.cause_of_death()

    def reap(self, now: Monotonic) -> None:
        """Clean up after a dead worker and set when the next one may start. Raises WorkerLost after
        START_LIMIT workers in a row that died before they were ready."""
        cause = self.cause_of_death()
        self._failed_starts += not self.ready_on
        self._end(0.0)
        self.start_at = now + (2.0**self._failed_starts if self._failed_starts else 0.0)
        if self._failed_starts >= START_LIMIT:
            raise WorkerLost(f"the worker died {START_LIMIT} times before it was ready: {cause}")

    def watch(self, now: Monotonic, hang_seconds: float, *, busy: bool) -> None:
        """Kill a worker that has sent no message for too long while it loads its model or works."""
        if self.worker is None:
            return
        if self._killed is not None:
            self._heard_at = now
        elif (busy or not self.ready_on) and now - self._heard_at > hang_seconds:
            self._killed = now, f"no sign of life for {hang_seconds:g} s"
            log.error("killing the worker: %s", self._killed[1])
            self.worker.kill()

    def _end(self, seconds: float) -> None:
        if self.worker is not None:
            self.worker.close(seconds)
        self.worker, self.ready_on, self._killed = None, "", None
