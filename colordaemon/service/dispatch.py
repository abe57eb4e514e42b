"""Which file is worked on and what becomes of it: between the journal and the worker."""

from __future__ import annotations

import logging
import math
import shutil

from colordaemon.config import Config
from colordaemon.errors import ModelError
from colordaemon.service.ends import Ends
from colordaemon.service.holds import Holds
from colordaemon.service.job import Job, State
from colordaemon.service.journal import Journal
from colordaemon.service.keeper import Keeper, MakeWorker
from colordaemon.service.messages import (
    Alive,
    Begun,
    Fault,
    Finished,
    FromWorker,
    Order,
    Ready,
    Refused,
    Segment,
    Stop,
    Unfit,
)
from colordaemon.service.pace import Pace
from colordaemon.service.places import Places
from colordaemon.service.supervise import WorkerProcess
from colordaemon.service.workfiles import tag_of

log = logging.getLogger(__name__)

SPACE_SECONDS = 30.0  # at the most between two looks at a disk that is full


class Dispatcher:
    """Gives the worker one file at a time, and a photo between two segments of a film.

    `now` is in seconds of a clock that never jumps, `wall` in Unix seconds.
    """

    def __init__(
        self,
        journal: Journal,
        places: Places,
        config: Config,
        make_worker: MakeWorker = WorkerProcess,
    ) -> None:
        self._journal, self._places, self._config = journal, places, config
        self._keeper = Keeper(make_worker)
        self.ends = Ends(journal, places, config)
        self.holds = Holds(config.jobs.failures)
        self.paces: dict[int, Pace] = {}  # of films, by their jobs
        self._was_ever_ready = False
        self._active: dict[int, Job] = {}
        self._begun: list[int] = []
        self._unpublished: list[Job] = []
        self._told_of_space = ""
        self._refusals = 0  # to publish the last of them, in a row
        self._cancelled: set[int] = set()
        self._began: dict[int, float] = {}
        self._closing = self._renewing = False

    def recover(self, wall: float) -> None:
        """Take up what an earlier daemon has left. Published first of all is what is finished."""
        self._unpublished = self._journal.recover(wall)
        self.ends.retire_all()

    @property
    def active(self) -> list[Job]:
        return [*self._active.values()]

    @property
    def worker(self) -> WorkerProcess | None:
        return self._keeper.worker

    @property
    def ready_on(self) -> str:
        """The device, once the model is loaded."""
        return self._keeper.ready_on

    @property
    def is_lost(self) -> bool:
        """Whether a killed worker does not go: only a restart of the machine may help."""
        return self._keeper.is_lost

    def turn(self, now: float, wall: float) -> None:
        """Hear what the worker says, see to its health, give it work.

        Raises ModelError and WorkerLost.
        """
        self._publish_again(now, wall)
        if self._keeper.worker is None:
            if (
                now >= self._keeper.start_at
                and not self._closing
                and not self.holds.has("settings")
            ):
                self._keeper.start(self._config, now)
                self._renewing = False
            return
        cause = self._keeper.cause_of_death()
        for message in self._keeper.hear(now):  # its last words too
            self._take(message, now, wall)
        if cause is not None:
            self._blame(cause, wall)
            self._keeper.bury(now)
        elif self._renewing and not self._active:
            self._keeper.replace()
        else:
            self._keeper.watch(now, self._config.jobs.hang_seconds, busy=bool(self._active))
            self._give_work(now, wall)

    def next_due(self, now: float, wall: float) -> float:
        """When a turn is needed even if nobody says anything."""
        if self._keeper.worker is None:
            resting = self._closing or self.holds.has("settings")
            return math.inf if resting else self._keeper.start_at
        if self._renewing and not self._active:
            return now
        hang_seconds, busy = self._config.jobs.hang_seconds, bool(self._active)
        care = self._keeper.next_due(now, hang_seconds, busy=busy)
        if self._active or not self._keeper.is_ready:
            return care
        if self.holds.reason(now) is not None:
            return min(care, self.holds.next_end)
        due = self._journal.next_due()
        return care if due is None else min(care, now + max(0.0, due - wall))

    def stop_work(self) -> None:
        """Leave what is being done; it goes back into the queue, and a film keeps its segments."""
        if self.worker is not None and self._active:
            self.worker.send(Stop())

    def cancel(self, number: int) -> bool:
        """Leave a file that is being worked on for good. False if it is not."""
        if number not in self._active:
            return False
        self._cancelled.add(number)
        self.stop_work()
        return True

    def reload(self, config: Config) -> None:
        """Take another configuration, from the next file on."""
        self._config = config
        self.ends = Ends(self._journal, self._places, config)
        self.holds.failures = config.jobs.failures
        self.holds.release("settings")
        self._renewing = True

    def close_down(self) -> None:
        """Claim nothing more."""
        self._closing = True

    def close(self) -> None:
        self._keeper.close()

    def seconds_left(self) -> float:
        """How long the active files will take at the pace so far; a photo takes no time."""
        if not any(job.rank for job in self._active.values()):
            return 0.0
        return max((pace.seconds_left for pace in self.paces.values()), default=math.inf)

    # What the worker says

    def _blame(self, cause: str, wall: float) -> None:
        """The worker is dead; the file that it was working on is to blame, and no other."""
        blamed = self._begun[-1] if self._begun else None
        for number, job in [*self._active.items()]:
            if number == blamed:
                self.ends.crashed(job, cause, wall)
                self._leave(number)
            else:
                self._give_back(job, wall)
        if blamed is None:
            log.warning("the worker has ended (%s)", cause)

    def _take(self, message: FromWorker, now: float, wall: float) -> None:
        match message:
            case Ready(on):
                log.info("ready on %s", on)
                self._was_ever_ready = True
            case Unfit(reason):
                self._unfit(reason)
            case Begun(number):
                self._begun.append(number)
                self._began[number] = now
            case Alive(number):
                self.paces.setdefault(number, Pace()).feed(message, now)
            case Segment(number, _):
                self._journal.progress(self._active[number])
            case Finished():
                self._finished(message, now, wall)
            case Refused():
                self._refused(message, now, wall)

    def _unfit(self, reason: str) -> None:
        if not self._was_ever_ready:
            raise ModelError(reason)
        log.error("no file can be colored: %s", reason)
        self.holds.hold("settings", reason)

    def _finished(self, said: Finished, now: float, wall: float) -> None:
        job = self._active[said.job]
        seconds = now - self._began[said.job]
        self._leave(said.job)
        self.holds.succeeded()
        try:
            self.ends.finished(job, said, seconds, wall)
        except OSError as error:
            job = self._journal.job(job.id)
            if job.state is State.PUBLISHING:  # perhaps it has its name already
                self._unpublished.append(job)
                self._hold_for_space(f"cannot publish {job.target}: {error.strerror}", now)
            else:
                self.ends.failed_here(job, str(error), wall)

    def _publish_again(self, now: float, wall: float) -> None:
        """Publish what an earlier daemon, or a full or missing disk, has left unpublished."""
        while self._unpublished and not self.holds.reason(now):
            job = self._unpublished[-1]
            try:
                self.ends.recover(job, wall)
            except OSError as error:
                reason = f"cannot publish {job.target}: {error.strerror}"
                self._refusals += 1
                if self._refusals < self._config.jobs.tries:
                    self._hold_for_space(reason, now)
                    return
                self.ends.set_aside(job, State.FAILED, "publish", reason, wall)
            self._refusals = 0
            self._unpublished.pop()

    def _refused(self, said: Refused, now: float, wall: float) -> None:
        job = self._active[said.job]
        reason = said.reason.removeprefix(f"{job.source}: ")
        if said.fault is Fault.STOPPED or said.job in self._cancelled:
            if said.job in self._cancelled:
                self.ends.set_aside(job, State.CANCELLED, "asked", "cancelled by command", wall)
                self._leave(said.job)
            else:
                self._give_back(job, wall)
            return
        self._leave(said.job)
        if said.fault is Fault.SPACE:
            # Twice as long as all others wait, since they may be smaller.
            wait_seconds = 2 * self._space_seconds
            self.ends.give_back(job, "space", reason, wall, wait_seconds=wait_seconds)
            self._hold_for_space(reason, now)
        elif said.fault is Fault.SETTINGS:
            self.ends.give_back(job, "settings", reason, wall)
            log.error("work waits for other settings: %s", reason)
            self.holds.hold("settings", reason)
        elif not self.ends.is_still_there(job, wall):
            pass  # whatever was said of it is explained
        elif said.fault is Fault.MACHINE:
            self.ends.failed_here(job, reason, wall)
            if self.holds.failed(job.id, now):
                log.error("work is paused: %s", self.holds.reason(now))
        else:
            state = State.SKIPPED if said.fault is Fault.COLOR else State.FAILED
            self.ends.set_aside(job, state, str(said.fault), reason, wall)

    def _give_back(self, job: Job, wall: float) -> None:
        self.ends.give_back(job, "stopped", "", wall)
        self._leave(job.id)

    def _leave(self, number: int) -> None:
        self._active.pop(number, None)
        self._cancelled.discard(number)
        self._began.pop(number, None)
        if number in self._begun:
            self._begun.remove(number)
        self.paces.pop(number, None)

    # What it is given

    def _give_work(self, now: float, wall: float) -> None:
        if not self._keeper.is_ready or self._closing or self._renewing or len(self._active) > 1:
            return
        if any(job.rank == 0 for job in self._active.values()) or self.holds.reason(now):
            return
        if not self._has_space(now):
            return
        job = self._journal.claim(wall, most_rank=0 if self._active else 99)
        if job is None or not self.ends.is_still_there(job, wall):
            return
        assert self.worker is not None
        folder = (self._places.outbox / self._places.relative(job.source)).parent
        self._active[job.id] = job
        self._keeper.attend(now)
        self.worker.send(Order(job.id, job.source, folder, tag_of(self._journal.token, job.id)))

    def _has_space(self, now: float) -> bool:
        outbox, wanted = self._places.outbox, self._config.jobs.free_mib
        try:
            outbox.mkdir(exist_ok=True)  # somebody may have taken it away, results and all
            free = shutil.disk_usage(outbox).free >> 20
        except OSError as error:
            self._hold_for_space(f"cannot write to {outbox}: {error.strerror}", now)
            return False
        if free < wanted:
            self._hold_for_space(f"{free} MiB free for results, {wanted} wanted", now)
        return free >= wanted

    def _hold_for_space(self, reason: str, now: float) -> None:
        if reason != self._told_of_space:  # the same every half a minute would fill the log
            log.warning("work waits for space: %s", reason)
        self._told_of_space = reason
        self.holds.hold("space", reason, now + self._space_seconds)

    @property
    def _space_seconds(self) -> float:
        return min(SPACE_SECONDS, self._config.jobs.retry_seconds)
