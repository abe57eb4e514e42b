"""One training step: a batch of pictures in, every parameter moved once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from colordaemon.color import gray_to_lightness
from colordaemon.config import TrainSettings
from colordaemon.network.device import autocast
from colordaemon.network.model import Heads
from colordaemon.training.augment import degrade
from colordaemon.training.losses import Loss, TrueColor

CONSISTENCY_FROM = 0.5  # shares of a run after which the late terms are added: before that the
PERCEPTUAL_FROM = 0.6  # colors are too far off for them


class Objective:
    """The objective of a step, all terms together.

    perceptual: compares two RGB pictures, or None; see `Perceptual`.
    """

    def __init__(
        self,
        settings: TrainSettings,
        loss: Loss,
        perceptual: Callable[[Heads, TrueColor], Tensor] | None = None,
    ) -> None:
        self.settings, self.loss, self.perceptual = settings, loss, perceptual

    def __call__(
        self, model: nn.Module, gray: Tensor, ab: Tensor, progress: float, chance: Generator
    ) -> tuple[Tensor, Heads]:
        """The loss of a batch, and the output of the network.

        gray: (N, 1, h, w) in 0..1. ab: (N, 2, h/2, w/2) Lab units. progress: share of the run.
        """
        settings = self.settings
        lightness = gray_to_lightness(functional.avg_pool2d(gray, 2))
        target = TrueColor(lightness, ab * _boosts(ab, settings.saturation, chance))
        twice = settings.consistency > 0 and progress >= CONSISTENCY_FROM
        views = [
            degrade(gray, ab, chance) if settings.degradations else gray for _ in range(1 + twice)
        ]
        with autocast(gray.device):
            both: Heads = model(torch.cat(views))
        scores = None if both.scores is None else both.scores[: len(gray)]
        first = Heads(both.ab[: len(gray)], scores)
        loss = self.loss(first, target)
        if twice:
            one, other = both.ab.float().chunk(2)
            loss = loss + settings.consistency * (one - other).abs().mean()
        if self.perceptual is not None and progress >= PERCEPTUAL_FROM:
            loss = loss + settings.perceptual * self.perceptual(first, target)
        return loss, first


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """Move the parameters once, down the gradient of `loss`; returns its length, on the device.

    Where that is not a finite number, no parameter changes, without waiting for the GPU: the fused
    optimizer looks at `found_inf` on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    length = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.found_inf = (~length.isfinite()).float()  # type: ignore[attr-defined]
    optimizer.step()
    return length


def compiled(model: nn.Module, device: torch.device, wanted: bool) -> nn.Module:
    """The model as training runs it: on a GPU with fused kernels, made for its one batch size.

    On a CPU that takes longer than it saves (7 % more a step on two cores). Where nothing can be
    compiled, say without a C compiler, torch says so and goes on without.
    """
    if device.type != "cuda":
        return model
    torch.backends.cudnn.benchmark = True
    if not wanted:
        return model
    torch._dynamo.config.suppress_errors = True
    return cast(nn.Module, torch.compile(model, dynamic=False))


def _boosts(ab: Tensor, most: float, chance: Generator) -> Tensor:
    """The factor by which the colors of each picture are strengthened, (N, 1, 1, 1) in 1..most."""
    return 1 + (most - 1) * torch.rand(len(ab), 1, 1, 1, generator=chance, device=ab.device)
