"""A helper on another machine: sends segment tasks to an actor and waits for the files."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colordaemon.cluster import engine
from colordaemon.cluster.actor import ColorSegment, LeaveFilm
from colordaemon.cluster.shared import Mark, SharedPaths, Version, look_again, of_the_share
from colordaemon.errors import ColordaemonError, HelperDied, HelperLost, Interrupted
from colordaemon.film.helper import Alive, Failed, Load
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.work_context import WorkContext

_LISTEN_SECONDS = 0.3
_LINE_SECONDS = 0.05  # between two looks whether it is our turn
_STOP_SECONDS = 10.0  # until an actor is killed that was told to stop
_NODE_SECONDS = 5.0  # until it shows that a dead actor's node is dead too


class Line:
    """Who wants something that one at a time may have, in the order in which they came: a film,
    photos, and whoever ends it have an actor in turn."""

    def __init__(self) -> None:
        self._waiting, self._lock = list[object](), threading.Lock()

    def is_turn_of(self, who: object) -> bool:
        """Whether it is theirs now; whoever asks for the first time joins the line."""
        with self._lock:
            if who not in self._waiting:
                self._waiting.append(who)
            return self._waiting[0] is who

    def leave(self, who: object) -> None:
        """Let the next one have it, or wait no longer."""
        with self._lock, suppress(ValueError):
            self._waiting.remove(who)


class Member:
    """An actor of ours on a node. doing: what, as `Cluster.as_json` tells it."""

    def __init__(self, actor: engine.Actor) -> None:
        self.actor, self.node = actor, actor.node
        self.started = actor.ask("pid")
        self.is_gone = False
        self.lost_at: float | None = None  # when it stopped answering, by time.monotonic()
        self.turns = 0  # how often it has come, or come back
        self.line = Line()
        self.doing: Mapping[str, object] = {}
        self._number = 0

    @property
    def is_here(self) -> bool:
        return not self.is_gone and self.lost_at is None and self.started.is_there

    def next_number(self) -> int:
        self._number += 1
        return self._number

    @property
    def newest_number(self) -> int:
        return self._number

    def end(self) -> None:
        self.is_gone = True
        self.actor.kill()


def is_gone(node: engine.Node, nodes: Callable[[], list[engine.Node]]) -> bool:
    """Whether the node of an actor that has died is dead too, which shows some seconds later.
    nodes: those that are alive now."""
    until = time.monotonic() + _NODE_SECONDS
    while time.monotonic() < until:
        if node.number not in {each.number for each in nodes()}:
            return True
        time.sleep(_LISTEN_SECONDS)
    return False


def is_fatal(failure: Exception) -> bool:
    """After a CUDA error no call of its process succeeds."""
    return not isinstance(failure, ColordaemonError | OSError) and "cuda" in str(failure).lower()


@dataclass(frozen=True)
class Film:
    """What is the same for all segments of a film. load: of its model, there. top: of the source,
    there. version: of it. wait_seconds: for a file to arrive, or an actor to answer again.
    hang_seconds: without any sign of life."""

    load: Load
    top: Path | None
    version: Version
    paths: SharedPaths
    wait_seconds: float
    hang_seconds: float


class ActorHelper:
    """Runs segment tasks on another machine, as `SegmentWorker` does here."""

    def __init__(self, member: Member, film: Film, nodes: Callable[[], list[engine.Node]]) -> None:
        """nodes: those that are alive now."""
        self.context = WorkContext()
        self.given_up: list[Path] = []  # files that may still be written, and nobody uses
        self._member, self._film, self._nodes = member, film, nodes
        self._turn = member.turns

    @property
    def is_usable(self) -> bool:
        return self._member.is_here and self._member.turns == self._turn

    def run(self, task: SegmentTask) -> SegmentResult:
        """Raises HelperLost if the machine is gone or does not answer, HelperDied if the actor died
        of its work, and what `SegmentWorker.run` does.

        The file has a name that no other attempt has: one that was given up may still be written.
        """
        path = task.path.with_name(f"{task.path.stem}.{secrets.token_hex(4)}.segment")
        work = ColorSegment(
            self._film.load, self._mapped(task, path), self._film.top, self._film.version
        )
        film = str(task.source.path)
        try:
            self._wait_for_turn(film)
            self._member.doing = {
                "film": film, "segment": task.index, "seconds": task.start_seconds
            }  # fmt: skip
            said = self._done(task, work)
        except BaseException:
            self.given_up.append(path)
            raise
        finally:
            self._member.doing = {}
            self._member.line.leave(self)
        result, mark = said
        self._wait_for(task, path, mark)
        return replace(result, path=path)

    def close(self) -> None:
        if self.is_usable:
            with suppress(engine.Unreachable):
                self._member.actor.stream("run", self._member.next_number(), LeaveFilm())

    def _wait_for_turn(self, film: str) -> None:
        """Until photos have had theirs. Raises Interrupted, HelperLost."""
        member = self._member
        while not member.line.is_turn_of(self):
            if self.context.should_stop():
                raise Interrupted(f"{film}: stopped")
            if not self.is_usable:
                raise HelperLost(f"{member.node.name} is gone, or makes way")
            self.context.heartbeat()
            time.sleep(_LINE_SECONDS)

    def _mapped(self, task: SegmentTask, path: Path) -> SegmentTask:
        paths = self._film.paths
        source = replace(task.source, path=paths.there(task.source.path))
        guide = paths.guide_there(task.guide)
        return replace(task, source=source, path=paths.there(path), guide=guide)

    def _done(self, task: SegmentTask, work: ColorSegment) -> tuple[SegmentResult, Mark]:
        member, number = self._member, self._member.next_number()
        try:
            said = self._answer(member.actor.stream("run", number, work), task, number)
        except engine.Gone as error:
            member.is_gone = True
            raise self._death(task, error) from None
        except engine.Unreachable as error:
            member.lost_at = time.monotonic()
            raise HelperLost(f"{member.node.name} does not answer ({error})") from None
        if not isinstance(said, Failed):
            done: tuple[SegmentResult, Mark] = said
            return done
        failure = of_the_share(said.error, task.guide, member.node.name)
        failure.add_note(f"on {member.node.name}:\n{said.trace}")
        if is_fatal(failure):
            member.end()
            raise HelperDied(f"{task.source.path}: {member.node.name}: {failure}") from failure
        raise failure

    def _answer(self, stream: engine.Stream, task: SegmentTask, number: int) -> Any:
        stop_at: float | None = None
        heard_at = time.monotonic()
        while True:
            said, now = stream.next(_LISTEN_SECONDS), time.monotonic()
            if said is not None:
                heard_at = now
            if said is not None and not isinstance(said, Alive):
                return said
            if isinstance(said, Alive):
                for _ in range(said.frames):
                    self.context.advance(said.seconds)
                if not said.frames:
                    self.context.heartbeat()
            if stop_at is None and self.context.should_stop():
                self._member.actor.ask("stop", number)
                stop_at = now + _STOP_SECONDS
            elif stop_at is not None and now > stop_at:
                self._member.end()
                raise Interrupted(f"{task.source.path}: stopped")
            elif now - heard_at > self._film.hang_seconds:
                self._member.end()
                raise engine.Gone(f"no sign of life for {self._film.hang_seconds:g} s")

    def _death(self, task: SegmentTask, error: engine.Gone) -> Exception:
        """Of its machine, or of its work."""
        node = self._member.node
        if self.context.should_stop():
            return Interrupted(f"{task.source.path}: stopped")
        if is_gone(node, self._nodes):
            return HelperLost(f"{node.name} is gone")
        return HelperDied(f"{task.source.path}: a worker on {node.name} has died ({error})")

    def _wait_for(self, task: SegmentTask, path: Path, mark: Mark) -> None:
        """Raises OSError if the file does not arrive: then it is the share that does not work."""
        until = time.monotonic() + self._film.wait_seconds
        while not mark.is_of(path):
            if self.context.should_stop():
                raise Interrupted(f"{task.source.path}: stopped")
            if time.monotonic() > until:
                found = f"{path.stat().st_size} bytes" if path.exists() else "none"
                raise OSError(
                    5,
                    f"found {found} of {mark.size} bytes that {self._member.node.name} has written,"
                    f" after {self._film.wait_seconds:g} s",
                    str(path),
                )
            self.context.heartbeat()
            look_again(path)
            time.sleep(_LISTEN_SECONDS)
