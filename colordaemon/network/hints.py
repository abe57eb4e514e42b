"""Spreads dabs of color over the places of the frame that they were put on.

First each dab acts on all places, the more so the more alike, near and equally bright they are
(Gaussian process regression of what the dabs change). Then colors are evened out between neighbors,
across edges less than elsewhere, and drawn to the dabs (as Levin, Lischinski and Weiss 2004).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from colordaemon.color import rgb_to_lab

log = logging.getLogger(__name__)

MOST_DABS = 200  # places with a dab; the equations of more take longer than the network
_COSINE_WIDTH, _LIGHTNESS_WIDTH, _DISTANCE_WIDTH = 0.3, 20.0, 0.3
_NOISE = 0.05
_SHADE = 10.0  # lightness; less would make much of a dab in the dark
_EDGE_COSINE, _EDGE_LIGHTNESS = 0.05, 3.0
_PULL, _PULL_OF_DABS = 0.005, 10.0
_STEPS = 60


@dataclass(frozen=True)
class Frame:
    """The places of a frame by rows, (P, D), and their lightness (P,) 0..100."""

    places: Tensor
    lightness: Tensor
    rows: int
    columns: int

    @property
    def positions(self) -> Tensor:
        """(P, 2) in short sides."""
        rows, columns = torch.arange(self.rows), torch.arange(self.columns)
        grid = torch.cartesian_prod(rows, columns).float() / min(self.rows, self.columns)
        return grid.to(self.places.device)


@dataclass(frozen=True)
class Dabs:
    """Where dabs are, as indices (n,) of places, and their Lab ab (n, 2)."""

    where: Tensor
    ab: Tensor

    def to(self, device: torch.device) -> Dabs:
        return Dabs(self.where.to(device), self.ab.to(device))


def read_dabs(rgba: NDArray[np.uint8], rows: int, columns: int) -> Dabs:
    """The places that dabs cover, thinned to the most that can be used.

    rgba: (H, W, 4) sRGB and alpha. Raises ValueError for a picture without dabs.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(rgba)).permute(2, 0, 1)[None].float() / 255
    alpha = (pixels[:, 3:] >= 0.5).float()
    shares = functional.interpolate(
        torch.cat((pixels[:, :3] * alpha, alpha), dim=1), (rows, columns), mode="area"
    )
    share = shares[:, 3:]
    # At the edge of a large dab those at least half covered; of a dab smaller than a place the one
    # that it covers most.
    around = functional.max_pool2d(share, 3, stride=1, padding=1)
    covered = (share > 0) & (share >= 0.5 * around)
    where = covered.flatten().nonzero()[:, 0]
    if not len(where):
        raise ValueError("found no dabs")
    ab = rgb_to_lab(shares[:, :3] / share.clamp(min=1e-6))[0, 1:].flatten(1).T[where]
    if len(where) > MOST_DABS:
        log.info("%d places have dabs: %d of them are used", len(where), MOST_DABS)
        kept = _spread(where, ab, columns, min(rows, columns))
        where, ab = where[kept], ab[kept]
    return Dabs(where, ab)


