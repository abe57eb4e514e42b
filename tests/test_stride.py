"""Frames that the network does not see: which they are, and the color that is carried to them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from films import ARCHIVE, Painter, color_and_report, decode, make_film, pictures, planes

from colordaemon.film.analysis import AnalyzedFrame
from colordaemon.film.prediction import Predictions
from colordaemon.film.propagation import ColorPropagator
from colordaemon.film.shots import AUTO_STRIDE, LONGEST_STILL, Stride, is_same
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet

SIZE = (32, 48)


def takes(stride: Stride, pictures: list[np.ndarray], cuts: tuple[int, ...] = (0,)) -> list[int]:
    return [n for n, luma in enumerate(pictures) if stride.takes(luma, n in cuts)]


def wander(count: int, step: float) -> list[np.ndarray]:
    """A ramp that moves, and with it every pixel changes by `step` codes a frame."""
    x = np.arange(48, dtype=np.float32) * 4
    return [np.tile(np.abs((x + step * n) % 200 - 100), (32, 1)) for n in range(count)]


def test_a_fixed_stride_is_anchored_to_the_shot() -> None:
    assert takes(Stride(4), wander(12, 5.0), cuts=(0, 6)) == [0, 4, 6, 10]
    assert takes(Stride(1), wander(3, 0.0)) == [0, 1, 2]


def test_auto_takes_more_where_more_moves() -> None:
    still, slow, fast = (takes(Stride("auto"), wander(64, step)) for step in (0.0, 2.0, 40.0))
    assert np.diff(still).tolist() == [LONGEST_STILL] * (len(still) - 1)
    assert np.diff(slow).max() <= AUTO_STRIDE + 1
    assert len(fast) > 2 * len(slow)


def test_a_frame_that_is_shown_again_does_not_count_as_changed() -> None:
    film = wander(48, 2.0)
    telecine = [luma for n, luma in enumerate(film) for _ in range(2 if n % 4 == 3 else 1)]
    twos = [luma + grain for luma in film for grain in (0.0, 0.1)]
    one, other, third = (np.diff(takes(Stride("auto"), each)) for each in (film, telecine, twos))
    assert one.max() < other.min() <= other.max() < LONGEST_STILL
    assert set(third) == {LONGEST_STILL}


def test_it_does_not_matter_where_reading_began() -> None:
    film = wander(40, 3.0)
    whole = takes(Stride("auto"), film, cuts=(0, 20))
    again = takes(Stride("auto"), film[20:], cuts=(0,))
    assert [n - 20 for n in whole if n >= 20] == again


def noise(seed: int) -> np.ndarray:
    """Texture that flow can hold on to."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (8, 12)).astype(np.float32)
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255)


def test_what_differs_in_one_place_is_not_the_same() -> None:
    gray = noise(1) / 255
    grain = np.random.default_rng(2).normal(0, 1.5 / 255, SIZE).astype(np.float32)
    assert is_same(gray, gray) and is_same(gray, gray + grain)
    moved = gray.copy()
    moved[8:14, 8:14] += 6 / 255  # of the whole picture a mean of 0.14 codes
    assert not is_same(gray, moved)
    assert not is_same(gray, gray + 3 / 255)
    assert not is_same(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32))


class Seeing(Colorizer):
    """Remembers how many pictures it was shown."""

    shown = 0

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.shown += len(gray)
        return super().guess(gray)


def seen_frames(kinds: str) -> list[AnalyzedFrame]:
    """A frame for each letter: the same letters show the same. The first begins a shot."""
    luma = np.zeros(SIZE, np.uint8)
    grays = [cv2.resize(noise(ord(kind)), (96, 64)) / 255 for kind in kinds]
    return [AnalyzedFrame(n, n == 0, luma, gray, None) for n, gray in enumerate(grays)]


def test_frames_of_a_batch_that_show_the_same_are_looked_at_once(tiny_model: ColorNet) -> None:
    colorizer = Seeing(tiny_model, torch.device("cpu"), torch.float32, batch_size=4)
    kinds = "aabbaaaaaaac"
    predictions = Predictions(iter(seen_frames(kinds)), colorizer)
    samples = [predictions.take().sample for _ in kinds]
    assert colorizer.shown == 2 + 1 + 2
    colors = {
        kind: colorizer.predict_ab(torch.from_numpy(frame.gray)[None, None])[0].numpy()
        for kind, frame in zip(kinds, seen_frames(kinds), strict=True)
        if frame.gray is not None
    }
    for kind, sample in zip(kinds, samples, strict=True):
        assert sample is not None
        np.testing.assert_allclose(sample.ab, colors[kind], atol=1e-4)


