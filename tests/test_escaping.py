"""Names of files cannot forge lines of the log or command the terminal."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest
from command import command, once, write_film, write_photo

from colordaemon.logs import PrintableFormatter, printable

CLEAR_SCREEN = "\x1b[2J"
NASTY = f"{CLEAR_SCREEN}\nERROR forged"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain – ünïcode 映画.mp4", "plain – ünïcode 映画.mp4"), ("a\nb\tc", r"a\nb\tc"),
     (CLEAR_SCREEN, r"\x1b[2J"), ("\x9b2J", r"\x9b2J"), ("gpj.\u202efilm", r"gpj.\u202efilm"),
     (os.fsdecode(b"\xff"), r"\udcff")],
)  # fmt: skip
def test_only_what_is_no_text_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_line_of_a_traceback_passes_for_a_record() -> None:
    error = RuntimeError(NASTY)
    trace = (RuntimeError, error, None)
    record = logging.LogRecord("name", logging.ERROR, "path", 1, "failed: %s", (NASTY,), trace)
    first, *rest = PrintableFormatter("%(levelname)s %(message)s").format(record).split("\n")
    assert first == r"ERROR failed: \x1b[2J\nERROR forged"
    assert rest and all(line.startswith("  ") for line in rest)
    assert CLEAR_SCREEN not in "".join(rest)


def test_names_with_commands_in_them_are_logged_harmlessly(tmp_path: Path, model: Path) -> None:
    photo = write_photo(tmp_path / f"{NASTY}.png")
    broken = tmp_path / f"{NASTY}.mp4"
    broken.write_text("no film")
    result = once(photo, broken, "--model", model)
    assert result.returncode == 1
    assert "\x1b" not in result.stderr
    assert "\nERROR forged" not in result.stderr
    assert r"\x1b[2J\nERROR forged.color.png" in result.stderr


def test_the_bar_on_a_terminal_shows_names_harmlessly(tmp_path: Path, model: Path) -> None:
    film = write_film(tmp_path / f"{NASTY}.mp4")
    ours, theirs = os.openpty()
    line = command(film, "--model", model)
    process = subprocess.Popen(line, stderr=theirs, env=os.environ | {"COLUMNS": "300"})  # noqa: S603
    os.close(theirs)
    said = b""
    while chunk := _read(ours):
        said += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert CLEAR_SCREEN.encode() not in said
    assert b"\nERROR forged" not in said
    assert rb"\x1b[2J\nERROR forged.mp4" in said  # the bar; the log says .color.mp4


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux reports the end of a terminal so
        return b""
