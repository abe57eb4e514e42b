"""The transfer curves of HDR film: from codes to light and back, and the gray that a network sees.

Light is relative to the reference white of HDR, 203 cd/m² (ITU-R BT.2408-7, table 1), as the light
of sRGB is to its own white. Functions take any leading axes and work on the device of their input.

Sources: PQ SMPTE ST 2084 and ITU-R BT.2100-2, table 4; HLG BT.2100-2, table 5, on a display of
1000 cd/m² and so with a system gamma of 1.2; the tone curve ITU-R BT.2390-11, section 5.4.1.
"""

from __future__ import annotations

import math
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REFERENCE_WHITE = 203.0  # cd/m²
PEAK = 1000.0  # cd/m²; what most HDR film is mastered to. Whatever is brighter is white in SDR.

_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_PQ_PEAK = 10000.0  # cd/m²
_A = 0.17883277
_B, _C = 1 - 4 * _A, 0.5 - _A * math.log(4 * _A)
_SYSTEM_GAMMA = 1.2


class Transfer(Enum):
    """How codes stand for light; SDR is every curve that a display of 100 cd/m² is made for."""

    SDR = "SDR"
    PQ = "PQ"
    HLG = "HLG"


def gray_to_light(gray: Tensor, transfer: Transfer) -> Tensor:
    """Gamma-coded gray 0..1 to the light that a display makes of it, any shape."""
    if transfer is Transfer.PQ:
        return _pq_light(gray)
    return _scene_light(gray) ** _SYSTEM_GAMMA * (PEAK / REFERENCE_WHITE)


def light_to_rgb(light: Tensor, luminance: Tensor, transfer: Transfer) -> Tensor:
    """Light of a display (*, 3, H, W), linear RGB, to gamma-coded R'G'B'; none is below 0.

    luminance: (*, 1, H, W), of that light.
    """
    if transfer is Transfer.PQ:
        return _pq_code(light.clamp(min=0))
    # The system gamma is applied to luminance, not to R, G and B: BT.2100-2, note 5i.
    share = REFERENCE_WHITE / PEAK
    brightness = (luminance * share).clamp(min=1e-6) ** (1 / _SYSTEM_GAMMA - 1)
    return _scene_code(light.clamp(min=0) * share * brightness)


def shown_gray(depth: int, black: int, span: int, transfer: Transfer) -> NDArray[np.float32]:
    """The gray 0..1 in which a photo would show each luma code, for all codes of a depth.

    HDR is brought to a display whose white is the reference white: middle tones stay as they are,
    highlights are bent down to it.
    """
    gray = (torch.arange(1 << depth, dtype=torch.float64) - black) / span
    light = gray_to_light(gray.clamp(0, 1), transfer)
    linear = _pq_light(_bent(_pq_code(light))).clamp(0, 1)
    curve = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(curve.numpy(), np.float32)


def _bent(code: Tensor) -> Tensor:
    """The electrical-electrical transfer function of BT.2390, on PQ codes."""
    white, peak = (float(_pq_code(torch.tensor(x / REFERENCE_WHITE, dtype=torch.float64)))
                   for x in (REFERENCE_WHITE, PEAK))  # fmt: skip
    share, most = (code / peak).clamp(max=1), white / peak
    knee = 1.5 * most - 0.5
    t = ((share - knee) / (1 - knee)).clamp(min=0)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    return torch.where(share < knee, share, spline) * peak


def _pq_light(code: Tensor) -> Tensor:
    """The EOTF of PQ."""
    root = code.clamp(0, 1) ** (1 / _M2)
    light = ((root - _C1).clamp(min=0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return light * (_PQ_PEAK / REFERENCE_WHITE)


def _pq_code(light: Tensor) -> Tensor:
    """Its inverse; light is not below 0."""
    power = (light * (REFERENCE_WHITE / _PQ_PEAK)) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def _scene_light(code: Tensor) -> Tensor:
    """The inverse OETF of HLG, 0..1 to 0..1."""
    code = code.clamp(0, 1)
    return torch.where(code <= 0.5, code * code / 3, (((code - _C) / _A).exp() + _B) / 12)


def _scene_code(light: Tensor) -> Tensor:
    """The OETF of HLG; light is not below 0."""
    high = _A * (12 * light - _B).clamp(min=1e-6).log() + _C
    return torch.where(light <= 1 / 12, (3 * light).sqrt(), high)
