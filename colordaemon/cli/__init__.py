"""The command line."""

import os

# Each adds its commands.
from colordaemon.cli import (
    bench,
    cluster,
    configuration,
    daemon,
    doctor,
    evaluate,
    frames,
    once,
    train,
    web,
)
from colordaemon.cli.common import app

__all__ = [
    "app",
    "bench",
    "cluster",
    "configuration",
    "daemon",
    "doctor",
    "evaluate",
    "frames",
    "main",
    "once",
    "train",
    "web",
]


def main() -> None:
    """The entry point."""
    # Read when torch is loaded. Else its threads spin while they wait for each other, and take the
    # processor from encoder and decoder: with both of two cores busy, a look of the network took
    # 400 to 490 ms of them, with this 197, as with one thread (194).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app(prog_name="colordaemon")  # also for python -m colordaemon
