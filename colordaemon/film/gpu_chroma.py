"""Chroma planes of frames that come one after the other: on a GPU of several at a time.

There they are made while Python is busy with others: luma goes up, chroma comes down, and nobody
waits until a second group is on its way. How frames fall into groups depends on the segment alone.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from colordaemon.color import PixelCode, chroma_planes
from colordaemon.film.chroma import frame_chroma
from colordaemon.media.decode import Frame
from colordaemon.media.pixels import at_depth
from colordaemon.network.cuda import Arriving, Traffic

log = logging.getLogger(__name__)

T = TypeVar("T")
Painted = tuple[T, np.ndarray]

_PIXELS = 8 << 20  # of luma in a group: four frames in 1080p, one in 4K
_MOST = 16  # frames, however small


@dataclass(frozen=True)
class _Wish(Generic[T]):
    key: T
    luma: np.ndarray
    ab: np.ndarray
    code: PixelCode


class ChromaPainter(Generic[T]):
    """Fed frames with their ab; gives chroma planes (2, H', W') back, perhaps later and in order.

    Each comes with the key that its frame was fed with.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic, self._pixels = traffic, _PIXELS
        self._group: list[_Wish[T]] = []
        self._begun: deque[tuple[list[_Wish[T]], Arriving]] = deque()

    def feed(self, key: T, frame: Frame, ab: np.ndarray, code: PixelCode) -> list[Painted[T]]:
        """ab: (2, h, w) float32 Lab units at any size, as the frame is stored."""
        if not self._traffic.queues:
            return [(key, frame_chroma(frame, torch.from_numpy(ab), code))]
        wish = _Wish(key, at_depth(frame.luma, frame.depth, code.depth), ab, code)
        if self._group and not _fits(wish, self._group):
            self._close_group()
        self._group.append(wish)
        if len(self._group) >= max(1, min(_MOST, self._pixels // wish.luma.size)):
            self._close_group()
        return self._finished(2)

    def finish(self) -> list[Painted[T]]:
        """What is left."""
        if self._group:
            self._close_group()
        return self._finished(1)

    def _close_group(self) -> None:
        group, self._group = self._group, []
        self._begin(group)

    @torch.inference_mode()
    def _begin(self, group: list[_Wish[T]]) -> None:
        try:
            luma = self._traffic.upload([wish.luma for wish in group])[:, None]
            ab = self._traffic.upload([wish.ab for wish in group])
            arriving = self._traffic.download(chroma_planes(luma, ab, group[0].code))
        except torch.OutOfMemoryError:
            if len(group) == 1:
                raise
            half = len(group) // 2
            self._pixels = min(self._pixels, half * group[0].luma.size)
            torch.cuda.empty_cache()
            log.warning("out of GPU memory: going on with chroma planes of fewer frames at a time")
            self._begin(group[:half])
            self._begin(group[half:])
            return
        self._begun.append((group, arriving))

    def _finished(self, least: int) -> list[Painted[T]]:
        """Wait for groups while so many are on their way."""
        found: list[Painted[T]] = []
        while len(self._begun) >= least:
            group, arriving = self._begun.popleft()
            (planes,) = arriving.get()
            found += [(wish.key, chroma) for wish, chroma in zip(group, planes, strict=True)]
        return found


def _fits(wish: _Wish[T], group: list[_Wish[T]]) -> bool:
    first = group[0]
    return (wish.code, wish.luma.shape, wish.ab.shape) == (
        first.code,
        first.luma.shape,
        first.ab.shape,
    )
