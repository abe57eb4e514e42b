"""Puts times that are missing or out of order in order, when a film is read.

AVI with B-frames hands them out so: its pictures come in the order they are shown, their times in
the order in which they were decoded.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from av.video.frame import VideoFrame

REORDER_FRAMES = 4  # pts may come this many frames early; more B-frames than AVI files ever have


def in_order(
    pictures: Iterable[VideoFrame], first: int, step: int, on_retimed: Callable[[], None]
) -> Iterator[tuple[VideoFrame, int]]:
    """Pair pictures, which come in the order they are shown, with their pts in rising order.

    first: when the film begins, if its first frame does not say. step: between frames whose time is
    missing. on_retimed: called for each that had none of its own or one out of order.
    """
    waiting: deque[VideoFrame] = deque()
    times: list[int] = []
    last: int | None = None
    newest: int | None = None
    for picture in pictures:
        pts = picture.pts if picture.pts is not None else picture.dts
        if pts is None:
            pts = first if newest is None else newest + step
        if picture.pts is None or (newest is not None and pts <= newest):
            on_retimed()
        newest = pts if newest is None else max(newest, pts)
        waiting.append(picture)
        heapq.heappush(times, pts)
        if len(waiting) > REORDER_FRAMES:
            last = _after(last, heapq.heappop(times))
            yield waiting.popleft(), last
    while waiting:
        last = _after(last, heapq.heappop(times))
        yield waiting.popleft(), last


def _after(last: int | None, pts: int) -> int:
    """pts, or the next tick where two frames claim the same time: encoders want it to rise."""
    return pts if last is None or pts > last else last + 1
