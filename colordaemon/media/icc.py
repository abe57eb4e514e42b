"""Makes color profiles for pictures that give their curve and primaries as numbers, as PNG may.

As ICC profiles they are applied in the same way as embedded ones. Numbers: ITU-T H.273 (cICP), PNG
specification (gAMA, cHRM), ICC.1:2001-04 (the profile).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colordaemon.errors import MediaError

# White, red, green, blue as x, y.
_SRGB_PRIMARIES = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES = {
    1: _SRGB_PRIMARIES,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
# Video's curve (1, 6, 14, 15) is shown like sRGB by every viewer of stills.
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_HDR = {16: "PQ", 18: "HLG"}
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


@dataclass(frozen=True)
class Coding:
    """How codes become light. gamma: of a plain power curve; None: the curve of sRGB."""

    gamma: float | None = None
    primaries: tuple[float, ...] = _SRGB_PRIMARIES

    @property
    def is_srgb(self) -> bool:
        same = all(abs(a - b) < 0.002 for a, b in zip(self.primaries, _SRGB_PRIMARIES, strict=True))
        return self.gamma is None and same


def coding_of_cicp(primaries: int, transfer: int) -> Coding:
    """Raises MediaError for HDR, whose lightness no ordinary photo can hold."""
    if name := _HDR.get(transfer):
        raise MediaError(f"high dynamic range ({name}), expected a picture of standard range")
    return Coding(_GAMMAS.get(transfer), _PRIMARIES.get(primaries, _SRGB_PRIMARIES))


def coding_of_gamma(file_gamma: float | None, primaries: tuple[float, ...] | None) -> Coding:
    """file_gamma: as in gAMA; 0.45455 stands for sRGB and is taken for its curve."""
    usual = file_gamma is None or file_gamma <= 0 or abs(file_gamma - 1 / 2.2) < 0.005
    return Coding(
        None if usual or file_gamma is None else 1 / file_gamma, primaries or _SRGB_PRIMARIES
    )


def profile(coding: Coding, is_gray: bool) -> bytes:
    """An ICC profile of version 2."""
    if coding.gamma is not None:
        curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(coding.gamma * 256)) + b"\0\0"
    else:
        codes = np.linspace(0, 1, 1024)
        light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
        points = np.round(light * 65535).astype(">u2").tobytes()
        curve = b"curv\0\0\0\0" + struct.pack(">I", 1024) + points
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"coded" + bytes(78 + 1)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(*_D50)}
    if is_gray:
        tags[b"kTRC"] = curve
    else:
        for letter, column in zip(b"rgb", _colorants(coding.primaries).T, strict=True):
            tags[bytes([letter]) + b"TRC"] = curve
            tags[bytes([letter]) + b"XYZ"] = _xyz(*column)
    return _packed(tags, b"GRAY" if is_gray else b"RGB ")


def _colorants(primaries: tuple[float, ...]) -> NDArray[np.float64]:
    """XYZ of red, green and blue under D50, as columns."""
    points = [
        (x / y, 1.0, (1 - x - y) / y) for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    ]
    white, colors = np.array(points[0]), np.array(points[1:]).T
    scaled = colors * np.linalg.solve(colors, white)
    shares = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(shares) @ _BRADFORD @ scaled)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def _packed(tags: dict[bytes, bytes], space: bytes) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    for key, data in tags.items():
        table += key + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = b"none" + struct.pack(">I", 0x02100000) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + _xyz(*_D50)[8:] + bytes(48)
    return struct.pack(">I", 4 + len(head) + len(table) + len(body)) + head + table + body
