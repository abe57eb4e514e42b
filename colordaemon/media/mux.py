"""The finished file: which container holds it, and everything beside the colored film stream.

Sound, subtitles, attachments, chapters, cover art and further video streams are copied packet by
packet with their metadata and dispositions, or converted where no container holds them; see
`copies`. A tmcd timecode track cannot be copied; the container makes a new one from the `timecode`
metadata.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from colordaemon import __version__
from colordaemon.errors import MediaError
from colordaemon.media import boxes, ebml
from colordaemon.media.clock import Clock
from colordaemon.media.codec import EncoderSettings
from colordaemon.media.copies import (
    Converter,
    Descriptions,
    Way,
    declare,
    descriptions_of,
    stream_name,
    ways_of,
)
from colordaemon.media.holdings import is_stale, is_timecode, take_stock
from colordaemon.media.inventory import Inventory, grave_losses
from colordaemon.media.probe import JUMPING_CLOCKS, FilmInfo, all_packets, open_film, tick

MATROSKA, TRANSPORT = "matroska", "mpegts"
_SUFFIXES = {MATROSKA: ".mkv", "webm": ".webm", "mov": ".mov", "mp4": ".mp4", TRANSPORT: ".ts"}
_OTHER_SUFFIXES = {"mp4": (".m4v",), TRANSPORT: (".m2ts", ".mts", ".m2t", ".trp")}
_TITLES = {
    MATROSKA: "Matroska",
    "webm": "WebM",
    "mov": "QuickTime",
    "mp4": "MP4",
    TRANSPORT: "an MPEG transport stream",
}
# Negative dts are left alone: moving them would move every stream against the clock.
_OPTIONS = {
    MATROSKA: {"avoid_negative_ts": "disabled"},
    "webm": {"avoid_negative_ts": "disabled"},
    TRANSPORT: {"mpegts_copyts": "1"},
}
_FINEST_TIMESCALE = (1 << 31) - 1  # players count long films in 64 bits
_HEADER_ROOM = 4096  # bytes, for lengths that are written longer than FFmpeg does
SYNTHETIC_NOTE = f"Colors are synthetic, made by colordaemon {__version__}"


@dataclass(frozen=True)
class Target:
    """The container to write.

    ways: of the source's streams in it, by index and in order; None for the film itself.
    inventory: what becomes of all that stands in the source's headers. remarks: what else is to be
    said.
    """

    format: str
    suffix: str
    ways: tuple[tuple[int, Way | None], ...]
    inventory: Inventory
    remarks: tuple[str, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Indexes of the source's streams in it, in order."""
        return tuple(index for index, _ in self.ways)

    def origin(self, info: FilmInfo) -> Fraction:
        """By how much times are moved; a transport stream keeps its own clock."""
        return Fraction(0) if self.format == TRANSPORT else info.origin_seconds


