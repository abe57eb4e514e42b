"""Results get their names: never onto another file, and on any kind of folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import write_photo

from colordaemon.config import OutputSettings
from colordaemon.errors import TargetExists
from colordaemon.service.publish import partial_for, publish, target_for


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
        target_for(source, ".png", settings, {})
