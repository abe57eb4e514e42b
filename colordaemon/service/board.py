"""The state of the daemon as tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from colordaemon.printable import printable
from colordaemon.service.commands import Reply


def show_status(reply: Reply, console: Console) -> None:
    """One line on the daemon, one on the counts, the inboxes, what is running and what failed."""
    daemon = reply["daemon"]
    console.print(Text(daemon["status"] if daemon else "the daemon is not running"))
    console.print(Text(", ".join(f"{count} {state}" for state, count in reply["counts"].items())))
    if daemon:
        show_inboxes(daemon["inboxes"], console)
        if daemon["strangers"]:
            console.print(
                Text(f"{daemon['strangers']} queued for inboxes that are configured no more")
            )
    if reply["paused"]:
        console.print(Text("paused by command; `colordaemon resume` goes on"))
    if reply["running"] or reply["failed"]:
        show_jobs([*reply["running"], *reply["failed"]], console)


def show_inboxes(inboxes: Sequence[Reply], console: Console) -> None:
    table = Table("inbox", "state", "queued", "settling", "outbox", "why", box=None)
    for inbox in inboxes:
        cells = (inbox[key] for key in ("inbox", "state", "queued", "settling", "outbox", "why"))
        table.add_row(*(Text(printable(str(cell))) for cell in cells))
    console.print(table)


def show_jobs(jobs: Sequence[Reply], console: Console) -> None:
    table = Table("job", "state", "file", "why", box=None)
    for job in jobs:
        cells = (str(job["id"]), job["state"], printable(job["source"]), printable(job["reason"]))
        table.add_row(*map(Text, cells))
    console.print(table)
