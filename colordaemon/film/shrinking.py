"""Pictures made small by area, as OpenCV does it, but in a sixth of its time."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from colordaemon.film.compiled import Loop, compiled


def shrunk(luma: np.ndarray, height: int, width: int) -> np.ndarray:
    """luma (H, W) uint8 or uint16 to (height, width) of its type, each sample the mean of an area.

    Pictures that are smaller are enlarged.
    """
    loop = _loop_for(luma.dtype)
    if loop is None or height > luma.shape[0] or width > luma.shape[1]:
        return cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA)
    luma = np.ascontiguousarray(luma).view()
    luma.flags.writeable = False  # arrays that can be written would be compiled for anew
    small = np.empty((height, width), luma.dtype)
    loop(luma, small)
    return small


@cache
def _loop_for(kind: np.dtype) -> Loop | None:
    luma, small = np.zeros((2, 2), kind), np.zeros((1, 1), kind)
    luma.flags.writeable = False
    return compiled("area_loop", lambda loop: loop(luma, small))
