"""Single frames of a film as pictures: gray, and as their colors are before smoothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from colordaemon.errors import MediaError
from colordaemon.film.analysis import View, analyzed_frames, calmed, network_view
from colordaemon.film.shots import Stride
from colordaemon.media.decode import FilmReader, Frame
from colordaemon.media.photo_pixels import paint
from colordaemon.media.probe import FilmInfo
from colordaemon.network.colorizer import Colorizer

if TYPE_CHECKING:
    from colordaemon.film.guide import FilmPainter


class Stills:
    """Makes pictures (H, W, 3) uint8 sRGB of a film's frames, upright and with square pixels."""

    def __init__(self, info: FilmInfo, colorizer: Colorizer) -> None:
        self._info, self._colorizer = info, colorizer
        width = max(1, round(info.width * float(info.sample_aspect)))
        self._full, self._small = View(info, info.height, width), network_view(info, colorizer)

    def gray(self, frame: Frame) -> np.ndarray:
        codes = (self._full.of(frame) * 255).round().astype(np.uint8)
        return np.repeat(codes[..., None], 3, axis=2)

    def colored(self, frame: Frame, painter: FilmPainter | None = None) -> np.ndarray:
        """painter: the film's guide, if it has one."""
        gray = calmed(self._small.of(frame))
        if painter is None:
            ab = self._colorizer.predict_ab(torch.from_numpy(gray)[None, None])
        else:
            ab = painter.guess_alone(gray, self._info.seconds_at(frame.pts))
        full = torch.from_numpy(self._full.of(frame))[None, None]
        enlarged = torch.nn.functional.interpolate(
            ab.float().cpu(), full.shape[-2:], mode="bicubic", align_corners=False
        )
        rgb = paint(full, enlarged)[0].permute(1, 2, 0)
        pixels: np.ndarray = (rgb * 255).round().byte().contiguous().numpy()
        return pixels


@dataclass(frozen=True)
class Shot:
    """When a shot begins and ends, and when its middle frame is shown, in seconds."""

    start: float
    middle: float
    end: float


def find_shots(info: FilmInfo, colorizer: Colorizer, damaged_percent: float) -> list[Shot]:
    """All shots of a film, which is read once. Raises MediaError."""
    times, cuts = list[float](), list[int]()
    with FilmReader(info, damaged_percent=damaged_percent) as reader:
        for number, frame in enumerate(analyzed_frames(reader, colorizer, Stride(1), holds=False)):
            times.append(info.seconds_at(frame.pts))
            if frame.cut:
                cuts.append(number)
    cuts.append(len(times))
    times += [round(times[-1] + 1 / float(info.rate), 3)] if times else []  # the film's end
    return [
        Shot(times[first], times[(first + behind - 1) // 2], times[behind])
        for first, behind in pairwise(cuts)
    ]


def frames_near(info: FilmInfo, times: Sequence[float]) -> Iterator[Frame]:
    """A frame at about each time, in seconds. Films are searched for them, where they can be.

    Raises MediaError for a film without any that can be decoded.
    """
    for time in times:
        pts = round((time + float(info.origin_seconds)) / float(info.time_base))
        with FilmReader(info, damaged_percent=100.0, near=pts) as reader:
            last = None
            for frame in reader:
                last = frame
                if frame.pts >= pts:
                    break
        if last is None:
            raise MediaError(f"{info.path}: no frame at {time:.1f} s")
        yield last
