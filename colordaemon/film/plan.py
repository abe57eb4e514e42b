"""A film as a plan and segment tasks: plain descriptions that can travel and run again.

A segment is whole shots, two to about ten seconds long; a longer shot is split. A task carries no
state from its neighbor, so segments may be made again, elsewhere, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from colordaemon.film.edge import Edge
from colordaemon.film.smoothing import Mode
from colordaemon.film.stride import StrideSetting
from colordaemon.media.codec import EncoderSettings
from colordaemon.media.damage import Damage
from colordaemon.media.probe import FilmInfo

SHORTEST_SECONDS = 2.0  # a cut within this time of a segment's start does not end it


@dataclass(frozen=True)
class SegmentTask:
    """Color one stretch of a film into a file of its own.

    start: where it begins, None for the film's beginning. damage: what was counted before that.
    end_pts: pts of the first frame after it; None lets the segment end by rule, at the first cut
    after SHORTEST_SECONDS or after longest_seconds.
    keep_color: shots that have real color already pass as they are. accept_loss: whether captions
    may be lost.
    """

    index: int
    source: FilmInfo
    encoder: EncoderSettings
    path: Path
    longest_seconds: float
    damaged_percent: float
    start: Edge | None = None
    damage: Damage = field(default_factory=Damage)
    end_pts: int | None = None
    smoothing: Mode = "motion"
    stride: StrideSetting = 1
    keep_color: bool = False
    accept_loss: bool = False


@dataclass(frozen=True)
class SegmentResult:
    """A finished segment file.

    packet_pts: pts of its packets in decoding order. end_pts: when its last frame stops showing.
    next: where the next segment begins, None at the film's end. cuts: pts of the frames that begin
    a shot. damage: counted from the film's beginning to the next segment's first frame. kept: how
    many of its frames passed with their own color. misshown: how many have another field
    order than the result says. beside: FFmpeg's names of what came with its frames beside the
    pixels.
    """

    index: int
    path: Path
    packet_pts: tuple[int, ...]
    end_pts: int
    next: Edge | None
    cuts: tuple[int, ...]
    damage: Damage
    kept: int = 0
    misshown: int = 0
    beside: tuple[str, ...] = ()


@dataclass
class FilmPlan:
    """What is known of a film so far; it grows with every finished segment."""

    source: FilmInfo
    encoder: EncoderSettings
    segments: list[SegmentResult] = field(default_factory=list)

    def add(self, result: SegmentResult) -> None:
        if result.index != len(self.segments):
            raise ValueError(f"segment {result.index} after {len(self.segments)} segments")
        self.segments.append(result)

    @property
    def frame_count(self) -> int:
        return sum(len(segment.packet_pts) for segment in self.segments)

    @property
    def damage(self) -> Damage:
        return self.segments[-1].damage if self.segments else Damage()

    def pts(self) -> np.ndarray:
        """pts of every frame, rising, int64."""
        parts = [np.sort(np.array(s.packet_pts, dtype=np.int64)) for s in self.segments]
        return np.concatenate(parts)

    @property
    def reorder_depth(self) -> int:
        """How many frames early the decoder has to be given some packet, over all segments."""
        depth = 0
        for segment in self.segments:
            ranks = np.argsort(np.argsort(np.array(segment.packet_pts, dtype=np.int64)))
            depth = max(depth, int((np.arange(len(ranks)) - ranks).max()))
        return depth
