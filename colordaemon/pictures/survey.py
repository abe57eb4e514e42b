"""Reads every picture once: finds those that cannot be read, and decodes the others into the
cache."""

from __future__ import annotations

import logging
import os
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TypeVar

import numpy as np

from colordaemon.errors import Interrupted
from colordaemon.pictures.cache import Cache, CachedPicture, locked
from colordaemon.pictures.dataset import Picture, decode_picture
from colordaemon.pictures.statistics import Statistics, measure

log = logging.getLogger(__name__)
In = TypeVar("In")
Out = TypeVar("Out")

SAVE_SECONDS = 30.0  # of work that a kill may lose
REPORT_SECONDS = 5.0
_AHEAD = 32  # encoded or decoded pictures in memory
# The last three: an entry that left its shard, a compression that Python lacks, a password.
_DAMAGE = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
)


def survey(
    pictures: Sequence[Picture],
    side: int,
    cache_folder: Path | None,
    stop: Event,
) -> list[CachedPicture]:
    """The statistics of each picture, in their order.

    Pictures that the cache does not know yet, or that have changed, are decoded with a short side
    of at most `side` pixels and added to it. Without a cache, or when it cannot be written, this is
    said and entries have no pixels. Raises Interrupted once `stop` is set; what was done is kept.
    """
    if cache_folder is not None:
        try:
            with locked(cache_folder, stop), closing(Cache(cache_folder)) as cache:
                return _Survey(pictures, side, cache, stop).run()
        except OSError as error:
            log.warning("%s: no cache, pictures are decoded each time: %s", cache_folder, error)
    return _Survey(pictures, side, None, stop).run()


class _Survey:
    """One pass over the pictures."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        side: int,
        cache: Cache | None,
        stop: Event,
    ) -> None:
        self.pictures, self.side, self.stop = pictures, side, stop
        self.cache, self._writable = cache, cache is not None

    def run(self) -> list[CachedPicture]:
        stamps = [_stamp(picture) for picture in self.pictures]
        known = self.cache.entries if self.cache else {}
        found = [known.get(picture.address) for picture in self.pictures]
        entries = [
            entry if entry and entry.stamp == stamp else None
            for entry, stamp in zip(found, stamps, strict=True)
        ]
        unknown = [index for index, entry in enumerate(entries) if entry is None]
        began = said = saved = time.monotonic()
        with closing(self._decoded([self.pictures[index] for index in unknown])) as decoded:
            for done, (index, (statistics, pixels)) in enumerate(
                zip(unknown, decoded, strict=True)
            ):
                if self.stop.is_set():
                    self._save()
                    raise Interrupted(f"stopped after a look at {done} of {len(unknown)} pictures")
                entries[index] = self._keep(self.pictures[index], stamps[index], statistics, pixels)
                now = time.monotonic()
                if now - said >= REPORT_SECONDS:
                    said = now
                    log.info("%s", _progress_line(done + 1, len(unknown), now - began))
                if now - saved >= SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
        self._save()
        self._tell(len(unknown), time.monotonic() - began)
        return [self._lasting(entry) for entry in entries if entry]

    def _decoded(
        self, pictures: Sequence[Picture]
    ) -> Generator[tuple[Statistics, np.ndarray | None], None, None]:
        # One read at a time (shards are not thread-safe), decoding beside it.
        threads = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(threads, thread_name_prefix="look") as pool:
            yield from _in_order(pool, self._look, map(_data, pictures))

    def _look(self, data: bytes | str) -> tuple[Statistics, np.ndarray | None]:
        if isinstance(data, str):
            return Statistics(data), None
        pixels = decode_picture(data, self.side)
        if pixels is None:
            return Statistics("it is empty" if not data else "it is no picture, or damaged"), None
        return measure(pixels, data), pixels

    def _keep(
        self, picture: Picture, stamp: str, statistics: Statistics, pixels: np.ndarray | None
    ) -> CachedPicture:
        """Add a picture to the cache, unless it cannot be read or the cache not be written."""
        if pixels is not None and stamp and self._writable and self.cache:
            try:
                return self.cache.add(picture.address, stamp, statistics, pixels)
            except OSError as error:
                self._give_up(error)
        return CachedPicture(stamp, statistics, None)

    def _save(self) -> None:
        if self._writable and self.cache:
            try:
                self.cache.save()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        assert self.cache is not None
        log.warning(
            "%s: the cache is not complete, other pictures are decoded each time: %s",
            self.cache.folder,
            error,
        )
        try:
            self.cache.save()
        except OSError:
            log.debug("nor can its index be written", exc_info=True)
        self._writable = False

    def _lasting(self, entry: CachedPicture) -> CachedPicture:
        """An entry without pixels that no index names: the next writer cuts them off."""
        unsaved = self.cache and entry.place and entry.place.end > self.cache.saved_length
        return replace(entry, place=None) if unsaved else entry

    def _tell(self, decoded: int, seconds: float) -> None:
        if decoded:
            log.info("looked at %d pictures in %.0f s", decoded, seconds)
        if self.cache:
            size = self.cache.saved_length / 1e9
            log.info("decoded pictures: %.2f GB in %s", size, self.cache.folder)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[In], Out], items: Iterable[In]
) -> Iterator[Out]:
    """pool.map that takes only a few items ahead of what is asked for: memory stays bounded."""
    waiting: deque[Future[Out]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _stamp(picture: Picture) -> str:
    """The picture's stamp; empty when it has vanished, which the look will find out too."""
    try:
        return picture.stamp()
    except _DAMAGE:
        return ""


def _data(picture: Picture) -> bytes | str:
    """A picture's bytes, or why the file or its place in the shard cannot be read."""
    try:
        return picture.read()
    except _DAMAGE as error:
        return f"it cannot be read: {error}"


def _progress_line(done: int, count: int, seconds: float) -> str:
    speed = done / seconds
    left = (count - done) / speed
    return f"looked at {done} of {count} pictures, {speed:.0f} pictures/s, {left:.0f} s left"
