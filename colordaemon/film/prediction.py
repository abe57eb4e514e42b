"""Runs the network on a film's frames, in batches ahead of those that are taken.

A sum of floats depends on its order, and that on what else is in the batch: by 5e-6 in ab, which
rounds a few samples of each picture to another code. So batches are counted from the beginning of
each shot, wherever reading begins: a film has the same bytes after an interruption, and whoever
makes which part of it.

On a processor, frames of a batch that show the same as the one looked at before them are not looked
at: they get what was said of that. So a look serves no frames but those of its own batch.

Where the device queues its work, a batch more than that of the frames that are taken is in it: the
GPU goes on while Python is busy with what it has said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from colordaemon.film.analysis import AnalyzedFrame, gray_of
from colordaemon.film.shots import is_same
from colordaemon.film.smoothing import Sample
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.cuda import Arriving, Traffic

if TYPE_CHECKING:
    from colordaemon.film.guide import FilmPainter


@dataclass(frozen=True)
class Prediction:
    """A frame and the network's output for it; None for a frame that it does not see.

    likeness: the mean weight of reference pictures in it, 0..1; None if there was none for it.
    """

    frame: AnalyzedFrame
    sample: Sample | None
    likeness: float | None = None


@dataclass(frozen=True)
class _Batch:
    """Frames that follow each other, and what the network says of those that it is asked about;
    None if there are none of these. looks: for each of the latter, where in `said` its own is."""

    frames: list[AnalyzedFrame]
    asked: list[AnalyzedFrame]
    looks: Sequence[int]
    said: Arriving | None
    likenesses: Sequence[float | None]


class Predictions:
    """The frames of a film in order, with a look ahead at those that follow."""

    def __init__(
        self,
        frames: Iterator[AnalyzedFrame],
        colorizer: Colorizer,
        painter: FilmPainter | None = None,
    ) -> None:
        """painter: the colorizer with a guide, if the film has one."""
        self._frames, self._colorizer, self._painter = frames, colorizer, painter
        self._traffic = Traffic(colorizer.device)
        self._read: deque[AnalyzedFrame] = deque()  # and in no batch yet: one at the most
        self._skipped: list[AnalyzedFrame] = []  # which the next batch begins with
        self._begun: deque[_Batch] = deque()
        self._predictions: deque[Prediction] = deque()  # not yet taken

    @property
    def next(self) -> AnalyzedFrame | None:
        """The frame that is taken next; None at the film's end."""
        if self._predictions:
            return self._predictions[0].frame
        return self._unpredicted

    @property
    def _unpredicted(self) -> AnalyzedFrame | None:
        return self._begun[0].frames[0] if self._begun else self._unread

    @property
    def _unread(self) -> AnalyzedFrame | None:
        if not self._read:
            self._read.extend(islice(self._frames, 1))
        return self._read[0] if self._read else None

    def skip(self) -> AnalyzedFrame:
        """Take the next frame without running the network; only before any other was taken."""
        frame = self._read.popleft()
        if frame.cut or len(self._skipped) >= self._colorizer.batch_size:
            self._skipped = []
        if _is_asked(frame):
            self._skipped.append(frame)
        if self._painter is not None:
            self._painter.pass_by(frame)
        return frame

    def take(self) -> Prediction:
        if not self._predictions:
            self._predict()
        return self._predictions.popleft()

    def ahead(self) -> Iterator[Prediction]:
        """The samples that follow in this shot; they are not taken."""
        number = 0
        while number < len(self._predictions) or self._goes_on():
            prediction = self._predictions[number]
            if prediction.frame.cut:
                return
            if prediction.sample is not None:
                yield prediction
            number += 1

    def _goes_on(self) -> bool:
        """Run the network on another batch of this shot; False at its end."""
        frame = self._unpredicted
        if frame is None or frame.cut:
            return False
        self._predict()
        return True

    def _predict(self) -> None:
        """Have what the network says of the batch that comes next."""
        while len(self._begun) <= self._traffic.queues and self._unread is not None:
            self._begin()
        batch = self._begun.popleft()
        said = {prediction.frame.pts: prediction for prediction in self._said(batch)}
        self._predictions.extend(
            said.get(frame.pts) or Prediction(frame, None) for frame in batch.frames
        )

    def _begin(self) -> None:
        """Run the network on the frames up to the end of a batch or shot."""
        size, frames = self._colorizer.batch_size, list[AnalyzedFrame]()
        asked = [] if len(self._skipped) >= size else self._skipped
        self._skipped = []
        while (frame := self._unread) is not None and not (frames and frame.cut):
            asked = [] if frame.cut else asked
            frames.append(self._read.popleft())
            if _is_asked(frame):
                asked.append(frame)
            if len(asked) >= size or (frame.in_color and len(frames) >= size):
                break  # a long shot in color needs no predictions
        self._begun.append(self._ask(frames, asked))

    def _ask(self, frames: list[AnalyzedFrame], asked: list[AnalyzedFrame]) -> _Batch:
        likenesses: Sequence[float | None] = [None] * len(asked)
        looks: Sequence[int] = range(len(asked))
        if not asked:
            return _Batch(frames, asked, looks, None, likenesses)
        if self._painter is not None:
            guessed, likenesses = self._painter.guess(asked)
        elif self._traffic.queues:
            guessed = self._colorizer.begin(self._traffic.upload(gray_of(asked)))
        else:
            shown, looks = _different(asked)
            guessed = self._colorizer.guess(torch.from_numpy(gray_of(shown)))
        return _Batch(frames, asked, looks, self._traffic.download(*guessed), likenesses)

    def _said(self, batch: _Batch) -> list[Prediction]:
        if batch.said is None:
            return []
        ab, sure = batch.said.get()  # waits for the GPU
        if self._traffic.queues:
            self._colorizer.check(torch.from_numpy(ab))
        return [
            Prediction(frame, Sample(frame.luma, ab[n], sure[n, 0]), likeness)
            for frame, n, likeness in zip(batch.asked, batch.looks, batch.likenesses, strict=True)
        ]


def _is_asked(frame: AnalyzedFrame) -> bool:
    return frame.gray is not None and not frame.in_color


def _different(frames: Sequence[AnalyzedFrame]) -> tuple[list[AnalyzedFrame], list[int]]:
    """Those frames with gray that differ from the last of these before them; and for each frame
    which of these shows the same."""
    shown, places = list[AnalyzedFrame](), list[int]()
    for frame in frames:
        if not shown or not _shows_same(frame, shown[-1]):
            shown.append(frame)
        places.append(len(shown) - 1)
    return shown, places


def _shows_same(one: AnalyzedFrame, other: AnalyzedFrame) -> bool:
    return one.gray is not None and other.gray is not None and is_same(one.gray, other.gray)
