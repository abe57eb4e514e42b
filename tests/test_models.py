"""Which model colors which file."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from command import once, write_photo

from colordaemon.config import Config, JobSettings, ModelSettings
from colordaemon.convert import models
from colordaemon.convert.models import Models
from colordaemon.convert.routing import fits
from colordaemon.errors import ModelError
from colordaemon.network.checkpoint import save_model
from colordaemon.network.model import ColorNet, Decoding


@pytest.mark.parametrize(
    ("source", "pattern", "expected"),
    [
        ("/in/faces/a.jpg", "faces", True),
        ("/in/faces/1920/a.jpg", "faces/", True),
        ("/in/scans/faces/a.jpg", "scans/faces", True),
        ("/in/scans/other/faces/a.jpg", "scans/faces", False),
        ("/in/surfaces/a.jpg", "faces", False),
        ("faces.jpg", "faces", False),
        ("/in/faces", "faces", False),  # a file of that name
        ("/in/portrait-7.tif", "portrait-*", True),
        ("/in/a.portrait-7.tif", "portrait-*", False),
        ("/in/faces/a.tif", "faces/*.tif", True),
        ("/in/faces/deep/a.tif", "faces/*.tif", False),
        ("a.tif", "faces/*.tif", False),
        ("/in/A.TIF", "*.tif", False),
    ],
)
def test_a_folder_or_a_pattern_fits(source: str, pattern: str, expected: bool) -> None:
    assert fits(PurePosixPath(source), pattern) is expected


@pytest.fixture
def files(tmp_path: Path, tiny_model: ColorNet) -> tuple[Path, Path]:
    """Two model files: one colors, one says (nearly) gray."""
    colorful, gray = tmp_path / "colorful.safetensors", tmp_path / "gray.safetensors"
    save_model(colorful, tiny_model, {})
    tiny_model.decoding = Decoding(chroma_gain=1e-6)
    save_model(gray, tiny_model, {})
    return colorful, gray


def test_the_first_that_fits_is_taken_and_else_the_default(files: tuple[Path, Path]) -> None:
    one, other = files
    models = Models(Config(model=ModelSettings(file=other), models={"faces": one, "a*": other}))
    names = "faces/a.jpg", "other/a.jpg", "other/b.jpg"
    chosen = [models.model_for(Path(name)).settings.file for name in names]
    assert chosen == [one, other, other]
    assert Models(Config()).model_for(Path("b.jpg")).settings.file is None


def test_a_model_is_loaded_once_for_all_its_files(files: tuple[Path, Path]) -> None:
    models = Models(Config(models={"faces": files[0], "a*": files[0]}))
    first = models.model_for(Path("faces/b.jpg")).load()
    assert models.model_for(Path("a.jpg")).load() is first


def test_a_missing_model_is_told_before_any_work(files: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="models: faces: no model file gone"):
        Models(Config(models={"*.tif": files[0], "faces": Path("gone")}))


def test_files_are_colored_by_the_model_of_their_folder(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    colorful, gray = files
    (tmp_path / "faces").mkdir()
    face, other = write_photo(tmp_path / "faces" / "a.png"), write_photo(tmp_path / "b.png")
    config = tmp_path / "config.yaml"
    config.write_text(f"model:\n  file: {gray.name}\nmodels:\n  faces: {colorful.name}\n")
    done = once(face, other, "--config", config)
    assert done.returncode == 0, done.stderr
    assert colored(tmp_path / "faces" / "a.color.png")
    assert not colored(tmp_path / "b.color.png")
    again = once(face, "--config", config, "--model", gray, "--overwrite")
    assert again.returncode == 0, again.stderr
    assert not colored(tmp_path / "faces" / "a.color.png")


def colored(path: Path) -> bool:
    import cv2

    pixels = cv2.imread(str(path))
    assert pixels is not None
    return int((pixels.max(axis=2).astype(int) - pixels.min(axis=2)).max()) > 5


@pytest.mark.parametrize(
    ("gpus", "cores", "workers", "expected"),
    [
        ([], 2, "auto", [""]),
        ([], 8, "auto", ["", ""]),
        (["0"], 2, "auto", ["0"]),
        (["0"], 12, "auto", ["0", "0", "0"]),
        (["0"], 64, "auto", ["0"] * 4),
        (["0", "2"], 4, "auto", ["0", "2"]),
        (["0", "2"], 4, 3, ["0", "2", "0"]),
        (["0", "2"], 64, 1, [""]),
    ],
)
def test_processes_take_gpus_in_turn_and_share_them_where_there_are_cores(
    gpus: list[str],
    cores: int,
    workers: Any,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "gpus_alike", lambda: gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    found = models.environments(JobSettings(workers=workers), ModelSettings(device="auto"))
    assert [each.get("CUDA_VISIBLE_DEVICES", "") for each in found] == expected
