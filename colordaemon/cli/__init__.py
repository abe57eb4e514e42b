"""The command line."""

from colordaemon.cli import bench, commands, daemon, doctor, frames  # each adds its commands
from colordaemon.cli.common import app

__all__ = ["bench", "commands", "daemon", "doctor", "frames", "main"]


def main() -> None:
    """The entry point."""
    app()
