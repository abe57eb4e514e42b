"""Commands for several machines: a node, and what all of them do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colordaemon.cli.common import FAILED, SYSTEM_CONFIG, app, exit_codes, load
from colordaemon.cli.daemon import AsJson, Settings
from colordaemon.cli.help import Commands, Group, examples
from colordaemon.errors import ConfigError
from colordaemon.logs import printable

if TYPE_CHECKING:
    from rich.console import Console

    from colordaemon.config import Config


@app.command(
    epilog=examples(
        "colordaemon node --head --config config.yaml", "colordaemon node --new-token token"
    )
)
def node(
    config: Settings = SYSTEM_CONFIG,
    head: Annotated[
        bool, typer.Option("--head", help="Begin the cluster: on the machine of cluster.address.")
    ] = False,
    works: Annotated[
        bool, typer.Option("--work/--no-work", help="Whether this machine colors, too.")
    ] = True,
    first_port: Annotated[
        int | None,
        typer.Option(metavar="N", help="The first of 200 ports; default: after the head's."),
    ] = None,
    new_token: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a new secret for cluster.token_file, and end."),
    ] = None,
) -> None:
    """Color segments and photos for the daemon on another machine, until stopped."""
    with exit_codes():
        from colordaemon.cluster import node

        if new_token is not None:
            node.new_token(new_token)
            typer.echo(f"wrote {new_token}; give it to all machines, and to nobody else")
            return
        settings = load(config).cluster
        node.run_node(settings, head=head, works=works, first_port=first_port)


cluster = Commands(
    cls=Group,
    help="Look at the machines of a cluster.",
    no_args_is_help=True,
    epilog=examples("colordaemon cluster status", "colordaemon cluster status --json"),
)
app.add_typer(cluster, name="cluster")


@cluster.command(
    "status",
    epilog=examples(
        "colordaemon cluster status --config config.yaml", "colordaemon cluster status --json"
    ),
)
def cluster_status(config: Settings = SYSTEM_CONFIG, as_json: AsJson = False) -> None:
    """Show the machines, their GPUs, what each works on, and what work waits for."""
    with exit_codes():
        found = _machines(load(config))
        if as_json:
            typer.echo(json.dumps(found))
        else:
            from rich.console import Console

            _show(found, Console())
        if not found["nodes"]:
            raise typer.Exit(FAILED)


def _machines(config: Config) -> dict[str, Any]:
    """As a daemon at work tells, which knows what each does; else as the cluster tells, since a
    daemon without work has seen them long ago. Of that we only know if we may not read the
    token."""
    from colordaemon.inbox.folders import find_folders
    from colordaemon.service.control import ask

    told: dict[str, Any] = {}
    if config.state_dir is not None:
        reply = ask(find_folders(config)[0].control, {"verb": "status"})
        if reply is not None:
            told = reply["daemon"]["cluster"] or {}
            if told and reply["daemon"]["running"]:
                return told
    from colordaemon.cluster.cluster import look_at

    try:
        return look_at(config.cluster)
    except ConfigError:
        if told:
            return told
        raise


def _show(found: dict[str, Any], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(Text(f"cluster at {found['address']}"))
    table = Table("machine", "GPUs", "cores", "workers", "works on", "why not", box=None)
    for node in found["nodes"]:
        workers = node["workers"]
        ready = sum(worker["is_ready"] for worker in workers)
        work = [
            f"{Path(worker['film']).name} from {worker['seconds']:.0f} s"
            for worker in workers
            if worker["film"]
        ]
        work += [Path(worker["photo"]).name for worker in workers if worker["photo"]]
        table.add_row(
            *(
                Text(printable(cell))
                for cell in (
                    node["name"],
                    f"{node['gpus']:g}",
                    f"{node['cpus']:g}",
                    f"{ready} of {len(workers)}" if workers else "",
                    "; ".join(work),
                    node["refused"],
                )
            )
        )
    console.print(table)
    if found["waiting"]:
        console.print(Text(f"work waits {found['waiting']}"))
