"""Photos of the inboxes that other machines color, many at the same time.

Each has a thread, which opens it, waits for its colors and finishes the file. One more thread sees
to all of them, so that they go on whatever the worker is at. They are not its work: it has a film
meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from colordaemon.cluster.cluster import Cluster
from colordaemon.cluster.photos import PhotoCluster
from colordaemon.service.coloring import ALIVE_SECONDS, OrderContext, Send
from colordaemon.service.messages import Heartbeat, Machines, Order, Started
from colordaemon.work_context import WorkContext

log = logging.getLogger(__name__)

_TURN_SECONDS = 0.05


class PhotoLane:
    """Takes photos until it is closed."""

    STACK_BYTES = PhotoCluster.most * (8 << 20)  # of its threads: reserved, and hardly used

    def __init__(self, cluster: Cluster, send: Send, may_speak: Callable[[], bool]) -> None:
        """may_speak: whether a sign of life from here says all; else it could hide that other work
        hangs."""
        self._send, self._contexts = send, dict[int, _PhotoContext]()
        self.photos = PhotoCluster(cluster, _LaneContext(send, self._contexts, may_speak))
        self._executor = ThreadPoolExecutor(self.photos.most, "photo")
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._see_to_them, name="photos")

    def begin(self, color: Callable[[Order, WorkContext], None]) -> None:
        """color: carries out an order."""
        self._color = color
        self._thread.start()

    def take(self, order: Order) -> None:
        """Color a photo; returns at once."""
        context = self._contexts[order.job] = _PhotoContext(self._send, order)
        self._executor.submit(self._carry_out, order, context)

    def stop(self, job: int | None = None) -> None:
        """Stop working on one photo, or on all."""
        for number, context in [*self._contexts.items()]:
            if job in (None, number):
                context.is_stopped = True

    def close(self) -> None:
        self._is_closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self.photos.close()
        self._executor.shutdown(cancel_futures=True)

    def _carry_out(self, order: Order, context: _PhotoContext) -> None:
        try:
            self._send(Started(order.job))
            self._color(order, context)
        except (SystemExit, OSError):  # a GPU of this machine has failed, or the daemon is gone
            log.warning("%s: the worker does not color it here", order.source, exc_info=True)
        finally:
            if self._contexts.get(order.job) is context:  # a photo that was stopped may be back
                del self._contexts[order.job]

    def _see_to_them(self) -> None:
        self.photos.adopt()
        while not self._is_closing.wait(_TURN_SECONDS):
            try:
                self.photos.turn()
            except Exception as error:
                self.photos.drop(error)  # each of them reports it


class _PhotoContext(OrderContext):
    is_stopped = False

    def should_stop(self) -> bool:
        return self.is_stopped


class _LaneContext(WorkContext):
    """Of all photos together. contexts: of each, by its job."""

    def __init__(
        self, send: Send, contexts: Mapping[int, WorkContext], may_speak: Callable[[], bool]
    ) -> None:
        self._send, self._contexts, self._may_speak = send, contexts, may_speak
        self._sent_at = 0.0

    def heartbeat(self) -> None:
        now = time.monotonic()
        if now - self._sent_at >= ALIVE_SECONDS and self._may_speak():
            self._sent_at = now
            for job in [*self._contexts][:1]:
                self._send(Heartbeat(job))

    def machines(self, found: Mapping[str, object]) -> None:
        self._send(Machines(found))
