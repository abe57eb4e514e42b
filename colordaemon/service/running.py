"""Jobs that the workers have: each one file, or a film and a photo between two of its segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from colordaemon.clock import Monotonic
from colordaemon.service.job import Job
from colordaemon.service.messages import Progress

if TYPE_CHECKING:
    from colordaemon.service.lifecycle import JobLifecycle

Figure = Callable[[Progress], float]


class Pace:
    """Progress, speed and remaining time of one film. A resumed film does not begin at zero, so
    only what was done since then counts for the speed.
    """

    def __init__(self) -> None:
        self._first: tuple[float, Progress] | None = None
        self._last: tuple[float, Progress] | None = None
        self._stage = ""  # after the last frame
        self._stage_share = 0.0
        self.total: float | None = 0.0  # seconds of the film; None: unknown; 0: it is not open yet

    def feed(self, said: Progress, now: Monotonic) -> None:
        self.total = said.total
        if said.frames == 0:  # the film was opened
            return
        self._stage = ""
        self._first = self._first or (now, said)
        self._last = now, said

    def enter(self, stage: str, share: float) -> None:
        """All frames are done; what is done now, and how much of that, 0..1."""
        self._stage, self._stage_share = stage, share

    @property
    def seconds_left(self) -> float:
        """Infinite while it is unknown."""
        speed, last = self._per_second(lambda said: said.done), self._last
        if last is None or not speed or not last[1].total:
            return math.inf
        return max(0.0, last[1].total - last[1].done) / speed

    def __str__(self) -> str:
        """As in "41 %, 63.0 fps, 12 min left" or "joining 41 %"; empty before the first frame."""
        if self._stage:
            return f"{self._stage} {self._stage_share:.0%}"
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

    def as_json(self) -> dict[str, float | str | None]:
        """share: how much of the film is done, from 0 to 1. frames: since it was begun or resumed.
        stage: what is done after the last frame, and stage_share how much of it. None is what is
        not known (yet)."""
        said, left = self._last[1] if self._last else None, self.seconds_left
        return {
            "share": min(1.0, said.done / said.total) if said and said.total else None,
            "frames": said.frames if said else None,
            "fps": self._per_second(lambda said: said.frames) or None,
            "seconds_left": left if left < math.inf else None,
            "stage": self._stage or None,
            "stage_share": self._stage_share if self._stage else None,
        }

    def _per_second(self, figure: Figure) -> float:
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return 0.0
        gone = figure(self._last[1]) - figure(self._first[1])
        return gone / (self._last[0] - self._first[0])


@dataclass
class Task:
    """A job that was sent to a worker, by its number. share, is_beside: as its order says. began:
    when the worker started it, by time.monotonic()."""

    job: Job
    lifecycle: JobLifecycle
    worker: int = 0
    share: float = 1.0
    is_beside: bool = False
    began: float = math.nan
    pace: Pace = field(default_factory=Pace)
    is_cancelled: bool = False
    is_preempted: bool = False  # told to stop in favor of a more urgent film

    def can_be_parted(self, segment_seconds: float) -> bool:
        """Whether it is a film of more than one segment, and will not be stopped."""
        total = self.pace.total
        is_long = total is None or total > segment_seconds
        return is_long and not self.is_cancelled and not self.is_preempted


class RunningJobs:
    """The tasks of all workers, by job number."""

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

    def take(self, task: Task) -> None:
        self._tasks[task.job.id] = task

    def begin(self, number: int, now: Monotonic) -> None:
        self._begun.append(number)
        self._tasks[number].began = now

    def leave(self, number: int) -> Task:
        if number in self._begun:
            self._begun.remove(number)
        return self._tasks.pop(number)

    def of(self, worker: int) -> list[Task]:
        """The tasks of one worker."""
        return [task for task in self._tasks.values() if task.worker == worker]

    def in_turn(self, worker: int) -> list[Task]:
        """The tasks of one worker without the photos beside them."""
        return [task for task in self.of(worker) if not task.is_beside]

    def beside(self, worker: int) -> int:
        """How many photos a worker has beside its other work."""
        return sum(task.is_beside for task in self.of(worker))

    def at_work(self, worker: int) -> list[Task]:
        """What a worker is working on: one task, and all photos beside it; none while it is
        idle."""
        begun = [self[number] for number in self._begun if self[number].worker == worker]
        in_turn = [task for task in begun if not task.is_beside]
        return [*in_turn[-1:], *(task for task in begun if task.is_beside)]

    def film(self, worker: int) -> Task | None:
        """The film of a worker, if it is all that it has in turn: then a photo may be done between
        its segments."""
        tasks = self.in_turn(worker)
        return tasks[0] if len(tasks) == 1 and tasks[0].job.rank else None

    @property
    def seconds_left(self) -> float:
        """By the speed so far: 0 for a photo, infinite for a film whose speed is not known yet."""
        films = [task.pace.seconds_left for task in self._tasks.values() if task.job.rank]
        return max(films, default=0.0)
