"""Shows the progress of a film: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from colordaemon.logs import counted, printable
from colordaemon.work_context import WorkContext

log = logging.getLogger(__name__)


class _Stoppable(WorkContext):
    """stop: set to stop the work, after a signal for instance."""

    def __init__(self, stop: Event | None) -> None:
        self._stop = stop or Event()

    def should_stop(self) -> bool:
        return self._stop.is_set()


class LineProgress(_Stoppable):
    """Logs a line every `every_seconds`."""

    def __init__(
        self,
        stop: Event | None = None,
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stop)
        self._every, self._clock = every_seconds, clock

    def begin(self, source: Path, seconds: float | None) -> None:
        self._source, self._seconds = source, seconds
        self._began = self._said = self._clock()
        self._frames = 0

    def advance(self, seconds: float) -> None:
        self._frames += 1
        now = self._clock()
        if now - self._said < self._every:
            return
        self._said = now
        rate = self._frames / (now - self._began)
        line = f"{self._source.name}: {counted(self._frames, 'frame')}, {rate:.1f} fps"
        if self._seconds and seconds > 0:
            share = min(1.0, seconds / self._seconds)
            left = (now - self._began) * (1 - share) / share
            line += f", {share:.0%}, about {_clock_time(left)} left"
        log.info(line)


class BarProgress(_Stoppable):
    """Shows a bar with frames per second and the time left."""

    def __init__(self, console: Console, stop: Event | None = None) -> None:
        super().__init__(stop)
        self._console = console

    def begin(self, source: Path, seconds: float | None) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} % {task.fields[fps]:.1f} fps", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        name = printable(source.name)
        self._task: TaskID = self._bar.add_task(name, total=seconds, fps=0.0)
        self._began, self._frames = time.monotonic(), 0
        self._bar.start()

    def advance(self, seconds: float) -> None:
        self._frames += 1
        fps = self._frames / max(1e-6, time.monotonic() - self._began)
        self._bar.update(self._task, completed=seconds, fps=fps)

    def end(self) -> None:
        self._bar.stop()


def _clock_time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
