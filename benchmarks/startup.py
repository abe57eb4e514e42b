"""Processor time of commands that nobody should have to wait for, the least of several runs.

python benchmarks/startup.py [RUNS]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = 9
MOST_SECONDS = 0.3  # that each may take
CONFIG = "inbox: in\noutbox: out\nstate_dir: state\n"


def processor_seconds(words: list[str], environment: dict[str, str]) -> float:
    """Of one run: user and system, of the process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-m", "colordaemon", *words]
    environment = os.environ | environment
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs are compiled already
    subprocess.run(line, env=environment, capture_output=True, check=False)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(CONFIG)
        for name in ("in", "out", "state"):
            Path(folder, name).mkdir()
        completion = {
            "_COLORDAEMON_COMPLETE": "complete_bash",
            "COMP_WORDS": "colordaemon once --sat",
            "COMP_CWORD": "2",
        }
        cases: dict[str, tuple[list[str], dict[str, str]]] = {
            "colordaemon": ([], {}),
            "colordaemon --help": (["--help"], {}),
            "colordaemon once --help": (["once", "--help"], {}),
            "colordaemon status": (["status", "--config", str(config)], {}),
            "colordaemon queue": (["queue", "--config", str(config)], {}),
            "completion": ([], completion),
        }
        for name, (words, environment) in cases.items():
            least = min(processor_seconds(words, environment) for _ in range(runs))
            remark = "" if least < MOST_SECONDS else f"  more than {MOST_SECONDS} s"
            print(f"{name:<24} {least:.3f} s{remark}")


if __name__ == "__main__":
    main()
