"""The command line."""

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
    app(prog_name="colordaemon")  # also for python -m colordaemon
