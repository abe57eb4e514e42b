"""Writes the finished file: the colored film interleaved with all other streams.

Sound, subtitles, attachments, chapters, cover art and further video streams are copied packet by
packet with their metadata and dispositions, or converted where no container holds them; see
`copies`. A tmcd timecode track cannot be copied; the container makes a new one from the `timecode`
metadata.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from colordaemon.errors import MediaError
from colordaemon.media.codec import EncoderSettings
from colordaemon.media.copies import Converter, descriptions_of
from colordaemon.media.demux import (
    JUMPING_CLOCKS,
    Damage,
    SteadyClock,
    all_packets,
    fraction,
    tick,
)
from colordaemon.media.finish import MatroskaFinish, finish_mp4
from colordaemon.media.originals import original_of
from colordaemon.media.probe import FilmInfo
from colordaemon.media.provenance import Maker
from colordaemon.media.stretch import Cut, PacketCut, chapters_in, timecode_at
from colordaemon.media.tags import tags_of_result
from colordaemon.media.target import MATROSKA, TRANSPORT, Target, declare_streams

# Negative dts are left alone: moving them would move every stream against the clock.
_OPTIONS = {
    MATROSKA: {"avoid_negative_ts": "disabled"},
    "webm": {"avoid_negative_ts": "disabled"},
    TRANSPORT: {"mpegts_copyts": "1"},
}
_FINEST_TIMESCALE = (1 << 31) - 1  # players count long films in 64 bits


class FilmMuxer:
    """Writes a finished film: the film stream's packets come from outside, all others from the
    source, interleaved by time.

    cut: if only that is wanted of the film. others: how many packets the others have, and how many
    are too damaged to be read or copied.
    """

    def __init__(
        self, path: Path, source: InputContainer, info: FilmInfo, target: Target,
        encoder: EncoderSettings, maker: Maker, cut: Cut | None = None,
    ) -> None:  # fmt: skip
        self._source, self._info, self._path, self._target = source, info, path, target
        self._maker, self._cut = maker, cut
        self.others = Damage()
        self._origin = target.origin(info, cut)
        self._original = original_of(source, info.path)
        self._described = descriptions_of(source, info.path, self._original)
        film = source.streams[info.stream_index]
        self._tags = tags_of_result(source, film, info.start_timecode, maker, target.format)
        if cut and "timecode" in self._tags:
            start = fraction(film.time_base or 1) * (film.start_time or 0)
            later = round((cut.start - start) * info.rate)
            self._tags["timecode"] = timecode_at(self._tags["timecode"], later, info.rate)
        self._next_dts: dict[int, int] = {}
        self._least_step = 0 if target.format in (MATROSKA, "webm") else 1
        options = _OPTIONS.get(target.format, {})
        if target.format in ("mov", "mp4"):
            options = {"movie_timescale": str(_movie_timescale(source, info, cut))}
        self._container = av.open(str(path), "w", format=target.format, options=options)
        self.streams = declare_streams(self._container, source, info, encoder, dict(target.ways))
        self._converters = {
            index: Converter(self.streams[index], way)
            for index, way in target.ways
            if way is not None
        }
        self._set_tags()
        chapters = source.chapters()
        if cut:
            chapters = chapters_in(chapters, cut.start, cut.end)
        self._container.set_chapters(chapters)
        self._matroska: MatroskaFinish | None = None
        if target.format in (MATROSKA, "webm"):
            self._matroska = MatroskaFinish(
                target, self._original, self._described, has_chapters=not cut
            )
            self._container.metadata.update(self._matroska.tags())
        self.film = self.streams[info.stream_index]
        self._container.start_encoding()

    def _set_tags(self) -> None:
        """All of them the file's, but in mp4 the timecode the film's: other videos have their own,
        and FFmpeg would give all of them the file's."""
        tags = dict(self._tags)
        if self._target.format in ("mov", "mp4") and "timecode" in tags:
            film = self.streams[self._info.stream_index]
            film.metadata["timecode"] = tags.pop("timecode")
        self._container.metadata.update(tags)

    def close(self) -> None:
        self._container.close()

    def complete(self, heartbeat: Callable[[], None]) -> None:
        """Put in what FFmpeg cannot write; to be called when the file is closed.

        heartbeat: called now and then, as a sign of life. Raises MediaError, OSError.
        """
        target, path = self._target, self._path
        if target.format in ("mov", "mp4"):
            finish_mp4(
                path, self._info.path, target, self._original, self._described, self._tags,
                self._maker, heartbeat,
            )  # fmt: skip
        elif self._matroska:
            self._matroska.write(path)

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
        clock = SteadyClock() if self._info.container in JUMPING_CLOCKS else None
        wanted = PacketCut(self._cut) if self._cut else None
        if self._cut:
            self._cut.go_to(self._source)
        for packet in all_packets(self._source, self._info.path, self._count_left_out):
            if clock:
                clock.steady(packet)
            if self._cut and self._cut.is_over(packet):
                return
            index = packet.stream.index
            if packet.size and index in self._converters and (not wanted or wanted.keeps(packet)):
                self.others.packets += 1
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
        except av.error.FFmpegError as error:
            if error.errno in errno.errorcode:  # of the disk, or of a muxer that refuses the packet
                raise
            self._count_left_out(error)  # a filter that repacks AAC cannot read it

    def _count_left_out(self, error: av.error.FFmpegError) -> None:
        self.others.damaged += 1

    def _let_dts_rise(self, packet: Packet[Stream]) -> None:
        """Damaged files have dts that fall, which muxers refuse; raise these to the last."""
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


def _movie_timescale(source: InputContainer, info: FilmInfo, cut: Cut | None) -> int:
    """Ticks a second of the clock in which mp4 says when a stream begins late, so fine that it says
    all beginnings exactly; FFmpeg's own is 1/1000. Behind a cut, any tick may be one."""
    starts = [tick(stream) for stream in source.streams if cut and stream.time_base]
    starts += [
        stream.start_time * tick(stream) - info.origin_seconds
        for stream in source.streams
        if stream.start_time
    ]
    ticks = 1000
    for denominator in (info.time_base.denominator, *(start.denominator for start in starts)):
        finer = math.lcm(ticks, denominator)
        ticks = finer if finer <= _FINEST_TIMESCALE else ticks
    return ticks


def _seconds(packet: Packet[Stream]) -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if time is None or not packet.time_base else time * packet.time_base


def film_of(container: InputContainer, number: int) -> VideoStream:
    """The stream at a position of a finished file, which has to be video."""
    stream = container.streams[number]
    if not isinstance(stream, VideoStream):
        raise MediaError(f"{container.name}: stream {number} is {stream.type}, expected video")
    return stream
