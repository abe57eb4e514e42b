"""Reads the side data of packets and decoded pictures."""

from __future__ import annotations

import struct
from typing import Any, cast

from av.packet import Packet
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.frame import VideoFrame

from colordaemon.media.captions import CARRIED, Messages, is_dropping, time_parts

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


def _unnamed(cls: type[Type], value: Any) -> Type:
    """A kind of side data beyond those that PyAV lists."""
    made = object.__new__(cls)
    made._name_ = _NEWER.get(value, f"KIND_{value}")
    made._value_ = value
    cls._value2member_map_[value] = made
    return made


Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment]  # as enum documents it


def all_side_data(picture: VideoFrame) -> list[SideData]:
    """Not by its property: that ties the picture to a list which is tied to the picture, so that
    dozens of pictures would wait for Python's garbage collector."""
    return list(cast(Any, SideDataContainer)(picture))


def is_void(data: SideData) -> bool:
    """Whether it says nothing: decoders of MPEG-2 give every picture a pan and scan that moves
    nothing."""
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
    """Matroska's number of how two views share a picture; 0 where they do not, -1 for others."""
    for side in all_side_data(picture):
        if side.type.name == "STEREO3D":
            kind, flags = struct.unpack_from("=2i", bytes(side))
            return _STEREO_MODES.get((kind, flags & 1), -1 if kind else 0)
    return 0


def timecode_of(picture: VideoFrame) -> str:
    """When the group of pictures that begins here begins, HH:MM:SS:FF; empty where it counts from
    zero, as encoders do that know no timecode. FFmpeg hands out the bits of MPEG's header, and of
    other codecs those of SMPTE 12M."""
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
