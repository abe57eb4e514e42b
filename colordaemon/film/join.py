"""Joins segments to one film, and verifies the film against its plan.

Packets are copied in order. Their dts are computed from the sorted pts: the encoder's own dts fail
in the muxer after a slow-down and with segments of one or two frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from colordaemon.errors import MediaError
from colordaemon.film.plan import FilmPlan, SegmentResult
from colordaemon.media.captions import messages_in
from colordaemon.media.demux import Damage, from_keyframe, open_film, tick
from colordaemon.media.holdings import name_of
from colordaemon.media.mux import FilmMuxer, film_of
from colordaemon.media.provenance import Maker
from colordaemon.media.target import MXF, TRANSPORT, Target

_LATEST = 1 << 62  # ticks; beyond, times that are moved by some others would not fit into 64 bits


def join(
    plan: FilmPlan,
    target: Target,
    path: Path,
    maker: Maker | None = None,
    tell: Callable[[float], None] = lambda share: None,
) -> Damage:
    """Write the film to `path`, which is not checked yet; see `verify`.

    maker: who made the colors, for the metadata; None: the built-in model. tell: called for every
    packet with the share that is done, 0..1. Returns how many packets the other streams have, and
    how many of them were too damaged to be copied.
    """
    if target.format == MXF and len({*np.diff(plan.pts()).tolist()}) > 1:
        raise MediaError(
            f"{plan.source.path}: frames are missing in it, and MXF needs them at a constant "
            "rate; --codec ffv1 writes Matroska"
        )
    with open_film(plan.source.path) as source:
        muxer = FilmMuxer(
            path, source, plan.source, target, plan.encoder, maker or Maker(), plan.cut
        )
        try:
            try:
                muxer.write(_film_packets(plan, target, tell))
            finally:
                muxer.close()  # writes the packets that were held back
        except (av.error.ArgumentError, av.error.InvalidDataError) as error:
            raise MediaError(
                f"{plan.source.path}: {target.format} refuses a packet of it ({error.strerror})"
            ) from error
        muxer.complete(lambda: tell(1.0))
        return muxer.others


def verify(
    plan: FilmPlan, target: Target, path: Path, tell: Callable[[float], None] = lambda share: None
) -> None:
    """Reopen a joined film and compare it with its plan: the number of streams, the time of every
    frame, how many pictures carry captions and the like, and that its first and its last group of
    pictures decode.

    tell: as in `join`. Raises MediaError.
    """
    name = f"{plan.source.path}: the finished film"
    with open_film(path) as container:
        found, expected = len(container.streams), len(target.kept)
        if found < expected:
            raise MediaError(f"{name} has {found} streams, expected {expected}")
        film = film_of(container, target.kept.index(plan.source.stream_index))
        origin = target.origin(plan.source, plan.cut)
        told, found_told = plan.told, Counter[str]()
        packets = _packets(container, film, plan.frame_count, tell)
        counted = _counting(packets, found_told) if told else packets
        _check_times(plan, counted, film, name, origin)
        if lost := told - found_told:
            raise MediaError(f"{name} lacks {_numbers(lost)} that were put into it")
        last = int(plan.pts()[-1]) * plan.source.time_base - origin
        if target.format == TRANSPORT:  # has no index, and a seek goes by the time of decoding
            last = plan.segments[-1].packet_pts[0] * plan.source.time_base - 1
        for seconds in (None, last):
            if seconds is not None:
                container.seek(int(seconds / tick(film)), stream=film)
            else:
                container.seek(0)
            # Only in a transport stream a seek may end between key frames. Elsewhere no packet may
            # be skipped: damage can remove the key frame mark of a packet.
            searched = seconds is not None and target.format == TRANSPORT
            found_packets = container.demux(film)
            if searched:
                found_packets = from_keyframe(found_packets, film)
            _check_decodes(found_packets, film, name)


def _film_packets(
    plan: FilmPlan, target: Target, tell: Callable[[float], None]
) -> Iterator[Packet[Stream]]:
    """The packets of all segments with pts of the source, new dts and durations."""
    times, depth = plan.pts(), plan.reorder_depth
    first, last = int(times[0]), int(times[-1])
    if first < -_LATEST or last > _LATEST:
        raise MediaError(
            f"{plan.source.path}: pictures at times of {first} to {last} ticks, expected"
            f" {_LATEST} at most"
        )
    step = int(times[1] - times[0]) if len(times) > 1 else 1
    # A damaged file may show its first frame for ages; the steps ahead of it need not be as long.
    step = min(step, max(1, int(1 / plan.source.time_base)))
    if depth and times[0] >= depth:  # a transport stream knows no time before zero
        step = min(step, int(times[0]) // depth)
    end = plan.segments[-1].end_pts
    durations = dict(
        zip(times.tolist(), [*np.diff(times).tolist(), max(0, end - int(times[-1]))], strict=True)
    )
    repeats = target.format in (TRANSPORT, MXF) and plan.encoder.codec in ("h264", "hevc")
    number, header = 0, _header_of(plan.segments[0])
    for segment in plan.segments:
        for packet, pts in _segment_packets(segment, header, repeats):
            early = number - depth
            packet.pts, packet.dts = pts, int(times[0]) + step * early
            if early >= 0:
                packet.dts = int(times[early])
            packet.duration = durations[pts]
            packet.time_base = plan.source.time_base
            number += 1
            tell(number / len(times))
            yield packet


def _segment_packets(
    segment: SegmentResult, header: bytes, repeats_header: bool
) -> Iterator[tuple[Packet[Stream], int]]:
    """Packets with their pts. repeats_header: before every key frame, for containers without."""
    with av.open(str(segment.path)) as container:
        stream = container.streams.video[0]
        # x265 would decode nothing after another header and report no error. ProRes and DNxHR
        # have none: their packets say everything.
        if _header(stream) != header:
            raise MediaError(f"{segment.path}: its encoder header differs from the film's")
        repeat = BitStreamFilterContext("dump_extra" if repeats_header else "null", stream)
        packets = (packet for packet in container.demux(stream) if packet.size)
        filtered = (other for packet in packets for other in repeat.filter(packet))
        yield from zip(filtered, segment.packet_pts, strict=True)


def _header_of(segment: SegmentResult) -> bytes:
    with av.open(str(segment.path)) as container:
        return _header(container.streams.video[0])


def _header(stream: Stream) -> bytes:
    return bytes(stream.codec_context.extradata or b"")


def _packets(
    container: InputContainer, film: VideoStream, count: int, tell: Callable[[float], None]
) -> Iterator[Packet[VideoStream]]:
    for number, packet in enumerate(container.demux(film), start=1):
        tell(min(1.0, number / count))
        yield packet


def _counting(
    packets: Iterator[Packet[VideoStream]], found: Counter[str]
) -> Iterator[Packet[VideoStream]]:
    """The same packets; counts the captions and the like in them."""
    for packet in packets:
        found.update(messages_in(bytes(packet)))
        yield packet


def _numbers(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name_of(name)}" for name, count in counts.items())


def _check_times(
    plan: FilmPlan,
    packets: Iterator[Packet[VideoStream]],
    film: VideoStream,
    name: str,
    origin: Fraction,
) -> None:
    found = sorted(packet.pts for packet in packets if packet.size and packet.pts is not None)
    expected = plan.pts()
    if len(found) != len(expected):
        raise MediaError(f"{name} has {len(found)} frames, expected {len(expected)}")
    planned_tick, found_tick = plan.source.time_base, tick(film)
    # Exact where the container can; Matroska rounds to its own ticks.
    tolerance = Fraction(0)
    if origin or (planned_tick / found_tick).denominator != 1:
        tolerance = found_tick + (planned_tick if origin else 0)
    for count, planned in zip(found, expected.tolist(), strict=True):
        time, wanted = count * found_tick, planned * planned_tick - origin
        if abs(time - wanted) > tolerance:
            raise MediaError(
                f"{name} has a frame at {float(time):.6f} s, expected {float(wanted):.6f} s"
            )


def _check_decodes(packets: Iterator[Packet[VideoStream]], film: VideoStream, name: str) -> None:
    """Decode packets up to the second key frame or the end."""
    decoded, keys = 0, 0
    try:
        for packet in packets:
            keys += bool(packet.is_keyframe and packet.size)
            if keys > 1:
                break
            decoded += len(packet.decode())
        if keys > 1:
            decoded += len(film.codec_context.decode(None))
    except av.error.FFmpegError as error:
        raise MediaError(f"{name} does not decode ({error.strerror})") from error
    if not decoded:
        raise MediaError(f"{name} decodes to no picture")
    film.codec_context.flush_buffers()
