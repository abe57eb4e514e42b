"""Probes a film file without trusting it: streams, geometry, timing, color tags, and some frames.

Frames are sampled all over the film. To search and decode them is most of the work of planning a
film, so everything that is asked of its pictures (fields, aspect, orientation, color, side data) is
asked of the same ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.color import PixelCode
from colordaemon.config import FilmSettings
from colordaemon.errors import MediaError
from colordaemon.media.boxes import holds_only_stills
from colordaemon.media.colorspace import ColorTags, code_of, tags_of, transfer_of, untagged
from colordaemon.media.demux import FLOATING_CLOCKS, all_packets, fraction, open_film, tick
from colordaemon.media.fields import FieldOrder, FieldReader, fields_are_pictures, film_order
from colordaemon.media.originals import parameters_of
from colordaemon.media.pixels import Layout, decoder_of, layout_of, planar_name, plane_array
from colordaemon.media.side_data import (
    Light,
    Orientation,
    light_of,
    names_beside,
    names_beside_packet,
    stereo_mode_of,
    timecode_of,
)
from colordaemon.media.stretch import Stretch
from colordaemon.media.tint import ExistingColor, existing_color
from colordaemon.transfer import Transfer

# Containers that say how long the film is in a header, so that a truncated file shows.
_DECLARING = frozenset({"mov", "matroska", "avi", "asf", "flv", "mxf", "nut"})

MOST_PIXELS = 15360 * 8640  # 16K; a few hundred KB can hold a film of any size
_PLACES = 12
_MORE_EVERY, _MORE_FRAMES = 2, 3  # captions need not come with every frame


@dataclass(frozen=True)
class FilmInfo:
    """Everything about the film stream that later steps need; plain and picklable.

    rate: frames per second, for encoders that want one, never for time. sample_aspect: width of a
    pixel over its height. orientation: how a player turns and mirrors the picture. stereo_mode:
    Matroska's number, 0 for none. has_own_fields: each picture says its field order itself; else
    the film's is that of all. other_aspects: those of other parts of the film. is_steady: the
    orientation is the same all over it. is_field_coded: each picture is a single field.
    existing_color: what it shows already. beside: FFmpeg's names of what comes with its packets and
    pictures, as far as samples tell. needs_dolby: only Dolby Vision's metadata tell its colors.
    duration_seconds: of the film stream, container_seconds: of the longest stream, each as a header
    declares it and None where it does not. origin_seconds: what a floating clock shows at the
    start, else 0. start_timecode: of the first group of pictures, empty if none. stretch: all that
    is wanted of the film; None: the whole. on_gpu: it is to be decoded there, if that can be done.
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
    stretch: Stretch | None = None
    on_gpu: bool = False

    @property
    def start_seconds(self) -> float:
        """Where in the film begins what is wanted of it."""
        return self.stretch.start if self.stretch else 0.0

    @property
    def wanted_seconds(self) -> float | None:
        """How long that plays; None if unknown."""
        whole = self.duration_seconds or self.container_seconds
        if self.stretch is None:
            return whole
        end = min(self.stretch.end, math.inf if whole is None else whole)
        return end - self.stretch.start if end < math.inf else None

    def seconds_at(self, pts: int) -> float:
        """When a frame is shown from the film's beginning on, in whole milliseconds."""
        return round(float(pts * self.time_base - self.origin_seconds), 3)

    @property
    def layout(self) -> Layout:
        return layout_of(self.pix_fmt)

    @property
    def code(self) -> PixelCode:
        """How this film's own luma codes are to be read."""
        return code_of(self.tags, self.layout, self.codec, self.height)


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


def probe_film(
    path: Path, settings: FilmSettings | None = None, stretch: Stretch | None = None
) -> FilmInfo:
    """Read what a film is, from headers and some of its frames. settings: what the user knows
    better. stretch: all that is wanted of it. Raises MediaError or OSError."""
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
        samples = take_samples(container, stream, frame, transfer_of(tags.transfer), stretch)
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
            stretch=stretch,
            on_gpu=settings is not None and settings.decode_on == "gpu",
        )
    if (seconds := info.wanted_seconds) is not None and seconds <= 0:
        raise MediaError(
            f"{path}: found {seconds + info.start_seconds:.3f} s of film, expected more than the"
            f" {info.start_seconds:.3f} s at which the range begins"
        )
    try:
        info.layout  # noqa: B018  (raises for formats without luma)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from None
    return info


def _aspects(stream: VideoStream, samples: Samples) -> tuple[Fraction, ...]:
    """Aspects of pixels, the usual one first. One that only the container states holds for all."""
    declared = fraction(stream.sample_aspect_ratio or 1)
    said = Counter(found for found in samples.aspects if found)
    return tuple(found for found, _ in said.most_common()) if declared in said else (declared,)


