"""Where a shot ends: hard cuts, seen on small luma pictures."""

from __future__ import annotations

import cv2
import numpy as np

THUMBNAIL = (64, 48)  # width, height; small enough that grain and camera shake average out
CUT_DIFFERENCE = 18.0  # mean absolute difference of codes after matching brightness
CUT_RATIO = 3.0  # and this many times the usual difference of this shot, or fast motion would cut


class CutDetector:
    """Fed one frame at a time, says whether a new shot begins with it."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual = 0.0  # running mean of the differences inside the shot

    def is_cut(self, luma: np.ndarray) -> bool:
        """luma: (h, w) uint8 or float32 0..255 at any size. The first frame is a cut."""
        thumbnail = cv2.resize(luma, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        thumbnail -= thumbnail.mean()  # old film flickers: a change of exposure is no cut
        last, self._last = self._last, thumbnail
        if last is None:
            return True
        difference = float(np.abs(thumbnail - last).mean())
        cut = difference > CUT_DIFFERENCE and difference > CUT_RATIO * self._usual
        self._usual = 0.0 if cut else 0.8 * self._usual + 0.2 * difference
        return cut
