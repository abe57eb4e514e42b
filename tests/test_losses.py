"""Losses, ab bins and damaged inputs: figures worked out by hand, and what must hold."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from colordaemon.color import AB_LIMIT, srgb_to_linear
from colordaemon.network.model import Heads
from colordaemon.pictures.loader import to_gray_and_ab
from colordaemon.training import augment
from colordaemon.training.losses import (
    BIN_SIDE,
    SoftBins,
    TrueColor,
    colorfulness_gap,
    cross_entropy,
    l2,
    make_loss,
    occupied_bins,
    smooth_l1,
    soft_bins,
)

BINS = ((-10.0, -50.0), (0.0, 0.0), (0.0, 30.0), (20.0, 20.0), (40.0, -10.0))


def said(ab: Tensor, scores: Tensor | None = None) -> Heads:
    return Heads(ab / AB_LIMIT, scores)


def target(ab: Tensor) -> TrueColor:
    return TrueColor(torch.full_like(ab[:, :1], 50.0), ab)


def tables(ab: Tensor | None = None) -> SoftBins:
    return soft_bins(torch.tensor(BINS), torch.tensor(BINS).T if ab is None else ab)


# Losses


def test_the_losses_of_known_errors() -> None:
    truth = torch.zeros(2, 2, 4, 4)
    far = truth + torch.tensor([33.0, 44.0]).reshape(1, 2, 1, 1)  # 0.3 and 0.4 of 110
    assert l2(said(far), target(truth)).item() == pytest.approx(0.5 * 0.25)
    # Beyond 0.05 Huber's loss goes on as a straight line, 0.025 lower.
    assert smooth_l1(said(far), target(truth)).item() == pytest.approx(0.35 - 0.025)
    near = truth + 0.02 * AB_LIMIT
    assert smooth_l1(said(near), target(truth)).item() == pytest.approx(0.02**2 / 2 / 0.05)


def test_cross_entropy_is_least_when_the_likely_bins_are_the_right_ones() -> None:
    truth = torch.tensor([20.0, 20.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    nearest, soft, _ = tables().encode(truth[..., :2, :2])
    right = torch.full((1, 5, 2, 2), -30.0)
    right.scatter_(1, nearest.movedim(-1, 1), soft.clamp(min=1e-9).log().movedim(-1, 1))
    assert BINS[int(right[0, :, 0, 0].argmax())] == (20.0, 20.0)
    best = cross_entropy(said(truth, right), target(truth), tables())
    for wrong in (torch.zeros_like(right), -right, right.roll(1, dims=1)):
        assert cross_entropy(said(truth, wrong), target(truth), tables()) > best


def test_colorfulness_is_missed_in_either_direction() -> None:
    truth = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 15
    gaps = [colorfulness_gap(said(truth * gain), target(truth)).item() for gain in (0, 0.5, 1, 1.5)]
    assert gaps[2] == pytest.approx(0, abs=1e-6)
    assert gaps[0] > gaps[1] > 0.01 and gaps[3] > 0.01


def test_the_slope_of_every_loss_is_finite_where_training_begins() -> None:
    truth = torch.randn(2, 2, 8, 8) * 20
    for name in ("joint", "classification", "smooth_l1", "l2"):
        ab = torch.zeros(2, 2, 8, 8, requires_grad=True)
        scores = torch.zeros(2, 5, 4, 4, requires_grad=True)
        loss: Any = make_loss(name, tables())(Heads(ab, scores), target(truth))
        loss.backward()
        slopes = [x.grad for x in (ab, scores) if x.grad is not None]
        assert slopes and all(x.isfinite().all() and x.any() for x in slopes)


def test_a_loss_that_classifies_needs_bins() -> None:
    with pytest.raises(ValueError, match="joint needs ab bins"):
        make_loss("joint", None)


# Bins


def test_bins_are_where_the_colors_are() -> None:
    ab = torch.tensor([[0.0, 3.0, -4.0, 31.0], [1.0, -2.0, 4.0, 58.0]])
    assert occupied_bins(ab) == ((0.0, 0.0), (30.0, 60.0))
    crowd = torch.zeros(2, 200_000)
    crowd[:, 0] = 50  # one pixel in 200,000 is noise
    assert occupied_bins(crowd) == ((0.0, 0.0),)


@given(st.floats(-120, 120), st.floats(-120, 120))
def test_soft_shares_add_up_and_point_to_the_color(a: float, b: float) -> None:
    nearest, soft, _ = tables().encode(torch.tensor([a, b]).reshape(1, 2, 1, 1))
    assert soft.sum().item() == pytest.approx(1, abs=1e-5)
    meant = torch.tensor([[round(a), round(b)]]).float().clamp(-AB_LIMIT, AB_LIMIT)
    distances = torch.cdist(meant, torch.tensor(BINS))[0]
    assert distances[nearest.flatten()[soft.argmax()]] == distances.min()


def test_soft_encoding_keeps_a_color_between_bins() -> None:
    grid = torch.cartesian_prod(*2 * (torch.arange(-5, 6) * BIN_SIDE,))
    encoded = soft_bins(grid, grid.T)
    color = torch.tensor([13.0, -27.0]).reshape(1, 2, 1, 1)
    nearest, soft, _ = encoded.encode(color)
    mean = (grid[nearest.flatten()] * soft.flatten()[:, None]).sum(dim=0)
    assert torch.linalg.vector_norm(mean - color.flatten()) < 2


def test_rare_colors_count_for_more_within_bounds() -> None:
    common = torch.zeros(2, 100_000)
    common[:, :20] = torch.tensor([40.0, -10.0])[:, None]
    encoded = tables(common)
    colors = torch.tensor([[0.0, 0.0], [40.0, -10.0]]).T.reshape(1, 2, 1, 2)
    weights = encoded.encode(colors)[2].flatten()
    assert 0.1 <= weights[0] < 1 < weights[1] <= 5


# Damage

ALL = [damage for _, damage in augment._DAMAGES]


def pictures(count: int = 8) -> Tensor:
    chance = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 1, 8, 8, generator=chance)
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("damage", ALL, ids=lambda damage: damage.__name__)
def test_every_damage_changes_a_picture_but_not_beyond_recognition(
    damage: augment.Degradation,
) -> None:
    before = pictures()
    after = damage(before, torch.Generator().manual_seed(1))
    assert after.shape == before.shape and after.isfinite().all()
    error = (after - before).abs().mean(dim=(1, 2, 3))
    assert error.mean() > 0.0005 and error.max() < 0.2


def test_the_same_chance_does_the_same_damage() -> None:
    before = pictures()
    ab = 20 * torch.randn(len(before), 2, 32, 32)
    one, same, other = (
        augment.degrade(before, ab, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(before, pictures())  # the input itself is left alone
    assert one.min() >= 0 and one.max() <= 1


def test_each_damage_hits_its_share_of_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def blacken(gray: Tensor, chance: torch.Generator) -> Tensor:
        return torch.zeros_like(gray)

    monkeypatch.setattr(augment, "STOCK_SHARE", 0.0)
    before, ab = torch.ones(5, 1, 8, 8), torch.zeros(5, 2, 4, 4)
    for share in (0.1, 0.5, 1.0):
        monkeypatch.setattr(augment, "_DAMAGES", ((share, blacken),))
        after = torch.cat(
            [augment.degrade(before, ab, torch.Generator().manual_seed(n)) for n in range(400)]
        )
        assert (after.amax(dim=(1, 2, 3)) == 0).float().mean() == pytest.approx(share, abs=0.04)


def patches(*rgb: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """A picture of stripes of these colors, as gray and ab."""
    stripes = torch.tensor(rgb, dtype=torch.uint8).repeat_interleave(8, 0)
    picture = stripes.T[None, :, None, :].expand(64, 3, 16, -1)
    return to_gray_and_ab(picture)


def test_old_film_sees_red_dark_and_blue_light() -> None:
    gray, ab = patches((200, 60, 60), (60, 90, 220), (120, 120, 120))
    seen = augment.film_stock(gray, ab, torch.Generator().manual_seed(1))
    red, blue, neutral = (seen[..., 8 * n + 2 : 8 * n + 6].mean(dim=(1, 2, 3)) for n in range(3))
    was_red, was_blue, _ = (gray[..., 8 * n + 4].mean() for n in range(3))
    assert (red < was_red + 0.01).all() and red.mean() < was_red - 0.05
    assert blue.mean() > was_blue and (blue > red).float().mean() > 0.5
    assert neutral.std() < red.std()


def test_film_stock_leaves_gray_pictures_alone_and_keeps_the_mean_light() -> None:
    gray = pictures()
    seen = augment.film_stock(gray, torch.zeros(8, 2, 32, 32), torch.Generator().manual_seed(1))
    torch.testing.assert_close(seen, gray, atol=0.01, rtol=0)
    gray, ab = patches((150, 60, 60), (60, 70, 120))
    seen = augment.film_stock(gray, ab, torch.Generator().manual_seed(1))
    light, before = (srgb_to_linear(x).mean(dim=(1, 2, 3)) for x in (seen, gray))
    torch.testing.assert_close(light, before, rtol=0.03, atol=0)


def test_black_and_white_survive_gamma() -> None:
    ends = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    after = augment.gamma(ends, torch.Generator().manual_seed(1))
    torch.testing.assert_close(after, ends, atol=0.02, rtol=0)


def test_our_jpeg_is_about_as_bad_as_a_real_one() -> None:
    """Against OpenCV's encoder at quality 20 and 90, the bounds of what is drawn."""
    before = pictures(32) + 0.05 * torch.randn(32, 1, 64, 64)
    before = before.clamp(0, 1)
    codes = (before[:, 0] * 255).round().byte().numpy()
    real = []
    for quality in (20, 90):
        decoded: list[Any] = [
            cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)
            for x in codes
        ]
        real.append(np.abs(np.stack(decoded).astype(float) - codes).mean() / 255)
    ours = augment.jpeg(before, torch.Generator().manual_seed(1))
    assert real[1] < (ours - before).abs().mean() < real[0]
