"""Files that are replaced: what a full disk, a limit or a kill leaves, and what a link does."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import pytest
from processes import Process
from programs import killed_before_rename

from colordaemon.durable import partial_for, replace_file


def test_a_file_that_cannot_be_flushed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    replace_file(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"model": b"old"}


def test_a_file_that_grows_over_the_limit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    replace_file(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then write fails with EFBIG
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace_file(path, bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"model": b"old"}


def test_a_process_killed_while_saving_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    replace_file(path, b"old")
    assert Process(killed_before_rename.main, path).wait(60) == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    replace_file(path, b"newer")  # what the dead one left behind is in nobody's way
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"model": b"newer"}


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a.txt"
    victim.write_bytes(b"years of work")
    for link in (path, partial_for(path)):
        link.symlink_to(victim)
    replace_file(path, b"reason")
    assert victim.read_bytes() == b"years of work"
    assert path.read_bytes() == b"reason" and not path.is_symlink()
    assert not partial_for(path).exists()
