"""Draws the worst, median and best pictures of an evaluation on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from colordaemon.color import lab_to_rgb
from colordaemon.evaluation.pictures import gray_view
from colordaemon.evaluation.scores import read_pixels, truth_of
from colordaemon.media.drawing import write_png, write_text
from colordaemon.network.colorizer import Colorizer
from colordaemon.pictures.dataset import Picture

CELL = 160  # pixels; a picture is fitted into a square of this side
LINES = 6  # pictures of each kind
_GAP = 12
_HEADING = 28
_WHITE = 255


def draw_contact_sheet(
    path: Path, ranked: Sequence[tuple[Picture, float]], colorizer: Colorizer
) -> None:
    """Write a PNG: three columns (worst, median, best by CIEDE2000) of gray | output | truth."""
    order = sorted(ranked, key=lambda entry: (-entry[1], entry[0].name))
    count = min(LINES, len(order))
    middle = (len(order) - count) // 2
    columns = (
        ("worst", order[:count]),
        ("median", order[middle : middle + count]),
        ("best", order[::-1][:count]),
    )
    drawn = [_column(title, entries, colorizer) for title, entries in columns]
    gap = np.full((drawn[0].shape[0], _GAP, 3), _WHITE, np.uint8)
    sheet = np.hstack([drawn[0], gap, drawn[1], gap, drawn[2]])
    write_png(path, sheet)


def _column(
    title: str, entries: Sequence[tuple[Picture, float]], colorizer: Colorizer
) -> np.ndarray:
    heading = np.full((_HEADING, 3 * CELL, 3), _WHITE, np.uint8)
    write_text(heading, f"{title}: gray, output, truth", 5, 19)
    lines = [heading]
    for picture, delta_e in entries:
        line = np.hstack([_cell(pixels) for pixels in _triple(picture, colorizer)])
        write_text(line, f"{delta_e:.1f}", 5, CELL - 7)
        lines.append(line)
    return np.vstack(lines)


def _triple(picture: Picture, colorizer: Colorizer) -> list[np.ndarray]:
    """Gray, output and truth, each (h, w, 3) uint8 sRGB."""
    pixels = read_pixels(picture)
    truth = truth_of(pixels, torch.device("cpu"))
    ab = colorizer.predict_ab(gray_view(pixels)).cpu()
    ab = functional.interpolate(ab, truth.ab.shape[-2:], mode="bicubic", align_corners=False)
    shown = [torch.zeros_like(ab), ab, truth.ab]
    rgb = lab_to_rgb(torch.cat([torch.cat((truth.lab[:, :1], color), dim=1) for color in shown]))
    codes = (rgb.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return list(codes)


def _cell(pixels: np.ndarray) -> np.ndarray:
    """A picture in the middle of a white square; OpenCV draws on it, so it is a copy."""
    height, width = pixels.shape[:2]
    scale = (CELL - 2) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    fitted = cv2.resize(pixels, size, interpolation=interpolation)
    cell = np.full((CELL, CELL, 3), _WHITE, np.uint8)
    top, left = (CELL - fitted.shape[0]) // 2, (CELL - fitted.shape[1]) // 2
    cell[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return cell
