"""What the daemon is doing: a line for systemd, JSON for programs, tables for a terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from colordaemon.logs import printable
from colordaemon.service.hooks import announcement
from colordaemon.service.inboxes import Inbox, Inboxes
from colordaemon.service.job import Job, State
from colordaemon.service.records import Records
from colordaemon.service.scheduler import Scheduler

Reply = dict[str, Any]  # travels as JSON
LISTED = 1000  # jobs in one reply


class StatusReport:
    """`now` is in seconds of a clock that never jumps."""

    def __init__(self, records: Records, inboxes: Inboxes, dispatcher: Scheduler) -> None:
        self._records, self._inboxes, self._scheduler = records, inboxes, dispatcher

    def line(self, now: float) -> str:
        queued = self._records.queued()
        parts = [f"{queued} queued", f"{self._inboxes.settling} settling"]
        for task in self._scheduler.running:
            pace = str(task.pace)
            parts.append(printable(task.job.source.name) + (f" {pace}" if pace else ""))
        parts.append(self._scheduler.ready_on or "loading the model")
        if reason := self._waiting(now):
            parts.append(f"waiting: {printable(reason)}")
        return ", ".join(parts)

    def details(self, now: float) -> Reply:
        """orphaned: jobs that wait for an inbox which is no longer in the configuration."""
        inboxes = [self._described(inbox) for inbox in self._inboxes]
        queued = self._records.queued()
        return {
            "on": self._scheduler.ready_on,
            "settling": self._inboxes.settling,
            "waiting": self._waiting(now),
            "status": self.line(now),
            "inboxes": inboxes,
            "orphaned": queued - sum(inbox["queued"] for inbox in inboxes),
        }

    def _waiting(self, now: float) -> str | None:
        """Why all work, or a part of it, stands still."""
        gone = [str(each.places.inbox) for each in self._inboxes if each.watch.is_gone]
        reasons = [f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone"] if gone else []
        reasons += filter(
            None, (self._scheduler.pauses.reason(now), self._scheduler.space.reason(now))
        )
        return "; ".join(reasons) or None

    def _described(self, inbox: Inbox) -> Reply:
        return {
            "inbox": os.fspath(inbox.places.inbox),
            "outbox": os.fspath(inbox.places.outbox),
            "state": "gone" if inbox.watch.is_gone else "watched",
            "why": inbox.watch.trouble,
            "settling": inbox.watch.settling,
            "queued": self._records.queued([inbox.places.inbox]),
        }


def status(records: Records) -> Reply:
    """What is being done and what failed."""
    counts = {str(state): count for state, count in records.counts().items()}
    running = records.jobs(State.RUNNING, State.PUBLISHING)
    failed = records.jobs(State.FAILED, limit=20)
    return {
        "version": 2,
        "counts": counts,
        "paused": records.fact("paused") == "yes",
        "running": [listed(job) for job in running],
        "failed": [listed(job) for job in failed],
    }


def queue(records: Records) -> Reply:
    """What is being done and what waits, in order."""
    open_ones = records.jobs(State.RUNNING, State.PUBLISHING, State.QUEUED, limit=LISTED)
    return {"jobs": [listed(job) for job in open_ones]}


def listed(job: Job) -> Reply:
    """A job in a list, for programs; the same keys as a hook reads."""
    return announcement(job) | {"not_before": job.not_before, "priority": job.priority}


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


def show_jobs(jobs: Sequence[Reply], console: Console) -> None:
    table = Table("job", "state", "file", "why", box=None)
    for job in jobs:
        cells = (str(job["id"]), job["state"], printable(job["source"]), printable(job["reason"]))
        table.add_row(*map(Text, cells))
    console.print(table)
