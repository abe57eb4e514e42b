"""What is measured when nothing is named: gray films and photos, the same on every machine.

Textures as rough as those of photographs (their spectrum falls with the frequency) under a camera
that pans, zooms and stands still, with something that moves in front of it, a cut every few seconds
and grain of film. No encoder gets off too easily with that, and no stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np

from colordaemon.errors import MediaError
from colordaemon.media.demux import open_film
from colordaemon.media.probe import FilmInfo, probe_film

RATE = 24
SHOT_SECONDS = 2.5
PHOTO_SIZE = 320, 240
# Of a clip up to this height: as much as takes a laptop about a minute, with all stages.
_SECONDS = ((720, 10.0), (1080, 5.0))
_LEAST_SECONDS = 2.5
_GRAIN = 2.5  # codes, standard deviation
_MARGIN = 1.4  # the texture is as many times as large as a frame
# Of one shot after the other: share of the frame that passes in a second, and growth in a second.
_MOVES = ((0.10, 0.02, 0.0), (0.0, 0.0, 0.04), (0.0, 0.0, 0.0), (-0.05, 0.04, -0.03))


@dataclass(frozen=True)
class Clip:
    """A film, or its beginning, in a file of its own. own: made here."""

    path: Path
    name: str
    width: int
    height: int
    codec: str
    own: bool


def usual_seconds(height: int) -> float:
    """How much of a film of this height is measured unless something else is wished."""
    return next((seconds for most, seconds in _SECONDS if height <= most), _LEAST_SECONDS)


def make_clip(folder: Path, height: int, seconds: float | None) -> Clip:
    """Make a gray film of 16:9 in h264. seconds: None: the usual ones."""
    seconds = seconds or usual_seconds(height)
    width = 2 * round(height * 16 / 9 / 2)
    path = folder / f"{height}p.mkv"
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "18"}
        stream = container.add_stream("libx264", RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        for number, gray in enumerate(views(width, height, max(1, round(seconds * RATE)))):
            picture = av.VideoFrame.from_ndarray(gray, "gray").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return Clip(path, f"{height}p", width, height, "h264", own=True)


def make_photos(folder: Path, count: int) -> list[Path]:
    """Make gray JPEGs of PHOTO_SIZE, no two alike."""
    width, height = PHOTO_SIZE
    chance = np.random.default_rng(2)
    whole = texture(1024, 1024, chance)
    paths = []
    for number in range(count):
        left, top = chance.integers(1024 - width), chance.integers(1024 - height)
        path = folder / f"{number:05}.jpg"
        cv2.imwrite(str(path), whole[top : top + height, left : left + width])
        paths.append(path)
    return paths


def begin_of(path: Path, seconds: float | None, folder: Path) -> Clip:
    """The first seconds of a film as a file in the folder; the film itself if it is no longer.
    seconds: None: the usual ones.

    Raises MediaError for what is no film, and for one that cannot be cut without encoding it.
    """
    try:
        info = probe_film(path)
    except MediaError:
        from colordaemon.media.photo import is_photo  # with libraries that films do without

        if is_photo(path):
            raise MediaError(f"{path}: found a photo, expected a film") from None
        raise
    seconds = seconds or usual_seconds(info.height)
    if (known := info.duration_seconds or info.container_seconds) and known <= seconds:
        return _clip(info, path, path)
    target = folder / f"begin{path.suffix}"
    try:
        _copy_begin(info, target, seconds)
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(
            f"{path}: its first {seconds:g} s cannot be copied into a file ({error}), expected a "
            "film that is no longer than that, or another container"
        ) from error
    return _clip(probe_film(target), path, target)


def _clip(info: FilmInfo, source: Path, path: Path) -> Clip:
    return Clip(path, source.name, info.width, info.height, info.codec, own=False)


def _copy_begin(info: FilmInfo, target: Path, seconds: float) -> None:
    """Copy packets up to the first that is shown later; frames that need it come after it."""
    with open_film(info.path) as source, av.open(str(target), "w") as container:
        stream: Any = source.streams[info.stream_index]
        copy: Any = container.add_stream_from_template(stream)
        first: int | None = None
        for packet in source.demux(stream):
            if packet.size == 0:
                continue
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                first = time if first is None else first
                if float((time - first) * packet.time_base) >= seconds:
                    return
            packet.stream = copy
            container.mux(packet)


def views(width: int, height: int, count: int) -> Iterator[np.ndarray]:
    """Frames (height, width) uint8."""
    chance = np.random.default_rng(1)
    ground = texture(round(_MARGIN * width), round(_MARGIN * height), chance)
    thing = texture(height // 3, height // 3, chance)
    grain = chance.normal(0, _GRAIN, (height + 64, width + 64)).astype(np.int8)
    frames_of_shot = round(SHOT_SECONDS * RATE)
    for number in range(count):
        shot, within = divmod(number, frames_of_shot)
        view = _view(ground, width, height, shot, within / RATE)
        _put_before(view, thing, number / RATE)
        top, left = chance.integers(64, size=2)
        yield cv2.add(view, grain[top : top + height, left : left + width], dtype=cv2.CV_8U)


def _view(ground: np.ndarray, width: int, height: int, shot: int, seconds: float) -> np.ndarray:
    """Part of the ground, mirrored and darkened otherwise in every shot."""
    across, down, growth = _MOVES[shot % len(_MOVES)]
    scale = 1.1 * (1 - growth * seconds)
    rows, columns = ground.shape
    x = (columns - scale * width) / 2 + across * width * (seconds - SHOT_SECONDS / 2)
    y = (rows - scale * height) / 2 + down * height * (seconds - SHOT_SECONDS / 2)
    if shot // len(_MOVES) % 2 != shot % 2:
        ground = ground[:, ::-1]
    if shot % 2:
        ground = ground[::-1]
    window = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    view: Any = cv2.warpAffine(
        ground, window, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    light = (1.0, 0.7, 0.85)[shot % 3]
    return np.asarray(cv2.convertScaleAbs(view, alpha=light))


def _put_before(view: np.ndarray, thing: np.ndarray, seconds: float) -> None:
    """Something round that goes to and fro, a picture's width in four seconds."""
    side = len(thing)
    height, width = view.shape
    left = round((width - side) * abs((seconds / 4) % 2 - 1))
    top = round((height - side) * (0.5 + 0.3 * np.sin(2 * seconds)))
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side // 2, 255, -1)
    part = view[top : top + side, left : left + side]
    cv2.copyTo(thing, mask, part)


def texture(width: int, height: int, chance: np.random.Generator) -> np.ndarray:
    """Noise (height, width) uint8 with a spectrum about as steep as that of photographs."""
    whole = np.zeros((height, width), np.float32)
    cells = 3
    while cells < min(width, height) / 2:
        size = max(1, cells * width // height), cells
        noise = chance.standard_normal(size[::-1], np.float32)
        whole += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / cells**0.3
        cells *= 2
    spread = whole.std() or 1.0
    return np.asarray((118 + 45 * (whole - whole.mean()) / spread).clip(16, 235).astype(np.uint8))
