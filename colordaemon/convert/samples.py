"""Small pictures of a source and of its result, to be looked at side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyvips

from colordaemon.film.stills import frames_near
from colordaemon.media.decode import Frame
from colordaemon.media.photo import is_photo
from colordaemon.media.photo_file import PhotoFile, photo_format
from colordaemon.media.photo_pixels import upright
from colordaemon.media.probe import FilmInfo, probe_film
from colordaemon.media.stills import PhotoFormat
from colordaemon.media.stretch import Stretch

SIDE = 720  # pixels of the longer side, at most
# Decoded to a smaller size at once, in a fraction of the time.
_SHRINKING = (PhotoFormat.JPEG, PhotoFormat.WEBP)
_GROUND = 200  # the gray behind what is transparent
Sample = tuple[np.ndarray, np.ndarray]


def samples(
    source: Path, result: Path, count: int, stretch: Stretch | None = None
) -> Iterator[Sample]:
    """Pairs of pictures (H, W, 3) uint8 sRGB, before and after: of the first page of a photo, or of
    `count` frames of a film, evenly spread. stretch: of the source that the result is of.

    Raises MediaError and OSError.
    """
    if is_photo(source):
        yield _page(source), _page(result)
        return
    before, after = probe_film(source, stretch=stretch), probe_film(result)
    seconds, first = before.wanted_seconds or 0.0, before.start_seconds
    times = [seconds * (2 * number + 1) / (2 * count) for number in range(count)]
    there = frames_near(before, [first + each for each in times])
    pairs = zip(there, frames_near(after, times), strict=True)
    for one, other in pairs:
        yield _frame(one, before), _frame(other, after)


def _page(path: Path) -> np.ndarray:
    """The first page of a photo, upright."""
    if photo_format(path) in _SHRINKING:
        image = pyvips.Image.thumbnail(os.fspath(path), SIDE, height=SIDE, size="down")
        orientation = 1
    else:
        file = PhotoFile(path, accept_damaged=True)
        orientation = file.metadata(0).orientation
        image = file.open_page(0).pixels
        image = image.thumbnail_image(SIDE, height=SIDE, size="down", no_rotate=True)
    image = image.colourspace("srgb").cast("uchar")
    if image.hasalpha():
        image = image.flatten(background=_GROUND)
    return np.ascontiguousarray(upright(image.extract_band(0, n=3).numpy(), orientation))


def _frame(frame: Frame, info: FilmInfo) -> np.ndarray:
    """A frame with square pixels, upright."""
    width = info.width * float(info.sample_aspect)
    scale = min(1.0, SIDE / max(width, info.height))
    size = max(1, round(width * scale)), max(1, round(info.height * scale))
    pixels = frame.picture.reformat(*size, format="rgb24").to_ndarray()
    upright: np.ndarray = info.orientation.upright(pixels.transpose(2, 0, 1)).transpose(1, 2, 0)
    return np.ascontiguousarray(upright)
