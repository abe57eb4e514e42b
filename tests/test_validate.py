"""Tuning and judging on networks and pictures whose colors are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import colorful
from torch import Tensor, nn

from colordaemon.color import AB_LIMIT, rgb_to_lab
from colordaemon.config import TrainSettings
from colordaemon.network.model import ColorNet, Decoding, Heads, ModelSpec
from colordaemon.training.losses import l2
from colordaemon.training.validate import CHROMA_SHARE, GAINS, reporting_half, validate

CPU = torch.device("cpu")
BLUE, BROWN = (5.0, -40.0), (20.0, 30.0)
ONE_HEAD = TrainSettings(validation_side=32, batch_size=4, loss="l2")
TWO_HEADS = ONE_HEAD.model_copy(update={"loss": "joint"})


class Patch:
    """A picture of one hue, darker and brighter in places."""

    def __init__(self, rgb: tuple[int, int, int], seed: int = 0) -> None:
        shades = np.random.default_rng(seed).uniform(0.7, 1, (4, 4)).repeat(8, 0).repeat(8, 1)
        self._pixels = (shades[..., None] * np.array(rgb)).astype(np.uint8)

    def pixels(self) -> np.ndarray:
        return self._pixels


class Colorful:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def pixels(self) -> np.ndarray:
        return colorful(self.seed)


class Painter(ColorNet):
    """Says one ab with its first head, and with its second, where it has one, one of its bins."""

    def __init__(self, ab: tuple[float, float], bins: tuple[tuple[float, float], ...] = ()) -> None:
        tiny = ModelSpec(((4,), (4,), (4,)), (4, 4), short_side=32, bins=bins)
        super().__init__(tiny)
        self.ab = ab

    def forward(self, gray: Tensor) -> Heads:
        count, _, height, width = gray.shape
        ab = torch.tensor(self.ab).reshape(1, 2, 1, 1) / AB_LIMIT
        scores = None
        if self.spec.bins:  # the first bin is the likeliest by far
            likely = torch.tensor([9.0] + [0.0] * (len(self.bins) - 1)).reshape(1, -1, 1, 1)
            scores = likely.expand(count, -1, height // 4, width // 4)
        return Heads(ab.expand(count, 2, height // 2, width // 2), scores)


def mean_ab(patch: Patch) -> tuple[float, float]:
    lab = rgb_to_lab(torch.from_numpy(patch.pixels()).permute(2, 0, 1)[None].float() / 255)
    a, b = lab[0, 1:].mean(dim=(1, 2)).tolist()
    return a, b


@pytest.fixture
def browns() -> list[Patch]:
    return [Patch((200, 140, 90), seed) for seed in range(8)]


def test_tuning_trusts_the_head_that_knows(browns: list[Patch]) -> None:
    right = mean_ab(browns[0])
    only_first = Painter(right, (BLUE, right))
    validate(only_first, browns, TWO_HEADS, l2, CPU)
    assert only_first.decoding.bin_share == 0
    only_second = Painter(BLUE, (right, BLUE))
    validate(only_second, browns, TWO_HEADS, l2, CPU)
    assert only_second.decoding.bin_share == 1


def test_tuning_gives_the_output_its_share_of_chroma_within_bounds(browns: list[Patch]) -> None:
    a, b = mean_ab(browns[0])
    for strength, gain in ((1.0, CHROMA_SHARE), (0.1, GAINS[1]), (5.0, GAINS[0])):
        model = Painter((strength * a, strength * b))
        judged = validate(model, browns, ONE_HEAD, l2, CPU)
        assert model.decoding.chroma_gain == pytest.approx(gain, rel=0.03)
        expected = gain * strength * judged.scores.true_chroma
        assert judged.scores.chroma == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("strength", [0.3, 0.8, 2.0])
def test_the_strength_of_its_colors_does_not_change_a_models_delta_e_at_70(
    browns: list[Patch], strength: float
) -> None:
    a, b = mean_ab(browns[0])
    a, b = a + 10, b - 10  # a wrong hue, so that there is something to measure
    one = validate(Painter((a, b)), browns, ONE_HEAD, l2, CPU)
    other = validate(Painter((strength * a, strength * b)), browns, ONE_HEAD, l2, CPU)
    assert one.delta_e_70 > 1
    assert other.delta_e_70 == pytest.approx(one.delta_e_70, abs=0.01)
    assert other.tuning_delta_e_70 == pytest.approx(one.tuning_delta_e_70, abs=0.01)


def test_the_reporting_half_has_no_say_in_the_decoding(tiny_model: ColorNet) -> None:
    tuned_on = [Colorful(seed) for seed in range(4)]
    decodings, tuned, reported = [], [], []
    for others in ([Colorful(seed) for seed in range(10, 14)], [Patch((40, 60, 200))] * 4):
        pictures = [x for pair in zip(tuned_on, others, strict=True) for x in pair]
        judged = validate(tiny_model, pictures, TWO_HEADS, l2, CPU)
        decodings.append(tiny_model.decoding)
        tuned.append(judged.tuning_delta_e_70)
        reported.append(judged.delta_e)
    assert decodings[0] == decodings[1] and tuned[0] == tuned[1]
    assert reported[0] != reported[1]


def test_the_tuning_half_is_not_reported() -> None:
    model = Painter(BROWN)
    pictures = [Colorful(1), Colorful(2)]
    swapped = validate(model, [Colorful(3), Colorful(2)], ONE_HEAD, l2, CPU)
    judged = validate(model, pictures, ONE_HEAD, l2, CPU)
    assert judged.scores.pictures == 1
    assert judged.scores.true_chroma == swapped.scores.true_chroma
    assert judged.gray_delta_e == swapped.gray_delta_e


def test_a_single_picture_serves_both_halves() -> None:
    assert reporting_half(["one"]) == ["one"]
    assert reporting_half(["a", "b", "c", "d", "e"]) == ["b", "d"]
    judged = validate(Painter(BROWN), [Colorful(1)], ONE_HEAD, l2, CPU)
    assert judged.scores.pictures == 1
    assert judged.delta_e_70 == pytest.approx(judged.tuning_delta_e_70, rel=0.1)


def test_a_model_with_one_head_has_only_its_gain_tuned(tiny_spec: ModelSpec) -> None:
    model = ColorNet(replace(tiny_spec, bins=()))
    nn.init.constant_(model.decoder.head.bias, 0.1)
    judged = validate(model, [Colorful(seed) for seed in range(4)], ONE_HEAD, l2, CPU)
    assert (model.decoding.temperature, model.decoding.bin_share) == (1.0, 0.0)
    assert model.decoding != Decoding(1.0, 0.0)
    assert judged.delta_e_70 > 0


def test_a_network_that_says_gray_can_be_judged() -> None:
    judged = validate(Painter((0.0, 0.0)), [Colorful(1), Colorful(2)], ONE_HEAD, l2, CPU)
    assert judged.delta_e == judged.delta_e_70 == judged.gray_delta_e
    assert judged.scores.chroma == 0
