"""Runs the network on a film's frames, in batches ahead of those that are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from colordaemon.film.analysis import AnalyzedFrame, gray_of
from colordaemon.film.smoothing import Sample
from colordaemon.network.colorizer import Colorizer

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
        self._unpredicted: deque[AnalyzedFrame] = deque()
        self._predictions: deque[Prediction] = deque()  # not yet taken

    @property
    def next(self) -> AnalyzedFrame | None:
        """The frame that is taken next; None at the film's end."""
        if self._predictions:
            return self._predictions[0].frame
        if not self._unpredicted:
            self._unpredicted.extend(islice(self._frames, 1))
        return self._unpredicted[0] if self._unpredicted else None

    def skip(self) -> AnalyzedFrame:
        """Take the next frame without running the network; only before any other was taken."""
        frame = self._unpredicted.popleft()
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
        while number < len(self._predictions) or self._predict():
            prediction = self._predictions[number]
            if prediction.frame.cut:
                return
            if prediction.sample is not None:
                yield prediction
            number += 1

    def _predict(self) -> bool:
        """Run the network on another batch; False at the film's end."""
        asked = [frame for frame in self._unpredicted if _is_asked(frame)]
        while len(asked) < self._colorizer.batch_size:
            frame = next(self._frames, None)
            if frame is None:
                break
            self._unpredicted.append(frame)
            if _is_asked(frame):
                asked.append(frame)
            elif frame.in_color and len(self._unpredicted) >= self._colorizer.batch_size:
                break  # a long shot in color needs no predictions
        said = {prediction.frame.pts: prediction for prediction in self._ask(asked)}
        self._predictions.extend(
            said.get(frame.pts) or Prediction(frame, None) for frame in self._unpredicted
        )
        found = bool(self._unpredicted)
        self._unpredicted.clear()
        return found

    def _ask(self, asked: list[AnalyzedFrame]) -> list[Prediction]:
        if not asked:
            return []
        likenesses: Sequence[float | None] = [None] * len(asked)
        if self._painter is None:
            said = self._colorizer.guess(torch.from_numpy(gray_of(asked)))
        else:
            said, likenesses = self._painter.guess(asked)
        ab, sure = (part.cpu().numpy() for part in said)  # waits for the GPU
        return [
            Prediction(frame, Sample(frame.luma, ab[n], sure[n, 0]), likenesses[n])
            for n, frame in enumerate(asked)
        ]


def _is_asked(frame: AnalyzedFrame) -> bool:
    return frame.gray is not None and not frame.in_color
