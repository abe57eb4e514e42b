"""Runs the network on a film's frames, in batches ahead of those that are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from colordaemon.film.analysis import AnalyzedFrame
from colordaemon.film.smoothing import Sample
from colordaemon.network.colorizer import Colorizer


@dataclass(frozen=True)
class Prediction:
    """A frame and the network's output for it; None for a frame that it does not see."""

    frame: AnalyzedFrame
    sample: Sample | None


class Predictions:
    """The frames of a film in order, with a look ahead at those that follow."""

    def __init__(self, frames: Iterator[AnalyzedFrame], colorizer: Colorizer) -> None:
        self._frames, self._colorizer = frames, colorizer
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
        return self._unpredicted.popleft()

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
        samples = dict(zip((frame.pts for frame in asked), self._samples(asked), strict=True))
        self._predictions.extend(
            Prediction(frame, samples.get(frame.pts)) for frame in self._unpredicted
        )
        found = bool(self._unpredicted)
        self._unpredicted.clear()
        return found

    def _samples(self, asked: list[AnalyzedFrame]) -> list[Sample]:
        if not asked:
            return []
        gray = np.stack([frame.gray for frame in asked if frame.gray is not None])
        said = self._colorizer.guess(torch.from_numpy(gray).unsqueeze(1))
        ab, sure = (part.cpu().numpy() for part in said)  # waits for the GPU
        return [Sample(frame.luma, ab[n], sure[n, 0]) for n, frame in enumerate(asked)]


def _is_asked(frame: AnalyzedFrame) -> bool:
    return frame.gray is not None and not frame.in_color
