"""Copies captions and similar messages from inside one film's pictures into another's.

EIA-608/708 captions (A/53), the active format description (AFD), timecodes and the metadata of
HDR10+ are messages beside a coded picture. Decoders hand them out with the frame; encoders get new
frames without them, so they are put into the coded picture again.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from fractions import Fraction

from colordaemon.media.hdr10plus import T35_HEADER, t35_of

Messages = tuple[tuple[str, bytes], ...]  # FFmpeg's name of the side data, and its bytes
CARRIED_IN = {
    # Here a timecode would have to stand in a message that x264 writes itself.
    "h264": frozenset(("A53_CC", "AFD")),
    "hevc": frozenset(("A53_CC", "AFD", "DYNAMIC_HDR_PLUS", "S12M_TIMECODE")),
}
CARRIED = frozenset[str]().union(*CARRIED_IN.values())

_ATSC = b"\xb5\x00\x31"  # ITU-T T.35: the United States, ATSC
_MOST_TRIPLETS = 31
_MOST_COUNTED = 30  # frames in a second, that a timecode counts
_REGISTERED_USER_DATA, _TIME_CODE = 4, 136  # types of SEI messages
_START = b"\0\0\0\1"
_SEI_HEADERS = {"h264": b"\x06", "hevc": b"\x4e\x01"}
_PICTURE_TYPES = {"h264": range(1, 6), "hevc": range(32)}  # of NAL units


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
        # A whole time stamp without offset, on which counting goes on from the one before.
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
