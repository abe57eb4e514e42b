"""Pixel formats: where luma and alpha are in a decoded frame, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.errors import MediaError

# Transparency is a second picture beside the first one, which FFmpeg's own decoders do not read.
_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@dataclass(frozen=True)
class Layout:
    """What a pixel format holds, and the planar Y'CbCr format with the same luma samples.

    planar: the format frames are brought to; its first plane is the luma. From RGB this is a
    conversion, from everything else a re-packing that keeps every sample.
    subsampling: luma samples per chroma sample (across, down).
    """

    planar: str
    in_place: bool  # the first plane is the luma already
    depth: int
    subsampling: tuple[int, int]
    is_gray: bool
    is_rgb: bool
    has_alpha: bool
    full_range: bool  # by its very name (yuvj…) or because RGB has no other

    def samples(self, width: int, height: int) -> int:
        """How many a picture of this size has, of luma and all else."""
        across, down = self.subsampling
        planes = (1 + self.has_alpha) * width * height
        return planes if self.is_gray else planes + 2 * (width * height // (across * down))

    def bytes_of(self, width: int, height: int) -> int:
        """How much memory a picture of this size takes."""
        return self.samples(width, height) * (2 if self.depth > 8 else 1)


def layout_of(pix_fmt: str) -> Layout:
    """The layout of an FFmpeg pixel format. Raises MediaError for one without luma samples."""
    pixels = av.VideoFormat(pix_fmt, 64, 64)
    depth = max(component.bits for component in pixels.components)
    palette = pix_fmt == "pal8"
    is_rgb = pixels.is_rgb or palette
    if pixels.is_bayer or depth > 16 or "f16" in pix_fmt or pix_fmt.startswith("xyz"):
        raise MediaError(f"pixel format {pix_fmt}: expected Y'CbCr, gray or RGB of 8 to 16 bits")
    is_gray = len(pixels.components) <= 2 and not palette
    depth = max(depth, 8)  # monow and monob have one bit
    subsampling = (1, 1)
    if not is_gray and not is_rgb:
        subsampling = (64 // pixels.chroma_width(64), 64 // pixels.chroma_height(64))
    planar = _gray_name(depth) if is_gray else planar_name(subsampling, depth)
    plain = pix_fmt.replace("yuvj", "yuv").replace("yuva", "yuv")
    return Layout(
        planar=planar,
        in_place=plain == planar or pix_fmt in ("nv12", "nv21", "nv16"),
        depth=depth,
        subsampling=subsampling,
        is_gray=is_gray,
        is_rgb=is_rgb,
        has_alpha=any(component.is_alpha for component in pixels.components),
        full_range=is_rgb or pix_fmt.startswith("yuvj") or pix_fmt in ("monow", "monob"),
    )


_SUBSAMPLING_NAMES = {
    (1, 1): "444",
    (1, 2): "440",
    (2, 1): "422",
    (2, 2): "420",
    (4, 1): "411",
    (4, 4): "410",
}


def planar_name(subsampling: tuple[int, int], depth: int) -> str:
    """The planar Y'CbCr format of this chroma layout and depth."""
    return f"yuv{_SUBSAMPLING_NAMES[subsampling]}p" + ("" if depth == 8 else f"{depth}le")


def with_alpha(pix_fmt: str) -> str:
    """The same planar format with a plane for transparency; it need not exist."""
    return pix_fmt.replace("yuv", "yuva", 1)


def _gray_name(depth: int) -> str:
    return "gray" if depth == 8 else f"gray{depth}le"


def plane_array(plane: av.video.plane.VideoPlane, depth: int) -> np.ndarray:
    """A view (height, width) of a plane, uint8 or uint16. Never write into it: the decoder may
    still look at it to predict other frames."""
    dtype = np.dtype(np.uint8 if depth == 8 else "<u2")
    samples: np.ndarray = np.frombuffer(memoryview(plane), dtype)
    return samples.reshape(-1, plane.line_size // dtype.itemsize)[: plane.height, : plane.width]


def at_depth(luma: np.ndarray, depth: int, wanted: int) -> np.ndarray:
    """Luma codes in more bits, which moves no level, or rounded to fewer."""
    if wanted < depth:
        half = 1 << (depth - wanted - 1)
        rounded: np.ndarray = np.minimum((luma + half) >> (depth - wanted), (1 << wanted) - 1)
        return rounded
    return luma.astype(np.uint16) << (wanted - depth) if wanted > 8 else luma


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """The decoder that reads most of a stream's pictures; usually its own."""
    name = _DECODERS.get(stream.codec_context.name, "")
    if name in av.codecs_available and has_second_picture(stream):
        decoder = av.CodecContext.create(name, "r")
        assert isinstance(decoder, VideoCodecContext)
        return decoder
    return stream.codec_context


def has_second_picture(stream: VideoStream) -> bool:
    """Whether Matroska marks a stream as having a second picture with alpha."""
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
