"""Reads what packets and decoded pictures say beside their pixels (FFmpeg's side data).

Among it the display matrix, by which a player turns and mirrors pictures, and the static metadata
of HDR10: the display that a film was mastered on, and how bright it gets. Encoders of H.264, HEVC
and AV1 take the latter as text and put them in front of every key frame; of other codecs mp4, mov
and Matroska say them.

Sources: SMPTE ST 2086, CTA-861.3; units as in H.265, D.2.28 and D.2.35; the boxes mdcv and clli of
ISO/IEC 14496-12; Matroska, RFC 9559.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self, cast

import numpy as np
from av.packet import Packet
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.frame import VideoFrame

from colordaemon.media import ebml
from colordaemon.media.boxes import Box
from colordaemon.media.captions import CARRIED, Messages, is_dropping, time_parts
from colordaemon.media.ebml import Element

# FFmpeg's side data that is part of how packets are decoded, and not of what is shown.
_TECHNICAL = frozenset(
    ("cpb_properties", "skip_samples", "new_extradata", "param_change", "mpegts_stream_id",
     "quality_stats", "strings_metadata", "palette", "matroska_block_additional", "prft")
)  # fmt: skip
_TECHNICAL_OF_FRAMES = frozenset(("MOTION_VECTORS", "VIDEO_ENC_PARAMS", "SEI_UNREGISTERED",
                                  "VIDEO_HINT", "SKIP_SAMPLES"))  # fmt: skip
# Side data of packets that frames have under another name.
_NAMES = {
    "a53_cc": "A53_CC",
    "afd": "AFD",
    "display_matrix": "DISPLAYMATRIX",
    "stereo_3d": "STEREO3D",
    "mastering_display_metadata": "MASTERING_DISPLAY_METADATA",
    "content_light_level": "CONTENT_LIGHT_LEVEL",
    "dovi_conf": "DOVI_METADATA",
    "dynamic_hdr10_plus": "DYNAMIC_HDR_PLUS",
    "s12m_timecode": "S12M_TIMECODE",
    "spherical": "SPHERICAL",
    "icc_profile": "ICC_PROFILE",
    "ambient_viewing_environment": "AMBIENT_VIEWING_ENVIRONMENT",
}
# FFmpeg's type of stereoscopic pictures and whether the right view comes first, as Matroska's mode.
_STEREO_MODES = {
    (1, 0): 1, (1, 1): 11, (2, 0): 3, (2, 1): 2, (3, 0): 13, (3, 1): 14,
    (4, 0): 5, (4, 1): 4, (6, 0): 7, (6, 1): 6, (7, 0): 9, (7, 1): 8,
}  # fmt: skip

_PAN_SCAN_MOVES = slice(12, 24)  # of AVPanScan: three pairs of 16 bits


# Kinds that FFmpeg has and PyAV has no names for yet; it would fail over a picture with one.
_NEWER = {28: "LCEVC", 29: "VIEW_ID", 30: "3D_REFERENCE_DISPLAYS", 31: "EXIF"}
_ONE, _WHOLE = 1 << 16, 1 << 30  # fixed point with 16 and 30 binary digits
_NUMBERS = struct.Struct("=9i")
MASTERING, LEVEL = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
LIGHT_CODECS = frozenset(("h264", "hevc", "av1"))

_CHROMATICITY, _LUMINANCE = 50000, 10000  # units in 1, and in 1 cd/m²
# AVMasteringDisplayMetadata: fractions of x and y of red, green, blue and white, of the least and
# the greatest luminance; then whether it has primaries and luminance.
_DISPLAY = struct.Struct("=20i2i")
_CONTENT = struct.Struct("=2I")
_PARAMETERS = {"h264": "x264-params", "hevc": "x265-params", "av1": "svtav1-params"}


def _unnamed(cls: type[Type], value: Any) -> Type:
    """A kind of side data beyond those that PyAV lists."""
    made = object.__new__(cls)
    made._name_ = _NEWER.get(value, f"KIND_{value}")
    made._value_ = value
    cls._value2member_map_[value] = made
    return made


Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment]  # as enum documents it


def all_side_data(picture: VideoFrame) -> list[SideData]:
    """The side data, not by PyAV's property: that makes picture and list refer to each other, so
    that dozens of pictures would wait for Python's garbage collector."""
    return list(cast(Any, SideDataContainer)(picture))


