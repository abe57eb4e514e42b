"""Run a generator ahead of its consumer in a thread of its own, at most so many items."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.1


class _End:
    """Closes the queue; carries the error that ended the source, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetch(items: Iterable[T], depth: int, name: str) -> Iterator[T]:
    """Yield `items` in order while a thread works up to `depth` of them ahead.

    An error in the source is raised here, after the items before it. Closing this generator stops
    and joins the thread.
    """
    queue: Queue[T | _End] = Queue(maxsize=depth)
    closed = threading.Event()

    def put(item: T | _End) -> None:
        while not closed.is_set():
            try:
                return queue.put(item, timeout=_POLL_SECONDS)
            except Full:
                continue

    def pump() -> None:
        try:
            for item in items:
                put(item)
                if closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  (raised again in the consumer)
            put(_End(error))
        else:
            put(_End())

    thread = threading.Thread(target=pump, name=name, daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return
    finally:
        closed.set()
        thread.join()
