"""Where one segment ends and the next begins, and what the next one has to know.

A segment carries no state from its neighbor. It begins to read at the start of the shot that its
first frame is in, because there everything that remembers forgets: the cut detector, the stride,
the verdict on existing color. What it sees until its first frame is compared with what was seen
there before, so that it goes on exactly as if it had never stopped.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from colordaemon.film.analysis import Seen
from colordaemon.media.damage import Damage
from colordaemon.media.seek import Entry


@dataclass(frozen=True)
class Edge:
    """The beginning of a segment that is not the film's first.

    pts: of its first frame. crc: CRC-32 of that frame's luma; it is checked, because after a search
    the time can be right and the picture wrong. warm_pts: pts of the first frame, at or before it,
    that smoothing wants to know of. shot_pts: pts of the frame that begins the shot. shot_crc:
    CRC-32 of what was seen of the shot before the first frame. before_pts, before_crc: pts and luma
    CRC of the frame before the shot, None in the film's first.
    """

    pts: int
    crc: int
    warm_pts: int
    shot_pts: int
    shot_crc: int
    before_pts: int | None
    before_crc: int | None

    def entry(self, damage: Damage) -> Entry | None:
        """Where to enter the film; None: at its beginning. damage: as counted before this edge."""
        if self.before_pts is None or self.before_crc is None:
            return None
        return Entry(self.shot_pts, self.before_pts, self.before_crc, self.pts, damage)


class Shot:
    """Fed one frame at a time, knows where its shot began and what was seen of it."""

    def __init__(self, entry: Entry | None = None) -> None:
        """entry: where the film was entered; the first frame does not know of the one before it."""
        self._before = (entry.before_pts, entry.before_crc) if entry else (None, None)
        self._pts: int | None = None  # of the frame that began it
        self._crc = 0

    def add(self, seen: Seen) -> None:
        """Take a frame in; small pictures are enough to tell whether a large one is right."""
        if seen.cut:
            self._pts, self._crc, self._before = seen.pts, 0, seen.before or self._before
        facts = f"{seen.pts} {seen.gray is not None} {seen.in_color}"
        self._crc = zlib.crc32(seen.luma.tobytes(), zlib.crc32(facts.encode(), self._crc))

    def edge(self, seen: Seen, crc: int, warm_pts: int) -> Edge:
        """The edge before a frame that is going to be added. crc: of its luma."""
        if seen.cut or self._pts is None:
            before = seen.before or self._before
            return Edge(seen.pts, crc, seen.pts, seen.pts, 0, *before)
        return Edge(seen.pts, crc, warm_pts, self._pts, self._crc, *self._before)
