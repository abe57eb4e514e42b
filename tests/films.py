"""Films for tests, synthesized in milliseconds, and what tests look at in films."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.config import FilmSettings
from colordaemon.film.colorize import FilmReport, color_film, plan_film
from colordaemon.media.decode import Frame
from colordaemon.media.fields import FieldOrder, FieldReader
from colordaemon.media.pixels import layout_of, plane_array
from colordaemon.media.stretch import Stretch
from colordaemon.work_context import WorkContext

SIZE = (64, 48)
LOSSLESS = {"qp": "0", "preset": "ultrafast"}  # for x264
EXACT = FilmSettings(codec="h264", encoder_options=LOSSLESS)
ARCHIVE = FilmSettings(codec="ffv1")


def luma_of(number: int, size: tuple[int, int], depth: int = 8, shot: int = 0) -> np.ndarray:
    """(H, W) codes of a gray picture: noise over a ramp that moves on with every frame."""
    width, height = size
    chance = np.random.default_rng(1000 * shot + number)
    rows, columns = np.mgrid[0:height, 0:width]
    ramp = (
        60 + 30 * np.sin((columns + 2 * number) / 9 + shot) + 40 * ((rows * (shot + 1) // 12) % 2)
    )
    codes = ramp + chance.integers(0, 30, (height, width))
    codes = codes * 2 ** (depth - 8) + chance.integers(0, 2 ** (depth - 8), (height, width))
    made: np.ndarray = codes.astype(np.uint8 if depth == 8 else np.uint16)
    return made


def picture_of(
    luma: np.ndarray, pix_fmt: str = "yuv420p", chroma: tuple[int, int] | None = None
) -> VideoFrame:
    """A picture with these luma codes and flat chroma (8-bit codes; none: neutral)."""
    height, width = luma.shape
    layout = layout_of(pix_fmt)
    if layout.is_rgb:
        return VideoFrame.from_ndarray(np.dstack([luma] * 3), "rgb24").reformat(format=pix_fmt)
    picture = VideoFrame(width, height, layout.planar)
    flat = [code << (layout.depth - 8) for code in chroma or (128, 128)]
    for plane, samples in zip(picture.planes, (luma, *flat), strict=False):
        target = plane_array(plane, layout.depth)
        target.setflags(write=True)
        target[:] = samples
    return picture if pix_fmt == layout.planar else picture.reformat(format=pix_fmt)


def pictures(
    count: int,
    size: tuple[int, int] = SIZE,
    pix_fmt: str = "yuv420p",
    *,
    shot_frames: int = 1_000_000,
    chroma: tuple[int, int] | None = None,
) -> Iterator[VideoFrame]:
    depth = layout_of(pix_fmt).depth
    for number in range(count):
        luma = luma_of(number, size, depth, number // shot_frames)
        yield picture_of(luma, pix_fmt, chroma)


FIELD_MODES: dict[FieldOrder, str] = {
    "progressive": "prog",
    "top first": "tff",
    "bottom first": "bff",
}


def with_fields(
    images: Iterable[VideoFrame], *orders: FieldOrder, aspect: str = "1/1"
) -> Iterator[VideoFrame]:
    """Pictures that say their field order; the last order is that of all the rest."""
    for number, image in enumerate(images):
        order = orders[min(number, len(orders) - 1)]
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(
                width=image.width,
                height=image.height,
                format=image.format,
                time_base=Fraction(1, 1000),
            ),
            graph.add("setfield", FIELD_MODES[order]),
            graph.add("setsar", aspect),
            graph.add("buffersink"),
        ).configure()
        graph.push(image)
        marked = graph.pull()
        assert isinstance(marked, VideoFrame)
        yield marked


def field_orders(path: Path) -> list[FieldOrder]:
    """What each decoded picture says."""
    reader = FieldReader("")
    return [reader.order(picture) for picture in decode(path)]


# Declares a stream, then gives its packets.
Extra = Callable[[OutputContainer], Iterable["Packet[Any]"]]


def make_film(
    path: Path,
    images: Iterable[VideoFrame] | int = 6,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    rate: int = 25,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    prepare: Callable[[VideoStream], None] = lambda stream: None,
    extras: Sequence[Extra] = (),
    **context: Any,
) -> Path:
    """Write a film. images: pictures, or how many to make up. pts: else evenly spaced at `rate`.

    context: attributes of the encoder context. extras: other streams, muxed before the film's.
    """
    if isinstance(images, int):
        images = pictures(images, size, pix_fmt)
    step = round(1 / (rate * time_base))
    if options is None:
        options = LOSSLESS if codec == "libx264" else {}
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        prepare(stream)
        container.metadata.update(metadata or {})
        sources = [extra(container) for extra in extras]
        container.start_encoding()
        for source in sources:
            container.mux(list(source))
        for number, image in enumerate(images):
            image.pts = number * step if pts is None else pts[number]
            image.time_base = time_base
            for name, value in context.items():
                if name.startswith("color"):
                    setattr(image, name, value)
            container.mux(_lasting(stream.encode(image), pts))
        container.mux(_lasting(stream.encode(None), pts))
    return path


def _lasting(packets: list[Packet[Any]], pts: Sequence[int] | None) -> list[Packet[Any]]:
    """Packets that last until the next one is shown; encoders say 1 / rate for all of them."""
    if pts is not None:
        for packet in packets:
            assert packet.pts is not None
            later = [time for time in pts if time > packet.pts]
            packet.duration = later[0] - packet.pts if later else 40
    return packets


def sound(
    codec: str = "aac",
    seconds: float = 0.3,
    *,
    language: str = "eng",
    title: str = "",
    rate: int = 48000,
    bit_rate: int = 0,
) -> Extra:
    """An audio track with noise in it."""

    def add(container: OutputContainer) -> list[Packet[Any]]:
        stream = container.add_stream(codec, rate=rate)
        stream.codec_context.layout = "mono"  # type: ignore[union-attr]
        stream.codec_context.bit_rate = bit_rate
        stream.metadata.update(
            {"language": language, "title": title} if title else {"language": language}
        )
        return [*_sound_packets(stream, seconds, rate)]

    def _sound_packets(stream: Any, seconds: float, rate: int) -> Iterator[Packet[Any]]:
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        chance = np.random.default_rng(5)
        for start in range(0, int(seconds * rate), size):
            noise = chance.uniform(-0.3, 0.3, (1, size)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            if stream.codec_context.format.name != "fltp":
                resampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate)
                frame = resampler.resample(frame)[0]
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return add


def subtitles(codec: str = "subrip", *, language: str = "eng", title: str = "") -> Extra:
    """Two lines of text."""

    def add(container: OutputContainer) -> list[Packet[Any]]:
        stream = container.add_mux_stream(codec)
        stream.time_base = Fraction(1, 1000)
        stream.metadata.update({"language": language} | ({"title": title} if title else {}))
        packets = []
        for start, text in ((0, b"Good evening."), (100, b"It is raining.")):
            data = len(text).to_bytes(2, "big") + text if codec == "mov_text" else text
            packet = Packet(data)
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = 80, Fraction(1, 1000), stream
            packets.append(packet)
        return packets

    return add


def attachment(name: str = "font.ttf", data: bytes = bytes(range(256))) -> Extra:
    def add(container: OutputContainer) -> list[Packet[Any]]:
        container.add_attachment(name, "application/x-truetype-font", data)
        return []

    return add


def still(*, cover: bool) -> Extra:
    """A second video stream of one JPEG; as cover art where `cover`."""

    def add(container: OutputContainer) -> list[Packet[Any]]:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mjpeg") as jpeg:
            stream = jpeg.add_stream("mjpeg", rate=1)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
            jpeg.mux(stream.encode(picture_of(luma_of(3, (32, 32)), "yuvj420p")))
            jpeg.mux(stream.encode(None))
        buffer.seek(0)
        with av.open(buffer, "r", format="mjpeg") as jpeg:
            copy = container.add_stream_from_template(jpeg.streams.video[0])
            if cover:
                copy.disposition = av.stream.Disposition.attached_pic
            packet = next(p for p in jpeg.demux() if p.size)
        picture = Packet(bytes(packet))
        picture.pts = picture.dts = 0
        picture.is_keyframe = True
        picture.time_base, picture.stream = Fraction(1, 1000), copy
        return [picture]

    return add


class Painter:
    """Stands in for the colorizer: at once done, colors by position in the upright picture."""

    def __init__(self, batch_size: int = 4, short_side: int = 32) -> None:
        self.batch_size, self.short_side = batch_size, short_side
        self.device = torch.device("cpu")

    def __str__(self) -> str:
        return f"painter, {self.short_side} px"

    def network_size(self, height: float, width: float) -> tuple[int, int]:
        scale = self.short_side / min(height, width)
        return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """a rises from left to right, b from top to bottom; it is always sure."""
        height, width = gray.shape[-2] // 2, gray.shape[-1] // 2
        a = torch.linspace(-30, 30, width).expand(height, width)
        b = torch.linspace(-30, 30, height)[:, None].expand(height, width)
        ab = torch.stack((a, b)).expand(len(gray), 2, height, width).contiguous()
        return ab, torch.ones_like(ab[:, :1])


class Listener(WorkContext):
    """Hears all that is told of a film. stops: asked with this whether the work is to be left."""

    def __init__(self, stops: Callable[[Listener], bool] = lambda listener: False) -> None:
        self.frames: list[float] = []  # how far into the film each was
        self.segments: list[int] = []
        self.beats = 0
        self._stops = stops

    def advance(self, seconds: float) -> None:
        self.frames.append(seconds)

    def segment_done(self, count: int) -> None:
        self.segments.append(count)

    def heartbeat(self) -> None:
        self.beats += 1

    def should_stop(self) -> bool:
        return self._stops(self)


def color(
    source: Path,
    settings: FilmSettings = EXACT,
    *,
    colorizer: Any = None,
    force: bool = False,
    **options: Any,
) -> Path:
    """Color a film as users do; returns the finished file, which stands beside the source."""
    return color_and_report(source, settings, colorizer=colorizer, force=force, **options)[0]


def color_and_report(
    source: Path,
    settings: FilmSettings = EXACT,
    *,
    colorizer: Any = None,
    force: bool = False,
    stretch: Stretch | None = None,
    **options: Any,
) -> tuple[Path, FilmReport]:
    job = plan_film(source, settings, force=force, stretch=stretch)
    done = source.with_name(f"{source.stem}.color{job.target.suffix}")
    colorizer = colorizer or Painter()
    report = color_film(job, done, colorizer, **options)
    return done, report


def short_segments(settings: FilmSettings, seconds: float) -> FilmSettings:
    """Segments far shorter than users may ask for, so that short films have joins."""
    return settings.model_copy(update={"segment_seconds": seconds, "stride": 1})


def decode(path: Path, index: int | None = None) -> list[VideoFrame]:
    """All frames of the film stream (or of one stream)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0] if index is None else container.streams[index]
        frames = [frame for packet in container.demux(stream) for frame in packet.decode()]
        return [frame for frame in frames if isinstance(frame, VideoFrame)]


