"""Whatever ends a call early, nothing half done stays behind."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from command import command, write_film


def test_an_interrupted_film_leaves_nothing(tmp_path: Path, model: Path) -> None:
    film, out = write_film(tmp_path / "film.mp4", frames=4000), tmp_path / "out"
    line = command(film, "-o", out, "--model", model)
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)  # noqa: S603
    until = time.monotonic() + 60
    while not any(out.glob("*.work/*") if out.exists() else ()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert list(out.iterdir()) == []
