"""The network at work with a guide: stands in for a Colorizer where people know better.

What a guide adds to a frame depends on that frame and the guide alone, not on frames before it or
beside it. So everything that goes for the colors of the network goes for these: they may be asked
for in any order, and are smoothed over time in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from colordaemon.color import AB_LIMIT, gray_to_lightness
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.hints import Frame, read_dabs, solve
from colordaemon.network.match import (
    TOGETHER,
    Matchable,
    Reference,
    closest,
    likenesses,
    match,
    mean_by_place,
    sampled,
)
from colordaemon.network.model import Look
from colordaemon.network.places import places_size

_DARK = 0.15  # gray, L* 15


@dataclass(frozen=True)
class HintedFrame:
    """A frame with dabs: its places with what the dabs add there, Lab ab and their influence."""

    known: Matchable


class Painted(NamedTuple):
    """A picture with the colors of network and guide.

    ab: (1, 2, h, w) float32. sure: (1, 1, h, w). places: (P, D), None without a guide. weight: mean
    of the references, a scalar, None without any.
    """

    ab: Tensor
    sure: Tensor
    places: Tensor | None
    weight: Tensor | None


class Painter:
    """Predicts ab as a Colorizer does, by references and dabs where they have something to say.

    weights: of each picture of the last call, the mean weight of its references in 0..1; None if
    none is for it.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        references: Sequence[Reference] = (),
        hints: Sequence[HintedFrame] = (),
    ) -> None:
        self._colorizer = colorizer
        self._references, self._hints = tuple(references), tuple(hints)
        self.weights: list[float | None] = []

    def __str__(self) -> str:
        return str(self._colorizer)

    @property
    def batch_size(self) -> int:
        return self._colorizer.batch_size

    @property
    def device(self) -> torch.device:
        return self._colorizer.device

    @property
    def short_side(self) -> int:
        return self._colorizer.short_side

    def network_size(self, height: float, width: float) -> tuple[int, int]:
        """See `Colorizer.network_size`."""
        return self._colorizer.network_size(height, width)

    def predict_ab(self, gray: Tensor) -> Tensor:
        """See `Colorizer.predict_ab`."""
        return self.guess(gray)[0]

    @torch.inference_mode()
    def guess(self, gray: Tensor, seconds: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """See `Colorizer.guess`. seconds: the time of each picture; None: they are photos."""
        self.weights = [None] * len(gray)
        if not self._references and not self._hints:
            return self._colorizer.guess(gray)
        painted: list[Painted] = []
        for look in self._colorizer.looks(gray):
            # One by one: the result for a picture does not depend on those beside it.
            for one in _apart(look):
                time = None if seconds is None else seconds[len(painted)]
                painted.append(self._paint(one, gray.shape[-2:], time)._replace(places=None))
        ab, sure = torch.cat([each.ab for each in painted]), torch.cat([e.sure for e in painted])
        self._colorizer.check(ab)  # waits for the GPU
        weights = [each.weight for each in painted]
        self.weights = [None if weight is None else float(weight) for weight in weights]
        return ab, sure

    @torch.inference_mode()
    def hint(
        self, gray: Tensor, rgba: NDArray[np.uint8], seconds: float | None = None
    ) -> HintedFrame:
        """See `hinted_frame`."""
        [look] = self._colorizer.looks(gray)
        base = self._paint(look, gray.shape[-2:], seconds)
        rows, columns = places_size(*self.network_size(*gray.shape[-2:]))
        places = base.places
        if places is None:
            places = self._colorizer.describe(look.features, rows, columns)
        shown = _gray_by_place(gray.to(self.device), rows, columns)
        frame = Frame(places, gray_to_lightness(shown).flatten(), rows, columns)
        dabs = read_dabs(rgba, rows, columns).to(self.device)
        said = torch.cat(solve(frame, mean_by_place(base.ab, 2), dabs), dim=1)
        everywhere = torch.arange(len(places))
        return HintedFrame(sampled(places, said, everywhere, kept=dabs.where))

    def _paint(self, look: Look, size: Sequence[int], seconds: float | None) -> Painted:
        """Colors of one picture. size: its own, in pixels."""
        references = [each.known for each in self._references if each.serves(seconds)]
        if not references and not self._hints:
            return Painted(look.ab, look.sure, None, None)
        rows, columns = places_size(*self.network_size(*size))
        places = self._colorizer.describe(look.features, rows, columns)
        ab, sure, mean_weight = look.ab, look.sure, None
        if references:
            found, weight = match(places, closest(places, columns, references))
            mean_weight = weight.mean()
            found, share = _enlarged(found, weight, rows, columns, ab.shape[-2:])
            ab, sure = torch.lerp(ab, found, share), torch.maximum(sure, share)
        if self._hints:
            knowns = closest(places, columns, [each.known for each in self._hints])
            total = torch.zeros(len(places), 3, device=places.device)
            strongest = torch.zeros(len(places), 1, device=places.device)
            for known in knowns:
                found, weight = match(places, [known])
                total += weight[:, None] * found
                strongest = torch.maximum(strongest, weight[:, None] * found[:, 2:])
            # Dabs on two frames add up where each has places of its own, but the same dab on both
            # is no stronger than on one.
            total = total * (strongest / total[:, 2:].clamp(min=1e-6)).clamp(max=1)
            added, influence = _enlarged(total[:, :2], total[:, 2], rows, columns, ab.shape[-2:])
            ab = (ab + added).clamp(-AB_LIMIT, AB_LIMIT)
            sure = torch.maximum(sure, influence)
        return Painted(ab, sure, places, mean_weight)


def hinted_frame(
    painter: Painter, gray: Tensor, rgba: NDArray[np.uint8], seconds: float | None = None
) -> HintedFrame:
    """Spread dabs of color over their own frame, to be carried to others.

    painter: colors the frame without the dabs. gray: (1, 1, H, W), as `guess` takes it. rgba:
    (h, w, 4) of the same shape, sRGB and alpha. Raises ModelError for a model without axes, and
    ValueError for a picture without dabs.
    """
    return painter.hint(gray, rgba, seconds)


@torch.inference_mode()
def most_alike(
    colorizer: Colorizer, gray: Tensor, candidates: Sequence[Reference], least: float = -1.0
) -> list[Reference]:
    """The few candidates that a picture is most like, and at least so much.

    gray: (1, 1, H, W), as `guess` takes it. least: mean of the best cosines of its telling places.
    Raises ModelError for a model without axes.
    """
    if not candidates:
        return []
    [look] = colorizer.looks(gray)
    rows, columns = places_size(*colorizer.network_size(*gray.shape[-2:]))
    places = colorizer.describe(look.features, rows, columns)
    telling = _telling(places, _gray_by_place(gray.to(colorizer.device), rows, columns)[0, 0])
    if not len(telling):
        return []
    likeness = likenesses(telling, [each.known for each in candidates])
    order = sorted(range(len(candidates)), key=lambda number: -likeness[number])
    return [candidates[n] for n in sorted(order[:TOGETHER]) if likeness[n] >= least]


def _telling(places: Tensor, light: Tensor) -> Tensor:
    """Of every other place both ways those that tell a picture from others.

    Darkness, walls and skies are alike everywhere. So of the places (rows * columns, D) those count
    that are light enough, (rows, columns) 0..1, and differ more than most from their neighbors.
    """
    grid = places.reshape(*light.shape, -1)
    change = torch.zeros_like(light)
    down = 1 - (grid[1:] * grid[:-1]).sum(dim=-1)
    across = 1 - (grid[:, 1:] * grid[:, :-1]).sum(dim=-1)
    change[1:] += down
    change[:-1] += down
    change[:, 1:] += across
    change[:, :-1] += across
    telling = (light >= _DARK) & (change > change.median())
    chosen: Tensor = grid[::2, ::2][telling[::2, ::2]]
    return chosen


def _gray_by_place(gray: Tensor, rows: int, columns: int) -> Tensor:
    """(1, 1, H, W) uint8 or 0..1 as the mean 0..1 of each place, (1, 1, rows, columns)."""
    gray = gray.float() / 255 if gray.dtype == torch.uint8 else gray.float()
    return functional.interpolate(gray, (rows, columns), mode="area")


def _apart(look: Look) -> list[Look]:
    count = len(look.ab)
    return [
        Look(look.ab[n : n + 1], look.sure[n : n + 1], tuple(f[n : n + 1] for f in look.features))
        for n in range(count)
    ]


def _enlarged(
    values: Tensor, weight: Tensor, rows: int, columns: int, size: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Values (P, C) and weight (P,) of places to maps (1, C, h, w) and (1, 1, h, w)."""
    maps = torch.cat((values, weight[:, None]), dim=1).T.reshape(1, -1, rows, columns)
    maps = functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
    maps = maps[..., : size[0], : size[1]]
    return maps[:, :-1], maps[:, -1:]
