"""The finished file: which container holds it, and everything beside the colored film stream.

Sound, subtitles, attachments, chapters, cover art and further video streams are copied packet by
packet with their metadata and dispositions. A tmcd timecode track cannot be copied; the container
makes a new one from the `timecode` metadata.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from colordaemon import __version__
from colordaemon.errors import MediaError
from colordaemon.media.codec import EncoderSettings
from colordaemon.media.probe import FilmInfo, all_packets, open_film

MATROSKA = "matroska"
_SUFFIXES = {MATROSKA: ".mkv", "webm": ".webm", "mov": ".mov", "mp4": ".mp4"}
_TITLES = {MATROSKA: "Matroska", "webm": "WebM", "mov": "QuickTime", "mp4": "MP4"}
# Tags that describe the old file or the old encoding.
_STALE_TAGS = frozenset(
    ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "bps",
     "number_of_frames", "number_of_bytes", "_statistics_tags", "_statistics_writing_app",
     "_statistics_writing_date_utc")
)  # fmt: skip
SYNTHETIC_NOTE = f"Colors are synthetic, made by colordaemon {__version__}"


@dataclass(frozen=True)
class Target:
    """The container to write. kept: indexes of the source streams in it, in order."""

    format: str
    suffix: str
    kept: tuple[int, ...]
    remarks: tuple[str, ...]


def choose_target(info: FilmInfo, encoder: EncoderSettings) -> Target:
    """The source's own container if it can hold everything, else the one that holds the most.

    Found out by writing headers to memory, before any work is spent. Raises MediaError when
    none can hold the film stream itself.
    """
    # RFC 9043 lets FFV1 into MP4 too, but archives and their tools expect it in Matroska.
    native = MATROSKA if encoder.codec == "ffv1" else _native_format(info)
    candidates = dict.fromkeys((native, MATROSKA, "mov"))  # DNxHR fits only into the last
    with open_film(info.path) as source:
        lost = {name: _cannot_hold(name, source, info, encoder) for name in candidates}
        names = {s.index: _stream_name(s) for s in source.streams if not _is_timecode(s)}
    names[info.stream_index] = encoder.codec
    choice = min(candidates, key=lambda name: len(lost[name]))
    if info.stream_index in lost[choice]:
        raise MediaError(f"{info.path}: none of {', '.join(candidates)} can hold {encoder.codec}")
    kept = tuple(index for index in names if index not in lost[choice])
    suffix = info.path.suffix.lower()
    keeps_suffix = choice == "mp4" and suffix == ".m4v"
    remarks = []
    if choice != native:
        film_lost = info.stream_index in lost[native]
        blamed = [info.stream_index] if film_lost else lost[native]
        reason = ", ".join(names[index] for index in blamed)
        remarks.append(f"writing {_TITLES[choice]}, because {native} cannot hold {reason}")
    elif not keeps_suffix and suffix != _SUFFIXES[choice]:
        remarks.append(f"writing {_TITLES[choice]} instead of {suffix or info.container}")
    remarks += [f"left out, no container holds it: {names[index]}" for index in lost[choice]]
    if choice == MATROSKA and encoder.codec == "ffv1" and info.sample_aspect != 1:
        # FFmpeg takes Matroska's own from a field of the stream that PyAV does not set.
        aspect = f"{info.sample_aspect.numerator}:{info.sample_aspect.denominator}"
        remarks.append(f"only the frames, not the container, say that pixels are {aspect}")
    return Target(choice, suffix if keeps_suffix else _SUFFIXES[choice], kept, tuple(remarks))


class FilmMuxer:
    """Writes a finished film: the film stream's packets come from outside, all others from the
    source, interleaved by time.

    left_out: packets of the others that are too damaged to be read or copied.
    """

    def __init__(
        self, path: Path, source: InputContainer, info: FilmInfo, target: Target,
        encoder: EncoderSettings,
    ) -> None:  # fmt: skip
        self._source, self._info = source, info
        self.left_out = 0
        self._next_dts: dict[int, int] = {}
        self._least_step = 0 if target.format in (MATROSKA, "webm") else 1
        # Negative dts are left alone: moving them would move every stream against the clock.
        options = {"avoid_negative_ts": "disabled"} if target.format in (MATROSKA, "webm") else {}
        self._container = av.open(str(path), "w", format=target.format, options=options)
        self.streams = _declare_streams(self._container, source, info, encoder, target.kept)
        _describe(self._container, source, info)
        self.film = self.streams[info.stream_index]
        self._container.start_encoding()

    def close(self) -> None:
        self._container.close()

    def write(self, film_packets: Iterator[Packet[Stream]]) -> None:
        """Write everything. film_packets: in decoding order, time base and pts of the source."""
        others = self._copied_packets()
        other = next(others, None)
        for packet in film_packets:
            while other is not None and _seconds(other) <= _seconds(packet):
                self._copy(other)
                other = next(others, None)
            self._shift(packet)
            packet.stream = self.film
            self._container.mux(packet)
        while other is not None:
            self._copy(other)
            other = next(others, None)

    def _copied_packets(self) -> Iterator[Packet[Stream]]:
        for packet in all_packets(self._source, self._count_left_out):
            index = packet.stream.index
            if packet.size and index in self.streams and index != self._info.stream_index:
                if packet.dts is None:
                    packet.dts = packet.pts
                self._shift(packet)
                self._let_dts_rise(packet)
                packet.stream = self.streams[index]
                yield packet

    def _copy(self, packet: Packet[Stream]) -> None:
        try:
            self._container.mux(packet)
        except av.error.InvalidDataError as error:  # a filter that repacks AAC cannot read it
            self._count_left_out(error)

    def _count_left_out(self, error: av.error.FFmpegError) -> None:
        self.left_out += 1

    def _let_dts_rise(self, packet: Packet[Stream]) -> None:
        """Damaged files have dts that fall, which muxers refuse; these wait for the last one."""
        if packet.dts is None:
            return
        index = packet.stream.index
        packet.dts = max(packet.dts, self._next_dts.get(index, packet.dts))
        if packet.pts is not None:
            packet.pts = max(packet.pts, packet.dts)
        self._next_dts[index] = packet.dts + self._least_step

    def _shift(self, packet: Packet[Stream]) -> None:
        """Start a floating clock at zero; every stream moves by the same time."""
        if self._info.origin_seconds and packet.time_base:
            ticks = round(self._info.origin_seconds / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - ticks
            packet.dts = None if packet.dts is None else packet.dts - ticks


def _native_format(info: FilmInfo) -> str:
    if info.container == MATROSKA:
        return "webm" if info.path.suffix.lower() == ".webm" else MATROSKA
    if info.container == "mov":
        return "mov" if info.path.suffix.lower() in (".mov", ".qt") else "mp4"
    return MATROSKA


def _cannot_hold(
    name: str, source: InputContainer, info: FilmInfo, encoder: EncoderSettings
) -> list[int]:
    """Indexes of the streams that a container refuses in its header."""

    def refused(kept: list[int]) -> bool:
        try:
            with av.open(io.BytesIO(), "w", format=name) as trial:
                _declare_streams(trial, source, info, encoder, kept)
                trial.start_encoding()
        except (av.error.FFmpegError, ValueError):
            return True
        return False

    indexes = [stream.index for stream in source.streams if not _is_timecode(stream)]
    if not refused(indexes):
        return []
    film = info.stream_index
    if refused([film]):
        return indexes
    return [index for index in indexes if index != film and refused([film, index])]


def _declare_streams(
    container: OutputContainer,
    source: InputContainer,
    info: FilmInfo,
    encoder: EncoderSettings,
    kept: Sequence[int],
) -> dict[int, Stream]:
    """Declare the kept streams in their order; returns them by the source's index."""
    declared: dict[int, Stream] = {}
    for index in kept:
        stream = source.streams[index]
        copy: Stream
        if stream.index == info.stream_index:
            film = encoder.add_to(container)
            if info.rotation:
                film.set_display_rotation(info.rotation)  # lost in silence after the header
            copy = film
        else:
            copy = container.add_stream_from_template(stream)
        own = stream.index == info.stream_index
        copy.metadata.update(
            {k: v for k, v in stream.metadata.items() if not (own and _is_stale(k))}
        )
        copy.disposition = stream.disposition
        declared[stream.index] = copy
    return declared


