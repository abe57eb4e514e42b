"""The alpha plane of films: how opaque each pixel is."""

from __future__ import annotations

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.media.pixels import layout_of, plane_array

# Transparency is a second picture beside the first one, which FFmpeg's own decoders do not read.
_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """The decoder that reads most of a stream's pictures; usually its own."""
    name = _DECODERS.get(stream.codec_context.name, "")
    if name in av.codecs_available and has_second_picture(stream):
        decoder = av.CodecContext.create(name, "r")
        assert isinstance(decoder, VideoCodecContext)
        return decoder
    return stream.codec_context


def has_second_picture(stream: VideoStream) -> bool:
    """Whether Matroska says so of a stream."""
    return stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"


def alpha_of(picture: VideoFrame) -> np.ndarray:
    """How opaque a picture is, (H, W) uint8 or uint16, in the bits of its own format."""
    name, depth = picture.format.name, layout_of(picture.format.name).depth
    if name.startswith("ya"):  # gray and alpha by turns
        order = ">" if name.endswith("be") else "<"
        samples = np.frombuffer(memoryview(picture.planes[0]), f"{order}u{1 if depth == 8 else 2}")
        pairs = samples.reshape(picture.height, -1)[:, : 2 * picture.width]
        return pairs[:, 1::2].astype(np.uint8 if depth == 8 else np.uint16)
    if not name.startswith(("yuva", "gbrap")):  # packed; to Y'CbCr, FFmpeg would change a few
        picture = picture.reformat(format="gbrap" if depth == 8 else "gbrap16le")
    elif name.endswith("be"):
        picture = picture.reformat(format=f"{name[:-2]}le")
    return plane_array(picture.planes[3], depth)


def alpha_at_depth(alpha: np.ndarray, depth: int, wanted: int) -> np.ndarray:
    """Opaque stays opaque: the upper bits are repeated below."""
    if wanted <= depth:
        return alpha >> (depth - wanted)
    wide = alpha.astype(np.uint16) << (wanted - depth)
    return wide | wide >> depth
