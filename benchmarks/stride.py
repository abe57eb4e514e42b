"""What it costs to show the network only some frames: error and time for strides 1 to 16 and auto.

    python benchmarks/stride.py COLOR-FILM… [--seconds 4] [--quality …] [--device …]

The network sees every frame once; each stride then takes only its own share of those guesses, and
smooths and carries them as production does. Time is that of the network for the frames it would
have seen, and of smoothing and carrying, measured here; decoding and encoding come on top and are
the same for all strides.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from colordaemon.bench.machine import describe_machine
from colordaemon.evaluation.films import ColorFrame, color_frames, open_clip
from colordaemon.evaluation.metrics import delta_e_2000
from colordaemon.film.propagation import ColorPropagator
from colordaemon.film.shots import Stride, StrideSetting
from colordaemon.film.smoothing import Sample, Smoother
from colordaemon.media.decode import FilmReader
from colordaemon.network.colorizer import Colorizer, open_colorizer

STRIDES: tuple[StrideSetting, ...] = (1, 2, 4, 8, 16, "auto")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    print(describe_machine())
    colorizer = open_colorizer(arguments.model, arguments.device, "auto", arguments.quality, 8)
    for path in arguments.films:
        with FilmReader(open_clip(path)) as reader:
            frames = list(color_frames(reader, colorizer, arguments.seconds))
        samples, per_frame = guesses(frames, colorizer)
        print(f"{path.name}: {len(frames)} frames, {colorizer}, {1000 * per_frame:.1f} ms each")
        base_error, base_time = 0.0, 0.0
        for stride in STRIDES:
            seen, colors, seconds = color(frames, samples, stride)
            error = mean_error(frames, colors)
            total = seen * per_frame + seconds
            if stride == 1:
                base_error, base_time = error, total
            print(
                f"  stride {stride!s:>4}: ΔE {error:.3f} ({error / base_error - 1:+.1%}), network "
                f"sees {seen}, {1000 * seconds / len(frames):.1f} ms a frame for smoothing and "
                f"carrying, {base_time / total:.2f} times as fast"
            )


def guesses(frames: list[ColorFrame], colorizer: Colorizer) -> tuple[list[Sample], float]:
    """What the network says of every frame, and how long that takes for one, in seconds."""
    samples: list[Sample] = []
    seconds = 0.0
    for first in range(0, len(frames), colorizer.batch_size):
        batch = frames[first : first + colorizer.batch_size]
        gray = torch.from_numpy(np.stack([frame.gray for frame in batch])).unsqueeze(1)
        began = time.perf_counter()
        ab, sure = (part.cpu().numpy() for part in colorizer.guess(gray))
        seconds += time.perf_counter() - began
        samples += [Sample(frame.luma, ab[n], sure[n, 0]) for n, frame in enumerate(batch)]
    return samples, seconds / len(frames)


def color(
    frames: list[ColorFrame], samples: list[Sample], setting: StrideSetting
) -> tuple[int, list[np.ndarray], float]:
    """How many frames the network would see, the ab of all, and the seconds that took."""
    stride, smoother, propagator = Stride(setting), Smoother("motion"), ColorPropagator()
    colors: list[np.ndarray] = []
    cuts: list[bool] = []  # of the frames that the smoother has not given back
    seen = 0
    began = time.perf_counter()
    for number, (frame, sample) in enumerate(zip(frames, samples, strict=True)):
        taken = stride.takes(frame.gray * 255, frame.cut)
        propagator.feed(number, frame.luma, taken)
        if taken:
            seen += 1
            cuts.append(frame.cut)
            for ab in smoother.feed(sample, frame.cut):
                colors += propagator.arrive(ab, cuts.pop(0))
    for ab in smoother.finish():
        colors += propagator.arrive(ab, cuts.pop(0))
    colors += propagator.finish(None)
    return seen, colors, time.perf_counter() - began


def mean_error(frames: list[ColorFrame], colors: list[np.ndarray]) -> float:
    """Mean CIEDE2000 against the truth."""
    errors = []
    for frame, ab in zip(frames, colors, strict=True):
        lab = torch.cat((frame.lab[:1], torch.from_numpy(ab)))
        errors.append(float(delta_e_2000(lab, frame.lab).mean()))
    return float(np.mean(errors))


if __name__ == "__main__":
    cv2.setNumThreads(2)
    main()
