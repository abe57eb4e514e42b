"""A file is taken when it has been quiet and the same for a while, and never before."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.inbox.stability import (
    Signature,
    StabilityTracker,
    Verdict,
    is_being_written,
    quiet_seconds,
    signature_of,
)

FILE = Path("/in/film.mp4")
WHOLE = Signature(1, 2, 1000, 5, 6)


@pytest.fixture
def tracker() -> StabilityTracker:
    return StabilityTracker(settle_seconds=5.0, empty_seconds=600.0)


def test_a_quiet_file_settles_once(tracker: StabilityTracker) -> None:
    tracker.touch(FILE, WHOLE, Monotonic(0.0))
    assert tracker.due(Monotonic(4.9)) == []
    assert tracker.due(Monotonic(5.0)) == [FILE]
    assert tracker.judge(FILE, WHOLE, Monotonic(5.0)) is Verdict.SETTLED
    assert tracker.due(Monotonic(100.0)) == [] and len(tracker) == 0


def test_every_event_begins_the_quiet_time_anew(tracker: StabilityTracker) -> None:
    for now in (0.0, 3.0, 6.0):
        tracker.touch(FILE, WHOLE, Monotonic(now))
        assert tracker.due(Monotonic(now + 2.9)) == []
    assert tracker.due(Monotonic(11.0)) == [FILE]


@pytest.mark.parametrize("field", ["device", "inode", "size", "mtime_ns", "ctime_ns"])
def test_any_silent_change_means_waiting(tracker: StabilityTracker, field: str) -> None:
    tracker.touch(FILE, WHOLE, Monotonic(0.0))
    changed = replace(WHOLE, **{field: 77})
    assert tracker.due(Monotonic(5.0)) == [FILE]
    assert tracker.judge(FILE, changed, Monotonic(5.0)) is Verdict.WAIT
    assert tracker.due(Monotonic(9.9)) == [] and tracker.due(Monotonic(10.0)) == [FILE]
    assert tracker.judge(FILE, changed, Monotonic(10.0)) is Verdict.SETTLED


def test_a_scan_does_not_disturb_the_quiet_time(tracker: StabilityTracker) -> None:
    tracker.notice(FILE, WHOLE, Monotonic(0.0))
    tracker.notice(FILE, WHOLE, Monotonic(4.0))
    assert tracker.due(Monotonic(5.0)) == [FILE]


def test_an_open_writer_means_waiting(tracker: StabilityTracker) -> None:
    tracker.touch(FILE, WHOLE, Monotonic(0.0))
    tracker.due(Monotonic(5.0))
    assert tracker.judge(FILE, WHOLE, Monotonic(5.0), written=True) is Verdict.WAIT


def test_an_empty_file_waits_much_longer_and_then_is_told(tracker: StabilityTracker) -> None:
    empty = replace(WHOLE, size=0)
    tracker.touch(FILE, empty, Monotonic(0.0))
    now = 5.0
    while now < 600.0:
        assert tracker.due(Monotonic(now)) == [FILE]
        assert tracker.judge(FILE, empty, Monotonic(now)) is Verdict.WAIT
        now += 5.0
    tracker.due(Monotonic(now))
    assert tracker.judge(FILE, empty, Monotonic(now)) is Verdict.EMPTY


def test_a_file_that_goes_away_is_forgotten(tracker: StabilityTracker) -> None:
    tracker.touch(FILE, WHOLE, Monotonic(0.0))
    tracker.due(Monotonic(5.0))
    assert tracker.judge(FILE, None, Monotonic(5.0)) is Verdict.GONE
    assert len(tracker) == 0


def test_only_regular_files_have_a_signature(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    found = signature_of(tmp_path / "file")
    assert found is not None and found.size == 2
    for name in ("link", "fifo", "missing", "."):
        assert signature_of(tmp_path / name) is None


def test_how_long_a_file_has_been_quiet_is_not_told_by_its_mtime(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"12")
    os.utime(path, (0, 0))  # as rsync and cp -p do
    changed = UnixTime(path.stat().st_ctime)
    assert quiet_seconds(path, UnixTime(changed + 7.0)) == 7.0
    assert quiet_seconds(path, UnixTime(changed - 7.0)) == math.inf  # a clock that was set back
    assert quiet_seconds(tmp_path / "missing", changed) == math.inf


@pytest.fixture
def _no_sigio() -> Iterator[None]:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.mark.usefixtures("_no_sigio")
def test_a_stalled_copy_is_known_by_its_open_writer(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.write(b"12")
        file.flush()
        written = is_being_written(path)
        if not written:
            pytest.skip("no leases on this file system")
    assert not is_being_written(path)
    assert not is_being_written(tmp_path / "missing")
