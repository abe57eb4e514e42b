"""Scores of films against closed forms, on pictures whose movement and colors are known."""

from __future__ import annotations

import math
import weakref
from collections import deque
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from colordaemon.color import lightness_to_gray
from colordaemon.evaluation.film_scores import (
    DivergenceSum,
    FilmRow,
    FilmRowSum,
    Passage,
    PassageFinder,
    Scene,
    divergence,
    histograms,
    mean_rows,
    passage_along,
)
from colordaemon.evaluation.films import ColorFrame, Colors, FilmEvaluation, FilmTable
from colordaemon.evaluation.metrics import delta_e_2000
from colordaemon.film.smoothing import LOOK_AHEAD, TOGETHER, Sample

SIZE = (32, 48)  # of ab; gray has twice that


def texture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth bumps with some detail, 0..1."""
    coarse = np.random.default_rng(seed).uniform(0.1, 0.9, (size[0] // 6, size[1] // 6))
    smooth = cv2.resize(coarse.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth).clip(0, 1)


def colors(seed: int, size: tuple[int, int]) -> np.ndarray:
    """(2, h, w) ab of up to ±40."""
    return np.stack([80 * texture(seed + n, size) - 40 for n in (0, 1)]).astype(np.float32)


def flat(a: float, b: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.stack([np.full(size, value, np.float32) for value in (a, b)])


def truth(ab: np.ndarray, lightness: float = 50.0) -> torch.Tensor:
    light = torch.full((1, *ab.shape[1:]), lightness)
    return torch.cat((light, torch.from_numpy(ab)))


def row_of(row: FilmRowSum) -> FilmRow:
    return row.row(1.0, 1.0, None)


# Where pixels were


def pan(count: int, step: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Gray and ab of a camera that moves `step` pixels of ab with every frame."""
    height, width = 64, 96
    wide = texture(3, (2 * height, 2 * (width + step * count)))
    wide_ab = colors(7, (height, width + step * count))
    grays = [wide[:, 2 * step * n : 2 * (step * n + width)].copy() for n in range(count)]
    return grays, [wide_ab[:, :, step * n : step * n + width].copy() for n in range(count)]


def warp_error(grays: list[np.ndarray], abs_: list[np.ndarray]) -> float:
    finder, row = PassageFinder(), FilmRowSum("")
    for number, (gray, ab) in enumerate(zip(grays, abs_, strict=True)):
        row.add(ab, Scene(truth(ab), finder.next(gray, cut=number == 0), cut=number == 0))
    assert row.warp.value is not None
    return row.warp.value


def test_a_still_clip_without_noise_has_no_warp_error() -> None:
    gray, ab = texture(1, (64, 96)), colors(2, SIZE)
    assert warp_error([gray] * 4, [ab] * 4) == pytest.approx(0, abs=1e-4)


def test_colors_that_move_along_have_almost_no_warp_error() -> None:
    grays, abs_ = pan(5, 2)
    in_place = np.mean([np.linalg.norm(b - a, axis=0).mean() for a, b in pairwise(abs_)])
    assert warp_error(grays, abs_) < 0.1 * in_place


def test_colors_that_stay_behind_have_much() -> None:
    grays, abs_ = pan(5, 2)
    assert warp_error(grays, abs_[:1] * 5) > 5 * warp_error(grays, abs_)


def test_warp_error_is_the_distance_between_colors() -> None:
    gray = texture(1, (64, 96))
    assert warp_error([gray] * 3, [flat(0, 0), flat(3, 4), flat(0, 0)]) == pytest.approx(5)


