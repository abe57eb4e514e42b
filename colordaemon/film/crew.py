"""Several workers color one film at the same time.

The calling thread has a worker of its own, and talks to the user: only there the film's context is
called. Each helper is driven by a thread, and so is the scout that finds the tasks. Whoever fails
stops all others, and the error is raised in the calling thread.

On a cluster the workers are on other machines, which come and go, and the calling thread has none.
A task whose machine is lost goes back, for whoever asks next.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from colordaemon.errors import HelperDied, HelperLost, Interrupted, MediaError
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.film.scout import Stretches
from colordaemon.work_context import WorkContext

_POLL_SECONDS = 0.1
log = logging.getLogger(__name__)


class Helper(Protocol):
    """Runs segment tasks as `SegmentWorker` does, here, in another process or elsewhere.

    context: is told of its progress, and asked whether to stop.
    """

    context: WorkContext

    def run(self, task: SegmentTask) -> SegmentResult:
        """Raises HelperDied if it ended of the task, HelperLost if its machine is gone; it is not
        asked again then."""

    def close(self) -> None:
        """Close the film; another may follow."""


Helpers = Callable[[], Sequence[Helper]]  # those that may take part by now, the same ones first


class Elsewhere(Protocol):
    """Workers on other machines, in place of our own.

    device, colors: on which they color, and everything about that which affects colors.
    memory_bytes: of each. tries: how many may die of a segment. stretch_seconds: how much of a film
    each makes at once.
    """

    device: torch.device
    colors: str
    memory_bytes: int
    tries: int
    stretch_seconds: float

    def open(self, source: Path, folder: Path) -> None:
        """Begin with a film. folder: for its segments."""

    def helpers(self) -> Sequence[Helper]:
        """Those that have come by now, the same ones first; some of them may be gone."""

    def alone(self) -> Helper:
        """One that makes all segments, wherever there is somebody to make them."""

    def close(self) -> None:
        """Leave the film."""


class Crew:
    """A worker and its helpers, with a film."""

    def __init__(
        self,
        name: Path,
        own: Helper | None,
        helpers: Helpers,
        context: WorkContext,
        stretches: Stretches,
        keep: Callable[[SegmentResult], None],
        before: int,
        seconds: float,
        tries: int = 1,
    ) -> None:
        """name: of the film. own: runs in the calling thread, which also asks for helpers. keep:
        called with each result, by one thread at a time. before, seconds: how many segments are
        finished already, and how much of the film they are. tries: how many helpers may die of a
        segment until that is the film's fault."""
        self._name = name
        self._own, self._helpers, self._hired = own, helpers, list[Helper]()
        self._threads: list[threading.Thread] = []
        self._context, self._stretches = context, stretches
        self._keep, self._keeping = keep, threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._tries, self._died = tries, Counter[int]()  # helpers, by the segment they had
        self._asked = 0  # tasks that the scout has found
        self._finished = 0  # of these
        self._before = before
        self._told = 0  # of those that are finished, to the context
        self._progress = _Progress(seconds)

    def run(self, scout: Callable[[Callable[[], None]], Iterator[SegmentTask]]) -> None:
        """Color the film; `scout` yields its tasks and calls what it is given for each frame.

        After a MediaError of a worker some segments are missing: after a seek the decoder may say
        something else of a damaged film, and only a worker that reads on is sure to agree with
        itself. If the error is one of the film, that worker will raise it.
        """
        reporting = _Reporting(self._progress, self._stop, self._context)
        own, before = self._own, self._own.context if self._own else None
        if own is not None:
            own.context = reporting
        try:
            self._start(self._look, scout, name="scout")
            self._work(own, reporting)
        except MediaError as error:
            self._doubt(error)
        except Interrupted:
            if not self._stop.is_set():
                raise
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
            for helper in self._hired:
                helper.close()
            if own is not None and before is not None:
                own.close()
                own.context = before
        if self._error is not None:
            raise self._error

    def _start(self, target: Callable[..., None], *rest: object, name: str) -> None:
        thread = threading.Thread(target=target, args=rest, name=name)
        thread.start()
        self._threads.append(thread)

    def _hire(self) -> None:
        """Let those take part that are new."""
        for helper in self._helpers()[len(self._hired) :]:
            self._hired.append(helper)
            number = len(self._hired)
            self._start(self._help, number, helper, name=f"helper {number}")

    @property
    def _is_finished(self) -> bool:
        return self._stretches.are_whole and self._finished == self._asked

    def _work(self, own: Helper | None, reporting: _Reporting) -> None:
        """The calling thread: make segments, and wait for those of the others."""
        while not self._stop.is_set() and not self._is_finished:
            self._hire()
            task = self._stretches.take(0, _POLL_SECONDS) if own is not None else None
            if own is not None and task is not None:
                self._run(own, task)
            elif own is None or self._stretches.are_whole:
                self._stop.wait(_POLL_SECONDS)
            reporting.relay()
            if self._finished > self._told:
                self._told = self._finished
                self._context.segment_done(self._before + self._told)
            if reporting.should_stop():
                raise Interrupted(f"{self._name}: stopped")

    def _help(self, number: int, helper: Helper) -> None:
        try:
            helper.context = _Silent(self._progress, self._stop)
            while not self._stop.is_set():
                task = self._stretches.take(number, _POLL_SECONDS)
                if task is not None and not self._ran(number, helper, task):
                    return
                if task is None and self._stretches.are_whole:
                    self._stop.wait(_POLL_SECONDS)  # some may come back
        except MediaError as error:
            self._doubt(error)
        except BaseException as error:  # raised again in the calling thread
            self._fail(error)

    def _ran(self, number: int, helper: Helper, task: SegmentTask) -> bool:
        """Whether the helper goes on. A task that it did not finish goes to another one."""
        try:
            self._run(helper, task)
        except HelperLost as reason:
            log.info("%s: segment %d once more: %s", self._name, task.index, reason)
        except HelperDied as reason:
            with self._keeping:
                self._died[task.index] += 1
            if self._died[task.index] >= self._tries:
                raise
            log.warning("segment %d once more: %s", task.index, reason)
        else:
            return True
        assert isinstance(helper.context, _Silent)
        helper.context.lose()
        self._stretches.give_back(number, task)
        return False

    def _run(self, worker: Helper, task: SegmentTask) -> None:
        context = worker.context
        assert isinstance(context, _Silent)
        context.begin_at(task)
        result = worker.run(task)
        with self._keeping:
            self._keep(result)
            self._finished += 1

    def _look(self, scout: Callable[[Callable[[], None]], Iterator[SegmentTask]]) -> None:
        try:
            for task in scout(self._go_on):
                self._asked += 1
                self._stretches.add(task)
            self._stretches.end()
        except BaseException as error:  # raised again in the calling thread
            self._fail(error)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Interrupted(f"{self._name}: stopped")

    def _doubt(self, error: MediaError) -> None:
        log.info("%s; going on with one worker", error)
        self._stop.set()

    def _fail(self, error: BaseException) -> None:
        if not self._stop.is_set():
            self._error = error
        self._stop.set()


