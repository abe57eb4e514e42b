"""The command that serves the page."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from colordaemon.cli.common import app, exit_codes, override
from colordaemon.cli.daemon import SYSTEM_CONFIG, Settings
from colordaemon.config_file import load_config

if TYPE_CHECKING:
    from colordaemon.web.server import Address

log = logging.getLogger(__name__)


@app.command()
def web(
    config: Settings = SYSTEM_CONFIG,
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS:PORT", help="Where; default: web.listen, 127.0.0.1:8765."),
    ] = None,
) -> None:
    """Serve a page to look at: queue, results before and after, failures; works without a running
    daemon, too."""
    with exit_codes():
        settings = override(load_config(config), web={"listen": listen})
        from colordaemon.web.server import serve

        serve(settings, settings.web.listen, _tell)


def _tell(address: Address) -> None:
    """The link holds the token, which is for the terminal and not for a log."""
    if sys.stdout.isatty():
        typer.echo(f"open {address.link}")
    else:
        log.info("the page is at %s; its token is in %s", address.url, address.file)
