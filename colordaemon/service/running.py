"""What the worker has in its hands: a file, or a film and a photo between two of its segments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from colordaemon.service.job import Job
from colordaemon.service.lifecycle import Ends
from colordaemon.service.pace import Pace


@dataclass
class Task:
    """A job that the worker was told of. began: when it began with it, `now` of the daemon."""

    job: Job
    ends: Ends
    began: float = math.nan
    pace: Pace = field(default_factory=Pace)
    is_cancelled: bool = False
    makes_way: bool = False  # was asked to, for a more urgent one


class Hands:
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

    def take(self, job: Job, ends: Ends) -> None:
        self._tasks[job.id] = Task(job, ends)

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
