"""The pixels of one page: small for the network, and colored in bands at full size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from colordaemon.color import (
    cubic_matrix,
    gray_to_lightness,
    lab_to_rgb,
    lightness_to_gray,
    rgb_to_lab,
)
from colordaemon.media.photo_file import Page

Codes = NDArray[np.uint8] | NDArray[np.uint16]

_PREVIEW_SIDE = 1024  # short side; four times what the network looks at in standard quality
_PREVIEW_LENGTH = 4096  # long side; the network sees no more of a panorama
_BAND_PIXELS = 1 << 19  # some dozens of float32 planes of this size are 100 MB
_BAND_ROWS = 4096  # of a picture that is narrow and tall

# Quarter turns counterclockwise, after mirroring left and right or not, that bring a stored picture
# of each EXIF orientation upright.
UPRIGHT = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (1, True),
    6: (3, False),
    7: (3, True),
    8: (1, False),
}


def preview(page: Page, heartbeat: Callable[[], None]) -> tuple[Tensor, NDArray[np.float32] | None]:
    """The picture small: color (1, 1 or 3, h, w) 0..1, and alpha (h, w) 0..1 if it has any."""
    across, down = shrinking(page)
    small = page.pixels.shrink(across, down) if max(across, down) > 1 else page.pixels
    pixels = _pixels(told_of(small, heartbeat).write_to_memory(), small)
    color, extras = _split(pixels, page)
    return color, _opacity(extras[..., 0], page) if page.has_alpha else None


def shrinking(page: Page) -> tuple[int, int]:
    """By how much a page is shrunk, across and down, before the network looks at it."""
    width, height = page.image.width, page.image.height
    factor = max(1, min(width, height) // _PREVIEW_SIDE, max(width, height) // _PREVIEW_LENGTH)
    return min(factor, width), min(factor, height)


def upright(pixels: Codes, orientation: int) -> Codes:
    """Stored pixels (H, W, C) of an EXIF orientation as a viewer sees them; a view."""
    turns, mirrored = UPRIGHT[orientation]
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)


def told_of(image: pyvips.Image, heartbeat: Callable[[], None]) -> pyvips.Image:
    """The same image; whoever computes its pixels calls `heartbeat` about every percent."""
    image.set_progress(True)
    image.signal_connect("eval", lambda image, progress: heartbeat())
    return image


def gray_of(color: Tensor) -> Tensor:
    """The gray (1, 1, h, w) with the lightness of each color."""
    return color if color.shape[1] == 1 else lightness_to_gray(rgb_to_lab(color)[:, :1])


@dataclass(frozen=True)
class Kept:
    """Marks that keep their own color. area: (1, 1, h, w) float32 0..1 at any size, where they are.
    around: Lab a and b of the picture around them."""

    area: Tensor
    around: tuple[float, float]


def colored_pixels(
    page: Page,
    ab: Tensor,
    depth: int,
    keep_extras: bool,
    heartbeat: Callable[[], None],
    marks: Kept | None = None,
) -> Codes:
    """Full-size pixels (H, W, 3 and extra samples), in bands, so that float32 stays small.

    keep_extras: whether transparency and other samples come along; else what is transparent is laid
    on white.
    """
    width, height = page.image.width, page.image.height
    dtype, top = (np.uint8, 255) if depth == 8 else (np.uint16, 65535)
    out = np.empty((height, width, 3 + len(page.extras) * keep_extras), dtype)
    wide = functional.interpolate(ab, (ab.shape[-2], width), mode="bicubic", align_corners=False)
    region = pyvips.Region.new(page.pixels)
    step = min(_BAND_ROWS, max(1, _BAND_PIXELS // width))
    for start in range(0, height, step):
        heartbeat()
        rows = min(step, height - start)
        band = _pixels(region.fetch(0, start, width, rows), page.pixels, rows)
        color, extras = _split(band, page)
        lines = cubic_matrix(ab.shape[-2], rows, start + 0.5, 1 / height, ab.device)
        new = lines @ wide
        if marks is not None:
            new = _with_marks(new, color, marks, start, height)
        rgb = paint(gray_of(color), new)
        if keep_extras:
            out[start : start + rows, :, 3:] = _rescaled(extras, page.depth, depth)
        elif page.has_alpha:
            rgb = 1 - (1 - rgb) * torch.from_numpy(_opacity(extras[..., 0], page))
        codes = (rgb[0] * top).round_().numpy()
        out[start : start + rows, :, :3] = codes.transpose(1, 2, 0)
    return out


_FAINT, _FULL = 8.0, 16.0  # distances in ab from what is around, between which a mark begins


def _with_marks(ab: Tensor, color: Tensor, marks: Kept, start: int, height: int) -> Tensor:
    """ab (1, 2, h, w) of a band, with the source's own where a mark is."""
    rows, width = ab.shape[-2:]
    across = functional.interpolate(
        marks.area, (marks.area.shape[-2], width), mode="bilinear", align_corners=False
    )
    places = (torch.arange(start, start + rows) + 0.5) / height * across.shape[-2]
    area = across[:, :, places.long().clamp(max=across.shape[-2] - 1)]
    own = rgb_to_lab(color)[:, 1:]
    distance = (own - torch.tensor(marks.around).reshape(1, 2, 1, 1)).norm(dim=1, keepdim=True)
    share = ((distance - _FAINT) / (_FULL - _FAINT)).clamp(0, 1) * area.clamp(0, 1).sqrt()
    mixed: Tensor = ab + (own - ab) * share
    return mixed


