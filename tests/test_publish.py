"""Results get their names: never onto another file, and on any kind of folder."""

from __future__ import annotations

import errno
import os
from datetime import datetime
from pathlib import Path

import pytest
from command import write_photo

from colordaemon.config import Config, ModelSettings, OutputSettings
from colordaemon.convert.publish import _tell_not_kept, publish, result_name, seal, target_for
from colordaemon.durable import partial_for
from colordaemon.errors import TargetExists


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


@pytest.mark.parametrize("knows_rename", [True, False])
def test_folders_without_hard_links_are_published_to_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_rename: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    if not knows_rename:
        unknown = "colordaemon.durable.rename_noreplace"
        monkeypatch.setattr(unknown, lambda *_: errno.EINVAL)
    target = tmp_path / "film.mp4"
    partial = partial_for(target)
    partial.write_bytes(b"new")
    publish(partial, target, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    partial.write_bytes(b"newer")
    with pytest.raises(TargetExists):
        publish(partial, target, overwrite=False)
    assert (target.read_bytes(), partial.read_bytes()) == (b"new", b"newer")


def test_a_result_is_kept_where_modes_and_times_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    source, partial = write_photo(tmp_path / "a.png"), write_photo(tmp_path / "b.png")
    _tell_not_kept.cache_clear()
    monkeypatch.setattr("os.utime", refuse)
    seal(partial, source)
    seal(partial, source)
    assert caplog.text.count("do not get the modes and times") == 1


def test_a_name_in_other_letters_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on exFAT, where a.png is found under A.png."""
    source = write_photo(tmp_path / "a.png")
    output = OutputSettings(name="{stem}{suffix}", overwrite=True, folder=tmp_path / "out")
    settings = Config(output=output)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "A.png").write_bytes(b"of another source")
    assert target_for(source, ".png", settings, {}) == tmp_path / "out" / "a.png"
    monkeypatch.setattr("os.path.lexists", lambda path: True)
    with pytest.raises(TargetExists, match="with other letter case"):
        target_for(source, ".png", settings, {})


def test_a_source_is_never_its_own_target(tmp_path: Path) -> None:
    source = write_photo(tmp_path / "photo.png")
    settings = Config(output=OutputSettings(name="{stem}{suffix}", overwrite=True))
    with pytest.raises(TargetExists, match="its own source"):
        target_for(source, ".png", settings, {})


def test_a_name_may_say_model_quality_folder_and_the_day_of_the_source(tmp_path: Path) -> None:
    source = write_photo(tmp_path / "a.png")
    os.utime(source, (0, datetime(1931, 2, 3, 12).timestamp()))
    output = OutputSettings(name="{folder}-{stem}-{model}-{quality}-{date}{suffix}")
    faces = Config(output=output, models={"a*": Path("/models/face.safetensors")})
    folder = tmp_path.name
    assert result_name(source, ".png", faces) == f"{folder}-a-face-standard-1931-02-03.png"
    best = Config(output=output, model=ModelSettings(quality="best"))
    assert result_name(source, ".png", best) == f"{folder}-a-built-in-best-1931-02-03.png"
    os.utime(source, (0, 1 << 60))  # a year that Python does not know
    assert "-undated" in result_name(source, ".png", best) or source.stat().st_mtime < 1 << 60


def test_a_stem_that_is_too_long_for_a_name_is_shortened(tmp_path: Path) -> None:
    source = tmp_path / f"{'a' * 250}.png"
    assert len(result_name(source, ".png", Config())) == 255
