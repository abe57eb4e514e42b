"""Probes a film file without trusting it: streams, geometry, timing, color tags.

A file is opened by absolute path with the file protocol alone and a list of allowed containers:
text that calls itself .mp4 can otherwise be a playlist that reads any file of the machine.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.color import PixelCode
from colordaemon.config import FilmSettings
from colordaemon.errors import MediaError
from colordaemon.media.alpha import decoder_of
from colordaemon.media.boxes import holds_only_stills
from colordaemon.media.charset import FALLBACK
from colordaemon.media.colorspace import ColorTags, code_of, tags_of, transfer_of
from colordaemon.media.fields import FieldOrder, fields_are_pictures, film_order
from colordaemon.media.frames import stereo_mode_of, timecode_of
from colordaemon.media.light import Light, light_of
from colordaemon.media.orientation import Orientation
from colordaemon.media.parameters import parameters_of
from colordaemon.media.pixels import Layout, layout_of
from colordaemon.media.samples import Samples, take_samples
from colordaemon.media.tint import ExistingColor

# Containers of films; nothing here opens another file or the network.
_CONTAINERS = (
    "3dostr,asf,av1,avi,dv,dvd,flic,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,"
    "m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,roq,swf,vc1,wtv,yuv4mpegpipe"
)
# Containers whose clock starts anywhere: the whole film is shifted to start at zero.
FLOATING_CLOCKS = frozenset({"mpeg", "mpegts", "wtv"})
# Containers that are joined end to end, so that the clock jumps.
JUMPING_CLOCKS = frozenset({"mpeg", "mpegts"})
# Containers that say how long the film is in a header, so that a truncated file shows.
_DECLARING = frozenset({"mov", "matroska", "avi", "asf", "flv", "mxf", "nut"})

MOST_PIXELS = 15360 * 8640  # 16K; a few hundred KB can hold a film of any size

UNREADABLE_IN_A_ROW = 64  # attempts; a demuxer that gets no further would be asked forever


@dataclass(frozen=True)
class FilmInfo:
    """Everything about the film stream that later steps need; plain and picklable.

    rate: frames per second, for encoders that want one, never for time. sample_aspect: width of a
    pixel over its height. orientation: how a player turns and mirrors the picture. stereo_mode:
    Matroska's number, 0 for none. has_own_fields: each picture says its field order itself; else
    the film's is that of all. other_aspects: that the film has elsewhere. is_steady: the
    orientation is the same all over it. is_field_coded: each picture is a single field.
    existing_color: what it shows already. beside: FFmpeg's names of what comes with its packets and
    pictures, as far as samples tell. needs_dolby: only Dolby Vision's metadata tell its colors.
    duration_seconds: of the film stream, container_seconds: of the longest stream, each as a header
    declares it and None where it does not. origin_seconds: what a floating clock shows at the
    start, else 0. start_timecode: that the first group of pictures says, empty if none.
    """

    path: Path
    container: str
    stream_index: int
    codec: str
    pix_fmt: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    sample_aspect: Fraction
    orientation: Orientation
    stereo_mode: int
    field_order: FieldOrder
    has_own_fields: bool
    other_aspects: tuple[Fraction, ...]
    is_steady: bool
    is_field_coded: bool
    tags: ColorTags
    existing_color: ExistingColor
    light: Light
    beside: tuple[str, ...]
    needs_dolby: bool
    duration_seconds: float | None
    container_seconds: float | None
    origin_seconds: Fraction
    start_timecode: str

    @property
    def layout(self) -> Layout:
        return layout_of(self.pix_fmt)

    @property
    def code(self) -> PixelCode:
        """How this film's own luma codes are to be read."""
        return code_of(self.tags, self.layout, self.codec, self.height)


def open_film(path: Path) -> InputContainer:
    """Open a film for reading. Raises MediaError, or OSError when the file cannot be reached."""
    if path.is_dir():
        raise MediaError(f"{path}: found a folder, expected a film or photo")
    with path.open("rb") as file:  # tells missing and unreadable apart from damaged
        if not file.read(1):
            raise MediaError(f"{path}: the file is empty")
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        name = os.path.abspath(path)  # noqa: PTH100  (may be a descriptor)
        return av.open(name, options=options, metadata_errors=FALLBACK)
    except av.error.FFmpegError as error:
        reason = "no film container that colordaemon opens"
        if not isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
            reason = str(error.strerror)
        raise MediaError(f"{path}: found {reason}, expected a film or photo") from error


