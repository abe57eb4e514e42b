"""The network on a processor: time of a look by precision, quality, batch and threads, and how far
its colors are from those of float32.

    python benchmarks/cpu.py [--pictures DIR] [--count 24]

Run it with OMP_WAIT_POLICY=PASSIVE, as the program runs, or two threads cost twice as much where
others compute. Times are processor time of this process; each turn measures all ways once, since
other work on the machine slows all. DIR: color pictures, a folder per label; without it, colors are
not compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from colordaemon.bench.machine import describe_machine
from colordaemon.color import lightness_to_gray, rgb_to_lab
from colordaemon.evaluation.metrics import chroma, delta_e_2000
from colordaemon.network.colorizer import Colorizer, open_colorizer
from colordaemon.network.device import cpu_multiplies_bytes
from colordaemon.pictures.dataset import Picture, find_pictures

TURNS = 3


class Way(NamedTuple):
    precision: Literal["fp32", "bf16", "int8"]
    quality: Literal["draft", "standard"]
    batch: int
    threads: int

    def __str__(self) -> str:
        return f"{self.precision}, {self.quality}, batch {self.batch}, {self.threads} threads"

    def open(self) -> Colorizer:
        return open_colorizer(None, "cpu", self.precision, self.quality, self.batch)


WAYS = (
    Way("fp32", "standard", 1, 1),
    Way("bf16", "standard", 1, 1),
    Way("bf16", "standard", 4, 1),
    Way("int8", "standard", 1, 1),
    Way("int8", "standard", 4, 1),
    Way("int8", "standard", 4, 2),
    Way("int8", "draft", 4, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--count", type=int, default=24)
    arguments = parser.parse_args()
    print(describe_machine())
    ways = [way for way in WAYS if way.precision != "int8" or cpu_multiplies_bytes()]
    measure(ways)
    if arguments.pictures:
        pictures = find_pictures(arguments.pictures)
        step = max(1, len(pictures) // arguments.count)
        compare([way for way in ways if way.threads == way.batch == 1], pictures[::step])


def measure(ways: Sequence[Way]) -> None:
    """Print the median milliseconds a picture of 16:9."""
    opened = [(way, way.open()) for way in ways]
    times: dict[Way, list[tuple[float, float]]] = {way: [] for way in ways}
    for turn in range(TURNS + 1):  # the first warms up
        for way, colorizer in opened:
            torch.set_num_threads(way.threads)
            gray = torch.rand(way.batch, 1, *colorizer.network_size(9, 16))
            began, wall = time.process_time(), time.perf_counter()
            colorizer.predict_ab(gray)
            took = time.process_time() - began, time.perf_counter() - wall
            if turn:
                times[way].append((1e3 * took[0] / way.batch, 1e3 * took[1] / way.batch))
    for way, found in times.items():
        processor, wall = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"{way}: {processor:.0f} ms of the processor, {wall:.0f} ms")


def compare(ways: Sequence[Way], pictures: Sequence[Picture]) -> None:
    """Print errors against the truth, and differences from the first way, in CIEDE2000."""
    colorizers = [way.open() for way in ways]
    rows: list[list[tuple[float, ...]]] = [[] for _ in ways]
    floor = []
    for picture in pictures:
        rgb = torch.from_numpy(picture.pixels().copy()).permute(2, 0, 1)[None].float() / 255
        lab = rgb_to_lab(rgb)
        lightness, truth = lab[:, :1], lab[:, 1:]
        floor.append(float(delta_e_2000(torch.cat((lightness, 0 * truth), 1), lab).mean()))
        first = None
        for row, colorizer in zip(rows, colorizers, strict=True):
            said = colorizer.predict_ab(lightness_to_gray(lightness))
            ab = functional.interpolate(said, lab.shape[-2:], mode="bicubic")
            painted = torch.cat((lightness, ab), dim=1)
            first = painted if first is None else first
            apart, error = delta_e_2000(painted, first), delta_e_2000(painted, lab)
            worst = float(np.quantile(apart.numpy(), 0.99))
            means = float(error.mean()), float(chroma(ab).mean()), float(apart.mean())
            row.append((*means, worst))
    print(f"{len(pictures)} pictures, left gray: ΔE {statistics.mean(floor):.2f}")
    for way, row in zip(ways, rows, strict=True):
        error, strength, apart_mean, worst = np.mean(row, axis=0)
        most = max(each[2] for each in row)
        print(
            f"{way}: ΔE {error:.3f}, chroma {strength:.2f}; from {ways[0].precision}: mean "
            f"{apart_mean:.3f}, worst picture {most:.2f}, 99th percentile {worst:.2f}"
        )


if __name__ == "__main__":
    main()
