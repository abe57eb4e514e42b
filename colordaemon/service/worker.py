"""The process that holds the model and colors files: `python -m colordaemon.service.worker FD`.

A child process of the daemon, because FFmpeg and CUDA may crash their process. Through one end of a
socket pair it receives the settings and then orders. It colors one file at a time, and photos
between two segments of a film; with a cluster, which colors them, photos beside all else.
"""

from __future__ import annotations

import logging
import resource
import sys
import threading
from collections import deque
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import torch

from colordaemon.child import die_with, ignore_signals
from colordaemon.convert.models import ModelCache, cluster_of, environments
from colordaemon.convert.routing import Routing
from colordaemon.errors import ConfigError, ModelError
from colordaemon.film.helper import HelperProcess
from colordaemon.inbox.safe_open import PRIVATE, umask
from colordaemon.logs import set_up_logging
from colordaemon.memory import limit_bytes
from colordaemon.network.device import overlooks_gpu
from colordaemon.service.coloring import Coloring, OrderContext
from colordaemon.service.messages import (
    Fault,
    FromWorker,
    Help,
    Machines,
    Order,
    Ready,
    Segment,
    Share,
    Started,
    StartFailed,
    Stop,
    ToWorker,
)

if TYPE_CHECKING:
    from colordaemon.service.photo_lane import PhotoLane

log = logging.getLogger(__name__)

_LEAST_BYTES = 1 << 30  # of memory for a worker, as for the smallest `jobs.memory_mib`
_UNUSED_BYTES = 512 << 20  # reserved by threads for their stacks, and never used


