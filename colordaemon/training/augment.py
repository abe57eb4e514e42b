"""Makes new pictures look like old film: damages the network's input in training.

A black-and-white photo is no desaturated color photo: film before the 1930s did not see red, prints
fade, exposures flicker, lenses are soft, and scans have a gamma of their own. Only the input
suffers; the truth stays as it is. Every picture of a batch draws its own fate, from a generator
that is passed in. Damages take and return (N, 1, h, w) gray in about 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional

from colordaemon.color import gray_to_lightness, lab_to_rgb, linear_to_srgb, srgb_to_linear

STOCK_SHARE = 0.15  # of the pictures are taken on film that does not see red as the eye does
# Sensitivity to linear red, green and blue of daylight, in round figures; the eye's are those of
# BT.709. Orthochromatic film ends in the yellow, that of before 1880 in the blue.
_EYE = (0.21, 0.72, 0.07)
_ORTHOCHROMATIC = (0.03, 0.52, 0.45)
_BLUE_SENSITIVE = (0.0, 0.12, 0.88)
LONGEST_EXPOSURE = 3.0  # times that of panchromatic film

Degradation = Callable[[Tensor, Generator], Tensor]

# Luminance quantization of JPEG (ITU-T T.81, table K.1), at quality 50.
_JPEG_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def degrade(gray: Tensor, ab: Tensor, chance: Generator) -> Tensor:
    """A batch as an old print might show it.

    gray: (N, 1, h, w) of the truth. ab: (N, 2, h/2, w/2) Lab units, which the film did not see as
    the eye does.
    """
    chosen, hit = _choose(len(gray), STOCK_SHARE, chance)
    taken = film_stock(gray[chosen], ab[chosen], chance)
    gray = gray.index_copy(0, chosen, torch.where(hit, taken, gray[chosen]))
    for share, damage in _DAMAGES:
        chosen, hit = _choose(len(gray), share, chance)
        damaged = damage(gray[chosen], chance)
        gray = gray.index_copy(0, chosen, torch.where(hit, damaged, gray[chosen]))
    return gray.clamp(0, 1)


def _choose(count: int, share: float, chance: Generator) -> tuple[Tensor, Tensor]:
    """The pictures to change, (n,), and which of those are affected, (n, 1, 1, 1) bool: each of
    `count` with a likelihood of `share`. As many are tried every time, because a number that a GPU
    draws would have to be waited for."""
    most = max(1, math.ceil(share * count))
    chosen = torch.randperm(count, generator=chance, device=chance.device)[:most]
    drawn = torch.rand(most, 1, 1, 1, generator=chance, device=chance.device)
    return chosen, drawn < share * count / most


def film_stock(gray: Tensor, ab: Tensor, chance: Generator) -> Tensor:
    """What film sees that is less sensitive to red: anything between the eye's own sensitivity and
    orthochromatic film (blue and green), some of it with more blue still. Skin and brick turn
    dark, skies white; the exposure is made to suit, so that the mean light stays, as far as a
    picture that is all red allows.

    gray: (N, 1, h, w) in 0..1. ab: (N, 2, h/2, w/2) Lab units.
    """
    ab = functional.interpolate(ab, gray.shape[-2:], mode="bilinear", align_corners=False)
    rgb = lab_to_rgb(torch.cat((gray_to_lightness(gray), ab), dim=1)).clamp(0, 1)
    light = srgb_to_linear(rgb)
    eye, ortho, blue = _stocks(gray.device)
    seen = torch.lerp(eye, ortho, _between(0, 1, gray, chance))
    seen = torch.lerp(seen, blue, _between(0, 0.6, gray, chance))
    exposed = (light * seen).sum(dim=1, keepdim=True)
    before = srgb_to_linear(gray).mean(dim=(2, 3), keepdim=True)
    longer = before / exposed.mean(dim=(2, 3), keepdim=True).clamp(min=1e-4)
    exposed = exposed * longer.clamp(max=LONGEST_EXPOSURE)  # or noise would be all there is
    return linear_to_srgb(exposed).clamp(0, 1)


def gamma(gray: Tensor, chance: Generator) -> Tensor:
    """Another development: mid gray brighter or darker, black and white stay."""
    exponent = torch.exp(_between(-0.35, 0.35, gray, chance))
    return gray.clamp(min=1e-6) ** exponent


def exposure(gray: Tensor, chance: Generator) -> Tensor:
    """Exposure flicker: contrast and brightness of the whole picture."""
    return gray * _between(0.85, 1.15, gray, chance) + _between(-0.06, 0.06, gray, chance)


def uneven_light(gray: Tensor, chance: Generator) -> Tensor:
    """Uneven light: a few broad bright and dark areas, as of a shutter out of step, a vignette or a
    stain."""
    coarse = torch.randn(len(gray), 1, 3, 3, generator=chance, device=gray.device)
    size = (gray.shape[-2], gray.shape[-1])
    field = functional.interpolate(coarse, size, mode="bicubic", align_corners=True)
    return gray * (1 + field * _between(0, 0.15, gray, chance))


def fading(gray: Tensor, chance: Generator) -> Tensor:
    """A faded print: black turns gray, and white yellow, which is gray to a scanner."""
    black, white = _between(0, 0.3, gray, chance), _between(0.7, 1, gray, chance)
    return black + (white - black) * gray


def blur(gray: Tensor, chance: Generator) -> Tensor:
    """A soft lens, or one that was focused badly: up to two and a half pixels' width."""
    soft = torch.lerp(gray, _gaussian(gray, 1.2), _between(0, 1, gray, chance))
    return torch.lerp(soft, _gaussian(gray, 2.5), _between(-1, 1, gray, chance).clamp(min=0))


