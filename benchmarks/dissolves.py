"""Whether colors smear from one shot into the next where one dissolves or fades into the other.

    python benchmarks/dissolves.py COLOR-FILM COLOR-FILM… [--lengths 12 24 48] [--quality …]

Each film ends in the next one, in a hard cut (length 0), by a dissolve and by a fade to black and
back. The network sees what that gives, the cut detector decides where shots begin, and smoothing
does its work. Printed is CIEDE2000 against the incoming film's true colors, over the frames behind
the end of the transition, where nothing of the outgoing film is left: motion must not be worse than
off. The row "told" is motion that was told to begin a shot there, whatever the detector says: what
is to be had at best.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

from colordaemon.bench.machine import describe_machine
from colordaemon.config import Smoothing
from colordaemon.evaluation.films import ColorFrame, color_frames, open_clip
from colordaemon.evaluation.metrics import delta_e_2000
from colordaemon.film.shots import CutDetector
from colordaemon.film.smoothing import Sample, Smoother
from colordaemon.media.decode import FilmReader
from colordaemon.network.colorizer import Colorizer, open_colorizer

BEFORE, AFTER = 30, 24  # frames around a transition
SPANS = ((0, 6), (6, 12), (12, 24))  # of frames behind its end
MODES: tuple[Smoothing, ...] = ("off", "ema", "motion")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--lengths", nargs="+", type=int, default=[12, 24, 48], help="frames")
    parser.add_argument("--quality", default="draft")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(2)
    colorizer = open_colorizer(arguments.model, arguments.device, "auto", arguments.quality, 8)
    print(f"{describe_machine()}; {colorizer}")
    clips = [opening(path, colorizer, BEFORE + max(arguments.lengths) + AFTER)
             for path in arguments.films]  # fmt: skip
    print("frames behind the end: " + ", ".join(f"{a}-{b - 1}" for a, b in SPANS))
    ways = [(0, False)] + [(n, fades) for n in arguments.lengths for fades in (False, True)]
    for length, fades in ways:
        found = [transition(one, other, length, fades, colorizer) for one, other in pairs(clips)]
        kind = f"{'fade' if fades else 'dissolve'} of {length}" if length else "hard cut"
        errors = np.mean([errors for errors, _ in found], axis=0)
        for name, row in zip((*MODES, "told"), errors, strict=True):
            print(f"{kind:>14} {name:>6}: ΔE " + "  ".join(f"{error:.2f}" for error in row))
        print(f"{'':>14} shots begin at {[cuts for _, cuts in found]}", flush=True)


def pairs(clips: list[list[ColorFrame]]) -> Iterator[tuple[list[ColorFrame], list[ColorFrame]]]:
    """Each clip with the next, and the last with the first."""
    yield from pairwise([*clips, clips[0]])


def opening(path: Path, colorizer: Colorizer, count: int) -> list[ColorFrame]:
    """The first frames of a film, at most; one shot whatever the detector says."""
    with FilmReader(open_clip(path)) as reader:
        frames = []
        for frame in color_frames(reader, colorizer, None):
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


def transition(
    one: list[ColorFrame], other: list[ColorFrame], length: int, fades: bool, colorizer: Colorizer
) -> tuple[np.ndarray, list[int]]:
    """Mean errors (modes and told, spans), and where shots begin, from the transition on."""
    shape = one[0].gray.shape
    out = [frame.gray for frame in one[-BEFORE - length :]]
    into = [cv2.resize(frame.gray, shape[::-1]) for frame in other[: length + AFTER]]
    grays = out[:BEFORE]
    for number in range(length):
        share = (number + 1) / (length + 1)
        sides = out[BEFORE + number], into[number]
        if fades:
            grays.append(sides[round(share)] * abs(1 - 2 * share))
        else:
            grays.append((1 - share) * sides[0] + share * sides[1])
    grays += into[length:]
    truths = [frame.lab for frame in other[length : length + AFTER]]
    samples = guesses(grays, colorizer)
    detector = CutDetector()
    cuts = [detector.is_cut(gray * 255) for gray in grays]
    told = [cut or number == BEFORE + length for number, cut in enumerate(cuts)]
    ways = [smoothed(samples, cuts, mode) for mode in MODES] + [smoothed(samples, told, "motion")]
    behind = [colors[-len(truths) :] for colors in ways]
    errors = np.array([[error_of(ab[a:b], truths[a:b]) for a, b in SPANS] for ab in behind])
    return errors, [n - BEFORE for n, cut in enumerate(cuts) if cut and n]


def guesses(grays: list[np.ndarray], colorizer: Colorizer) -> list[Sample]:
    samples = []
    for first in range(0, len(grays), colorizer.batch_size):
        batch = np.stack(grays[first : first + colorizer.batch_size])
        said = colorizer.guess(torch.from_numpy(batch)[:, None])
        for gray, ab, sure in zip(batch, *(part.cpu().numpy() for part in said), strict=True):
            size = ab.shape[2], ab.shape[1]
            luma = cv2.resize(gray * 255, size, interpolation=cv2.INTER_AREA)
            samples.append(Sample(luma.round().astype(np.uint8), ab, sure[0]))
    return samples


def smoothed(samples: list[Sample], cuts: list[bool], mode: Smoothing) -> list[np.ndarray]:
    smoother, colors = Smoother(mode), []
    for sample, cut in zip(samples, cuts, strict=True):
        colors += smoother.feed(sample, cut)
    return colors + smoother.finish()


def error_of(colors: list[np.ndarray], truths: list[torch.Tensor]) -> float:
    errors = []
    for ab, truth in zip(colors, truths, strict=True):
        size = truth.shape[2], truth.shape[1]
        there = cv2.resize(ab.transpose(1, 2, 0), size).transpose(2, 0, 1)
        lab = torch.cat((truth[:1], torch.from_numpy(np.ascontiguousarray(there))))
        errors.append(float(delta_e_2000(lab, truth).mean()))
    return float(np.mean(errors))


if __name__ == "__main__":
    main()
