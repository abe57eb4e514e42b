"""What the daemon is doing: a line for systemd, JSON for programs, tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from colordaemon.logs import clock_time, counted, printable
from colordaemon.service.forecast import Forecast, forecast
from colordaemon.service.job import Job, State
from colordaemon.service.records import Records

Reply = dict[str, Any]  # travels as JSON
LISTED = 1000  # jobs in one reply
_NAMED, _SHOWN = 4, 16  # running files on one line, and in a table; with a cluster there are many


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
        parts += [
            printable(name) + (f" {pace}" if pace else "") for name, pace in self.running[:_NAMED]
        ]
        if (more := len(self.running) - _NAMED) > 0:
            parts.append(counted(more, "more file"))
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
    """Counts of all states, the running jobs and the last that failed. left: how many seconds the
    queue will take without these, and of how many files nothing is known."""
    counts = {str(state): count for state, count in records.counts().items()}
    running = records.jobs(State.RUNNING, State.PUBLISHING)
    failed = records.listed(State.FAILED, limit=20)
    return {
        "version": 2,
        "counts": counts,
        "left": asdict(forecast(records)),
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


def status_text(reply: Reply) -> str:
    """One line on the daemon, one on the counts, the inboxes, what is running and what failed."""
    daemon = reply["daemon"]
    lines = [daemon["status"] if daemon else "the daemon is not running"]
    lines.append(", ".join(f"{count} {state}" for state, count in reply["counts"].items()))
    if daemon and (left := _time_left(reply["left"], daemon["running"])):
        lines.append(left)
    if daemon:
        lines.append(inboxes_text(daemon["inboxes"]))
        if count := daemon["orphaned"]:
            lines.append(f"{count} orphaned: their inboxes are not in the configuration")
    if reply["paused"]:
        lines.append("paused by command; `colordaemon resume` goes on")
    if jobs := [*reply["running"][:_SHOWN], *reply["failed"]]:
        lines.append(jobs_text(jobs))
    if (more := len(reply["running"]) - _SHOWN) > 0:
        lines.append(f"and {counted(more, 'more file')} running")
    return "\n".join(lines)


def _time_left(left: Reply, running: Sequence[Reply]) -> str:
    """Of the whole queue; empty where there is none, or nothing is known of it."""
    whole = Forecast(**left).plus(running)
    if not whole.seconds:
        return ""
    more = (
        f", and {counted(whole.unknown, 'file')} of which nothing is known" if whole.unknown else ""
    )
    return f"about {clock_time(whole.seconds)} left for all{more}"


def inboxes_text(inboxes: Sequence[Reply]) -> str:
    keys = "inbox", "state", "queued", "settling", "outbox", "why"
    late = [each for inbox in inboxes for each in inbox["late"]]
    lines = [printable(f"{each['path']} {each['why']}") for each in late]
    return "\n".join((_table(keys, inboxes), *lines))


def jobs_text(jobs: Sequence[Reply]) -> str:
    return _table({"id": "job", "state": "state", "source": "file", "reason": "why"}, jobs)


def _table(columns: Mapping[str, str] | Sequence[str], rows: Sequence[Reply]) -> str:
    """Columns one below the other. By hand, since rich takes half a second for 1000 rows.

    columns: keys of the rows, and perhaps their headings.
    """
    headings = [*columns.values()] if isinstance(columns, Mapping) else [*columns]
    cells = [headings, *([printable(str(row[key])) for key in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
    return "\n".join(padded)
