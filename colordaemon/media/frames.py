"""What comes with a decoded picture beside its pixels."""

from __future__ import annotations

import struct
from typing import Any, cast

from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame

from colordaemon.media.captions import CARRIED, Messages, is_dropping, time_parts

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
    return list(cast(Any, picture.side_data))  # PyAV's types take all of it for one


def is_void(data: SideData) -> bool:
    """Whether it says nothing: decoders of MPEG-2 give every picture a pan and scan that moves
    nothing."""
    return data.type.name == "PANSCAN" and not any(bytes(data)[_PAN_SCAN_MOVES])


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
