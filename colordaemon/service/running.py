"""Jobs that the worker is at: a file, or a film and a photo between two of its segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from colordaemon.service.job import Job
from colordaemon.service.messages import Progress

if TYPE_CHECKING:
    from colordaemon.service.lifecycle import JobLifecycle

Figure = Callable[[Progress], float]


class Pace:
    """Of one film. A film that was resumed begins somewhere; only what was done since counts.

    `now` is in seconds of a clock that never jumps.
    """

    def __init__(self) -> None:
        self._first: tuple[float, Progress] | None = None
        self._last: tuple[float, Progress] | None = None

    def feed(self, said: Progress, now: float) -> None:
        if said.frames == 0:  # the film was opened
            return
        self._first = self._first or (now, said)
        self._last = now, said

    @property
    def seconds_left(self) -> float:
        """Infinite as long as nobody knows."""
        speed, last = self._per_second(lambda said: said.done), self._last
        if last is None or not speed or not last[1].total:
            return math.inf
        return max(0.0, last[1].total - last[1].done) / speed

    def __str__(self) -> str:
        """As in "41 %, 63.0 fps, 12 min left"; empty in the beginning."""
        if self._last is None:
            return ""
        said, parts = self._last[1], list[str]()
        if said.total:
            parts.append(f"{min(1.0, said.done / said.total):.0%}")
        if fps := self._per_second(lambda said: said.frames):
            parts.append(f"{fps:.1f} fps")
        if (left := self.seconds_left) < math.inf:
            parts.append(f"{left / 60:.0f} min left" if left >= 60 else "less than a minute left")
        return ", ".join(parts)

    def _per_second(self, figure: Figure) -> float:
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return 0.0
        gone = figure(self._last[1]) - figure(self._first[1])
        return gone / (self._last[0] - self._first[0])


@dataclass
class Task:
    """A job that the worker was told of. began: when it began with it, `now` of the daemon."""

    job: Job
    lifecycle: JobLifecycle
    began: float = math.nan
    pace: Pace = field(default_factory=Pace)
    is_cancelled: bool = False
    is_preempted: bool = False  # was asked to, for a more urgent one


class RunningJobs:
    """Tasks by the numbers of their jobs."""

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        self._begun: list[int] = []

    def __iter__(self) -> Iterator[Task]:
        return iter([*self._tasks.values()])

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, number: int) -> bool:
        return number in self._tasks

    def __getitem__(self, number: int) -> Task:
        return self._tasks[number]

    def take(self, job: Job, lifecycle: JobLifecycle) -> None:
        self._tasks[job.id] = Task(job, lifecycle)

    def begin(self, number: int, now: float) -> None:
        self._begun.append(number)
        self._tasks[number].began = now

    def leave(self, number: int) -> Task:
        if number in self._begun:
            self._begun.remove(number)
        return self._tasks.pop(number)

    @property
    def begun_last(self) -> int | None:
        """Which job the worker is at; None while it is at nothing."""
        return self._begun[-1] if self._begun else None

    @property
    def film(self) -> Job | None:
        """The film, if nothing else was ordered: a photo may come between its segments."""
        jobs = [task.job for task in self._tasks.values()]
        return jobs[0] if len(jobs) == 1 and jobs[0].rank else None

    @property
    def seconds_left(self) -> float:
        """At the pace so far: none for a photo, endless for a film whose pace is not known."""
        films = [task.pace.seconds_left for task in self._tasks.values() if task.job.rank]
        return max(films, default=0.0)
