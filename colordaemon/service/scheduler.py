"""Which file is worked on and what becomes of it: between the journal and the worker."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from colordaemon.convert.routing import Routing
from colordaemon.errors import ModelError
from colordaemon.inbox.folders import Places
from colordaemon.service.job import Job, State
from colordaemon.service.journal import Journal
from colordaemon.service.lifecycle import LONGEST_WAIT, Ends
from colordaemon.service.messages import FromWorker, Order, Ready, Stop, Unfit
from colordaemon.service.outcomes import Outcomes
from colordaemon.service.pauses import Holds, Space
from colordaemon.service.records import FIRST
from colordaemon.service.running import Hands
from colordaemon.service.supervisor import Keeper, MakeWorker, WorkerProcess
from colordaemon.service.unpublished import Unpublished
from colordaemon.service.workfiles import tag_of

log = logging.getLogger(__name__)

_CLOCK_SECONDS = 1.0  # by which a clock has been set back, and does not only run unevenly


class Dispatcher:
    """Gives the worker one file at a time, and a photo between two segments of a film.

    `now` is in seconds of a clock that never jumps, `wall` in Unix seconds.
    """

    def __init__(
        self,
        journal: Journal,
        all_places: Sequence[Places],
        routing: Routing,
        make_worker: MakeWorker = WorkerProcess,
    ) -> None:
        self._journal = journal
        self._keeper = Keeper(make_worker)
        self.holds = Holds(routing.config.jobs.failures)
        self.space = Space(routing.config.jobs)
        self.hands = Hands()
        self._unpublished = Unpublished(self.space)
        self._outcomes = Outcomes(journal, self.hands, self.holds, self.space, self._unpublished)
        self._was_ever_ready = False
        self._closing = self._renewing = False
        self._lead = -math.inf  # of the clock on the wall over the one that never jumps
        self._configure(routing, all_places)
        self._serving = {places.inbox for places in all_places}

    def _configure(self, routing: Routing, all_places: Sequence[Places]) -> None:
        self._routing, self._config = routing, routing.config
        self._ends = [Ends(self._journal, places, routing) for places in all_places]

    def serve(self, inboxes: Iterable[Path]) -> None:
        """Take up files of these inboxes, and of no others."""
        self._serving = {*inboxes}

    def ends_of(self, source: Path) -> Ends | None:
        """How jobs of its inbox end; None for a file of an inbox that is configured no more."""
        found = (ends for ends in self._ends if source.is_relative_to(ends.places.inbox))
        return next(found, None)

    def recover(self, wall: float) -> None:
        """Take up what an earlier daemon has left. Published first of all is what is finished."""
        self._heed_clock(wall)
        self._unpublished.add(self._journal.recover(wall))

    def _heed_clock(self, wall: float) -> None:
        """After a clock was set back, what waits till a time that is now far away is due."""
        longest = max(LONGEST_WAIT, self._config.jobs.retry_seconds)
        if count := self._journal.bring_forward(wall + longest):
            log.warning("the clock was set back; %d files that wait are due now", count)

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
        if wall - now < self._lead - _CLOCK_SECONDS:
            self._heed_clock(wall)
        self._lead = wall - now
        if self._unpublished and not self.holds.reason(now):
            self._unpublished.publish(self._served, self._config.jobs.tries, now, wall)
        if self._keeper.worker is None:
            if (
                now >= self._keeper.start_at
                and not self._closing
                and not self.holds.has("settings")
            ):
                self._keeper.start(self._routing, now)
                self._renewing = False
            return
        cause = self._keeper.cause_of_death()
        for message in self._keeper.hear(now):  # its last words too
            self._take(message, now, wall)
        if cause is not None:
            self._outcomes.worker_died(cause, wall)
            self._keeper.bury(now)
        elif self._renewing and not self.hands:
            self._keeper.replace()
        else:
            self._keeper.watch(now, self._config.jobs.hang_seconds, busy=bool(self.hands))
            self._give_work(now, wall)

    def next_due(self, now: float, wall: float) -> float:
        """When a turn is needed even if nobody says anything."""
        if self._keeper.worker is None:
            resting = self._closing or self.holds.has("settings")
            return math.inf if resting else self._keeper.start_at
        if self._renewing and not self.hands:
            return now
        hang_seconds, busy = self._config.jobs.hang_seconds, bool(self.hands)
        care = self._keeper.next_due(now, hang_seconds, busy=busy)
        care = min(care, self.space.next_end(now))
        if self.hands or not self._keeper.is_ready:
            return care
        if self.holds.reason(now) is not None:
            return min(care, self.holds.next_end)
        waiting = [ends.places for ends in self._ends if ends.places.inbox in self._serving]
        inboxes = [each.inbox for each in waiting if not self.space.waits(each.outbox, now)]
        due = self._journal.next_due(inboxes)
        return care if due is None else min(care, now + max(0.0, due - wall))

    def stop_work(self) -> None:
        """Leave what is being done; it goes back into the queue, and a film keeps its segments."""
        if self.worker is not None and self.hands:
            self.worker.send(Stop())

    def suspects(self) -> set[Path]:
        """Inboxes that seemed to be gone since this was asked last."""
        found, self._outcomes.suspects = self._outcomes.suspects, set()
        return found

    def cancel(self, number: int) -> bool:
        """Leave a file that is being worked on for good. False if it is not."""
        if number not in self.hands:
            return False
        self.hands[number].is_cancelled = True
        self.stop_work()
        return True

    def resume(self) -> None:
        """Whatever has held work up, try again."""
        self.holds.release()
        self.space.release()

    def reload(self, routing: Routing, all_places: Sequence[Places]) -> None:
        """Take another configuration, from the next file on."""
        self._configure(routing, all_places)
        jobs = self._config.jobs
        self.holds.failures, self.space.settings = jobs.failures, jobs
        self.holds.release("settings")
        self._unpublished.add(self._journal.jobs(State.PUBLISHING))  # of inboxes that are back
        self._renewing = True

    def close_down(self) -> None:
        """Claim nothing more."""
        self._closing = True

    def close(self) -> None:
        self._keeper.close()

    # What the worker says

    def _take(self, message: FromWorker, now: float, wall: float) -> None:
        match message:
            case Ready(on):
                log.info("ready on %s", on)
                self._was_ever_ready = True
            case Unfit(reason):
                self._unfit(reason)
            case _:
                self._outcomes.hear(message, now, wall)

    def _unfit(self, reason: str) -> None:
        if not self._was_ever_ready:
            raise ModelError(reason)
        log.error("no file can be colored: %s", reason)
        self.holds.hold("settings", reason)

    # What it is given

    def _give_work(self, now: float, wall: float) -> None:
        film = self.hands.film
        if not self._keeper.is_ready or self._closing or self._renewing:
            return
        if (self.hands and film is None) or self.holds.reason(now):
            return
        inboxes = self._with_room(now)
        if film is None:
            job = self._journal.claim(wall, inboxes)
        else:  # photos, but none that is less urgent
            least = -FIRST if film.priority >= FIRST else film.priority
            job = self._journal.claim(wall, inboxes, most_rank=0, least_priority=least)
            if job is None and self._journal.has_more_urgent_film(film.priority, wall, inboxes):
                self._make_way(film)
        if job is not None:
            self._order(job, now, wall)

    def _make_way(self, film: Job) -> None:
        """A film is left for a more urgent one; later it goes on at its last finished segment."""
        if not self.hands[film.id].makes_way:
            log.info("%s makes way for a film of higher priority", film.source)
            self.hands[film.id].makes_way = True
            self.stop_work()

    def _order(self, job: Job, now: float, wall: float) -> None:
        ends = self.ends_of(job.source)
        assert ends is not None and self.worker is not None
        if not self._outcomes.is_still_there(job, ends, wall) or not ends.is_quiet(job, wall):
            return
        job, places = self._journal.job(job.id), ends.places
        folder = (places.outbox / places.relative(job.source)).parent
        tag = tag_of(self._journal.token, job.id)
        self.hands.take(job, ends)
        self._keeper.attend(now)
        self.worker.send(
            Order(job.id, job.source, folder, tag, places.inbox, places.outbox, job.queued)
        )

    def _served(self, source: Path) -> Ends | None:
        """How jobs of its inbox end, if that is there: with it, its outbox may be gone as well."""
        ends = self.ends_of(source)
        return ends if ends and ends.places.inbox in self._serving else None

    def _with_room(self, now: float) -> list[Path]:
        """The inboxes that are served and whose results find room."""
        served = [ends.places for ends in self._ends if ends.places.inbox in self._serving]
        room = self.space.with_room((places.outbox for places in served), now)
        return [places.inbox for places in served if places.outbox in room]
