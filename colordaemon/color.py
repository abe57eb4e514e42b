"""sRGB, CIE Lab and Y'CbCr in float32, and the chroma planes that carry a predicted color.

The only module that knows matrices, ranges and sitings. Functions take any leading axes and work
on the device of their input. Everything runs in float32: in float16 these formulas tint pure grays
by up to 0.24 ab units.

Colors are as a viewer sees them: SDR film with the curve of sRGB, HDR film with its own.

Sources: sRGB transfer IEC 61966-2-1; Lab CIE 15:2004 with the D65 white of sRGB; luma coefficients
ITU-R BT.601-7, BT.709-6 and BT.2020-2, those of FCC and SMPTE 240M ITU-T H.273, table 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache, reduce

import torch
from torch import Tensor

from colordaemon.transfer import Transfer, gray_to_light, light_to_rgb

AB_LIMIT = 110.0  # Lab a and b of real sRGB colors stay within ±110

# Linear RGB to XYZ, from the primaries of BT.709 (sRGB) and BT.2020 with white D65.
_XYZ_FROM_709 = torch.tensor(
    (
        (0.4123908, 0.3575843, 0.1804808),
        (0.2126390, 0.7151687, 0.0721923),
        (0.0193308, 0.1191948, 0.9505322),
    ),
    dtype=torch.float64,
)
_XYZ_FROM_2020 = torch.tensor(
    (
        (0.6369580, 0.1446169, 0.1688810),
        (0.2627002, 0.6779981, 0.0593017),
        (0.0000000, 0.0280727, 1.0609851),
    ),
    dtype=torch.float64,
)
# Divided by the white of the matrix itself, so that R = G = B has a = b = 0 exactly.
_XYZ_FROM_709 /= _XYZ_FROM_709.sum(dim=1, keepdim=True)
_XYZ_FROM_2020 /= _XYZ_FROM_2020.sum(dim=1, keepdim=True)
# Inverted once, here: torch.linalg.inv on a GPU waits for it.
_709_FROM_XYZ = torch.linalg.inv(_XYZ_FROM_709)
_2020_FROM_XYZ = torch.linalg.inv(_XYZ_FROM_2020)
_EPSILON = 216 / 24389  # CIE: below this Y/Yn the cube root becomes a straight line
KAPPA = 24389 / 27
TOE = 6 / 29  # of f in CIE Lab: the root of that, where cube and straight line meet
# Larger frames than 4K are painted in bands; float32 planes of a whole one would take gigabytes.
WHOLE_PIXELS, _BAND_PIXELS = 4096 * 2304, 1 << 20
_HDR_STEPS = 2  # chroma is within 1 of what was asked for; a third changes nothing


class Matrix(Enum):
    """Luma coefficients (Kr, Kb) of a Y'CbCr standard."""

    BT601 = (0.299, 0.114)
    BT709 = (0.2126, 0.0722)
    BT2020 = (0.2627, 0.0593)
    FCC = (0.30, 0.11)
    SMPTE240M = (0.212, 0.087)


class Siting(Enum):
    """Where a subsampled chroma sample sits, horizontally and vertically.

    0 is the center of the first luma sample it covers, 0.5 the middle of all of them.
    """

    LEFT = (0.0, 0.5)  # MPEG-2, H.264, HEVC by default
    CENTER = (0.5, 0.5)  # JPEG, MPEG-1
    TOP_LEFT = (0.0, 0.0)  # BT.2020
    TOP = (0.5, 0.0)


