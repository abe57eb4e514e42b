"""How long the queue will take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colordaemon.clock import UnixTime
from colordaemon.service.forecast import Forecast, busy_seconds, forecast
from colordaemon.service.job import Found
from colordaemon.service.journal import Journal
from colordaemon.service.records import Span


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal") as journal:
        yield journal


def add(journal: Journal, name: str, rank: int, size: int = 100) -> None:
    journal.add([Found(Path("/in") / name, size, 1, rank)], UnixTime(1.0))


def do(journal: Journal, name: str, rank: int, began: float, ended: float, size: int = 100) -> None:
    add(journal, name, rank, size)
    job = journal.claim(UnixTime(began))
    assert job is not None
    journal.finish(job, UnixTime(ended), reason="", retire="")


def test_photos_take_as_long_as_others_did_and_films_by_their_bytes(journal: Journal) -> None:
    do(journal, "a.png", 0, 10, 12)
    do(journal, "b.png", 0, 20, 24)
    do(journal, "f.mkv", 1, 100, 200, size=1000)
    for number in range(10):
        add(journal, f"queued {number}.png", 0)
    add(journal, "queued.mkv", 1, size=5000)
    assert forecast(journal) == Forecast(10 * 3 + 500)


def test_what_is_not_known_is_not_guessed(journal: Journal) -> None:
    assert forecast(journal) == Forecast()
    do(journal, "a.png", 0, 10, 12)
    add(journal, "b.png", 0)
    add(journal, "f.mkv", 1)
    add(journal, "g.mkv", 1)
    assert forecast(journal) == Forecast(2.0, unknown=2)


def test_files_that_were_worked_on_at_the_same_time_count_once(journal: Journal) -> None:
    spans = [Span(0, 1, 10, 20), Span(0, 1, 12, 18), Span(0, 1, 15, 25), Span(0, 1, 30, 31)]
    assert busy_seconds(spans) == 16
    assert busy_seconds([]) == 0


def test_the_running_file_that_takes_longest_is_added() -> None:
    running: list[dict[str, Any]] = [
        {"seconds_left": 30.0},
        {"seconds_left": None},
        {"seconds_left": 50.0},
    ]
    assert Forecast(100.0, 2).plus(running) == Forecast(150.0, 2)
    assert Forecast(100.0).plus([]) == Forecast(100.0)
