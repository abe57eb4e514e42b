"""The inventory of a film: everything that it holds, and what happens to each part.

Streams, tags and chapters are in its headers; side data come with its packets and frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.media.boxes import unknown_boxes
from colordaemon.media.captions import CARRIED_IN
from colordaemon.media.copies import CONVERTING, Descriptions, Way, stream_name
from colordaemon.media.demux import open_film
from colordaemon.media.inventory import GRAVE, KIND_OF_STREAM, Entry, Fate, Inventory, Kind
from colordaemon.media.originals import Original
from colordaemon.media.pixels import has_second_picture, layout_of
from colordaemon.media.probe import FilmInfo
from colordaemon.media.shape import KNOWN
from colordaemon.media.side_data import LEVEL, LIGHT_CODECS, MASTERING, light_of
from colordaemon.media.stretch import chapters_in
from colordaemon.media.tags import is_stale, timecode_of_film
from colordaemon.media.userdata import unread_parts

_TRANSPORT_TAGS = frozenset(("service_name", "service_provider"))
_MADE_ANEW = frozenset(("vendor_id", "encoder"))  # of what wrote the old file
_ELSEWHERE = frozenset(("language", "timecode"))  # in the list
_TAGS_OF_MP4_STREAMS = frozenset(("title", "creation_time", "reel_name", "handler_name"))
_MOST_PRIMING_SECONDS = 0.25  # what decoders of sound and pictures need to begin
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


def take_stock(
    source: InputContainer,
    info: FilmInfo,
    format_name: str,
    ways: Mapping[int, Way | None],
    described: Descriptions,
    original: Original,
) -> Inventory:
    """What happens to all that stands in a source's headers, in a container that takes its streams
    in these ways."""
    timecodes = _timecodes(source, info, format_name, ways)
    streams = [
        _stream(s, info, format_name, ways.get(s.index), described, timecodes)
        for s in source.streams
    ]
    tags = (entry for entry, _ in _tags(source, format_name, [*ways, info.stream_index]))
    return (*streams, *tags, *_chapters(source, info, format_name, original),
            *_beside(info, format_name, original))  # fmt: skip


def as_found(
    inventory: Inventory, source: InputContainer, result: InputContainer, target: str,
    streams: Collection[int], info: FilmInfo,
) -> Inventory:  # fmt: skip
    """The inventory, corrected by the finished film: what is not found there was left out.

    target: the result's format. info: of the source. streams: indexes of the source's streams that
    are in it.
    """
    said = [*result.metadata.values(), *(v for s in result.streams for v in s.metadata.values())]
    lost = {
        entry
        for entry, words in _tags(source, target, streams)
        if not any(words in each for each in said)
        and not (info.stretch and entry.kind == "timecode")  # which begins later there
    }
    if len(result.chapters()) < len(_chapters_in(source, info)):
        lost |= {entry for entry in inventory if entry.kind == "chapters"}
    return tuple(
        replace(entry, fate="left out", how="it is not found in the finished film")
        if entry.fate == "kept" and entry in lost
        else entry
        for entry in inventory
    )


def _tags(
    source: InputContainer, target: str, streams: Collection[int]
) -> Iterator[tuple[Entry, str]]:
    """What happens to the tags of a film, and to those of its streams that are taken; with their
    words. Those that describe the old file are one entry."""
    old = [key for key in source.metadata if is_stale(key) and key.lower() not in _ELSEWHERE]
    for key, words in source.metadata.items():
        if key.lower() == "timecode":
            yield from ((entry, words) for entry in _timecode(source, words, target))
        elif key not in old:
            yield _tag(key, target), words
    for stream in source.streams:
        for key, words in stream.metadata.items() if stream.index in streams else ():
            what = f"tag {key} of stream {stream.index}"
            if key.lower() in _ELSEWHERE:
                continue
            if is_stale(key) or key.lower() in _MADE_ANEW:
                old.append(key)
            elif _fits(key.lower(), target, source.format.name):
                yield Entry("tags", what), words
            else:
                yield Entry("tags", what, "left out", f"{target} has no place for it"), words
    if old:
        what = f"tags that describe the old file ({', '.join(dict.fromkeys(old))})"
        yield Entry("tags", what, "converted", "those of the new one are written"), ""


def _timecode(source: InputContainer, words: str, target: str) -> Iterator[Entry]:
    """What happens to the tag with a film's timecode, unless a track of it is in the list."""
    if any(map(is_timecode, source.streams)):
        return
    what = f"timecode {words}"
    if target == "mpegts":
        yield Entry("timecode", what, "left out", "a transport stream has no place for it")
    else:
        yield Entry("timecode", what)


def _fits(key: str, target: str, source: str) -> bool:
    """Whether a container has a place for a tag of a stream. source: the one it comes from."""
    if target in ("mov", "mp4"):  # whose user data stay as they are, as names of tracks
        return key in _TAGS_OF_MP4_STREAMS or "mp4" in source
    return target not in ("mpegts", "mxf")


def _tag(key: str, format_name: str) -> Entry:
    if format_name == "mpegts" and key not in _TRANSPORT_TAGS:
        return Entry("tags", f"tag {key}", "left out", "a transport stream has no place for it")
    return Entry("tags", f"tag {key}")


def _chapters(
    source: InputContainer, info: FilmInfo, format_name: str, original: Original
) -> Iterator[Entry]:
    count = len(_chapters_in(source, info))
    if original.has_deep_chapters():
        what = "chapters that are nested, ordered or in several editions"
        fits = format_name == "matroska" and info.stretch is None
        holder = "a stretch of a film" if info.stretch else format_name
        reason = "" if fits else f"{holder} holds one plain list of them"
        yield Entry("chapters", what, "kept" if fits else "left out", reason)
    elif count and format_name in ("mpegts", "mxf"):
        reason = f"{format_name} has no place for them"
        yield Entry("chapters", f"{count} chapters", "left out", reason)
    elif count:
        yield Entry("chapters", f"{count} chapters")


