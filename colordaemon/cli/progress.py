"""Shows the progress of `once`: a bar on a terminal, log lines elsewhere, JSON for programs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from colordaemon.convert.workload import Workload
from colordaemon.logs import clock_time, counted, printable
from colordaemon.work_context import Stage, WorkContext

log = logging.getLogger(__name__)


class Progress(WorkContext):
    """How far the current film and the whole call are; tells it at most every `every_seconds`.

    stop: set to stop the work, after a signal for instance. Subclasses say how it is told.
    """

    tells_each_stage = True  # however short it is

    def __init__(
        self,
        workload: Workload,
        stop: Event | None = None,
        every_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workload, self._stop = workload, stop or Event()
        self._every, self._clock = every_seconds, clock
        self._source: Path | None = None

    def begin(self, source: Path, seconds: float | None) -> None:
        self._seconds = seconds
        self._began = self._told = self._clock()
        self._frames, self._at, self._stage, self._share = 0, 0.0, "coloring", 0.0
        self._source = source  # last: a signal may ask for the line at any moment

    def advance(self, seconds: float) -> None:
        self._frames += 1
        self._at = seconds
        if self._seconds:
            self._share = min(1.0, max(0.0, seconds / self._seconds))
        self._tell_now_and_then()

    def stage(self, name: Stage, share: float) -> None:
        if self._source is None:  # a photo, which takes a moment
            return
        if name != self._stage and self.tells_each_stage:
            self._told = -1e9
        self._stage, self._share = name, share
        self._tell_now_and_then()

    def end(self) -> None:
        self._source = None

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def tell(self) -> None:
        """Say it."""

    def _tell_now_and_then(self) -> None:
        now = self._clock()
        if now - self._told >= self._every:
            self._told = now
            self.tell()

    @property
    def fps(self) -> float:
        return self._frames / max(1e-6, self._clock() - self._began)

    @property
    def seconds_left(self) -> float | None:
        """Of the current film; joining and checking it take little."""
        if self._stage != "coloring" or not self._share:
            return None
        return (self._clock() - self._began) * (1 - self._share) / self._share

    @property
    def all_seconds_left(self) -> float | None:
        """Of the whole call."""
        is_film = self._source is not None
        share = 0.0 if not is_film else self._share if self._stage == "coloring" else 1.0
        return self.workload.seconds_left(share)

    @property
    def line(self) -> str:
        """For people, as in "film.mp4: 300 frames, 30.0 fps, 25%, about 0:30 left"."""
        if self._source is None:
            where = f"file {self.workload.number} of {self.workload.count}"
            return where + self._of_all()
        if self._stage != "coloring":
            return f"{self._source.name}: {self._stage}, {self._share:.0%}{self._of_all()}"
        line = f"{self._source.name}: {counted(self._frames, 'frame')}, {self.fps:.1f} fps"
        if (left := self.seconds_left) is not None:
            line += f", {self._share:.0%}, about {clock_time(left)} left"
        return line + self._of_all()

    def _of_all(self) -> str:
        if self.workload.count < 2 or (left := self.all_seconds_left) is None:
            return ""
        return f"; about {clock_time(left)} for all"


class LineProgress(Progress):
    """Logs a line every ten seconds."""

    tells_each_stage = False

    def __init__(
        self,
        workload: Workload,
        stop: Event | None = None,
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(workload, stop, every_seconds, clock)

    def tell(self) -> None:
        log.info(self.line)


class JsonProgress(Progress):
    """Emits an event every second, and one for each stage after the coloring."""

    def __init__(
        self, workload: Workload, emit: Callable[..., None], stop: Event | None = None
    ) -> None:
        super().__init__(workload, stop)
        self._emit = emit

    def tell(self) -> None:
        facts: dict[str, Any] = {"share": round(self._share, 4)}
        if self._stage == "coloring":
            facts |= {
                "seconds": round(self._at, 3),
                "of_seconds": self._seconds,
                "frames": self._frames,
                "fps": round(self.fps, 2),
                "seconds_left": _rounded(self.seconds_left),
            }
        facts["all_seconds_left"] = _rounded(self.all_seconds_left)
        self._emit(self._stage, self._source, **facts)


class BarProgress(Progress):
    """Shows a bar with what is done, frames per second and the time left."""

    def __init__(self, workload: Workload, console: Console, stop: Event | None = None) -> None:
        super().__init__(workload, stop, every_seconds=0.1)
        self._console = console

    def begin(self, source: Path, seconds: float | None) -> None:
        super().begin(source, seconds)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} % {task.fields[facts]}", markup=False),
            console=self._console,
            transient=True,
        )
        name = printable(source.name)
        self._task: TaskID = self._bars.add_task(name, total=1.0 if seconds else None, facts="")
        self._bars.start()

    def tell(self) -> None:
        assert self._source is not None
        facts = self._stage if self._stage != "coloring" else f"{self.fps:.1f} fps"
        if (left := self.seconds_left) is not None:
            facts += f", {clock_time(left)} left"
        self._bars.update(self._task, completed=self._share, facts=facts + self._of_all())

    def end(self) -> None:
        if self._source is not None:
            self._bars.stop()
        super().end()


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
