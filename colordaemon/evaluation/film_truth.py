"""Reads a film in color: gray as the network gets it, and its true color.

Both come from one decoding. The truth is the frame's own chroma, area-shrunk to the size of the
gray and turned to Lab there, then area-averaged to the grid that a network's ab has, half as large.
So lightness is that of the very gray which is colored, and nothing is compared at a size that
smoothing never saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import rgb_to_lab, ycbcr_to_rgb
from colordaemon.errors import DataError, MediaError
from colordaemon.film.analysis import analyzed_frames
from colordaemon.film.shots import Stride
from colordaemon.media.decode import FilmReader, Frame
from colordaemon.media.pixels import layout_of, plane_array
from colordaemon.media.probe import FilmInfo, probe_film
from colordaemon.media.tint import ExistingColor
from colordaemon.network.colorizer import Colorizer
from colordaemon.transfer import Transfer


@dataclass(frozen=True)
class ColorFrame:
    """A frame, upright. gray: (2h, 2w) float32 0..1. luma: (h, w) uint8. lab: (3, h, w) float32,
    the truth. cut: it begins a shot, in the eyes of the detector that production uses.
    """

    pts: int
    gray: np.ndarray
    luma: np.ndarray
    lab: Tensor
    cut: bool


def open_clip(path: Path) -> FilmInfo:
    """What a film is. Raises DataError if it is missing, MediaError if it is no film or has no
    color to compare with."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    info = probe_film(path)
    if info.code.transfer is not Transfer.SDR:
        raise MediaError(
            f"{path}: is {info.code.transfer.value} film, expected SDR to compare with"
        )
    found = info.existing_color
    if found is not ExistingColor.COLOR:
        what = "is black and white" if found is ExistingColor.NONE else "is tinted in one color"
        raise MediaError(f"{path}: {what}, so there is nothing to compare with")
    return info


def color_frames(
    reader: FilmReader, colorizer: Colorizer, seconds: float | None
) -> Iterator[ColorFrame]:
    """The frames that begin within the first `seconds` of a film; None: all."""
    info = reader.info
    start: int | None = None
    for seen in analyzed_frames(reader, colorizer, Stride(1), holds=True):
        start = seen.pts if start is None else start
        if seconds is not None and float((seen.pts - start) * info.time_base) >= seconds:
            return
        assert seen.full is not None and seen.gray is not None  # held, and with a stride of one
        lab = true_lab(seen.full, seen.gray, info)
        yield ColorFrame(seen.pts, seen.gray, seen.luma, lab, seen.cut)


def true_lab(frame: Frame, gray: np.ndarray, info: FilmInfo) -> Tensor:
    """Lab (3, h, w) of a frame whose luma, as the network sees it, is `gray` (2h, 2w)."""
    size = info.orientation.as_stored(gray).shape[::-1]  # width, height as it lies
    code = info.code
    planes = [gray]
    for plane in _chroma(frame):
        # Area is for shrinking; chroma of a small film may have to grow.
        shrinks = plane.shape[1] >= size[0] and plane.shape[0] >= size[1]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = cv2.resize(plane.astype(np.float32), size, interpolation=way)
        planes.append(info.orientation.upright((small - code.neutral) / code.chroma_span))
    rgb = ycbcr_to_rgb(torch.from_numpy(np.stack(planes)), code.matrix).clamp(0, 1)
    lab: Tensor = functional.avg_pool2d(rgb_to_lab(rgb, code.matrix), 2)
    return lab


def _chroma(frame: Frame) -> list[np.ndarray]:
    """The chroma planes (H', W'), Cb then Cr, in the film's own codes."""
    picture = frame.picture
    if len(picture.planes) == 2:  # nv12 and its like, where Cb and Cr take turns
        picture = picture.reformat(format=layout_of(picture.format.name).planar)
    return [plane_array(plane, frame.depth).copy() for plane in picture.planes[1:3]]
