"""Many machines: how a film's time falls with their number, and whether films survive their deaths.

    python benchmarks/cluster.py scale [--segments 60] [--delay 0.5]
    python benchmarks/cluster.py soak [--films 20] [--kills 100]

`scale` colors one film with 1 to 16 stand-ins for workers, which wait and then hand out a segment
that was made before: all that is left is what the daemon's side takes (scout, crew, manifest,
join), beside the waiting. `soak` starts a head and three nodes on this machine and kills a random
node or worker process every few seconds while films are colored; each film has to come out once,
with the bytes that one worker makes.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from clusters import LocalCluster
from films import EXACT, Painter, make_film, pictures, short_segments

from colordaemon.cluster.admission import Terms
from colordaemon.cluster.cluster import Cluster
from colordaemon.cluster.film import FilmCluster
from colordaemon.film.colorize import FilmJob, color_film, plan_film
from colordaemon.film.manifest import Manifest
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.network.checkpoint import BUILT_IN_SHA256
from colordaemon.work_context import WorkContext

SECONDS = 2.0  # of a segment


class SlowPainter(Painter):
    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(0.1)
        return super().guess(gray)


class StandIn:
    """A worker that waits, and has made everything before."""

    def __init__(self, made: dict[int, SegmentResult], delay: float) -> None:
        self.context = WorkContext()
        self._made, self._delay = made, delay

    def run(self, task: SegmentTask) -> SegmentResult:
        time.sleep(self._delay)
        result = self._made[task.index]
        shutil.copyfile(result.path, task.path)
        return SegmentResult(**(vars(result) | {"path": task.path}))

    def close(self) -> None:
        pass


class StandIns:
    """So many of them: `film.crew.Elsewhere`."""

    device, colors, memory_bytes, tries = torch.device("cpu"), "painter", 1 << 40, 2
    stretch_seconds = 60.0

    def __init__(self, made: dict[int, SegmentResult], delay: float, count: int) -> None:
        self._workers = [StandIn(made, delay) for _ in range(count)]

    def open(self, source: Path, folder: Path) -> None:
        pass

    def helpers(self) -> Sequence[StandIn]:
        return self._workers

    def alone(self) -> StandIn:
        return self._workers[0]

    def close(self) -> None:
        pass


class Remembering(Manifest):
    """Keeps what the last film was made of."""

    made: dict[int, SegmentResult] = {}  # noqa: RUF012

    def add(self, result: SegmentResult) -> None:
        super().add(result)
        self.made[result.index] = result


def job_of(film: Path) -> FilmJob:
    return plan_film(film, short_segments(EXACT, SECONDS))


def scale(folder: Path, segments: int, delay: float) -> None:
    from colordaemon.film import colorize

    frames = round(segments * SECONDS * 25)
    film = make_film(folder / "film.mp4", pictures(frames, shot_frames=round(SECONDS * 25)))
    painter: Any = Painter()
    job, work = job_of(film), folder / "made"
    setattr(colorize, "Manifest", Remembering)  # noqa: B010
    color_film(job, folder / "done.mp4", painter, work=work)
    made = dict(Remembering.made)
    print(f"{len(made)} segments, {delay:g} s each with a worker of its own")
    for count in (1, 2, 4, 8, 16):
        there = StandIns(made, delay, count)
        begin, own = time.monotonic(), time.process_time()
        color_film(job, folder / "done.mp4", painter, elsewhere=there)
        took, own = time.monotonic() - begin, time.process_time() - own
        ideal = -(-len(made) // count) * delay
        print(
            f"{count:2} workers: {took:6.2f} s, {3600 / took:5.0f} films an hour, at best"
            f" {3600 / ideal:5.0f}; this process {1000 * own / len(made):.1f} ms a segment"
        )


def soak(folder: Path, films: int, kills: int) -> None:
    place = LocalCluster()
    for _ in range(3):
        place.add()
    cluster = Cluster(place.settings(tries=10), hang_seconds=60.0)
    chance, done, killed = random.Random(1), threading.Event(), {"nodes": 0, "workers": 0}  # noqa: S311

    def kill() -> None:
        while not done.is_set() and sum(killed.values()) < kills:
            done.wait(chance.uniform(1.0, 4.0))
            if chance.random() < 0.2 and len(place.nodes) > 1:
                place.kill(chance.randrange(len(place.nodes)))
                killed["nodes"] += 1
                place.add()
                continue
            here = [member for member in cluster.members if member.is_here and member.doing]
            if here:
                with suppress(Exception):
                    os.kill(chance.choice(here).started.get(), signal.SIGKILL)
                    killed["workers"] += 1

    killer = threading.Thread(target=kill)
    begin = time.monotonic()
    try:
        source = make_film(folder / "film.mp4", pictures(300, shot_frames=13))
        job, painter = plan_film(source, short_segments(EXACT, 0.4)), Painter()
        alone: Any = painter
        color_film(job, folder / "alone.mp4", alone)
        expected = (folder / "alone.mp4").read_bytes()
        killer.start()
        for number in range(films):
            load: Any = SlowPainter
            terms = Terms(load, None, BUILT_IN_SHA256, "painter")
            target, context = folder / f"{number}.mp4", WorkContext()
            color_film(job, target, alone, context, elsewhere=FilmCluster(cluster, terms, context))
            assert target.read_bytes() == expected, f"film {number} differs"
            print(f"film {number}: the same; killed so far: {killed}", flush=True)
            target.unlink()
    finally:
        done.set()
        if killer.is_alive():
            killer.join()
        cluster.end()
        place.close()
    left = sorted(path.name for path in folder.iterdir())
    print(f"{films} films, {killed}, {time.monotonic() - begin:.0f} s; left in the folder: {left}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("scale", "soak"))
    parser.add_argument("--segments", type=int, default=60)
    parser.add_argument("--delay", type=float, default=0.5)
    parser.add_argument("--films", type=int, default=20)
    parser.add_argument("--kills", type=int, default=100)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        if options.what == "scale":
            scale(Path(name), options.segments, options.delay)
        else:
            soak(Path(name), options.films, options.kills)


if __name__ == "__main__":
    main()
