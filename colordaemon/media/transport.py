"""Reads the tables of an MPEG transport stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_SYNC, _PACKET = 0x47, 188
_READ_BYTES = 8 << 20  # tables come ten times a second
# Descriptors that name what FFmpeg has no decoder for.
_NAMES = {0x56: "dvb_teletext", 0x45: "vbi_data", 0x46: "vbi_teletext", 0xFD: "arib_caption"}
_EXTENSION = 0x7F
_EXTENDED_NAMES = {0x15: "ac4", 0x20: "ttml"}
TELETEXT = "dvb_teletext"


def stream_names(path: Path) -> dict[int, str]:
    """By number (PID, FFmpeg's `id` of a stream), names of streams that FFmpeg may not know."""
    with path.open("rb") as file:
        data = file.read(_READ_BYTES)
    names: dict[int, str] = {}
    for pid in _programs(data):
        for table in _sections(data, pid, 0x02):
            names |= dict(_streams(table))
    return names


def _programs(data: bytes) -> set[int]:
    """Numbers of the packets that hold programs' tables."""
    return {
        int.from_bytes(table[i + 2 : i + 4], "big") & 0x1FFF
        for table in _sections(data, 0, 0x00)
        for i in range(8, len(table) - 4, 4)
        if table[i : i + 2] != b"\0\0"
    }


def _streams(table: bytes) -> Iterator[tuple[int, str]]:
    """Number and name of the streams in a program's table that have one of our names."""
    position = 12 + (int.from_bytes(table[10:12], "big") & 0xFFF)
    while position + 5 <= len(table) - 4:
        pid = int.from_bytes(table[position + 1 : position + 3], "big") & 0x1FFF
        length = int.from_bytes(table[position + 3 : position + 5], "big") & 0xFFF
        for tag, body in _descriptors(table[position + 5 : position + 5 + length]):
            known = _EXTENDED_NAMES.get(body[0]) if tag == _EXTENSION and body else _NAMES.get(tag)
            if known:
                yield pid, known
        position += 5 + length


def _descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 2 <= len(data):
        end = position + 2 + data[position + 1]
        yield data[position], data[position + 2 : end]
        position = end


def _sections(data: bytes, pid: int, kind: int) -> Iterator[bytes]:
    """Different whole tables of one kind in the packets of one number."""
    seen: set[bytes] = set()
    table = b""
    for start, payload in _payloads(data, pid):
        if start and payload:
            table = payload[1 + payload[0] :]
        elif table:
            table += payload
        if len(table) < 3 or table[0] != kind:
            continue
        size = 3 + (int.from_bytes(table[1:3], "big") & 0xFFF)
        if len(table) >= size and table[:size] not in seen:
            seen.add(table[:size])
            yield table[:size]


def _payloads(data: bytes, pid: int) -> Iterator[tuple[bool, bytes]]:
    """Payloads of the packets of a number, and whether a table begins in them."""
    offset, size = _grid(data)
    for position in range(offset, len(data) - _PACKET + 1, size):
        packet = data[position : position + _PACKET]
        number = int.from_bytes(packet[1:3], "big")
        if packet[0] != _SYNC or number & 0x1FFF != pid or not packet[3] & 0x10:
            continue
        skipped = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        yield bool(number & 0x4000), packet[skipped:]


def _grid(data: bytes) -> tuple[int, int]:
    """Where the first packet begins, and from one to the next: 192 bytes on Blu-ray."""
    for size in (_PACKET, 192, 204):
        for offset in range(size):
            if data[offset : offset + 8 * size : size] == bytes([_SYNC]) * 8:
                return offset, size
    return 0, _PACKET
