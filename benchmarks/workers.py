"""How many times as fast several workers are.

    python benchmarks/workers.py [--workers 4] [--milliseconds 60]

Simulates GPUs: the network is one that only sleeps for so long at each picture, so as many workers
as there are GPUs wait at the same time, on however few cores. The film is tiny and encoded without
effort. What is left is the cost of working together: the scout, starts in the middle of the film,
results on their way, and the end, where some have nothing left to do.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from films import EXACT, Painter, make_film, pictures

from colordaemon.film.colorize import FilmJob, color_film, plan_film
from colordaemon.film.helper import HelperProcess

FRAMES, SHOT_FRAMES, RATE = 1200, 20, 10  # two minutes, with a cut every two seconds
SEGMENT_SECONDS = 2.0


class Sleeping(Painter):
    """A GPU with a network of fixed delay."""

    def guess(self, gray: Any) -> Any:
        time.sleep(float(os.environ["NETWORK_MILLISECONDS"]) / 1000 * len(gray))
        return super().guess(gray)


def seconds(job: FilmJob, folder: Path, helpers: list[HelperProcess]) -> float:
    began = time.monotonic()
    painter: Any = Sleeping()
    color_film(job, folder / f"{len(helpers)}.color.mp4", painter, helpers=lambda: helpers)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--milliseconds", type=int, default=60, help="for each picture")
    options = parser.parse_args()
    os.environ["NETWORK_MILLISECONDS"] = str(options.milliseconds)
    from workers import Sleeping as Importable  # for processes whose main module is another

    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = {"PYTHONPATH": os.pathsep.join(paths)}
    helpers = [HelperProcess(environment) for _ in range(options.workers - 1)]
    for helper in helpers:
        make: Any = Importable
        helper.load = make
        helper.start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = make_film(folder / "film.mp4", pictures(FRAMES, shot_frames=SHOT_FRAMES), rate=RATE)
        update = {"stride": 1, "segment_seconds": SEGMENT_SECONDS}
        job = plan_film(film, EXACT.model_copy(update=update))
        job = replace(job, most_workers=options.workers)
        seconds(job, folder, helpers)  # starts of processes take seconds, and are no part of it
        together = seconds(job, folder, helpers)
        alone = seconds(job, folder, [])
        is_same = len({path.read_bytes() for path in folder.glob("*.color.mp4")}) == 1
    for helper in helpers:
        helper.end()
    print(
        f"{FRAMES} frames, {options.milliseconds} ms each: one worker {alone:.1f} s, "
        f"{options.workers} workers {together:.1f} s, {alone / together:.2f} times as fast, "
        f"{'the same' if is_same else 'ANOTHER'} film; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
