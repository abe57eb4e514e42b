"""The command line."""

from colordaemon.cli import commands, daemon, frames  # each adds its commands
from colordaemon.cli.common import app

__all__ = ["commands", "daemon", "frames", "main"]


def main() -> None:
    """The entry point."""
    app()
