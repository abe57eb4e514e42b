"""What becomes of a file, after all that the worker may say of it, and after the worker's death."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from colordaemon.inbox.safe_open import Obstructed
from colordaemon.service.job import Job, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import Ends
from colordaemon.service.messages import (
    Alive,
    Begun,
    Fault,
    Finished,
    FromWorker,
    Refused,
    Segment,
)
from colordaemon.service.pauses import Holds, Space
from colordaemon.service.running import Hands, Task
from colordaemon.service.unpublished import Unpublished

log = logging.getLogger(__name__)

ROOM_WAITS = 10  # as long as others wait for space; a look at a film costs seconds
OBSTACLE_SECONDS = 3600.0  # between two warnings of the same


class Outcomes:
    """`now` is in seconds of a clock that never jumps, `wall` in Unix seconds.

    suspects: inboxes that seem to be gone.
    """

    def __init__(
        self, journal: Journal, hands: Hands, holds: Holds, space: Space, unpublished: Unpublished
    ) -> None:
        self._journal, self._hands, self._holds = journal, hands, holds
        self._space, self._unpublished = space, unpublished
        self.suspects: set[Path] = set()
        self._obstacles: dict[str, float] = {}  # when each was said

    def hear(self, message: FromWorker, now: float, wall: float) -> None:
        """What the worker says of a file."""
        match message:
            case Begun(number):
                self._hands.begin(number, now)
            case Alive(number):
                self._hands[number].pace.feed(message, now)
            case Segment(number, _):
                self._journal.progress(self._hands[number].job)
            case Finished():
                self._finished(message, now, wall)
            case Refused():
                self._refused(message, now, wall)

    def worker_died(self, cause: str, wall: float) -> None:
        """The file that it was working on is to blame, and no other."""
        blamed = self._hands.begun_last
        for task in self._hands:
            if task.job.id == blamed:
                self._hands.leave(task.job.id)
                # A file that was cut short under libraries that map it kills them.
                if self.is_still_there(task.job, task.ends, wall):
                    task.ends.crashed(task.job, cause, wall)
            else:
                self._give_back(task, wall)
        if blamed is None:
            log.warning("the worker has ended (%s)", cause)

    def is_still_there(self, job: Job, ends: Ends, wall: float) -> bool:
        """Whether a job's source is what was queued; if not, it is said and done."""
        if ends.is_still_there(job, wall):
            return True
        if not ends.inbox_is_there():
            self.suspects.add(ends.places.inbox)
        return False

    def _finished(self, said: Finished, now: float, wall: float) -> None:
        task = self._hands.leave(said.job)
        self._holds.succeeded()
        try:
            task.ends.finished(task.job, said, now - task.began, wall)
        except OSError as error:
            job = self._journal.job(said.job)
            if job.state is State.PUBLISHING:  # perhaps it has its name already
                self._unpublished.add([job])
                if not isinstance(error, Obstructed):
                    reason = f"cannot publish {job.target}: {error.strerror}"
                    self._space.wait(task.ends.places.outbox, reason, now)
            elif isinstance(error, Obstructed):
                reason = f"{error.filename}: {error.strerror}"
                self._wait_for_way(job, task.ends, reason, now, wall)
            else:
                task.ends.failed_here(job, str(error), wall)

    def _refused(self, said: Refused, now: float, wall: float) -> None:
        task = self._hands[said.job]
        job, ends = task.job, task.ends
        reason = said.reason.removeprefix(f"{job.source}: ")
        if task.is_cancelled:
            self._hands.leave(said.job)
            ends.set_aside(job, State.CANCELLED, "asked", "cancelled by command", wall)
            return
        if said.fault is Fault.STOPPED:
            self._give_back(task, wall)
            return
        self._hands.leave(said.job)
        if said.fault is Fault.SPACE:
            # Twice as long as all others wait, since they may be smaller.
            wait_seconds = 2 * self._space.wait_seconds
            ends.give_back(job, "space", reason, wall, wait_seconds=wait_seconds)
            self._space.wait(ends.places.outbox, reason, now)
        elif said.fault is Fault.ROOM:
            wait_seconds = ROOM_WAITS * self._space.wait_seconds
            ends.give_back(job, "space", reason, wall, wait_seconds=wait_seconds)
            if reason != job.reason:
                log.warning("%s waits for space, and no other: %s", job.source, reason)
        elif said.fault is Fault.WAY:
            self._wait_for_way(job, ends, reason, now, wall)
        elif said.fault is Fault.SETTINGS:
            ends.give_back(job, "settings", reason, wall)
            log.error("work waits for other settings: %s", reason)
            self._holds.hold("settings", reason)
        elif self.is_still_there(job, ends, wall):  # else whatever was said of it is explained
            self._judge(task, said.fault, reason, now, wall)

    def _wait_for_way(self, job: Job, ends: Ends, reason: str, now: float, wall: float) -> None:
        """Something stands where its folder in the outbox belongs. Whoever put that there, it is
        not the file's fault, and no other file's either; the operator is told what to take away."""
        ends.give_back(job, "way", reason, wall, wait_seconds=ROOM_WAITS * self._space.wait_seconds)
        if now >= self._obstacles.get(reason, -math.inf) + OBSTACLE_SECONDS:
            self._obstacles[reason] = now
            log.warning("results wait that belong there: %s", reason)

    def _judge(self, task: Task, fault: Fault, reason: str, now: float, wall: float) -> None:
        """A file failed, by its own fault or the machine's."""
        job, ends = task.job, task.ends
        if fault is Fault.UNFORESEEN:
            ends.stumbled(job, reason, wall)
        elif fault in (Fault.MACHINE, Fault.FILE, Fault.CHANGED):  # which by now it is no more
            ends.failed_here(job, reason, wall)
            if fault is Fault.MACHINE and self._holds.failed(job.id, now):
                log.error("work is paused: %s", self._holds.reason(now))
        elif fault is Fault.MEDIA and ends.may_be_half(job, reason, wall):
            pass
        else:
            state = State.SKIPPED if fault is Fault.COLOR else State.FAILED
            ends.set_aside(job, state, str(fault), reason, wall)

    def _give_back(self, task: Task, wall: float) -> None:
        task.ends.give_back(task.job, "stopped", "", wall)
        self._hands.leave(task.job.id)
