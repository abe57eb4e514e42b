"""A film being read once from its beginning, with the network's guess of every frame.

Smoothing wants to know what came before a segment and what comes after it. So guesses run ahead of
the frames that are taken, and the last ones taken are remembered, both within the shot. Full frames
wait meanwhile, up to a fixed number of bytes; the film of a size that would not fit is read a
second time instead.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch

from colordaemon.errors import MediaError
from colordaemon.film.plan import SHORTEST_SECONDS, SegmentTask
from colordaemon.film.prefetch import prefetch
from colordaemon.film.shots import CutDetector
from colordaemon.film.smoothing import LOOK_AHEAD, TOGETHER, Sample, Smoother
from colordaemon.media.decode import FilmReader, Frame
from colordaemon.media.probe import FilmInfo
from colordaemon.network.colorizer import Colorizer

AHEAD_BYTES = 256 << 20  # full frames that may wait between two threads
HELD_BYTES = 640 << 20  # full frames that may wait for what comes after them
_HELD_FRAMES = 2 * LOOK_AHEAD + TOGETHER  # that many wait at the most


@dataclass(frozen=True)
class Seen:
    """A frame as the network sees it: (h, w) float32 gray in 0..1, upright.

    frame: the full one, or None where it is too large to wait. cut: it begins a shot.
    """

    pts: int
    gray: np.ndarray
    cut: bool
    frame: Frame | None


@dataclass(frozen=True)
class Guess:
    """A frame and what the network says of it."""

    seen: Seen
    sample: Sample


class Playback:
    """A film's frames in order, segment after segment."""

    def __init__(self, task: SegmentTask, colorizer: Colorizer) -> None:
        self.source, self._colorizer = task.source, colorizer
        self.reader = FilmReader(task.source, damaged_percent=task.damaged_percent)
        holds = frame_bytes(task.source) * _HELD_FRAMES <= HELD_BYTES
        self._second = None if holds else FilmReader(task.source, damaged_percent=100.0)
        self._second_frames = iter(self._second) if self._second else None
        self._frames = prefetch(
            seen_frames(self.reader, colorizer, holds), frames_ahead(task.source), "decode"
        )
        self._unguessed: deque[Seen] = deque()
        self._guesses: deque[Guess] = deque()  # not yet taken
        self._behind: deque[tuple[int, Sample]] = deque(maxlen=LOOK_AHEAD)  # taken, of this shot
        self._full: Frame | None = None

    def close(self) -> None:
        self._frames.close()  # type: ignore[attr-defined]  # joins the thread that reads
        self.reader.close()
        if self._second:
            self._second.close()

    @property
    def next(self) -> Seen | None:
        """The frame that is taken next; None at the film's end."""
        if self._guesses:
            return self._guesses[0].seen
        if not self._unguessed:
            self._unguessed.extend(islice(self._frames, 1))
        return self._unguessed[0] if self._unguessed else None

    @property
    def warm_pts(self) -> int | None:
        """Where a playback has to begin guessing to go on from here with the same memory."""
        if self.next is None:
            return None
        return self._behind[0][0] if self._behind and not self.next.cut else self.next.pts

    def may_reach(self, task: SegmentTask) -> bool:
        """Whether the task's first frame lies ahead, with the memory that it wants."""
        if task.start_pts is None or task.warm_pts is None or self.next is None:
            return False
        if self.next.pts == task.start_pts:
            return self.warm_pts == task.warm_pts
        return self.next.pts <= task.warm_pts and not self._guesses

    def skip_to(self, task: SegmentTask) -> None:
        """Go to the task's first frame and make sure that it is the right picture."""
        start, warm = task.start_pts, task.warm_pts
        while warm is not None and self.next and self.next.pts < warm and not self._guesses:
            self._unguessed.popleft()
        while start is not None and self.next and self.next.pts < start:
            self._take()
        if self.next is None or start not in (None, self.next.pts):
            raise MediaError(f"{self.source.path}: no frame at pts {start}")
        found = luma_crc(self.full(self.next))
        if task.start_crc is not None and found != task.start_crc:
            raise MediaError(
                f"{self.source.path}: the frame at pts {self.next.pts} has changed "
                f"(luma CRC {found:08x}, expected {task.start_crc:08x})"
            )

    def smoothed(self, task: SegmentTask) -> Iterator[tuple[Seen, np.ndarray]]:
        """The frames of a task with their final ab (2, h, w), upright."""
        smoother = Smoother(task.smoothing)
        if self.next is not None and not self.next.cut:
            for _, sample in self._behind:
                smoother.remember(sample)
        waiting: deque[Seen] = deque()
        for guess in self._segment(task):
            waiting.append(guess.seen)
            for ab in smoother.feed(guess.sample, guess.seen.cut):
                yield waiting.popleft(), ab
        for sample in self._ahead() if task.smoothing == "motion" else ():
            smoother.follow(sample)
        yield from zip(waiting, smoother.finish(), strict=True)

    def full(self, seen: Seen) -> Frame:
        """The full frame; asked for in the order of time."""
        if seen.frame is not None:
            return seen.frame
        assert self._second_frames is not None
        while self._full is None or self._full.pts < seen.pts:
            self._full = next(self._second_frames)
        return self._full

    def _segment(self, task: SegmentTask) -> Iterator[Guess]:
        """The frames of a task; the one after them is `next`."""
        assert self.next is not None
        start = self.next.pts
        while self.next is not None and not self._ends(task, start):
            yield self._take()

    def _ends(self, task: SegmentTask, start: int) -> bool:
        assert self.next is not None
        if task.end_pts is not None:
            return self.next.pts >= task.end_pts
        seconds = float((self.next.pts - start) * self.source.time_base)
        return seconds >= (SHORTEST_SECONDS if self.next.cut else task.longest_seconds)

    def _take(self) -> Guess:
        if not self._guesses:
            self._guess()
        guess = self._guesses.popleft()
        if guess.seen.cut:
            self._behind.clear()
        self._behind.append((guess.seen.pts, guess.sample))
        return guess

    def _ahead(self) -> Iterator[Sample]:
        """What follows in this shot, as far as smoothing looks ahead; it stays to be taken."""
        number = 0
        while number < LOOK_AHEAD:
            if number == len(self._guesses) and not self._guess():
                return
            if self._guesses[number].seen.cut:
                return
            yield self._guesses[number].sample
            number += 1

    def _guess(self) -> bool:
        """Let the network see another batch; False at the film's end."""
        missing = self._colorizer.batch_size - len(self._unguessed)
        self._unguessed.extend(islice(self._frames, missing))
        if not self._unguessed:
            return False
        gray = torch.from_numpy(np.stack([seen.gray for seen in self._unguessed])).unsqueeze(1)
        ab, sure = (x.cpu().numpy() for x in self._colorizer.guess(gray))  # waits for the GPU
        for number, seen in enumerate(self._unguessed):
            self._guesses.append(Guess(seen, Sample(seen.gray, ab[number], sure[number, 0])))
        self._unguessed.clear()
        return True