def _chapters_in(source: InputContainer, info: FilmInfo) -> list[Any]:
    """Those that are wanted."""
    if info.stretch is None:
        return source.chapters()
    start, end = (Fraction(str(min(t, 1e12))) for t in (info.stretch.start, info.stretch.end))
    return chapters_in(source.chapters(), start + info.origin_seconds, end + info.origin_seconds)


def _beside(info: FilmInfo, format_name: str, original: Original) -> Iterator[Entry]:
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
    for name in unknown_boxes(info.path, original.moov) if original.moov else []:
        yield Entry("data", f"box {name}", "left out", "what it holds is not known")
    for language in original.languages().values():
        fits = is_mp4 or format_name in ("matroska", "webm")
        yield Entry("tags", f"language {language}", "kept" if fits else "left out", reason)
    if format_name == "mpegts":
        yield Entry("tags", "what the result says of its colors", "left out", reason)


def _timecodes(
    source: InputContainer, info: FilmInfo, format_name: str, streams: Collection[int]
) -> set[str]:
    """The timecodes that the result has: of the film, and of other videos that are taken."""
    if format_name == "mpegts":
        return set()
    others = (source.streams[index] for index in streams)
    found = {
        s.metadata["timecode"] for s in others if s.type == "video" and "timecode" in s.metadata
    }
    return found | {timecode_of_film(source, source.streams[info.stream_index])}


def is_timecode(stream: Stream) -> bool:
    return stream.type == "data" and "timecode" in stream.metadata


def transparency(info: FilmInfo, pix_fmt: str, codec: str) -> Inventory:
    """What happens to transparency in pictures of a codec that are encoded from this format."""
    with open_film(info.path) as source:
        stream = source.streams[info.stream_index]
        assert isinstance(stream, VideoStream)
        beside = has_second_picture(stream)
    what = "transparency"
    if beside and not info.layout.has_alpha:
        return (Entry("video", what, "left out", f"no decoder here reads that of {info.codec}"),)
    if not info.layout.has_alpha:
        return ()
    if layout_of(pix_fmt).has_alpha:
        return (Entry("video", what),)
    reason = f"{codec} holds none; ffv1 does, and prores in limited range"
    return (Entry("video", what, "left out", reason),)


def _stream(
    stream: Stream, info: FilmInfo, format_name: str, way: Way | None, described: Descriptions,
    timecodes: Collection[str],
) -> Entry:  # fmt: skip
    name = stream_name(stream, described.names)
    kind: Kind = KIND_OF_STREAM.get(stream.type, "data")
    if stream.index == info.stream_index:
        return Entry("film", name, "converted", "colored")
    if is_timecode(stream):
        if stream.metadata["timecode"] in timecodes:
            return Entry("timecode", name, "converted", "made anew")
        is_transport = format_name == "mpegts"
        reason = (
            "a transport stream has no place for it" if is_transport else "a video has only one"
        )
        what = f"{name} {stream.metadata['timecode']}"
        return Entry("timecode", what, "left out", reason)
    if way is None:
        # Where sound would be lost, another container is chosen.
        reason = "no container holds it" if kind in GRAVE else f"{format_name} cannot hold it"
        return Entry(kind, name, "left out", reason)
    if way in CONVERTING:
        return Entry(kind, name, "converted", str(way))
    return Entry(kind, name)


def side_data(info: FilmInfo, codec: str, container: str, covered: Collection[str]) -> Inventory:
    """What happens to the side data of packets and pictures, as far as the sampled frames tell.

    codec, container: those that the film is going to be in. covered: names of what is accounted for
    elsewhere.
    """
    entries = side_entries({*info.beside} - {*covered}, info, codec, container)
    if info.needs_dolby:
        reason = "without its metadata grays and colors are not those that were meant"
        return (*entries, Entry("color", "color space of Dolby Vision's own", "left out", reason))
    return entries


def side_entries(names: Collection[str], info: FilmInfo, codec: str, container: str) -> Inventory:
    """What happens to side data, by FFmpeg's names of them."""
    if not info.start_timecode:  # a count from zero, as of encoders that know no timecode
        names = {*names} - _TIMECODES
    return tuple(_entry(name, info, codec, container) for name in sorted(names))


def name_of(name: str) -> str:
    """A description of side data, for messages."""
    return _SIDE_DATA[name][1] if name in _SIDE_DATA else name.lower().replace("_", " ")


def light_found(inventory: Inventory, result: VideoFrame) -> Inventory:
    """The inventory, corrected by a picture of the result: HDR10 that it lacks is left out."""
    found = {name_of(name) for name in light_of(result).names}
    expected = {name_of(name) for name in (MASTERING, LEVEL)}
    reason = "it is not found in the finished film"
    return tuple(
        replace(entry, fate="left out", how=reason)
        if entry.fate == "kept" and entry.what in expected - found
        else entry
        for entry in inventory
    )


def _entry(name: str, info: FilmInfo, codec: str, container: str) -> Entry:
    kind, what = _SIDE_DATA.get(name, ("side data", name_of(name)))
    says_light = codec in LIGHT_CODECS or container in KNOWN
    if name in CARRIED_IN.get(codec, ()) or (says_light and name in info.light.names):
        return Entry(kind, what)
    if name in _TIMECODES:
        return Entry(kind, what, "converted", "the first one is the container's")
    return Entry(kind, what, "left out", _REASONS.get(name, f"it cannot be put into {codec}"))
