"""Finds where the segments of a film begin, without the network, and hands out their tasks.

A worker that makes one segment after the other knows where the next begins when it gets there. For
several workers a scout reads ahead: it decodes the film, looks for cuts and ends segments by the
same rule, which takes a small part of the time that coloring takes. Its tasks are those of a single
worker, so the film is the same.

Tasks that follow each other make a stretch. One worker makes a whole stretch and keeps its decoder
open, since a start in mid-shot costs up to LOOK_AHEAD samples of the network. So stretches are
parted at cuts where there are any. A worker that finds no other stretch takes half of another
worker's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from colordaemon.film.pipeline import opened_at
from colordaemon.film.plan import SegmentTask
from colordaemon.media.decode import FilmReader
from colordaemon.network.colorizer import Colorizer

LONGEST_STRETCH = 60.0  # seconds
SHORT_WAY = 60.0  # seconds of a film that may be decoded again, where it cannot be searched


def scouted(
    first: SegmentTask, colorizer: Colorizer, go_on: Callable[[], None]
) -> Iterator[SegmentTask]:
    """This task of a film and all after it, each with its end.

    go_on: called for every frame; what it raises passes through. Raises MediaError.
    """
    # Few frames wait here, since none waits for its color.
    pipeline = opened_at(first, _Unseeing(colorizer), holds=True, go_on=go_on)  # type: ignore[arg-type]
    try:
        task: SegmentTask | None = first
        while task is not None:
            for _ in pipeline.pass_over(task):
                go_on()
            following, damage = pipeline.resume_point, pipeline.damage
            yield replace(task, end_pts=following.pts if following else None)
            task = task.following(following, damage) if following else None
    finally:
        pipeline.close()


class _Unseeing:
    """Stands in for a colorizer where no colors are wanted, only which frames it would see."""

    batch_size, device = 1, torch.device("cpu")

    def __init__(self, colorizer: Colorizer) -> None:
        self.network_size = colorizer.network_size

    def guess(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros(len(gray), 2, 1, 1)
        return nothing, nothing[:, :1]


class Stretches:
    """The tasks of a film that nobody has begun yet; for several threads.

    Fed by the scout in the order of time; each worker takes one task after the other.
    """

    def __init__(self, seconds: float) -> None:
        """seconds: how long a stretch is, about."""
        self._seconds = seconds
        self._changed = threading.Condition()
        self._untaken: deque[deque[SegmentTask]] = deque()
        self._taken: dict[int, deque[SegmentTask]] = {}  # by worker
        self._newest: deque[SegmentTask] | None = None  # to which the scout adds
        self._began = 0.0  # seconds of the film
        self._is_whole, self._can_part = False, True

    def add(self, task: SegmentTask) -> None:
        begin = task.start_seconds
        with self._changed:
            if self._newest is None or self._is_parted_at(task, begin - self._began):
                self._newest, self._began = deque(), begin
                self._untaken.append(self._newest)
            self._newest.append(task)
            self._changed.notify_all()

    def end(self) -> None:
        """No more tasks come."""
        with self._changed:
            self._is_whole = True
            self._changed.notify_all()

    def take(self, worker: int, wait_seconds: float) -> SegmentTask | None:
        """The next task for a worker; None if there is none at the moment."""
        with self._changed:
            task = self._next(worker)
            if task is None and not self._is_whole:
                self._changed.wait(wait_seconds)
                task = self._next(worker)
            return task

    def give_back(self, worker: int, task: SegmentTask) -> None:
        """The worker is gone, with this task: that and all it would have taken are for others."""
        with self._changed:
            left = self._taken.pop(worker, deque())
            left.appendleft(task)
            self._untaken.appendleft(left)
            self._changed.notify_all()

    @property
    def are_whole(self) -> bool:
        """Whether all tasks of the film are known."""
        with self._changed:
            return self._is_whole

    def _next(self, worker: int) -> SegmentTask | None:
        own = self._taken.get(worker)
        if not own and self._untaken:
            own = self._untaken.popleft()
        elif not own and self._is_whole:
            own = self._half()
        if not own:
            return None
        self._taken[worker] = own
        return own.popleft()

    def _half(self) -> deque[SegmentTask]:
        """The second half of the longest stretch that somebody has begun."""
        longest: deque[SegmentTask] = max(self._taken.values(), key=len, default=deque())
        kept = len(longest) // 2
        if kept == len(longest) or not self._may_begin_at(longest[kept]):
            return deque()
        return deque(reversed([longest.pop() for _ in range(len(longest) - kept)]))

    def _is_parted_at(self, task: SegmentTask, seconds: float) -> bool:
        """seconds: how long the newest stretch is."""
        assert task.start is not None
        is_cut = task.start.shot_pts == task.start.pts
        return seconds >= self._seconds * (1 if is_cut else 2) and self._may_begin_at(task)

    def _may_begin_at(self, task: SegmentTask) -> bool:
        """Whether another worker can begin here without decoding hours of film."""
        if not self._can_part or task.start_seconds <= SHORT_WAY:
            return self._can_part
        assert task.start is not None
        with FilmReader(task.source, entry=task.start.entry(task.damage)) as reader:
            self._can_part = reader.sought
        return self._can_part
