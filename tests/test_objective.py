"""Which terms a step's loss is made of, and when: on networks whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn

from colordaemon.config import TrainSettings
from colordaemon.network.model import ColorNet, Heads
from colordaemon.training.losses import CONSISTENCY_FROM, PERCEPTUAL_FROM, Objective, TrueColor, l2

EARLY, LATE = CONSISTENCY_FROM - 0.01, CONSISTENCY_FROM


class Recorder(nn.Module):
    """Passes on to a network, and remembers how many pictures it was shown."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.shown: list[int] = []

    def forward(self, gray: Tensor) -> Heads:
        self.shown.append(len(gray))
        heads: Heads = self.network(gray)
        return heads


class Stubborn(nn.Module):
    """Says the same color whatever it is shown."""

    def forward(self, gray: Tensor) -> Heads:
        size = gray.shape[-2] // 2, gray.shape[-1] // 2
        return Heads(torch.full((len(gray), 2, *size), 0.3), None)


def loss_of(network: nn.Module, progress: float, **settings: float | bool) -> float:
    values = {"loss": "l2", "saturation": 1.0, **settings}
    gray = torch.rand(4, 1, 32, 32, generator=Generator().manual_seed(2))
    ab = 30 * torch.randn(4, 2, 16, 16, generator=Generator().manual_seed(3))
    objective = Objective(TrainSettings.model_validate(values), l2)
    chance = Generator().manual_seed(1)
    loss, heads = objective(network, gray, ab, progress, chance)
    assert heads.ab.shape == (4, 2, 16, 16)
    return loss.item()


def consistency(network: nn.Module, progress: float, weight: float = 1.0) -> float:
    """What the term adds, at the same chance."""
    with_it = loss_of(network, progress, consistency=weight)
    return with_it - loss_of(network, progress, consistency=0.0)


def test_two_damaged_views_should_get_the_same_colors(tiny_model: ColorNet) -> None:
    assert consistency(tiny_model, LATE) > 0.001
    double = consistency(tiny_model, LATE, weight=2.0)
    assert double == pytest.approx(2 * consistency(tiny_model, LATE), rel=1e-3)


def test_a_network_that_ignores_its_input_is_consistent() -> None:
    assert consistency(Stubborn(), LATE) == 0


def test_views_that_are_not_damaged_are_the_same(tiny_model: ColorNet) -> None:
    one = loss_of(tiny_model, LATE, consistency=1.0, degradations=False)
    other = loss_of(tiny_model, LATE, consistency=0.0, degradations=False)
    assert one == pytest.approx(other)


def test_consistency_sets_in_half_way_and_costs_nothing_before(tiny_model: ColorNet) -> None:
    network = Recorder(tiny_model)
    assert consistency(network, EARLY) == 0
    assert network.shown == [4, 4]
    consistency(network, LATE)
    assert network.shown[2:] == [8, 4]


def test_the_perceptual_term_sets_in_after_that(tiny_model: ColorNet) -> None:
    seen: list[tuple[int, int]] = []

    def perceptual(heads: Heads, target: TrueColor) -> Tensor:
        seen.append((len(heads.ab), len(target.ab)))
        return torch.tensor(7.0)

    settings = TrainSettings(loss="l2", perceptual=2.0, consistency=1.0)
    gray, ab = torch.rand(2, 1, 32, 32), torch.zeros(2, 2, 16, 16)
    losses = []
    for objective in (Objective(settings, l2), Objective(settings, l2, perceptual)):
        for progress in (PERCEPTUAL_FROM - 0.01, PERCEPTUAL_FROM):
            loss, _ = objective(tiny_model, gray, ab, progress, Generator().manual_seed(1))
            losses.append(loss.item())
    assert losses[2] == losses[0]
    assert losses[3] == pytest.approx(losses[1] + 14)
    assert seen == [(2, 2)]  # of the first view alone
