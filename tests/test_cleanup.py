"""Whatever ends a call or a file early, nothing half done stays behind."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import once, write_film, write_photo
from conftest import MakeDisk
from processes import Process

from colordaemon.cli import main as colordaemon


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_film_leaves_nothing(tmp_path: Path, model: Path, number: int) -> None:
    film, out = write_film(tmp_path / "film.mp4", frames=4000), tmp_path / "out"
    words, said = ("once", film, "-o", out, "--model", model), tmp_path / "said"
    process = Process(colordaemon, words=words, stderr=said)
    until = time.monotonic() + 60
    while not any(out.glob("*.work/*") if out.exists() else ()) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == 130, said.read_text()
    assert "Traceback" not in said.read_text()
    assert list(out.iterdir()) == []


def failure_of(source: Path, result: subprocess.CompletedProcess[str]) -> str:
    """The line that says why a source failed; there has to be one, without a traceback."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if f"failed: {source}: " in line]
    return line


def test_a_disk_that_fills_up_under_a_film_is_left_clean(
    tmp_path: Path, model: Path, make_disk: MakeDisk
) -> None:
    film = write_film(tmp_path / "film.mkv", frames=100)
    options = ["--model", model, "--codec", "ffv1"]
    assert once(film, *options).returncode == 0
    size = (tmp_path / "film.color.mkv").stat().st_size
    # Too small for the segments; large enough for them, but not for the joined film beside them.
    for share in (0.7, 1.5):
        disk = make_disk(f"size={int(size * share)}")
        result = once(film, "-o", disk, *options)
        assert "No space left on device" in failure_of(film, result)
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"], ids=["when flushed", "at once"])
def test_a_disk_that_fills_up_under_a_photo_is_left_clean(
    tmp_path: Path, model: Path, make_disk: MakeDisk, suffix: str
) -> None:
    photo, disk = write_photo(tmp_path / f"photo{suffix}"), make_disk("size=4k")
    filling = disk / "filling"
    filling.write_bytes(bytes(4096))
    result = once(photo, "-o", disk, "--model", model)
    assert "No space left on device" in failure_of(photo, result)
    assert list(disk.iterdir()) == [filling]


def test_a_film_that_cannot_fit_is_not_begun(
    tmp_path: Path, model: Path, make_disk: MakeDisk
) -> None:
    film, disk = write_film(tmp_path / "film.mp4", frames=100), make_disk("size=4k")
    result = once(film, "-o", disk, "--model", model)
    assert "MiB needed" in failure_of(film, result)
    assert "coloring on" not in result.stderr


def test_a_folder_that_cannot_be_written_fails_its_files(
    tmp_path: Path, model: Path, make_disk: MakeDisk
) -> None:
    photo, film = write_photo(tmp_path / "photo.png"), write_film(tmp_path / "film.mp4")
    (tmp_path / "file").touch()
    for folder in (make_disk("ro"), tmp_path / "file" / "out"):
        result = once(photo, film, "-o", folder, "--model", model)
        for source in (photo, film):
            assert str(folder) in failure_of(source, result)
