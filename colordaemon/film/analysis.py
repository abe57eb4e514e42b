"""The frames of a film as the network and the cut detector see them, small and upright."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from colordaemon.film.grain import calmed
from colordaemon.film.shots import CutDetector
from colordaemon.film.stride import Stride
from colordaemon.media.damage import Damage
from colordaemon.media.decode import FilmReader, Frame
from colordaemon.media.probe import frame_color
from colordaemon.media.tint import ExistingColor
from colordaemon.network.colorizer import Colorizer
from colordaemon.transfer import Transfer, shown_gray

# Frames of a shot, counted from its first, whose own color is judged. One alone may be a flash or a
# scratch; all of a shot that has color have it.
JUDGED = (0, 4, 8)


@dataclass(frozen=True)
class Seen:
    """A frame, small and upright. cut: it begins a shot.

    luma: (h, w) uint8 at the size of ab. gray: (2h, 2w) float32 in 0..1, as the network has to see
    it; None if it has not. A shot's first frame always has one. frame: the full one, or None where
    it is too large to wait. in_color: the frame, after `shots_in_color` its shot, has real color
    of its own; None where nobody looked. damage: counted from the film's beginning up to it.
    before: of a shot's first frame, pts and luma CRC of the frame before it.
    """

    pts: int
    cut: bool
    luma: np.ndarray
    gray: np.ndarray | None
    frame: Frame | None
    in_color: bool | None = None
    damage: Damage = field(default_factory=Damage)
    before: tuple[int, int] | None = None


def seen_frames(
    reader: FilmReader, colorizer: Colorizer, stride: Stride, holds: bool, judges: bool = False
) -> Iterator[Seen]:
    """All frames of a reader that begins with a shot.

    holds: whether the full ones come along. judges: whether own color matters.
    """
    info, detector = reader.info, CutDetector()
    shape = (info.height, info.width * float(info.sample_aspect))
    height, width = colorizer.network_size(*shape)
    black, span, transfer = info.code.black, info.code.luma_span, info.code.transfer
    shown = None
    if transfer is not Transfer.SDR:
        shown = shown_gray(info.code.depth, black, span, transfer)
    number = 0  # within its shot
    last: Frame | None = None
    for frame in reader:
        small = cv2.resize(frame.luma, (width, height), interpolation=cv2.INTER_AREA)
        gray = (small.astype(np.float32) - black) / span if shown is None else shown[small]
        gray = info.orientation.upright(gray).clip(0.0, 1.0)
        codes = gray * 255
        cut = detector.is_cut(codes)
        number = 0 if cut else number + 1
        size = gray.shape[1] // 2, gray.shape[0] // 2
        luma = cv2.resize(codes, size, interpolation=cv2.INTER_AREA).round().astype(np.uint8)
        sampled = calmed(gray) if stride.takes(codes, cut) else None
        in_color = None
        if judges and number in JUDGED:
            in_color = frame_color(frame.picture, transfer) is ExistingColor.COLOR
        held, damage = frame if holds else None, replace(reader.damage)
        before = (last.pts, last.luma_crc()) if last and cut else None
        yield Seen(frame.pts, cut, luma, sampled, held, in_color, damage, before)
        last = frame


def shots_in_color(frames: Iterable[Seen]) -> Iterator[Seen]:
    """The same frames, each told whether its shot has color of its own.

    The first frames of a shot wait until enough of them have been judged.
    """
    waiting: list[Seen] = []
    verdict: bool | None = None
    for seen in frames:
        if seen.cut:
            yield from _told(waiting, _verdict(waiting))
            waiting, verdict = [], None
        if verdict is not None:
            yield replace(seen, in_color=verdict)
            continue
        waiting.append(seen)
        if len(waiting) > max(JUDGED):
            verdict = _verdict(waiting)
            yield from _told(waiting, verdict)
            waiting = []
    yield from _told(waiting, _verdict(waiting))


def _verdict(frames: list[Seen]) -> bool:
    judged = [seen.in_color for seen in frames if seen.in_color is not None]
    return bool(judged) and all(judged)


def _told(frames: list[Seen], verdict: bool) -> Iterator[Seen]:
    return (replace(seen, in_color=verdict) for seen in frames)
