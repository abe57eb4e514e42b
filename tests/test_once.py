"""`colordaemon once`, as its users run it: a process, its exit code, and what is on disk after."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from colordaemon.config import OutputSettings
from colordaemon.errors import TargetExists
from colordaemon.network.checkpoint import save_model
from colordaemon.network.model import ColorNet
from colordaemon.service.publish import partial_for, publish, target_for

SIZE = (64, 48)


@pytest.fixture
def model(tmp_path: Path, tiny_model: ColorNet) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(path, tiny_model, {})
    return path


def write_photo(path: Path, color: bool = False) -> Path:
    ramp = np.tile(np.linspace(0, 255, SIZE[0], dtype=np.uint8), (SIZE[1], 1))
    # Hues that change down the picture while luma changes across it: no tint does that.
    hues = np.repeat(np.eye(3, dtype=np.uint8) * 120, SIZE[1] // 3, axis=0)[:, None]
    picture = ramp[..., None] // 2 + hues if color else ramp
    cv2.imwrite(str(path), picture)
    return path


def write_film(path: Path, frames: int = 6) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(frames):
            gray = np.full((SIZE[1], SIZE[0]), 40 + number % 100, np.uint8)
            picture = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def once(*arguments: object, program: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. program: Python that calls main(), in place of colordaemon."""
    start = ["-c", program] if program else ["-m", "colordaemon"]
    command = [sys.executable, *start, "once", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)  # noqa: S603


def test_good_files_are_done_and_each_bad_one_gets_a_line(tmp_path: Path, model: Path) -> None:
    photo, film = write_photo(tmp_path / "photo.png"), write_film(tmp_path / "film.mp4")
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("no film")
    out = tmp_path / "out"
    bad = [empty, text, tmp_path / "missing.mp4", tmp_path]
    result = once(*bad, photo, film, "-o", out, "--model", model)
    assert result.returncode == 1
    assert sorted(path.name for path in out.iterdir()) == ["film.color.mp4", "photo.color.png"]
    assert "Traceback" not in result.stderr
    for path in bad:
        assert sum("failed" in line and f"{path}:" in line for line in result.stderr.splitlines())


# The first picture that the network sees sets it on fire; after that it works.
BURNING = """
from colordaemon.cli import main
from colordaemon.network.colorizer import Colorizer

predict_ab = Colorizer.predict_ab

def burn(*_):
    Colorizer.predict_ab = predict_ab
    raise RuntimeError("the device is on fire")

Colorizer.predict_ab = burn
main()
"""


def test_an_unexpected_error_ends_its_file_alone(tmp_path: Path, model: Path) -> None:
    photo, film = write_photo(tmp_path / "photo.png"), write_film(tmp_path / "film.mp4")
    out = tmp_path / "out"
    result = once(film, photo, "-o", out, "--model", model, program=BURNING)
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
    assert once(photo, "--model", model).returncode == 3
    assert target.read_bytes() == b"mine"
    assert once(photo, "--model", model, "--overwrite").returncode == 0
    assert target.read_bytes() != b"mine"


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


def test_an_interrupted_film_leaves_nothing(tmp_path: Path, model: Path) -> None:
    film, out = write_film(tmp_path / "film.mp4", frames=4000), tmp_path / "out"
    command = [sys.executable, "-m", "colordaemon", "once", film, "-o", out, "--model", model]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603
    until = time.monotonic() + 60
    while not any(out.glob("*.work/*") if out.exists() else ()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert list(out.iterdir()) == []


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    partial = partial_for(target)
    partial.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(TargetExists):
        publish(partial, target, overwrite=False)
    assert target.read_bytes() == b"old"
    publish(partial, target, overwrite=True)
    assert target.read_bytes() == b"new"


def test_folders_without_hard_links_are_published_to_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    target = tmp_path / "film.mp4"
    partial = partial_for(target)
    partial.write_bytes(b"new")
    publish(partial, target, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_source_is_never_its_own_target(tmp_path: Path) -> None:
    source = write_photo(tmp_path / "photo.png")
    settings = OutputSettings(name="{stem}{suffix}", overwrite=True)
    with pytest.raises(TargetExists, match="its own source"):
        target_for(source, ".png", settings)
