"""Folders that others write to: what they put in the way leads nowhere else."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from colordaemon.cluster.shared import top_of
from colordaemon.errors import MediaError, SourceChanged
from colordaemon.inbox.safe_open import (
    anchored,
    folder_beneath,
    look_beneath,
    opened,
    opened_beneath,
    opened_for_another,
)
from colordaemon.inbox.scan import scan
from colordaemon.inbox.stability import Signature, signature_of
from colordaemon.service.job import Partial
from colordaemon.service.publisher import private_folder, sweep
from colordaemon.service.source_action import retire


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An inbox with a file, and beside it a folder of somebody else with one that looks alike."""
    for folder, content in (("in/sub", b"mine"), ("others", b"ours")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png").write_bytes(content)
        os.utime(tmp_path / folder / "a.png", ns=(10**18, 10**18))
    return tmp_path / "in"


def queued(path: Path) -> Signature:
    found = signature_of(path)
    assert found is not None
    return found


def swap(inbox: Path) -> None:
    """The folder becomes a link to that of somebody else."""
    (inbox / "sub").rename(inbox / "before")
    (inbox / "sub").symlink_to(inbox.parent / "others")


def test_a_folder_that_became_a_link_is_not_entered(inbox: Path) -> None:
    source = inbox / "sub" / "a.png"
    before = queued(source)
    swap(inbox)
    assert source.read_bytes() == b"ours"  # by its whole path it leads there
    assert look_beneath(inbox, source) is None
    told = pytest.raises(SourceChanged, match="a symbolic link")
    with told, opened_beneath(inbox, source, before):
        pass
    with pytest.raises(OSError, match="symbolic link"), folder_beneath(inbox, inbox / "sub"):
        pass


@pytest.mark.parametrize("action", ["delete", "move", "trash"])
def test_no_source_is_dealt_with_through_a_link(inbox: Path, action: str) -> None:
    source, archive = inbox / "sub" / "a.png", inbox.parent / "archive"
    archive.mkdir()
    before = queued(source)
    swap(inbox)
    retire(source, before, action, inbox, archive)
    assert (inbox.parent / "others" / "a.png").read_bytes() == b"ours"
    assert (inbox / "before" / "a.png").exists()


def test_no_source_is_moved_to_where_a_link_leads(
    inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, archive = inbox / "sub" / "a.png", inbox.parent / "archive"
    archive.mkdir()
    (archive / "sub").symlink_to(inbox.parent / "others")
    retire(source, queued(source), "move", inbox, archive)
    assert source.exists() and [*(inbox.parent / "others").iterdir()] == [
        inbox.parent / "others" / "a.png"
    ]
    assert "symbolic link" in caplog.text


def test_an_opened_source_stays_the_file_that_it_was(inbox: Path) -> None:
    source = inbox / "sub" / "a.png"
    with opened_beneath(inbox, source, queued(source)) as opened_source:
        swap(inbox)
        assert opened_source.read_bytes() == b"mine"
        assert opened_source.stat().st_ino == (inbox / "before" / "a.png").stat().st_ino
        assert (str(opened_source), opened_source.suffix) == (str(source), ".png")
        assert f"{opened_source}: damaged" == f"{source}: damaged" and opened_source == source
        assert os.fspath(opened_source.with_name("b.png")) == str(source.with_name("b.png"))
        assert os.fspath(opened_source.parent) == str(source.parent)


@pytest.mark.parametrize("trick", ["link to a folder", "link", "moved"])
def test_another_machine_opens_no_other_file_than_this_one(inbox: Path, trick: str) -> None:
    source = inbox / "sub" / "a.png"
    with opened_beneath(inbox, source, queued(source)) as here:
        real, top = Path(os.path.realpath(here)), top_of(here)
        with opened_for_another(source, real, top) as there:
            assert there.read_bytes() == b"mine"
        if trick == "link to a folder":
            swap(inbox)
        elif trick == "link":
            source.unlink()
            source.symlink_to(inbox.parent / "others" / "a.png")
        else:
            (inbox / "sub").rename(inbox.parent / "away")
            real = Path(os.path.realpath(here))
        with (
            pytest.raises(SourceChanged, match=r"a\.png: it is n"),
            opened_for_another(source, real, top),
        ):
            pass
    with opened(source if trick == "link" else inbox.parent / "others" / "a.png") as named:
        assert top_of(named) is None  # the user may name a link


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "nothing"])
def test_what_stands_in_place_of_a_source_neither_blocks_nor_is_read(
    inbox: Path, kind: str
) -> None:
    source = inbox / "sub" / "a.png"
    before = queued(source)
    source.unlink()
    if kind == "fifo":
        os.mkfifo(source)
    elif kind == "link":
        source.symlink_to(inbox.parent / "others" / "a.png")
    elif kind == "folder":
        source.mkdir()
    with pytest.raises(SourceChanged), opened_beneath(inbox, source, before):
        pass
    assert look_beneath(inbox, source) is None


