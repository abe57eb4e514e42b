"""How far predicted color is from the truth: pure functions on ab, and a sum over many pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ACCURACY_DISTANCE = 10.0  # ab units; a pixel closer than this to the truth counts as right


@dataclass(frozen=True)
class Scores:
    """Means over pictures, ab units.

    mse: mean of the squared errors of a and of b. accuracy: share of pixels whose ab lies within
    ACCURACY_DISTANCE of the truth. chroma: mean chroma sqrt(a² + b²). The gray_ figures are those
    of leaving the picture gray: pale output flatters every mean error, so they belong beside it.
    """

    pictures: int
    mse: float
    accuracy: float
    chroma: float
    true_chroma: float
    gray_mse: float
    gray_accuracy: float


class ScoreSum:
    """Collects scores batch by batch; sums stay on the device until `scores` is asked for."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: Tensor | None = None

    def add(self, ab: Tensor, truth: Tensor) -> None:
        """ab, truth: (N, 2, h, w) Lab units."""
        gray = torch.zeros_like(truth)
        per_picture = torch.stack(
            [
                squared_error(ab, truth),
                accuracy(ab, truth),
                chroma(ab),
                chroma(truth),
                squared_error(gray, truth),
                accuracy(gray, truth),
            ]
        )
        total = per_picture.double().sum(dim=1)
        self._sums = total if self._sums is None else self._sums + total
        self._count += len(ab)

    def state(self) -> dict[str, Any]:
        """What `resume` needs to go on adding later."""
        return {"count": self._count, "sums": self._sums}

    def resume(self, state: dict[str, Any]) -> None:
        self._count, self._sums = state["count"], state["sums"]

    def scores(self) -> Scores:
        if self._sums is None:
            raise ValueError("no picture has been scored")
        return Scores(self._count, *(self._sums / self._count).tolist())


def squared_error(ab: Tensor, truth: Tensor) -> Tensor:
    """(N, 2, h, w) twice to (N,) mean squared error over both channels, ab units squared."""
    return (ab - truth).square().mean(dim=(1, 2, 3))


def accuracy(ab: Tensor, truth: Tensor, distance: float = ACCURACY_DISTANCE) -> Tensor:
    """(N, 2, h, w) twice to (N,) share of pixels whose ab error is below `distance`."""
    errors: Tensor = torch.linalg.vector_norm(ab - truth, dim=1)
    return (errors < distance).float().mean(dim=(1, 2))


def chroma(ab: Tensor) -> Tensor:
    """(N, 2, h, w) to (N,) mean chroma."""
    strengths: Tensor = torch.linalg.vector_norm(ab, dim=1)
    return strengths.mean(dim=(1, 2))