def seen_frames(reader: FilmReader, colorizer: Colorizer, holds: bool) -> Iterator[Seen]:
    """Frames with what the network and the cut detector see of them."""
    info, detector = reader.info, CutDetector()
    quarter_turns = info.rotation // 90 % 4
    shape = (info.height, info.width * float(info.sample_aspect))
    height, width = colorizer.network_size(*shape)
    for frame in reader:
        small = cv2.resize(frame.luma, (width, height), interpolation=cv2.INTER_AREA)
        gray = (small.astype(np.float32) - info.code.black) / info.code.luma_span
        gray = np.rot90(gray, quarter_turns).clip(0.0, 1.0)
        yield Seen(frame.pts, gray, detector.is_cut(gray * 255), frame if holds else None)


def luma_crc(frame: Frame) -> int:
    """CRC-32 of a frame's luma codes."""
    return zlib.crc32(np.ascontiguousarray(frame.luma).data)


def frame_bytes(info: FilmInfo) -> int:
    return info.width * info.height * 3 * (2 if info.layout.depth > 8 else 1)


def frames_ahead(info: FilmInfo) -> int:
    """How many frames may wait in a queue: bounded by bytes, and by count for tiny pictures."""
    return min(32, max(2, AHEAD_BYTES // frame_bytes(info)))
