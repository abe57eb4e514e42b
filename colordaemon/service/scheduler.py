"""Decides which job runs next, and handles the worker's messages."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.convert.routing import Routing
from colordaemon.errors import ModelError
from colordaemon.inbox.folders import Folders
from colordaemon.inbox.safe_open import Obstructed
from colordaemon.service.job import Job, Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import LONGEST_WAIT, JobLifecycle, Unpublished
from colordaemon.service.messages import (
    Failed,
    Fault,
    Finished,
    FromWorker,
    Order,
    Progress,
    Ready,
    Segment,
    Started,
    StartFailed,
    Stop,
)
from colordaemon.service.pauses import OutboxSpace, Pauses
from colordaemon.service.publisher import tag_of
from colordaemon.service.records import FIRST
from colordaemon.service.running import RunningJobs, Task
from colordaemon.service.supervisor import MakeWorker, Supervisor, WorkerProcess

_CLOCK_SECONDS = 1.0  # a clock that differs by more was set back, and does not only run unevenly
ROOM_WAITS = 10  # times the usual wait for space, since opening a film again costs seconds
OBSTACLE_SECONDS = 3600.0  # between two warnings about the same obstacle
log = logging.getLogger(__name__)


class Scheduler:
    """Gives the worker one file at a time, and a photo between two segments of a film."""

    def __init__(
        self,
        journal: Journal,
        all_folders: Sequence[Folders],
        routing: Routing,
        make_worker: MakeWorker = WorkerProcess,
    ) -> None:
        self._journal = journal
        self.supervisor = Supervisor(make_worker)
        self.pauses = Pauses(routing.config.jobs.failures)
        self.space = OutboxSpace(routing.config.jobs)
        self.running = RunningJobs()
        self._unpublished = Unpublished(self.space)
        self._outcomes = Outcomes(journal, self.running, self.pauses, self.space, self._unpublished)
        self._was_ever_ready = False
        self._closing = self._renewing = False
        self._lead = -math.inf  # of wall over now
        self._configure(routing, all_folders)
        self._serving = {folders.inbox for folders in all_folders}

    def _configure(self, routing: Routing, all_folders: Sequence[Folders]) -> None:
        self._routing, self._config = routing, routing.config
        self._lifecycles = [
            JobLifecycle(self._journal, folders, routing) for folders in all_folders
        ]

    def serve(self, inboxes: Iterable[Path]) -> None:
        """Claim jobs of these inboxes only."""
        self._serving = {*inboxes}

    def lifecycle_of(self, source: Path) -> JobLifecycle | None:
        """The lifecycle of its inbox; None if that is no longer in the configuration."""
        found = (each for each in self._lifecycles if source.is_relative_to(each.folders.inbox))
        return next(found, None)

    def recover(self, wall: UnixTime) -> None:
        """Queue again what an earlier daemon was working on, and publish what it had finished."""
        self._bring_forward(wall)
        self._unpublished.add(self._journal.recover(wall))

    def _bring_forward(self, wall: UnixTime) -> None:
        """After the clock was set back, make jobs due whose retry now lies too far in the
        future."""
        longest = max(LONGEST_WAIT, self._config.jobs.retry_seconds)
        if count := self._journal.bring_forward(wall + longest):
            log.warning(
                "the clock was set back; %d files that waited for a retry are due now", count
            )

    def turn(self, now: Monotonic, wall: UnixTime) -> None:
        """Handle the worker's messages, restart it if it died or hangs, give it work.

        Raises ModelError and WorkerLost.
        """
        if wall - now < self._lead - _CLOCK_SECONDS:
            self._bring_forward(wall)
        self._lead = wall - now
        if self._unpublished and not self.pauses.reason(now):
            self._unpublished.publish(self._served, self._config.jobs.tries, now, wall)
        if self.supervisor.worker is None:
            if (
                now >= self.supervisor.start_at
                and not self._closing
                and not self.pauses.has("settings")
            ):
                self.supervisor.start(self._routing, now)
                self._renewing = False
            return
        cause = self.supervisor.cause_of_death()
        for message in self.supervisor.receive(now):  # its last words too
            self._handle(message, now, wall)
        if cause is not None:
            self._outcomes.worker_died(cause, wall)
            self.supervisor.reap(now)
        elif self._renewing and not self.running:
            self.supervisor.replace()
        else:
            self.supervisor.watch(now, self._config.jobs.hang_seconds, busy=bool(self.running))
            self._give_work(now, wall)

    def stop_work(self) -> None:
        """Stop the running jobs and queue them again; a film keeps its finished segments."""
        if self.supervisor.worker is not None and self.running:
            self.supervisor.worker.send(Stop())

    def take_missing_inboxes(self) -> set[Path]:
        """Inboxes that seemed to be gone since the last call."""
        found, self._outcomes.missing_inboxes = self._outcomes.missing_inboxes, set()
        return found

    def cancel(self, number: int) -> bool:
        """Stop a running job and cancel it. False if it is not running."""
        if number not in self.running:
            return False
        self.running[number].is_cancelled = True
        self.stop_work()
        return True

    def resume(self) -> None:
        """End every pause and try again."""
        self.pauses.remove()
        self.space.recheck()

    def reload(self, routing: Routing, all_folders: Sequence[Folders]) -> None:
        """Use another configuration from the next job on; the worker is restarted when it is
        idle."""
        self._configure(routing, all_folders)
        jobs = self._config.jobs
        self.pauses.failures, self.space.settings = jobs.failures, jobs
        self.pauses.remove("settings")
        self._unpublished.add(self._journal.jobs(State.PUBLISHING))  # of inboxes that are back
        self._renewing = True

    def close_down(self) -> None:
        """Claim no more jobs."""
        self._closing = True

    def close(self) -> None:
        self.supervisor.close()

    # Messages of the worker

    def _handle(self, message: FromWorker, now: Monotonic, wall: UnixTime) -> None:
        match message:
            case Ready(on):
                log.info("ready on %s", on)
                self._was_ever_ready = True
            case StartFailed(reason):
                self._start_failed(reason)
            case _:
                self._outcomes.handle(message, now, wall)

    def _start_failed(self, reason: str) -> None:
        if not self._was_ever_ready:
            raise ModelError(reason)
        log.error("no file can be colored: %s", reason)
        self.pauses.add("settings", reason)

    # Orders to the worker

    def _give_work(self, now: Monotonic, wall: UnixTime) -> None:
        film = self.running.film
        if not self.supervisor.is_ready or self._closing or self._renewing:
            return
        if (self.running and film is None) or self.pauses.reason(now):
            return
        inboxes = self._with_room(now)
        if film is None:
            job = self._journal.claim(wall, inboxes)
        else:  # photos only, and none of lower priority
            least = -FIRST if film.priority >= FIRST else film.priority
            job = self._journal.claim(wall, inboxes, most_rank=0, least_priority=least)
            if job is None and self._journal.has_more_urgent_film(film.priority, wall, inboxes):
                self._preempt(film)
        if job is not None:
            self._order(job, now, wall)

    def _preempt(self, film: Job) -> None:
        """Stop a film in favor of a more urgent one; later it goes on at its last finished
        segment."""
        if not self.running[film.id].is_preempted:
            log.info("%s makes way for a film of higher priority", film.source)
            self.running[film.id].is_preempted = True
            self.stop_work()

    def _order(self, job: Job, now: Monotonic, wall: UnixTime) -> None:
        lifecycle = self.lifecycle_of(job.source)
        assert lifecycle is not None and self.supervisor.worker is not None
        if not self._outcomes.is_still_there(job, lifecycle, wall):
            return
        if not lifecycle.is_quiet(job, wall) or not lifecycle.guide_is_quiet(job, wall):
            return
        job, folders = self._journal.job(job.id), lifecycle.folders
        folder = (folders.outbox / folders.relative(job.source)).parent
        tag = tag_of(self._journal.token, job.id)
        self.running.take(job, lifecycle)
        self.supervisor.order_sent(now)
        self.supervisor.worker.send(
            Order(job.id, job.source, folder, tag, folders.inbox, folders.outbox, job.queued)
        )

    def _served(self, source: Path) -> JobLifecycle | None:
        """The lifecycle of its inbox; None if that is gone, since its outbox may be gone as
        well."""
        lifecycle = self.lifecycle_of(source)
        return lifecycle if lifecycle and lifecycle.folders.inbox in self._serving else None

    @property
    def _served_folders(self) -> list[Folders]:
        every = (lifecycle.folders for lifecycle in self._lifecycles)
        return [folders for folders in every if folders.inbox in self._serving]

    def _with_room(self, now: Monotonic) -> list[Path]:
        """The inboxes that are served and whose outboxes have room."""
        served = self._served_folders
        room = self.space.with_room((folders.outbox for folders in served), now)
        return [folders.inbox for folders in served if folders.outbox in room]


class Outcomes:
    """Handles the worker's messages about jobs: started, progress, finished, failed; and its death.



    missing_inboxes: inboxes that seem to be gone.
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
        self._obstacles: dict[str, float] = {}  # when each was logged

    def handle(self, message: FromWorker, now: Monotonic, wall: UnixTime) -> None:
        """Handle a message about a job."""
        match message:
            case Started(number):
                self._running.begin(number, now)
            case Progress(number):
                self._running[number].pace.feed(message, now)
            case Segment(number, _):
                self._journal.progress(self._running[number].job)
            case Finished():
                self._finished(message, now, wall)
            case Failed():
                self._failed(message, now, wall)

    def worker_died(self, cause: str, wall: UnixTime) -> None:
        """Blame the file that the worker was working on, and no other; queue the others again."""
        blamed = self._running.begun_last
        for task in self._running:
            if task.job.id == blamed:
                self._running.leave(task.job.id)
                # A file that was cut short under libraries that map it kills them.
                if self.is_still_there(task.job, task.lifecycle, wall):
                    task.lifecycle.crashed(task.job, cause, wall)
            else:
                self._requeue(task, wall)
        if blamed is None:
            log.warning("the worker has ended (%s)", cause)

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
