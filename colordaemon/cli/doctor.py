"""The command that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from colordaemon.cli.common import FAILED, SYSTEM_CONFIG, app
from colordaemon.cli.daemon import AsJson
from colordaemon.cli.help import examples


@app.command(
    epilog=examples(
        "colordaemon doctor", "colordaemon doctor --config /etc/colordaemon/config.yaml --json"
    )
)
def doctor(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="COLORDAEMON_CONFIG",
            help=f"The configuration file of a daemon; default: {SYSTEM_CONFIG} if there is one.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine, the configuration and the daemon; say what is wrong and how to mend it.

    Nothing is changed. Ends with 1 if there is a fault; a warning is none.
    """
    from rich.console import Console

    from colordaemon.doctor.command import as_json as in_json
    from colordaemon.doctor.command import examine, show, summary
    from colordaemon.doctor.finding import Level

    if config is None and SYSTEM_CONFIG.exists():
        config = SYSTEM_CONFIG
    console, findings = Console(), []
    for finding in examine(config):
        findings.append(finding)
        if not as_json:
            show(finding, console)
    typer.echo(json.dumps(in_json(findings)) if as_json else summary(findings))
    if any(finding.level is Level.FAULT for finding in findings):
        raise typer.Exit(FAILED)
