"""Small pictures before and after: made of every kind of file, kept within bounds, never in the
way."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from conftest import Start
from films import color, make_film
from photos import HEIGHT, WIDTH, as_rgb, partial_of, ramp, save
from photos import color as color_photo
from test_daemon import drop

from colordaemon.convert.samples import SIDE, samples
from colordaemon.media.drawing import jpeg_of
from colordaemon.service.thumbnails import SIDES, Thumbnails


def chroma(picture: np.ndarray) -> int:
    """The greatest difference between two of its channels."""
    return int(np.ptp(picture.astype(int), axis=2).max())


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "heic", "bmp"])
def test_a_photo_of_any_kind_has_a_picture_before_and_after(tmp_path: Path, suffix: str) -> None:
    if suffix == "heic":
        source = tmp_path / "photo.heic"
        pillow_heif.from_bytes("RGB", (WIDTH, HEIGHT), as_rgb(ramp()).tobytes()).save(source)
    else:
        source = save(tmp_path / f"photo.{suffix}", ramp())
    color_photo(source)
    ((before, after),) = samples(source, partial_of(source), 4)
    assert before.shape == after.shape == (*ramp().shape, 3) and before.dtype == np.uint8
    assert chroma(before) <= 2 < chroma(after)
    assert abs(before.mean() - ramp().mean()) < 3


def test_large_photos_are_made_small_upright_and_without_transparency(tmp_path: Path) -> None:
    tall = np.zeros((2000, 1000, 4), np.uint16)
    path = tmp_path / "tall.png"
    cv2.imwrite(str(path), tall)
    ((before, _),) = samples(path, path, 1)
    assert before.shape == (SIDE, SIDE // 2, 3) and before.min() > 100  # the ground shows through
    for suffix in ("jpg", "tif"):
        turned = save(tmp_path / f"turned.{suffix}", ramp(), orientation=6)
        ((before, _),) = samples(turned, turned, 1)
        assert before.shape == (*ramp().shape[::-1], 3)


def test_a_film_has_the_same_frames_before_and_after(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 12)
    result = color(source)
    pairs = [*samples(source, result, 3)]
    assert len(pairs) == 3
    for before, after in pairs:
        assert before.shape == after.shape
        assert np.abs(before.astype(int).mean(axis=2) - after.mean(axis=2)).mean() < 12
        assert chroma(before) <= 4 < chroma(after)
    assert any((pairs[0][0] != before).any() for before, _ in pairs[1:])


def test_a_jpeg_holds_the_colors_in_their_order() -> None:
    orange = np.full((16, 16, 3), (250, 120, 10), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(jpeg_of(orange), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and np.abs(decoded[8, 8][::-1].astype(int) - orange[8, 8]).max() < 8


# The store


def written(store: Thumbnails, *tags: str, size: int = 100) -> None:
    for number, tag in enumerate(tags):
        store.write(tag, [(bytes(size), bytes(size))] * 2)
        for which in range(2):
            for side in SIDES:
                os.utime(store.path(tag, which, side), (number, number))


def test_those_of_the_latest_files_are_kept(tmp_path: Path) -> None:
    store = Thumbnails(tmp_path / "pictures")
    store.prune(1, 1)  # before there are any
    written(store, "a", "b", "c", "d")
    assert (tmp_path / "pictures").stat().st_mode & 0o777 == 0o700
    store.prune(3, 1 << 20)
    assert [store.of(tag) for tag in "abcd"] == [[], [0, 1], [0, 1], [0, 1]]
    store.prune(3, 850)  # a file has four of 100 bytes
    assert [len(store.of(tag)) for tag in "abcd"] == [0, 0, 2, 2]
    assert sum(path.stat().st_size for path in (tmp_path / "pictures").iterdir()) <= 850


def test_new_pictures_of_a_file_replace_all_old_ones(tmp_path: Path) -> None:
    store = Thumbnails(tmp_path)
    written(store, "a")
    store.write("a", [(b"new", b"newer")])
    assert store.of("a") == [0] and store.path("a", 0, "after").read_bytes() == b"newer"
    store.path("a", 0, "before").unlink()
    assert store.of("a") == []


# In the daemon


def test_the_daemon_keeps_them_for_the_page_or_goes_on_without(start: Start) -> None:
    daemon = start("web: {thumbnails: 1}")
    store = daemon.root / "state" / "thumbnails"
    daemon.start()
    daemon.wait_ready()
    drop(daemon, "one.png")
    daemon.wait_for_ends(1)
    assert len([*store.iterdir()]) == 2
    for path in store.iterdir():
        path.unlink()
    store.rmdir()
    store.write_text("in the way")
    drop(daemon, "two.png")
    daemon.wait_for_ends(2)
    assert [job.state for job in daemon.jobs()] == ["done", "done"]
    assert "no small pictures of it are kept" in daemon.said()
    assert daemon.stop() == 0
