"""Frames of a film as pictures, to be edited or looked at."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import typer
from command import write_photo
from films import luma_of, make_film, pictures

from colordaemon.cli.frames import frames
from colordaemon.config import Config, ModelSettings
from colordaemon.convert import models
from colordaemon.convert.convert import refuse_our_own
from colordaemon.convert.frames import write_frames, write_preview
from colordaemon.convert.models import Models
from colordaemon.convert.once import Once
from colordaemon.errors import MediaError, OwnResult, TargetExists
from colordaemon.guide.sidecars import find_guide
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet

SIZE = (96, 64)


@pytest.fixture(autouse=True)
def _small_network(tiny_model: ColorNet, monkeypatch: pytest.MonkeyPatch) -> None:
    colorizer = Colorizer(tiny_model, torch.device("cpu"), torch.float32, quality="best")
    monkeypatch.setattr(models, "open_colorizer", lambda *_: colorizer)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three shots of 10 frames, 25 a second."""
    return make_film(tmp_path / "film.mkv", pictures(30, SIZE, shot_frames=10), size=SIZE)


def write(film: Path, *times: float, overwrite: bool = False) -> list[str]:
    """Write frames to the folder `out`; returns the names of the files in order."""
    config, found = Config(), list[str]()
    write_frames(
        film,
        film.with_name("out"),
        config,
        Models(config).model_for(film),
        times=times or None,
        overwrite=overwrite,
        on_file=lambda path: found.append(path.name),
    )
    return found


def read(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


def test_the_middle_frame_of_every_shot_gets_the_range_of_the_shot(film: Path) -> None:
    assert write(film) == [
        "film.gray@00-00-00.160.png",
        "film.reference@00-00-00.000..00-00-00.400.png",
        "film.hints@00-00-00.160.png",
        "film.gray@00-00-00.560.png",
        "film.reference@00-00-00.400..00-00-00.800.png",
        "film.hints@00-00-00.560.png",
        "film.gray@00-00-00.960.png",
        "film.reference@00-00-00.800..00-00-01.200.png",
        "film.hints@00-00-00.960.png",
    ]


def test_frames_at_times_are_those_that_are_shown_then(film: Path) -> None:
    names = write(film, 0.45, 0.05)
    assert names == [
        "film.gray@00-00-00.040.png",
        "film.reference.1.png",
        "film.hints@00-00-00.040.png",
        "film.gray@00-00-00.440.png",
        "film.reference.2.png",
        "film.hints@00-00-00.440.png",
    ]
    codes = (luma_of(11, SIZE, 8, 1).astype(float) - 16) / 219 * 255
    found = read(film.with_name("out") / "film.gray@00-00-00.440.png")
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0] - codes.clip(0, 255)).mean() < 3  # it went through an encoder


def test_all_of_them_are_found_as_guides_beside_the_film(film: Path) -> None:
    for name in write(film):
        (film.with_name("out") / name).rename(film.with_name(name))
    guide = find_guide(film)
    assert [(each.start, each.end) for each in guide.references] == [
        (0, 0.4),
        (0.4, 0.8),
        (0.8, 1.2),
    ]
    assert [each.start for each in guide.hints] == [0.16, 0.56, 0.96]


def test_what_is_colored_keeps_its_lightness_and_hints_are_transparent(film: Path) -> None:
    write(film, 0.0)
    out = film.with_name("out")
    gray, colored = read(out / "film.gray@00-00-00.000.png"), read(out / "film.reference.1.png")
    assert np.ptp(colored.astype(int), axis=2).max() > 10
    lightness = [cv2.cvtColor(p, cv2.COLOR_BGR2LAB)[..., 0].astype(int) for p in (gray, colored)]
    assert np.abs(lightness[0] - lightness[1]).max() <= 3
    hints = read(out / "film.hints@00-00-00.000.png")
    assert hints.shape == (*gray.shape[:2], 4) and not hints.any()


def test_frames_are_upright_with_square_pixels(tmp_path: Path) -> None:
    film = make_film(tmp_path / "wide.mkv", pictures(2, SIZE), size=SIZE, sample_aspect_ratio=2)
    write(film, 0.0)
    assert read(tmp_path / "out" / "wide.gray@00-00-00.000.png").shape == (64, 192, 3)


