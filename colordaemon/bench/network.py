"""The network alone, beside the fastest matrix product of the same device in the same precision.

Multiplications and additions of the convolutions are counted, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from colordaemon.bench.process import Ran, device_peak_mib, peak_mib
from colordaemon.bench.timing import Timed, median, timed
from colordaemon.config import ModelSettings
from colordaemon.network.checkpoint import BUILT_IN, load_model
from colordaemon.network.colorizer import open_colorizer
from colordaemon.network.model import ColorNet

ASPECT = 9, 16  # height, width of the pictures
_TURNS = 3


@dataclass(frozen=True)
class Speed:
    """Batches of one size. ran: the network, before anything else was done. height, width: of the
    pictures as it sees them, in pixels. operations: multiplications and additions for one of them.
    peak: of those, how many a second a matrix product does."""

    ran: Ran[Timed]
    height: int
    width: int
    operations: int
    peak: float


def look(model: ModelSettings, batch: int, seconds: float) -> Speed:
    """seconds: how long to measure network and matrix product each, about. They take turns, so that
    other work on the machine slows both."""
    colorizer = open_colorizer(
        model.file, model.device, model.precision, model.quality, batch, model.saturation
    )
    device, (height, width) = colorizer.device, colorizer.network_size(*ASPECT)
    gray = torch.rand(batch, 1, height, width, device=device)
    network = _calls(lambda: colorizer.begin(gray)[0], device, seconds, batch)
    peaks = peak_mib(), device_peak_mib()
    side = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(side, side, device=device).to(colorizer.dtype) for _ in range(2))
    multiply = torch._int_mm if colorizer.dtype == torch.int8 else torch.matmul
    product = _calls(lambda: multiply(one, other), device, seconds, 2 * side**3)
    turns = [(timed(network), timed(product)) for _ in range(_TURNS)]
    took, peak = (median(times) for times in zip(*turns, strict=True))
    counted = operations(load_model(model.file or BUILT_IN), height, width)
    return Speed(Ran(took, *peaks), height, width, counted, peak.count / peak.wall_seconds)


def _calls(
    work: Callable[[], Tensor], device: torch.device, seconds: float, count: int
) -> Callable[[], int]:
    """A turn of about its share of `seconds`, warmed up. count: done in one call."""

    def calls(number: int) -> int:
        for _ in range(number):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return number * count

    calls(1)
    once = timed(lambda: calls(1)).wall_seconds
    return lambda: calls(max(1, round(seconds / _TURNS / once)))


def operations(model: ColorNet, height: int, width: int) -> int:
    """Multiplications and additions of all convolutions for one picture, padded as it will be."""
    total, multiple = 0, model.spec.multiple

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += 2 * output.numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.inference_mode():
        model(torch.zeros(1, 1, height + -height % multiple, width + -width % multiple))
    for hook in hooks:
        hook.remove()
    return total
