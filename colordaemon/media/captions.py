"""Copies captions and similar messages from inside one film's pictures into another's.

EIA-608/708 captions (A/53), the active format description (AFD), timecodes and the metadata of
HDR10+ are messages beside a coded picture. Decoders hand them out with the frame; encoders get new
frames without them, so they are put into the coded picture again.

Sources for HDR10+: SMPTE ST 2094-40, annex B; libavutil/hdr_dynamic_metadata.h, whose structures
are below, because FFmpeg hands out these and not the message.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Iterator
from fractions import Fraction

Messages = tuple[tuple[str, bytes], ...]  # FFmpeg's name of the side data, and its bytes
CARRIED_IN = {
    # Here a timecode would have to stand in a message that x264 writes itself.
    "h264": frozenset(("A53_CC", "AFD")),
    "hevc": frozenset(("A53_CC", "AFD", "DYNAMIC_HDR_PLUS", "S12M_TIMECODE")),
}
CARRIED = frozenset[str]().union(*CARRIED_IN.values())

_ATSC = b"\xb5\x00\x31"  # ITU-T T.35: the United States, ATSC
_MOST_TRIPLETS = 31
_MOST_COUNTED = 30  # frames that a timecode counts in a second
_REGISTERED_USER_DATA, _TIME_CODE = 4, 136  # types of SEI messages
_START = b"\0\0\0\1"
_SEI_HEADERS = {"h264": b"\x06", "hevc": b"\x4e\x01"}
_PICTURE_TYPES = {"h264": range(1, 6), "hevc": range(32)}  # of NAL units
T35_HEADER = b"\xb5\x00\x3c\x00\x01\x04"  # ITU-T T.35: the United States, Samsung, ST 2094-40
_INT, _BYTE, _SHORT = ctypes.c_int, ctypes.c_uint8, ctypes.c_uint16
_SHARE, _BRIGHT, _KNEE, _ANCHOR, _PEAK, _WEIGHT = 100000, 1000, 4095, 1023, 15, 8  # units in 1


def with_messages(
    coded: bytes, messages: Messages, codec: str, rate: Fraction = Fraction(25)
) -> bytes:
    """A coded picture (a byte stream with start codes) with messages before its first slice."""
    payloads = _payloads(messages, rate)
    units = b"".join(_unit(kind, payload, codec) for kind, payload in payloads)
    position = _first_slice(coded, codec)
    return coded[:position] + units + coded[position:]


# What messages look like in a coded picture, behind start codes or lengths.
_LOOKS = {
    "A53_CC": re.compile(re.escape(_ATSC + b"GA94\x03")),
    "AFD": re.compile(re.escape(_ATSC + b"DTG1")),
    "DYNAMIC_HDR_PLUS": re.compile(re.escape(T35_HEADER)),
    "S12M_TIMECODE": re.compile(rb"\x00\x00[\x00\x01].?\x4e\x01" + bytes([_TIME_CODE]), re.DOTALL),
}


def messages_in(coded: bytes) -> Iterator[str]:
    """The names of messages that a coded picture carries."""
    return (name for name, look in _LOOKS.items() if look.search(coded))


def _payloads(messages: Messages, rate: Fraction) -> Iterator[tuple[int, bytes]]:
    for name, data in messages:
        if name == "S12M_TIMECODE":
            yield _TIME_CODE, _time_code(data, rate)
        elif name == "AFD":
            yield _REGISTERED_USER_DATA, _ATSC + b"DTG1\x41" + bytes([0xF0 | data[0]])
        elif name == "DYNAMIC_HDR_PLUS":
            yield _REGISTERED_USER_DATA, t35_of(data)
        else:
            yield from ((_REGISTERED_USER_DATA, part) for part in _captions(data))


def _captions(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 3 * _MOST_TRIPLETS):
        part = data[start : start + 3 * _MOST_TRIPLETS]
        yield _ATSC + b"GA94\x03" + bytes([0x40 | len(part) // 3, 0xFF]) + part + b"\xff"


def time_parts(word: int) -> list[int]:
    """Hours, minutes, seconds and frames of a timecode in the bits of SMPTE ST 12-1, table 1."""
    places = ((0, 0x3F), (8, 0x7F), (16, 0x7F), (24, 0x3F))
    return [(word >> at & mask) // 16 * 10 + (word >> at & 15) for at, mask in places]


def is_dropping(word: int) -> bool:
    """Whether the timecode passes over numbers of frames, to keep up with the clock."""
    return bool(word >> 30 & 1)


def _time_code(data: bytes, rate: Fraction) -> bytes:
    """H.265, D.2.27, of up to three timecodes."""
    count, *words = struct.unpack("=4I", data)
    bits = f"{count:02b}"
    for word in words[:count]:
        hours, minutes, seconds, frames = time_parts(word)
        if rate > _MOST_COUNTED:  # frames are counted in pairs, and a bit tells them apart
            frames = 2 * frames + (word >> (7 if rate == 50 else 23) & 1)
        counting = 4 if is_dropping(word) else 0
        # A full time stamp without offset; counting continues from the one before.
        bits += f"10{counting:05b}10{counting // 4}{frames:09b}"
        bits += f"{seconds:06b}{minutes:06b}{hours:05b}00000"
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _unit(kind: int, payload: bytes, codec: str) -> bytes:
    size = b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255])
    body = bytes([kind]) + size + payload + b"\x80"
    # Three bytes that look like a start code are broken up.
    escaped = re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", body)
    return _START + _SEI_HEADERS[codec] + escaped


def _first_slice(coded: bytes, codec: str) -> int:
    """Where the start code of the first unit with picture data begins; else the end."""
    for match in re.finditer(rb"\x00?\x00\x00\x01(.)", coded, re.DOTALL):
        first = match[1][0]
        kind = first & 0x1F if codec == "h264" else first >> 1 & 0x3F
        if kind in _PICTURE_TYPES[codec]:
            return match.start()
    return len(coded)


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