def _opacity(alpha: Codes, page: Page) -> NDArray[np.float32]:
    """Alpha as 0..1."""
    return alpha.astype(np.float32) / np.float32(255 if page.depth == 8 else 65535)


def _rescaled(alpha: Codes, depth: int, target: int) -> Codes:
    return ((alpha.astype(np.uint32) + 128) // 257).astype(np.uint8) if target < depth else alpha


def _pixels(data: bytes, image: pyvips.Image, rows: int | None = None) -> Codes:
    shape = rows or image.height, image.width, image.bands
    if image.format == "uchar":
        return np.frombuffer(data, np.uint8).reshape(shape)
    return np.frombuffer(data, np.uint16).reshape(shape)


def _split(pixels: Codes, page: Page) -> tuple[Tensor, Codes]:
    """Color (1, 1 or 3, h, w) 0..1 and the other samples (h, w, n) in codes."""
    planes = pixels[:, :, : page.colors].transpose(2, 0, 1).astype(np.float32) / page.top
    return torch.from_numpy(planes)[None], pixels[:, :, page.colors :]


def paint(gray: Tensor, ab: Tensor) -> Tensor:
    """sRGB (1, 3, h, w) 0..1 with the lightness of gray (1, 1, h, w) and as much of ab as fits.

    Colors outside sRGB go towards gray at their own lightness. Clipping R, G and B instead would
    change lightness and hue.
    """
    lightness = gray_to_lightness(gray)
    rgb = lab_to_rgb(torch.cat((lightness, ab), dim=1))
    outside = _is_outside(rgb)
    if outside.any():
        rows, columns = outside[0].nonzero(as_tuple=True)
        light = lightness[:, :, rows, columns].unsqueeze(2)
        far = ab[:, :, rows, columns].unsqueeze(2)
        rgb[:, :, rows, columns] = _fitted(light, far).squeeze(2)
    return rgb.clamp_(0, 1)


def _fitted(lightness: Tensor, ab: Tensor) -> Tensor:
    """Bisect the largest share of ab that sRGB can show; 12 steps find it to 1/4096."""
    low, high = torch.zeros_like(lightness), torch.ones_like(lightness)
    for _ in range(12):
        middle = (low + high) / 2
        beyond = _is_outside(lab_to_rgb(torch.cat((lightness, ab * middle), dim=1)))[:, None]
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return lab_to_rgb(torch.cat((lightness, ab * low), dim=1))


def _is_outside(rgb: Tensor) -> Tensor:
    """Which pixels leave 0..1, by more than float32 rounds to (less than one 16-bit code)."""
    return (rgb.amin(dim=1) < -1e-5) | (rgb.amax(dim=1) > 1 + 1e-5)
