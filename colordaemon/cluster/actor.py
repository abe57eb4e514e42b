"""What runs on the nodes: an object that does one piece of work after the other.

It knows nothing of Ray. A piece of work is any function that takes the `Seat` it is done on; it
runs in a thread of its own, while `run` tells of its progress and `stop` may be called.
"""

from __future__ import annotations

import hashlib
import os
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue

import av
import torch

import colordaemon
from colordaemon.cluster.shared import Mark, Version, look_again
from colordaemon.durable import flush_file
from colordaemon.errors import SourceChanged
from colordaemon.film.helper import Alive, Failed, Load, Telling, portable
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.film.segment import SegmentWorker
from colordaemon.inbox.safe_open import PRIVATE, opened_for_another
from colordaemon.network.checkpoint import BUILT_IN
from colordaemon.network.colorizer import Colorizer

_TELL_SECONDS = 0.5  # between two messages about progress
_LOOK_SECONDS = 0.2  # between two looks for a file that is to arrive
_LOADED = 2  # models: one for a film, one for photos in between


@dataclass(frozen=True)
class Versions:
    """What has to be the same on all machines."""

    colordaemon: str
    ffmpeg: str
    torch: str

    @classmethod
    def here(cls) -> Versions:
        ffmpeg = " ".join(
            f"{name[3:]} {'.'.join(map(str, av.library_versions[name]))}"
            for name in ("libavcodec", "libavformat", "libswscale")
        )
        return cls(colordaemon.__version__, ffmpeg, torch.__version__)


@dataclass(frozen=True)
class Part:
    """What is done of a piece of work that has several parts."""

    value: object


@dataclass(frozen=True)
class Visit:
    """What is asked before work begins. model: its file, None for the built-in one. source: a film
    or photo. folder: for results. name: of a file in it. text: of that file; the actor answers in
    another one."""

    model: Path | None
    source: Path
    folder: Path
    name: str
    text: str
    wait_seconds: float


@dataclass(frozen=True)
class Found:
    """What an actor found there. model: its SHA-256. source: None if it cannot be read. troubles:
    what could not be read or written, and why."""

    versions: Versions
    model: str
    source: Version | None
    troubles: tuple[str, ...]


