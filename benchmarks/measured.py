"""Runs a command, then prints the seconds and the most memory that it took.

By a small process of its own, since a child begins with the memory of its parent.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

began = time.monotonic()
subprocess.run(sys.argv[1:], check=True)  # noqa: S603
took = time.monotonic() - began
print(f"{took:.2f} s, {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10} MiB")
