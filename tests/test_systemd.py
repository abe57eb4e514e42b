"""The service under a real systemd, where a container can be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TRY_UNITS = Path(__file__).parents[1] / "systemd" / "try_units.py"
NOT_HERE = 77


def test_the_installed_services_color_a_photo_move_its_source_and_show_it() -> None:
    line = [sys.executable, str(TRY_UNITS)]
    tried = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603
    if tried.returncode == NOT_HERE:
        pytest.skip(tried.stdout.strip() or "the container says nothing")
    assert tried.returncode == 0, tried.stdout + tried.stderr
