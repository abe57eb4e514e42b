"""How long a call of `once` will still take, by what it has done so far.

Films are weighed by their pixels, photos by their bytes; the two are measured apart. Films are
opened for that, a few whenever somebody asks, so that a call with thousands begins at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import av.error

from colordaemon.errors import ColordaemonError
from colordaemon.inbox.scan import rank_of
from colordaemon.media.demux import open_film
from colordaemon.media.probe import film_stream

_WEIGHING_SECONDS = 0.05  # for each question, a small part of the second between two


class Workload:
    """All files of a call, told when work on each begins and ends."""

    def __init__(
        self, sources: Sequence[Path], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._weights: dict[Path, float] = {}
        self._not_weighed = [*sources]
        self._done: dict[int, float] = {}  # weight that was colored, by the kind of file
        self._seconds: dict[int, float] = {}
        self._left = dict.fromkeys(sources)
        self.count, self.number = len(sources), 0
        self._current: Path | None = None

    def begin(self, source: Path) -> None:
        self.number += 1
        self._left.pop(source, None)
        self._current, self._began = source, self._clock()

    def end(self, source: Path, *, is_done: bool) -> None:
        """is_done: whether it was colored, so that its time says something about others."""
        self._current = None
        if is_done:
            kind = rank_of(source)
            self._done[kind] = self._done.get(kind, 0.0) + self._weigh(source)
            self._seconds[kind] = self._seconds.get(kind, 0.0) + self._clock() - self._began

    def seconds_left(self, share: float) -> float | None:
        """share: of the current file that is done, 0..1. None where nothing is known yet of a kind
        of file that is left, or not all are weighed."""
        until = time.monotonic() + _WEIGHING_SECONDS
        while self._not_weighed:
            if time.monotonic() > until:
                return None
            self._weigh(self._not_weighed.pop())
        done, seconds = dict(self._done), dict(self._seconds)
        left = dict.fromkeys((*done, *map(rank_of, self._left)), 0.0)
        for source in self._left:
            left[rank_of(source)] += self._weigh(source)
        if self._current is not None:
            kind, weight = rank_of(self._current), self._weigh(self._current)
            done[kind] = done.get(kind, 0.0) + weight * share
            seconds[kind] = seconds.get(kind, 0.0) + self._clock() - self._began
            left[kind] = left.get(kind, 0.0) + weight * (1 - share)
        if any(weight and not done.get(kind) for kind, weight in left.items()):
            return None
        return sum(weight * seconds[kind] / done[kind] for kind, weight in left.items() if weight)

    def _weigh(self, source: Path) -> float:
        if source not in self._weights:
            self._weights[source] = weight_of(source)
        return self._weights[source]


def weight_of(source: Path) -> float:
    """Pixels of a film or bytes of a photo; 0 for a file that will fail at once."""
    try:
        return _pixels(source) if rank_of(source) else float(source.stat().st_size)
    except (ColordaemonError, OSError, av.error.FFmpegError):
        return 0.0


def _pixels(film: Path) -> float:
    """Of all frames of a film, as its header says."""
    with open_film(film) as container:
        stream = film_stream(container, film)
        seconds = (container.duration or 0) / av.time_base
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        return seconds * rate * stream.width * stream.height
