"""Decides which job runs next, and on which of the workers.

With `jobs.workers` each worker has a file of its own, as long as there are files. A worker that is
left without one is replaced by a helper of a film that is being worked on, until that is finished;
so there are never more processes than the settings say. Memory and cores are shared evenly; a file
that needs more memory than its share is made alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.convert.routing import Routing
from colordaemon.errors import ModelError, WorkerLost
from colordaemon.inbox.folders import Folders
from colordaemon.service.job import Job, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import LONGEST_WAIT, JobLifecycle, Unpublished
from colordaemon.service.messages import (
    Environment,
    FromWorker,
    Help,
    Machines,
    Order,
    Ready,
    StartFailed,
    Stop,
)
from colordaemon.service.outcomes import Outcomes
from colordaemon.service.pauses import OutboxSpace, Pauses
from colordaemon.service.publisher import tag_of
from colordaemon.service.records import FIRST
from colordaemon.service.running import RunningJobs, Task
from colordaemon.service.sharing import ClusterSharing
from colordaemon.service.supervisor import MakeWorker, Supervisor, WorkerProcess

_PHOTOS_A_TURN = 16  # each is written into the journal and flushed; others wait meanwhile
_CLOCK_SECONDS = 1.0  # a clock that differs by more was set back, and does not only run unevenly
log = logging.getLogger(__name__)


class Scheduler:
    """Gives each worker one file at a time, and a photo between two segments of a film."""

    def __init__(
        self,
        journal: Journal,
        all_folders: Sequence[Folders],
        routing: Routing,
        make_worker: MakeWorker = WorkerProcess,
    ) -> None:
        self._journal = journal
        self._make_worker = make_worker
        self._supervisors = [Supervisor(make_worker)]
        self.pauses = Pauses(routing.config.jobs.failures)
        self.space = OutboxSpace(routing.config.jobs)
        self.running = RunningJobs()
        self._unpublished = Unpublished(self.space)
        self._outcomes = Outcomes(journal, self.running, self.pauses, self.space, self._unpublished)
        self._was_ever_ready = False
        self.sharing = ClusterSharing(self.running)
        self._closing = False
        self._most = 1  # workers
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

    @property
    def ready_on(self) -> str:
        """The device of the first worker that has loaded its model; empty if none has."""
        return next((each.ready_on for each in self._supervisors if each.ready_on), "")

    @property
    def workers(self) -> list[WorkerProcess]:
        return [each.worker for each in self._supervisors if each.worker is not None]

    @property
    def has_lost_worker(self) -> bool:
        """Whether a worker that was killed does not end."""
        return any(each.is_lost for each in self._supervisors)

    def turn(self, now: Monotonic, wall: UnixTime) -> None:
        """Handle what workers say, restart those that died or hang, give them work.

        Raises ModelError and WorkerLost.
        """
        if wall - now < self._lead - _CLOCK_SECONDS:
            self._bring_forward(wall)
        self._lead = wall - now
        if self._unpublished and not self.pauses.reason(now):
            self._unpublished.publish(self._served, self._config.jobs.tries, now, wall)
        for supervisor in [*self._supervisors]:
            self._attend(supervisor, now, wall)
        self._let_go()
        if not self._closing and not self.pauses.reason(now):
            self._give_work(now, wall)
        self.sharing.turn(self._supervisors, now)

    def _attend(self, supervisor: Supervisor, now: Monotonic, wall: UnixTime) -> None:
        """Hear what a worker says; replace it if it is dead or has settings of before."""
        if supervisor.lent_to is not None and supervisor.lent_to not in self.running:
            supervisor.lent_to = None
        if supervisor.worker is None:
            if supervisor.number == 0 and supervisor.lent_to is None:
                self._start(supervisor, now)
            return
        cause = supervisor.cause_of_death()
        for message in supervisor.receive(now):  # its last words too
            self._handle(message, supervisor, now, wall)
        if cause is not None:
            self._outcomes.worker_died(supervisor.number, cause, wall)
            self._reap(supervisor, now)
        elif supervisor.is_outdated and not self.running.of(supervisor.number):
            supervisor.close()
        else:
            busy = bool(self.running.of(supervisor.number))
            supervisor.watch(now, self._config.jobs.hang_seconds, busy=busy)

    def _let_go(self) -> None:
        """End idle workers beyond the number that the settings say by now."""
        while len(self._supervisors) > self._most:
            last = self._supervisors[-1]
            if self.running.of(last.number) or last.lent_to is not None:
                break
            self._supervisors.pop().close()

    def _start(self, supervisor: Supervisor, now: Monotonic) -> None:
        if now >= supervisor.start_at and not self._closing and not self.pauses.has("settings"):
            supervisor.start(self._routing, now)

    def _reap(self, supervisor: Supervisor, now: Monotonic) -> None:
        """Clean up after a dead worker. Without the first there is no work at all; the others can
        be done without."""
        self.sharing.forget(supervisor.number)
        try:
            supervisor.reap(now)
        except WorkerLost as error:
            if supervisor.number == 0:
                raise
            log.error("going on with fewer workers: %s", error)
            supervisor.start_at = math.inf

    def stop_work(self) -> None:
        """Stop the running jobs and queue them again; a film keeps its finished segments."""
        for number in {task.worker for task in self.running}:
            self._stop(number)

    def _stop(self, number: int, job: int | None = None) -> None:
        """Stop the jobs of one worker. job: this one of them; None: all."""
        worker = self._supervisors[number].worker
        if worker is not None:
            worker.send(Stop(job))

    def take_missing_inboxes(self) -> set[Path]:
        """Inboxes that seemed to be gone since the last call."""
        found, self._outcomes.missing_inboxes = self._outcomes.missing_inboxes, set()
        return found

    def cancel(self, number: int) -> bool:
        """Stop a running job and cancel it. False if it is not running."""
        if number not in self.running:
            return False
        task = self.running[number]
        task.is_cancelled = True
        self._stop(task.worker, number if task.is_beside else None)
        return True

    def resume(self) -> None:
        """End every pause and try again."""
        self.pauses.remove()
        self.space.recheck()

    def reload(self, routing: Routing, all_folders: Sequence[Folders]) -> None:
        """Use another configuration from the next job on; each worker is restarted when it is
        idle."""
        self._configure(routing, all_folders)
        jobs = self._config.jobs
        self.pauses.failures, self.space.settings = jobs.failures, jobs
        self.pauses.remove("settings")
        self._unpublished.add(self._journal.jobs(State.PUBLISHING))  # of inboxes that are back
        for supervisor in self._supervisors:
            supervisor.is_outdated = supervisor.worker is not None
            supervisor.start_at = min(supervisor.start_at, 0.0)

    def close_down(self) -> None:
        """Claim no more jobs."""
        self._closing = True

    def close(self) -> None:
        for supervisor in self._supervisors:
            supervisor.close()

    # Messages of workers

    def _handle(
        self, message: FromWorker, supervisor: Supervisor, now: Monotonic, wall: UnixTime
    ) -> None:
        match message:
            case Ready(on, environments):
                log.info("ready on %s", on)
                self._was_ever_ready = True
                if supervisor.number == 0:
                    self._have_workers(environments)
            case StartFailed(reason):
                self._start_failed(reason)
            case Machines(found):
                self.sharing.hear(supervisor.number, found)
            case _:
                self._outcomes.handle(message, now, wall)

    def _have_workers(self, environments: Sequence[Environment]) -> None:
        """Have as many workers as there are environments."""
        self._most = len(environments)
        for number in range(len(self._supervisors), len(environments)):
            self._supervisors.append(Supervisor(self._make_worker, number))
        for supervisor, environment in zip(self._supervisors, environments, strict=False):
            supervisor.environment = dict(environment)

    def _start_failed(self, reason: str) -> None:
        if not self._was_ever_ready:
            raise ModelError(reason)
        log.error("no file can be colored: %s", reason)
        self.pauses.add("settings", reason)

    # Orders to workers

    def _give_work(self, now: Monotonic, wall: UnixTime) -> None:
        able = [each for each in self._supervisors if each.is_ready and not each.is_outdated]
        able.sort(key=lambda each: -each.part)  # whose machines of a cluster have the model
        idle = [each for each in self._supervisors if self._is_idle(each)]
        films = [] if idle else self._films()
        beside = [each for each in able if each.beside > self.running.beside(each.number)]
        if not able or not (idle or films or beside):
            return
        inboxes = self._with_room(now)
        for supervisor in beside:
            self._give_photos(supervisor, inboxes, now, wall)
        if films:
            self._give_to_film(min(films, key=lambda film: film.job.priority), inboxes, now, wall)
            return
        may_begin = self._may_begin(wall, inboxes)
        for supervisor in (each for each in able if each in idle):
            rank = 1 if supervisor.beside else 0  # photos are given beside
            job = self._journal.claim(wall, inboxes, least_rank=rank) if may_begin else None
            if job is None:
                may_begin = False
                break
            self._order(job, supervisor, now, wall)
            may_begin = self._may_begin(wall, inboxes)
        if len(self._supervisors) > 1:
            left = [each for each in idle if self._is_idle(each)]
            if may_begin and self._journal.next_due(wall, inboxes) is not None:
                self._start_one(left, now)
            elif self._config.cluster.address is None:
                self._lend(left)

    def _give_photos(
        self, supervisor: Supervisor, inboxes: list[Path], now: Monotonic, wall: UnixTime
    ) -> None:
        """As many as its worker takes beside its other work, in several turns."""
        room = supervisor.beside - self.running.beside(supervisor.number)
        for _ in range(min(room, _PHOTOS_A_TURN)):
            job = None
            if self._may_begin(wall, inboxes):
                job = self._journal.claim(wall, inboxes, most_rank=0)
            if job is None:
                return
            self._order(job, supervisor, now, wall, is_beside=True)

    def _is_idle(self, supervisor: Supervisor) -> bool:
        """Whether it has no file in turn, and no helper in its place, and may have one; its worker
        may have to be started."""
        is_free = supervisor.lent_to is None and not self.running.in_turn(supervisor.number)
        is_wanted = supervisor.number < self._most and supervisor.start_at < math.inf
        return is_free and is_wanted and not supervisor.is_outdated

    def _may_begin(self, wall: UnixTime, inboxes: list[Path]) -> bool:
        """Whether another file may be begun beside those that are worked on: none of them has all
        memory, nor wants it next."""
        alone = self._outcomes.alone
        if not alone or not self.running:
            return True
        if any(task.job.id in alone for task in self.running):
            return False
        return self._journal.next_due(wall, inboxes) not in alone

    def _start_one(self, idle: Sequence[Supervisor], now: Monotonic) -> None:
        """Start one more worker, unless one is starting."""
        if idle and all(each.worker is None for each in idle):
            self._start(idle[0], now)

    def _lend(self, idle: Sequence[Supervisor]) -> None:
        """Replace workers without a file by helpers, each for the film that has the fewest."""
        films = [task for task in self.running if task.job.rank and self._can_be_parted(task)]
        for supervisor in idle if films else ():
            if supervisor.worker is not None and not supervisor.is_ready:
                continue
            lent = [each.lent_to for each in self._supervisors]
            film = min(films, key=lambda task: lent.count(task.job.id))
            supervisor.close()
            supervisor.lent_to = film.job.id
            worker = self._supervisors[film.worker].worker
            assert worker is not None
            worker.send(Help(film.job.id, (supervisor.environment,)))

    def _can_be_parted(self, film: Task) -> bool:
        config = self._routing.config_for(film.job.source)
        return film.can_be_parted(config.film.segment_seconds)

    def _films(self) -> list[Task]:
        """The films of all workers; none if a worker has something else."""
        busy = [each for each in self._supervisors if each.lent_to is None and each.worker]
        films = [self.running.film(each.number) for each in busy]
        return [each for each in films if each] if all(films) else []

    def _give_to_film(
        self, film: Task, inboxes: list[Path], now: Monotonic, wall: UnixTime
    ) -> None:
        """Let a photo be done between two segments of a film, or stop it for a more urgent one."""
        supervisor, priority = self._supervisors[film.worker], film.job.priority
        if not supervisor.is_ready or supervisor.is_outdated:
            return
        least = -FIRST if priority >= FIRST else priority
        job = None
        if not supervisor.beside:
            job = self._journal.claim(wall, inboxes, most_rank=0, least_priority=least)
        if job is not None:
            self._order(job, supervisor, now, wall)
        elif self._journal.has_more_urgent_film(priority, wall, inboxes):
            self._preempt(film)

    def _preempt(self, film: Task) -> None:
        """Stop a film in favor of a more urgent one; later it goes on at its last finished
        segment."""
        if not any(task.is_preempted for task in self.running):
            log.info("%s makes way for a film of higher priority", film.job.source)
            film.is_preempted = True
            self._stop(film.worker)

    def _order(
        self,
        job: Job,
        supervisor: Supervisor,
        now: Monotonic,
        wall: UnixTime,
        *,
        is_beside: bool = False,
    ) -> None:
        lifecycle = self.lifecycle_of(job.source)
        assert lifecycle is not None and supervisor.worker is not None
        if not self._outcomes.is_still_there(job, lifecycle, wall):
            return
        if not lifecycle.is_quiet(job, wall) or not lifecycle.guide_is_quiet(job, wall):
            return
        job, folders = self._journal.job(job.id), lifecycle.folders
        folder = (folders.outbox / folders.relative(job.source)).parent
        tag = tag_of(self._journal.token, job.id)
        share = 1.0 if job.id in self._outcomes.alone else 1.0 / len(self._supervisors)
        if (film := self.running.film(supervisor.number)) is not None and not is_beside:
            share = film.share
        self.running.take(Task(job, lifecycle, supervisor.number, share, is_beside))
        supervisor.order_sent(now)
        where = folders.inbox, folders.outbox
        pictures = folders.thumbnails if self._config.web.thumbnails else None
        supervisor.worker.send(
            Order(job.id, job.source, folder, tag, *where, job.queued, share, pictures, is_beside)
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
