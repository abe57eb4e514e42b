"""The plan of a film and its segment tasks: plain values that can be pickled and run again.

A segment is whole shots, two to about ten seconds long; a longer shot is split. A task needs no
state of its neighbor, so segments may be made again, elsewhere, in any order. It begins to read at
the start of the shot that its first frame is in, because there all state is reset: the cut
detector, the stride, the check for existing color. What is decoded before its first frame is
compared with what was decoded there the first time, so that the result is exactly that of an
uninterrupted film.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from colordaemon.config import Place, Smoothing
from colordaemon.film.analysis import AnalyzedFrame
from colordaemon.film.shots import StrideSetting
from colordaemon.guide.guide import NO_GUIDE, Guide
from colordaemon.media.codec import EncoderSettings
from colordaemon.media.demux import Damage, EntryPoint
from colordaemon.media.probe import FilmInfo
from colordaemon.media.stretch import Cut

SHORTEST_SECONDS = 2.0  # a cut within this time of a segment's start does not end it


@dataclass(frozen=True)
class ResumePoint:
    """The beginning of a segment that is not the film's first.

    pts: of its first frame. crc: CRC-32 of that frame's luma; it is checked, because after a seek
    the time can be right and the picture wrong. warm_pts: pts of the first frame, at or before it,
    that smoothing needs. shot_pts: pts of the frame that begins the shot. shot_crc: CRC-32 of what
    was decoded of the shot before the first frame. before_pts, before_crc: pts and luma CRC of the
    frame before the shot, None in the film's first.
    """

    pts: int
    crc: int
    warm_pts: int
    shot_pts: int
    shot_crc: int
    before_pts: int | None
    before_crc: int | None

    def entry(self, damage: Damage) -> EntryPoint | None:
        """Where to seek to; None: to the film's beginning. damage: counted before that."""
        if self.before_pts is None or self.before_crc is None:
            return None
        return EntryPoint(self.shot_pts, self.before_pts, self.before_crc, self.pts, damage)


class Shot:
    """Fed one frame at a time, keeps where the shot began and a CRC of its frames."""

    def __init__(self, entry: EntryPoint | None = None) -> None:
        """entry: where reading began, if not at the film's beginning."""
        self._before = (entry.before_pts, entry.before_crc) if entry else (None, None)
        self._pts: int | None = None  # of the frame that began it
        self._crc = 0

    def add(self, frame: AnalyzedFrame) -> None:
        """Add a frame to the CRC; its small picture is enough to recognize the large one."""
        if frame.cut:
            self._pts, self._crc, self._before = frame.pts, 0, frame.before or self._before
        facts = f"{frame.pts} {frame.gray is not None} {frame.in_color}"
        self._crc = zlib.crc32(frame.luma.tobytes(), zlib.crc32(facts.encode(), self._crc))

    def resume_point(self, frame: AnalyzedFrame, crc: int, warm_pts: int) -> ResumePoint:
        """The resume point at the frame that is added next. crc: of its luma."""
        if frame.cut or self._pts is None:
            before = frame.before or self._before
            return ResumePoint(frame.pts, crc, frame.pts, frame.pts, 0, *before)
        return ResumePoint(frame.pts, crc, warm_pts, self._pts, self._crc, *self._before)


@dataclass(frozen=True)
class SegmentTask:
    """Color one stretch of a film into a file of its own.

    start: where it begins, None for the film's beginning. damage: counted before that.
    end_pts: pts of the first frame after it; None lets the segment end by rule, at the first cut
    after SHORTEST_SECONDS or after longest_seconds.
    keep_color: shots that have real color already are left unchanged. accept_loss: whether captions
    may be lost. guide: pictures that guide its colors.
    """

    index: int
    source: FilmInfo
    encoder: EncoderSettings
    path: Path
    longest_seconds: float
    damaged_percent: float
    start: ResumePoint | None = None
    damage: Damage = field(default_factory=Damage)
    end_pts: int | None = None
    smoothing: Smoothing = "motion"
    smooth_on: Place = "cpu"
    stride: StrideSetting = 1
    keep_color: bool = False
    accept_loss: bool = False
    guide: Guide = NO_GUIDE

    @property
    def start_seconds(self) -> float:
        """How far into the film it begins."""
        if self.start is None:
            return 0.0
        seconds = float(self.start.pts * self.source.time_base - self.source.origin_seconds)
        return seconds - self.source.start_seconds

    def following(self, start: ResumePoint, damage: Damage) -> SegmentTask:
        """The task after this one, which ends by rule."""
        index = self.index + 1
        path = self.path.with_name(segment_name(index))
        return replace(self, index=index, path=path, start=start, damage=damage, end_pts=None)