def is_void(data: SideData) -> bool:
    """Whether side data say nothing: decoders of MPEG-2 give every picture a pan and scan that
    moves nothing."""
    return data.type.name == "PANSCAN" and not any(bytes(data)[_PAN_SCAN_MOVES])


def names_beside(picture: VideoFrame) -> frozenset[str]:
    """FFmpeg's names of what a picture says beside its pixels."""
    names = (side.type.name for side in all_side_data(picture) if not is_void(side))
    return frozenset(names) - _TECHNICAL_OF_FRAMES


def names_beside_packet(packet: Packet[Any]) -> frozenset[str]:
    """FFmpeg's names of what a packet says beside its picture, as pictures have them."""
    names = (_NAMES.get(data.data_type, data.data_type) for data in packet.iter_sidedata())
    return frozenset(names) - _TECHNICAL


def messages_of(picture: VideoFrame) -> Messages:
    """Captions and the like, to be put into the new coded picture."""
    return tuple(
        (side.type.name, bytes(side))
        for side in all_side_data(picture)
        if side.type.name in CARRIED
    )


def stereo_mode_of(picture: VideoFrame) -> int:
    """Matroska's number for how two views share a picture; 0 for one view, -1 for unknown ways."""
    for side in all_side_data(picture):
        if side.type.name == "STEREO3D":
            kind, flags = struct.unpack_from("=2i", bytes(side))
            return _STEREO_MODES.get((kind, flags & 1), -1 if kind else 0)
    return 0


def timecode_of(picture: VideoFrame) -> str:
    """The timecode HH:MM:SS:FF of the group of pictures that begins here; empty where it counts
    from zero, as encoders do that know no timecode. FFmpeg hands out the bits of MPEG's header, and
    of other codecs those of SMPTE 12M."""
    for side in all_side_data(picture):
        if side.type.name == "GOP_TIMECODE":
            bits = int.from_bytes(bytes(side)[:8], "little")
            parts = [bits >> 19 & 0x1F, bits >> 13 & 0x3F, bits >> 6 & 0x3F, bits & 0x3F]
            mark = ";" if bits >> 24 & 1 else ":"
            if any(parts):
                return _timecode(parts, mark)
        if side.type.name == "S12M_TIMECODE":
            word = int.from_bytes(bytes(side)[4:8], "little")
            if any(parts := time_parts(word)):
                return _timecode(parts, ";" if is_dropping(word) else ":")
    return ""


def _timecode(parts: list[int], mark: str) -> str:
    hours, minutes, seconds, frames = parts
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{frames:02}"