def _spread(where: Tensor, ab: Tensor, columns: int, short: int) -> Tensor:
    """Indices of MOST_DABS dabs, each as far as can be from those before, in place and color."""
    features = torch.stack((where // columns / short, where % columns / short), dim=1)
    features = torch.cat((features, ab / 50), dim=1)
    chosen = [0]
    distance = torch.cdist(features, features[:1])[:, 0]
    while len(chosen) < MOST_DABS:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.cdist(features, features[chosen[-1:]])[:, 0])
    return torch.tensor(sorted(chosen))


def solve(frame: Frame, ab: Tensor, dabs: Dabs) -> tuple[Tensor, Tensor]:
    """Colors with dabs from those without.

    ab: (P, 2) Lab units. Returns what the dabs add to it, (P, 2), and how much they have to say at
    each place, (P, 1) in 0..1.
    """
    known = _kernel(frame, dabs.where)
    inverse = known[dabs.where] + _NOISE * torch.eye(len(dabs.where), device=known.device)
    targets = torch.cat((dabs.ab - ab[dabs.where], torch.ones_like(dabs.ab[:, :1])), dim=1)
    # A color has less chroma in its shadows, so what is added goes with lightness; influence not.
    shade = (frame.lightness[:, None] + _SHADE).expand(-1, 2)
    scale = torch.cat((shade, torch.ones_like(shade[:, :1])), dim=1)
    field = scale * (known @ torch.linalg.solve(inverse, targets / scale[dabs.where]))
    said = _smoothed(frame, field, dabs.where, targets)
    return said[:, :2], said[:, 2:].clamp(0, 1)


def _kernel(frame: Frame, where: Tensor) -> Tensor:
    """How much the color of each place follows from that of each dab, (P, n) in 0..1."""
    cosine = frame.places @ frame.places[where].T
    lightness = frame.lightness[:, None] - frame.lightness[where]
    distance = torch.cdist(frame.positions, frame.positions[where])
    return (
        torch.exp((cosine - 1) / _COSINE_WIDTH)
        * torch.exp(-lightness.square() / (2 * _LIGHTNESS_WIDTH**2))
        * (0.5 + 0.5 * torch.exp(-distance.square() / (2 * _DISTANCE_WIDTH**2)))
    )


def _smoothed(frame: Frame, field: Tensor, where: Tensor, targets: Tensor) -> Tensor:
    """The u that minimizes Σ e (u_i - u_j)² + pull (u - field)² + pull of dabs (u - targets)².

    field: (P, C). targets: (n, C) at `where`. By conjugate gradients with the diagonal as
    preconditioner, all channels at once.
    """
    shape = (frame.rows, frame.columns, -1)
    places, lightness = frame.places.reshape(shape), frame.lightness.reshape(shape)
    down, right = (_edges(places, lightness, dim) for dim in (0, 1))
    pulls, wanted = torch.full_like(frame.lightness, _PULL)[:, None], _PULL * field
    pulls[where] += _PULL_OF_DABS
    wanted[where] += _PULL_OF_DABS * targets
    pulls, wanted, u = (each.reshape(shape) for each in (pulls, wanted, field))
    diagonal = pulls.clone()
    diagonal[:-1] += down
    diagonal[1:] += down
    diagonal[:, :-1] += right
    diagonal[:, 1:] += right

    def product(u: Tensor) -> Tensor:
        result = pulls * u
        flow = down * (u[1:] - u[:-1])
        result[1:] += flow
        result[:-1] -= flow
        flow = right * (u[:, 1:] - u[:, :-1])
        result[:, 1:] += flow
        result[:, :-1] -= flow
        return result

    rest = wanted - product(u)
    step = rest / diagonal
    energy = (rest * step).sum(dim=(0, 1))
    for _ in range(_STEPS):
        along = product(step)
        length = energy / (step * along).sum(dim=(0, 1)).clamp(min=1e-20)
        u, rest = u + length * step, rest - length * along
        ahead = rest / diagonal
        before, energy = energy, (rest * ahead).sum(dim=(0, 1))
        step = ahead + energy / before.clamp(min=1e-20) * step
    return u.flatten(0, 1)


def _edges(places: Tensor, lightness: Tensor, dim: int) -> Tensor:
    """How much neighbors along a dimension of the grid (rows, columns, …) have one color, 0..1."""
    count = places.shape[dim] - 1
    one, other = places.narrow(dim, 0, count), places.narrow(dim, 1, count)
    cosine = (one * other).sum(dim=-1, keepdim=True)
    step = lightness.narrow(dim, 0, count) - lightness.narrow(dim, 1, count)
    return torch.exp((cosine - 1) / _EDGE_COSINE - step.square() / (2 * _EDGE_LIGHTNESS**2))
