"""Chooses the encoder of a film and all its options, once per film.

Segments of a film are joined packet by packet, so every one of them has to come from the same
encoder with the same options and thread count: with different headers x265 decodes no frame at all
and reports no error. Quality is by CRF or QP only; a bitrate target would depend on what came
before the segment.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import av.error
from av.container import OutputContainer
from av.video.stream import VideoStream

from colordaemon.color import PixelCode
from colordaemon.config import Codec, FilmSettings
from colordaemon.errors import ConfigError, MediaError
from colordaemon.media.colorspace import ColorTags, written_code, written_tags
from colordaemon.media.encoders import ENCODERS, NVENC, WIDE_PIXELS, Encoder
from colordaemon.media.fields import FieldOrder
from colordaemon.media.inventory import Note
from colordaemon.media.pixels import layout_of, planar_name, with_alpha
from colordaemon.media.probe import FilmInfo

THREADS = 4  # enough for 1080p; pinned, because the count may change what an encoder writes

_DEPTHS = (8, 10, 12, 16)
_USUAL = FilmSettings().codec  # used if no codec was asked for
_WITH_ALPHA = frozenset(("prores", "ffv1"))  # no decoder reads that of x265
# AVFieldOrder
_FIELD_ORDERS: dict[FieldOrder, int] = {"progressive": 1, "top first": 2, "bottom first": 3}
# x265 can only say that a whole picture is a single field.
_WITHOUT_FIELDS = frozenset(("hevc",))
# These keep fields, but only the container says so.
_SILENT_ON_FIELDS = frozenset(("av1", "dnxhr"))

# Where a codec cannot hold the film's samples unchanged, these are tried in turn.
_FALLBACKS: tuple[Codec, ...] = ("hevc", "ffv1")
_INTERLACED_FALLBACKS: tuple[Codec, ...] = ("h264", "ffv1")
_SAME_SCALE = {"h264", "hevc"}  # these share the meaning of crf and the names of presets


@dataclass(frozen=True)
class EncoderSettings:
    """Everything an encoder is told; plain and picklable, the same for all segments of a film.

    source_depth: bits of the luma that comes in. It is shifted up to the depth of `pix_fmt` where
    a codec knows only deeper ones, which moves no limited-range level; what was ProRes before is
    rounded to the bits that ProRes is encoded from.
    """

    codec: Codec
    pix_fmt: str
    source_depth: int
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    sample_aspect: Fraction
    field_order: FieldOrder
    tags: ColorTags
    code: PixelCode
    options: tuple[tuple[str, str], ...]
    on_gpu: bool = False

    @property
    def encoder(self) -> Encoder:
        return (NVENC if self.on_gpu else ENCODERS)[self.codec]

    @property
    def keeps_alpha(self) -> bool:
        return layout_of(self.pix_fmt).has_alpha

    @property
    def segment_format(self) -> str:
        return self.encoder.segment_format

    @property
    def memory_bytes(self) -> int:
        """About how much memory the encoder takes."""
        layout = layout_of(self.pix_fmt)
        samples = layout.samples(self.width, self.height)
        return self.encoder.memory_bytes(dict(self.options), samples, layout.depth)

    @property
    def reorders(self) -> bool:
        """Whether pictures may be coded in another order than they are shown."""
        return self.codec in ("h264", "hevc") and dict(self.options).get("bf") != "0"

    def order_of(self, order: FieldOrder) -> FieldOrder:
        """What the result says of a picture that has this field order."""
        if self.codec == "ffv1":  # holds whole pictures and interlaced ones side by side
            return order
        if self.codec == "prores" and "progressive" not in (order, self.field_order):
            return order
        return self.field_order  # x264 changes its mind too early, by what waits in it

    def code_of(self, order: FieldOrder) -> PixelCode:
        """How a picture that has this field order is written."""
        return replace(self.code, interlaced=self.order_of(order) != "progressive")

    def add_to(self, container: OutputContainer) -> VideoStream:
        """Declare the film stream in a container, with these settings."""
        siting = {"chroma_sample_location": str(self.tags.siting)}
        stream = container.add_stream(
            self.encoder.name, rate=self.rate, options=siting | dict(self.options)
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = self.width, self.height, self.pix_fmt
        context.time_base = self.time_base
        context.sample_aspect_ratio = self.sample_aspect
        context.thread_count = THREADS
        self.tag(context)
        # Without it FFV1 and ProRes files do not say that they are interlaced.
        context.field_order = _FIELD_ORDERS[self.field_order]
        return stream

    def tag(self, target: Any) -> None:
        """Set the color tags of a codec context or a frame; ProRes reads them from the frames."""
        target.color_range, target.colorspace = self.tags.range, self.tags.matrix
        target.color_primaries, target.color_trc = self.tags.primaries, self.tags.transfer


def choose_encoder(info: FilmInfo, settings: FilmSettings) -> tuple[EncoderSettings, list[str]]:
    """Choose the encoder for a film; also returns remarks where it differs from the settings.

    Every choice is opened once, because encoders have limits of their own on sizes and formats.
    Raises ConfigError for options that the encoder does not know (FFmpeg itself ignores those) or
    does not start with.
    """
    _check_options(ENCODERS[settings.codec].name, settings.encoder_options)
    remarks: list[str] = []
    interlaced = info.field_order != "progressive"
    kind = "interlaced " if interlaced else ""
    picture = f"{kind}{info.layout.depth}-bit {info.width}x{info.height}"
    fallbacks = _INTERLACED_FALLBACKS if interlaced else _FALLBACKS
    for codec in dict.fromkeys((settings.codec, *fallbacks)):
        pix_fmt = _format_for(info, codec)
        if pix_fmt is None:
            continue
        if settings.encode_on == "gpu" and codec == settings.codec:
            found = _on_gpu(info, codec, pix_fmt, settings)
            if isinstance(found, EncoderSettings):
                return found, remarks
            remarks.append(f"encoding on the processor: {found}")
        encoder = _pin(info, codec, pix_fmt, _applicable(settings, codec))
        problem = _refusal(encoder)
        if problem is None:
            if codec != settings.codec:
                told = f"encoding {picture} as {codec}, because {settings.codec} suits it badly"
                remarks.append(told if settings.codec != _USUAL else Note(told))
            if interlaced and codec in _SILENT_ON_FIELDS:
                remarks.append(f"fields are kept, but in {codec} only the container says so")
            return encoder, remarks
        usual = _pin(info, codec, pix_fmt, FilmSettings(codec=settings.codec))
        if usual != encoder and _refusal(usual) is None:
            raise ConfigError(
                f"film: {codec} does not start with preset {settings.preset}, crf {settings.crf} "
                f"and encoder_options {settings.encoder_options} ({problem})"
            )
    raise MediaError(f"{info.path}: no encoder holds {picture}")


def _applicable(settings: FilmSettings, codec: Codec) -> FilmSettings:
    """The user's settings, without those that mean something else to this codec."""
    if codec == settings.codec:
        return settings
    foreign: dict[str, object] = {"encoder_options": {}}
    if not {codec, settings.codec} <= _SAME_SCALE:
        foreign |= {"crf": None, "preset": None}
    return settings.model_copy(update=foreign)


