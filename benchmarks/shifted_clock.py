"""colordaemon with a wall clock that jumps: a file says by how many seconds it is wrong.

    python benchmarks/shifted_clock.py FILE watch --config CONFIG

libfaketime would make Python's own sleep fail when the clock jumps.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

real, shift = time.time, Path(sys.argv.pop(1))
time.time = lambda: real() + float(shift.read_text() or 0)

from colordaemon.cli import main  # noqa: E402  (some modules take the clock as they are imported)

main()
