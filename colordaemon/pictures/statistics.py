"""Statistics of one picture: how colorful it is, and hashes to find duplicates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

THUMBNAIL = 16  # pixels a side, at which two pictures are compared
_SAMPLED_SIDE = 72  # pixels; color figures need no more, and Lab takes longer than decoding


@dataclass(frozen=True)
class Statistics:
    """Figures of one picture; those of one that cannot be read are zero, and `problem` says why.

    colorfulness: Hasler & Süsstrunk 2003 on channels 0..255; 0 is gray, 15 slightly colorful, 33
    moderately, 59 quite. chroma: mean Lab chroma. difference_hash: 64 bits, few of which differ
    between pictures that look alike. thumbnail: 16 x 16 gray bytes, row by row. content: a hash of
    the file's bytes.
    """

    problem: str = ""
    colorfulness: float = 0.0
    chroma: float = 0.0
    difference_hash: int = 0
    thumbnail: bytes = b""
    content: str = ""


def measure(pixels: np.ndarray, data: bytes) -> Statistics:
    """pixels: (H, W, 3) uint8 sRGB, decoded from `data`."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    step = max(1, min(pixels.shape[:2]) // _SAMPLED_SIDE)
    # Skipping pixels keeps the spread of colors; averaging them would make every picture duller.
    sample = np.ascontiguousarray(pixels[::step, ::step]).astype(np.float32)
    return Statistics(
        colorfulness=colorfulness(sample),
        chroma=mean_chroma(sample),
        difference_hash=difference_hash(gray),
        thumbnail=_shrink(gray, THUMBNAIL, THUMBNAIL).tobytes(),
        content=hashlib.blake2b(data, digest_size=16).hexdigest(),
    )


def colorfulness(rgb: np.ndarray) -> float:
    """M of Hasler & Süsstrunk 2003, "Measuring colourfulness in natural images".

    rgb: (H, W, 3) float32 sRGB in 0..255. The opponent colors keep their sign, as in the paper;
    implementations that drop it give other figures.
    """
    red, green, blue = cv2.split(rgb)
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def mean_chroma(rgb: np.ndarray) -> float:
    """Mean Lab chroma of (H, W, 3) float32 sRGB in 0..255."""
    lab = cv2.cvtColor(rgb / np.float32(255), cv2.COLOR_RGB2Lab)
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def difference_hash(gray: np.ndarray) -> int:
    """Whether each of 8 x 8 places is brighter than its left neighbor; gray: (H, W) uint8.

    After Krawetz 2013, "Kind of like that". Survives another size, encoder and brightness.
    """
    small = _shrink(gray, 9, 8)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _shrink(gray: np.ndarray, width: int, height: int) -> np.ndarray:
    small: np.ndarray = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    return small
