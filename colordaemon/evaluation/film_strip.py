"""Shows ways of coloring a film side by side: as a film and as a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from colordaemon.color import Matrix, PixelCode, chroma_planes, decode_ycbcr, ycbcr_to_rgb
from colordaemon.evaluation.films import ColorFrame, Colors
from colordaemon.evaluation.pictures import GRAY, TRUTH
from colordaemon.media.decode import MATRIX_709
from colordaemon.media.drawing import write_png, write_text
from colordaemon.media.probe import FilmInfo

PANELS = (GRAY, "off", "motion", TRUTH)
GUIDED_PANELS = (GRAY, "motion", "guided, motion", TRUTH)
LINES = 8  # frames on a contact sheet
CELL = 320  # pixels, the width of a panel there
_HEADING = 28
_WHITE = 255
_CODE = PixelCode(Matrix.BT709, subsampling=(1, 1))
_RANGE_LIMITED = 1  # FFmpeg's number


class Strip:
    """Draws `panels` side by side of every frame into a film with the source's own times, and keeps
    some of them for a sheet."""

    def __init__(self, container: OutputContainer, info: FilmInfo, panels: Sequence[str]) -> None:
        self._container, self._info, self._panels = container, info, panels
        self._stream: VideoStream | None = None
        self._reformatter = VideoReformatter()
        self._kept = EvenSample(LINES)

    def add(self, frame: ColorFrame, colors: Colors) -> None:
        panels = [paint(frame.gray, colors[name]) for name in self._panels]
        picture = VideoFrame.from_ndarray(np.hstack(panels), "rgb24")
        picture = self._reformatter.reformat(
            picture, format="yuv420p", dst_colorspace=MATRIX_709, dst_color_range=_RANGE_LIMITED
        )
        picture.pts, picture.time_base = frame.pts, self._info.time_base
        stream = self._stream or self._begin(picture.width, picture.height)
        self._container.mux(stream.encode(picture))
        self._kept.add((float(frame.pts * self._info.time_base), panels))

    def _begin(self, width: int, height: int) -> VideoStream:
        stream = self._container.add_stream(
            "libx264", rate=self._info.rate, options={"crf": "17", "preset": "fast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = self._info.time_base
        context.color_range, context.colorspace = _RANGE_LIMITED, MATRIX_709
        context.color_primaries = context.color_trc = MATRIX_709
        self._stream = stream
        return stream

    def finish(self) -> None:
        """Add the pictures that the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))

    def sheet(self) -> np.ndarray:
        """A picture (h, w, 3) of a few frames, evenly spaced."""
        return _sheet(self._panels, self._kept.chosen())


@contextmanager
def strip_of(folder: Path, info: FilmInfo, panels: Sequence[str] = PANELS) -> Iterator[Strip]:
    """Writes STEM.strip.mp4 and STEM.png into the folder at the end of the block. The film has its
    name only once it is whole; after an error nothing is left."""
    film = folder / f"{info.path.stem}.strip.mp4"
    partial = film.with_name(f".{film.name}.partial")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            strip = Strip(container, info, panels)
            yield strip
            strip.finish()
        partial.replace(film)
        write_png(folder / f"{info.path.stem}.png", strip.sheet())
    finally:
        partial.unlink(missing_ok=True)


Line = tuple[float, list[np.ndarray]]  # when a frame is shown, in seconds, and its panels


class EvenSample:
    """Keeps a few of many items, evenly spaced, without knowing how many will come."""

    def __init__(self, count: int) -> None:
        self._count, self._step, self._seen = count, 1, 0
        self._kept: list[Line] = []

    def add(self, item: Line) -> None:
        if self._seen % self._step == 0:
            if len(self._kept) == 2 * self._count:
                self._kept = self._kept[::2]
                self._step *= 2  # this item's turn comes with the new step too
            self._kept.append(item)
        self._seen += 1

    def chosen(self) -> list[Line]:
        """At most `count` of them."""
        number = min(self._count, len(self._kept))
        return [self._kept[i * len(self._kept) // number] for i in range(number)]


@torch.inference_mode()
def paint(gray: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """gray (h, w) 0..1 and ab of any size to (h, w, 3) uint8 sRGB, by way of the planes that a film
    would get."""
    codes = torch.from_numpy(gray) * _CODE.luma_span + _CODE.black
    luma = codes.round().byte()[None, None]
    planes = torch.cat((luma, chroma_planes(luma, torch.from_numpy(ab)[None], _CODE)), dim=1)
    rgb = ycbcr_to_rgb(decode_ycbcr(planes[0], _CODE), _CODE.matrix).clamp(0, 1)
    pixels: np.ndarray = (rgb * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    return pixels


def _sheet(names: Sequence[str], lines: list[Line]) -> np.ndarray:
    """A line for each frame under a heading, (h, w, 3) uint8 sRGB."""
    heading = np.full((_HEADING, len(names) * CELL, 3), _WHITE, np.uint8)
    for number, name in enumerate(names):
        write_text(heading, name, number * CELL + 5, 19)
    drawn = [heading]
    for seconds, panels in lines:
        height = max(1, round(CELL * panels[0].shape[0] / panels[0].shape[1]))
        cells = [cv2.resize(p, (CELL, height), interpolation=cv2.INTER_AREA) for p in panels]
        line = np.hstack(cells)
        write_text(line, f"{seconds:.2f} s", 5, height - 7)
        drawn.append(line.astype(np.uint8, copy=False))
    return np.vstack(drawn)
