"""The command line."""

from colordaemon.cli import bench, commands, daemon, frames  # each adds its commands
from colordaemon.cli.common import app

__all__ = ["bench", "commands", "daemon", "frames", "main"]


def main() -> None:
    """The entry point."""
    app()
