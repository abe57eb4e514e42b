"""Folders that would feed a daemon its own output are refused, whatever they are called."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from conftest import MakeDisk

from colordaemon.config import AfterSettings, Config, InboxSettings, OutputSettings
from colordaemon.errors import ConfigError
from colordaemon.inbox import folders
from colordaemon.inbox.folders import expect_inbox, find_folders, make_folders, make_state


def config_of(root: Path, inbox: str = "in", outbox: str = "out", state: str = "state") -> Config:
    (root / "in").mkdir(exist_ok=True)
    return Config(inbox=root / inbox, outbox=root / outbox, state_dir=root / state)


def test_three_keys_are_enough(tmp_path: Path) -> None:
    (folders,) = find_folders(config_of(tmp_path))
    make_folders(folders)
    make_state(folders.state)
    assert folders.outbox.is_dir() and folders.state.is_dir()
    assert folders.relative(folders.inbox / "a" / "b.png") == Path("a/b.png")


def test_every_missing_key_is_named() -> None:
    config = Config(after=AfterSettings(source="move"))
    with pytest.raises(ConfigError) as caught:
        find_folders(config)
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
        find_folders(config_of(tmp_path, outbox=outbox))


def test_state_and_archive_lie_outside_the_inbox_too(tmp_path: Path) -> None:
    config = config_of(tmp_path, state="in/state")
    after = AfterSettings(source="move", archive=tmp_path / "in" / "done")
    with pytest.raises(ConfigError) as caught:
        find_folders(config.model_copy(update={"after": after}))
    assert "state_dir: " in str(caught.value) and "after.archive: " in str(caught.value)


def test_an_archive_on_another_disk_is_refused(tmp_path: Path, make_disk: MakeDisk) -> None:
    archive = make_disk("size=64k")
    config = config_of(tmp_path).model_copy(
        update={"after": AfterSettings(source="move", archive=archive)}
    )
    with pytest.raises(ConfigError, match=r"after\.archive: .* another file system"):
        make_folders(*find_folders(config))


def test_a_folder_named_twice_is_told(tmp_path: Path) -> None:
    config = config_of(tmp_path).model_copy(update={"output": OutputSettings(folder=tmp_path)})
    with pytest.raises(ConfigError, match=r"output\.folder"):
        find_folders(config)


def test_a_missing_inbox_is_not_made(tmp_path: Path) -> None:
    (folders,) = find_folders(config_of(tmp_path))
    folders.inbox.rmdir()
    expect_inbox(folders)
    assert not folders.inbox.exists()


def test_an_outbox_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (folders,) = find_folders(config_of(tmp_path, outbox="file/out"))
    with pytest.raises(ConfigError, match=r"outbox: cannot write to .*file/out: Not a directory"):
        make_folders(folders)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EIO, errno.ESTALE])
def test_a_disk_that_may_be_well_again_is_no_mistake_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    (folders,) = find_folders(config_of(tmp_path))
    with pytest.raises(OSError, match=f"outbox: cannot write to .*: {os.strerror(number)}"):
        make_folders(folders)


def test_an_inbox_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for inbox, told in [
        (tmp_path / "file", "file is no folder"),
        (tmp_path / "file" / "in", "file is no folder"),
        (
            Path("/no-such-disk/photos/in"),
            "there is no /no-such-disk/photos/in, and no /no-such-di",
        ),
    ]:
        (folders,) = find_folders(config_of(tmp_path).model_copy(update={"inbox": inbox}))
        with pytest.raises(ConfigError, match=f"inbox: .*{told}"):
            expect_inbox(folders)
        assert not inbox.is_dir()


def several(root: Path, *folders: tuple[str, str], **settings: object) -> Config:
    """A configuration with inboxes and outboxes below a folder."""
    entries = [InboxSettings(inbox=root / one, outbox=root / other) for one, other in folders]
    for entry in entries:
        entry.inbox.mkdir(exist_ok=True, parents=True)
    config = Config(inboxes=tuple(entries), state_dir=root / "state")
    return config.model_copy(update=settings)


def test_each_inbox_has_places_of_its_own(tmp_path: Path) -> None:
    one, other = find_folders(several(tmp_path, ("a", "out/a"), ("b", "out/b")))
    assert (one.inbox, one.outbox) == (tmp_path / "a", tmp_path / "out/a")
    assert (other.inbox, other.outbox) == (tmp_path / "b", tmp_path / "out/b")
    assert one.journal == other.journal == tmp_path / "state" / "journal.sqlite3"
    assert one.failed == tmp_path / "out/a/failed"


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (("a", "out"), "inboxes.2.inbox: .*/a is inboxes.1.inbox as well"),
        (("link", "out"), "inboxes.2.inbox: .*/a is inboxes.1.inbox as well"),
        (("a/b", "out"), "inboxes.2.inbox: .*/a/b lies inside the inbox .*/a"),
        (("link/b", "out"), "inboxes.2.inbox: .*/a/b lies inside the inbox .*/a"),
        ((".", "../out"), "inboxes.2.inbox: .* holds the inbox .*/a"),
        (("b", "a"), "inboxes.2.outbox: .*/a is the inbox"),
        (("b", "a/out"), "inboxes.2.outbox: .*/a/out lies inside the inbox .*/a"),
        (("b", "."), "inboxes.2.outbox: the inbox .*/a lies inside"),
        (("out", "b"), "inboxes.1.outbox: .*/out is the inbox"),
    ],
)
def test_inboxes_that_feed_one_another_are_refused(
    tmp_path: Path, second: tuple[str, str], told: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match=told):
        find_folders(several(tmp_path, ("a", "out"), second))


def test_an_outbox_may_be_shared_and_reasons_lie_apart(tmp_path: Path) -> None:
    one, other = find_folders(several(tmp_path, ("a", "out"), ("b", "out")))
    assert one.failed == tmp_path / "out/failed" / (tmp_path / "a").relative_to("/")
    assert other.failed == tmp_path / "out/failed" / (tmp_path / "b").relative_to("/")


def test_each_inbox_may_have_its_archive(tmp_path: Path) -> None:
    config = several(tmp_path, ("a", "out"), ("b", "out"), after=AfterSettings(source="move"))
    with pytest.raises(ConfigError, match=r"after\.archive: found nothing"):
        find_folders(config)
    entries = [
        entry.model_copy(update={"archive": tmp_path / f"old {entry.inbox.name}"})
        for entry in config.inboxes
    ]
    one, other = find_folders(config.model_copy(update={"inboxes": tuple(entries)}))
    assert (one.archive, other.archive) == (tmp_path / "old a", tmp_path / "old b")
    after = AfterSettings(source="move", archive=tmp_path / "old")
    assert [each.archive for each in find_folders(config.model_copy(update={"after": after}))] == [
        tmp_path / "old"
    ] * 2
    entries[1] = entries[1].model_copy(update={"archive": tmp_path / "a" / "old"})
    with pytest.raises(ConfigError, match=r"inboxes\.2\.archive: .* lies inside the inbox"):
        find_folders(config.model_copy(update={"inboxes": tuple(entries)}))


def test_the_last_mount_that_covers_a_folder_says_its_file_system() -> None:
    table = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /srv rw shared:1 - nfs4 host:/srv rw\n"
        "31 30 8:2 / /srv/my\\040films rw - xfs /dev/sdb rw\n"
    )
    assert folders._find("/srv/in", table) == "nfs4"
    assert folders._find("/srv/my films/in", table) == "xfs"
    assert folders._find("/srvice", table) == "ext4"


@pytest.mark.parametrize(
    ("kind", "remote"), [("nfs4", True), ("fuse.sshfs", True), ("9p", True), ("ext4", False)]
)
def test_file_systems_that_send_no_events_are_known(
    monkeypatch: pytest.MonkeyPatch, kind: str, remote: bool
) -> None:
    monkeypatch.setattr(folders, "file_system_of", lambda path: kind)
    assert folders.is_remote(Path("/anywhere")) is remote


def test_a_mount_between_inbox_and_archive_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    after = AfterSettings(source="move", archive=tmp_path / "old")
    config = config_of(tmp_path).model_copy(update={"after": after})
    make_folders(*find_folders(config))
    assert [*(tmp_path / "in").iterdir(), *(tmp_path / "old").iterdir()] == []
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ConfigError, match="file system or mount"):
        make_folders(*find_folders(config))
    assert [*(tmp_path / "in").iterdir()] == []


@pytest.mark.parametrize("name", ["daemon.lock", "journal.sqlite3", "journal.sqlite3-wal"])
def test_no_link_leads_the_journal_to_other_files(tmp_path: Path, name: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / name).symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match=f"{name} is a symbolic link"):
        make_state(state)
    assert not (tmp_path / "victim").exists()


def test_a_state_folder_that_others_can_write_to_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    make_state(state)
    assert caplog.text == ""
    state.chmod(0o777)
    make_state(state)
    assert "could put another journal there" in caplog.text
