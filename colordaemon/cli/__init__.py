"""The command line."""

from colordaemon.cli import bench, daemon, doctor, evaluate, frames, once, train  # each adds some
from colordaemon.cli.common import app

__all__ = ["bench", "daemon", "doctor", "evaluate", "frames", "main", "once", "train"]


def main() -> None:
    """The entry point."""
    app()
