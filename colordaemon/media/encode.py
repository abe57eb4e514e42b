"""Encodes one segment of a film into a closed file, from the source's own luma and new chroma."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

from colordaemon.media.captions import CARRIED_IN, Messages, with_messages
from colordaemon.media.codec import EncoderSettings
from colordaemon.media.colorspace import untagged
from colordaemon.media.decode import Frame
from colordaemon.media.fields import FrameMarker
from colordaemon.media.pixels import alpha_at_depth, at_depth, plane_array


class SegmentWriter:
    """Encodes frames of one segment into a file of its own, a closed group of pictures.

    packet_pts lists the pts of every packet in the order they stand in the file, which is the
    order of decoding. Time stamps in the file itself are not relied on. told counts the pictures
    that messages of each name were put into.
    """

    def __init__(self, container: OutputContainer, settings: EncoderSettings) -> None:
        self.settings = settings
        self.packet_pts: list[int] = []
        self.told: Counter[str] = Counter()
        self._container = container
        self._stream = settings.add_to(self._container)
        self._messages: dict[int, Messages] = {}  # by pts, of pictures in the encoder
        self._marker = FrameMarker(settings.width, settings.height, settings.pix_fmt)

    def write(self, frame: Frame, chroma: np.ndarray) -> None:
        """Add a frame with its own luma and these chroma planes (2, H', W') of the same dtype."""
        order = self.settings.order_of(frame.fields)
        picture = self._marker.mark(
            merge_planes(frame, chroma, self.settings), order, self.settings.sample_aspect
        )
        picture.pts, picture.time_base = frame.pts, self.settings.time_base
        picture.duration = frame.duration
        carried = CARRIED_IN.get(self.settings.codec, ())
        if messages := tuple(m for m in frame.messages if m[0] in carried):
            self._messages[frame.pts] = messages
        self.settings.tag(picture)
        self._encode(picture)

    def finish(self) -> None:
        """Add the pictures that the encoder still holds."""
        self._encode(None)

    def _encode(self, picture: VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            assert packet.pts is not None and packet.time_base is not None
            pts = int(packet.pts * packet.time_base / self.settings.time_base)
            if pts in self._messages:
                packet = self._with_messages(packet, self._messages.pop(pts))
            # On a busy machine x265 gives a short segment dts that no muxer takes. The join makes
            # all times anew, so that packets only have to stay in order here.
            packet.pts = packet.dts = len(self.packet_pts)
            self.packet_pts.append(pts)
            self._container.mux(packet)

    def _with_messages(self, packet: Packet[Any], messages: Messages) -> Packet[Any]:
        carrying: Packet[Any] = Packet(
            with_messages(bytes(packet), messages, self.settings.codec, self.settings.rate)
        )
        self.told.update({name for name, _ in messages})
        carrying.time_base, carrying.stream = packet.time_base, packet.stream
        carrying.is_keyframe = packet.is_keyframe
        carrying.duration = packet.duration
        return carrying


@contextmanager
def segment_writer(path: Path, settings: EncoderSettings) -> Iterator[SegmentWriter]:
    """Writes a segment that ends with the block; after an error the file is closed as it is."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(path), "w", format=settings.segment_format, options=options) as container:
        writer = SegmentWriter(container, settings)
        yield writer
        writer.finish()


def merge_planes(frame: Frame, chroma: np.ndarray, settings: EncoderSettings) -> VideoFrame:
    """A picture of the frame's luma and new chroma; the luma buffer is shared where FFmpeg can."""
    depth, source_depth = settings.code.depth, settings.source_depth
    luma_plane = frame.picture.planes[0]
    odd = (
        settings.width % settings.code.subsampling[0]
        or settings.height % settings.code.subsampling[1]
    )
    plain = depth == source_depth and not settings.keeps_alpha
    if plain and not odd and luma_plane.line_size > 0:
        planes = (luma_plane, *(np.ascontiguousarray(plane) for plane in chroma))
        return VideoFrame.from_dlpack(
            planes, format=settings.pix_fmt, width=settings.width, height=settings.height
        )
    picture = VideoFrame(settings.width, settings.height, settings.pix_fmt)
    parts = [at_depth(frame.luma, source_depth, depth), *chroma]
    if settings.keeps_alpha and frame.alpha is not None:
        parts.append(alpha_at_depth(frame.alpha, source_depth, depth))
    for plane, samples in zip(picture.planes, parts, strict=True):
        target = plane_array(plane, depth)
        target.setflags(write=True)
        target[:] = samples
    return picture


def own_chroma(frame: Frame, settings: EncoderSettings) -> np.ndarray:
    """A frame's own chroma planes (2, H', W') in the encoder's code.

    The same codes where the encoder has the layout of the source; converted by FFmpeg otherwise.
    """
    picture, code = frame.picture, settings.code
    if picture.format.name.replace("yuvj", "yuv") != settings.pix_fmt:
        picture = untagged(picture).reformat(format=settings.pix_fmt)
    return np.stack([plane_array(plane, code.depth) for plane in picture.planes[1:3]])
