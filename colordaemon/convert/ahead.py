"""Colors the photos that come next while one is being finished.

Decoding, the network and encoding of several photos overlap: each is one thread's work, and all
threads hand their pictures to one thread for the network, which sees one picture after the other,
so that the colors of none depend on its neighbors. Photos are published one after the other, in
the order of the call; what is not published leaves nothing behind.

Where other machines color the photos, each thread only waits for one of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Protocol

from colordaemon.convert.convert import Colored, Prepared, PreparedPhoto
from colordaemon.convert.sources import Source
from colordaemon.errors import GuideChanged, MediaError
from colordaemon.inbox.scan import rank_of
from colordaemon.media.photo import pixels_of

MOST_PIXELS = 50_000_000  # of all photos that are colored at the same time, for the memory's sake
_MOST_THREADS = 16
_TURN_SECONDS = 0.05  # between two looks at what other machines have done
_ALIKE = 40  # letters, which the names of results keep however long they are

Publish = Callable[[], tuple[Path, Colored]]


class Elsewhere(Protocol):
    """Other machines that color photos, as long as somebody calls `turn`. most: photos at once."""

    most: int

    def turn(self) -> None:
        """Raises what concerns all photos."""

    def close(self) -> None:
        """Take no more photos; whoever waits for one is told that it was interrupted."""


Convert = Callable[[Source, Callable[[Prepared], None]], AbstractContextManager[Publish]]


class _Alone(Exception):
    """This one is not to be colored beside others."""


class Ahead:
    """Photos of a call that are being colored, or wait to be published."""

    def __init__(
        self, sources: Sequence[Source], convert: Convert, elsewhere: Elsewhere | None = None
    ) -> None:
        """convert: colors a file, and calls what it is given before the work begins. elsewhere:
        where it does that; None: here."""
        self._next = [*reversed(sources)]
        self._convert, self._elsewhere = convert, elsewhere
        here = min(_MOST_THREADS, 1 + (os.cpu_count() or 1))
        self._most = elsewhere.most if elsewhere else here
        self._executor = ThreadPoolExecutor(self._most, "photo")
        self._room = _Room(MOST_PIXELS)
        self._begun: dict[Path, Future[tuple[ExitStack, Publish]]] = {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        """Forget what was not published."""
        if self._elsewhere:
            self._elsewhere.close()
        self._executor.shutdown(cancel_futures=True)
        for future in self._begun.values():
            if not future.cancelled() and future.exception() is None:
                future.result()[0].close()

    def publish(self, source: Source) -> tuple[Path, Colored] | None:
        """Publish a photo; None for a file that has to be colored alone, while nothing else is.
        Raises what went wrong with it."""
        while self._next and source.path not in self._begun and self._next[-1] is not source:
            self._next.pop()
        self._begin_more()
        future = self._begun.pop(source.path, None)
        try:
            if future is not None:
                self._await(future)
                stack, publish = future.result()
                with stack:
                    return publish()
        except (_Alone, MemoryError, GuideChanged):
            pass
        for other in self._begun.values():
            self._await(other)
        if self._next and self._next[-1] is source:
            self._next.pop()
        return None

    def _begin_more(self) -> None:
        """Begin with photos until there are enough, or one could have the result of another."""
        while self._next and len(self._begun) < self._most:
            source = self._next[-1]
            alike = _alike(source.path)
            if rank_of(source.path) or any(_alike(other) == alike for other in self._begun):
                return
            self._begun[source.path] = self._executor.submit(self._color, source)
            self._next.pop()

    def _await(self, future: Future[tuple[ExitStack, Publish]]) -> None:
        while not wait([future], _TURN_SECONDS if self._elsewhere else None).done:
            assert self._elsewhere is not None
            self._elsewhere.turn()

    def _color(self, source: Source) -> tuple[ExitStack, Publish]:
        taken = list[int]()

        def check(prepared: Prepared) -> None:
            if self._elsewhere is None:
                pixels = _pixels_of(prepared)
                self._room.take(pixels)
                taken.append(pixels)
            elif not isinstance(prepared, PreparedPhoto):
                raise _Alone

        try:
            with ExitStack() as stack:
                publish = stack.enter_context(self._convert(source, check))
                return stack.pop_all(), publish
        finally:
            self._room.give_back(sum(taken))


class _Room:
    """For so many pixels at the same time; whoever wants more waits for the others."""

    def __init__(self, pixels: int) -> None:
        self._left, self._changed = pixels, threading.Condition()

    def take(self, pixels: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._left)
            self._left -= pixels

    def give_back(self, pixels: int) -> None:
        with self._changed:
            self._left += pixels
            self._changed.notify_all()


def _alike(path: Path) -> str:
    return path.stem[:_ALIKE].casefold()


def _pixels_of(prepared: Prepared) -> int:
    """Of a photo. Raises _Alone for all but photos without a guide, and for those with more than
    MOST_PIXELS."""
    if isinstance(prepared, PreparedPhoto) and not prepared.guide:
        with suppress(MediaError):  # said when it is its turn
            if (pixels := pixels_of(prepared.source)) <= MOST_PIXELS:
                return pixels
    raise _Alone
