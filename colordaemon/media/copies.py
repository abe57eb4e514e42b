"""How all streams but the film itself get into the finished file.

PyAV declares a copy only where FFmpeg has a decoder for it and a strict look at the container
allows it. Much more can be copied: Matroska holds any sound that a WAV file holds, a transport
stream holds teletext, and mp4, mov and Matroska hold what nobody knows, if the source's own
description of it is put in once FFmpeg is done. What no container holds is converted, if nothing is
lost by that: sound of discs to plain PCM, text to text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from colordaemon.errors import MediaError
from colordaemon.media import boxes, ebml
from colordaemon.media.originals import TELETEXT, Original, transport_names

MATROSKA = "matroska"
# A subtitle codec that each container takes; its stream is then told what it really is.
_TAKEN = {MATROSKA: "subrip", "mov": "mov_text", "mp4": "bin_data", "mpegts": TELETEXT}
_TEXT = frozenset(("mov_text", "text", "subrip", "webvtt"))
# What decoded samples are written as; nothing is rounded.
_PCM = {"s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
# Packets that a decoder needs before its sound is right (RFC 7845, 4.6); others need one.
_LEADING_PACKETS = {"opus": 4}
_AT_MOST_24_BITS = frozenset(("pcm_dvd", "pcm_bluray", "s302m"))


class Way(StrEnum):
    """How a stream gets into the file."""

    TEMPLATE = "copied"
    BARE = "copied, though the codec is old"
    DESCRIBED = "copied with the source's description"
    PCM = "to PCM"
    SRT = "to SRT"


CONVERTING = frozenset((Way.PCM, Way.SRT))


@dataclass(frozen=True)
class Descriptions:
    """What the source itself says of its streams, by FFmpeg's index.

    names: of codecs that FFmpeg does not know. tracks: the part of the file that describes a
    stream, where it may stand in the finished file as it is.
    """

    names: dict[int, str]
    tracks: Mapping[int, boxes.Box | ebml.Element]


def descriptions_of(source: InputContainer, path: Path, original: Original) -> Descriptions:
    """The descriptions of streams that have no decoder, or that FFmpeg reads but does not write."""
    foreign = {s.index for s in source.streams if not s.codec_context and s.type != "attachment"}
    tracks = {index: track for index, track in original.tracks.items() if index in foreign}
    names = {index: name for index, track in tracks.items() if (name := _codec_in(track))}
    if foreign and source.format.name == "mpegts":
        known = transport_names(path)
        names = {s.index: known[s.id] for s in source.streams if s.id in known}
    return Descriptions(names, tracks)


def _codec_in(track: boxes.Box | ebml.Element) -> str:
    if isinstance(track, ebml.Element):
        return track.child(ebml.CODEC_ID).rstrip(b"\0").decode("latin-1")
    try:
        entries = boxes.sample_entries(track)
    except MediaError:  # it is damaged, and FFmpeg could read nothing there either
        return ""
    return entries[0][0].decode("latin-1") if entries else ""


def codec_name(stream: Stream, names: dict[int, str]) -> str:
    """What a stream is in; the container's own name where FFmpeg has no decoder."""
    if stream.index in names:
        return names[stream.index]
    if stream.codec_context:
        return stream.codec_context.codec.canonical_name  # the decoder of mp3 is mp3float
    return getattr(stream, "name", None) or "unknown codec"


def stream_name(stream: Stream, names: dict[int, str]) -> str:
    """A stream's description for messages."""
    codec = "" if stream.type == "attachment" else f" ({codec_name(stream, names)})"
    language = f" {stream.language}" if stream.language not in (None, "und") else ""
    return f"{stream.type} stream {stream.index}{codec}{language}"


def ways_of(stream: Stream, format_name: str, source: Descriptions) -> Iterator[Way]:
    """The ways that a stream may take into a container, the best one first."""
    in_mp4 = format_name in ("mov", "mp4")
    is_plain = stream.type == "attachment" or (stream.type == "data" and not in_mp4)
    if stream.codec_context or is_plain:  # FFmpeg writes no description of data into mp4
        yield Way.TEMPLATE
    if stream.type == "audio" and stream.codec_context and format_name == MATROSKA:
        yield Way.BARE
    if format_name == "mpegts" and source.names.get(stream.index) == TELETEXT:
        yield Way.BARE
    description = source.tracks.get(stream.index)
    if isinstance(description, boxes.Box) and in_mp4:
        yield Way.DESCRIBED
    if isinstance(description, ebml.Element) and format_name == MATROSKA:
        yield Way.DESCRIBED
    if stream.type == "audio" and stream.codec_context and format_name in (MATROSKA, "mov"):
        yield Way.PCM
    is_text = stream.codec_context is not None and stream.codec_context.name in _TEXT
    if stream.type == "subtitle" and is_text and format_name == MATROSKA:
        yield Way.SRT


def declare(container: OutputContainer, stream: Stream, way: Way) -> Stream:
    """Declare a copy. Raises ValueError or FFmpegError where the container does not take it."""
    match way:
        case Way.TEMPLATE:
            return container.add_stream_from_template(stream)
        case Way.PCM:
            return _declare_pcm(container, stream)
        case Way.SRT:
            copy = container.add_mux_stream("subrip")
            copy.time_base = Fraction(1, 1000)
            return copy
        case Way.BARE:
            copy = container.add_mux_stream(_TAKEN[container.format.name])
            BitStreamFilterContext("null", in_stream=stream, out_stream=copy)
        case Way.DESCRIBED:
            copy = container.add_mux_stream(_TAKEN[container.format.name])
            if container.format.name == "mov":
                _become_data(copy)
    assert stream.time_base is not None
    copy.time_base = stream.time_base
    return copy


