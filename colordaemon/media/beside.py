"""What comes with a film's packets and pictures beside the pixels, and what becomes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.media.captions import CARRIED_IN
from colordaemon.media.frames import all_side_data, is_void
from colordaemon.media.inventory import Entry, Inventory, Kind
from colordaemon.media.light import LIGHT_CODECS
from colordaemon.media.parameters import parameters_of
from colordaemon.media.probe import FilmInfo, open_film
from colordaemon.media.shape import KNOWN

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
_SIDE_DATA: dict[str, tuple[Kind, str]] = {
    "A53_CC": ("captions", "closed captions in the pictures (EIA-608/708)"),
    "AFD": ("shape", "active format description"),
    "PANSCAN": ("shape", "pan and scan"),
    "SPHERICAL": ("shape", "marks of spherical pictures"),
    "GOP_TIMECODE": ("timecode", "timecode of groups of pictures"),
    "S12M_TIMECODE": ("timecode", "timecode of each picture (SMPTE 12M)"),
    "MASTERING_DISPLAY_METADATA": ("side data", "HDR10 mastering display"),
    "CONTENT_LIGHT_LEVEL": ("side data", "HDR10 content light level"),
    "DYNAMIC_HDR_PLUS": ("side data", "HDR10+ dynamic metadata"),
    "DOVI_METADATA": ("side data", "Dolby Vision metadata"),
    "DOVI_RPU_BUFFER": ("side data", "Dolby Vision metadata of each picture"),
    "FILM_GRAIN_PARAMS": ("side data", "parameters of film grain, which is in the pictures now"),
    "ICC_PROFILE": ("side data", "ICC profile"),
}
_REASONS = {
    "DOVI_METADATA": "it describes the colors of the old pictures",
    "DOVI_RPU_BUFFER": "it describes the colors of the old pictures",
    "FILM_GRAIN_PARAMS": "another grain would come on top of it",
}
_TIMECODES = frozenset(("GOP_TIMECODE", "S12M_TIMECODE"))
_SAMPLES, _FRAMES_EACH = 6, 3


def side_data(info: FilmInfo, codec: str, container: str, covered: Collection[str]) -> Inventory:
    """What becomes of what comes with packets and pictures, found in samples all over the film.

    codec, container: those that the film is going to be in. covered: names of what is accounted for
    elsewhere.
    """
    with open_film(info.path) as source:
        stream = source.streams[info.stream_index]
        assert isinstance(stream, VideoStream)
        parameters = parameters_of(stream)
        names = parameters.side_data | _names_in_samples(source, stream)
    entries = side_entries(names - {*covered}, info, codec, container)
    if parameters.needs_dolby:
        reason = "without its metadata grays and colors are not those that were meant"
        return (*entries, Entry("color", "color space of Dolby Vision's own", "left out", reason))
    return entries


def side_entries(names: Collection[str], info: FilmInfo, codec: str, container: str) -> Inventory:
    """What becomes of side data with these names of FFmpeg."""
    if not info.start_timecode:  # they count from zero, as where there are none
        names = {*names} - _TIMECODES
    return tuple(_entry(name, info, codec, container) for name in sorted(names))


def names_beside(picture: VideoFrame) -> frozenset[str]:
    """FFmpeg's names of what a picture says beside its pixels."""
    names = (side.type.name for side in all_side_data(picture) if not is_void(side))
    return frozenset(names) - _TECHNICAL_OF_FRAMES


def _entry(name: str, info: FilmInfo, codec: str, container: str) -> Entry:
    kind, what = _SIDE_DATA.get(name, ("side data", name.lower().replace("_", " ")))
    says_light = codec in LIGHT_CODECS or container in KNOWN
    if name in CARRIED_IN.get(codec, ()) or (says_light and name in info.light.names):
        return Entry(kind, what)
    if name in _TIMECODES:
        return Entry(kind, what, "converted", "the first one is the container's")
    return Entry(kind, what, "left out", _REASONS.get(name, f"it cannot be put into {codec}"))


def _names_in_samples(source: InputContainer, stream: VideoStream) -> set[str]:
    found: set[str] = set()
    start, total = stream.start_time or 0, stream.duration or 0
    for part in range(_SAMPLES if total else 1):
        try:
            if part:
                source.seek(start + total * part // _SAMPLES, stream=stream)
            for names in _sampled(source, stream):
                found |= names
        except av.error.FFmpegError:
            continue
    return found


def _sampled(source: InputContainer, stream: VideoStream) -> Iterator[frozenset[str]]:
    frames = 0
    for packet in source.demux(stream):
        names = (_NAMES.get(data.data_type, data.data_type) for data in packet.iter_sidedata())
        yield frozenset(names) - _TECHNICAL
        for frame in packet.decode():
            assert isinstance(frame, VideoFrame)
            frames += 1
            yield names_beside(frame)
        if frames >= _FRAMES_EACH:
            return
