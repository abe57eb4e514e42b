"""Codec parameters of video streams that FFmpeg knows and PyAV does not show.

FFmpeg writes all of it into the header of a Matroska file, so it is asked for one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import av.error
from av.video.stream import VideoStream

from colordaemon.errors import MediaError
from colordaemon.media import ebml

_SITING_ACROSS, _SITING_DOWN = b"\x55\xb7", b"\x55\xb8"
_MAPPING, _MAPPING_TYPE, _MAPPING_DATA = b"\x41\xe4", b"\x41\xe7", b"\x41\xed"
_DOLBY_VISION = frozenset((b"dvcC", b"dvvC", b"dvwC"))
# 1 is the first luma sample under a chroma sample, 2 the middle; to AVChromaLocation. Matroska has
# no word for the last one, nor does anybody use it.
_SITINGS = {(1, 2): 1, (2, 2): 2, (1, 1): 3, (2, 1): 4}


@dataclass(frozen=True)
class Parameters:
    """siting: FFmpeg's number for that of chroma samples, 0 where it is unknown. side_data: of the
    stream and not of its pictures, by the names that FFmpeg has for those of pictures. needs_dolby:
    whether the pictures are in a color space of Dolby Vision's own.
    """

    siting: int = 0
    side_data: frozenset[str] = frozenset()
    needs_dolby: bool = False


def parameters_of(stream: VideoStream) -> Parameters:
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="matroska") as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
        tracks = ebml.parse_header(buffer, stream.container.name).tracks
    except (av.error.FFmpegError, ValueError, MediaError):
        return Parameters()  # a codec that Matroska does not hold
    return _read(tracks[0]) if tracks else Parameters()


def _read(track: ebml.Element) -> Parameters:
    video = ebml.Element(ebml.VIDEO, track.child(ebml.VIDEO))
    color = ebml.Element(ebml.COLOR, video.child(ebml.COLOR))
    across, down = (_number(color.child(name)) for name in (_SITING_ACROSS, _SITING_DOWN))
    mappings = [part for part in track.children if part.id == _MAPPING]
    dolby = [m.child(_MAPPING_DATA) for m in mappings if m.child(_MAPPING_TYPE) in _DOLBY_VISION]
    # What other displays a film is made for, too: Dolby Vision Streams Within the ISO Base Media
    # File Format 2.1.2, section 3.2.
    needs_dolby = any(len(data) > 4 and not data[4] >> 4 for data in dolby)
    side_data = frozenset(("DOVI_METADATA",) if dolby else ())
    return Parameters(_SITINGS.get((across, down), 0), side_data, needs_dolby)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
