"""Photos on a cluster: batches of them, each of which is the work of one actor.

A photo is read, colored and written by the same machine, beside where its result will be, and taken
over here once it has arrived whole. What a machine had and did not finish is done by another one.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from colordaemon.cluster import engine
from colordaemon.cluster.actor import Part
from colordaemon.cluster.admission import Admission, Terms
from colordaemon.cluster.cluster import TURN_SECONDS, Cluster
from colordaemon.cluster.helper import Member, is_fatal, is_gone
from colordaemon.cluster.photo_task import ColorPhotos, PhotoTask
from colordaemon.cluster.shared import Mark, SharedPaths, look_again, of_the_share
from colordaemon.errors import HelperDied, Interrupted
from colordaemon.film.helper import Alive, Failed
from colordaemon.media.photo import PhotoReport
from colordaemon.work_context import WorkContext

log = logging.getLogger(__name__)

_BATCH = 16  # photos; all that a lost machine has to give back
_POLL_SECONDS = 0.05
_BATCH_BYTES = 64 << 20  # of their files
_AT_ONCE = 8 * _BATCH  # photos in work or waiting, each with an open file and a thread here


class Photo:
    """A photo that somebody waits for. context: of that work. died: how many actors, of it."""

    def __init__(self, terms: Terms, task: PhotoTask, paths: SharedPaths, context: WorkContext):
        """task: with the paths of this machine."""
        self.terms, self.task, self.context = terms, task, context
        self.done, self.died = Future[PhotoReport](), 0
        self._paths, self._attempts = paths, list[Path]()

    def begin(self) -> PhotoTask:
        """For another machine. Each attempt has a file of its own: one that was given up may still
        be written."""
        name = f"{self.task.partial.name}.{secrets.token_hex(4)}"
        self._attempts.append(self.task.partial.with_name(name))
        there = self._paths.there
        return replace(
            self.task,
            source=there(self.task.source),
            top=self.task.top and there(self.task.top),
            partial=there(self._attempts[-1]),
            guide=self._paths.guide_there(self.task.guide),
        )

    @property
    def attempt(self) -> Path:
        """The file of the newest one."""
        return self._attempts[-1]

    def finish(self, outcome: PhotoReport | BaseException) -> None:
        """Tell whoever waits, and leave no other file than the result."""
        if self.done.done():
            return
        try:
            if not isinstance(outcome, BaseException):
                self._attempts.pop().replace(self.task.partial)
        except OSError as error:
            outcome = error
        self.sweep()
        if isinstance(outcome, BaseException):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)

    def sweep(self) -> None:
        """Remove what machines have written of it, and nobody uses."""
        for path in self._attempts:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def interrupt(self) -> None:
        self.finish(Interrupted(f"{self.task.name}: stopped"))


@dataclass(eq=False)
class Batch:
    """What an actor is doing. left: photos that it has not told of; none after a stop, though it
    may still be at one. heard_at: by time.monotonic()."""

    member: Member
    number: int
    stream: engine.Stream
    left: deque[Photo]
    heard_at: float

    def show(self) -> None:
        """Which photo the actor is at, for `Cluster.as_json`."""
        self.member.doing = {"photo": str(self.left[0].task.name)} if self.left else {}

    def stop(self) -> None:
        if not self.member.is_gone:
            with suppress(engine.Unreachable):
                self.member.actor.ask("stop", self.number)
        for photo in self.left:
            photo.interrupt()
        self.left.clear()


@dataclass(frozen=True)
class _Arriving:
    """A finished photo whose file is on its way to us. since: by time.monotonic()."""

    photo: Photo
    report: PhotoReport
    mark: Mark
    node: str
    since: float


class PhotoCluster:
    """A cluster with photos. Any thread may wait in `color`; the other methods are for one: the
    one that made it, or the last that has called `adopt`."""

    most = _AT_ONCE

    def __init__(self, cluster: Cluster, context: WorkContext) -> None:
        """context: of the work on all of them; each may have its own."""
        self._cluster, self._context = cluster, context
        self._paths = SharedPaths(cluster.settings.paths)
        self._waiting, self._lock = deque[Photo](), threading.Lock()
        self._batches: list[Batch] = []
        self._arriving: list[_Arriving] = []
        self._admissions: dict[Terms, Admission] = {}
        self._is_closed, self._told, self._told_at = False, "", 0.0
        self.adopt()

    def adopt(self) -> None:
        """Leave `turn` to the calling thread."""
        self._owner = threading.current_thread()

    def color(self, terms: Terms, task: PhotoTask, context: WorkContext) -> PhotoReport:
        """Have a photo colored into `task.partial`. Raises what `PhotoTask.run` does, HelperDied,
        Interrupted, OSError if the result does not arrive, and ConfigError."""
        photo = Photo(terms, task, self._paths, context)
        with self._lock:
            if self._is_closed:
                raise Interrupted(f"{task.name}: stopped")
            self._waiting.append(photo)
        while threading.current_thread() is self._owner and not photo.done.done():
            self.turn()
            time.sleep(_POLL_SECONDS)
        return photo.done.result()

    def turn(self) -> None:
        """See what was done, and hand out what waits. Raises ConfigError for a wrong token, and
        where no machine is fit."""
        if not (self._waiting or self._batches or self._arriving):
            if self._told_at:
                self._context.machines(self._cluster.at_rest())
            self._told_at = 0.0
            return
        self._context.heartbeat()
        self._cluster.turn()
        self._stop_unwanted()
        now = time.monotonic()
        for batch in [*self._batches]:
            self._listen(batch, now)
        for batch in self._batches:
            batch.show()
        self._arriving = [each for each in self._arriving if not self._has_ended(each, now)]
        self._hand_out(now)
        self._tell(now)

    def drop(self, reason: BaseException | None = None) -> None:
        """Leave all photos that are not done; whoever waits for one is told the reason, or that it
        was interrupted."""
        with self._lock:
            left, self._waiting = [*self._waiting], deque()
        left += [each.photo for each in self._arriving]
        self._arriving = []
        for batch in self._batches:
            left += batch.left
        for photo in left:
            if reason is not None:
                photo.finish(reason)
            photo.interrupt()
        for batch in self._batches:
            batch.stop()

    def close(self) -> None:
        """Drop all, and take no more."""
        with self._lock:
            self._is_closed = True
        self.drop()
        for admission in self._admissions.values():
            admission.close()

    def _stop_unwanted(self) -> None:
        """Drop the photos whose own work was stopped."""
        if self._context.should_stop():
            self.drop()
        with self._lock:
            unwanted = [each for each in self._waiting if each.context.should_stop()]
            for photo in unwanted:
                self._waiting.remove(photo)
        for photo in unwanted:
            photo.interrupt()
        for batch in self._batches:
            unwanted = [each for each in batch.left if each.context.should_stop()]
            if unwanted and len(unwanted) == len(batch.left):
                batch.stop()
            for photo in unwanted:  # the actor may color it among the others; nobody uses that
                photo.interrupt()

    def _tell(self, now: float) -> None:
        if now - self._told_at < TURN_SECONDS:
            return
        self._told_at = now
        self._context.machines(self._cluster.as_json())
        if (waits := self._cluster.waits_for) != self._told:
            self._told = waits
            if waits:
                log.info("photos wait %s", waits)

    def _hand_out(self, now: float) -> None:
        """A batch for each actor that has none, when it is the turn of photos there."""
        free = [member for member in self._fit() if member not in self._busy]
        for count, member in enumerate(free):
            if self._waiting and member.line.is_turn_of(self):
                self._begin(member, self._next_batch(len(free) - count), now)
        for member in self._cluster.members:
            if not (self._waiting and member in free) and member not in self._busy:
                member.line.leave(self)

    @property
    def _busy(self) -> set[Member]:
        return {batch.member for batch in self._batches}

    def _fit(self) -> list[Member]:
        """The actors that may color the photo that is next. Raises ConfigError if there are
        machines, and none of them is fit."""
        with self._lock:
            first = self._waiting[0] if self._waiting else None
        if first is None:
            return []
        if first.terms not in self._admissions:
            self._admissions[first.terms] = Admission(self._cluster, first.terms)
        admission, task = self._admissions[first.terms], first.task
        try:
            work = Path(os.path.realpath(task.partial.parent))
            admission.admit(task.source, task.version, work.parent, work.stem)
        except OSError as error:
            with self._lock:
                self._waiting.remove(first)
            first.finish(error)
            return []
        return [each for each in self._cluster.members if each.is_here and admission.has(each)]

    def _next_batch(self, members: int) -> Sequence[Photo]:
        """Photos of the same terms; few where so many members wait for some."""
        found, size = list[Photo](), 0
        with self._lock:
            most = min(_BATCH, -(-len(self._waiting) // members))
            while self._waiting and len(found) < most:
                photo = self._waiting[0]
                size += photo.task.version.size
                if found and (photo.terms != found[0].terms or size > _BATCH_BYTES):
                    break
                found.append(self._waiting.popleft())
        return found

    def _begin(self, member: Member, photos: Sequence[Photo], now: float) -> None:
        work = ColorPhotos(photos[0].terms.load, tuple(each.begin() for each in photos))
        number = member.next_number()
        try:
            stream = member.actor.stream("run", number, work)
        except engine.Unreachable:
            member.lost_at = now
            with self._lock:
                self._waiting.extendleft(reversed(photos))
            return
        self._batches.append(Batch(member, number, stream, deque(photos), now))

    def _listen(self, batch: Batch, now: float) -> None:
        member, hang_seconds = batch.member, self._cluster.hang_seconds
        try:
            if member.is_gone:  # nor may it be asked, if we have left the cluster
                raise engine.Gone("its machine is gone")
            while (said := batch.stream.next(0)) is not None:
                batch.heard_at = now
                if isinstance(said, Part):
                    if batch.left:
                        self._take(batch.left.popleft(), said.value, member, now)
                elif not isinstance(said, Alive):
                    self._end(batch, said)
                    return
            if now - batch.heard_at > hang_seconds:
                member.end()
                raise engine.Gone(f"no sign of life for {hang_seconds:g} s")
        except engine.Gone as error:
            member.is_gone = True
            self._died(batch, str(error))
        except engine.Unreachable as error:
            member.lost_at = now
            self._give_back(batch, f"{member.node.name} does not answer ({error})")

    def _take(self, photo: Photo, done: object, member: Member, now: float) -> None:
        """What an actor says of one photo."""
        if isinstance(done, Failed):
            failure = of_the_share(done.error, photo.task.guide, member.node.name)
            failure.add_note(f"on {member.node.name}:\n{done.trace}")
            if is_fatal(failure):
                member.end()
            photo.finish(failure)
            return
        if photo.done.done():
            photo.sweep()
            return
        assert isinstance(done, tuple)
        report, mark = done
        self._arriving.append(_Arriving(photo, report, mark, member.node.name, now))

    def _end(self, batch: Batch, said: object) -> None:
        """Nothing is left of a batch then, if its work could begin and nobody has stopped it."""
        self._leave(batch)
        for photo in batch.left:
            if isinstance(said, Failed):
                photo.finish(said.error)
            photo.interrupt()

    def _died(self, batch: Batch, why: str) -> None:
        """The photo that was being colored may be the reason, unless the machine is."""
        node = batch.member.node
        if is_gone(node, self._cluster.nodes):
            self._give_back(batch, f"{node.name} is gone")
            return
        if batch.left:
            blamed = batch.left[0]
            blamed.died += 1
            if blamed.died >= self._cluster.settings.tries:
                batch.left.popleft()
                text = f"{blamed.task.name}: a worker on {node.name} has died ({why})"
                blamed.finish(HelperDied(text))
        self._give_back(batch, f"a worker on {node.name} has died ({why})")

    def _give_back(self, batch: Batch, why: str) -> None:
        self._leave(batch)
        if batch.left:
            name = batch.left[0].task.name
            log.info("%d photos once more, from %s on: %s", len(batch.left), name, why)
        with self._lock:
            self._waiting.extendleft(reversed(batch.left))

    def _leave(self, batch: Batch) -> None:
        self._batches.remove(batch)
        batch.member.doing = {}
        batch.member.line.leave(self)

    def _has_ended(self, each: _Arriving, now: float) -> bool:
        photo, wait_seconds = each.photo, self._cluster.settings.node_seconds
        path = photo.attempt
        if each.mark.is_of(path):
            photo.finish(each.report)
            return True
        if now - each.since < wait_seconds:
            look_again(path)
            return False
        expected = f"the {each.mark.size} bytes that {each.node} has written"
        text = f"{expected} have not arrived after {wait_seconds:g} s"
        photo.finish(OSError(5, text, str(photo.task.partial)))
        return True
