"""What `smoothing` and `motion` compute, on a GPU: the same formulas, in other digits.

The search for motion stays on the processor, where it is a tenth of the work. All else is a few
hundred small sums a frame, which are recorded as graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.config import Place, Smoothing
from colordaemon.film.motion import (
    ABSOLUTE_SLIP,
    MATCH,
    MOST_NOISE,
    NOISE,
    PATCH,
    RELATIVE_SLIP,
    TOLERANCE,
)
from colordaemon.film.smoothing import (
    DARK,
    DRIFT,
    LEAST_SURE,
    MEMORY,
    STILL,
    Sample,
    Smoother,
)
from colordaemon.network.cuda import Graphs, Traffic, graphs_for


@dataclass(frozen=True)
class _Step:
    """A sample with the mean of all before it, and the motion from the one before.

    luma: (h, w) uint8. now, past: (1, 4, h, w) float32: ab, luma, and the weight of that, of the
    sample and of the mean. back: (1, 3, h, w) from the sample before to this one: x, y, trust.
    """

    luma: np.ndarray
    now: Tensor
    past: Tensor
    back: Tensor | None


class SmoothingMath:
    """The formulas on one device, for all segments of a film."""

    def __init__(self, device: torch.device) -> None:
        self.traffic = Traffic(device)
        # One for each of the formulas, since graphs are known by shapes alone.
        self._for_motions, self._for_averages = (
            graphs_for(device) or Graphs(None) for _ in range(2)
        )

    def smoother(self, mode: Smoothing, place: Place) -> Smoother:
        """On the GPU only where that is wished, and the network runs there too."""
        if mode == "motion" and place == "gpu" and self.traffic.queues:
            return GpuSmoother(self)
        return Smoother(mode)

    def motions(self, one: np.ndarray, other: np.ndarray, flows: Sequence[np.ndarray]) -> Tensor:
        """From luma (h, w) to another one and back, (2, 3, h, w): x, y in pixels and trust 0..1.

        flows: (h, w, 2) both ways.
        """
        there, back = (np.moveaxis(flow, -1, 0) for flow in flows)
        lumas = np.stack((one, other)).astype(np.float32)
        both = [np.concatenate((lumas, there, back)), np.concatenate((lumas[::-1], back, there))]
        (found,) = self._for_motions(_motions, self.traffic.upload(both))
        return found

    def average(self, now: Tensor, mean: Tensor, motion: Tensor) -> Tensor:
        """Add a sample to the mean of its neighbor, which is moved along the motion."""
        (found,) = self._for_averages(_average, torch.cat((now, mean, motion), dim=1))
        return found


class GpuSmoother(Smoother):
    """A smoother along motion whose averages are made on a GPU."""

    def __init__(self, math: SmoothingMath) -> None:
        super().__init__("motion")
        self._math = math

    @torch.inference_mode()
    def _append(self, sample: Sample) -> None:
        math, shot = self._math, self._shot
        previous = shot[-1] if shot else None
        said = np.concatenate((sample.ab, sample.luma[None], sample.sure[None]), dtype=np.float32)
        now = _weighed(math.traffic.upload([said]))
        if previous is None:
            shot.append(_Step(sample.luma, now, now, None))
            return
        flows = self._search.flows(sample.luma, previous.luma)
        there, back = torch.split(math.motions(sample.luma, previous.luma, flows), 1)
        past = math.average(now, previous.past, there)
        shot.append(_Step(sample.luma, now, past, back))

    @torch.inference_mode()
    def _walk_back(self) -> list[Tensor]:
        futures: list[Tensor] = []
        way: Tensor | None = None  # from a step to the one after it
        for step in reversed(self._shot):
            if way is None:
                futures.append(step.now)
            else:
                futures.append(self._math.average(step.now, futures[-1], way))
            way = step.back
        now, past, future = (
            torch.cat(parts)
            for parts in (
                [step.now for step in self._shot],
                [step.past for step in self._shot],
                futures[::-1],
            )
        )
        own, before, after = (x[:, :2] * x[:, 3:] for x in (now, past, future))
        total = past[:, 3:] + future[:, 3:] - now[:, 3:]  # its own sample is in both
        return list((before + after - own) / total)

    def _ab(self, means: list[Tensor]) -> list[np.ndarray]:
        (found,) = self._math.traffic.download(torch.stack(means)).get()  # waits for the GPU
        return list(found)


def _weighed(said: Tensor) -> Tensor:
    """ab, luma and certainty (N, 4, h, w) of samples as ab, luma and weight."""
    ab, luma, sure = torch.split(said, [2, 1, 1], dim=1)
    darkness = (1 - luma / DARK).clamp(0, 1)
    calm, weight = 1 - darkness * (1 - sure), LEAST_SURE + (1 - LEAST_SURE) * sure
    return torch.cat((ab * calm, luma, weight), dim=1)


def _average(packed: Tensor) -> tuple[Tensor, ...]:
    """(N, 11, h, w): `now`, mean and motion; to the new mean (N, 4, h, w)."""
    now, mean, places, trust = torch.split(packed, [4, 4, 2, 1], dim=1)
    moved = _fetched(mean, places)
    drift = (_difference(moved[:, 2:3], now[:, 2:3]) - STILL).clamp(min=0)
    trust = trust * (drift * drift * (-0.5 / DRIFT**2)).exp()
    kept = (moved[:, 3:] * trust).clamp(max=MEMORY - 1)
    total = kept + now[:, 3:]
    merged = (moved[:, :3] * kept + now[:, :3] * now[:, 3:]) / total
    return (torch.cat((merged, total), dim=1),)


def _motions(packed: Tensor) -> tuple[Tensor, ...]:
    """(N, 6, h, w): luma here and there, flow x and y there, and back; to x, y and trust."""
    here, other, flow, back = torch.split(packed, [1, 1, 2, 2], dim=1)
    height, width = packed.shape[-2:]
    y, x = (
        torch.arange(count, device=packed.device, dtype=torch.float32) for count in (height, width)
    )
    places = torch.stack((x.expand(height, width), y[:, None].expand(height, width))) + flow
    moved = _fetched(torch.cat((other, back), dim=1), places)
    error = _difference(moved[:, :1], here)
    noise = (NOISE * _median(error[..., ::2, ::2])).clamp(max=MOST_NOISE)
    doubt = (error - noise).clamp(min=0) ** 2 / TOLERANCE**2
    slip, allowed = _squared(flow + moved[:, 1:]), _squared(flow) + _squared(moved[:, 1:])
    doubt = doubt + (slip / (RELATIVE_SLIP * allowed + ABSOLUTE_SLIP) - 1).clamp(min=0)
    return (torch.cat((places, (-0.5 * doubt).exp()), dim=1),)


def _fetched(values: Tensor, places: Tensor) -> Tensor:
    """Values (N, C, h, w) at places (N, 2, h, w), x and y; beyond the edge, those at it."""
    height, width = values.shape[-2:]
    x = 2 * places[:, 0] / max(1, width - 1) - 1
    y = 2 * places[:, 1] / max(1, height - 1) - 1
    return functional.grid_sample(
        values, torch.stack((x, y), dim=-1), padding_mode="border", align_corners=True
    )


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """See `motion.difference`, (N, 1, h, w)."""
    mean, wanted = (x.mean(dim=(-2, -1), keepdim=True) for x in (one, other))
    spread, aim = (x.std(dim=(-2, -1), correction=0, keepdim=True) for x in (one, other))
    gain = ((aim + 1) / (spread + 1)).clamp(1 / MATCH, MATCH)
    shift = (wanted / mean.clamp(min=1)).clamp(1 / MATCH, MATCH) * mean
    apart = ((one - mean) * gain + shift - other).abs()
    edge = PATCH // 2
    mode = "reflect" if min(apart.shape[-2:]) > edge else "replicate"
    padded = functional.pad(apart, (edge, edge, edge, edge), mode=mode)
    return functional.avg_pool2d(padded, PATCH, stride=1)


def _median(values: Tensor) -> Tensor:
    """Of each picture (N, 1, h, w), as (N, 1, 1, 1). `torch.quantile` would wait for the GPU."""
    ordered = values.flatten(1).sort(dim=1).values
    count = ordered.shape[1]
    middle = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return middle[:, None, None, None]


def _squared(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1, keepdim=True)