def test_an_edited_picture_is_not_replaced_unless_asked(film: Path) -> None:
    write(film, 0.0)
    edited = film.with_name("out") / "film.hints@00-00-00.000.png"
    edited.write_bytes(b"edited")
    with pytest.raises(TargetExists, match="--overwrite"):
        write(film, 0.0)
    edited.unlink()
    write(film, 0.0, overwrite=True)
    assert edited.exists()


def test_a_time_beyond_the_end_and_a_photo_are_refused_by_name(film: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"film\.mkv: found no frame at 00-01-30\.000"):
        write(film, 90.0)
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.full((8, 8), 99, np.uint8))
    with pytest.raises(MediaError, match=r"photo\.png: found a photo, expected a film"):
        write(photo, 0.0)


@pytest.mark.logs_errors
@pytest.mark.parametrize(
    ("name", "at", "told"),
    [
        ("none.mkv", "0", r"none\.mkv: No such file or directory"),
        ("film.mkv", "90", r"film\.mkv: found no frame at 00-01-30\.000, since it has ended"),
        ("film.mkv", "0", r"film\.mkv\.out: File exists"),
        ("film.mkv", "0.36", r"\.gray@00-00-00\.360\.png exists already; --overwrite replaces it"),
    ],
)
def test_the_command_says_in_one_line_what_is_in_its_way(
    film: Path, caplog: pytest.LogCaptureFixture, name: str, at: str, told: str
) -> None:
    write(film, 0.36)
    folder = film.with_name("out")
    if at == "0":
        folder = film.with_name("film.mkv.out")
        folder.touch()
    with pytest.raises((SystemExit, typer.Exit)), caplog.at_level(logging.ERROR):
        frames(film.with_name(name), folder, at=[at])
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert re.search(told, record.message)
    assert not record.exc_info


def test_a_preview_shows_places_all_over_the_film(film: Path) -> None:
    config = Config()
    path = write_preview(film, config, Models(config).model_for(film), 3)
    assert path == film.with_name("film.preview.png")
    sheet = read(path)
    height = (sheet.shape[0] - 28) // 3
    assert sheet.shape[1] == 2 * 480 and height == 320
    for number, frame in enumerate((5, 15, 25)):
        line = sheet[28 + number * height :][:height]
        gray, colored = line[:, :480], line[:, 480:]
        assert (gray == gray[..., :1]).all() and np.ptp(colored.astype(int), axis=2).max() > 10
        codes = (luma_of(frame, SIZE, 8, number).astype(float) - 16) / 219 * 255
        small = cv2.resize(gray[..., 0], SIZE, interpolation=cv2.INTER_AREA)
        inside = np.s_[:40]  # above the time that is written on it
        assert np.abs(small[inside] - codes.clip(0, 255)[inside]).mean() < 6


def test_a_preview_of_a_photo_shows_it_before_and_after_and_leaves_nothing_else(
    tmp_path: Path,
) -> None:
    photo, config = write_photo(tmp_path / "photo.png"), Config()
    path = write_preview(photo, config, Models(config).model_for(photo), 3)
    sheet = read(path)
    before, after = sheet[28:, :480].astype(int), sheet[28:, 480:].astype(int)
    assert np.ptp(before, axis=2).max() <= 2 < 10 < np.ptp(after, axis=2).max()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photo.png", "photo.preview.png"]


def test_sources_that_differ_in_their_suffix_have_a_preview_each(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / name) for name in ("a.png", "a.bmp", "b.png")]
    assert Once(photos, Config()).preview(1).done == photos
    assert sorted(path.name for path in tmp_path.glob("*.preview.*")) == [
        "a.bmp.preview.png", "a.png.preview.png", "b.preview.png"
    ]  # fmt: skip


def test_the_name_of_a_preview_is_shortened_to_what_a_disk_takes(
    tmp_path: Path, model: Path
) -> None:
    config = Config(model=ModelSettings(file=model))
    photo = write_photo(tmp_path / f"{'x' * 251}.png")
    path = write_preview(photo, config, Models(config).model_for(photo), 1)
    assert path.name == f"{'x' * 243}.preview.png" and path.exists()


def test_a_preview_is_never_taken_for_a_photo_to_color(film: Path) -> None:
    config = Config()
    path = write_preview(film, config, Models(config).model_for(film), 1)
    with pytest.raises(OwnResult):
        refuse_our_own(path)