def _describe(container: OutputContainer, source: InputContainer, info: FilmInfo) -> None:
    metadata = {k: v for k, v in source.metadata.items() if not _is_stale(k)}
    timecode = find_timecode(source)
    if timecode:
        metadata["timecode"] = timecode
    comment = metadata.get("comment", metadata.get("COMMENT"))
    metadata["comment"] = f"{comment}; {SYNTHETIC_NOTE}" if comment else SYNTHETIC_NOTE
    container.metadata.update(metadata)
    container.set_chapters(source.chapters())


def find_timecode(source: InputContainer) -> str | None:
    """The film's start timecode (HH:MM:SS:FF), wherever its container keeps it."""
    for metadata in (source.metadata, *(stream.metadata for stream in source.streams)):
        for key in ("timecode", "TIMECODE"):
            if key in metadata:
                return metadata[key]
    return None


def _is_timecode(stream: Stream) -> bool:
    return stream.type == "data" and "timecode" in stream.metadata


def _is_stale(key: str) -> bool:
    return key.lower().removesuffix("-eng") in _STALE_TAGS or key.lower() == "timecode"


def _stream_name(stream: Stream) -> str:
    codec = "" if stream.type in ("data", "attachment") else f" ({stream.codec_context.name})"
    language = f" {stream.language}" if stream.language not in (None, "und") else ""
    return f"{stream.type} stream {stream.index}{codec}{language}"


def _seconds(packet: Packet[Stream]) -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if time is None or not packet.time_base else time * packet.time_base


def film_of(container: InputContainer, number: int) -> VideoStream:
    """The stream at a position of a finished file, which has to be video."""
    stream = container.streams[number]
    if not isinstance(stream, VideoStream):
        raise MediaError(f"{container.name}: stream {number} is {stream.type}, expected video")
    return stream
