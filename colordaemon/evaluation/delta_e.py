"""CIEDE2000: how different two colors look, in float32 and for whole pictures at once.

Source: Sharma, Wu & Dalal 2005, "The CIEDE2000 Color-Difference Formula: Implementation Notes,
Supplementary Test Data, and Mathematical Observations", Color Research & Application 30 (1), whose
34 pairs are the test. Names and the order of terms follow theirs; kL = kC = kH = 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# The mean of two hues takes the short way round unless they lie exactly opposite, where the paper
# has h1 + h2 over 2. In float32 such hues differ from π by up to two roundings of 5e-7.
_OPPOSITE = math.pi + 1e-6


def delta_e_2000(lab: Tensor, other: Tensor) -> Tensor:
    """Lab (*, 3, H, W) twice to the difference (*, H, W); about 1 can just be seen. Never NaN."""
    light_1, a_1, b_1 = lab.unbind(dim=-3)
    light_2, a_2, b_2 = other.unbind(dim=-3)
    stretch = 1.5 - 0.5 * _saturation((torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2)
    a_1, a_2 = stretch * a_1, stretch * a_2  # 1 + G: makes grays rounder
    chroma_1, chroma_2 = torch.hypot(a_1, b_1), torch.hypot(a_2, b_2)
    chroma = (chroma_1 + chroma_2) / 2
    turn, hue = _hues(a_1, b_1, a_2, b_2)

    offset = ((light_1 + light_2) / 2 - 50).square()
    term_l = (light_2 - light_1) / (1 + 0.015 * offset / (20 + offset).sqrt())
    term_c = (chroma_2 - chroma_1) / (1 + 0.045 * chroma)
    shift_h = 2 * (chroma_1 * chroma_2).sqrt() * torch.sin(turn / 2)
    term_h = shift_h / (1 + 0.015 * chroma * _hue_weight(hue))
    # Blues: chroma and hue differences are not independent there.
    theta = math.radians(30) * torch.exp(-((torch.rad2deg(hue) - 275) / 25).square())
    rotation = -torch.sin(2 * theta) * 2 * _saturation(chroma)
    total = term_l.square() + term_c.square() + term_h.square() + rotation * term_c * term_h
    return total.clamp(min=0).sqrt()  # rounding can bring it just below zero


def _saturation(chroma: Tensor) -> Tensor:
    """0 at gray, towards 1 far beyond a chroma of 25."""
    power = chroma**7
    return (power / (power + 25.0**7)).sqrt()


def _hues(a_1: Tensor, b_1: Tensor, a_2: Tensor, b_2: Tensor) -> tuple[Tensor, Tensor]:
    """From the first hue to the second (±π) and their mean (0..2π); gray has neither."""
    full = 2 * math.pi
    hue_1, hue_2 = torch.atan2(b_1, a_1) % full, torch.atan2(b_2, a_2) % full
    turn, total = hue_2 - hue_1, hue_1 + hue_2
    around = turn.abs() > _OPPOSITE
    turn = torch.where(around, turn - full * turn.sign(), turn)
    mean = torch.where(around, torch.where(total < full, total + full, total - full), total) / 2
    gray = ((a_1 == 0) & (b_1 == 0)) | ((a_2 == 0) & (b_2 == 0))
    return torch.where(gray, 0, turn), torch.where(gray, total, mean)


def _hue_weight(hue: Tensor) -> Tensor:
    """T: how much a difference in hue counts at this mean hue (radians)."""
    return (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