class _Progress:
    """What all workers have done since the calling thread has told of it."""

    def __init__(self, seconds: float) -> None:
        self._lock = threading.Lock()
        self._seconds, self._frames, self._lives = seconds, 0, False

    def add(self, seconds: float) -> None:
        """One more frame, and seconds of the film."""
        with self._lock:
            self._seconds += seconds
            self._frames += 1

    def take_back(self, seconds: float) -> None:
        with self._lock:
            self._seconds -= seconds

    def live(self) -> None:
        with self._lock:
            self._lives = True

    def tell(self, context: WorkContext) -> None:
        with self._lock:
            seconds, frames, lives = self._seconds, self._frames, self._lives
            self._frames, self._lives = 0, False
        for _ in range(frames):
            context.advance(seconds)
        if lives and not frames:
            context.heartbeat()


class _Silent(WorkContext):
    """Of a helper: remembers its progress, for the calling thread."""

    def __init__(self, progress: _Progress, stop: threading.Event) -> None:
        self._progress, self._stop, self._began, self._at = progress, stop, 0.0, 0.0

    def begin_at(self, task: SegmentTask) -> None:
        self._began = self._at = task.start_seconds

    def lose(self) -> None:
        """What was done of the task is done once more."""
        self._progress.take_back(self._at - self._began)

    def advance(self, seconds: float) -> None:
        self._progress.add(seconds - self._at)
        self._at = seconds

    def heartbeat(self) -> None:
        self._progress.live()

    def should_stop(self) -> bool:
        return self._stop.is_set()


class _Reporting(_Silent):
    """Of the worker in the calling thread: tells of the progress of all."""

    def __init__(self, progress: _Progress, stop: threading.Event, context: WorkContext) -> None:
        super().__init__(progress, stop)
        self._context = context

    def relay(self) -> None:
        self._progress.tell(self._context)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self.relay()

    def heartbeat(self) -> None:
        super().heartbeat()
        self.relay()

    def should_stop(self) -> bool:
        return super().should_stop() or self._context.should_stop()
