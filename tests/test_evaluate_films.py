"""Films evaluated from file to table: what is taken for the truth, what is refused, the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from films import SIZE, Painter, decode, make_film, picture_of, pictures, times
from processes import run
from rich.console import Console

from colordaemon.color import rgb_to_lab
from colordaemon.config import ModelSettings
from colordaemon.errors import ConfigError, DataError, Interrupted, MediaError
from colordaemon.evaluation.command import evaluate_films
from colordaemon.evaluation.film_strip import EvenSample, paint, strip_of
from colordaemon.evaluation.films import (
    COLUMNS,
    GUIDED,
    MODES,
    ColorFrame,
    FilmTable,
    color_frames,
    evaluate_film,
    open_clip,
    show_films,
    true_rgb,
)
from colordaemon.media.decode import FilmReader
from colordaemon.media.probe import probe_film
from colordaemon.media.side_data import Orientation
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet

COUNTERCLOCKWISE = Orientation((0, -65536, 0, 65536, 0, 0, 0, 64 << 16, 1 << 30))
# Any colors will do that are not too near to gray or to the limits of sRGB.
BANDS = np.array([(180, 90, 80), (90, 150, 90), (80, 100, 170)], np.uint8)


def scene(number: int, shot: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 sRGB: three hues below each other, with stripes of light that move on."""
    width, height = SIZE
    rgb = np.repeat(np.roll(BANDS, shot, axis=0), height // 3, axis=0)[:, None]
    light = 0.8 + 0.2 * np.sin((np.arange(width) + number) / 5 + 2 * shot)
    if shot % 2:
        light = light * np.linspace(0.3, 1, height)[:, None]
    return np.asarray(rgb * np.atleast_2d(light)[..., None]).round().astype(np.uint8)


def colored(count: int, shot_frames: int = 1000, pix_fmt: str = "yuv444p") -> Iterator[VideoFrame]:
    for number in range(count):
        picture = VideoFrame.from_ndarray(scene(number, number // shot_frames), "rgb24")
        yield picture.reformat(format=pix_fmt)


def color_film(path: Path, count: int = 6, pix_fmt: str = "yuv444p", **options: Any) -> Path:
    shot_frames = options.pop("shot_frames", 1000)
    return make_film(path, colored(count, shot_frames, pix_fmt), pix_fmt=pix_fmt, **options)


def table_of(path: Path, colorizer: Any = None, **options: Any) -> FilmTable:
    colorizer = colorizer or Painter()
    return evaluate_film(open_clip(path), colorizer, **options)


def frames_of(path: Path, seconds: float | None = None) -> list[ColorFrame]:
    with FilmReader(probe_film(path)) as reader:
        return list(color_frames(reader, Painter(), seconds))  # type: ignore[arg-type]


# What is taken for the truth


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "suffix"),
    [
        ("yuv420p", "libx264", "mp4"),
        ("yuv444p", "libx264", "mp4"),
        ("nv12", "libx264", "mp4"),
        ("yuv444p10le", "ffv1", "mkv"),
        ("bgr0", "ffv1", "mkv"),
    ],
)
def test_the_truth_is_the_color_that_was_filmed(
    tmp_path: Path, pix_fmt: str, codec: str, suffix: str
) -> None:
    color = (180, 90, 80)
    flat = np.broadcast_to(np.array(color, np.uint8), (SIZE[1], SIZE[0], 3)).copy()
    images = [VideoFrame.from_ndarray(flat, "rgb24").reformat(format=pix_fmt) for _ in range(2)]
    path = make_film(tmp_path / f"film.{suffix}", images, codec=codec, pix_fmt=pix_fmt)
    expected = rgb_to_lab(torch.tensor(color).view(3, 1, 1) / 255)
    for frame in frames_of(path):
        assert frame.lab.shape == (3, 16, 21)
        torch.testing.assert_close(frame.lab, expected.expand_as(frame.lab), atol=1.5, rtol=0)


def test_the_truth_lies_where_the_gray_does(tmp_path: Path) -> None:
    frame = frames_of(color_film(tmp_path / "film.mp4"))[0]
    bands = rgb_to_lab(torch.from_numpy(BANDS).T[..., None] / 255)[1:, :, 0]
    for row, band in ((2, 0), (8, 1), (13, 2)):
        # A darker color has less chroma and the same hue.
        found = frame.lab[1:, row].mean(dim=1)
        along = torch.nn.functional.cosine_similarity(found, bands[:, band], dim=0)
        assert along > 0.98
    assert frame.gray.shape == (32, 42) and frame.luma.shape == (16, 21)


def test_the_truth_turns_with_the_picture(tmp_path: Path) -> None:
    info = probe_film(color_film(tmp_path / "film.mp4"))
    with FilmReader(info) as reader:
        frame = next(iter(reader))
        gray = np.full((32, 42), 0.5, np.float32)
        lying = true_rgb(frame, gray, info)
        upright = true_rgb(frame, np.rot90(gray), replace(info, orientation=COUNTERCLOCKWISE))
    torch.testing.assert_close(upright, torch.rot90(lying, 1, (1, 2)), atol=1e-4, rtol=0)


def test_seconds_bound_how_much_is_seen_by_time_not_by_count(tmp_path: Path) -> None:
    path = color_film(tmp_path / "film.mp4", 8, pts=[500, 540, 600, 900, 999, 1000, 1400, 1500])
    start = frames_of(path)[0].pts
    tick = probe_film(path).time_base
    seen = [(frame.pts - start) * tick for frame in frames_of(path, 0.5)]
    assert [float(time) for time in seen] == pytest.approx([0, 0.04, 0.1, 0.4, 0.499])


def test_films_without_color_are_refused_in_words(tmp_path: Path) -> None:
    gray = make_film(tmp_path / "gray.mp4")
    tinted = make_film(tmp_path / "tinted.mp4", pictures(6, chroma=(110, 145)))
    with pytest.raises(MediaError, match=r"gray\.mp4: is black and white, .* nothing to compare"):
        open_clip(gray)
    with pytest.raises(MediaError, match="is tinted in one color"):
        open_clip(tinted)
    with pytest.raises(DataError, match=r"none\.mp4: no such file"):
        open_clip(tmp_path / "none.mp4")


# From file to table


def test_a_film_is_scored_in_every_way_from_one_pass_of_the_network(tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(Painter):
        def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            asked.append(len(gray))
            return super().guess(gray)

    path = color_film(tmp_path / "film.mp4", 10, shot_frames=7)
    table = table_of(path, Counting(batch_size=4))
    assert asked == [4, 4, 2]
    assert [row.name for row in table.rows] == ["left gray", "off", "ema", "motion", "truth"]
    assert (table.frames, len(table.cuts), table.size) == (10, 2, (16, 21))
    gray, off, ema, motion, truth = table.rows
    # The painter never changes its mind, so there is next to nothing to smooth.
    for row, near in ((off, 0), (ema, 1e-3), (motion, 0.2)):
        assert row.delta_e == pytest.approx(off.delta_e, abs=near)
        assert row.chroma_of_off == pytest.approx(1, abs=near)
        assert row.after_cut is not None
    assert truth.delta_e == 0 < gray.delta_e < 30
    assert gray.cdc is not None and truth.cdc is not None


def test_the_batch_size_changes_nothing(tmp_path: Path) -> None:
    path = color_film(tmp_path / "film.mp4", 5)
    one, other = (table_of(path, Painter(batch_size=size)) for size in (1, 16))
    for row, same in zip(one.rows, other.rows, strict=True):
        assert replace(row, smoothing_ms=None) == replace(same, smoothing_ms=None)


def test_a_film_of_one_shot_has_no_score_after_a_cut(tmp_path: Path) -> None:
    path = color_film(tmp_path / "film.mp4", 4)
    table = table_of(path)
    assert all(row.after_cut is None for row in table.rows)
    console = Console(record=True, file=sys.stderr)
    show_films([table], console)
    lines = console.export_text().splitlines()
    assert not [line for line in lines if line.startswith("mean of")]
    assert lines[0].strip() == f"{path}: 4 frames, 1 shot"
    for row in table.rows:
        (line,) = [line for line in lines if line.startswith(row.name)]
        assert len(line[len(row.name) :].split()) == len(COLUMNS) == 8
        assert line[len(row.name) :].split()[5] == "–"


@pytest.mark.parametrize(("reference", "given"), [("first", [0]), ("shot", [0, 4, 8])])
def test_a_film_is_colored_with_references_beside_without(
    tmp_path: Path, tiny_model: ColorNet, reference: str, given: list[int]
) -> None:
    path = color_film(tmp_path / "film.mp4", 9, shot_frames=4)
    colorizer = Colorizer(tiny_model, torch.device("cpu"), torch.float32, batch_size=3)
    seen: list[tuple[ColorFrame, dict[str, np.ndarray]]] = []
    table = table_of(
        path, colorizer, reference=reference, on_frame=lambda *frame: seen.append(frame)
    )
    plain = table_of(path, colorizer)
    rows = {row.name: row for row in table.rows}
    assert [*rows] == ["left gray", *MODES, *GUIDED, "truth"]
    assert [number for number, (frame, _) in enumerate(seen) if frame.given] == given
    assert [*plain.rows[1:4]] != [*table.rows[1:4]]  # frames that are given do not count
    if reference == "shot":
        assert plain.rows[1].after_cut != table.rows[1].after_cut
    # What it is like without references does not change by them.
    assert [rows[name].warp_error for name in MODES] == [r.warp_error for r in plain.rows[1:4]]
    # The miniature hardly tells places apart, so a frame is only a little like itself.
    for number in given:
        colors = seen[number][1]
        truth, off, guided = (colors[name] for name in ("truth", "off", "guided, off"))
        assert np.abs(guided - truth).mean() < np.abs(off - truth).mean()


def test_a_stop_ends_a_screening_and_leaves_no_half_film(tmp_path: Path, model: Path) -> None:
    path, stop = color_film(tmp_path / "film.mp4"), Event()
    stop.set()
    with pytest.raises(Interrupted, match=r"film\.mp4: stopped after 0 frames"):
        evaluate_films([path], settings(model), output=tmp_path / "out", stop=stop)
    assert not list((tmp_path / "out").iterdir())


def settings(model: Path) -> ModelSettings:
    return ModelSettings(file=model, device="cpu")


def test_films_whose_results_would_have_one_name_are_refused(tmp_path: Path) -> None:
    clips = [tmp_path / "a" / "film.mp4", tmp_path / "b" / "film.mkv"]
    with pytest.raises(ConfigError, match=r"film\.mkv: results would be called as those of"):
        evaluate_films(clips, ModelSettings(device="cpu"), output=tmp_path / "out")


# What is drawn


def test_gray_without_ab_is_painted_gray_and_ab_shows() -> None:
    gray = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    left_gray = paint(gray, np.zeros((2, 4, 4), np.float32))
    assert np.ptp(left_gray.astype(int), axis=2).max() <= 1
    assert np.abs(left_gray[..., 1] / 255 - gray).max() < 0.01
    red = paint(np.full((8, 8), 0.5, np.float32), np.full((2, 4, 4), 30, np.float32))
    assert (red[..., 0] > red[..., 1].astype(int) + 50).all()


def test_a_strip_has_the_times_of_its_film_and_four_panels(tmp_path: Path) -> None:
    path = color_film(tmp_path / "film.mp4", 5, pts=[0, 40, 130, 200, 1000])
    with strip_of(tmp_path, open_clip(path)) as strip:
        table_of(path, on_frame=strip.add)
    film = tmp_path / "film.strip.mp4"
    assert times(film) == times(path) == [Fraction(t, 1000) for t in (0, 40, 130, 200, 1000)]
    picture = decode(film)[0].to_ndarray(format="rgb24")
    assert picture.shape == (32, 4 * 42, 3)
    left, *_, right = np.split(picture.astype(int), 4, axis=1)
    assert np.ptp(left, axis=2).mean() < 4 < np.ptp(right, axis=2).mean()
    sheet = cv2.imread(str(tmp_path / "film.png"))
    assert sheet is not None and sheet.shape == (28 + 5 * round(320 * 32 / 42), 4 * 320, 3)


def test_a_strip_shows_references_beside_automatic_colors(tmp_path: Path, model: Path) -> None:
    path = color_film(tmp_path / "film.mp4", 3)
    evaluate_films([path], settings(model), reference="first", output=tmp_path / "out")
    picture = decode(tmp_path / "out" / "film.strip.mp4")[0].to_ndarray(format="rgb24")
    gray, motion, guided, truth = np.split(picture.astype(int), 4, axis=1)
    assert np.ptp(gray, axis=2).mean() < 4
    assert np.abs(guided - truth).mean() < np.abs(motion - truth).mean()


@pytest.mark.parametrize("count", [1, 7, 8, 16, 17, 100, 1000])
def test_a_sample_of_unknown_many_is_spread_evenly(count: int) -> None:
    sample = EvenSample(8)
    for number in range(count):
        sample.add((float(number), []))
    chosen = [seconds for seconds, _ in sample.chosen()]
    assert len(chosen) == min(8, count) and chosen[0] == 0
    steps = np.diff(chosen)
    assert not len(steps) or steps.max() <= 2 * steps.min()
    assert chosen[-1] >= 0.6 * (count - 1)


# The command


def test_the_command_prints_a_table_and_leaves_json_strip_and_sheet(
    tmp_path: Path, model: Path
) -> None:
    clips = [color_film(tmp_path / "one.mp4", 30, shot_frames=8), color_film(tmp_path / "[2].mp4")]
    out = tmp_path / "new" / "out"
    result = run("evaluate", *clips, "--model", model, "--device", "cpu", "--seconds", "0.4",
                 "--json", out / "scores.json", "-o", out)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"{clips[0]}: 10 frames, 2 shots" in result.stdout
    assert f"{clips[1]}: 6 frames, 1 shot" in result.stdout
    assert "mean of 2 films, which weigh the same" in result.stdout
    assert {path.name for path in out.iterdir()} == {
        "scores.json", "one.strip.mp4", "one.png", "[2].strip.mp4", "[2].png"
    }  # fmt: skip
    written = json.loads((out / "scores.json").read_text())
    said = written["model"], written["seconds"], written["reference"]
    assert said == (str(model), 0.4, None)
    first = written["clips"][0]
    assert (first["clip"], first["frames"], len(first["cuts"])) == (str(clips[0]), 10, 2)
    assert first["rows"][1]["name"] == "off" and first["rows"][1]["after_cut"] > 0
    off, other, mean = (
        rows[1] for rows in (*(c["rows"] for c in written["clips"]), written["mean"])
    )
    assert mean["delta_e"] == pytest.approx((off["delta_e"] + other["delta_e"]) / 2)
    assert set(written["versions"]) == {"colordaemon", "python", "torch"}


@pytest.mark.parametrize(
    "case", ["missing", "gray", "text", "mixed", "subset", "seconds", "reference"]
)
def test_errors_are_one_line_and_have_the_codes_of_the_other_commands(
    tmp_path: Path, case: str
) -> None:
    film = make_film(tmp_path / "gray.mp4", [picture_of(np.full((48, 64), 90, np.uint8))] * 2)
    (tmp_path / "text.mp4").write_text("no film")
    arguments, code, message = {
        "missing": ((tmp_path / "none.mp4",), 1, "none.mp4: no such file or folder"),
        "gray": ((film,), 1, "gray.mp4: is black and white"),
        "text": ((tmp_path / "text.mp4",), 1, "expected a film"),
        "mixed": ((Path(), "x"), 2, "expected one folder of pictures"),
        "subset": ((film, "--subset", "face"), 2, "--subset does not go with films"),
        "seconds": ((tmp_path, "--seconds", 1), 2, "--seconds does not go with pictures"),
        "reference": ((tmp_path, "--reference", "shot"), 2, "--reference does not go with pict"),
    }[case]
    result = run("evaluate", *arguments, "--device", "cpu")
    assert result.returncode == code, result.stderr
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert code == 2 or len(result.stderr.splitlines()) == 1
