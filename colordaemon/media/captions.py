"""Captions and the like that travel inside the pictures, out of one film and into another.

EIA-608/708 captions (A/53) and the active format description (AFD) are messages beside a coded
picture. Decoders hand them out with the frame; encoders get new frames without them, so they are
put into the coded picture again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Messages = tuple[tuple[str, bytes], ...]  # FFmpeg's name of the side data, and its bytes
CARRIED_IN = {"h264": frozenset(("A53_CC", "AFD")), "hevc": frozenset(("A53_CC", "AFD"))}
CARRIED = frozenset[str]().union(*CARRIED_IN.values())

_ATSC = b"\xb5\x00\x31"  # ITU-T T.35: the United States, ATSC
_MOST_TRIPLETS = 31
_REGISTERED_USER_DATA = 4  # type of an SEI message
_START = b"\0\0\0\1"
_SEI_HEADERS = {"h264": b"\x06", "hevc": b"\x4e\x01"}
_PICTURE_TYPES = {"h264": range(1, 6), "hevc": range(32)}  # of NAL units


def with_messages(coded: bytes, messages: Messages, codec: str) -> bytes:
    """A coded picture (a byte stream with start codes) with messages before its first slice."""
    units = b"".join(_unit(payload, codec) for payload in _payloads(messages))
    position = _first_slice(coded, codec)
    return coded[:position] + units + coded[position:]


def _payloads(messages: Messages) -> Iterator[bytes]:
    for name, data in messages:
        if name == "AFD":
            yield _ATSC + b"DTG1\x41" + bytes([0xF0 | data[0]])
            continue
        for start in range(0, len(data), 3 * _MOST_TRIPLETS):
            part = data[start : start + 3 * _MOST_TRIPLETS]
            yield _ATSC + b"GA94\x03" + bytes([0x40 | len(part) // 3, 0xFF]) + part + b"\xff"


def _unit(payload: bytes, codec: str) -> bytes:
    size = b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255])
    body = bytes([_REGISTERED_USER_DATA]) + size + payload + b"\x80"
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
