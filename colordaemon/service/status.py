"""What a running daemon says of itself: a line for systemd and people, and the details."""

from __future__ import annotations

import os

from colordaemon.printable import printable
from colordaemon.service.commands import Reply
from colordaemon.service.inboxes import Inbox, Inboxes
from colordaemon.service.records import Records
from colordaemon.service.scheduler import Scheduler


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
        """strangers: jobs that wait for an inbox which is configured no more."""
        inboxes = [self._described(inbox) for inbox in self._inboxes]
        queued = self._records.queued()
        return {
            "on": self._scheduler.ready_on,
            "settling": self._inboxes.settling,
            "waiting": self._waiting(now),
            "status": self.line(now),
            "inboxes": inboxes,
            "strangers": queued - sum(inbox["queued"] for inbox in inboxes),
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
