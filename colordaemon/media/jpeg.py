"""JPEG files as segments: what comes before the pixels, where these end, and what comes after.

libvips and libjpeg decode and encode the pixels. The rest of a file is ours, because libvips puts
EXIF through libexif, which knows only some tags, and drops comments and extended XMP. Layout: ITU-T
T.81 annex B; XMP specification part 3, section 1.1.3.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from mmap import mmap

EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
END = b"\xff\xd9"
LONGEST = 65533  # bytes of payload that the two bytes of a length can count

_APP0, _APP1, _APP2, _APP11, _APP13, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xFE
_START_OF_SCAN = 0xDA
# Within a scan, 0xFF stands before 0 (a stuffed byte), restart marks and fill bytes.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Segment:
    """One segment, without its length."""

    marker: int
    payload: bytes

    @property
    def is_application(self) -> bool:
        return 0xE0 <= self.marker <= 0xEF

    @property
    def name(self) -> str:
        """For people."""
        if self.marker == _COMMENT:
            return "comment"
        mark = self.payload.split(b"\0")[0][:32].decode("ascii", "replace")
        return f"segment APP{self.marker - 0xE0} {mark}".strip()

    def encoded(self) -> bytes:
        return struct.pack(">BBH", 0xFF, self.marker, len(self.payload) + 2) + self.payload


@dataclass(frozen=True)
class Parts:
    """A JPEG taken apart. segments: those before the first scan. scan: where that begins.
    end: behind the end marker; None if there is none."""

    segments: tuple[Segment, ...]
    scan: int
    end: int | None

    def payloads(self, marker: int, start: bytes = b"") -> list[bytes]:
        """What follows `start` in the segments of a kind that begin with it."""
        return [
            s.payload[len(start) :]
            for s in self.segments
            if s.marker == marker and s.payload.startswith(start)
        ]


def take_apart(data: bytes | mmap) -> Parts:
    """Damage ends the list of segments; decoders judge it by themselves."""
    segments: list[Segment] = []
    position, scan = 2, len(data)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker == _START_OF_SCAN or length < 2:
            scan = position
            break
        segments.append(Segment(marker, bytes(data[position + 4 : position + 2 + length])))
        position += 2 + length
    return Parts(tuple(segments), scan, _end_of_scans(data, scan))


def _end_of_scans(data: bytes | mmap, position: int) -> int | None:
    while found := _MARKER.search(data, position):
        position = found.end()
        if data[position - 1] == END[1]:
            return position
        if position + 2 > len(data):
            return None
        position += struct.unpack_from(">H", data, position)[0]
    return None


def exif_of(parts: Parts) -> bytes:
    """The EXIF block, from its byte order mark; empty if there is none."""
    return next(iter(parts.payloads(_APP1, EXIF)), b"")


def xmp_of(parts: Parts) -> bytes:
    return next(iter(parts.payloads(_APP1, XMP)), b"")


def resources_of(parts: Parts) -> bytes:
    """Photoshop's image resources, among them IPTC; long ones stand in several segments."""
    return b"".join(parts.payloads(_APP13, PHOTOSHOP))


def density_of(parts: Parts) -> tuple[int, int, int] | None:
    """Unit (0: only a shape of pixels, 1: per inch, 2: per cm), across and down."""
    for payload in parts.payloads(_APP0, b"JFIF\0"):
        if len(payload) >= 7:
            return struct.unpack_from(">BHH", payload, 2)
    return None


def kept_segments(parts: Parts) -> tuple[Segment, ...]:
    """Segments that pass as they stand: comments, extended XMP and whatever makers put there."""
    return tuple(s for s in parts.segments if _is_kept(s))


def _is_kept(segment: Segment) -> bool:
    """Everything but what is written anew or describes the old pixels."""
    if segment.marker == _COMMENT:
        return True
    anew = {
        _APP0: (b"JFIF", b"JFXX"),
        _APP1: (EXIF, XMP),
        _APP2: (b"ICC_PROFILE", b"MPF"),
        _APP13: (PHOTOSHOP,),
        _APP14: (b"Adobe",),
    }
    is_signature = segment.marker == _APP11 and segment.payload.startswith(b"JP")
    return (
        segment.is_application
        and not is_signature
        and not segment.payload.startswith(anew.get(segment.marker, ()) or b"\xff\xff never")
    )


def has_profile(parts: Parts) -> bool:
    return bool(parts.payloads(_APP2, b"ICC_PROFILE"))


def holds_signature(parts: Parts) -> bool:
    """Whether it is signed (C2PA), which no changed picture can be."""
    return bool(parts.payloads(_APP11, b"JP"))


def holds_more_pictures(parts: Parts) -> bool:
    """Whether it indexes further pictures behind the first (multi-picture format)."""
    return bool(parts.payloads(_APP2, b"MPF\0"))


def put_together(
    encoded: bytes,
    *,
    exif: bytes,
    xmp: bytes,
    resources: bytes,
    density: tuple[int, float, float] | None,
    kept: Iterable[Segment],
) -> bytes:
    """A JPEG as libvips encodes it, with our own segments. The caller sees to it that EXIF
    and XMP fit into one segment each; resources may take several."""
    parts = take_apart(encoded)
    unit, across, down = density or (0, 1, 1)
    dots = (min(round(n), 65535) for n in (across, down))
    jfif = struct.pack(">5sHBHHBB", b"JFIF\0", 0x0102, unit, *dots, 0, 0)
    segments = [Segment(_APP0, jfif), Segment(_APP1, EXIF + exif), Segment(_APP1, XMP + xmp)]
    room = LONGEST - len(PHOTOSHOP)
    segments += [
        Segment(_APP13, PHOTOSHOP + resources[start : start + room])
        for start in range(0, len(resources), room)
    ]
    segments += kept
    segments += [s for s in parts.segments if s.marker not in (_APP0, _APP1, _APP13, _COMMENT)]
    return b"\xff\xd8" + b"".join(s.encoded() for s in segments) + encoded[parts.scan :]
