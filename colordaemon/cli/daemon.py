"""Commands of the daemon: run it, ask it, tell it."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from colordaemon.cli.common import CONFIGURATION, FAILED, app, exit_codes
from colordaemon.config_file import load_config
from colordaemon.errors import ModelError, WorkerLost
from colordaemon.service.control import BadRequest
from colordaemon.service.status import Reply, show_jobs, show_status

log = logging.getLogger(__name__)

SYSTEM_CONFIG = Path("/etc/colordaemon/config.yaml")

Settings = Annotated[
    Path,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="COLORDAEMON_CONFIG",
        help="Settings; inbox, outbox and state_dir are enough.",
    ),
]
Jobs = Annotated[
    list[str], typer.Argument(metavar="JOB…", help="Numbers of jobs, or paths of their files.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def watch(config: Settings = SYSTEM_CONFIG) -> None:
    """Color every file that is put into the inbox, until told to stop."""
    with exit_codes():
        from colordaemon.service.daemon import watch_forever

        try:
            watch_forever(lambda: load_config(config))
        except (ModelError, WorkerLost) as error:
            # Not 78, after which systemd would not try again: a GPU may come up later than we do.
            log.error("%s", error)
            raise typer.Exit(FAILED) from None


@app.command()
def install_service(
    config: Settings = SYSTEM_CONFIG,
    user: Annotated[bool, typer.Option("--user", help="For you alone, without root.")] = False,
    per_gpu: Annotated[
        bool, typer.Option("--per-gpu", help="A template: colordaemon@0 reads 0.yaml.")
    ] = False,
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Write below this folder instead of /.")
    ] = Path("/"),
) -> None:
    """Write the files for systemd, made out for your folders, and say what to do next."""
    with exit_codes():
        from colordaemon import install

        settings, file, program = load_config(config), config.absolute(), install.this_program()
        if user:
            units = [install.user_unit(settings, file, program, Path.home())]
        else:
            units = install.system_units(settings, file, program)
            units += [install.gpu_unit(settings, file, program)] if per_gpu else []
        for path in install.write_units(units, root):
            typer.echo(f"wrote {path}")
        if user:
            typer.echo("next: systemctl --user daemon-reload")
            typer.echo("      systemctl --user enable --now colordaemon")
        else:
            typer.echo("next: systemd-sysusers && systemd-tmpfiles --create")
            typer.echo("      systemctl daemon-reload && systemctl enable --now colordaemon")


@app.command()
def status(
    config: Settings = SYSTEM_CONFIG,
    as_json: AsJson = False,
    again: Annotated[bool, typer.Option("--watch", help="Again every two seconds.")] = False,
    ignored: Annotated[
        bool, typer.Option("--ignored", help="List what lies in the inboxes and is not taken.")
    ] = False,
) -> None:
    """Say what the daemon is doing, and what failed; also when it is down."""

    if ignored:
        _list_ignored(config, as_json)
        return
    while True:
        reply = _ask(config, {"verb": "status"})
        if as_json:
            typer.echo(json.dumps(reply))
        else:
            show_status(reply, Console())
        if not again:
            return
        time.sleep(2.0)


def _list_ignored(config: Path, as_json: bool) -> None:
    from colordaemon.inbox.scan import list_ignored
    from colordaemon.logs import printable

    with exit_codes():
        found = list(list_ignored(load_config(config)))
    if as_json:
        typer.echo(json.dumps([{"path": path, "reason": reason} for path, reason in found]))
    else:
        for path, reason in found:
            typer.echo(f"{printable(path)}: {reason}")


@app.command()
def queue(config: Settings = SYSTEM_CONFIG, as_json: AsJson = False) -> None:
    """List what is being worked on and what waits, in order."""

    reply = _ask(config, {"verb": "queue"})
    if as_json:
        typer.echo(json.dumps(reply))
    else:
        show_jobs(reply["jobs"], Console())


@app.command()
def retry(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB…", help="Numbers or paths; none: all that failed."),
    ] = None,
    config: Settings = SYSTEM_CONFIG,
) -> None:
    """Queue failed, skipped or cancelled files again."""
    _tell(config, "retry", jobs or [])


@app.command()
def forget(jobs: Jobs, config: Settings = SYSTEM_CONFIG) -> None:
    """Drop what is known of files that came to an end; those still in the inbox are new then."""
    _tell(config, "forget", jobs)


@app.command()
def cancel(jobs: Jobs, config: Settings = SYSTEM_CONFIG) -> None:
    """Take files out of the queue, or away from the worker."""
    _tell(config, "cancel", jobs)


@app.command()
def first(jobs: Jobs, config: Settings = SYSTEM_CONFIG) -> None:
    """Let files be colored before all others that wait."""
    _tell(config, "first", jobs)


@app.command()
def pause(config: Settings = SYSTEM_CONFIG) -> None:
    """Stop working until `resume`, also over restarts; films keep their finished segments."""
    _ask(config, {"verb": "pause"})


@app.command()
def resume(config: Settings = SYSTEM_CONFIG) -> None:
    """Go on working, also after failures in a row."""
    _ask(config, {"verb": "resume"})


journal = typer.Typer(help="Look after the journal, while no daemon runs.", no_args_is_help=True)
app.add_typer(journal, name="journal")


@journal.command("check")
def check_journal(config: Settings = SYSTEM_CONFIG) -> None:
    """Look whether the journal is whole, and say how large it is."""
    with exit_codes():
        from colordaemon.service.journal_upkeep import check

        typer.echo(check(load_config(config)))


@journal.command("rebuild")
def rebuild_journal(config: Settings = SYSTEM_CONFIG) -> None:
    """Begin a new journal with all that can be read of the old one, which is kept beside it.

    Files whose results lie in the outbox are not colored again.
    """
    with exit_codes():
        from colordaemon.service.journal_upkeep import rebuild

        rebuilt = rebuild(load_config(config))
        typer.echo(f"{rebuilt.kept} jobs are kept, {rebuilt.recognized} more are known by results")
        if rebuilt.old is not None:
            typer.echo(f"the old journal is {rebuilt.old}")


@journal.command("vacuum")
def vacuum_journal(config: Settings = SYSTEM_CONFIG) -> None:
    """Give free pages back to the disk, which a journal of an older version does only so.

    It needs as much space again while it works.
    """
    with exit_codes():
        from colordaemon.service.journal_upkeep import vacuum

        typer.echo(vacuum(load_config(config)))


def _tell(config: Path, verb: str, jobs: list[str]) -> None:
    count = _ask(config, {"verb": verb, "jobs": [_named(job) for job in jobs]})["count"]
    typer.echo(f"{count} file(s)")
    if jobs and not count:
        raise typer.Exit(FAILED)


def _named(job: str) -> str:
    """Paths start here and not where the daemon runs."""
    return job if job.isdecimal() else os.path.realpath(job)


def _ask(config: Path, request: dict[str, Any]) -> Reply:
    with exit_codes():
        from colordaemon.service.control import NoAnswer, run_command

        try:
            return run_command(load_config(config), request)
        except (BadRequest, NoAnswer) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(FAILED) from None
    raise typer.Exit(CONFIGURATION)