class Seat(Telling):
    """Where work is done: keeps models and the film between two pieces of it."""

    def __init__(self) -> None:
        self._said: SimpleQueue[object] = SimpleQueue()
        super().__init__(lambda progress: self._said.put(progress), _TELL_SECONDS)
        self._number, self._stopped = 0, 0
        self.colorizer = lru_cache(maxsize=_LOADED)(_loaded)
        self._worker: SegmentWorker | None = None
        self._film_is: tuple[Load, Path, Version] | None = None
        self._film = ExitStack()  # closes the descriptor of the film

    def begin_work(self, number: int, said: SimpleQueue[object]) -> None:
        """said: for what there is to say of it."""
        self._number, self._said = number, said
        self.forget()

    def film_worker(
        self, load: Load, path: Path, top: Path | None, version: Version
    ) -> tuple[SegmentWorker, Path]:
        """A worker with the film open, and the path that it reads through. Raises SourceChanged
        for another file than was meant."""
        if self._worker is None or self._film_is != (load, path, version):
            self.leave_film()
            opened = self._film.enter_context(opened_for_another(path, path, top))
            if (found := Version.of(opened)) != version:
                raise SourceChanged(f"{path}: found {found}, expected {version}")
            self._worker = SegmentWorker(self.colorizer(load), self)
            self._film_is, self._opened = (load, path, version), opened
        return self._worker, self._opened

    def leave_film(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = self._film_is = None
        self._film.close()

    def stop(self, number: int) -> None:
        """Leave the work of this number, and all before it."""
        self._stopped = max(self._stopped, number)

    def hand_over(self, part: object) -> None:
        """Give a part of the result before the others are done."""
        self._said.put(Part(part))

    def should_stop(self) -> bool:
        return self._number <= self._stopped


Work = Callable[[Seat], object]  # never None where somebody waits for it


@dataclass(frozen=True)
class ColorSegment:
    """Makes one segment. top: of the film, as `OpenedSource.top`, there. Returns its result, and by
    what its file is known when it arrives."""

    load: Load
    task: SegmentTask
    top: Path | None
    version: Version

    def __call__(self, seat: Seat) -> tuple[SegmentResult, Mark]:
        path = self.task.source.path
        worker, source = seat.film_worker(self.load, path, self.top, self.version)
        result = worker.run(replace(self.task, source=replace(self.task.source, path=source)))
        flush_file(result.path)
        return result, Mark.of(result.path)


@dataclass(frozen=True)
class LeaveFilm:
    """Closes the film."""

    def __call__(self, seat: Seat) -> None:
        seat.leave_film()


class ActorBody:
    """Does what `run` is given, one after the other; the other methods answer meanwhile."""

    def __init__(self, threads: int) -> None:
        """threads: of torch."""
        os.umask(PRIVATE)
        torch.set_num_threads(threads)
        self._seat = Seat()
        self._thread = ThreadPoolExecutor(1, "work")
        self._newest: Future[None] | None = None

    def run(self, number: int, work: Work) -> Iterator[object]:
        """Do a piece of work. number: of it, rising. Yields Alive and Part, and in the end the
        result or Failed."""
        said = SimpleQueue[object]()
        task = self._thread.submit(self._do, number, work, said)
        self._newest = task
        while isinstance(message := said.get(), Alive | Part):
            yield message
        yield message

    def _do(self, number: int, work: Work, said: SimpleQueue[object]) -> None:
        self._seat.begin_work(number, said)
        try:
            result: object = work(self._seat)
        except Exception as error:
            result = Failed(portable(error), traceback.format_exc())
        if not isinstance(result, Failed):
            self._seat.tell()
        said.put(result)

    def stop(self, number: int) -> None:
        self._seat.stop(number)

    def is_idle(self) -> bool:
        return self._newest is None or self._newest.done()

    def pid(self) -> int:
        return os.getpid()

    def look(self, visit: Visit) -> Found:
        """Look whether everything is here that a film needs, and answer to a file with another."""
        troubles, source, model = list[str](), None, ""
        try:
            source = Version.of(visit.source)
        except OSError as error:
            troubles.append(_trouble("read", visit.source, error))
        try:
            model = _digest(visit.model or BUILT_IN)
        except OSError as error:
            troubles.append(_trouble("read", visit.model or BUILT_IN, error))
        asked = visit.folder / visit.name
        try:
            if not _arrives(asked, visit.text, visit.wait_seconds):
                raise OSError(0, "what was written there does not arrive")
            answer = asked.with_suffix(".answer")
            answer.write_text(visit.text)
            flush_file(answer)
        except OSError as error:
            troubles.append(_trouble("use", visit.folder, error))
        return Found(Versions.here(), model, source, tuple(troubles))


def _loaded(load: Load) -> Colorizer:
    """Raises ModelError."""
    return load()


def _arrives(path: Path, text: str, seconds: float) -> bool:
    """Wait for a small file with this text. Raises OSError where there is no such folder."""
    os.stat(path.parent)  # noqa: PTH116  (a missing folder does not arrive)
    until = time.monotonic() + seconds
    while True:
        look_again(path)
        try:
            if path.read_text() == text:
                return True
        except FileNotFoundError:
            pass
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_SECONDS)


def _trouble(what: str, path: Path, error: OSError) -> str:
    return f"cannot {what} {path} ({error.strerror or error})"


def _digest(path: Path) -> str:
    found = path.stat()
    return _digest_of(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest_of(path: Path, size: int, changed: int) -> str:
    """size, changed: parts of the cache key, so that a replaced file is read again."""
    del size, changed
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
