"""Scores against numbers that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from colordaemon.evaluation.metrics import (
    ACCURACY_DISTANCE,
    ScoreSum,
    accuracy,
    chroma,
    colorfulness,
    psnr,
    squared_error,
)
from colordaemon.evaluation.scores import AUC_FARTHEST, AucSum, area_of


def flat(a: float, b: float, pictures: int = 1) -> Tensor:
    return torch.tensor([float(a), float(b)]).view(1, 2, 1, 1).expand(pictures, 2, 4, 6).clone()


def test_squared_error_is_the_mean_over_both_channels() -> None:
    assert squared_error(flat(3, 4), flat(0, 0)).tolist() == [12.5]


def test_a_pixel_counts_as_right_when_it_is_nearer_than_the_distance() -> None:
    just_right, just_wrong = flat(0, ACCURACY_DISTANCE - 0.01), flat(0, ACCURACY_DISTANCE)
    assert accuracy(just_right, flat(0, 0)).tolist() == [1.0]
    assert accuracy(just_wrong, flat(0, 0)).tolist() == [0.0]


def test_accuracy_is_a_share_of_pixels() -> None:
    ab = flat(0, 0)
    ab[..., :3] = 50
    assert accuracy(ab, flat(0, 0)).tolist() == [0.5]


def test_chroma_is_the_distance_from_gray() -> None:
    assert chroma(flat(-3, 4)).tolist() == [5.0]


def test_truth_itself_scores_perfectly() -> None:
    truth = torch.randn(3, 2, 8, 8) * 30
    sums = ScoreSum()
    sums.add(truth, truth)
    scores = sums.scores()
    assert (scores.mse, scores.accuracy) == (0, 1)
    assert scores.chroma == scores.true_chroma


def test_gray_scores_what_the_gray_figures_say() -> None:
    truth = torch.randn(3, 2, 8, 8) * 30
    sums = ScoreSum()
    sums.add(torch.zeros_like(truth), truth)
    scores = sums.scores()
    assert (scores.mse, scores.accuracy) == (scores.gray_mse, scores.gray_accuracy)
    assert scores.chroma == 0


def test_batch_size_changes_no_score() -> None:
    ab, truth = torch.randn(7, 2, 8, 8) * 30, torch.randn(7, 2, 8, 8) * 30
    whole, pieces = ScoreSum(), ScoreSum()
    whole.add(ab, truth)
    for first in range(0, 7, 3):
        pieces.add(ab[first : first + 3], truth[first : first + 3])
    assert vars(pieces.scores()) == pytest.approx(vars(whole.scores()))
    assert pieces.scores().pictures == 7


def test_a_sum_goes_on_where_its_state_was_taken() -> None:
    ab, truth = torch.randn(4, 2, 8, 8) * 30, torch.randn(4, 2, 8, 8) * 30
    whole, first, second = ScoreSum(), ScoreSum(), ScoreSum()
    first.add(ab[:2], truth[:2])
    second.resume(first.state())
    for sums, rest in ((whole, slice(0, 2)), (whole, slice(2, 4)), (second, slice(2, 4))):
        sums.add(ab[rest], truth[rest])
    assert second.scores() == whole.scores()


def test_no_picture_has_no_score() -> None:
    with pytest.raises(ValueError, match="no picture"):
        ScoreSum().scores()


def test_psnr_is_that_of_eight_bit_codes() -> None:
    truth = torch.full((2, 3, 4, 4), 100 / 255)
    rgb = truth + torch.tensor([1, 10]).view(2, 1, 1, 1) / 255
    torch.testing.assert_close(psnr(rgb, truth), torch.tensor([48.1308, 28.1308]))


def test_psnr_of_the_truth_is_that_of_rounding_and_not_infinite() -> None:
    truth = torch.rand(1, 3, 4, 4)
    assert psnr(truth, truth).item() == pytest.approx(58.9226)


def test_colorfulness_of_gray_is_nothing() -> None:
    assert colorfulness(torch.rand(2, 1, 8, 8).expand(2, 3, 8, 8)).tolist() == [0, 0]


def test_colorfulness_of_one_color_is_its_distance_from_gray() -> None:
    # Red alone: rg = 255 and yb = 127.5 everywhere, nothing varies.
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert colorfulness(red).item() == pytest.approx(0.3 * math.hypot(255, 127.5))


def test_colorfulness_keeps_the_signs_of_opponent_colors() -> None:
    # Half red, half green: rg = ±255 varies around 0, yb = 127.5 everywhere.
    picture = torch.zeros(1, 3, 2, 4)
    picture[:, 0, :, :2] = 1
    picture[:, 1, :, 2:] = 1
    assert colorfulness(picture).item() == pytest.approx(255 + 0.3 * 127.5)


# The area under the curve of ab errors


def sweep(errors: Tensor) -> float:
    """The definition, in its own words: 151 thresholds and the trapezoid rule."""
    shares = torch.stack([(errors <= t).double().mean() for t in range(AUC_FARTHEST + 1)])
    return float(torch.trapezoid(shares) / AUC_FARTHEST)


def test_the_area_is_that_of_the_sweep() -> None:
    errors = torch.cat((torch.rand(5000) * 250, torch.arange(0, 200, 0.5)))
    assert area_of(errors).double().mean().item() == pytest.approx(sweep(errors), rel=1e-6)


def test_area_runs_from_nothing_to_all() -> None:
    assert area_of(torch.tensor([0.0, 0.5, 1, 149.5, 150, 150.5, 999])).tolist() == pytest.approx(
        [1, 149.5 / 150, 149.5 / 150, 0.5 / 150, 0.5 / 150, 0, 0]
    )


def areas(ab: Tensor, truth: Tensor) -> tuple[float, float]:
    sums = AucSum()
    sums.add(ab, truth)
    return sums.raw(), sums.rebalanced()


def test_truth_itself_has_the_whole_area() -> None:
    truth = torch.randn(2, 2, 8, 8) * 30
    assert areas(truth, truth) == pytest.approx((100, 100))


def test_rebalanced_is_raw_when_every_color_is_equally_frequent() -> None:
    truth = torch.tensor([[0, 0], [40, -20], [-60, 30], [10, 100]]).float()
    truth = truth.repeat_interleave(16, dim=0).T.reshape(1, 2, 8, 8) + torch.rand(1, 2, 8, 8) * 4
    raw, rebalanced = areas(torch.randn(1, 2, 8, 8) * 40, truth)
    assert rebalanced == pytest.approx(raw)


def test_a_rare_color_counts_as_much_as_a_frequent_one() -> None:
    truth = flat(0, 0)
    truth[..., 0, 0] = 100  # one pixel of 24 is a strong purple, the others are gray
    raw, rebalanced = areas(torch.zeros_like(truth), truth)
    missed = 100 * area_of(torch.tensor(math.hypot(100, 100))).item()
    assert raw == pytest.approx((23 * 100 + missed) / 24)
    assert rebalanced == pytest.approx((100 + missed) / 2)


def test_every_picture_weighs_the_same_whatever_its_size() -> None:
    sums = AucSum()
    sums.add(flat(0, 0), flat(0, 0))
    sums.add(torch.zeros(1, 2, 50, 50), torch.full((1, 2, 50, 50), 200.0))
    assert sums.raw() == pytest.approx(50)


def test_merged_sums_are_the_sum_of_all_pictures() -> None:
    ab, truth = torch.randn(4, 2, 8, 8) * 30, torch.randn(4, 2, 8, 8) * 30
    first, second = AucSum(), AucSum()
    first.add(ab[:1], truth[:1])
    second.add(ab[1:], truth[1:])
    first.merge(second)
    assert (first.raw(), first.rebalanced()) == pytest.approx(areas(ab, truth))
