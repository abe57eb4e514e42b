"""Fields of interlaced pictures: which of the two is shown first, and how frames are marked.

PyAV knows whether a decoded picture is interlaced, but can neither read which field comes first nor
write anything of it. Filters can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from typing import Literal

import av.error
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

FieldOrder = Literal["progressive", "top first", "bottom first"]
# What FFmpeg's filter calls the field orders.
_MODES: dict[FieldOrder, str] = {"progressive": "prog", "top first": "tff", "bottom first": "bff"}
# AVFieldOrder: in 2 and 5 the top field is shown first, in 3 and 4 the bottom field.
_DECLARED: dict[int, FieldOrder] = {
    2: "top first",
    3: "bottom first",
    4: "bottom first",
    5: "top first",
}
# Decoders of these know the fields of each picture. For others only the container may know.
_SAYING = frozenset(("h264", "hevc", "mpeg1video", "mpeg2video", "vc1", "dvvideo", "prores"))
_MOSTLY = 0.75  # of the pictures


def fields_are_pictures(codec: str) -> bool:
    """Whether its decoder makes a picture of each field, and calls only those interlaced."""
    return codec == "hevc"


class FieldReader:
    """Tells the field order of decoded pictures of a codec."""

    def __init__(self, codec: str) -> None:
        self._are_pictures = fields_are_pictures(codec)
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def order(self, picture: VideoFrame) -> FieldOrder:
        if self._are_pictures or not picture.interlaced_frame:
            return "progressive"
        shape = (picture.width, picture.height, picture.format.name)
        if self._graph is None or shape != self._shape:
            self._graph, self._shape = (
                _graph(shape, ("select", "eq(interlace_type,TOPFIRST)")),
                shape,
            )
        self._graph.push(picture)
        try:
            self._graph.pull()
        except av.error.BlockingIOError:
            return "bottom first"
        return "top first"


class FrameMarker:
    """Gives frames a sample aspect ratio and a field order, for encoders that read them there."""

    def __init__(self, width: int, height: int, pix_fmt: str) -> None:
        self._shape = width, height, pix_fmt
        self._graph = cache(self._new_graph)

    def mark(self, picture: VideoFrame, order: FieldOrder, aspect: Fraction) -> VideoFrame:
        graph = self._graph(order, aspect)
        graph.push(picture)
        marked = graph.pull()
        assert isinstance(marked, VideoFrame)
        return marked

    def _new_graph(self, order: FieldOrder, aspect: Fraction) -> Graph:
        ratio = f"{aspect.numerator}/{aspect.denominator}"
        return _graph(self._shape, ("setsar", ratio), ("setfield", _MODES[order]))


def film_order(orders: Iterable[FieldOrder], codec: str, declared: int) -> tuple[FieldOrder, bool]:
    """The field order of a film, and whether its pictures say it themselves.

    orders: of pictures from all over it. declared: AVFieldOrder of the container or codec.
    """
    counts = Counter(orders)
    interlaced = [order for order, _ in counts.most_common() if order != "progressive"]
    if interlaced:
        # Combing is worse than whole pictures that are split into fields.
        is_mostly_whole = counts["progressive"] > _MOSTLY * counts.total()
        return "progressive" if is_mostly_whole else interlaced[0], True
    if codec in _SAYING:
        return "progressive", True
    return _DECLARED.get(declared, "progressive"), False


def _graph(shape: tuple[int, int, str], *filters: tuple[str, str]) -> Graph:
    width, height, pix_fmt = shape
    graph = Graph()
    source = graph.add_buffer(
        width=width,
        height=height,
        format=VideoFormat(pix_fmt, width, height),
        time_base=Fraction(1, 1000),
    )
    chain = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(source, *chain, graph.add("buffersink")).configure()
    return graph
