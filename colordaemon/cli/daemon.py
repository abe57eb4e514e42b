"""Commands that run, install and control the daemon."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colordaemon.cli.common import (
    CONFIGURATION,
    FAILED,
    SYSTEM_CONFIG,
    app,
    exit_codes,
    load,
    refuse_beside,
)
from colordaemon.cli.help import Commands, Group, examples
from colordaemon.errors import ModelError, WorkerLost
from colordaemon.logs import counted, printable

if TYPE_CHECKING:
    from colordaemon.service.status import Reply

log = logging.getLogger(__name__)

Settings = Annotated[
    Path,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="COLORDAEMON_CONFIG",
        help="The configuration file; inbox, outbox and state_dir are enough.",
    ),
]
Jobs = Annotated[
    list[str], typer.Argument(metavar="JOB", help="Job numbers, or paths of their files.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog=examples("colordaemon watch", "colordaemon watch --config config.yaml"))
def watch(config: Settings = SYSTEM_CONFIG) -> None:
    """Run the daemon: color every file that is put into the inbox, until stopped."""
    with exit_codes():
        from colordaemon.service.daemon import watch_forever

        try:
            watch_forever(lambda: load(config))
        except (ModelError, WorkerLost) as error:
            # Not 78, after which systemd would not restart us: a GPU may be ready later than we
            # are.
            log.error("%s", error)
            raise typer.Exit(FAILED) from None


@app.command(
    epilog=examples(
        "colordaemon install-service --config /etc/colordaemon/config.yaml",
        "colordaemon install-service --user --config config.yaml",
    )
)
def install_service(
    config: Settings = SYSTEM_CONFIG,
    user: Annotated[
        bool, typer.Option("--user", help="Install for your user only, without root.")
    ] = False,
    per_gpu: Annotated[
        bool, typer.Option("--per-gpu", help="Also a template unit: colordaemon@0 reads 0.yaml.")
    ] = False,
    node: Annotated[
        bool, typer.Option("--node", help="Also a unit for `colordaemon node`; see cluster.")
    ] = False,
    head: Annotated[
        bool, typer.Option("--head", help="With --node: this machine begins the cluster.")
    ] = False,
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Write below this folder instead of /.")
    ] = Path("/"),
) -> None:
    """Write systemd units for the folders of your configuration, and print what to do next."""
    with exit_codes():
        from colordaemon import install

        if user:
            why = "a template unit is for the whole machine"
            refuse_beside("--user", {"--per-gpu": per_gpu}, why)
        settings, file, program = load(config), config.absolute(), install.this_program()
        if user:
            units = install.user_units(settings, file, program, Path.home())
        else:
            units = install.system_units(settings, file, program)
            units += [install.gpu_unit(settings, file, program)] if per_gpu else []
            units += [install.node_unit(settings, file, program, head=head)] if node else []
        for path in install.write_units(units, root):
            typer.echo(f"wrote {path}")
        if user:
            typer.echo("next: systemctl --user daemon-reload")
            typer.echo("      systemctl --user enable --now colordaemon")
        else:
            typer.echo("next: systemd-sysusers && systemd-tmpfiles --create")
            typer.echo("      systemctl daemon-reload && systemctl enable --now colordaemon")
        if node:
            typer.echo("to color for other machines: systemctl enable --now colordaemon-node")
        again = "systemctl --user" if user else "systemctl"
        typer.echo(f"for the page at {settings.web.listen}: {again} enable --now colordaemon-web")


@app.command(
    epilog=examples("colordaemon status", "colordaemon status --json --config config.yaml")
)
def status(
    config: Settings = SYSTEM_CONFIG,
    as_json: AsJson = False,
    again: Annotated[bool, typer.Option("--watch", help="Repeat every two seconds.")] = False,
    ignored: Annotated[
        bool,
        typer.Option(
            "--ignored", help="List files in the inboxes that are ignored, with the reasons."
        ),
    ] = False,
) -> None:
    """Show what the daemon is doing and what failed; works without a running daemon, too."""
    if ignored:
        with exit_codes():
            refuse_beside("--ignored", {"--watch": again}, "that list is made once")
        _list_ignored(config, as_json)
        return
    from colordaemon.service.status import status_text

    while True:
        reply = _ask(config, {"verb": "status"})
        if as_json:
            typer.echo(json.dumps(reply))
        else:
            typer.echo(status_text(reply))
        if not again:
            return
        time.sleep(2.0)


def _list_ignored(config: Path, as_json: bool) -> None:
    from colordaemon.inbox.scan import list_ignored

    with exit_codes():
        found = list(list_ignored(load(config)))
    if as_json:
        typer.echo(json.dumps([{"path": path, "reason": reason} for path, reason in found]))
    else:
        for path, reason in found:
            typer.echo(f"{printable(path)}: {reason}")


@app.command(epilog=examples("colordaemon queue", "colordaemon queue --json --config config.yaml"))
def queue(config: Settings = SYSTEM_CONFIG, as_json: AsJson = False) -> None:
    """List running and waiting jobs, in the order of work."""
    reply = _ask(config, {"verb": "queue"})
    if as_json:
        typer.echo(json.dumps(reply))
    else:
        from colordaemon.service.status import jobs_text

        typer.echo(jobs_text(reply["jobs"]))


@app.command(epilog=examples("colordaemon retry", "colordaemon retry 12 /srv/in/film.mp4"))
def retry(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB", help="Job numbers or paths; default: all failed jobs."),
    ] = None,
    config: Settings = SYSTEM_CONFIG,
) -> None:
    """Queue failed, skipped or cancelled files again, and those that are done if you name them."""
    _tell(config, "retry", jobs or [])


@app.command(epilog=examples("colordaemon forget 12", "colordaemon forget /srv/in/film.mp4"))
def forget(jobs: Jobs, config: Settings = SYSTEM_CONFIG) -> None:
    """Delete finished jobs from the journal; files still in the inbox are colored again."""
    _tell(config, "forget", jobs)


@app.command(epilog=examples("colordaemon cancel 12", "colordaemon cancel /srv/in/film.mp4"))
def cancel(jobs: Jobs, config: Settings = SYSTEM_CONFIG) -> None:
    """Cancel waiting or running jobs."""
    _tell(config, "cancel", jobs)


@app.command(epilog=examples("colordaemon first 12", "colordaemon first /srv/in/film.mp4"))
def first(jobs: Jobs, config: Settings = SYSTEM_CONFIG) -> None:
    """Move jobs to the front of the queue."""
    _tell(config, "first", jobs)


@app.command(epilog=examples("colordaemon pause", "colordaemon pause --config config.yaml"))
def pause(config: Settings = SYSTEM_CONFIG) -> None:
    """Stop work until `resume`, also after a restart; films keep their finished segments."""
    _ask(config, {"verb": "pause"})
    typer.echo("paused")


@app.command(epilog=examples("colordaemon resume", "colordaemon resume --config config.yaml"))
def resume(config: Settings = SYSTEM_CONFIG) -> None:
    """Go on after `pause`, or after a pause because of failures in a row."""
    _ask(config, {"verb": "resume"})
    typer.echo("no longer paused")


journal = Commands(
    cls=Group,
    help="Check and repair the journal while no daemon runs.",
    epilog=examples("colordaemon journal check", "colordaemon journal rebuild"),
    no_args_is_help=True,
)
app.add_typer(journal, name="journal")


@journal.command(
    "check",
    epilog=examples("colordaemon journal check", "colordaemon journal check --config config.yaml"),
)
def check_journal(config: Settings = SYSTEM_CONFIG) -> None:
    """Check the journal for damage and print its size."""
    with exit_codes():
        from colordaemon.service.journal_upkeep import check

        typer.echo(check(load(config)))


@journal.command(
    "rebuild",
    epilog=examples(
        "colordaemon journal rebuild", "colordaemon journal rebuild --config config.yaml"
    ),
)
def rebuild_journal(config: Settings = SYSTEM_CONFIG) -> None:
    """Start a new journal with all that can be read of the old one, which is kept beside it.

    Files whose results are in the outbox are not colored again.
    """
    with exit_codes():
        from colordaemon.service.journal_upkeep import rebuild

        rebuilt = rebuild(load(config))
        kept = counted(rebuilt.kept, "job")
        typer.echo(f"{kept} kept, {rebuilt.recognized} more recognized by their results")
        if rebuilt.old is not None:
            typer.echo(f"the old journal is now {rebuilt.old}")


@journal.command(
    "vacuum",
    epilog=examples(
        "colordaemon journal vacuum", "colordaemon journal vacuum --config config.yaml"
    ),
)
def vacuum_journal(config: Settings = SYSTEM_CONFIG) -> None:
    """Give free pages of the journal back to the disk; needed once for one of an older version.

    Needs as much space again while it works.
    """
    with exit_codes():
        from colordaemon.service.journal_upkeep import vacuum

        typer.echo(vacuum(load(config)))


_DONE = {
    "retry": "queued again",
    "forget": "forgotten",
    "cancel": "cancelled",
    "first": "moved to the front",
}


def _tell(config: Path, verb: str, jobs: list[str]) -> None:
    reply = _ask(config, {"verb": verb, "jobs": [_named(job) for job in jobs]})
    count, why = reply["count"], reply.get("why")
    typer.echo(f"{counted(count, 'file')} {_DONE[verb]}" + (f"; {why}" if why else ""))
    if jobs and not count:
        raise typer.Exit(FAILED)


def _named(job: str) -> str:
    """Relative paths start at our folder, not at the daemon's."""
    return job if job.isdecimal() else os.path.realpath(job)


def _ask(config: Path, request: dict[str, Any]) -> Reply:
    with exit_codes():
        from colordaemon.service.control import BadRequest, NoAnswer, run_command

        try:
            return run_command(load(config), request)
        except (BadRequest, NoAnswer) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(FAILED) from None
    raise typer.Exit(CONFIGURATION)
