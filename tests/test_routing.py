"""Settings of their own for some subfolders."""

from __future__ import annotations

from pathlib import Path

import pytest

from colordaemon.config import Config
from colordaemon.config_file import load_config
from colordaemon.convert.routing import Routing
from colordaemon.errors import ConfigError


def presets(folder: Path, preset: str, pattern: str = "archive") -> Routing:
    (folder / "preset.yaml").write_text(preset)
    (folder / "config.yaml").write_text(
        "inbox: in\noutbox: out\nfilm: {crf: 20, preset: slow}\n"
        f"presets: {{'{pattern}': preset.yaml}}\n"
    )
    return Routing(load_config(folder / "config.yaml"))


def test_a_preset_says_what_differs_and_the_rest_stays(tmp_path: Path) -> None:
    found = presets(tmp_path, "film: {codec: ffv1, crf: null}\noutput: {overwrite: yes}\n")
    plain = found.config_for(tmp_path / "in" / "a.mp4")
    archive = found.config_for(tmp_path / "in" / "archive" / "deep" / "a.mp4")
    assert (plain.film.codec, plain.film.crf, plain.output.overwrite) == ("h264", 20, False)
    assert (archive.film.codec, archive.film.crf, archive.film.preset) == ("ffv1", None, "slow")
    assert archive.output.overwrite


def test_folders_above_the_inbox_choose_no_preset(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    found = presets(folder, "film: {codec: ffv1}\n")
    assert found.config_for(folder / "in" / "a.mp4").film.codec == "h264"


def test_globs_choose_presets_too(tmp_path: Path) -> None:
    found = presets(tmp_path, "photo: {format: png}\n", "scan-*")
    assert found.config_for(tmp_path / "in" / "scan-1.jpg").photo.format == "png"


def test_each_inbox_may_have_a_preset_and_those_of_folders_stand_above_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("film: {codec: ffv1}\nwatch: {poll: always}\n")
    (tmp_path / "small.yaml").write_text("photo: {format: jpeg}\n")
    (tmp_path / "config.yaml").write_text(
        "inboxes:\n  - {inbox: a, outbox: out, preset: a.yaml}\n  - {inbox: b, outbox: out}\n"
        "presets: {small: small.yaml}\n"
    )
    found = Routing(load_config(tmp_path / "config.yaml"))
    codecs = {
        name: (
            found.config_for(tmp_path / name).film.codec,
            found.config_for(tmp_path / name).photo.format,
        )
        for name in ("a/x.mp4", "a/small/x.mp4", "b/x.mp4", "b/small/x.mp4")
    }
    assert codecs == {
        "a/x.mp4": ("ffv1", "keep"),
        "a/small/x.mp4": ("ffv1", "jpeg"),
        "b/x.mp4": ("h264", "keep"),
        "b/small/x.mp4": ("h264", "jpeg"),
    }
    assert found.config_of(tmp_path / "a").watch.poll == "always"
    assert found.config_of(tmp_path / "b").watch.poll == "auto"
    assert found.configs[0] is found.config_for(tmp_path / "a/x.mp4")


@pytest.mark.parametrize(
    ("preset", "told"),
    [
        ("inbox: other\n", "inbox: expected only model, models, references, candidates, film"),
        ("watch: {settle_seconds: 3}\n", "watch: expected only"),
        ("output: {folder: elsewhere}\n", "watch writes to outbox"),
        ("film: {crff: 3}\n", "did you mean 'crf'"),
    ],
)
def test_what_a_preset_cannot_say_is_told(tmp_path: Path, preset: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        presets(tmp_path, preset)


def test_without_presets_all_files_are_alike() -> None:
    config = Config()
    assert Routing(config).config_for(Path("/x/a.png")) is config