def segment_name(index: int) -> str:
    return f"{index:06}.segment"


@dataclass(frozen=True)
class SegmentResult:
    """A finished segment file.

    start: as in its task. packet_pts: pts of its packets in decoding order. end_pts: when its last
    frame stops showing. next: where the next segment begins, None at the film's end. cuts: pts of
    the frames that begin a shot. damage: counted from the film's beginning to the next segment's
    first frame. kept: how many of its frames keep their own color. misshown: how many have another
    field order than the result says. beside: FFmpeg's names of side data that came with its frames.
    told: how many of its pictures carry captions and the like, by name. compared: how many of its
    frames were compared with reference pictures; likeness: the sum of the mean weights of these in
    them.
    """

    index: int
    path: Path
    packet_pts: tuple[int, ...]
    end_pts: int
    next: ResumePoint | None
    cuts: tuple[int, ...]
    damage: Damage
    start: ResumePoint | None = None
    kept: int = 0
    misshown: int = 0
    beside: tuple[str, ...] = ()
    told: tuple[tuple[str, int], ...] = ()
    compared: int = 0
    likeness: float = 0.0


@dataclass
class FilmPlan:
    """A film and its finished segments so far."""

    source: FilmInfo
    encoder: EncoderSettings
    segments: list[SegmentResult] = field(default_factory=list)

    def add(self, result: SegmentResult) -> None:
        if result.index != len(self.segments):
            raise ValueError(f"segment {result.index} after {len(self.segments)} segments")
        self.segments.append(result)

    @property
    def is_whole(self) -> bool:
        """Whether all of the film is finished."""
        return bool(self.segments) and self.segments[-1].next is None

    @property
    def frame_count(self) -> int:
        return sum(len(segment.packet_pts) for segment in self.segments)

    @property
    def damage(self) -> Damage:
        return self.segments[-1].damage if self.segments else Damage()

    @property
    def told(self) -> Counter[str]:
        """How many pictures carry captions and the like, by FFmpeg's name."""
        counts = (Counter(dict(segment.told)) for segment in self.segments)
        return sum(counts, Counter())

    @property
    def likeness(self) -> float | None:
        """The mean weight of reference pictures, 0..1; None if no frame was compared with any."""
        compared = sum(segment.compared for segment in self.segments)
        total = sum(segment.likeness for segment in self.segments)
        return total / compared if compared else None

    def pts(self) -> np.ndarray:
        """pts of every frame, rising, int64."""
        parts = [np.sort(np.array(s.packet_pts, dtype=np.int64)) for s in self.segments]
        return np.concatenate(parts)

    @property
    def cut(self) -> Cut | None:
        """Where the frames begin and end, if only a stretch of the film is wanted."""
        if self.source.stretch is None:
            return None
        pts, end = self.pts(), self.segments[-1].end_pts
        tick = self.source.time_base
        last = int(pts[-1]) * tick
        return Cut(int(pts[0]) * tick, max(end * tick, last + 1 / self.source.rate))

    @property
    def reorder_depth(self) -> int:
        """By how many frames packets come before the frames that they are shown as, at most."""
        depth = 0
        for segment in self.segments:
            ranks = np.argsort(np.argsort(np.array(segment.packet_pts, dtype=np.int64)))
            depth = max(depth, int((np.arange(len(ranks)) - ranks).max()))
        return depth
