"""Runs a generator ahead of its consumer in a thread of its own, up to a number of items."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from queue import Full, Queue
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
    and joins the thread, and closes the source if it is a generator.
    """
    queue: Queue[T | _End] = Queue(maxsize=depth)
    closed = threading.Event()
    thread = threading.Thread(target=_pump, args=(items, queue, closed), name=name, daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return
    finally:
        closed.set()
        thread.join()


def _pump(items: Iterable[T], queue: Queue[T | _End], closed: threading.Event) -> None:
    """Put all items into the queue, then their end; nothing more once it is closed."""
    try:
        for item in items:
            _put(item, queue, closed)
            if closed.is_set():
                break
        if isinstance(items, Generator):
            items.close()
    except BaseException as error:  # raised again in the consumer
        _put(_End(error), queue, closed)
    else:
        _put(_End(), queue, closed)


def _put(item: T | _End, queue: Queue[T | _End], closed: threading.Event) -> None:
    while not closed.is_set():
        try:
            queue.put(item, timeout=_POLL_SECONDS)
        except Full:
            continue
        return
