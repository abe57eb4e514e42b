"""How near films colored piece by piece come to the same shots smoothed as a whole.

    python benchmarks/lookahead.py FILM… [--look-ahead 20 40 80] [--seconds 10] [--quality …]

Smoothing knows a bounded number of samples beyond each one, and those before and after each
segment. Here the production line does that (decoder, cut detector, segments, smoothing), and every
shot is smoothed once more with all of its samples known; printed is CIEDE2000 between the two, over
all pixels of all frames. The network sees every different frame once. Shots of real clips are
short, so the longest of each film is also played forward and back until it has --long frames: a
made-up film, but one with segments inside a shot.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from colordaemon.bench.machine import describe_machine
from colordaemon.color import gray_to_lightness
from colordaemon.config import FilmSettings
from colordaemon.evaluation.metrics import delta_e_2000
from colordaemon.film import pipeline as playing
from colordaemon.film import smoothing
from colordaemon.film.analysis import AnalyzedFrame
from colordaemon.film.colorize import plan_film
from colordaemon.film.pipeline import FilmPipeline
from colordaemon.film.plan import SegmentTask
from colordaemon.film.smoothing import Sample, Smoother
from colordaemon.network.colorizer import Colorizer, open_colorizer

WHOLE = 1_000_000_000  # samples; no shot is as long


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("films", nargs="+", type=Path)
    parser.add_argument(
        "--look-ahead", nargs="+", type=int, default=[smoothing.LOOK_AHEAD], help="samples"
    )
    parser.add_argument("--seconds", type=float, default=FilmSettings().segment_seconds)
    parser.add_argument("--long", type=int, default=600, help="frames of the long shots")
    parser.add_argument("--quality", default="draft")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(2)
    colorizer = open_colorizer(arguments.model, arguments.device, "auto", arguments.quality, 8)
    print(f"{describe_machine()}; {colorizer}; segments of at most {arguments.seconds:g} s")
    for path in arguments.films:
        network = Remembering(colorizer)
        film = compare(path, path.name, network, arguments.look_ahead, arguments.seconds)
        with tempfile.TemporaryDirectory() as folder:
            long = there_and_back(film, Path(folder) / "long.mkv", arguments.long)
            name = f"{path.name}, its longest shot there and back"
            compare(long, name, network, arguments.look_ahead, arguments.seconds)


class Remembering:
    """A colorizer that looks at no picture twice. asked: all it was given, in order."""

    def __init__(self, colorizer: Colorizer) -> None:
        self._colorizer = colorizer
        self._said: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = {}
        self.asked: list[np.ndarray] = []
        self.batch_size, self.device = colorizer.batch_size, colorizer.device
        self.network_size = colorizer.network_size

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += [picture.numpy() for picture in gray[:, 0]]
        keys = [picture.numpy().tobytes() for picture in gray]
        new = [number for number, key in enumerate(keys) if key not in self._said]
        if new:
            ab, sure = self._colorizer.guess(gray[new])
            self._said |= {keys[n]: (ab[i].cpu(), sure[i].cpu()) for i, n in enumerate(new)}
        said = [self._said[key] for key in keys]
        return torch.stack([ab for ab, _ in said]), torch.stack([sure for _, sure in said])


@dataclass
class Shown:
    """A film as it was colored: frames, their ab (2, h, w), and how many segments they were in.

    grays: what the network saw of each frame.
    """

    frames: list[AnalyzedFrame] = field(default_factory=list)
    grays: list[np.ndarray] = field(default_factory=list)
    colors: list[np.ndarray] = field(default_factory=list)
    segments: int = 0


def compare(
    path: Path, name: str, network: Remembering, look_aheads: list[int], seconds: float
) -> Shown:
    """Print how the film differs from its shots as wholes, for each look-ahead; returns the last
    way of showing it."""
    whole: list[np.ndarray] = []
    for look_ahead in look_aheads:
        with looking(look_ahead):
            shown = in_segments(path, network, seconds)
        whole = whole or as_wholes(shown, network)
        found = np.concatenate(
            [difference(*item) for item in zip(shown.frames, shown.colors, whole, strict=True)]
        )
        print(
            f"{name}: {len(shown.frames)} frames, {sum(f.cut for f in shown.frames)} shots, "
            f"{shown.segments} segments, {look_ahead} samples ahead: ΔE mean {found.mean():.3f}, "
            f"p99 {np.percentile(found, 99):.3f}, max {found.max():.2f}",
            flush=True,
        )
    return shown


@contextmanager
def looking(ahead: int) -> Iterator[None]:
    """Let smoothing and pipeline look so many samples ahead, and behind before a segment."""
    usual = smoothing.LOOK_AHEAD
    smoothing.LOOK_AHEAD = playing.LOOK_AHEAD = ahead  # type: ignore[attr-defined]
    try:
        yield
    finally:
        smoothing.LOOK_AHEAD = playing.LOOK_AHEAD = usual  # type: ignore[attr-defined]


def in_segments(path: Path, network: Remembering, seconds: float) -> Shown:
    """Colored as in production, up to the encoder."""
    job = plan_film(path, FilmSettings(), force=True)
    task = SegmentTask(0, job.source, job.encoder, Path(), seconds, 100.0)
    network.asked.clear()
    player, shown = FilmPipeline(task, network), Shown()  # type: ignore[arg-type]
    try:
        while player.next is not None:
            for seen, ab in player.colored(task):  # each time the segment that is next
                assert ab is not None
                shown.frames.append(replace(seen, full=None))
                shown.colors.append(ab)
            shown.segments += 1
    finally:
        player.close()
    shown.grays = network.asked.copy()  # with a stride of one, all frames in order
    return shown


def as_wholes(film: Shown, network: Remembering) -> list[np.ndarray]:
    """Each shot smoothed with all of its samples known."""
    smoother, colors = Smoother("motion"), []
    with looking(WHOLE):
        for seen, gray in zip(film.frames, film.grays, strict=True):
            ab, sure = network.guess(torch.from_numpy(gray)[None, None])
            sample = Sample(seen.luma, ab[0].numpy(), sure[0, 0].numpy())
            colors += smoother.feed(sample, seen.cut)
        return colors + smoother.finish()


def difference(seen: AnalyzedFrame, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIEDE2000 of every pixel, in one row."""
    light = gray_to_lightness(torch.from_numpy(seen.luma)[None] / 255)
    labs = [torch.cat((light, torch.from_numpy(ab))) for ab in (one, other)]
    return delta_e_2000(*labs).numpy().ravel()


def there_and_back(film: Shown, path: Path, count: int) -> Path:
    """The longest shot as a lossless film at the size that the network sees, 25 frames a second."""
    starts = [number for number, seen in enumerate(film.frames) if seen.cut]
    ends = [*starts[1:], len(film.frames)]
    length, start = max((end - start, start) for start, end in zip(starts, ends, strict=True))
    shot = film.grays[start : start + length]
    around = chain(range(length), range(length - 2, 0, -1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        height, width = shot[0].shape
        stream.width, stream.height, stream.pix_fmt = width, height, "gray"
        for number in islice(cycle(around), count):
            codes = (shot[number] * 255).round().astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(codes, "gray")))
        container.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
