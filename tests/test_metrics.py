"""Scores against numbers that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colordaemon.training.metrics import (
    ACCURACY_DISTANCE,
    ScoreSum,
    accuracy,
    chroma,
    squared_error,
)


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
