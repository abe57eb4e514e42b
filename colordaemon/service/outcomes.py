"""What follows from each message of a worker about a job, and from its death."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.inbox.safe_open import Obstructed
from colordaemon.service.job import Job, Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import JobLifecycle, Unpublished
from colordaemon.service.messages import (
    Failed,
    Fault,
    Finished,
    FromWorker,
    Heartbeat,
    Progress,
    Segment,
    Started,
)
from colordaemon.service.pauses import OutboxSpace, Pauses
from colordaemon.service.running import RunningJobs, Task

ROOM_WAITS = 10  # times the usual wait for space, since opening a film again costs seconds
OBSTACLE_SECONDS = 3600.0  # between two warnings about the same obstacle
log = logging.getLogger(__name__)


class Outcomes:
    """Handles what workers say about jobs: started, progress, finished, failed; and their death.

    missing_inboxes: inboxes that seem to be gone. alone: jobs that are worked on while no other is:
    they need more memory than there would be, or may have ended the worker.
    """

    def __init__(
        self,
        journal: Journal,
        running: RunningJobs,
        pauses: Pauses,
        space: OutboxSpace,
        unpublished: Unpublished,
    ) -> None:
        self._journal, self._running, self._pauses = journal, running, pauses
        self._space, self._unpublished = space, unpublished
        self.missing_inboxes: set[Path] = set()
        self.alone: set[int] = set()
        self._obstacles: dict[str, float] = {}  # when each was logged

    def handle(self, message: FromWorker, now: Monotonic, wall: UnixTime) -> None:
        """Handle a message about a job."""
        match message:
            case Started(number):
                self._running.begin(number, now)
            case Progress(number):
                self._running[number].pace.feed(message, now)
            case Heartbeat(number, stage, share) if stage:
                self._running[number].pace.enter(stage, share)
            case Segment(number, _):
                self._journal.progress(self._running[number].job)
            case Finished():
                self._finished(message, now, wall)
            case Failed():
                self._failed(message, now, wall)

    def worker_died(self, worker: int, cause: str, wall: UnixTime) -> None:
        """Blame the file that the worker was working on, and no other; queue the others that it
        had again. If it was working on several, each of them is tried alone."""
        suspects = self._running.at_work(worker)
        for task in self._running.of(worker):
            if suspects == [task]:
                self._running.leave(task.job.id)
                # A file that was cut short under libraries that map it kills them.
                if self.is_still_there(task.job, task.lifecycle, wall):
                    task.lifecycle.crashed(task.job, cause, wall)
            else:
                if task in suspects:
                    self.alone.add(task.job.id)
                self._requeue(task, wall)
        if len(suspects) != 1:
            log.warning("a worker has ended (%s)", cause)

    def is_still_there(self, job: Job, lifecycle: JobLifecycle, wall: UnixTime) -> bool:
        """Whether a job's source is still what was queued; if not, the job is cancelled or
        waits."""
        if lifecycle.is_still_there(job, wall):
            return True
        if not lifecycle.inbox_is_there():
            self.missing_inboxes.add(lifecycle.folders.inbox)
        return False

    def _finished(self, said: Finished, now: Monotonic, wall: UnixTime) -> None:
        task = self._running.leave(said.job)
        self._pauses.succeeded()
        try:
            task.lifecycle.finished(task.job, said, now - task.began, wall)
        except OSError as error:
            job = self._journal.job(said.job)
            if job.state is State.PUBLISHING:  # it may have its name already
                self._unpublished.add([job])
                if not isinstance(error, Obstructed):
                    reason = f"cannot publish {job.target}: {error.strerror}"
                    self._space.wait(task.lifecycle.folders.outbox, reason, now)
            elif isinstance(error, Obstructed):
                reason = f"{error.filename}: {error.strerror}"
                self._wait_for_folder(job, task.lifecycle, reason, now, wall)
            else:
                task.lifecycle.retry_later(job, str(error), wall)

    def _failed(self, said: Failed, now: Monotonic, wall: UnixTime) -> None:
        task = self._running[said.job]
        job, lifecycle = task.job, task.lifecycle
        reason = said.reason.removeprefix(f"{job.source}: ")
        if task.is_cancelled:
            self._running.leave(said.job)
            lifecycle.set_aside(job, State.CANCELLED, Reason.ASKED, "cancelled by command", wall)
            return
        if said.fault is Fault.STOPPED:
            self._requeue(task, wall)
            return
        self._running.leave(said.job)
        if said.fault is Fault.SPACE:
            # Twice as long as the others wait, which may be smaller.
            wait_seconds = 2 * self._space.wait_seconds
            lifecycle.requeue(job, Reason.SPACE, reason, wall, wait_seconds=wait_seconds)
            self._space.wait(lifecycle.folders.outbox, reason, now)
        elif said.fault is Fault.ROOM:
            wait_seconds = ROOM_WAITS * self._space.wait_seconds
            lifecycle.requeue(job, Reason.SPACE, reason, wall, wait_seconds=wait_seconds)
            if reason != job.reason:
                log.warning("%s waits for space; other files go on: %s", job.source, reason)
        elif said.fault is Fault.MEMORY:
            self.alone.add(job.id)
            lifecycle.requeue(job, Reason.MEMORY, reason, wall)
            log.info("%s waits until it can have all memory: %s", job.source, reason)
        elif said.fault is Fault.WAY:
            self._wait_for_folder(job, lifecycle, reason, now, wall)
        elif said.fault is Fault.SETTINGS:
            lifecycle.requeue(job, Reason.SETTINGS, reason, wall)
            log.error("work is paused until the settings are changed: %s", reason)
            self._pauses.add("settings", reason)
        elif self.is_still_there(job, lifecycle, wall):  # if not, that explains the failure
            self._handle_fault(task, said.fault, reason, now, wall)

    def _wait_for_folder(
        self, job: Job, lifecycle: JobLifecycle, reason: str, now: Monotonic, wall: UnixTime
    ) -> None:
        """Something else stands where its folder in the outbox belongs. That is not the file's
        fault, and other files go on; the log tells the operator what to remove."""
        wait = ROOM_WAITS * self._space.wait_seconds
        lifecycle.requeue(job, Reason.WAY, reason, wall, wait_seconds=wait)
        if now >= self._obstacles.get(reason, -math.inf) + OBSTACLE_SECONDS:
            self._obstacles[reason] = now
            log.warning("a result cannot be written, and its file waits: %s", reason)

    def _handle_fault(
        self, task: Task, fault: Fault, reason: str, now: Monotonic, wall: UnixTime
    ) -> None:
        """A file failed, by its own fault or the machine's: fail it, or try it again."""
        job, lifecycle = task.job, task.lifecycle
        if fault is Fault.UNFORESEEN:
            lifecycle.failed_unexpectedly(job, reason, wall)
        elif fault is Fault.CRASH:
            lifecycle.crashed(job, reason, wall)
        elif fault is Fault.GUIDE:
            lifecycle.requeue(job, Reason.GUIDE, reason, wall)
            log.info("%s: begins anew: %s", job.source, reason)
        elif fault in (Fault.MACHINE, Fault.FILE, Fault.CHANGED):  # and back again by now
            lifecycle.retry_later(job, reason, wall)
            if fault is Fault.MACHINE and self._pauses.failed(job.id, now):
                log.error("work is paused: %s", self._pauses.reason(now))
        elif fault is Fault.MEDIA and lifecycle.may_be_incomplete(job, reason, wall):
            pass
        else:
            state = State.SKIPPED if fault is Fault.COLOR else State.FAILED
            lifecycle.set_aside(job, state, Reason(fault), reason, wall)

    def _requeue(self, task: Task, wall: UnixTime) -> None:
        task.lifecycle.requeue(task.job, Reason.STOPPED, "", wall)
        self._running.leave(task.job.id)