def _on_gpu(
    info: FilmInfo, codec: Codec, pix_fmt: str, settings: FilmSettings
) -> EncoderSettings | str:
    """The encoder of the GPU, or why it is not to be had."""
    if codec not in NVENC:
        return f"NVENC knows no {codec}"
    if pix_fmt != "yuv420p" or info.field_order != "progressive":
        return f"NVENC is used for yuv420p without fields, and this becomes {pix_fmt}" + (
            "" if info.field_order == "progressive" else " with fields"
        )
    if info.light.option(codec):
        return "NVENC does not write the light levels that the film has"
    if settings.preset is not None or settings.encoder_options:
        return "preset and encoder_options are not for NVENC"
    encoder = _pin(info, codec, pix_fmt, settings, on_gpu=True)
    problem = _fails(encoder)
    return encoder if problem is None else f"{encoder.encoder.name} fails ({problem})"


def _fails(encoder: EncoderSettings) -> str | None:
    """Why an encoder cannot encode a picture, None if it can."""
    try:
        with av.open(io.BytesIO(), "w", format=encoder.segment_format) as trial:
            stream = encoder.add_to(trial)
            picture = av.VideoFrame(encoder.width, encoder.height, encoder.pix_fmt)
            for plane in picture.planes:
                plane.update(bytes(plane.buffer_size))
            picture.pts, picture.time_base = 0, encoder.time_base
            packets = [*stream.encode(picture), *stream.encode(None)]
    except (av.error.FFmpegError, ValueError) as error:
        return str(error)
    return None if packets else "it gives no packet"


def _pin(
    info: FilmInfo, codec: Codec, pix_fmt: str, settings: FilmSettings, *, on_gpu: bool = False
) -> EncoderSettings:
    layout = layout_of(pix_fmt)
    code = written_code(info.code, layout, codec)
    stretch = info.orientation.stretch
    return EncoderSettings(
        codec=codec,
        pix_fmt=pix_fmt,
        source_depth=info.layout.depth,
        width=info.width,
        height=info.height,
        time_base=info.time_base,
        rate=info.rate,
        # If the display matrix stretches, FFmpeg takes the aspect from it, and the matrix stays.
        sample_aspect=Fraction(0) if info.sample_aspect == stretch != 1 else info.sample_aspect,
        field_order=info.field_order,
        tags=written_tags(info.tags, code, info.height, info.rate),
        code=code,
        options=tuple(sorted(_options(info, codec, pix_fmt, settings, on_gpu).items())),
        on_gpu=on_gpu,
    )