def luma_planes(path: Path) -> list[np.ndarray]:
    """Luma codes of all frames in a planar format of the same depth."""
    return [planes(frame)[0] for frame in decode(path)]


def planes(frame: VideoFrame) -> list[np.ndarray]:
    layout = layout_of(frame.format.name)
    if layout.is_rgb:
        return [frame.to_ndarray(format="rgb24")[..., 1]]
    if not layout.in_place:
        frame = frame.reformat(format=layout.planar)
    return [plane_array(plane, layout.depth).copy() for plane in frame.planes]


def times(path: Path, index: int | None = None) -> list[Fraction]:
    """Seconds at which frames are shown, rising."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0] if index is None else container.streams[index]
        assert stream.time_base is not None
        shown = [p.pts for p in container.demux(stream) if p.size and p.pts is not None]
        return sorted(pts * stream.time_base for pts in shown)


def packets(path: Path, index: int) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams[index]) if p.size]


def durations(path: Path) -> list[Fraction]:
    """How long frames are shown, in the order they are shown."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        found = [
            (p.pts, p.duration)
            for p in container.demux(stream)
            if p.size and p.pts is not None and p.duration is not None
        ]
        return [duration * stream.time_base for _, duration in sorted(found)]


def luma_differences(one: Path, other: Path) -> list[int]:
    """The greatest difference of luma codes in each frame; the films have equally many."""
    return [
        int(np.abs(a.astype(int) - b.astype(int)).max())
        for a, b in zip(luma_planes(one), luma_planes(other), strict=True)
    ]


def frame_of(picture: VideoFrame, pts: int = 0, duration: int = 0) -> Frame:
    return Frame(picture, layout_of(picture.format.name).depth, pts, duration)
