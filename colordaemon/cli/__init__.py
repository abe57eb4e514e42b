"""The command line."""

from colordaemon.cli import service, work  # each adds its commands
from colordaemon.cli.common import app

__all__ = ["main", "service", "work"]


def main() -> None:
    """The entry point."""
    app()
