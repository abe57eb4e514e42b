"""Decides what color a picture already has: none, a tint that follows its tones, or real color.

Toning, a scanner's cast and faded paper make chroma a function of luma. So we fit that function and
look at what it leaves over; how strong the tint itself is says nothing, a deep sepia is still one
curve while a pale photo in haze is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


class ExistingColor(Enum):
    """What a picture shows before it is colored."""

    NONE = "none"
    TINT = "tint"
    COLOR = "color"


# Measured on 600 color photos of 144 px, not those that the numbers were chosen on. As color count:
# 95.2 % of them as they are; in gray, as 4:2:0 JPEG of quality 50 and 90 or with colored noise of
# 15 codes: none; toned in sepia and Prussian blue, with noise, as JPEG: at most 2.0 % and 0.3 %.
# What is missed is fog, dusk, photos of a single hue, and those whose hues follow their tones (blue
# sea, yellow surf): they look like a duotone.
_FOREIGN_CODES = 6.0  # chroma this far off the curve belongs to a colored thing
# A round thing an eighth of the picture wide covers 1 % of it: a traffic light in a gray street
# makes the picture a color one, a spot of ink does not.
_FOREIGN_SHARE = 0.01
_TINT_CODES = 1.5  # root mean square of the curve; colored noise of 15 codes leaves 0.4
# Paper borders, stamps and the edges of a film gate have a color of their own.
_RIM_SHARE = 0.08
_KNOTS = 32


def existing_color(
    luma: NDArray[np.generic],
    chroma: NDArray[np.generic],
    foreign_codes: float = _FOREIGN_CODES,
) -> ExistingColor:
    """Judge a thumbnail of up to about 256 px.

    luma: (h, w) in 8-bit codes. chroma: (2, h, w), Cb and Cr in 8-bit codes around 0.
    foreign_codes: how far off the curve chroma has to be for real color.
    """
    height, width = luma.shape
    rim_y, rim_x = int(height * _RIM_SHARE), int(width * _RIM_SHARE)
    inner = np.s_[rim_y : height - rim_y, rim_x : width - rim_x]
    # Chroma is stored at half size more often than not; a little blur makes luma match it at edges.
    tone = _blur(luma[inner].astype(np.float32), 0.8)
    planes = [_blur(plane[inner].astype(np.float32), 0.8) for plane in chroma]
    curves = _fit(tone, planes)
    foreign = np.hypot(*map(_off_curve, planes, curves))
    if np.mean(foreign > foreign_codes) > _FOREIGN_SHARE:
        return ExistingColor.COLOR
    tinted = np.sqrt(np.mean([curve * curve for curve in curves]) * 2) > _TINT_CODES
    return ExistingColor.TINT if tinted else ExistingColor.NONE


# Sheets of Prussian blue and deep sepia have 35 codes of chroma, one of dark red has 70.
_SHEET_CODES = 50.0
_SHEET_TONES = 6.0  # standard deviation of luma; a photo that is paler shows nothing


def is_colored_sheet(luma: NDArray[np.generic], chroma: NDArray[np.generic]) -> bool:
    """Whether a picture is one strong color without tones, which is no toning of anything. Planes
    as in `existing_color`."""
    strength = float(np.hypot(*(np.median(plane) for plane in chroma)))
    return strength > _SHEET_CODES and float(luma.std()) < _SHEET_TONES


# A stamp, a signature or a pen mark is far off the curve, and all else is truly gray or toned.
# Found on 1 of 600 color photos, on none of them in gray as JPEG of quality 50; a deep tint leaves
# more where it is clipped, so its own strength comes on top.
_INK_CODES = 20.0
_INK_SHARE = 0.08  # of the picture; more is part of what it shows
_INK_PIXELS = 12  # of a thumbnail; less is a speck of grain
_REST_SHARE = 0.002  # of the rest; so much of it may lie off the curve
_BINS = 64


@dataclass(frozen=True)
class Marks:
    """Colored marks on a gray or toned picture. area: (h, w) 0..1, where they are, with a rim.
    is_tinted: whether the rest has a tint."""

    area: Plane
    is_tinted: bool


def colored_marks(luma: NDArray[np.generic], chroma: NDArray[np.generic]) -> Marks | None:
    """Look for marks in a thumbnail of up to about 1024 px; None where there are none, and where
    the picture has color elsewhere. Planes as in `existing_color`."""
    tone = _blur(luma.astype(np.float32), 0.8)
    planes = [_blur(plane.astype(np.float32), 0.8) for plane in chroma]
    curves = [_middle_curve(tone, plane) for plane in planes]
    off = np.hypot(*(p - c for p, c in zip(planes, curves, strict=True)))
    tint = float(np.sqrt(np.mean([curve**2 for curve in curves]) * 2))
    ink = _without_specks(off > _INK_CODES + tint)
    share = float(ink.mean())
    if not 0 < share <= _INK_SHARE:
        return None
    reach = max(3, round(max(luma.shape) / 64)) | 1
    area = cv2.dilate(ink.astype(np.float32), np.ones((reach, reach), np.uint8))
    rest = area == 0
    foreign = np.hypot(*map(_off_curve, planes, curves))
    if not rest.any() or np.mean(foreign[rest] > _FOREIGN_CODES) > _REST_SHARE:
        return None
    return Marks(_blur(np.asarray(area, np.float32), 1.0), tint > _TINT_CODES)


def _middle_curve(tone: Plane, plane: Plane) -> Plane:
    """Chroma as a function of tone, which a mark does not bend even where it has a tone for itself:
    medians of equal shares of the pixels, then medians of a quarter of these."""
    order = np.argsort(tone, axis=None)
    parts = np.array_split(order, min(_BINS, order.size))
    tones = np.array([np.median(tone.ravel()[part]) for part in parts])
    middles = np.array([np.median(plane.ravel()[part]) for part in parts])
    reach = _BINS // 8
    wide = np.pad(middles, reach, mode="edge")
    smooth = [np.median(wide[i : i + 2 * reach + 1]) for i in range(len(middles))]
    return np.asarray(np.interp(tone, tones, smooth), np.float32)


def _without_specks(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, labels, figures, _ = cv2.connectedComponentsWithStats(ink.astype(np.uint8), connectivity=8)
    large = figures[:, cv2.CC_STAT_AREA] >= _INK_PIXELS
    large[0] = False
    return np.asarray(large[labels])


def _fit(tone: Plane, planes: list[Plane]) -> list[Plane]:
    """Mean of each plane as a function of tone, given back at every pixel.

    Knots lie at equal shares of the pixels instead of equal steps of luma: toned highlights lose
    their chroma within a few codes, and knots 8 codes apart took that for color.
    """
    codes = np.clip(tone * 2, 0, 511)  # half codes
    counts = np.bincount(codes.astype(np.intp).ravel(), minlength=512)
    rank = (np.cumsum(counts) - counts / 2) / codes.size
    position = np.interp(codes, np.arange(512) + 0.5, rank) * (_KNOTS - 1)
    left = np.minimum(position.astype(np.intp), _KNOTS - 2)
    share = position - left

    def spread(plane: Plane | float) -> NDArray[np.float64]:
        below = np.bincount(left.ravel(), ((1 - share) * plane).ravel(), _KNOTS)
        above = np.bincount(left.ravel() + 1, (share * plane).ravel(), _KNOTS)
        return np.asarray(below + above, np.float64)

    weight = np.maximum(spread(1.0), 1e-6)
    knots = [spread(plane) / weight for plane in planes]
    return [(k[left] * (1 - share) + k[left + 1] * share).astype(np.float32) for k in knots]


def _off_curve(plane: Plane, curve: Plane) -> Plane:
    """How far chroma lies off the curve, at pixels and with its grain averaged away.

    At an edge, chroma of half size takes on values from both sides, so anything between the least
    and the greatest value of the curve nearby is on it.
    """
    window = np.ones((5, 5), np.uint8)
    on_curve = np.clip(plane, cv2.erode(curve, window), cv2.dilate(curve, window))
    return _blur(plane - on_curve, 2.0)


def _blur(plane: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)