@dataclass(frozen=True)
class PixelCode:
    """How integers stand for Y'CbCr: matrix, bits per sample, range, chroma layout and curve.

    subsampling: luma samples per chroma sample, (horizontal, vertical); (2, 2) is 4:2:0.
    interlaced: chroma lines belong to the top and the bottom field in turn, as luma lines do.
    """

    matrix: Matrix
    depth: int = 8
    full_range: bool = False
    subsampling: tuple[int, int] = (2, 2)
    siting: Siting = Siting.LEFT
    interlaced: bool = False
    transfer: Transfer = Transfer.SDR

    @property
    def black(self) -> int:
        return 0 if self.full_range else 16 << (self.depth - 8)

    @property
    def luma_span(self) -> int:
        """Codes between black and white."""
        return (1 << self.depth) - 1 if self.full_range else 219 << (self.depth - 8)

    @property
    def neutral(self) -> int:
        """The chroma code that means no color."""
        return 1 << (self.depth - 1)

    @property
    def chroma_span(self) -> int:
        """Codes between chroma -0.5 and +0.5."""
        return (1 << self.depth) - 1 if self.full_range else 224 << (self.depth - 8)

    def chroma_size(self, height: int, width: int) -> tuple[int, int]:
        across, down = self.subsampling
        return -(-height // down), -(-width // across)


def srgb_to_linear(rgb: Tensor) -> Tensor:
    """Gamma-coded sRGB 0..1 to linear light 0..1."""
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Linear light to gamma-coded sRGB; values outside 0..1 go on along the curve, unclipped."""
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curve)


def rgb_to_lab(rgb: Tensor, matrix: Matrix = Matrix.BT709) -> Tensor:
    """sRGB (*, 3, H, W) in 0..1 to Lab (*, 3, H, W): L 0..100, a and b within ±110.

    matrix: BT2020 for RGB of its primaries, which reaches somewhat beyond.
    """
    primaries = _XYZ_FROM_2020 if matrix is Matrix.BT2020 else _XYZ_FROM_709
    xyz = _mix(primaries, srgb_to_linear(rgb))
    fx, fy, fz = _root(xyz).unbind(dim=-3)
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab (*, 3, H, W) to sRGB (*, 3, H, W); colors outside sRGB leave 0..1, unclipped."""
    lightness, a, b = lab.unbind(dim=-3)
    return linear_to_srgb(_lab_to_linear((lightness + 16) / 116, a, b, Matrix.BT709))


def gray_to_lightness(gray: Tensor) -> Tensor:
    """Gamma-coded gray 0..1 to CIE lightness L 0..100, any shape."""
    return 116 * lightness_root(gray) - 16


def lightness_to_gray(lightness: Tensor) -> Tensor:
    """CIE lightness L 0..100 to the gamma-coded gray 0..1 of the same lightness, any shape."""
    return linear_to_srgb(_cube((lightness + 16) / 116))


def rgb_to_ycbcr(rgb: Tensor, matrix: Matrix) -> Tensor:
    """Gamma-coded R'G'B' (*, 3, H, W) in 0..1 to Y' in 0..1, Cb and Cr in ±0.5."""
    kr, kb = matrix.value
    red, green, blue = rgb.unbind(dim=-3)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    return torch.stack((luma, (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)), dim=-3)


def ycbcr_to_rgb(ycbcr: Tensor, matrix: Matrix) -> Tensor:
    """Y' in 0..1, Cb and Cr in ±0.5 to gamma-coded R'G'B' (*, 3, H, W), unclipped."""
    luma, cb, cr = ycbcr.unbind(dim=-3)
    return luma.unsqueeze(-3) + torch.stack(_rgb_differences(cb, cr, matrix), dim=-3)


def decode_ycbcr(codes: Tensor, code: PixelCode) -> Tensor:
    """Integer codes (*, 3, H, W) to Y' 0..1 and Cb, Cr ±0.5, float32."""
    luma = decode_luma(codes[..., :1, :, :], code)
    chroma = (codes[..., 1:, :, :].to(torch.float32) - code.neutral) / code.chroma_span
    return torch.cat((luma, chroma), dim=-3)


def decode_luma(codes: Tensor, code: PixelCode) -> Tensor:
    """Luma codes of any shape to gray 0..1 (blacker and whiter than legal leave it), float32."""
    return (codes.to(torch.float32) - code.black) / code.luma_span


def ab_to_cbcr(
    gray: Tensor, ab: Tensor, matrix: Matrix, transfer: Transfer = Transfer.SDR
) -> Tensor:
    """The (Cb, Cr) that a pixel of this gray takes on when it gets this color.

    gray: (*, 1, H, W) gamma-coded 0..1. ab: (*, 2, H, W) Lab units. Returns (*, 2, H, W) in ±0.5,
    not yet fitted to the gamut.
    """
    if transfer is not Transfer.SDR:
        return _hdr_cbcr(gray, ab, matrix, transfer)
    a, b = ab.unbind(dim=-3)
    linear = _lab_to_linear(lightness_root(gray).squeeze(-3), a, b, matrix)
    return rgb_to_ycbcr(linear_to_srgb(linear), matrix)[..., 1:, :, :]


def _hdr_cbcr(gray: Tensor, ab: Tensor, matrix: Matrix, transfer: Transfer) -> Tensor:
    """As `ab_to_cbcr`, by way of light. Lab continues above its white, as the light of HDR does.

    A color of the same luminance as a gray has another luma, and on these curves a very different
    one. So the color is made darker or brighter until it has the pixel's own luma, which stays.
    """
    a, b = ab.unbind(dim=-3)
    wanted = gray
    for _ in range(_HDR_STEPS):
        light = gray_to_light(wanted, transfer)
        linear = _lab_to_linear(_root(light).squeeze(-3), a, b, matrix)
        ycbcr = rgb_to_ycbcr(light_to_rgb(linear, light, transfer), matrix)
        wanted = (wanted + gray - ycbcr[..., :1, :, :]).clamp(0, 1)
    return ycbcr[..., 1:, :, :]


def fit_to_gamut(low: Tensor, high: Tensor, cbcr: Tensor, matrix: Matrix) -> Tensor:
    """Scale (Cb, Cr) by the largest s <= 1 that keeps R', G' and B' in 0..1; luma stays.

    R' = Y' + s dR and so on is linear in s, so the bound is closed: s <= (1 - Y') / dR where dR > 0
    and s <= Y' / -dR where dR < 0. A chroma sample shared by several luma samples has to suit the
    darkest (low) and the brightest (high) of them, each (*, 1, H, W) in 0..1; cbcr: (*, 2, H, W).
    """
    cb, cr = cbcr.unbind(dim=-3)
    red, green, blue = _rgb_differences(cb, cr, matrix)
    up = torch.maximum(torch.maximum(red, green), blue).unsqueeze(-3)
    down = torch.minimum(torch.minimum(red, green), blue).unsqueeze(-3)
    tiny = 1e-6  # black and white themselves leave no room for color at all
    room_above, room_below = (1 - high).clamp(min=tiny), low.clamp(min=tiny)
    return cbcr / torch.maximum(up / room_above, -down / room_below).clamp(min=1)


def chroma_planes(luma: Tensor, ab: Tensor, code: PixelCode) -> Tensor:
    """Color a frame: its own luma and the network's ab become chroma planes at output size.

    luma: (N, 1, H, W) uint8 or uint16 codes, the source's own plane. ab: (N, 2, h, w) float32 Lab
    units at any size. Returns (N, 2, H', W') of luma's dtype, Cb then Cr, where H' and W' are those
    of `code.subsampling`, rounded up for odd sizes. ab is enlarged bicubically: every guided filter
    that we tried was 3.7 to 10 dB worse on an accurate map.
    """
    vertical, wide = enlarging(ab, luma.shape[-2:], code)
    rows, down = len(vertical), code.subsampling[1]
    step, pixels = rows, luma.shape[-2] * luma.shape[-1]
    if pixels > WHOLE_PIXELS:
        step = max(4, rows * _BAND_PIXELS // pixels // 4 * 4)  # lines of both fields, in pairs
    bands = [
        _painted(
            luma[..., start * down : (start + step) * down, :],
            vertical[start : start + step] @ wide,
            code,
        )
        for start in range(0, rows, step)
    ]
    return torch.cat(bands, dim=-2) if len(bands) > 1 else bands[0]


def _painted(luma: Tensor, ab: Tensor, code: PixelCode) -> Tensor:
    """Chroma planes of luma with its ab (N, 2, H', W') at their own size."""
    mean, low, high = (decode_luma(x, code) for x in _blocks(luma, code))
    cbcr = fit_to_gamut(low, high, ab_to_cbcr(mean, ab, code.matrix, code.transfer), code.matrix)
    return (cbcr * code.chroma_span + code.neutral).round_().to(luma.dtype)


def enlarging(
    ab: Tensor, size: tuple[int, int] | torch.Size, code: PixelCode
) -> tuple[Tensor, Tensor]:
    """Enlarge ab (N, 2, h, w) to the chroma grid of a luma plane of `size`, siting included.

    The product of what is returned: the matrix (H', h) that enlarges columns, and ab (N, 2, h, W')
    with its lines enlarged. It is left to the caller, who may want some lines at a time.
    """
    lines, columns = chroma_grid(size, code)
    vertical, horizontal = (
        _cubic(count, *axis, ab.device)
        for count, axis in zip(ab.shape[-2:], (lines, columns), strict=True)
    )
    return vertical, ab @ horizontal.T


# Of an axis: how many samples there are, and that the i-th one is at (i + offset) * step, as a
# share of the axis.
Axis = tuple[int, float, float]


def chroma_grid(size: tuple[int, int] | torch.Size, code: PixelCode) -> tuple[Axis, Axis]:
    """Where the chroma samples of a luma plane (H, W) sit, vertically and horizontally."""
    height, width = size
    (rows, columns), (across, down) = code.chroma_size(height, width), code.subsampling
    shift_x, shift_y = code.siting.value
    # In luma pixels, from the picture's edge: a sample that sits in the middle of its block is at
    # (i + 0.5) * step, a cosited one half a luma sample into it.
    vertical = rows, offset_in_block(shift_y, down), down / height
    return vertical, (columns, offset_in_block(shift_x, across), across / width)


def offset_in_block(shift: float, step: int) -> float:
    """How far into its block of `step` luma samples a chroma sample sits, as a share of the block.

    shift: as `Siting` has it."""
    return 0.5 if shift == 0.5 else 0.5 / step


def cubic_taps(size: int, count: int, offset: float, step: float) -> tuple[Tensor, Tensor]:
    """Which values of a line of `size`, and how much of each, make a sample at (i + offset) * step.

    Positions are shares of the line. Returns indices (count, 4), int64, and weights (count, 4),
    float64. Keys' cubic convolution with A = -0.75, as in OpenCV and torch; beyond the ends the
    edge value goes on.
    """
    position = (torch.arange(count, dtype=torch.float64) + offset) * step * size - 0.5
    left, taps = position.floor()[:, None], torch.arange(-1, 3)
    x = (position[:, None] - left - taps).abs()
    near = (1.25 * x - 2.25) * x * x + 1
    far = ((-0.75 * x + 3.75) * x - 6) * x + 3
    return (left + taps).clamp(0, size - 1).long(), torch.where(x <= 1, near, far)


def cubic_matrix(size: int, count: int, offset: float, step: float, device: torch.device) -> Tensor:
    """The (count, size) matrix that samples a line of `size` values; see `cubic_taps`."""
    places, weights = cubic_taps(size, count, offset, step)
    matrix = torch.zeros(count, size, dtype=torch.float64).scatter_add_(1, places, weights)
    return matrix.to(device, torch.float32)


_cubic = lru_cache(maxsize=32)(cubic_matrix)  # a film has two


def _blocks(luma: Tensor, code: PixelCode) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, least and greatest luma code under each chroma sample; odd edges repeat the last.

    The fields of an interlaced picture are shown at different times, so each has blocks of its own.
    In space, their chroma lines lie where those of a whole picture do (MPEG-2, figures 6-1 and
    6-2), so no other grid is needed.
    """
    across, down = code.subsampling
    # uint16 has no arithmetic in torch; int32 holds it. uint8 fits int16, sums of two included.
    codes = luma.to(torch.int32 if luma.dtype == torch.uint16 else torch.int16)
    fields = code.interlaced and down > 1
    if fields:
        codes = _fields_apart(codes)
    mean, low, high = codes.to(torch.float32), codes, codes
    for dim, count in ((-2, down), (-1, across)):
        if count > 1:
            mean = torch.stack(_phases(mean, dim, count)).mean(dim=0)
            low = reduce(torch.minimum, _phases(low, dim, count))
            high = reduce(torch.maximum, _phases(high, dim, count))
    if fields:
        lines = code.chroma_size(*luma.shape[-2:])[0]
        mean, low, high = (_fields_together(x)[..., :lines, :] for x in (mean, low, high))
    return mean, low, high


def _fields_apart(lines: Tensor) -> Tensor:
    """The fields (*, 2, H / 2, W) of interlaced lines (*, 1, H, W), top first; an odd last line
    stands in both."""
    top, bottom = _phases(lines, -2, 2)
    return torch.cat((top, bottom), dim=-3)


def _fields_together(fields: Tensor) -> Tensor:
    """The inverse of `_fields_apart`."""
    return torch.stack(fields.unbind(dim=-3), dim=-2).flatten(-3, -2).unsqueeze(-3)


def _phases(x: Tensor, dim: int, count: int) -> list[Tensor]:
    missing = -x.shape[dim] % count
    if missing:
        edge = x.narrow(dim, x.shape[dim] - 1, 1)
        x = torch.cat((x, *[edge] * missing), dim=dim)
    return list(torch.unflatten(x, dim, (-1, count)).unbind(dim))


def _rgb_differences(cb: Tensor, cr: Tensor, matrix: Matrix) -> tuple[Tensor, Tensor, Tensor]:
    """R' - Y', G' - Y' and B' - Y'."""
    kr, kb = matrix.value
    red, blue = (2 - 2 * kr) * cr, (2 - 2 * kb) * cb
    return red, -(kr * red + kb * blue) / (1 - kr - kb), blue


def rgb_from_xyz(matrix: Matrix) -> Tensor:
    """The 3x3 float64 matrix from XYZ, relative to white, to linear RGB of a matrix's primaries."""
    found: Tensor = _2020_FROM_XYZ if matrix is Matrix.BT2020 else _709_FROM_XYZ
    return found


def lightness_root(gray: Tensor) -> Tensor:
    """f(Y/Yn) of CIE Lab, which is (L + 16) / 116, of a gamma-coded gray."""
    return _root(srgb_to_linear(gray))


def _root(linear: Tensor) -> Tensor:
    """f of CIE Lab: of relative X, Y or Z."""
    return torch.where(
        linear > _EPSILON, linear.clamp(min=_EPSILON) ** (1 / 3), (KAPPA * linear + 16) / 116
    )


def _cube(root: Tensor) -> Tensor:
    """The inverse of f: relative X, Y or Z from its root."""
    return torch.where(root > TOE, root * root * root, (116 * root - 16) / KAPPA)


def _lab_to_linear(fy: Tensor, a: Tensor, b: Tensor, matrix: Matrix) -> Tensor:
    """Lab, its lightness given as f(Y/Yn), to linear RGB (*, 3, H, W) in the matrix's primaries."""
    xyz = torch.stack((_cube(fy + a / 500), _cube(fy), _cube(fy - b / 200)), dim=-3)
    return _mix(rgb_from_xyz(matrix), xyz)


def _mix(matrix: Tensor, channels: Tensor) -> Tensor:
    """Multiply the channel axis of (*, 3, H, W) by a 3x3 matrix."""
    return torch.einsum("ij,...jhw->...ihw", _on(channels.device, matrix), channels)


@cache
def _on(device: torch.device, matrix: Tensor) -> Tensor:
    """One of this module's matrices, moved once: each move would wait for the GPU."""
    with torch.inference_mode(False):  # training may use it after inference has asked for it
        return matrix.to(device, torch.float32)
