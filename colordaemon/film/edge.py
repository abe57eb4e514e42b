"""Where one segment ends and the next begins, and what the next one has to know.

A segment carries no state from its neighbor. It begins to read at the start of the shot that its
first frame is in, because there everything that remembers forgets: the cut detector, the stride,
the verdict on existing color. What it sees until its first frame is compared with what was seen
there before, so that it goes on exactly as if it had never stopped.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from colordaemon.film.seen import Seen
from colordaemon.media.decode import Frame


@dataclass(frozen=True)
class Edge:
    """The beginning of a segment that is not the film's first.

    pts: of its first frame. crc: CRC-32 of that frame's luma; it is checked, because after a search
    the time can be right and the picture wrong. warm_pts: pts of the first frame, at or before it,
    that smoothing wants to know of. shot_pts: pts of the frame that begins the shot. shot_crc:
    CRC-32 of what was seen of the shot before the first frame.
    """

    pts: int
    crc: int
    warm_pts: int
    shot_pts: int
    shot_crc: int


class Shot:
    """Fed one frame at a time, knows where its shot began and what was seen of it."""

    def __init__(self) -> None:
        self.pts: int | None = None  # of the frame that began it
        self.crc = 0

    def add(self, seen: Seen) -> None:
        """Take a frame in; small pictures are enough to tell whether a large one is right."""
        if seen.cut or self.pts is None:
            self.pts, self.crc = seen.pts, 0
        facts = f"{seen.pts} {seen.gray is not None} {seen.in_color}"
        self.crc = zlib.crc32(seen.luma.tobytes(), zlib.crc32(facts.encode(), self.crc))


def luma_crc(frame: Frame) -> int:
    """CRC-32 of a frame's luma codes."""
    return zlib.crc32(np.ascontiguousarray(frame.luma).data)