def _rate(stream: VideoStream) -> Fraction:
    # Where FFmpeg takes DV apart itself (raw, AVI of type 1), it says its tick as the average.
    average = None if stream.codec_context.name == "dvvideo" else stream.average_rate
    rate = average or stream.guessed_rate or stream.base_rate
    return fraction(rate) if rate else Fraction(25)


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


@dataclass
class Samples:
    """Of each picture: its field order and the aspect of its pixels, if it says one; of some, their
    color. orientations: all that there are. beside: FFmpeg's names of what comes beside pixels."""

    orders: list[FieldOrder] = field(default_factory=list)
    aspects: list[Fraction | None] = field(default_factory=list)
    colors: list[ExistingColor] = field(default_factory=list)
    orientations: set[Orientation] = field(default_factory=set)
    beside: set[str] = field(default_factory=set)

    @property
    def color(self) -> ExistingColor:
        """Which color the film has. Real color in three quarters of the samples makes a color film.
        Fewer, and it is a reel of both kinds, whose shots are judged one by one."""
        if self.colors.count(ExistingColor.COLOR) * 4 >= 3 * max(1, len(self.colors)):
            return ExistingColor.COLOR
        if self.colors.count(ExistingColor.TINT) * 2 > len(self.colors):
            return ExistingColor.TINT
        return ExistingColor.NONE


def take_samples(
    container: InputContainer,
    stream: VideoStream,
    first: VideoFrame,
    transfer: Transfer,
    stretch: Stretch | None = None,
) -> Samples:
    """Look at pictures all over a film, or a stretch of it, whose first one has just been read; at
    the next ones where it cannot be searched."""
    samples, fields = Samples(), FieldReader(stream.codec_context.name)

    def add(picture: VideoFrame, *, judges: bool) -> None:
        aspect = stream.codec_context.sample_aspect_ratio
        samples.orders.append(fields.order(picture))
        samples.aspects.append(aspect and Fraction(aspect.numerator, aspect.denominator))
        samples.orientations.add(Orientation.of(picture))
        samples.beside |= names_beside(picture)
        if judges:
            samples.colors.append(frame_color(picture, transfer))

    total = _length(container, stream)
    add(first, judges=not total)
    start = stream.start_time or 0
    if total and stretch:
        begin = min(total, int(stretch.start / tick(stream)))
        behind = total if stretch.end == math.inf else int(stretch.end / tick(stream))
        start, total = start + begin, max(1, min(total, behind) - begin)
    for place in range(_PLACES):
        wanted = 1 if place % _MORE_EVERY else _MORE_FRAMES
        try:
            if total:
                container.seek(start + total * place // _PLACES, stream=stream)
            for number, picture in enumerate(_next(container, stream, wanted, samples.beside)):
                if number:
                    samples.beside |= names_beside(picture)
                else:
                    add(picture, judges=True)
        except av.error.FFmpegError:
            continue
    return samples


def _length(container: InputContainer, stream: VideoStream) -> int:
    """Ticks of the stream's clock; 0 where nothing says so."""
    if stream.duration or not container.duration or not stream.time_base:
        return stream.duration or 0
    return int(Fraction(container.duration, av.time_base) / stream.time_base)


def _next(
    container: InputContainer, stream: VideoStream, wanted: int, beside: set[str]
) -> Iterator[VideoFrame]:
    """At least `wanted` of the next frames, if there are so many; the names of their packets' side
    data are added to `beside`."""
    for packet in container.demux(stream):
        beside |= names_beside_packet(packet)
        for picture in packet.decode():
            assert isinstance(picture, VideoFrame)
            wanted -= 1
            yield picture
        if wanted <= 0:
            return


# How much weaker the chroma codes of a color are than in SDR: medians over hues, L 30 to 75 and
# chroma 10 and 25.
_CHROMA_GAINS = {Transfer.SDR: 1.0, Transfer.PQ: 3.7, Transfer.HLG: 1.6}


def frame_color(frame: VideoFrame, transfer: Transfer) -> ExistingColor:
    """Which color a decoded picture has already."""
    shrink = max(1.0, max(frame.width, frame.height) / 256)
    width, height = max(2, int(frame.width / shrink)), max(2, int(frame.height / shrink))
    # Weak codes would drown in the rounding to 8 bits.
    depth = 8 if transfer is Transfer.SDR else 16
    pix_fmt = planar_name((1, 1), depth)
    small = untagged(frame).reformat(width=width, height=height, format=pix_fmt)
    planes = np.stack([plane_array(plane, depth) for plane in small.planes])
    samples = planes.astype(np.float32) / (1 << depth - 8)
    return existing_color(samples[0], (samples[1:] - 128.0) * _CHROMA_GAINS[transfer])