class Worker:
    """Carries out orders until the daemon closes the connection."""

    def __init__(self, connection: Connection, routing: Routing, folder_umask: int = 0o022) -> None:
        """folder_umask: for folders of results. Raises ModelError, ConfigError."""
        self._connection, self._sending = connection, threading.Lock()
        self._routing = routing
        self._threads = torch.get_num_threads()
        self._order: Order | None = None  # the outermost
        self._helpers: list[HelperProcess] = []  # of that
        self._waiting: deque[Order] = deque()
        self._stopping = False
        self._stack = ExitStack()
        cluster = self._cluster = self._stack.enter_context(cluster_of(routing.config))
        self._lane: PhotoLane | None = None
        if cluster is not None:
            from colordaemon.service.photo_lane import PhotoLane  # with what only clusters need

            self._lane = PhotoLane(cluster, self.send, lambda: self._order is None)
            self._stack.callback(self._lane.close)
        photos = self._lane.photos if self._lane else None
        cache = ModelCache(self._helpers, cluster, photos=photos)
        self._coloring = Coloring(routing, cache, self.send, folder_umask)
        if self._lane:
            self._lane.begin(self._coloring.run)

    def close(self) -> None:
        self._stack.close()

    def warm_up(self) -> None:
        """Color a first picture, which takes long: kernels are chosen and memory is allocated.

        Raises ModelError.
        """
        colorizer = self._coloring.predict()
        config = self._routing.config
        wanted = config.model.device
        remark = " (CUDA does not find the NVIDIA GPU)" if overlooks_gpu(wanted) else ""
        # Each may have a file, and each file needs some memory.
        most = max(1, limit_bytes(config.jobs.memory_mib) // _LEAST_BYTES)
        every = environments(config.jobs, config.model, has_cluster=self._cluster is not None)
        if len(every) > most:
            log.info("memory for %d of %d workers (jobs.memory_mib)", most, len(every))
        beside = self._lane.photos.most if self._lane else 0
        self.send(Ready(f"{colorizer}{remark}", tuple(every[:most]), beside))

    def run(self) -> None:
        """Raises EOFError when the daemon is gone."""
        while True:
            if self._waiting:
                self._handle(self._waiting.popleft())
                continue
            message: ToWorker = self._connection.recv()
            self._take(message)
            self._stopping = False  # a stop that came after the work was finished

    def _handle(self, order: Order) -> None:
        self.send(Started(order.job))
        context = _WorkerContext(self, order)
        if self._order is not None:  # a photo between two segments
            self._coloring.run(order, context)
            return
        self._order = order
        self._take_share(1)
        try:
            self._coloring.run(order, context)
        finally:
            self._order = None
            while self._helpers:
                self._helpers.pop().end()

    def _take_share(self, processes: int) -> None:
        """Use as much memory, and as many cores, as the order allows. processes: that work on it,
        each of which has a share."""
        assert self._order is not None
        share = min(1.0, self._order.share * processes)
        torch.set_num_threads(max(1, round(self._threads * share)))
        stacks = self._lane.STACK_BYTES if self._lane else 0
        limit_memory(self._routing.config.jobs.memory_mib, share, stacks)

    def between_segments(self, order: Order, count: int) -> None:
        """Do photos that were ordered while a film runs, so that they need not wait for hours."""
        self.send(Segment(order.job, count))
        self._listen()
        while self._waiting and not self._stopping:
            self._handle(self._waiting.popleft())

    def should_stop(self) -> bool:
        self._listen()
        return self._stopping

    def _listen(self) -> None:
        try:
            while self._connection.poll():
                self._take(self._connection.recv())
        except EOFError:
            self._stopping = True

    def _take(self, message: ToWorker) -> None:
        match message:
            case Stop(job):
                self._stop(job)
            case Help():
                self._have_helped(message)
            case Share(part) if self._cluster:
                self._cluster.take_part(part)
                told = self._cluster.as_json() if part else self._cluster.at_rest()
                self.send(Machines(told))
            case Order() if message.is_beside and self._lane:
                self._lane.take(message)
            case Order():
                self._waiting.append(message)

    def _stop(self, job: int | None) -> None:
        if self._lane:
            self._lane.stop(job)
        if job is not None:
            return
        self._stopping = True
        while self._waiting:
            self._coloring.fail(self._waiting.popleft(), Fault.STOPPED, "stopped")

    def _have_helped(self, help_: Help) -> None:
        """Have helpers for the film that is being worked on; they start when they are asked."""
        if self._order is not None and self._order.job == help_.job:
            seconds = self._routing.config.jobs.hang_seconds
            self._helpers += [HelperProcess(each, seconds) for each in help_.environments]
            self._take_share(1 + len(self._helpers))

    def send(self, message: FromWorker) -> None:
        with self._sending:
            self._connection.send(message)


class _WorkerContext(OrderContext):
    """Of the order that the worker itself is at."""

    def __init__(self, worker: Worker, order: Order) -> None:
        super().__init__(worker.send, order)
        self._worker = worker

    def segment_done(self, count: int) -> None:
        self._worker.between_segments(self._order, count)

    def should_stop(self) -> bool:
        return self._worker.should_stop()


def limit_memory(memory_mib: int | None, share: float = 1.0, stack_bytes: int = 0) -> None:
    """Limit the memory of this process, so that the kernel does not have to choose one to kill.

    stack_bytes: that more threads than usual reserve.
    Not with CUDA: its driver maps far more than it uses. Reserved address space does not count.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    wanted = int(limit_bytes(memory_mib) * share) + _UNUSED_BYTES + stack_bytes
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def main() -> None:
    descriptor, parent = map(int, sys.argv[1:])
    die_with(parent)
    ignore_signals()  # they are meant for the daemon
    set_up_logging()
    with Connection(descriptor) as connection, umask(PRIVATE) as folder_umask:
        routing: Routing = connection.recv()
        with ExitStack() as stack:
            try:
                worker = Worker(connection, routing, folder_umask)
                stack.callback(worker.close)
                worker.warm_up()
            except (ConfigError, ModelError) as error:
                connection.send(StartFailed(str(error)))
                return
            with suppress(EOFError, ConnectionError):  # the daemon is gone
                worker.run()


if __name__ == "__main__":
    main()
