"""How long work takes: by the wall, and by the processors, all threads together."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colordaemon.bench.process import Ran, children, peak_mib


@dataclass(frozen=True)
class Timed:
    """count: of frames or pictures that were worked on in that time. helpers_mib: the most memory
    of processes that helped."""

    count: int
    wall_seconds: float
    processor_seconds: float
    helpers_mib: float = 0.0


@dataclass(frozen=True)
class Measured:
    """A stage: the median of its runs, and the most memory of any of them, in MiB."""

    count: int
    wall_seconds: float
    processor_seconds: float
    peak_mib: float
    device_peak_mib: float | None
    runs: int

    @property
    def per_second(self) -> float:
        return self.count / self.wall_seconds

    @property
    def wall_ms(self) -> float:
        """For one frame or picture."""
        return 1000 * self.wall_seconds / self.count

    @property
    def processor_ms(self) -> float:
        """For one frame or picture."""
        return 1000 * self.processor_seconds / self.count

    def ratio_to(self, other: Measured) -> float:
        """How many times as fast it is, by the wall."""
        return other.wall_ms / self.wall_ms

    def processor_ratio_to(self, other: Measured) -> float:
        """As `ratio_to`, by the processors: what other work on the machine does not change much."""
        return other.processor_ms / max(self.processor_ms, 1e-6)  # counted in ticks by some

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "wall_seconds": self.wall_seconds,
            "processor_seconds": self.processor_seconds,
            "per_second": self.per_second,
            "wall_ms": self.wall_ms,
            "processor_ms": self.processor_ms,
            "peak_mib": self.peak_mib,
            "device_peak_mib": self.device_peak_mib,
            "runs": self.runs,
        }


def measured(runs: Sequence[Ran[Timed]]) -> Measured:
    """Runs of the same stage as one."""
    took = median([run.result for run in runs])
    devices = [run.device_peak_mib for run in runs if run.device_peak_mib is not None]
    return Measured(
        count=took.count,
        wall_seconds=took.wall_seconds,
        processor_seconds=took.processor_seconds,
        peak_mib=max(run.peak_mib + run.result.helpers_mib for run in runs),
        device_peak_mib=max(devices, default=None),
        runs=len(runs),
    )


def median(times: Sequence[Timed]) -> Timed:
    """Of times for the same work."""
    return Timed(
        times[0].count,
        statistics.median(time.wall_seconds for time in times),
        statistics.median(time.processor_seconds for time in times),
        max(time.helpers_mib for time in times),
    )


def timed(work: Callable[[], int], repeats: int = 1) -> Timed:
    """Call `work`, which says how much it did; the median of its times."""
    return median([_once(work) for _ in range(repeats)])


def _once(work: Callable[[], int]) -> Timed:
    wall, processor = time.perf_counter(), _processor_seconds()
    count = work()
    took = time.perf_counter() - wall, _processor_seconds() - processor
    return Timed(count, *took, sum(map(peak_mib, children())))


def _processor_seconds() -> float:
    """Of this process and those that it has started."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used) + sum(map(_used_by, children()))


def _used_by(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
