"""What the daemon is doing: a line for systemd, JSON for programs, tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from colordaemon.logs import printable
from colordaemon.service.job import Job, State
from colordaemon.service.records import Records

Reply = dict[str, Any]  # travels as JSON
LISTED = 1000  # jobs in one reply


@dataclass(frozen=True)
class DaemonStatus:
    """What a running daemon is doing.

    device: what colors, empty while the model is loaded. running: the names of the files that are
    worked on, each with its progress as text. waiting: why work, or a part of it, waits.
    """

    device: str
    queued: int
    settling: int
    running: Sequence[tuple[str, str]]
    waiting: str | None

    @property
    def line(self) -> str:
        """For systemd and for people."""
        parts = [f"{self.queued} queued", f"{self.settling} settling"]
        parts += [printable(name) + (f" {pace}" if pace else "") for name, pace in self.running]
        parts.append(self.device or "loading the model")
        if self.waiting:
            parts.append(f"waiting: {printable(self.waiting)}")
        return ", ".join(parts)

    def as_json(
        self,
        inboxes: Sequence[Reply],
        running: Sequence[Reply],
        cluster: Mapping[str, object] | None = None,
    ) -> Reply:
        """inboxes: each as `Inbox.as_json`. running: each a job number with `Pace.as_json`.
        cluster: as `cluster.Cluster.as_json`; None before a film has needed it, and without one.
        orphaned: jobs that wait for an inbox which is no longer in the configuration."""
        return {
            "on": self.device,
            "settling": self.settling,
            "waiting": self.waiting,
            "status": self.line,
            "inboxes": [*inboxes],
            "running": [*running],
            "cluster": cluster,
            "orphaned": self.queued - sum(inbox["queued"] for inbox in inboxes),
        }


def status(records: Records) -> Reply:
    """Counts of all states, the running jobs and the last that failed."""
    counts = {str(state): count for state, count in records.counts().items()}
    running = records.jobs(State.RUNNING, State.PUBLISHING)
    failed = records.listed(State.FAILED, limit=20)
    return {
        "version": 2,
        "counts": counts,
        "paused": records.fact("paused") == "yes",
        "running": [listed(job) for job in running],
        "failed": [listed(job) for job in failed],
    }


def queue(records: Records) -> Reply:
    """The running and waiting jobs, in the order of work."""
    open_ones = records.jobs(State.RUNNING, State.PUBLISHING, State.QUEUED, limit=LISTED)
    return {"jobs": [listed(job) for job in open_ones]}


def listed(job: Job) -> Reply:
    """A job in a list, for programs; the same keys as a hook reads."""
    return job.as_json() | {"not_before": job.not_before, "priority": job.priority}


def show_status(reply: Reply, console: Console) -> None:
    """One line on the daemon, one on the counts, the inboxes, what is running and what failed."""
    daemon = reply["daemon"]
    console.print(Text(daemon["status"] if daemon else "the daemon is not running"))
    console.print(Text(", ".join(f"{count} {state}" for state, count in reply["counts"].items())))
    if daemon:
        show_inboxes(daemon["inboxes"], console)
        if count := daemon["orphaned"]:
            console.print(Text(f"{count} orphaned: their inboxes are not in the configuration"))
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
    for late in (late for inbox in inboxes for late in inbox["late"]):
        console.print(Text(printable(f"{late['path']} {late['why']}")))


def show_jobs(jobs: Sequence[Reply], console: Console) -> None:
    table = Table("job", "state", "file", "why", box=None)
    for job in jobs:
        cells = (str(job["id"]), job["state"], printable(job["source"]), printable(job["reason"]))
        table.add_row(*map(Text, cells))
    console.print(table)
