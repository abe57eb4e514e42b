"""One daemon for each state folder and inbox, and what others may do with their locks."""

from __future__ import annotations

import fcntl
import inspect
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import lock_holder

from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import _holder, locked_inbox, locked_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    for each in (tmp_path, *tmp_path.parents):
        if not each.stat().st_mode & stat.S_IXOTH:
            each.chmod(0o755)  # for another user
    return tmp_path / "folder"


def hold(folder: Path, user: int | None = None) -> Iterator[int]:
    """A process that holds a lock on a folder, and its number."""
    python = "/usr/bin/python3" if user else sys.executable
    # As text, since another user may not read where it lies.
    line = [python, "-c", inspect.getsource(lock_holder), str(folder)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=user) as holder:  # noqa: S603
        assert holder.stdin and holder.stdout
        assert holder.stdout.readline() == b"held\n"
        yield holder.pid
        holder.stdin.close()


def test_two_daemons_never_share_a_state_folder(folder: Path) -> None:
    told = pytest.raises(ConfigError, match="state_dir: another daemon works with")
    with locked_state(folder), told, locked_state(folder):
        pass
    with locked_state(folder):
        assert (folder / "daemon.lock").stat().st_mode & 0o777 == 0o600


def test_a_lock_on_the_state_folder_itself_decides_nothing(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with locked_state(folder):
        pass
    os.close(handle)


@pytest.mark.parametrize("insists", [False, True])
def test_who_holds_an_inbox_is_named(folder: Path, insists: bool) -> None:
    for number in hold(folder):
        told = pytest.raises(BlockingIOError, match=rf"process {number} \(\S+\) holds a lock")
        with told, locked_inbox(folder, insists=insists):
            pass
    with locked_inbox(folder):
        pass


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="needs another user"
)
def test_another_user_holds_up_nobody_for_ever(folder: Path) -> None:
    for _ in hold(folder, user=65534):
        with pytest.raises(BlockingIOError, match="holds a lock"), locked_inbox(folder):
            pass
        with locked_inbox(folder, insists=True):
            pass


def test_a_process_that_is_hidden_from_us_is_named_by_its_number(folder: Path) -> None:
    """As in a service with ProtectProc=invisible."""
    found, proc = folder.stat(), folder / "proc"
    proc.mkdir()
    lines = f"1: POSIX  ADVISORY  WRITE 7 00:01:{found.st_ino} 0 EOF\n"
    lines += f"2: -> FLOCK  ADVISORY  WRITE 8 00:01:{found.st_ino} 0 EOF\n"
    lines += f"2: FLOCK  ADVISORY  WRITE 9 00:01:{found.st_ino} 0 EOF\n"
    (proc / "locks").write_text(lines)
    holder = _holder(found, proc)
    assert holder is not None and holder.user == -1
    assert str(holder) == "process 9 (of another user)"
