"""Folders that would feed a daemon its own output are refused, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeDisk

from colordaemon.config import AfterSettings, Config, OutputSettings
from colordaemon.errors import ConfigError
from colordaemon.service import mounts
from colordaemon.service.places import expect_inbox, find_places, make_places, make_state


def config_of(root: Path, inbox: str = "in", outbox: str = "out", state: str = "state") -> Config:
    (root / "in").mkdir(exist_ok=True)
    return Config(inbox=root / inbox, outbox=root / outbox, state_dir=root / state)


def test_three_keys_are_enough(tmp_path: Path) -> None:
    (places,) = find_places(config_of(tmp_path))
    make_places(places)
    make_state(places.state)
    assert places.outbox.is_dir() and places.state.is_dir()
    assert places.relative(places.inbox / "a" / "b.png") == Path("a/b.png")


def test_every_missing_key_is_named() -> None:
    config = Config(after=AfterSettings(source="move"))
    with pytest.raises(ConfigError) as caught:
        find_places(config)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "inbox",
        "outbox",
        "state_dir",
        "after.archive",
    ]


@pytest.mark.parametrize(
    ("outbox", "told"),
    [
        ("in", "is the inbox"),
        ("in/out", "lies inside the inbox"),
        ("in/../in/out", "lies inside the inbox"),
        ("link/out", "lies inside the inbox"),
        (".", "the inbox .* lies inside"),
    ],
)
def test_an_outbox_that_would_be_watched_is_refused(tmp_path: Path, outbox: str, told: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(ConfigError, match=f"outbox: .*{told}"):
        find_places(config_of(tmp_path, outbox=outbox))


def test_state_and_archive_lie_outside_the_inbox_too(tmp_path: Path) -> None:
    config = config_of(tmp_path, state="in/state")
    after = AfterSettings(source="move", archive=tmp_path / "in" / "done")
    with pytest.raises(ConfigError) as caught:
        find_places(config.model_copy(update={"after": after}))
    assert "state_dir: " in str(caught.value) and "after.archive: " in str(caught.value)


def test_an_archive_on_another_disk_is_refused(tmp_path: Path, make_disk: MakeDisk) -> None:
    archive = make_disk("size=64k")
    config = config_of(tmp_path).model_copy(
        update={"after": AfterSettings(source="move", archive=archive)}
    )
    with pytest.raises(ConfigError, match=r"after\.archive: .* another file system"):
        make_places(*find_places(config))


def test_a_folder_named_twice_is_told(tmp_path: Path) -> None:
    config = config_of(tmp_path).model_copy(update={"output": OutputSettings(folder=tmp_path)})
    with pytest.raises(ConfigError, match=r"output\.folder"):
        find_places(config)


def test_a_missing_inbox_is_not_made(tmp_path: Path) -> None:
    (places,) = find_places(config_of(tmp_path))
    places.inbox.rmdir()
    expect_inbox(places)
    assert not places.inbox.exists()


def test_an_outbox_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (places,) = find_places(config_of(tmp_path, outbox="file/out"))
    with pytest.raises(ConfigError, match=r"outbox: cannot write to .*file/out: Not a directory"):
        make_places(places)


def test_the_last_mount_that_covers_a_folder_says_its_file_system() -> None:
    table = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /srv rw shared:1 - nfs4 host:/srv rw\n"
        "31 30 8:2 / /srv/my\\040films rw - xfs /dev/sdb rw\n"
    )
    assert mounts._find("/srv/in", table) == "nfs4"
    assert mounts._find("/srv/my films/in", table) == "xfs"
    assert mounts._find("/srvice", table) == "ext4"


@pytest.mark.parametrize(
    ("kind", "remote"), [("nfs4", True), ("fuse.sshfs", True), ("9p", True), ("ext4", False)]
)
def test_file_systems_that_send_no_events_are_known(
    monkeypatch: pytest.MonkeyPatch, kind: str, remote: bool
) -> None:
    monkeypatch.setattr(mounts, "file_system_of", lambda path: kind)
    assert mounts.is_remote(Path("/anywhere")) is remote
