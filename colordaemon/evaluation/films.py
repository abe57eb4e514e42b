"""Evaluates all smoothing modes on a film, from one pass of the network over it.

Guesses are handed to every smoother as they come, and a frame is scored as soon as the slowest of
them is done with it. So nothing is kept but what smoothing itself looks ahead, some 100 frames, and
memory does not grow with the film.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import get_args

import numpy as np
import torch

from colordaemon.config import Smoothing
from colordaemon.errors import Interrupted
from colordaemon.evaluation.film_motion import PassageFinder
from colordaemon.evaluation.film_scores import FilmRow, FilmRowSum, Scene
from colordaemon.evaluation.film_truth import ColorFrame, color_frames
from colordaemon.evaluation.pictures import GRAY, REPORT_SECONDS, TRUTH, one_thread
from colordaemon.film.smoothing import Sample, Smoother
from colordaemon.media.decode import FilmReader
from colordaemon.media.probe import FilmInfo
from colordaemon.network.colorizer import Colorizer

log = logging.getLogger(__name__)

MODES: tuple[Smoothing, ...] = get_args(Smoothing)


@dataclass(frozen=True)
class FilmTable:
    """The rows of a film: left gray, smoothed in each way, and the truth itself.

    cuts: pts of the frames that begin a shot. size: height and width of the ab that is compared.
    """

    clip: str
    frames: int
    cuts: tuple[int, ...]
    size: tuple[int, int]
    rows: tuple[FilmRow, ...]


Colors = dict[str, np.ndarray]  # the ab (2, h, w) of a frame in each row, by the row's name
OnFrame = Callable[[ColorFrame, Colors], None]


class _Way:
    """A smoother whose time is taken, and what it has finished."""

    def __init__(self, mode: Smoothing) -> None:
        self.seconds = 0.0
        self.finished: deque[np.ndarray] = deque()
        self._smoother = Smoother(mode)

    def feed(self, sample: Sample, cut: bool) -> None:
        start = time.perf_counter()
        self.finished.extend(self._smoother.feed(sample, cut))
        self.seconds += time.perf_counter() - start

    def finish(self) -> None:
        start = time.perf_counter()
        self.finished.extend(self._smoother.finish())
        self.seconds += time.perf_counter() - start


class FilmEvaluation:
    """Fed a film's frames with the network's guesses; scores each as soon as it can."""

    def __init__(self, on_frame: OnFrame = lambda frame, colors: None) -> None:
        self.on_frame = on_frame
        self.frames = 0
        self.cuts: list[int] = []
        self._ways: dict[str, _Way] = {mode: _Way(mode) for mode in MODES}
        self._rows = {name: FilmRowSum(name) for name in (GRAY, *MODES, TRUTH)}
        self._waiting: deque[tuple[ColorFrame, Scene]] = deque()
        self._finder = PassageFinder()
        self._size = 0, 0

    def feed(self, frame: ColorFrame, sample: Sample) -> None:
        scene = Scene(frame.lab, self._finder.next(frame.gray, frame.cut), frame.cut)
        self._waiting.append((frame, scene))
        for way in self._ways.values():
            way.feed(sample, frame.cut)
        self._score()

    def finish(self, clip: str) -> FilmTable:
        """The scores of all frames that were fed."""
        for way in self._ways.values():
            way.finish()
        self._score()
        off, truth = (self._rows[name].shots.value() for name in ("off", TRUTH))
        rows = []
        for name, row in self._rows.items():
            smoothed = self._ways.get(name)  # gray and truth are not
            taken = 1000 * smoothed.seconds / max(1, self.frames) if smoothed else None
            rows.append(row.row(off, truth, taken))
        return FilmTable(clip, self.frames, tuple(self.cuts), self._size, tuple(rows))

    def _score(self) -> None:
        while self._waiting and all(way.finished for way in self._ways.values()):
            frame, scene = self._waiting.popleft()
            truth = scene.lab[1:].numpy()
            colors: Colors = {GRAY: np.zeros_like(truth)}
            colors |= {mode: way.finished.popleft() for mode, way in self._ways.items()}
            colors[TRUTH] = truth
            for name, row in self._rows.items():
                row.add(colors[name], scene)
            self.on_frame(frame, colors)
            self.frames += 1
            self.cuts += [frame.pts] if frame.cut else []
            self._size = truth.shape[1], truth.shape[2]


def evaluate_film(
    info: FilmInfo,
    colorizer: Colorizer,
    *,
    seconds: float | None = None,
    damaged_percent: float = 2.0,
    on_frame: OnFrame = lambda frame, colors: None,
    stop: Event | None = None,
) -> FilmTable:
    """Color a film without its color in every way and compare.

    seconds: how much of it, None for all. on_frame: given every frame, in order, with what became
    of it. Raises MediaError, and Interrupted once `stop` is set.
    """
    screening, said, colored = FilmEvaluation(on_frame), time.monotonic(), 0
    with FilmReader(info, damaged_percent=damaged_percent) as reader:
        for batch in _batches(color_frames(reader, colorizer, seconds), colorizer.batch_size):
            if stop is not None and stop.is_set():
                raise Interrupted(f"{info.path}: stopped after {colored} frames")
            samples = _guess(batch, colorizer)
            colored += len(batch)
            with one_thread():
                for frame, sample in zip(batch, samples, strict=True):
                    screening.feed(frame, sample)
            if time.monotonic() - said > REPORT_SECONDS:
                said = time.monotonic()
                log.info("%s: %d frames colored", info.path, colored)
        with one_thread():
            return screening.finish(str(info.path))


def _batches(frames: Iterator[ColorFrame], size: int) -> Iterator[list[ColorFrame]]:
    while True:
        with one_thread():  # the truth of a frame is small operations too
            batch = list(islice(frames, size))
        if not batch:
            return
        yield batch


def _guess(batch: list[ColorFrame], colorizer: Colorizer) -> list[Sample]:
    gray = torch.from_numpy(np.stack([frame.gray for frame in batch])).unsqueeze(1)
    ab, sure = (part.cpu().numpy() for part in colorizer.guess(gray))  # waits for the GPU
    return [Sample(frame.luma, ab[n], sure[n, 0]) for n, frame in enumerate(batch)]
