"""Reels that mix black-and-white and color: shots in color keep it, the others get theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from films import ARCHIVE, Painter, color_and_report, decode, luma_of, make_film, picture_of, planes

from colordaemon.errors import AlreadyColor
from colordaemon.film.analysis import JUDGED, AnalyzedFrame, shots_in_color

SIZE = (96, 96)


def in_gray(number: int, shot: int) -> VideoFrame:
    return picture_of(luma_of(number, SIZE, shot=shot))


def in_color(number: int, shot: int) -> VideoFrame:
    """Two ramps of chroma that do not follow luma."""
    picture = picture_of(luma_of(number, SIZE, shot=shot), "yuv420p")
    for plane, turn in zip(picture.planes[1:], (0, 1), strict=True):
        ramp = np.rot90(np.linspace(60, 200, 48)[None].repeat(48, 0), turn)
        plane.update(np.ascontiguousarray(ramp.astype(np.uint8)).tobytes())
    return picture


def reel() -> Iterator[VideoFrame]:
    """Twelve gray frames, twelve in color, twelve gray again: each a shot of its own."""
    for shot, make in enumerate((in_gray, in_color, in_gray)):
        for number in range(12):
            yield make(number, shot)


@pytest.mark.parametrize("smoothing", ["off", "motion"])
@pytest.mark.parametrize("stride", [1, "auto"])
def test_shots_in_color_keep_it_and_gray_ones_get_color(
    tmp_path: Path, smoothing: str, stride: int | str
) -> None:
    source = make_film(tmp_path / "film.mkv", reel(), size=SIZE)
    settings = ARCHIVE.model_copy(update={"smoothing": smoothing, "stride": stride})
    done, report = color_and_report(source, settings)
    assert (report.frames, report.kept, report.shots) == (36, 12, 3)
    before, after = decode(source), decode(done)
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        assert np.array_equal(planes(one)[0], planes(other)[0])
        same = all(np.array_equal(planes(one)[n], planes(other)[n]) for n in (1, 2))
        assert same == (12 <= number < 24)


def test_force_replaces_all_color(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", reel(), size=SIZE)
    done, report = color_and_report(source, ARCHIVE, force=True)
    assert report.kept == 0
    painted = {bytes(frame.planes[1]) for frame in decode(done)[13:23]}
    assert bytes(decode(source)[15].planes[1]) not in painted


def test_a_film_in_color_throughout_is_not_touched(tmp_path: Path) -> None:
    frames = (in_color(number, shot=0) for number in range(12))
    source = make_film(tmp_path / "film.mkv", frames, size=SIZE)
    with pytest.raises(AlreadyColor):
        color_and_report(source, ARCHIVE)


def test_shots_in_color_are_not_shown_to_the_network(tmp_path: Path) -> None:
    shown: list[int] = []

    class Counting(Painter):
        def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            shown.append(len(gray))
            return super().guess(gray)

    source = make_film(tmp_path / "film.mkv", reel(), size=SIZE)
    color_and_report(source, ARCHIVE.model_copy(update={"stride": 1}), colorizer=Counting())
    assert sum(shown) == 24


def frames(verdicts: str) -> list[AnalyzedFrame]:
    """A frame per letter: a capital begins a shot; c is in color, g gray, - not looked at."""
    blank = np.zeros((2, 2), np.uint8)
    in_color = {"c": True, "g": False, "-": None}
    return [
        AnalyzedFrame(number, letter.isupper(), blank, None, None, in_color[letter.lower()])
        for number, letter in enumerate(verdicts)
    ]


def test_one_verdict_holds_for_a_whole_shot() -> None:
    told = list(shots_in_color(frames("C---c---c---" + "G---g---g--" + "C---g---c-----" + "Cc")))
    assert [seen.pts for seen in told] == list(range(len(told)))
    verdicts = [seen.in_color for seen in told]
    assert verdicts == [True] * 12 + [False] * 11 + [False] * 14 + [True] * 2


def test_verdicts_wait_no_longer_than_they_must() -> None:
    seen = iter(frames("G---g---g" + "-" * 50))
    taken = 0

    def counted() -> Iterator[AnalyzedFrame]:
        nonlocal taken
        for one in seen:
            taken += 1
            yield replace(one)

    next(shots_in_color(counted()))
    assert taken == max(JUDGED) + 1