@dataclass(frozen=True)
class Orientation:
    """The display matrix (a, b, u, c, d, v, x, y, w) as mp4 and mov have it, in fixed point: a
    pixel at (p, q) is shown at (a p + c q + x, b p + d q + y).

    A turn by less than 45 degrees is none to the network.
    """

    matrix: tuple[int, ...] = (_ONE, 0, 0, 0, _ONE, 0, 0, 0, _WHOLE)

    @classmethod
    def of(cls, picture: VideoFrame) -> Self:
        for side in all_side_data(picture):
            if side.type.name == "DISPLAYMATRIX" and len(bytes(side)) == _NUMBERS.size:
                return cls(_NUMBERS.unpack(bytes(side)))
        return cls()

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self != Orientation()

    @property
    def stretch(self) -> Fraction:
        """By how much more it scales across than down."""
        a, b, _, c, d = self.matrix[:5]
        across, down = round(math.hypot(a, b)), round(math.hypot(c, d))
        return Fraction(across, down) if across and down else Fraction(1)

    def upright(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures (*, H, W) as a viewer sees them, in whole quarter turns; a view."""
        if self._swaps:
            pictures = pictures.swapaxes(-2, -1)
        return pictures[..., :: self._down, :: self._across]

    def as_stored(self, pictures: np.ndarray) -> np.ndarray:
        """The inverse of `upright`."""
        pictures = pictures[..., :: self._down, :: self._across]
        return pictures.swapaxes(-2, -1) if self._swaps else pictures

    @property
    def _swaps(self) -> bool:
        """Whether lines become columns."""
        a, b, _, c, d = self.matrix[:5]
        return abs(b) + abs(c) > abs(a) + abs(d)

    @property
    def _across(self) -> int:
        return -1 if self.matrix[3 if self._swaps else 0] < 0 else 1

    @property
    def _down(self) -> int:
        return -1 if self.matrix[1 if self._swaps else 4] < 0 else 1


@dataclass(frozen=True)
class Light:
    """display: x and y of red, green, blue and white in 1/50000, the least and the greatest
    luminance in 1/10000 cd/m². content: the greatest light level and the greatest mean of a
    picture, in cd/m². Empty where the film does not say it in full."""

    display: tuple[int, ...] = ()
    content: tuple[int, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """FFmpeg's names of what is there."""
        parts = ((MASTERING, self.display), (LEVEL, self.content))
        return frozenset(name for name, values in parts if values)

    def option(self, codec: str) -> dict[str, str]:
        """What an encoder of this codec has to be told."""
        if codec not in LIGHT_CODECS:
            return {}
        display, content = {
            "h264": ("mastering-display", "cll"),
            "hevc": ("master-display", "max-cll"),
            "av1": ("mastering-display", "content-light"),
        }[codec]
        parts = []
        if self.display:
            parts.append(f"{display}={self._display_as_text(codec == 'av1')}")
        if self.content:
            parts.append(f"{content}={self.content[0]},{self.content[1]}")
        return {_PARAMETERS[codec]: ":".join(parts)} if parts else {}

    def boxes(self) -> list[Box]:
        """For the sample description of mp4 and mov."""
        found = []
        if self.display:
            red, green, blue, white = (self.display[i : i + 2] for i in range(0, 8, 2))
            least, most = self.display[8:]
            numbers = struct.pack(">8H2I", *green, *blue, *red, *white, most, least)
            found.append(Box(b"mdcv", numbers))
        if self.content:
            found.append(Box(b"clli", struct.pack(">2H", *self.content)))
        return found

    def in_color(self, color: Element) -> Element:
        """Matroska's description of the colors of a film, with this in it."""
        ours = []
        if self.display:
            units = [_CHROMATICITY] * 8 + [_LUMINANCE] * 2
            least, most = (8, 9)
            numbers = [value / unit for value, unit in zip(self.display, units, strict=True)]
            # Red, green, blue, white; then the greatest luminance goes before the least.
            order = (*range(8), most, least)
            parts = [
                Element(bytes([0x55, 0xD1 + place]), struct.pack(">d", numbers[index]))
                for place, index in enumerate(order)
            ]
            ours.append(Element(ebml.MASTERING, b"".join(map(bytes, parts))))
        if self.content:
            levels = zip((ebml.MOST_LIGHT, ebml.MEAN_LIGHT), self.content, strict=True)
            ours += [Element(name, level.to_bytes(4, "big")) for name, level in levels]
        names = {element.id for element in ours}
        kept = [child for child in color.children if child.id not in names]
        return Element(ebml.COLOR, b"".join(map(bytes, [*kept, *ours])))

    def _display_as_text(self, in_units: bool) -> str:
        def number(value: int, unit: int) -> str:
            return f"{value / unit:.5f}" if in_units else str(value)

        numbers = [number(value, _CHROMATICITY) for value in self.display[:8]]
        least, most = (number(value, _LUMINANCE) for value in self.display[8:])
        red, green, blue, white = (",".join(numbers[i : i + 2]) for i in range(0, 8, 2))
        return f"G({green})B({blue})R({red})WP({white})L({most},{least})"


NO_LIGHT = Light()


def light_of(picture: VideoFrame) -> Light:
    found = {side.type.name: bytes(side) for side in all_side_data(picture)}
    display: tuple[int, ...] = ()
    if MASTERING in found:
        *numbers, has_primaries, has_luminance = _DISPLAY.unpack_from(found[MASTERING])
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if has_primaries and has_luminance and all(below for _, below in pairs):
            units = [_CHROMATICITY] * 8 + [_LUMINANCE] * 2
            display = tuple(
                round(above * unit / below)
                for (above, below), unit in zip(pairs, units, strict=True)
            )
    content = _CONTENT.unpack_from(found[LEVEL]) if LEVEL in found else ()
    return Light(display, content)
