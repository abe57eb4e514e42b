"""What an operator can ask of a daemon, running or not: the same verbs on the same journal.

Requests and replies are plain dicts, since they travel as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from colordaemon.service.hooks import announcement
from colordaemon.service.job import Job, State
from colordaemon.service.journal import Journal
from colordaemon.service.records import Records

Reply = dict[str, Any]
LISTED = 1000  # jobs in one reply
FEW = 1000  # jobs in one turn; writing them anew takes 20 ms
_RETRIED = "retried up to"  # a fact: which of all that failed are queued again
MOST = 10_000  # jobs in one request: looking them up takes half a second


class BadRequest(Exception):
    """A request that nobody understands, or for a job that there is not."""


class Commands:
    """The verbs.

    cancel_running: asks a running daemon to leave a file; False if it is not at it.
    """

    def __init__(
        self,
        journal: Journal,
        wall: Callable[[], float],
        *,
        cancel_running: Callable[[int], bool] = lambda number: False,
    ) -> None:
        self._journal, self._wall, self._cancel_running = journal, wall, cancel_running

    def run(self, request: Reply) -> Reply:
        """Raises BadRequest."""
        verb, which = request.get("verb"), request.get("jobs", [])
        if verb == "status":
            return status(self._journal)
        if verb == "queue":
            return queue(self._journal)
        if verb in ("pause", "resume"):
            self._journal.note("paused", "yes" if verb == "pause" else "")
            return {"paused": verb == "pause"}
        if verb == "retry":
            return {"count": self._retry(self._ids(which))}
        if verb == "forget":
            return {"count": self._journal.forget(self._ids(which))}
        if verb == "first":
            return {"count": self._journal.put_first(self._ids(which))}
        if verb == "cancel":
            return {"count": self._cancel(self._ids(which))}
        raise BadRequest(f"unknown verb {_shown(repr(verb))}")

    def turn(self) -> None:
        """Go on with what many jobs are concerned by; a few of them at a time."""
        if behind := self._journal.fact(_RETRIED):
            ids = self._journal.ids(State.FAILED, behind=int(behind), limit=FEW)
            self._journal.retry(self._wall(), ids)
            self._journal.note(_RETRIED, str(ids[-1]) if len(ids) == FEW else "")

    @property
    def is_busy(self) -> bool:
        """Whether more is to be done, in this life or the next."""
        return self._journal.fact(_RETRIED) != ""

    def _retry(self, ids: Sequence[int]) -> int:
        """These, or all that failed."""
        if ids:
            return self._journal.retry(self._wall(), ids)
        count = self._journal.counts()[State.FAILED]
        self._journal.note(_RETRIED, "0")
        self.turn()
        return count

    def _cancel(self, ids: Sequence[int]) -> int:
        running = sum(self._cancel_running(number) for number in ids)
        return running + self._journal.cancel(ids, self._wall())

    def _ids(self, which: object) -> list[int]:
        """Numbers of jobs; a path stands for the latest job of that file."""
        if not isinstance(which, list):
            raise BadRequest(f"jobs: expected a list, found {_shown(which)}")
        if len(which) > MOST:
            raise BadRequest(f"jobs: found {len(which)}, expected at most {MOST} in one request")
        return [self._id(one) for one in which]

    def _id(self, one: object) -> int:
        if isinstance(one, bool) or not isinstance(one, int | str):
            raise BadRequest(f"jobs: expected numbers and paths, found {_shown(one)}")
        try:
            if isinstance(one, int) or one.isdecimal():
                return self._journal.job(int(one)).id
            # Looked up by its name alone: a path that a caller makes up may lead to a disk that
            # hangs, and whoever asks has resolved it.
            return self._journal.of_source(Path(os.path.abspath(one)))[0].id  # noqa: PTH100
        except (KeyError, OverflowError):
            raise BadRequest(f"no job {_shown(one)}") from None
        except (IndexError, ValueError):  # ValueError: what can be the name of no file
            raise BadRequest(f"no job for {_shown(one)}") from None


def _shown(value: object) -> str:
    """As much of what somebody has sent as is worth repeating."""
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def status(records: Records) -> Reply:
    """What is being done and what failed."""
    counts = {str(state): count for state, count in records.counts().items()}
    running = records.jobs(State.RUNNING, State.PUBLISHING)
    failed = records.jobs(State.FAILED, limit=20)
    return {
        "version": 1,
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
