"""A calmer copy of a grainy picture, for the network alone: it takes grain for texture.

Measured on three color clips with noise of 10 codes: error of the guesses down by 0 to 9 % with the
filter. On clean pictures it costs 4 to 15 %, so it only sets in where there is grain.
"""

from __future__ import annotations

import cv2
import numpy as np

GRAIN = 0.02  # standard deviation, of gray in 0..1, from which on it is worth filtering

# A Laplacian of a Laplacian: blind to edges and ramps (Immerkær 1996).
_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_GAIN = 6.0  # what it does to the standard deviation of noise
_MEDIAN_OF_NORMAL = 0.6745  # of the absolute value, at a standard deviation of one


def grain_of(gray: np.ndarray) -> float:
    """Standard deviation of the noise in a picture (h, w) float32 0..1; detail hardly counts."""
    response = np.abs(cv2.filter2D(gray, -1, _KERNEL)[::2, ::2])
    return float(np.median(response)) / _MEDIAN_OF_NORMAL / _GAIN


def calmed(gray: np.ndarray) -> np.ndarray:
    """The picture with its grain smoothed away, edges kept; as it is where there is little."""
    grain = grain_of(gray)
    if grain < GRAIN:
        return gray
    smooth: np.ndarray = cv2.bilateralFilter(gray, 5, 2 * grain, 1.5)
    return smooth
