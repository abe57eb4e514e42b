"""Opens a film's guide: reference pictures and dabs of color that change what the network says.

Dabs belong to one frame and are solved on it, as the network sees it; so the film is read once from
its beginning up to the last frame with dabs. It is not searched: nothing could tell whether the
right picture came out, and a picture with dabs is made for one frame only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from colordaemon.errors import MediaError
from colordaemon.film.analysis import AnalyzedFrame, calmed, gray_of, network_view
from colordaemon.guide.guide import Guide
from colordaemon.guide.pictures import read_hints, usable
from colordaemon.guide.references import open_references
from colordaemon.media.decode import FilmReader, Frame
from colordaemon.media.probe import FilmInfo
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.match import Reference
from colordaemon.network.painter import HintedFrame, Painter, hinted_frame, most_alike

# Likeness of candidates from which they may be of the same place. To 45 frames of 9 clips, some
# framed anew, no other clip and none of 230 photos was more like than 0.647, and 24 of 32 frames
# were more like the first one of their shot than this; those of the fastest camera were not.
KNOWN = 0.66


def check_guide(guide: Guide, info: FilmInfo) -> tuple[Guide, tuple[str, ...]]:
    """What of a guide is usable for a film, and remarks; see `usable`. Raises MediaError for a
    picture that cannot guide it, or for a time beyond its end."""
    seconds = info.duration_seconds or info.container_seconds or float("inf")
    guide.check_times(info.path, seconds)
    for picture in guide.hints:
        read_hints(picture, *upright_shape(info))
    return usable(guide)


class FilmPainter:
    """Guesses colors of a film's frames with the help of its guide.

    candidates: of these each shot has the two that its first frame is most like as further
    references, if it is like enough.
    """

    def __init__(
        self,
        colorizer: Colorizer,
        info: FilmInfo,
        references: Sequence[Reference],
        hints: Sequence[HintedFrame],
        candidates: Sequence[Reference],
    ) -> None:
        self._colorizer, self._info = colorizer, info
        self._references, self._hints, self._candidates = references, hints, candidates
        self._painter = Painter(colorizer, references, hints)
        self._first: np.ndarray | None = None  # frame of a shot that has no candidates yet

    def pass_by(self, frame: AnalyzedFrame) -> None:
        """Take notice of a frame whose colors are not asked for; frames come in order."""
        if frame.cut and self._candidates:
            self._first = frame.gray

    def guess(
        self, frames: Sequence[AnalyzedFrame]
    ) -> tuple[tuple[Tensor, Tensor], list[float | None]]:
        """What `Colorizer.guess` returns for the next frames, all with gray, and the mean weight
        0..1 of references in each, None where there is none for its time."""
        cuts = [number for number, frame in enumerate(frames) if frame.cut]
        said, weights = list[tuple[Tensor, Tensor]](), list[float | None]()
        for start, end in pairwise(sorted({0, *cuts, len(frames)})):
            self.pass_by(frames[start])
            painter = self._painter_of_shot()
            gray = torch.from_numpy(gray_of(frames[start:end]))
            times = [self._info.seconds_at(frame.pts) for frame in frames[start:end]]
            said.append(painter.guess(gray, times))
            weights += painter.weights
        ab, sure = zip(*said, strict=True)
        return (torch.cat(ab), torch.cat(sure)), weights

    def guess_alone(self, gray: np.ndarray, seconds: float) -> Tensor:
        """ab (1, 2, h, w) of a single frame, as if a shot began with it. gray: of the network."""
        self._first = gray
        ab, _ = self._painter_of_shot().guess(torch.from_numpy(gray)[None, None], [seconds])
        return ab

    def _painter_of_shot(self) -> Painter:
        if self._first is not None:
            gray, self._first = torch.from_numpy(self._first)[None, None], None
            chosen = most_alike(self._colorizer, gray, self._candidates, KNOWN)
            self._painter = Painter(self._colorizer, [*self._references, *chosen], self._hints)
        return self._painter


def open_guide(
    guide: Guide,
    info: FilmInfo,
    colorizer: Colorizer,
    *,
    damaged_percent: float = 2.0,
    heartbeat: Callable[[], None] = lambda: None,
) -> FilmPainter:
    """Read the pictures of a guide and prepare them for a film.

    heartbeat: called for every picture, and for every frame that is read on the way to those with
    dabs. Raises MediaError for a picture that cannot guide this film.
    """
    references = open_references(guide.references, colorizer, heartbeat)
    candidates = open_references(guide.candidates, colorizer, heartbeat)
    first, whole = info.start_seconds, replace(info, stretch=None)
    dabs = sorted(guide.hints, key=lambda picture: picture.start or first)
    times = [picture.start or first for picture in dabs]
    frames = frames_at(whole, times, damaged_percent=damaged_percent, heartbeat=heartbeat)
    view, hints = network_view(info, colorizer), list[HintedFrame]()
    for picture, frame in zip(dabs, frames, strict=True):
        if frame is None:
            raise MediaError(
                f"{picture.path}: found a time at which {info.path.name} has ended, expected one"
                " before"
            )
        gray = torch.from_numpy(calmed(view.of(frame)))[None, None]
        rgba = read_hints(picture, *upright_shape(info))
        chosen = most_alike(colorizer, gray, candidates, KNOWN)
        base = Painter(colorizer, [*references, *chosen])
        hints.append(hinted_frame(base, gray, rgba, info.seconds_at(frame.pts)))
    return FilmPainter(colorizer, info, references, hints, candidates)


def frames_at(
    info: FilmInfo,
    times: Sequence[float],
    *,
    damaged_percent: float = 2.0,
    heartbeat: Callable[[], None] = lambda: None,
) -> Iterator[Frame | None]:
    """The frames that are shown at `times` (seconds, rising), read in one pass; None at the end.

    At times before the first frame that one is given. heartbeat: called for every frame.
    """
    waiting = deque(times)
    last: Frame | None = None
    with FilmReader(info, damaged_percent=damaged_percent) as reader:
        for frame in reader if waiting else ():
            heartbeat()
            while last and waiting and waiting[0] < info.seconds_at(frame.pts):
                yield last
                waiting.popleft()
            if not waiting:
                return
            last = frame
    for time in waiting:
        is_shown = last and time < info.seconds_at(last.pts + max(1, last.duration))
        yield last if is_shown else None


def upright_shape(info: FilmInfo) -> tuple[int, int]:
    """(height, width) in square pixels of the film's frames as they are shown, about as stored."""
    stored = np.empty((info.height, round(info.width * float(info.sample_aspect))), np.uint8)
    height, width = info.orientation.upright(stored).shape
    return height, width
