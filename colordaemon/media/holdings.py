"""Take stock of a film: everything that it holds, and what becomes of each part."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import av.error
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.media.captions import CARRIED, CARRYING_CODECS
from colordaemon.media.copies import CONVERTING, Descriptions, Way, stream_name
from colordaemon.media.frames import all_side_data, is_void
from colordaemon.media.inventory import KIND_OF_STREAM, OLD, Entry, Fate, Inventory, Kind
from colordaemon.media.originals import Original
from colordaemon.media.pixels import layout_of
from colordaemon.media.probe import FilmInfo, open_film
from colordaemon.media.tags import is_stale
from colordaemon.media.userdata import unread_parts

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
_TRANSPORT_TAGS = frozenset(("service_name", "service_provider"))
_MOST_PRIMING_SECONDS = 0.25  # what decoders of sound and pictures need to begin
_SAMPLES, _FRAMES_EACH = 6, 3


def take_stock(
    source: InputContainer,
    info: FilmInfo,
    format_name: str,
    ways: Mapping[int, Way | None],
    described: Descriptions,
    original: Original,
) -> Inventory:
    """What becomes of all that stands in a source's headers, in a container that takes its streams
    in these ways."""
    streams = [_stream(s, info, ways.get(s.index), described) for s in source.streams]
    tags = [_tag(key, format_name) for key in source.metadata]
    return (*streams, *tags, *_chapters(source, format_name, original),
            *_beside(format_name, original))  # fmt: skip


def _tag(key: str, format_name: str) -> Entry:
    if is_stale(key):
        return Entry("tags", f"tag {key}", "left out", OLD)
    if format_name == "mpegts" and key not in _TRANSPORT_TAGS:
        return Entry("tags", f"tag {key}", "left out", "a transport stream has no place for it")
    return Entry("tags", f"tag {key}")


def _chapters(source: InputContainer, format_name: str, original: Original) -> Iterator[Entry]:
    count = len(source.chapters())
    if original.has_deep_chapters():
        what = "chapters that are nested, ordered or in several editions"
        fits = format_name == "matroska"
        reason = "" if fits else f"{format_name} holds one plain list of them"
        yield Entry("chapters", what, "kept" if fits else "left out", reason)
    elif count and format_name in ("mpegts", "mxf"):
        reason = f"{format_name} has no place for them"
        yield Entry("chapters", f"{count} chapters", "left out", reason)
    elif count:
        yield Entry("chapters", f"{count} chapters")


def _beside(format_name: str, original: Original) -> Iterator[Entry]:
    """What FFmpeg does not read, and what is said of the colors."""
    is_mp4 = format_name in ("mov", "mp4")
    reason = "" if is_mp4 else f"{format_name} has no place for it"
    fate: Fate = "kept" if is_mp4 else "left out"
    if original.xmp:
        yield Entry("tags", "XMP", fate, reason)
    if (hidden := original.hidden_seconds()) > _MOST_PRIMING_SECONDS:
        what = f"{hidden:.1f} s that an edit list cuts away"
        yield Entry("time", what, "left out", "they are neither shown nor heard")
    for name in unread_parts(original.moov) if original.moov else []:
        yield Entry("tags", f"user data {name}", fate, reason)
    for language in original.languages().values():
        fits = is_mp4 or format_name in ("matroska", "webm")
        yield Entry("tags", f"language {language}", "kept" if fits else "left out", reason)
    if format_name == "mpegts":
        yield Entry("tags", "what the result says of its colors", "left out", reason)


def is_timecode(stream: Stream) -> bool:
    return stream.type == "data" and "timecode" in stream.metadata


def side_data(info: FilmInfo, codec: str, covered: Collection[str]) -> Inventory:
    """What becomes of what comes with the film's packets and frames, found in samples all over it.

    codec: that the film is going to be in. covered: names of what is accounted for elsewhere.
    """
    with open_film(info.path) as source:
        stream = source.streams[info.stream_index]
        assert isinstance(stream, VideoStream)
        names = sorted(_side_data_of(source, stream) - {*covered})
    if not info.start_timecode:  # it counts from zero, as where there is none
        names = [name for name in names if name != "GOP_TIMECODE"]
    return tuple(_side_entry(name, codec) for name in names)


def transparency(info: FilmInfo, pix_fmt: str, codec: str) -> Inventory:
    """What becomes of it in pictures of a codec that are encoded from this format."""
    with open_film(info.path) as source:
        stream = source.streams[info.stream_index]
        beside = stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"
    what = "transparency"
    if beside and not info.layout.has_alpha:  # a second picture in the packets, as of VP9
        return (Entry("video", what, "left out", f"FFmpeg does not read that of {info.codec}"),)
    if not info.layout.has_alpha:
        return ()
    if layout_of(pix_fmt).has_alpha:
        return (Entry("video", what),)
    reason = f"{codec} holds none; ffv1 does, and prores in limited range"
    return (Entry("video", what, "left out", reason),)


def _side_entry(name: str, codec: str) -> Entry:
    kind, what = _SIDE_DATA.get(name, ("side data", name.lower().replace("_", " ")))
    if name == "GOP_TIMECODE":
        return Entry(kind, what, "converted", "the first one is the container's")
    if name in CARRIED and codec in CARRYING_CODECS:
        return Entry(kind, what)
    return Entry(kind, what, "left out", f"it cannot be put into {codec}")


def _side_data_of(source: InputContainer, stream: VideoStream) -> set[str]:
    """Names of the side data of a film's packets and frames, from samples all over it."""
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


def _sampled(source: InputContainer, stream: VideoStream) -> Iterator[set[str]]:
    frames = 0
    for packet in source.demux(stream):
        yield {
            _NAMES.get(data.data_type, data.data_type) for data in packet.iter_sidedata()
        } - _TECHNICAL
        for frame in packet.decode():
            assert isinstance(frame, VideoFrame)
            frames += 1
            names = (side.type.name for side in all_side_data(frame) if not is_void(side))
            yield {*names} - _TECHNICAL_OF_FRAMES
        if frames >= _FRAMES_EACH:
            return


def _stream(stream: Stream, info: FilmInfo, way: Way | None, described: Descriptions) -> Entry:
    name = stream_name(stream, described.names)
    kind: Kind = KIND_OF_STREAM.get(stream.type, "data")
    if stream.index == info.stream_index:
        return Entry("film", name, "converted", "colored")
    if is_timecode(stream):
        return Entry("timecode", name, "converted", "made anew")
    if way is None:
        return Entry(kind, name, "left out", "no container holds it")
    if way in CONVERTING:
        return Entry(kind, name, "converted", str(way))
    return Entry(kind, name)
