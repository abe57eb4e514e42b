"""Tuning and judging on networks and pictures whose colors are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import colorful
from torch import Tensor, nn

from colordaemon.color import AB_LIMIT, gray_to_lightness, lab_to_rgb, rgb_to_lab
from colordaemon.config import TrainSettings
from colordaemon.evaluation.metrics import colorfulness, delta_e_2000
from colordaemon.network.model import ColorNet, Decoding, Heads, ModelSpec, certainty, decode
from colordaemon.pictures.loader import Crops, HasPixels, center_crops, to_gray_and_ab
from colordaemon.training import validate as validation
from colordaemon.training.losses import l2
from colordaemon.training.validate import (
    EXPONENTS,
    GAINS,
    MOST_BLOTS,
    TOLERANCE,
    Measured,
    Tuning,
    Validation,
    reporting_half,
    validate,
)

CPU = torch.device("cpu")
BLUE, BROWN = (5.0, -40.0), (20.0, 30.0)
ONE_HEAD = TrainSettings(validation_side=32, batch_size=4, loss="l2")
TWO_HEADS = ONE_HEAD.model_copy(update={"loss": "joint"})


class Patch:
    """A picture of one hue, darker and brighter in places."""

    def __init__(self, rgb: tuple[int, int, int], seed: int = 0) -> None:
        shades = np.random.default_rng(seed).uniform(0.7, 1, (4, 4)).repeat(8, 0).repeat(8, 1)
        self._pixels: np.ndarray = (shades[..., None] * np.array(rgb)).astype(np.uint8)

    def pixels(self) -> np.ndarray:
        return self._pixels


class HalfGray(Patch):
    """One half of it has no color."""

    def pixels(self) -> np.ndarray:
        half: np.ndarray = self._pixels.copy()
        half[:16] = half[:16].mean(axis=2, keepdims=True)
        return half


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


def judge(
    model: ColorNet,
    pictures: Sequence[HasPixels],
    settings: TrainSettings,
    unseen: Sequence[HasPixels] = (),
) -> Validation:
    crops, others = center_crops(pictures, settings), center_crops(unseen, settings)
    return validate(model, crops, others, settings, l2, CPU)


def measure(model: ColorNet, pictures: Sequence[HasPixels], settings: TrainSettings) -> Measured:
    return judge(model, pictures, settings).held_out


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
    judge(only_first, browns, TWO_HEADS)
    assert only_first.decoding.bin_share == 0
    only_second = Painter(BLUE, (right, BLUE))
    judge(only_second, browns, TWO_HEADS)
    assert only_second.decoding.bin_share == 1


@pytest.mark.parametrize("strength", [0.7, 1.0, 1.6])
def test_a_right_hue_is_tuned_to_be_as_strong_as_the_truth_or_a_little_stronger(
    browns: list[Patch], strength: float
) -> None:
    a, b = mean_ab(browns[0])
    judged = measure(Painter((strength * a, strength * b)), browns, ONE_HEAD)
    assert 0.95 < judged.scores.chroma / judged.scores.true_chroma < 1.15


def test_a_wrong_hue_is_tuned_to_be_pale(browns: list[Patch]) -> None:
    model = Painter(BLUE)
    judged = measure(model, browns, ONE_HEAD)
    assert judged.scores.chroma < 0.65 * judged.scores.true_chroma


def test_noise_is_not_blown_up(browns: list[Patch]) -> None:
    a, b = mean_ab(browns[0])
    for strength, gain in ((0.05, GAINS[1]), (9.0, GAINS[0])):
        model = Painter((strength * a, strength * b))
        measure(model, browns, ONE_HEAD)
        assert model.decoding.chroma_gain == gain


@torch.inference_mode()
def test_strength_costs_little_and_brings_colorfulness(tiny_model: ColorNet) -> None:
    """Against all strengths that tuning might have chosen."""
    pictures = [Colorful(seed) for seed in range(12)]
    tuning = Tuning(tiny_model.bins, (0.0,))
    for picture in pictures:
        gray, ab = to_gray_and_ab(Crops([picture], 32)[0][None])
        tuning.add(tiny_model(gray), gray, ab)
    chosen = tuning.best().decoding
    tried = []
    for exponent in EXPONENTS:
        for gain in np.linspace(*GAINS, 30):
            decoding = Decoding(1.0, 0.0, float(gain), chroma_exponent=exponent)
            tried.append(fixed(tiny_model, pictures, decoding))
    least = min(delta_e for delta_e, _ in tried)
    delta_e, full = fixed(tiny_model, pictures, chosen)
    assert delta_e <= 1.02 * TOLERANCE * least  # tuning looks at every fourth pixel
    assert full > next(full for delta_e, full in tried if delta_e == least)


def fixed(
    model: ColorNet, pictures: Sequence[HasPixels], decoding: Decoding
) -> tuple[float, float]:
    """Mean CIEDE2000 and colorfulness with this decoding."""
    errors, full = [], []
    for picture in pictures:
        gray, ab = to_gray_and_ab(Crops([picture], 32)[0][None])
        heads = model(gray)
        painted = decode(heads, certainty(heads), model.bins, decoding)
        lightness = gray_to_lightness(nn.functional.avg_pool2d(gray, 2))
        lab, truth = (torch.cat((lightness, x), dim=1) for x in (painted, ab))
        errors.append(float(delta_e_2000(lab, truth).mean()))
        full.append(float(colorfulness(lab_to_rgb(lab).clamp(0, 1))))
    return sum(errors) / len(errors), sum(full) / len(full)


def test_where_everything_blots_the_fewest_blots_are_taken() -> None:
    """Half of each picture is gray, and the network paints all of it like the other half."""
    patches = [HalfGray((200, 120, 60)) for _ in range(4)]
    judged = measure(Painter(mean_ab(Patch((200, 120, 60)))), patches, ONE_HEAD)
    assert judged.blots <= MOST_BLOTS or judged.blots == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("strength", [0.3, 0.8, 2.0])
def test_the_strength_of_its_colors_does_not_change_a_models_delta_e_at_70(
    browns: list[Patch], strength: float
) -> None:
    a, b = mean_ab(browns[0])
    a, b = a + 10, b - 10  # a wrong hue, so that there is something to measure
    one = judge(Painter((a, b)), browns, ONE_HEAD)
    other = judge(Painter((strength * a, strength * b)), browns, ONE_HEAD)
    assert one.held_out.delta_e_70 > 1
    assert other.held_out.delta_e_70 == pytest.approx(one.held_out.delta_e_70, abs=0.01)
    assert other.tuning_delta_e_70 == pytest.approx(one.tuning_delta_e_70, abs=0.01)


def test_the_reporting_half_has_no_say_in_the_decoding(tiny_model: ColorNet) -> None:
    tuned_on: list[HasPixels] = [Colorful(seed) for seed in range(4)]
    decodings, tuned, reported = [], [], []
    colorful: list[HasPixels] = [Colorful(seed) for seed in range(10, 14)]
    blue: list[HasPixels] = [Patch((40, 60, 200))] * 4
    for others in (colorful, blue):
        pictures: list[HasPixels] = [x for pair in zip(tuned_on, others, strict=True) for x in pair]
        judged = judge(tiny_model, pictures, TWO_HEADS)
        decodings.append(tiny_model.decoding)
        tuned.append(judged.tuning_delta_e_70)
        reported.append(judged.held_out.delta_e)
    assert decodings[0] == decodings[1] and tuned[0] == tuned[1]
    assert reported[0] != reported[1]


@pytest.mark.parametrize("fewest", [4, 5])
def test_decoding_is_tuned_on_unseen_sources_where_there_are_enough(
    browns: list[Patch], monkeypatch: pytest.MonkeyPatch, fewest: int
) -> None:
    monkeypatch.setattr(validation, "FEWEST", fewest)  # eight of them are four to tune on
    a, b = mean_ab(browns[0])
    model = Painter((0.7 * a, 0.7 * b))
    blues = [Patch((60, 90, 200), seed) for seed in range(8)]
    judged = judge(model, blues, ONE_HEAD, unseen=browns)
    found = model.decoding
    assert (found == tuned_on(model, browns)) is (fewest == 4)
    assert (found == tuned_on(model, blues)) is (fewest == 5)
    assert judged.unseen is not None
    assert judged.unseen.scores.pictures == judged.held_out.scores.pictures == 4
    assert judged.unseen.delta_e < judged.unseen.gray_delta_e


def tuned_on(model: ColorNet, pictures: Sequence[HasPixels]) -> Decoding:
    judge(model, pictures, ONE_HEAD)
    return model.decoding


def test_the_tuning_half_is_not_reported() -> None:
    model = Painter(BROWN)
    pictures = [Colorful(1), Colorful(2)]
    swapped = measure(model, [Colorful(3), Colorful(2)], ONE_HEAD)
    judged = measure(model, pictures, ONE_HEAD)
    assert judged.scores.pictures == 1
    assert judged.scores.true_chroma == swapped.scores.true_chroma
    assert judged.gray_delta_e == swapped.gray_delta_e


def test_a_single_picture_serves_both_halves() -> None:
    assert reporting_half(["one"]) == ["one"]
    assert reporting_half(["a", "b", "c", "d", "e"]) == ["b", "d"]
    judged = judge(Painter(BROWN), [Colorful(1)], ONE_HEAD)
    assert judged.held_out.scores.pictures == 1
    assert judged.held_out.delta_e_70 == pytest.approx(judged.tuning_delta_e_70, rel=0.1)


def test_a_model_with_one_head_has_only_its_gain_tuned(tiny_spec: ModelSpec) -> None:
    model = ColorNet(replace(tiny_spec, bins=()))
    assert model.decoder.head.bias is not None
    nn.init.constant_(model.decoder.head.bias, 0.1)
    judged = measure(model, [Colorful(seed) for seed in range(4)], ONE_HEAD)
    assert (model.decoding.temperature, model.decoding.bin_share) == (1.0, 0.0)
    assert model.decoding != Decoding(1.0, 0.0)
    assert judged.delta_e_70 > 0


def test_a_network_that_says_gray_can_be_judged() -> None:
    judged = measure(Painter((0.0, 0.0)), [Colorful(1), Colorful(2)], ONE_HEAD)
    assert judged.delta_e == judged.delta_e_70 == judged.gray_delta_e
    assert judged.scores.chroma == 0