def grain(gray: Tensor, chance: Generator) -> Tensor:
    """Film grain: noise a little wider than a pixel."""
    noise = torch.randn(gray.shape, generator=chance, device=gray.device)
    wide = _gaussian(noise, 0.8) * 2.2  # about as strong as before
    noise = torch.lerp(noise, wide, _between(0, 1, gray, chance))
    return gray + noise * _between(0, 0.03, gray, chance)


def scratches(gray: Tensor, chance: Generator) -> Tensor:
    """A few vertical lines, bright or dark, over the full height."""
    shape = (len(gray), 1, 1, gray.shape[-1])
    lines = torch.rand(shape, generator=chance, device=gray.device) < 3 / gray.shape[-1]
    return torch.where(lines, gray + _between(-0.4, 0.4, gray, chance), gray)


def jpeg(gray: Tensor, chance: Generator) -> Tensor:
    """JPEG's blocks at quality 20 to 90: the DCT of 8x8 squares, quantized."""
    if gray.shape[-1] % 8 or gray.shape[-2] % 8:
        raise ValueError(f"expected sides divisible by 8, found {tuple(gray.shape)}")
    dct = _dct(gray.device)
    quality = _between(20, 90, gray, chance)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    step = scale[..., None, None] * _jpeg_table(gray.device) / 255
    count, _, height, width = gray.shape
    blocks = gray.reshape(count, 1, height // 8, 8, width // 8, 8).transpose(-2, -3)
    waves = dct @ (blocks - 0.5) @ dct.T
    blocks = dct.T @ ((waves / step).round() * step) @ dct + 0.5
    return blocks.transpose(-2, -3).reshape(gray.shape)


# In the order in which they happen to a film, each with the share of pictures that it happens to.
_DAMAGES: tuple[tuple[float, Degradation], ...] = (
    (0.15, uneven_light),
    (0.25, blur),
    (0.15, fading),
    (0.8, gamma),
    (0.3, exposure),
    (0.5, grain),
    (0.1, scratches),
    (0.25, jpeg),
)


def _between(low: float, high: float, like: Tensor, chance: Generator) -> Tensor:
    """A number for each picture, (N, 1, 1, 1)."""
    share = torch.rand(len(like), 1, 1, 1, generator=chance, device=like.device)
    return low + (high - low) * share


def _gaussian(gray: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(2.5 * sigma)
    x = torch.arange(-reach, reach + 1, dtype=gray.dtype, device=gray.device)
    line = torch.softmax(-x.square() / (2 * sigma**2), dim=0)
    padded = functional.pad(gray, (reach,) * 4, mode="reflect")
    rows = functional.conv2d(padded, line[None, None, None, :])
    return functional.conv2d(rows, line[None, None, :, None])


@cache
def _stocks(device: torch.device) -> Tensor:
    """The sensitivities, (3, 1, 3, 1, 1)."""
    stocks = torch.tensor((_EYE, _ORTHOCHROMATIC, _BLUE_SENSITIVE), device=device)
    return stocks.view(3, 1, 3, 1, 1)


@cache
def _jpeg_table(device: torch.device) -> Tensor:
    return torch.tensor(_JPEG_TABLE, device=device)


@cache
def _dct(device: torch.device) -> Tensor:
    """The orthonormal 8-point DCT-II."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    matrix = torch.cos(math.pi * (n + 0.5) * k / 8) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.to(device)
