"""Samples frames from all over a film: their side data, and whether they have color.

To search and to decode them is most of the work of planning a film, so all who want to know
something of its pictures ask the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from colordaemon.media.colorspace import untagged
from colordaemon.media.fields import FieldOrder, FieldReader
from colordaemon.media.frames import names_beside, names_beside_packet
from colordaemon.media.orientation import Orientation
from colordaemon.media.pixels import planar_name, plane_array
from colordaemon.media.tint import ExistingColor, existing_color
from colordaemon.transfer import Transfer

_PLACES = 12
_MORE_EVERY, _MORE_FRAMES = 2, 3  # captions need not come with every frame


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
    container: InputContainer, stream: VideoStream, first: VideoFrame, transfer: Transfer
) -> Samples:
    """Look at pictures all over a film, whose first one has just been read; where it cannot be
    searched, at its next ones."""
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
    """So many of the next frames at least, if they come; the names of what their packets say beside
    them are added to `beside`."""
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