@pytest.mark.parametrize("kind", ["fifo", "folder", "/dev/null"])
def test_a_user_is_told_what_he_has_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path(kind)
    with pytest.raises(MediaError, match=r"found a (pipe|folder|device)"), opened(path):
        pass


def test_a_terabyte_that_nobody_has_written_is_refused_at_once(inbox: Path) -> None:
    path = inbox / "empty.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(1 << 40)
    with pytest.raises(MediaError, match="of 1099511627776 on the disk"), opened(path):
        pass
    queued = signature_of(path)
    assert queued is not None
    refused = pytest.raises(MediaError, match="expected a whole file")
    with refused, opened_beneath(inbox, path, queued):
        pass


def test_another_file_of_the_same_size_and_time_is_another(inbox: Path) -> None:
    source = inbox / "sub" / "a.png"
    before = queued(source)
    (inbox.parent / "others" / "a.png").rename(source)
    with (
        pytest.raises(SourceChanged, match="no longer the file"),
        opened_beneath(inbox, source, before),
    ):
        pass
    found = look_beneath(inbox, source)
    assert found is not None and not found.is_same(before)


def test_what_the_numbers_say_and_what_they_do_not(inbox: Path) -> None:
    before = queued(inbox / "sub" / "a.png")
    mounted_anew = replace(before, device=before.device + 1, inode=before.inode + 1, ctime_ns=1)
    unknown = replace(before, device=0, inode=0, ctime_ns=0)
    with_other_mode = replace(before, ctime_ns=before.ctime_ns + 1)
    assert mounted_anew.is_untouched(before) and before.is_untouched(unknown)
    assert with_other_mode.is_same(before) and not with_other_mode.is_untouched(before)
    assert not replace(before, inode=before.inode + 1).is_same(before)
    assert not replace(mounted_anew, size=5).is_same(before)
    assert not replace(unknown, mtime_ns=1).is_same(before)


def test_folders_are_made_step_by_step_and_not_through_links(inbox: Path) -> None:
    top = inbox.parent / "out"
    top.mkdir()
    with anchored(top, top / "a" / "b", make=True) as here:
        (top / "a").rename(top / "c")
        (here / "x").touch()
    assert (top / "c" / "b" / "x").exists()
    (top / "d").symlink_to(inbox.parent / "others")
    with pytest.raises(OSError, match="symbolic link"), anchored(top, top / "d" / "e", make=True):
        pass
    assert not (inbox.parent / "others" / "e").exists()


def test_what_lies_behind_a_link_is_neither_listed_nor_queued(inbox: Path) -> None:
    (inbox.parent / "others" / "deep").mkdir()
    (inbox.parent / "others" / "deep" / "b.png").touch()
    (inbox / "sub" / "deep").mkdir()
    found = scan(inbox, top=inbox)
    swap(inbox)
    assert [path.relative_to(inbox) for path, _ in found] == [Path("before/a.png")]
    with pytest.raises(OSError, match="symbolic link"):
        [*scan(inbox / "sub" / "deep", top=inbox)]


def test_unfinished_work_is_private_and_goes_on_where_it_was(tmp_path: Path) -> None:
    made = private_folder(tmp_path, ".job")
    assert made.stat().st_mode & 0o777 == 0o700
    (made / "segment").touch()
    assert private_folder(tmp_path, ".job") == made and [*tmp_path.iterdir()] == [made]


@pytest.mark.parametrize("kind", ["link", "open folder", "file"])
def test_work_is_not_done_in_what_others_have_put_there(inbox: Path, kind: str) -> None:
    taken, others = inbox / ".colordaemon-t-1.work", inbox.parent / "others"
    if kind == "link":
        taken.symlink_to(others)
    elif kind == "open folder":
        taken.mkdir()
        taken.chmod(0o777)
    else:
        taken.touch()
    made = private_folder(inbox, ".colordaemon-t-1")
    assert made != taken and made.stat().st_mode & 0o777 == 0o700
    assert sweep(inbox, "t", {1}) == 0
    assert sweep(inbox, "t", {2}) == 2  # a link ends, and not what it leads to
    assert not made.exists() and (others / "a.png").exists()


def test_a_chain_of_a_thousand_folders_ends_no_sweep(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 10, dir_fd=handle)
        below = os.open("d" * 10, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    (tmp_path / ".colordaemon-t-1.partial").touch()
    assert sweep(tmp_path, "t", set()) == 1
    subprocess.run(["rm", "-rf", tmp_path / ("d" * 10)], check=True)  # noqa: S603, S607


def test_a_result_is_known_again_after_its_disk_was_mounted_anew(tmp_path: Path) -> None:
    """Where FAT has given it another number."""
    path = tmp_path / "a.png"
    path.write_bytes(b"result")
    partial = replace(Partial.of(path), inode=1)
    assert partial.is_at(path)
    os.utime(path, ns=(5, 5))
    assert not partial.is_at(path) and not replace(partial, mtime_ns=0).is_at(path)