def all_packets(
    container: InputContainer, path: Path, on_error: Callable[[av.error.FFmpegError], None]
) -> Iterator[Packet[Stream]]:
    """The packets of all streams, then a flushing one for each; goes on behind a bad stretch.

    on_error is told of every one of those. Raises MediaError where nothing can be read any more.
    """
    in_a_row = 0
    while True:
        try:
            for packet in container.demux():
                in_a_row = 0
                yield packet
            return
        except av.error.FFmpegError as error:
            in_a_row += 1
            if in_a_row > UNREADABLE_IN_A_ROW:
                raise MediaError(
                    f"{path}: nothing can be read behind a bad stretch ({error.strerror})"
                ) from error
            on_error(error)


def film_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream to color: the best video stream that is not cover art. Raises MediaError."""
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        found = ", ".join(sorted({s.type for s in container.streams})) or "no stream at all"
        raise MediaError(f"{path}: no video stream, found {found}")
    known = [s for s in streams if s.codec_context]
    if not known:
        raise MediaError(f"{path}: its video is in a codec that FFmpeg does not know")
    best = container.streams.best("video")
    return best if best in known else known[0]


def tick(stream: Stream) -> Fraction:
    """Seconds per count of a stream's clock."""
    assert stream.time_base is not None  # every stream that was opened for reading has one
    return _fraction(stream.time_base)


def probe_film(path: Path, settings: FilmSettings | None = None) -> FilmInfo:
    """Read what a film is, from headers and some of its frames. settings: what the user knows
    better. Raises MediaError or OSError."""
    with open_film(path) as container:
        stream = film_stream(container, path)
        container_name = container.format.name.split(",")[0]
        if container_name == "mov" and holds_only_stills(path):  # FFmpeg shows one tile of it
            raise MediaError(f"{path}: found a HEIF picture of no known kind, expected a film")
        context = stream.codec_context
        _check_pixels(path, context.width, context.height)
        frame = _first_frame(container, stream, path)
        declares = container_name in _DECLARING
        floating = container_name in FLOATING_CLOCKS and container.start_time
        parameters = parameters_of(stream)
        tags = tags_of(frame, parameters.siting)
        tags = tags.assumed(settings) if settings else tags
        declared = context.field_order
        samples = take_samples(container, stream, frame, transfer_of(tags.transfer))
        field_order, has_own_fields = film_order(samples.orders, context.name, declared)
        sample_aspect, *other_aspects = _aspects(stream, samples)
        info = FilmInfo(
            path=path,
            container=container_name,
            stream_index=stream.index,
            codec=context.name,
            pix_fmt=frame.format.name,
            width=frame.width,
            height=frame.height,
            time_base=tick(stream),
            rate=_rate(stream),
            sample_aspect=sample_aspect,
            orientation=Orientation.of(frame),
            stereo_mode=stereo_mode_of(frame),
            field_order=field_order,
            has_own_fields=has_own_fields,
            other_aspects=tuple(other_aspects),
            is_steady=len(samples.orientations) == 1,
            is_field_coded=fields_are_pictures(context.name) and frame.interlaced_frame,
            tags=tags,
            existing_color=samples.color,
            light=light_of(frame),
            beside=tuple(sorted(parameters.side_data | samples.beside)),
            needs_dolby=parameters.needs_dolby,
            duration_seconds=float(stream.duration * tick(stream))
            if declares and stream.duration
            else None,
            container_seconds=container.duration / av.time_base
            if declares and container.duration
            else None,
            origin_seconds=Fraction(container.start_time or 0, av.time_base)
            if floating
            else Fraction(0),
            start_timecode=timecode_of(frame),
        )
    try:
        info.layout  # noqa: B018  (raises for formats without luma)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from None
    return info


def _aspects(stream: VideoStream, samples: Samples) -> tuple[Fraction, ...]:
    """Of pixels, the usual one first. What only the container says is said of the whole film."""
    declared = _fraction(stream.sample_aspect_ratio or 1)
    said = Counter(found for found in samples.aspects if found)
    return tuple(found for found, _ in said.most_common()) if declared in said else (declared,)


def _rate(stream: VideoStream) -> Fraction:
    # Where FFmpeg takes DV apart itself (raw, AVI of type 1), it says its tick as the average.
    average = None if stream.codec_context.name == "dvvideo" else stream.average_rate
    rate = average or stream.guessed_rate or stream.base_rate
    return _fraction(rate) if rate else Fraction(25)


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise MediaError(f"{path}: {width} x {height} pixels, expected {MOST_PIXELS} at most")


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    decoder = decoder_of(stream)
    for packet in all_packets(container, path, lambda error: None):
        if packet.stream is not stream:
            continue
        try:
            for frame in decoder.decode(packet):
                assert isinstance(frame, VideoFrame)
                return frame
        except av.error.FFmpegError:
            continue  # damage is counted when the film is decoded
    raise MediaError(f"{path}: the video stream ({stream.codec_context.name}) has no whole frame")


def _fraction(rational: Fraction | int) -> Fraction:
    """PyAV's own rationals (from version 19) and Python's become Python's."""
    return Fraction(rational.numerator, rational.denominator)