def choose_target(info: FilmInfo, encoder: EncoderSettings) -> Target:
    """The source's own container if it can hold everything, else the one that holds the most.

    Found out by writing headers to memory, before any work is spent. Raises MediaError when
    none can hold the film stream itself.
    """
    # RFC 9043 lets FFV1 into MP4 too, but archives and their tools expect it in Matroska.
    native = MATROSKA if encoder.codec == "ffv1" else _native_format(info)
    candidates = [*dict.fromkeys((native, MATROSKA, "mov"))]  # DNxHR fits only into the last
    if info.container == TRANSPORT and encoder.codec in ("h264", "hevc"):
        candidates.append(TRANSPORT)  # holds what only broadcasts have, as teletext
    with open_film(info.path) as source:
        described = descriptions_of(source, info.path)
        fits = {name: _fitting(name, source, info, encoder, described) for name in candidates}
        lists = {name: take_stock(source, info, ways, described) for name, ways in fits.items()}
        names = {s.index: stream_name(s, described.names) for s in source.streams}
    names[info.stream_index] = encoder.codec

    def badness(name: str) -> tuple[bool, int, int]:
        lost = sum(entry.fate == "left out" for entry in lists[name])
        return info.stream_index not in fits[name], len(grave_losses(lists[name])), lost

    choice = min(candidates, key=badness)
    if info.stream_index not in fits[choice]:
        raise MediaError(f"{info.path}: none of {', '.join(candidates)} can hold {encoder.codec}")
    suffix = info.path.suffix.lower()
    keeps_suffix = suffix in _OTHER_SUFFIXES.get(choice, ())
    remarks = []
    if choice != native:
        lost = [index for index in fits[choice] if index not in fits[native]]
        blamed = [info.stream_index] if info.stream_index in lost else lost
        reason = ", ".join(names[index] for index in blamed)
        remarks.append(f"writing {_TITLES[choice]}, because {native} cannot hold {reason}")
    elif not keeps_suffix and suffix != _SUFFIXES[choice]:
        remarks.append(f"writing {_TITLES[choice]} instead of {suffix or info.container}")
    if choice == MATROSKA and encoder.codec == "ffv1" and info.sample_aspect != 1:
        # FFmpeg takes Matroska's own from a field of the stream that PyAV does not set.
        aspect = f"{info.sample_aspect.numerator}:{info.sample_aspect.denominator}"
        remarks.append(f"only the frames, not the container, say that pixels are {aspect}")
    return Target(
        choice,
        suffix if keeps_suffix else _SUFFIXES[choice],
        tuple(sorted(fits[choice].items())),
        lists[choice],
        tuple(remarks),
    )


