"""Colors in time: noise goes, movement stays, a cut forgets, and pieces equal the whole."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from colordaemon.config import Smoothing
from colordaemon.film.motion import MotionSearch
from colordaemon.film.smoothing import LOOK_AHEAD, TOGETHER, Sample, Smoother

SIZE = (64, 96)  # of gray; ab has half of it
STEP = 2.0  # pixels of gray that the square moves from one picture to the next
RED, GREEN = np.array([50.0, 20.0]), np.array([-40.0, 30.0])


def texture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Smooth bumps with some detail, 0..1."""
    chance = np.random.default_rng(seed)
    coarse = chance.uniform(0.2, 0.8, (size[0] // 6, size[1] // 6)).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)


def sample(gray: np.ndarray, ab: np.ndarray, sure: float = 1.0) -> Sample:
    """gray: (h, w) 0..1. ab: (2, h/2, w/2)."""
    size = gray.shape[1] // 2, gray.shape[0] // 2
    luma = cv2.resize(gray * 255, size, interpolation=cv2.INTER_AREA).round().astype(np.uint8)
    return Sample(luma, ab.astype(np.float32), np.full(luma.shape, sure, np.float32))


def still(count: int, noise: float = 10.0, seed: int = 1) -> list[Sample]:
    """The same picture again and again, its color guessed with much noise."""
    chance = np.random.default_rng(seed)
    gray, ab = texture(seed), np.full((2, SIZE[0] // 2, SIZE[1] // 2), 20.0)
    return [
        sample(gray, (ab + noise * chance.standard_normal((2, 1, 1))).astype(np.float32))
        for _ in range(count)
    ]


def moving(count: int) -> tuple[list[Sample], list[np.ndarray]]:
    """A textured red square crosses a plain green ground; and where it is, at the size of ab."""
    chance = np.random.default_rng(2)
    patch, samples, places = 0.3 + 0.6 * texture(5, (24, 24)), [], []
    for number in range(count):
        gray = np.full(SIZE, 0.2, np.float32)
        left = int(4 + STEP * number)
        gray[20:44, left : left + 24] = patch
        here = np.zeros(SIZE, np.float32)
        here[20:44, left : left + 24] = 1
        here = here.reshape(SIZE[0] // 2, 2, SIZE[1] // 2, 2).mean((1, 3))
        ab = here[None] * RED[:, None, None] + (1 - here[None]) * GREEN[:, None, None]
        ab = ab + 8 * chance.standard_normal((2, 1, 1))
        samples.append(sample(gray, ab.astype(np.float32)))
        places.append(here)
    return samples, places


def smoothed(
    samples: Sequence[Sample], mode: Smoothing = "motion", cuts: Sequence[int] = (0,)
) -> np.ndarray:
    smoother, done = Smoother(mode), []
    for number, one in enumerate(samples):
        done += smoother.feed(one, cut=number in cuts)
    return np.stack(done + smoother.finish())


def test_off_changes_nothing() -> None:
    samples = still(5)
    assert np.array_equal(smoothed(samples, "off"), np.stack([one.ab for one in samples]))


def test_a_still_scene_with_equal_guesses_has_no_variance() -> None:
    done = smoothed(still(50, noise=0.0))
    assert done.var(axis=0).max() < 1e-6
    assert np.allclose(done, 20.0, atol=1e-3)


def test_noise_in_a_still_scene_goes() -> None:
    before = np.stack([sample.ab for sample in still(120)])
    boiling = {
        mode: np.abs(np.diff(smoothed(still(120), mode), axis=0)).mean()
        for mode in ("off", "ema", "motion")
    }
    assert boiling["motion"] < boiling["ema"] < 0.2 * boiling["off"]
    done = smoothed(still(120))
    assert np.abs(done - 20).mean() < 0.35 * np.abs(before - 20).mean()


def test_every_sample_comes_out_once_and_in_order() -> None:
    count = 2 * (TOGETHER + LOOK_AHEAD) + 7
    samples = [sample(texture(1), np.full((2, 32, 48), n, np.float32)) for n in range(count)]
    for mode in ("off", "ema", "motion"):
        done = smoothed(samples, mode, cuts=(0, 3, 4, 90))
        assert len(done) == count
        assert (np.diff(done[:, 0, 16, 24]) > -1e-3).all()


@pytest.mark.parametrize("mode", ["ema", "motion"])
def test_a_cut_forgets_the_past(mode: Smoothing) -> None:
    first = [sample(texture(1), np.full((2, 32, 48), 60, np.float32)) for _ in range(30)]
    second = [sample(texture(2), np.full((2, 32, 48), -60, np.float32)) for _ in range(30)]
    done = smoothed([*first, *second], mode, cuts=(0, 30))
    assert np.allclose(done[:30], 60, atol=1e-3) and np.allclose(done[30:], -60, atol=1e-3)


def test_a_moving_thing_leaves_no_trail_and_keeps_its_color() -> None:
    samples, places = moving(24)
    done = smoothed(samples)
    blurred = smoothed(samples, "ema")
    for number in range(4, 24):
        ground, square = places[number] == 0, places[number] == 1
        was_there = ground & (np.max(places[:number], axis=0) == 1)  # uncovered meanwhile
        wanted = GREEN[:, None]
        trail = np.abs(done[number][:, was_there] - wanted).mean()
        assert trail < 8, f"picture {number}: a trail of {trail:.1f}"
        assert np.abs(done[number][:, square] - RED[:, None]).mean() < 8
    uncovered = (places[-1] == 0) & (np.max(places[-6:-1], axis=0) == 1)
    smear = np.abs(blurred[-1][:, uncovered] - GREEN[:, None]).mean()
    assert smear > 2 * np.abs(done[-1][:, uncovered] - GREEN[:, None]).mean()


def test_what_dissolves_takes_its_color_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chance, one, other, samples = np.random.default_rng(7), texture(1), texture(2), []
    for number in range(60):
        share = np.clip((number - 20) / 24, 0, 1)
        ab = (1 - 2 * share) * 60 + 8 * chance.standard_normal((2, 1, 1))
        samples.append(sample((1 - share) * one + share * other, np.broadcast_to(ab, (2, 32, 48))))
    left = np.abs(smoothed(samples)[44:] + 60).mean()
    monkeypatch.setattr("colordaemon.film.smoothing.DRIFT", 1e9)  # no frame differs from the last
    assert left < 0.7 * np.abs(smoothed(samples)[44:] + 60).mean()


def test_a_flash_ends_no_memory() -> None:
    samples = still(60)
    bright = sample((texture(1) * 1.3).clip(0, 1), samples[30].ab)
    done = smoothed([*samples[:30], bright, *samples[31:]])
    assert np.abs(done[30] - done[29]).mean() < 2


def test_what_the_network_is_sure_of_counts_for_more() -> None:
    right = [sample(texture(1), np.full((2, 32, 48), 30), sure=1.0) for _ in range(10)]
    wrong = [sample(texture(1), np.full((2, 32, 48), -30), sure=0.0) for _ in range(10)]
    done = smoothed([x for pair in zip(right, wrong, strict=True) for x in pair])
    assert done.mean() > 15


def test_dark_places_that_the_network_is_not_sure_of_lose_their_color() -> None:
    ab = np.full((2, 32, 48), 30, np.float32)
    strengths = {
        (gray, sure): float(smoothed([sample(np.full(SIZE, gray, np.float32), ab, sure)])[0].mean())
        for gray in (0.02, 0.5)
        for sure in (0.1, 1.0)
    }
    assert strengths[0.02, 0.1] < 8
    assert strengths[0.02, 1.0] == pytest.approx(30) == strengths[0.5, 0.1]


def test_streaming_is_all_but_the_whole_shot(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(4)
    count = 4 * TOGETHER
    samples = [
        sample(texture(1), (20 + 10 * chance.standard_normal((2, 32, 48))).astype(np.float32))
        for _ in range(count)
    ]
    streamed = smoothed(samples)
    monkeypatch.setattr("colordaemon.film.smoothing.TOGETHER", count)
    whole = smoothed(samples)
    assert np.quantile(np.linalg.norm(streamed - whole, axis=1), 0.99) < 1.0


def test_memory_is_bounded() -> None:
    smoother = Smoother("motion")
    waiting, fed = 0, deque(still(300))
    known = [weakref.ref(one) for one in fed]
    for number in range(300):
        waiting += 1 - len(smoother.feed(fed.popleft(), cut=number == 0))
        assert waiting < TOGETHER + LOOK_AHEAD
        held = sum(one() is not None for one in known) - len(fed)
        assert held <= TOGETHER + LOOK_AHEAD + 1


@pytest.mark.parametrize("size", [(2, 2), (16, 2), (20, 400)])
def test_tiny_and_long_pictures_are_smoothed(size: tuple[int, int]) -> None:
    gray = np.full(size, 0.5, np.float32)
    ab = np.ones((2, size[0] // 2, size[1] // 2), np.float32)
    done = smoothed([sample(gray, ab)] * 3)
    assert done.shape == (3, *ab.shape) and np.isfinite(done).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_pictures_give_no_nonsense(value: float) -> None:
    gray = np.full(SIZE, value, np.float32)
    done = smoothed([sample(gray, np.full((2, 32, 48), 5, np.float32))] * 4)
    assert np.allclose(done, 5)


def test_motion_is_found_and_trusted_where_it_is_known() -> None:
    wide = (texture(3, (64, 120)) * 255).astype(np.uint8)
    one, other = wide[:, 6:102].copy(), wide[:, 2:98].copy()  # moves 4 px to the right
    there, _ = MotionSearch().between(one, other)
    grid = np.arange(96, dtype=np.float32)[None]
    inner = there.places[8:-8, 16:-16, 0] - grid[:, 16:-16]
    assert np.median(inner) == pytest.approx(4, abs=0.5)
    assert there.trust[8:-8, 16:-16].mean() > 0.8
    unrelated, _ = MotionSearch().between(one, (texture(9, SIZE) * 255).astype(np.uint8))
    assert unrelated.trust.mean() < 0.4


def test_grain_takes_no_trust_but_a_thing_that_came_does() -> None:
    chance = np.random.default_rng(6)
    clean = 40 + 160 * texture(3)
    one, other = (
        (clean + 4 * chance.standard_normal(SIZE)).round().clip(0, 255).astype(np.uint8)
        for _ in range(2)
    )
    other[20:44, 40:64] = 255 - other[20:44, 40:64]
    there, _ = MotionSearch().between(one, other)
    changed = np.zeros(SIZE, bool)
    changed[20:44, 40:64] = True
    around = cv2.dilate(changed.astype(np.uint8), np.ones((17, 17), np.uint8)) == 0
    assert there.trust[around].mean() > 0.9
    strong = changed & (np.abs(2 * clean - 255) > 60)
    assert strong.sum() > 50 and there.trust[strong].mean() < 0.2
