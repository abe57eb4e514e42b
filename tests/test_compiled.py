"""Loops that Numba compiles, and doing without them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import torch

from colordaemon.color import Matrix, PixelCode, chroma_planes
from colordaemon.film import area_loop, chroma, compiled, shrinking
from colordaemon.film.chroma import fast_planes
from colordaemon.film.shrinking import shrunk

KINDS = np.uint8, np.uint16


def picture(height: int, width: int, kind: type[np.generic]) -> np.ndarray:
    noise = np.random.default_rng(height).integers(0, 256, (height, width))
    return (noise * (1 if kind is np.uint8 else 257)).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(48, 86), (90, 161), (90, 40), (13, 1), (100, 200)])
def test_small_pictures_are_those_of_opencv(size: tuple[int, int], kind: type[np.generic]) -> None:
    luma = picture(90, 161, kind)
    found, wanted = shrunk(luma, *size), cv2.resize(luma, size[::-1], interpolation=cv2.INTER_AREA)
    assert found.shape == size and found.dtype == kind
    apart = np.abs(found.astype(int) - wanted.astype(int))
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.01  # sums of floats are rounded another way


def test_a_picture_with_gaps_between_its_lines_is_made_small_as_one_without() -> None:
    luma = picture(90, 161, np.uint8)
    assert (shrunk(luma[:, :120], 33, 50) == shrunk(luma[:, :120].copy(), 33, 50)).all()


def forget() -> None:
    for cached in (chroma._loop_for, shrinking._loop_for, compiled._warn):
        cached.cache_clear()


@pytest.fixture
def anew() -> Iterator[None]:
    """Forgets the loops that are compiled, before and after."""
    forget()
    yield
    forget()


def test_a_damaged_cache_of_numba_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[bool] = []

    def compile_loop(*, cached: bool) -> Callable[..., None]:
        asked.append(cached)
        if cached:
            raise EOFError("Ran out of input")
        return print

    monkeypatch.setattr(area_loop, "compile_loop", compile_loop)
    with caplog.at_level(logging.INFO):
        assert compiled.compiled("area_loop", lambda loop: None) is print
    assert asked == [True, False]
    assert "Ran out of input" in caplog.text


def test_without_numba_films_are_made_by_others_and_the_log_says_so_once(
    anew: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("chroma_loop", "area_loop"):
        monkeypatch.delitem(sys.modules, f"colordaemon.film.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)  # fails to import
    luma, ab = picture(18, 50, np.uint8), np.full((2, 3, 4), 20.0, np.float32)
    code = PixelCode(Matrix.BT709)
    plain = chroma_planes(torch.from_numpy(luma)[None, None], torch.from_numpy(ab)[None], code)
    assert (fast_planes(luma, ab, code) == plain[0].numpy()).all()
    small = cv2.resize(luma, (20, 7), interpolation=cv2.INTER_AREA)
    assert (shrunk(luma, 7, 20) == small).all()
    assert caplog.text.count("Numba does not work") == 1


def test_who_waits_for_the_compiler_is_told_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, anew: None
) -> None:
    monkeypatch.setattr(compiled, "_PATIENCE", 0.01)
    with caplog.at_level(logging.INFO, "colordaemon"):
        assert compiled.compiled("area_loop", lambda _: time.sleep(0.5))
    assert "compiling a loop for this processor" in caplog.text
    caplog.clear()
    monkeypatch.setattr(compiled, "_PATIENCE", 60.0)
    assert compiled.compiled("area_loop", lambda _: None)
    assert not caplog.text
