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
import traceback
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from colordaemon.cluster import engine
from colordaemon.cluster.actor import Part, Seat
from colordaemon.cluster.admission import Admission, Terms
from colordaemon.cluster.cluster import Cluster
from colordaemon.cluster.helper import Member, is_fatal, is_gone
from colordaemon.cluster.shared import Mark, SharedPaths, Version, look_again
from colordaemon.config import PhotoSettings
from colordaemon.durable import flush_file
from colordaemon.errors import HelperDied, Interrupted, SourceChanged
from colordaemon.film.helper import Alive, Failed, Load, portable
from colordaemon.inbox.safe_open import errors_by_name, opened_elsewhere
from colordaemon.media.photo import PhotoReport, color_photo
from colordaemon.media.provenance import Maker
from colordaemon.network.colorizer import Colorizer
from colordaemon.work_context import WorkContext

log = logging.getLogger(__name__)

_BATCH = 16  # photos; all that a lost machine has to give back
_POLL_SECONDS = 0.05
_BATCH_BYTES = 64 << 20  # of their files
_AT_ONCE = 8 * _BATCH  # photos in work or waiting, each with an open file and a thread here


@dataclass(frozen=True)
class PhotoTask:
    """A photo for another machine. name: of the source here, for messages. source, partial: there.
    maker: for the metadata."""

    name: Path
    source: Path
    version: Version
    partial: Path
    settings: PhotoSettings
    force: bool
    maker: Maker

    def run(self, colorizer: Colorizer, seat: Seat) -> tuple[PhotoReport, Mark]:
        """Raises SourceChanged for another file than was meant, and what `color_photo` does."""
        with opened_elsewhere(self.name, os.fspath(self.source)) as file, errors_by_name():
            if (found := Version.of(file)) != self.version:
                raise SourceChanged(f"{self.name}: found {found}, expected {self.version}")
            report = color_photo(
                file,
                self.partial,
                colorizer.predict_ab,
                self.settings,
                force=self.force,
                maker=self.maker,
                heartbeat=seat.heartbeat,
            )
        flush_file(self.partial)
        return report, Mark.of(self.partial)


@dataclass(frozen=True)
class ColorPhotos:
    """Colors photos one after the other; hands over a result for each, or Failed. Returns how many,
    which is fewer after a stop."""

    load: Load
    tasks: tuple[PhotoTask, ...]

    def __call__(self, seat: Seat) -> int:
        colorizer = seat.colorizer(self.load)
        for count, task in enumerate(self.tasks):
            if seat.should_stop():
                return count
            seat.hand_over(self._done(task, colorizer, seat))
        return len(self.tasks)

    def _done(self, task: PhotoTask, colorizer: Colorizer, seat: Seat) -> object:
        try:
            return task.run(colorizer, seat)
        except Exception as error:
            return Failed(portable(error), traceback.format_exc())


class Photo:
    """A photo that somebody waits for. path: of the file that is being made, a new one for each
    attempt: one that was given up may still be written."""

    def __init__(self, terms: Terms, task: PhotoTask, paths: SharedPaths) -> None:
        """task: with the paths of this machine."""
        self.terms, self.bytes = terms, task.version.size
        self.done = Future[PhotoReport]()
        self.died = 0  # how many actors, of it
        self.partial, self.name = task.partial, task.name
        self.source = Path(os.path.realpath(task.source))  # which may be an open file
        self._task, self._paths = task, paths
        self.attempts = list[Path]()

    def begin(self) -> PhotoTask:
        name = f"{self.partial.name}.{secrets.token_hex(4)}"
        self.attempts.append(self.partial.with_name(name))
        there = self._paths.there
        return replace(self._task, source=there(self.source), partial=there(self.attempts[-1]))

    def finish(self, outcome: PhotoReport | BaseException) -> None:
        if isinstance(outcome, BaseException):
            self.done.set_exception(outcome)
        else:
            self.attempts.pop().replace(self.partial)
            self.done.set_result(outcome)
        for path in self.attempts:
            with suppress(OSError):
                path.unlink(missing_ok=True)


@dataclass
class Batch:
    """What an actor is doing. left: photos that it has not told of. heard_at: by
    time.monotonic()."""

    member: Member
    number: int
    stream: engine.Stream
    left: deque[Photo]
    heard_at: float


@dataclass(frozen=True)
class _Arriving:
    """A finished photo whose file is on its way to us. since: by time.monotonic()."""

    photo: Photo
    report: PhotoReport
    mark: Mark
    node: str
    since: float


