"""Commands for those who look at the daemon: the page, and figures for Prometheus."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colordaemon.cli.common import SYSTEM_CONFIG, app, exit_codes, load, override
from colordaemon.cli.daemon import Settings
from colordaemon.cli.help import examples

if TYPE_CHECKING:
    from colordaemon.web.server import Address

log = logging.getLogger(__name__)


@app.command(
    epilog=examples(
        "colordaemon web --config config.yaml", "colordaemon web --listen 127.0.0.1:9000"
    )
)
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
        settings = override(load(config), web={"listen": listen})
        from colordaemon.web.server import serve

        serve(settings, _tell)


@app.command(
    epilog=examples(
        "colordaemon metrics --config config.yaml",
        "colordaemon metrics -o /var/lib/prometheus/node-exporter/colordaemon.prom",
    )
)
def metrics(
    config: Settings = SYSTEM_CONFIG,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write to this file, at once, and print nothing."
        ),
    ] = None,
) -> None:
    """Print what the daemon does for Prometheus, or write it where node_exporter looks for it."""
    with exit_codes():
        from colordaemon.inbox.folders import find_folders

        all_folders = find_folders(load(config))
        from prometheus_client import generate_latest, write_to_textfile

        from colordaemon.web.look import Disks, look_at
        from colordaemon.web.metrics import registry_of

        registry = registry_of(look_at(all_folders[0], Disks(all_folders).latest()))
        if output is None:
            typer.echo(generate_latest(registry), nl=False)
        else:
            write_to_textfile(os.fspath(output), registry)


def _tell(address: Address) -> None:
    """The link holds the token, which is for the terminal and not for a log."""
    if sys.stdout.isatty():
        typer.echo(f"open {address.link}")
    else:
        log.info("the page is at %s; its token is in %s", address.url, address.file)
