"""Lines of log for journald: each with its priority, none forged."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from colordaemon.logs import JournaldFormatter, counted, is_journald


def record(level: int, text: str, error: Exception | None = None) -> logging.LogRecord:
    trace = (type(error), error, None) if error else None
    return logging.LogRecord("x", level, "x.py", 1, text, None, trace)


@pytest.mark.parametrize(
    ("level", "mark"), [(logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>")]
)
def test_every_level_has_its_priority(level: int, mark: str) -> None:
    assert JournaldFormatter("%(message)s").format(record(level, "done")) == f"{mark}done"


def test_a_name_with_a_line_end_forges_no_line() -> None:
    line = JournaldFormatter("%(message)s").format(record(logging.INFO, "done: a\n<0>panic.png"))
    assert line == "<6>done: a\\n<0>panic.png"


def test_every_line_of_a_traceback_has_the_priority() -> None:
    error = ValueError("first\nsecond")
    text = JournaldFormatter("%(message)s").format(record(logging.ERROR, "failed", error))
    assert len(text.split("\n")) > 2
    assert all(line.startswith("<3>") for line in text.split("\n"))


def test_priorities_are_only_for_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as file:
        found = os.fstat(file.fileno())
        monkeypatch.setattr(sys, "stderr", file)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_journald()
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert not is_journald()


@pytest.mark.parametrize(("number", "said"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames")])
def test_one_thing_is_not_told_as_many(number: int, said: str) -> None:
    assert counted(number, "frame") == said
