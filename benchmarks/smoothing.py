"""What smoothing costs a frame: its own time, without decoder, network and encoder.

    python benchmarks/smoothing.py FILM… [--qualities draft standard] [--repeats 5] [--device …]

The network sees the first frames of each film once. The same samples then go through the smoother
again and again, with a stride of one, so that every frame is smoothed and none carried; they are
played forward and back until there are enough for the way back to be walked as often as in a long
shot. Minimum and median of the repeats are of the clock on the wall; where they are far apart, the
machine was busy. The time of the processors is what all threads took together: it may be more than
that of the clock, because OpenCV uses all cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import describe_machine

from colordaemon.config import Smoothing
from colordaemon.film.analysis import analyzed_frames
from colordaemon.film.shots import Stride
from colordaemon.film.smoothing import LOOK_AHEAD, TOGETHER, Sample, Smoother
from colordaemon.media.decode import FilmReader
from colordaemon.media.probe import FilmInfo, probe_film
from colordaemon.network.colorizer import Colorizer, open_colorizer

DIFFERENT = 48  # frames that the network sees
WARM = LOOK_AHEAD + TOGETHER  # frames before counting; from here on TOGETHER finish at a time
COUNTED = 6 * TOGETHER
MODES: tuple[Smoothing, ...] = ("off", "ema", "motion")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--qualities", nargs="+", default=["draft", "standard"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    print(f"{describe_machine()}; OpenCV {cv2.__version__} with {cv2.getNumThreads()} threads")
    for path in arguments.films:
        info = probe_film(path)
        for quality in arguments.qualities:
            colorizer = open_colorizer(arguments.model, arguments.device, "auto", quality, 8)
            samples = there_and_back(first_samples(info, colorizer))
            height, width = samples[0].luma.shape
            print(f"{path.name}: {info.width}x{info.height}, {quality}, ab {width}x{height}")
            for mode in MODES:
                print(f"  {mode:>6}: {measure(samples, mode, arguments.repeats)}", flush=True)


def first_samples(info: FilmInfo, colorizer: Colorizer) -> list[Sample]:
    with FilmReader(info, damaged_percent=100.0) as reader:
        seen = list(islice(analyzed_frames(reader, colorizer, Stride(1), holds=False), DIFFERENT))
    samples = []
    for first in range(0, len(seen), colorizer.batch_size):
        batch = seen[first : first + colorizer.batch_size]
        grays = np.stack([one.gray for one in batch if one.gray is not None])
        ab, sure = (p.cpu().numpy() for p in colorizer.guess(torch.from_numpy(grays)[:, None]))
        samples += [Sample(one.luma, ab[n], sure[n, 0]) for n, one in enumerate(batch)]
    return samples


def there_and_back(samples: list[Sample]) -> list[Sample]:
    around = samples + samples[-2:0:-1]
    count = WARM + COUNTED
    return (around * (count // len(around) + 1))[:count]


def measure(samples: list[Sample], mode: Smoothing, repeats: int) -> str:
    """Milliseconds a frame in the middle of a shot, where as many are finished as are fed."""
    walls, processors = [], []
    for _ in range(repeats):
        smoother = Smoother(mode)
        for number, sample in enumerate(samples[:WARM]):
            smoother.feed(sample, cut=number == 0)
        wall, processor = time.perf_counter(), time.process_time()
        finished = sum(len(smoother.feed(sample, cut=False)) for sample in samples[WARM:])
        walls.append(1000 * (time.perf_counter() - wall) / COUNTED)
        processors.append(1000 * (time.process_time() - processor) / COUNTED)
        assert finished == COUNTED
    return (
        f"{min(walls):.2f} ms a frame (median {statistics.median(walls):.2f}), "
        f"{min(processors):.2f} of the processors (median {statistics.median(processors):.2f})"
    )


if __name__ == "__main__":
    main()
