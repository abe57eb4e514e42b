"""Running ahead in a thread: in order, bounded, joined, and errors raised in the consumer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from conftest import own_threads

from colordaemon.film.prefetch import prefetch


def test_items_come_in_order() -> None:
    assert list(prefetch(range(100), 3, "count")) == list(range(100))
    assert list(prefetch([], 3, "nothing")) == []


def test_the_thread_is_never_further_ahead_than_told() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    ahead = []
    for number in prefetch(numbers(), 3, "count"):
        time.sleep(0.002)
        ahead.append(len(made) - number - 1)
    assert max(ahead) <= 4  # three in the queue, one in hand


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("disk on fire")

    items = prefetch(numbers(), 2, "burn")
    assert next(items) == 1
    with pytest.raises(OSError, match="on fire"):
        next(items)
    assert list(items) == []
    assert len(own_threads()) == 1


def test_closing_early_joins_the_thread() -> None:
    items = prefetch(iter(int, 1), 2, "endless")
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert len(own_threads()) == 1


def test_closing_early_closes_the_source() -> None:
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    items = prefetch(numbers(), 2, "endless")
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert closed.is_set()