class PhotoCluster:
    """A cluster with the photos of a call. Any thread may wait in `color`; the other methods are
    for the one that made it."""

    most = _AT_ONCE

    def __init__(self, cluster: Cluster, context: WorkContext) -> None:
        self._cluster, self._context = cluster, context
        self._paths = SharedPaths(cluster.settings.paths)
        self._waiting, self._lock = deque[Photo](), threading.Lock()
        self._batches: list[Batch] = []
        self._arriving: list[_Arriving] = []
        self._teams: dict[Terms, _Team] = {}
        self._is_stopped, self._told = False, ""
        self._owner = threading.current_thread()

    def color(
        self,
        terms: Terms,
        source: Path,
        partial: Path,
        settings: PhotoSettings,
        *,
        force: bool,
        maker: Maker,
    ) -> PhotoReport:
        """Have a photo colored into `partial`. Raises what `color_photo` does, HelperDied,
        SourceChanged and Interrupted."""
        name = Path(str(source))
        task = PhotoTask(name, source, Version.of(source), partial, settings, force, maker)
        photo = Photo(terms, task, self._paths)
        with self._lock:
            if self._is_stopped:
                raise Interrupted(f"{name}: stopped")
            self._waiting.append(photo)
        while threading.current_thread() is self._owner and not photo.done.done():
            self.turn()
            time.sleep(_POLL_SECONDS)
        return photo.done.result()

    def turn(self) -> None:
        """See what was done, and hand out what waits. Raises ConfigError for a wrong token, and
        where no machine is fit."""
        if self._context.should_stop():
            self.stop()
        if not (self._waiting or self._batches or self._arriving):
            return
        self._context.heartbeat()
        self._cluster.turn()
        now = time.monotonic()
        for batch in [*self._batches]:
            self._listen(batch, now)
        self._arriving = [each for each in self._arriving if not self._has_ended(each, now)]
        if self._waiting:
            self._hand_out(now)
        if (waits := self._cluster.waits_for) != self._told:
            self._told = waits
            if waits:
                log.info("photos wait %s", waits)

    def stop(self) -> None:
        """Leave all photos that are not done."""
        with self._lock:
            self._is_stopped = True
            left, self._waiting = [*self._waiting], deque()
        for batch in self._batches:
            if not batch.member.is_gone:
                batch.member.actor.ask("stop", batch.number)
            left += batch.left
        left += [each.photo for each in self._arriving]
        self._batches, self._arriving = [], []
        for photo in left:
            photo.finish(Interrupted(f"{photo.name}: stopped"))

    def close(self) -> None:
        self.stop()
        for team in self._teams.values():
            team.close()

    def _hand_out(self, now: float) -> None:
        first = self._waiting[0]
        if first.terms not in self._teams:
            self._teams[first.terms] = _Team(self._cluster, first)
        fit = self._teams[first.terms].members()
        busy = {batch.member for batch in self._batches}
        for member in fit:
            if not self._waiting or self._waiting[0].terms != first.terms:
                return
            if member not in busy:
                photos = self._next_batch(len(fit))
                work = ColorPhotos(photos[0].terms.load, tuple(each.begin() for each in photos))
                number = member.next_number()
                stream = member.actor.stream("run", number, work)
                self._batches.append(Batch(member, number, stream, deque(photos), now))

    def _next_batch(self, members: int) -> Sequence[Photo]:
        """Photos of the same terms; few where so many members wait for some."""
        found = list[Photo]()
        with self._lock:
            most = min(_BATCH, -(-len(self._waiting) // members))
            while self._waiting and len(found) < most:
                photo = self._waiting[0]
                size = photo.bytes + sum(each.bytes for each in found)
                if found and (photo.terms != found[0].terms or size > _BATCH_BYTES):
                    break
                found.append(self._waiting.popleft())
        return found

    def _listen(self, batch: Batch, now: float) -> None:
        member, hang_seconds = batch.member, self._cluster.hang_seconds
        try:
            if member.is_gone:  # nor may it be asked, if we have left the cluster
                raise engine.Gone("its machine is gone")
            while (said := batch.stream.next(0)) is not None:
                batch.heard_at = now
                if isinstance(said, Part):
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
            done.error.add_note(f"on {member.node.name}:\n{done.trace}")
            if is_fatal(done.error):
                member.end()
            photo.finish(done.error)
            return
        assert isinstance(done, tuple)
        report, mark = done
        self._arriving.append(_Arriving(photo, report, mark, member.node.name, now))

    def _end(self, batch: Batch, said: object) -> None:
        """Nothing is left of a batch then, if its work could begin."""
        self._batches.remove(batch)
        for photo in batch.left:
            found = said.error if isinstance(said, Failed) else None
            photo.finish(found or Interrupted(f"{photo.name}: stopped"))

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
                text = f"{blamed.name}: a worker on {node.name} has died ({why})"
                blamed.finish(HelperDied(text))
        self._give_back(batch, f"a worker on {node.name} has died ({why})")

    def _give_back(self, batch: Batch, why: str) -> None:
        self._batches.remove(batch)
        if batch.left:
            log.info(
                "%d photos once more, from %s on: %s", len(batch.left), batch.left[0].name, why
            )
        with self._lock:
            self._waiting.extendleft(reversed(batch.left))

    def _has_ended(self, each: _Arriving, now: float) -> bool:
        photo, wait_seconds = each.photo, self._cluster.settings.node_seconds
        path = photo.attempts[-1]
        if each.mark.is_of(path):
            photo.finish(each.report)
            return True
        if now - each.since < wait_seconds:
            look_again(path)
            return False
        expected = f"the {each.mark.size} bytes that {each.node} has written"
        text = f"{expected} have not arrived after {wait_seconds:g} s"
        photo.finish(OSError(5, text, str(photo.partial)))
        return True


class _Team:
    """The actors that may color photos on certain terms."""

    def __init__(self, cluster: Cluster, first: Photo) -> None:
        """first: of the photos; each machine has to be able to read it, and to write beside it."""
        above = first.partial.parent.parent
        self._folder = TemporaryDirectory(".work", ".look.", above, ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self._admission = Admission(cluster, first.terms, first.source, folder)
        self._cluster = cluster

    def members(self) -> list[Member]:
        """Raises ConfigError if there are machines, and none of them is fit."""
        self._admission.admit()
        return [
            each for each in self._cluster.members if each.is_here and self._admission.has(each)
        ]

    def close(self) -> None:
        self._admission.close()
        self._folder.cleanup()