class FilmMuxer:
    """Writes a finished film: the film stream's packets come from outside, all others from the
    source, interleaved by time.

    left_out: packets of the others that are too damaged to be read or copied.
    """

    def __init__(
        self, path: Path, source: InputContainer, info: FilmInfo, target: Target,
        encoder: EncoderSettings,
    ) -> None:  # fmt: skip
        self._source, self._info, self._path, self._target = source, info, path, target
        self.left_out = 0
        self._origin = target.origin(info)
        self._described = descriptions_of(source, info.path)
        self._next_dts: dict[int, int] = {}
        self._least_step = 0 if target.format in (MATROSKA, "webm") else 1
        options = _OPTIONS.get(target.format, {})
        if target.format in ("mov", "mp4"):
            options = {"movie_timescale": str(_movie_timescale(source, info))}
        self._container = av.open(str(path), "w", format=target.format, options=options)
        self.streams = _declare_streams(self._container, source, info, encoder, dict(target.ways))
        self._converters = {
            index: Converter(self.streams[index], way)
            for index, way in target.ways
            if way is not None
        }
        _describe(self._container, source, info)
        self._leave_room()
        self.film = self.streams[info.stream_index]
        self._container.start_encoding()

    def close(self) -> None:
        self._container.close()

    def complete(self) -> None:
        """Put in what FFmpeg cannot write; to be called when the file is closed.

        Raises MediaError, OSError.
        """
        numbers = {index: number for number, index in enumerate(self._target.kept)}
        tracks = {numbers[index]: track for index, track in self._own_descriptions().items()}
        if tracks and self._target.format == MATROSKA:
            header = ebml.read_header(self._path)
            new = [
                ebml.describe_as(track, tracks[number]) if number in tracks else track
                for number, track in enumerate(header.tracks)
            ]
            ebml.write_header(self._path, header, ebml.with_tracks(header, new))
        elif tracks:
            contents = boxes.read_contents(self._path)
            if contents is None:
                raise MediaError(f"{self._path}: no table of contents")
            for number, track in enumerate(contents.tracks):
                if number in tracks:
                    boxes.describe_as(track, tracks[number])
            boxes.write_contents(self._path, contents)

    def _own_descriptions(self) -> dict[int, Any]:
        """Descriptions of the source that are put in, by the source's index."""
        tracks = self._described.tracks
        return {index: tracks[index] for index, way in self._target.ways if way is Way.DESCRIBED}

    def _leave_room(self) -> None:
        own = self._own_descriptions()
        if own and self._target.format == MATROSKA:
            size = _HEADER_ROOM + sum(len(bytes(track)) for track in own.values())
            self._container.metadata[ebml.ROOM_TAG] = " " * size

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
        clock = Clock() if self._info.container in JUMPING_CLOCKS else None
        for packet in all_packets(self._source, self._count_left_out):
            if clock:
                clock.steady(packet)
            index = packet.stream.index
            if packet.size and index in self._converters:
                if packet.dts is None:
                    packet.dts = packet.pts
                self._shift(packet)
                self._let_dts_rise(packet)
                try:
                    yield from self._converters[index].feed(packet)
                except av.error.FFmpegError as error:
                    self._count_left_out(error)

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
        if self._origin and packet.time_base:
            ticks = round(self._origin / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - ticks
            packet.dts = None if packet.dts is None else packet.dts - ticks


def _movie_timescale(source: InputContainer, info: FilmInfo) -> int:
    """Ticks a second of the clock in which mp4 says when a stream begins late, so fine that it says
    all beginnings exactly; FFmpeg's own is 1/1000."""
    starts = [
        stream.start_time * tick(stream) - info.origin_seconds
        for stream in source.streams
        if stream.start_time
    ]
    ticks = 1000
    for denominator in (info.time_base.denominator, *(start.denominator for start in starts)):
        finer = math.lcm(ticks, denominator)
        ticks = finer if finer <= _FINEST_TIMESCALE else ticks
    return ticks


def _native_format(info: FilmInfo) -> str:
    if info.container == MATROSKA:
        return "webm" if info.path.suffix.lower() == ".webm" else MATROSKA
    if info.container == "mov":
        return "mov" if info.path.suffix.lower() in (".mov", ".qt") else "mp4"
    return MATROSKA


def _fitting(
    name: str,
    source: InputContainer,
    info: FilmInfo,
    encoder: EncoderSettings,
    described: Descriptions,
) -> dict[int, Way | None]:
    """The streams that a container takes into its header, each with the way it takes."""

    def takes(ways: Mapping[int, Way | None]) -> bool:
        try:
            with av.open(io.BytesIO(), "w", format=name) as trial:
                _declare_streams(trial, source, info, encoder, ways)
                trial.start_encoding()
        except (av.error.FFmpegError, ValueError):
            return False
        return True

    film: dict[int, Way | None] = {info.stream_index: None}
    others = {
        stream.index: [*ways_of(stream, name, described)]
        for stream in source.streams
        if stream.index != info.stream_index and not is_timecode(stream)
    }
    first: dict[int, Way | None] = {index: ways[0] for index, ways in others.items() if ways}
    if takes(film | first):
        return film | first
    if not takes(film):
        return {}
    for index, ways in others.items():
        fitting = [way for way in ways if takes({info.stream_index: None, index: way})][:1]
        film |= dict.fromkeys([index], fitting[0]) if fitting else {}
    return film


def _declare_streams(
    container: OutputContainer,
    source: InputContainer,
    info: FilmInfo,
    encoder: EncoderSettings,
    ways: Mapping[int, Way | None],
) -> dict[int, Stream]:
    """Declare the kept streams in their order; returns them by the source's index."""
    declared: dict[int, Stream] = {}
    for index, way in sorted(ways.items()):
        stream = source.streams[index]
        copy: Stream
        if way is None:
            film = encoder.add_to(container)
            if info.orientation:
                film.set_display_matrix(info.orientation.matrix)  # lost in silence after the header
            copy = film
        else:
            copy = declare(container, stream, way)
        copy.metadata.update(
            {k: v for k, v in stream.metadata.items() if way is not None or not is_stale(k)}
        )
        copy.disposition = stream.disposition
        declared[stream.index] = copy
    return declared


def _describe(container: OutputContainer, source: InputContainer, info: FilmInfo) -> None:
    metadata = {k: v for k, v in source.metadata.items() if not is_stale(k)}
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


def _seconds(packet: Packet[Stream]) -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if time is None or not packet.time_base else time * packet.time_base


def film_of(container: InputContainer, number: int) -> VideoStream:
    """The stream at a position of a finished file, which has to be video."""
    stream = container.streams[number]
    if not isinstance(stream, VideoStream):
        raise MediaError(f"{container.name}: stream {number} is {stream.type}, expected video")
    return stream