class Converter:
    """Fed packets of a stream, gives those of its copy."""

    def __init__(self, copy: Stream, way: Way) -> None:
        self._copy, self._way = copy, way
        self._resampler: AudioResampler | None = None
        self._ahead: list[Packet[Stream]] = []
        self._begun = False

    def feed(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """packet: with its final times. Raises FFmpegError for one that does not decode."""
        if self._way is Way.PCM:
            return self._as_pcm(packet)  # the decoder itself leaves out what is cut away
        if packet.is_discard:
            self._hold(packet)
            return []
        if self._way is Way.SRT:
            return self._as_text(packet)
        if _is_pause(packet):
            return []
        packets, self._ahead, self._begun = [*self._ahead, packet], [], True
        for each in packets:
            each.stream = self._copy
        return packets

    def _hold(self, packet: Packet[Stream]) -> None:
        """Keep, of what an edit list cuts away, what the decoder needs for what follows: pictures
        from a key frame on, and before the first sound the packet that leads into it."""
        codec = packet.stream.codec_context
        if packet.stream.type == "video":
            self._ahead = [packet] if packet.is_keyframe else [*self._ahead, packet]
        elif packet.stream.type == "audio" and not self._begun:
            name = codec.name if codec else ""
            lead = 0 if name.startswith("pcm_") else _LEADING_PACKETS.get(name, 1)
            self._ahead = [*self._ahead, packet][-lead:] if lead else []

    def _as_pcm(self, packet: Packet[Any]) -> list[Packet[Stream]]:
        assert isinstance(self._copy, AudioStream)
        made: list[Packet[Stream]] = []
        context = self._copy.codec_context
        start = packet.pts * packet.time_base if packet.pts is not None else None
        for frame in packet.decode():
            assert isinstance(frame, AudioFrame)
            if self._resampler is None:
                self._resampler = AudioResampler(context.format.name, frame.layout, context.rate)
            if frame.pts is not None and frame.time_base:  # an edit may begin within a packet
                start = frame.pts * frame.time_base
            for part in self._resampler.resample(frame):
                part.pts, part.time_base = None, Fraction(1, context.rate)
                for coded in context.encode(part):
                    if start is not None:
                        coded.time_base = Fraction(1, context.rate)
                        coded.pts = coded.dts = round(start * context.rate)
                        start += Fraction(part.samples, context.rate)
                    coded.stream = self._copy
                    made.append(coded)
        return made

    def _as_text(self, packet: Packet[Any]) -> list[Packet[Stream]]:
        text = plain_text(packet)
        if not text:
            return []  # mov_text says so that nothing is shown
        made = Packet(text)
        made.pts, made.dts, made.duration = packet.pts, packet.pts, packet.duration
        made.time_base, made.stream = packet.time_base, self._copy
        return [made]


def _is_pause(packet: Packet[Stream]) -> bool:
    """Whether a packet only ends the text before it, which FFmpeg does by itself."""
    context = packet.stream.codec_context
    return context is not None and context.name == "mov_text" and bytes(packet) == b"\0\0"


def plain_text(packet: Packet[Any]) -> bytes:
    """A packet of text as SRT has it: italics and the like as tags, lines by line feeds."""
    lines = []
    for subtitle in packet.decode():
        ass = getattr(subtitle, "ass", b"")
        lines.append(_srt(ass.decode("utf-8", "replace") if isinstance(ass, bytes) else ass))
    return "\n".join(line for line in lines if line).encode()


def _srt(ass: str) -> str:
    text = ass.split(",", 8)[-1] if ass.count(",") >= 8 else ass
    text = re.sub(r"\{\\([biu])1\}", r"<\1>", text)
    text = re.sub(r"\{\\([biu])0\}", r"</\1>", text)
    text = re.sub(r"\{\\[^}]*\}", "", text)
    return text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", "\u00a0").strip("\r\n")


def _declare_pcm(container: OutputContainer, stream: Stream) -> Stream:
    assert isinstance(stream, AudioStream)
    context = stream.codec_context
    if context.format is None:
        raise ValueError(f"{stream}: sound of no known format, expected one to make PCM of")
    codec = _PCM.get(context.format.name.rstrip("p"), "pcm_s16le")
    if codec == "pcm_s32le" and context.name in _AT_MOST_24_BITS:
        codec = "pcm_s24le"
    copy = container.add_stream(codec, rate=context.sample_rate)
    assert isinstance(copy, AudioStream)
    copy.codec_context.layout = context.layout
    return copy


def _become_data(copy: Stream) -> None:
    """Make a stream one of the only kind of data whose packets FFmpeg writes into mov as they are;
    what it really is comes from the source's description."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as other:
        data = other.add_mux_stream("bin_data")
        data.time_base = Fraction(1, 1000)
        packet = Packet(b"\0")
        packet.pts = packet.dts = 0
        packet.time_base, packet.stream = Fraction(1, 1000), data
        other.mux(packet)
    buffer.seek(0)
    with av.open(buffer) as other:
        BitStreamFilterContext("null", in_stream=other.streams[0], out_stream=copy)