@pytest.mark.parametrize("start", [1, 3, 4, 6])
def test_what_is_looked_at_does_not_depend_on_where_reading_goes_on(
    tiny_model: ColorNet, start: int
) -> None:
    colorizer = Colorizer(tiny_model, torch.device("cpu"), torch.float32, batch_size=4)
    kinds = "aabbbbcaac"
    whole = Predictions(iter(seen_frames(kinds)), colorizer)
    expected = [whole.take().sample for _ in kinds][start:]
    again = Predictions(iter(seen_frames(kinds)), colorizer)
    for _ in range(start):
        assert again.next is not None
        again.skip()
    for one in expected:
        other = again.take().sample
        assert one is not None and other is not None
        assert np.array_equal(one.ab, other.ab) and np.array_equal(one.sure, other.sure)


def test_color_between_two_frames_is_between_theirs() -> None:
    propagator, luma = ColorPropagator(), noise(1).astype(np.uint8)
    for number in range(5):
        propagator.feed(number, luma, sampled=number in (0, 4))
    done = propagator.arrive(np.full((2, *SIZE), 10, np.float32), cut=True)
    done += propagator.arrive(np.full((2, *SIZE), 50, np.float32), cut=False)
    means = [float(ab.mean()) for ab in done]
    assert means[0] == 10 and means[4] == 50
    assert means == sorted(means)
    assert means[2] == pytest.approx(30, abs=1)


def test_a_cut_lends_no_color_to_the_frames_before_it() -> None:
    propagator = ColorPropagator()
    for number in range(3):
        propagator.feed(number, noise(1).astype(np.uint8), sampled=number == 0)
    propagator.feed(3, noise(2).astype(np.uint8), sampled=True)
    done = propagator.arrive(np.full((2, *SIZE), 10, np.float32), cut=True)
    done += propagator.arrive(np.full((2, *SIZE), -50, np.float32), cut=True)
    assert [float(ab.mean()) for ab in done] == pytest.approx([10, 10, 10, -50])


def test_the_last_frames_take_what_follows_if_the_shot_goes_on() -> None:
    luma = noise(1).astype(np.uint8)
    for following, expected in ((None, 10.0), ((2, luma, np.full((2, *SIZE), 50.0)), 30.0)):
        propagator = ColorPropagator()
        propagator.feed(0, luma, sampled=True)
        propagator.feed(1, luma, sampled=False)
        propagator.arrive(np.full((2, *SIZE), 10, np.float32), cut=True)
        (ab,) = propagator.finish(following)
        assert float(ab.mean()) == pytest.approx(expected, abs=1)


class Counting(Painter):
    """Counts what it is shown."""

    shown = 0

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.shown += len(gray)
        return super().guess(gray)


@pytest.mark.parametrize("stride", [2, 4, 5, "auto"])
def test_a_film_with_a_stride_has_all_its_frames_and_colors(
    tmp_path: Path, stride: int | str
) -> None:
    source = make_film(tmp_path / "film.mkv", pictures(40, shot_frames=13), rate=10)
    every = ARCHIVE.model_copy(update={"stride": 1})
    few = ARCHIVE.model_copy(update={"stride": stride, "segment_seconds": 2.0})
    painter = Counting()
    expected, _ = color_and_report(source, every)
    done, report = color_and_report(source, few, colorizer=painter)
    assert report.frames == 40 and report.shots == 4
    assert painter.shown < 40
    for one, other in zip(decode(expected), decode(done), strict=True):
        assert one.pts == other.pts
        for plane, found in zip(planes(one), planes(other), strict=True):
            assert np.abs(plane.astype(int) - found).max() <= 2


def test_a_film_too_large_to_wait_is_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_film(tmp_path / "film.mkv", pictures(30, shot_frames=11), rate=10)
    expected, _ = color_and_report(source, ARCHIVE)
    monkeypatch.setattr("colordaemon.film.pipeline.HELD_BYTES", 0)
    again, report = color_and_report(source, ARCHIVE)
    assert report.frames == 30
    for one, other in zip(decode(expected), decode(again), strict=True):
        assert all(bytes(p) == bytes(q) for p, q in zip(one.planes, other.planes, strict=True))