def test_a_cut_is_no_warp_error() -> None:
    row, still = FilmRowSum(""), PassageFinder()
    for number, ab in enumerate([flat(50, 0)] * 3 + [flat(-50, 0)] * 3):
        cut = number in (0, 3)
        row.add(ab, Scene(truth(ab), still.next(texture(1 + number // 3, (64, 96)), cut), cut))
    assert row_of(row).warp_error == pytest.approx(0, abs=1e-4)


SQUARE = slice(20, 44)  # rows, of gray
STEP = 8  # pixels of gray that the square moves; 4 of ab


def square_at(left: int) -> np.ndarray:
    gray = texture(1, (64, 96)).copy()
    gray[SQUARE, left : left + 24] = texture(5, (24, 24))
    return gray


def uncovered_by_it() -> np.ndarray:
    """At the size of ab, what the square leaves as it moves on from 24."""
    strip = np.zeros(SIZE, bool)
    strip[10:22, 12 : 12 + STEP // 2] = True
    return strip


def test_what_a_square_uncovers_follows_exactly_from_exact_flow() -> None:
    back, forth = (np.zeros((64, 96, 2), np.float32) for _ in range(2))
    back[SQUARE, 24 + STEP : 48 + STEP, 0] = -STEP
    forth[SQUARE, 24:48, 0] = STEP
    passage = passage_along(back, forth)
    assert np.array_equal(passage.uncovered, uncovered_by_it())
    assert np.array_equal(passage.visible, ~uncovered_by_it())


def test_what_a_square_uncovers_is_found() -> None:
    finder = PassageFinder()
    finder.next(square_at(24), cut=True)
    passage = finder.next(square_at(24 + STEP), cut=False)
    assert passage is not None
    expected = uncovered_by_it()
    assert passage.uncovered[expected].mean() > 0.7
    assert passage.visible[expected].mean() < 0.1
    # Flow is not exact at outlines, so some pixels around the square are taken for uncovered too.
    away = cv2.dilate(expected.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    away[10:22, 16:30] = False
    assert passage.uncovered[away].mean() < 0.03


def test_what_comes_in_at_the_edge_was_not_visible() -> None:
    flow = np.zeros((64, 96, 2), np.float32)
    flow[..., 0] = 6  # the camera goes right: pixels were 6 further to the right
    passage = passage_along(flow, -flow)
    assert passage.uncovered[:, -2:].all() and not passage.uncovered[:, :-4].any()


def test_pictures_too_small_for_motion_are_taken_as_still() -> None:
    finder = PassageFinder()
    assert finder.next(np.zeros((8, 40), np.float32), cut=True) is None
    passage = finder.next(np.zeros((8, 40), np.float32), cut=False)
    assert passage is not None and passage.visible.all() and not passage.uncovered.any()


def test_ghosting_looks_at_uncovered_pixels_alone() -> None:
    strip = uncovered_by_it()
    still = passage_along(*np.zeros((2, 64, 96, 2), np.float32))
    row, right = FilmRowSum(""), flat(10, 10)
    row.add(right, Scene(truth(right), None, cut=True))
    wrong = right + np.where(strip, 6, 20)[None] * np.array([0.6, 0.8])[:, None, None]
    scene = Scene(truth(right), Passage(still.places, ~strip, strip), cut=False)
    row.add(wrong.astype(np.float32), scene)
    assert row_of(row).ghosting == pytest.approx(6, abs=1e-4)
    assert row_of(row).warp_error == pytest.approx(20, abs=1e-4)


def test_without_uncovered_pixels_there_is_no_ghosting_score() -> None:
    row = FilmRowSum("")
    row.add(flat(1, 1), Scene(truth(flat(1, 1)), None, cut=True))
    assert row_of(row).ghosting is None
    assert row_of(row).warp_error is None and row_of(row).cdc is None


# Color distribution consistency


def solid(red: int, green: int = 0, blue: int = 0) -> np.ndarray:
    return np.broadcast_to(np.array([red, green, blue], np.uint8)[:, None, None], (3, 4, 6))


def cdc(frames: list[np.ndarray], cuts: tuple[int, ...] = (0,)) -> float | None:
    total = DivergenceSum()
    for number, frame in enumerate(frames):
        total.add(frame, number in cuts)
    return total.value()


def test_equal_frames_do_not_diverge() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (3, 8, 8)).astype(np.uint8)
    assert cdc([frame] * 6) == 0


def test_divergence_of_half_the_pixels_is_as_worked_out_by_hand() -> None:
    one, other = np.zeros((3, 4, 6), np.uint8), np.zeros((3, 4, 6), np.uint8)
    other[0, :2] = 1  # half of the red codes; middle: three quarters 0, one quarter 1
    expected = 0.5 * math.log(1 / 0.75) + 0.5 * (
        0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    )
    found = divergence(histograms(one), histograms(other))
    assert found == pytest.approx([expected, 0, 0])
    assert divergence(histograms(other), histograms(one)) == pytest.approx(found)


def test_steps_and_channels_weigh_the_same() -> None:
    # Red jumps before the last of five frames: 1 of 4 pairs at a step of 1, 1 of 3 at 2, 1 of 1
    # at 4, each by ln 2; green and blue stay.
    expected = math.log(2) * (1 / 4 + 1 / 3 + 1) / 3 / 3
    assert cdc([solid(10)] * 4 + [solid(200)]) == pytest.approx(expected)


def test_pairs_across_a_cut_do_not_count() -> None:
    frames = [solid(10)] * 5 + [solid(200)] * 5
    assert cdc(frames, (0, 5)) == 0
    assert cdc(frames) == pytest.approx(math.log(2) * (1 / 9 + 2 / 8 + 4 / 6) / 3 / 3)


def test_one_frame_has_no_divergence() -> None:
    assert cdc([solid(1)]) is None
    assert cdc([solid(1), solid(1)]) == 0


# Errors after a cut, chroma of shots


def after_cut(errors: list[float], cuts: tuple[int, ...]) -> float | None:
    """errors: how far each frame's a is from the truth, which is gray."""
    row = FilmRowSum("")
    for number, error in enumerate(errors):
        cut = number in cuts
        row.add(flat(error, 0), Scene(truth(flat(0, 0)), None, cut))
    return row_of(row).after_cut


def seen_as(error: float) -> float:
    return delta_e_2000(truth(flat(error, 0)), truth(flat(0, 0))).mean().item()


def test_exactly_six_frames_after_a_cut_are_taken() -> None:
    errors = [0.0] * 10 + [10.0] * 6 + [0.0] * 4
    assert after_cut(errors, (0, 10)) == pytest.approx(seen_as(10))
    errors[9] = errors[16] = 90.0
    assert after_cut(errors, (0, 10)) == pytest.approx(seen_as(10))
    errors[15] = 0.0
    assert after_cut(errors, (0, 10)) == pytest.approx(seen_as(10) * 5 / 6)


def test_the_beginning_of_a_film_is_no_cut() -> None:
    assert after_cut([10.0] * 8, (0,)) is None


def test_cuts_close_to_each_other_and_to_the_end_take_what_there_is() -> None:
    errors = [0.0] * 4 + [10.0] * 2 + [20.0] * 3
    expected = (2 * seen_as(10) + 3 * seen_as(20)) / 5
    assert after_cut(errors, (0, 4, 6)) == pytest.approx(expected)


def chroma(frames: list[np.ndarray], cuts: tuple[int, ...] = (0,)) -> float:
    row = FilmRowSum("")
    for number, ab in enumerate(frames):
        row.add(ab, Scene(truth(ab), None, number in cuts))
    return row_of(row).chroma


def test_chroma_is_that_of_a_shots_mean_so_noise_has_none() -> None:
    assert chroma([flat(30, 40)] * 3) == pytest.approx(50)
    assert chroma([flat(30, 40), flat(-30, -40)] * 3) == pytest.approx(0)


def test_shots_weigh_by_their_frames_and_do_not_mix() -> None:
    frames = [flat(30, 0)] * 3 + [flat(-10, 0)]
    assert chroma(frames, (0, 3)) == pytest.approx((3 * 30 + 10) / 4)
    assert chroma(frames) == pytest.approx((3 * 30 - 10) / 4)


# All ways side by side


def screened(
    frames: list[ColorFrame], guesses: list[np.ndarray]
) -> tuple[FilmTable, dict[str, FilmRow], list[tuple[int, Colors]]]:
    told: list[tuple[int, Colors]] = []
    screening = FilmEvaluation(lambda frame, ab: told.append((frame.pts, ab)))
    for frame, ab in zip(frames, guesses, strict=True):
        screening.feed(frame, Sample(frame.luma, ab, np.ones(ab.shape[1:], np.float32)))
    table = screening.finish("clip")
    return table, {row.name: row for row in table.rows}, told


def still(count: int, cuts: tuple[int, ...] = (0,)) -> list[ColorFrame]:
    """The same picture again and again; its true color is flat."""
    lightness = torch.from_numpy(100 * texture(1, SIZE))[None]
    luma = (lightness_to_gray(lightness)[0].numpy() * 255).round().astype(np.uint8)
    gray = np.kron(luma, np.ones((2, 2), np.uint8)).astype(np.float32) / 255
    lab = torch.cat((lightness, torch.from_numpy(flat(20, 20))))
    return [ColorFrame(10 * n, gray, luma, lab, n in cuts) for n in range(count)]


def test_a_still_scene_with_noise_gets_better_with_motion() -> None:
    chance = np.random.default_rng(1)
    noisy = [flat(20, 20) + 10 * chance.standard_normal((2, 1, 1)) for _ in range(30)]
    _, rows, _ = screened(still(30), [ab.astype(np.float32) for ab in noisy])
    off, motion, true = rows["off"], rows["motion"], rows["truth"]
    assert off.warp_error and motion.warp_error and off.cdc and motion.cdc is not None
    assert motion.warp_error < 0.2 * off.warp_error
    assert motion.cdc < 0.2 * off.cdc
    assert motion.delta_e < 0.6 * off.delta_e
    assert motion.chroma_of_off == pytest.approx(1, abs=0.05)
    assert off.chroma_of_off == 1
    assert (true.warp_error, true.cdc, true.delta_e) == pytest.approx((0, 0, 0), abs=1e-4)
    assert true.chroma_of_truth == 1 and rows["left gray"].chroma_of_truth == 0


def test_only_what_is_smoothed_has_a_time() -> None:
    _, rows, _ = screened(still(3), [flat(20, 20)] * 3)
    timed = {name for name, row in rows.items() if row.smoothing_ms is not None}
    assert timed == {"off", "ema", "motion"}


def test_every_frame_is_scored_once_and_in_order_however_long_smoothing_waits() -> None:
    cuts = (0, 3, 100)
    guesses = [flat(n / 10, 0) for n in range(200)]
    table, _, told = screened(still(200, cuts), guesses)
    assert (table.frames, table.cuts, table.size) == (200, (0, 30, 1000), SIZE)
    assert [pts for pts, _ in told] == list(range(0, 2000, 10))
    assert all(np.array_equal(ab["off"], g) for (_, ab), g in zip(told, guesses, strict=True))


def test_no_more_frames_wait_than_smoothing_looks_ahead() -> None:
    screening, fed = FilmEvaluation(), deque(still(200))
    known = [weakref.ref(frame) for frame in fed]
    while fed:
        frame = fed.popleft()
        screening.feed(frame, Sample(frame.luma, flat(1, 1), np.ones(SIZE, np.float32)))
        del frame
        held = sum(frame() is not None for frame in known) - len(fed)
        assert held <= TOGETHER + LOOK_AHEAD


# Several films as one


def test_films_weigh_the_same_in_their_mean() -> None:
    one = FilmRow("motion", 1.0, 0.02, 10.0, 0.9, 0.5, 4.0, 5.0, None, 3.0)
    other = replace(one, warp_error=3.0, delta_e=8.0, after_cut=None, chroma_of_off=1.0)
    (mean,) = mean_rows([(one,), (other,)])
    assert (mean.name, mean.warp_error, mean.delta_e) == ("motion", 2.0, 6.0)
    assert mean.chroma_of_off == pytest.approx(0.95)
    assert (mean.after_cut, mean.ghosting) == (5.0, None)  # of the films that have them


def test_one_film_is_its_own_mean() -> None:
    table, _, _ = screened(still(9, (0, 4)), [flat(n, 5) for n in range(9)])
    assert mean_rows([table.rows]) == table.rows