def _options(
    info: FilmInfo, codec: Codec, pix_fmt: str, settings: FilmSettings, on_gpu: bool
) -> dict[str, str]:
    encoder = (NVENC if on_gpu else ENCODERS)[codec]
    options = dict(encoder.options)
    if settings.crf is not None and encoder.quality:
        options[encoder.quality] = str(settings.crf)
    if settings.preset is not None and encoder.preset:
        options[encoder.preset] = settings.preset
    if codec == "dnxhr":
        options["profile"] = _dnxhr_profile(pix_fmt)
    if codec == "prores" and "444" in pix_fmt:
        options["profile"] = "4444"
    if codec == "h264" and info.container == "mxf":
        options["bf"] = "0"  # FFmpeg does not write into MXF in which order pictures are shown
    _add_interlacing(options, codec, info.field_order)
    for name, value in info.light.option(codec).items():
        options[name] = ":".join(filter(None, (options.get(name), value)))
    if "qp" in settings.encoder_options:
        options.pop("crf", None)  # x264 would heed crf alone
    for name, value in settings.encoder_options.items():
        # Lists of an encoder's own parameters are joined; ours come last, so they take effect.
        ours = options.get(name) if name.endswith("-params") else None
        options[name] = f"{value}:{ours}" if ours else value
    if info.width * info.height > WIDE_PIXELS:
        layout = layout_of(pix_fmt)
        return encoder.bounded(options, layout.samples(info.width, info.height), layout.depth)
    return options


def _refusal(encoder: EncoderSettings) -> str | None:
    """Why an encoder does not start with these settings, None if it does."""
    try:
        with av.open(io.BytesIO(), "w", format=encoder.segment_format) as trial:
            encoder.add_to(trial)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError) as error:
        return str(error)
    return None


def _format_for(info: FilmInfo, codec: Codec) -> str | None:
    """The encoder's pixel format nearest above the film's chroma layout and depth, if any."""
    interlaced = info.field_order != "progressive"
    if codec == "h264" and info.layout.depth > 8 and not interlaced:
        return None  # few players know 10-bit H.264; but those of broadcasters do, with fields
    if interlaced and codec in _WITHOUT_FIELDS:
        return None
    encoder = av.Codec(ENCODERS[codec].name, "w")
    known = {pixels.name for pixels in encoder.video_formats or ()}
    layout = info.layout
    # Gray gets 4:2:0; layouts that only old tape formats know get the next finer one. A coarser one
    # is the last resort: color is new anyway, only luma must not change.
    wanted = (2, 2) if layout.is_gray else layout.subsampling
    choices = sorted(((2, 2), (2, 1), (1, 1)), key=lambda s: s[0] > wanted[0] or s[1] > wanted[1])
    if codec == "prores" and info.code.full_range:
        return None  # it knows limited range only, and levels must not move
    if codec in ("h264", "hevc"):  # they cannot crop half a chroma sample
        choices = [s for s in choices if info.width % s[0] == 0 and info.height % s[1] == 0]
    if interlaced and codec == "h264":
        choices = [s for s in choices if info.height % (2 * s[1]) == 0] or choices
    depths = [depth for depth in _DEPTHS if depth >= layout.depth]
    if codec == info.codec == "prores" and layout.depth == 12:
        depths = [10]  # decoded to more bits than it is encoded from
    names = [planar_name(subsampling, depth) for depth in depths for subsampling in choices]
    if layout.has_alpha and codec in _WITH_ALPHA:
        names = [*map(with_alpha, names), *names]
    return next((name for name in names if name in known), None)


def _add_interlacing(options: dict[str, str], codec: str, order: FieldOrder) -> None:
    if order == "progressive":
        return
    if codec == "h264":
        options["x264-params"] = "tff=1" if order == "top first" else "bff=1"
    if codec in ("h264", "prores"):
        options["flags"] = "+ildct+ilme"


def _dnxhr_profile(pix_fmt: str) -> str:
    if "444" in pix_fmt:
        return "dnxhr_444"
    return "dnxhr_hq" if pix_fmt == "yuv422p" else "dnxhr_hqx"


def _check_options(encoder: str, options: dict[str, str]) -> None:
    supported = av.CodecContext.create(encoder, "w").supported_options
    names = {option.name for option in (*supported.generic, *supported.private)}
    unknown = sorted(set(options) - names)
    if unknown:
        raise ConfigError(
            f"film.encoder_options: {encoder} has no option {', '.join(unknown)}; "
            f"it has {', '.join(sorted(option.name for option in supported.private))}"
        )
