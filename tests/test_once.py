"""`colordaemon once`, as its users run it: a process, its exit code, and what is on disk after."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from command import once, once_untampered, write_film, write_photo
from films import make_film, pictures, sound
from programs import burning

from colordaemon.config import Config
from colordaemon.convert.convert import Colored
from colordaemon.convert.once import Once
from colordaemon.errors import GuideChanged
from colordaemon.work_context import WorkContext


def test_good_files_are_done_and_each_bad_one_gets_a_line(tmp_path: Path, model: Path) -> None:
    photo, film = write_photo(tmp_path / "photo.png"), write_film(tmp_path / "film.mp4")
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("no film")
    out = tmp_path / "out"
    bad = [empty, text, tmp_path / "missing.mp4", tmp_path / "nothing"]
    bad[-1].mkdir()
    result = once_untampered(*bad, photo, film, "-o", out, "--model", model)
    assert result.returncode == 1
    assert sorted(path.name for path in out.iterdir()) == ["film.color.mp4", "photo.color.png"]
    assert "Traceback" not in result.stderr
    for path in bad:
        assert sum("failed" in line and f"{path}:" in line for line in result.stderr.splitlines())


def test_an_unexpected_error_ends_its_file_alone(tmp_path: Path, model: Path) -> None:
    photo, film = write_photo(tmp_path / "photo.png"), write_film(tmp_path / "film.mp4")
    out = tmp_path / "out"
    result = once(film, photo, "-o", out, "--model", model, program=burning.main)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert f"failed: {film}: unexpected RuntimeError('the device is on fire')" in result.stderr
    assert [path.name for path in out.iterdir()] == ["photo.color.png"]


def test_a_bad_model_ends_the_call_at_once(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / f"{number}.png") for number in range(2)]
    result = once(*photos, "--model", tmp_path / "none.safetensors")
    assert result.returncode == 78
    assert result.stderr.count("none.safetensors") == 1


def test_all_done_is_0_and_existing_results_are_left_alone(tmp_path: Path, model: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    assert once(photo, "--model", model).returncode == 0
    target = tmp_path / "photo.color.png"
    target.write_bytes(b"mine")
    again = once(photo, "--model", model)
    assert again.returncode == 3
    assert f"skipped: {photo}: {target} exists already" in again.stderr.replace("\n", "")
    assert target.read_bytes() == b"mine"
    config = tmp_path / "config.yaml"
    config.write_text("output: {overwrite: true}\n")
    assert once(photo, "--model", model, "--config", config, "--no-overwrite").returncode == 3
    assert target.read_bytes() == b"mine"
    assert once(photo, "--model", model, "--overwrite").returncode == 0
    assert target.read_bytes() != b"mine"


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_no_result_replaces_another_source_but_an_older_result_that_was_named_too(
    tmp_path: Path, model: Path, options: list[str]
) -> None:
    sources = [write_photo(tmp_path / name) for name in ("a.png", "b.a.png")]
    texts = [source.read_bytes() for source in sources]
    line = ["--model", model, "--overwrite", "--name", "b.{stem}{suffix}", *options]
    done = once(*sources, *line)
    assert done.returncode == 1
    said = f"a.png: its result would replace {sources[1]}, which is a source too"
    assert said in done.stderr.replace("\n", "")
    assert [source.read_bytes() for source in sources] == texts
    (tmp_path / "b.b.a.png").unlink(missing_ok=True)
    shown = once(sources[0], "--model", model)
    older = tmp_path / "a.color.png"
    assert shown.returncode == 0 and older.exists()
    again = once(sources[0], older, "--model", model, "--overwrite", *options)
    assert "a source too" not in again.stderr


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_two_sources_never_share_a_result(tmp_path: Path, model: Path, options: list[str]) -> None:
    first, second = tmp_path / "a" / "photo.png", tmp_path / "b" / "photo.png"
    for path in (first, second):
        path.parent.mkdir()
        write_photo(path)
    out = tmp_path / "out"
    # A name given twice is no second source.
    result = once(first, first, second, "-o", out, "--model", model, *options)
    assert result.returncode == 1
    failures = [line for line in result.stderr.splitlines() if "failed" in line]
    assert len(failures) == 1
    assert f"{second}: " in failures[0] and f"made from {first}" in failures[0]
    assert [path.name for path in out.iterdir()] == ["photo.color.png"]


def test_what_has_color_is_skipped_unless_forced(tmp_path: Path, model: Path) -> None:
    photo = write_photo(tmp_path / "photo.png", color=True)
    result = once(photo, "--model", model)
    assert (result.returncode, "has color already" in result.stderr) == (3, True)
    assert once(photo, "--model", model, "--force").returncode == 0


def test_usage_and_configuration_mistakes_have_their_codes(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    assert once("--no-such-option", photo).returncode == 2
    config = tmp_path / "config.yaml"
    config.write_text("film:\n  crff: 17\nmodle: {}\n")
    result = once(photo, "--config", config)
    assert result.returncode == 78
    assert "did you mean 'crf'" in result.stderr and "did you mean 'model'" in result.stderr


def test_results_have_the_mode_and_times_of_their_sources(tmp_path: Path, model: Path) -> None:
    photo = write_photo(tmp_path / "photo.png")
    photo.chmod(0o640)
    os.utime(photo, ns=(10**18, 10**18 + 5))
    assert once(photo, "--model", model).returncode == 0
    found = (tmp_path / "photo.color.png").stat()
    assert stat.S_IMODE(found.st_mode) == 0o640 and found.st_mtime_ns == 10**18 + 5


def test_our_own_results_are_neither_colored_again_nor_multiplied(
    tmp_path: Path, model: Path
) -> None:
    sources = [write_photo(tmp_path / "photo.png"), write_film(tmp_path / "film.mp4")]
    assert once(*sources, "--model", model).returncode == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    again = once(*(tmp_path / name for name in names if ".color" in name), "--model", model)
    assert again.returncode == 3 and again.stderr.count("is a result of colordaemon") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_dry_run_lists_a_film_in_color_and_says_that_it_is_skipped(
    tmp_path: Path, model: Path
) -> None:
    images = (colorful_picture() for _ in range(4))
    film = make_film(tmp_path / "film.mp4", images, extras=[sound("libmp3lame")])
    result = once(film, "--dry-run", "--model", model)
    assert result.returncode == 3
    lines = result.stdout.splitlines()
    assert lines[0] == f"{film} -> {tmp_path / 'film.color.mp4'} with --force"
    assert "  kept       audio stream 1 (mp3) eng" in lines  # by its codec, not its decoder
    assert sum("describe the old file" in line for line in lines) == 1
    assert f"skipped: {film}: has real color already" in result.stderr.replace("\n", "")


def colorful_picture() -> VideoFrame:
    rows, columns = np.mgrid[0:48, 0:64]
    color = np.dstack([columns * 4, rows * 5, 255 - columns * 4]).astype(np.uint8)
    return VideoFrame.from_ndarray(color, "rgb24").reformat(format="yuv420p")


def test_what_loses_nothing_is_no_warning(tmp_path: Path, model: Path) -> None:
    images = pictures(4, pix_fmt="yuv420p10le")
    film = make_film(tmp_path / "film.nut", images, codec="ffv1", pix_fmt="yuv420p10le")
    result = once(film, "--model", model)
    assert result.returncode == 0
    said = [line for line in result.stderr.splitlines() if str(film) in line]
    assert f"INFO {film}: encoding 10-bit 64x48 as hevc, because h264 suits it badly" in said
    assert f"INFO {film}: writing Matroska instead of .nut" in said
    assert not any(line.startswith("WARNING") for line in said)


def hinted(path: Path, shape: tuple[int, int] = (48, 64)) -> Path:
    """A red dab on transparent ground."""
    pixels = np.zeros((*shape, 4), np.uint8)
    pixels[10:20, 10:20] = 40, 30, 200, 255
    cv2.imwrite(str(path), pixels)
    return path


def test_pictures_that_guide_colors_are_used_named_and_never_colored(
    tmp_path: Path, model: Path
) -> None:
    photo, film = write_photo(tmp_path / "photo.png"), write_film(tmp_path / "film.mp4")
    hinted(tmp_path / "photo.hints.png")
    references = tmp_path / "references"
    references.mkdir()
    write_photo(references / "coat.png", color=True)
    files = film, photo, tmp_path / "photo.hints.png"
    result = once(*files, "-o", tmp_path / "out", "--model", model)
    said = result.stderr.replace("\n", "")
    assert result.returncode == 0, said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "film.color.mp4", "photo.color.png",
    ]  # fmt: skip
    assert f"photo.hints.png: by its name it guides the colors of {photo}" in said
    assert "colors after coat.png)" in said and "colors after coat.png and photo.hints" in said
    planned = once(film, "-o", tmp_path / "plan", "--model", model, "--dry-run")
    assert "its colors follow coat.png" in planned.stdout


def test_options_name_pictures_with_times(tmp_path: Path, model: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    coat, dab = write_photo(tmp_path / "coat.png", color=True), hinted(tmp_path / "dab.png")
    references = "--reference", f"{coat}@0..0.1", "--reference", coat
    result = once(
        film, *references, "--hints", f"{dab}@0:00.08", "-o", tmp_path / "out", "--model", model
    )
    assert result.returncode == 0, result.stderr
    assert "colors after coat.png, coat.png and dab.png" in result.stderr.replace("\n", "")
    late = once(film, "--hints", f"{dab}@9", "-o", tmp_path / "out", "--model", model)
    assert late.returncode == 1
    assert f"{dab}: found the time 00-00-09.000" in late.stderr.replace("\n", "")
    assert once(film, "--hints", tmp_path / "none.png").returncode == 78
    assert once(film, "--reference", f"{coat}@5..2").returncode == 78


def test_a_file_whose_guide_changes_meanwhile_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[Path] = []

    @contextmanager
    def changing(
        source: Path, *_: object, **__: object
    ) -> Iterator[Callable[[], tuple[Path, Colored]]]:
        tries.append(source)
        if len(tries) < 3:
            raise GuideChanged("film.hints.png: was changed since work began with it")
        yield lambda: (tmp_path / "film.color.mp4", Colored("6 frames", ()))

    monkeypatch.setattr("colordaemon.convert.once.converted", changing)
    film = tmp_path / "film.mp4"
    tally = Once([film], Config()).color(WorkContext())
    assert tries == [film] * 3 and tally.done == [film]
    assert caplog.text.count("begins anew: film.hints.png: was changed") == 2


def test_a_number_of_workers_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    for wrong in ("0", "several"):
        done = once("--workers", wrong, film)
        assert done.returncode == 78 and "jobs.workers" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_once_with_two_workers_gives_the_film_of_one(tmp_path: Path, model: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 300)
    made = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        done = once("--model", model, "--device", "cpu", "--workers", workers, "-o", folder, film)
        assert done.returncode == 0, done.stderr
        made.append((folder / "film.color.mp4").read_bytes())
    assert made[0] == made[1]
