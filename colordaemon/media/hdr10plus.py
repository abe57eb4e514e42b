"""The dynamic metadata of HDR10+, as FFmpeg hands them out and as they travel in a film.

Sources: SMPTE ST 2094-40, annex B; libavutil/hdr_dynamic_metadata.h, whose structures these are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

T35_HEADER = b"\xb5\x00\x3c\x00\x01\x04"  # ITU-T T.35: the United States, Samsung, ST 2094-40
_INT, _BYTE, _SHORT = ctypes.c_int, ctypes.c_uint8, ctypes.c_uint16
_SHARE, _BRIGHT, _KNEE, _ANCHOR, _PEAK, _WEIGHT = 100000, 1000, 4095, 1023, 15, 8  # units in 1


class _Rational(ctypes.Structure):
    _fields_ = [("above", _INT), ("below", _INT)]

    def units(self, unit: int) -> int:
        return round(self.above * unit / self.below) if self.below else 0


class _Percentile(ctypes.Structure):
    _fields_ = [("percentage", _BYTE), ("percentile", _Rational)]


class _Window(ctypes.Structure):
    _fields_ = [
        ("corners", _Rational * 4),
        ("center", _SHORT * 2),
        ("angle", _BYTE),
        ("axes", _SHORT * 3),
        ("overlap", _INT),
        ("maxscl", _Rational * 3),
        ("average_maxrgb", _Rational),
        ("percentile_count", _BYTE),
        ("percentiles", _Percentile * 15),
        ("bright_share", _Rational),
        ("maps_tones", _BYTE),
        ("knee", _Rational * 2),
        ("anchor_count", _BYTE),
        ("anchors", _Rational * 15),
        ("maps_saturation", _BYTE),
        ("saturation", _Rational),
    ]


class _Peaks(ctypes.Structure):
    _fields_ = [
        ("is_there", _BYTE),
        ("rows", _BYTE),
        ("columns", _BYTE),
        ("peaks", _Rational * 25 * 25),
    ]


class _Metadata(ctypes.Structure):
    _fields_ = [
        ("country", _BYTE),
        ("version", _BYTE),
        ("window_count", _BYTE),
        ("windows", _Window * 3),
        ("target_luminance", _Rational),
        ("target_peaks", _Peaks),
        ("mastering_peaks", _Peaks),
    ]


def t35_of(data: bytes) -> bytes:
    """The registered message of ITU-T T.35 for FFmpeg's structure AVDynamicHDRPlus."""
    bits = "".join(
        f"{value:0{width}b}" for value, width in _fields(_Metadata.from_buffer_copy(data))
    )
    bits += "0" * (-len(bits) % 8)
    return T35_HEADER + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _fields(metadata: _Metadata) -> Iterator[tuple[int, int]]:
    """Values and how many bits each has, in the order of the syntax."""
    windows = metadata.windows[: metadata.window_count]
    yield metadata.version, 8
    yield metadata.window_count, 2
    for window in windows[1:]:  # the first one is the whole picture
        yield from ((corner.units(1), 16) for corner in window.corners)
        yield from ((value, 16) for value in window.center)
        yield window.angle, 8
        yield from ((value, 16) for value in window.axes)
        yield window.overlap, 1
    yield metadata.target_luminance.units(1), 27
    yield from _peaks(metadata.target_peaks)
    for window in windows:
        yield from ((value.units(_SHARE), 17) for value in window.maxscl)
        yield window.average_maxrgb.units(_SHARE), 17
        yield window.percentile_count, 4
        for entry in window.percentiles[: window.percentile_count]:
            yield entry.percentage, 7
            yield entry.percentile.units(_SHARE), 17
        yield window.bright_share.units(_BRIGHT), 10
    yield from _peaks(metadata.mastering_peaks)
    for window in windows:
        yield window.maps_tones, 1
        if window.maps_tones:
            yield from ((value.units(_KNEE), 12) for value in window.knee)
            yield window.anchor_count, 4
            anchors = window.anchors[: window.anchor_count]
            yield from ((value.units(_ANCHOR), 10) for value in anchors)
        yield window.maps_saturation, 1
        if window.maps_saturation:
            yield window.saturation.units(_WEIGHT), 6


def _peaks(peaks: _Peaks) -> Iterator[tuple[int, int]]:
    yield peaks.is_there, 1
    if peaks.is_there:
        yield peaks.rows, 5
        yield peaks.columns, 5
        for row in peaks.peaks[: peaks.rows]:
            yield from ((value.units(_PEAK), 4) for value in row[: peaks.columns])
