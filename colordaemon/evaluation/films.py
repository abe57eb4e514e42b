"""Evaluates all smoothing modes on a film in color, from one pass of the network over it.

Guesses are handed to every smoother as they come, and a frame is scored as soon as the slowest of
them is done with it. So nothing is kept but what smoothing itself looks ahead, some 100 frames, and
memory does not grow with the film.

The gray that the network gets and the true color come from one decoding. The truth is the frame's
own chroma, area-shrunk to the size of the gray and turned to Lab there, then area-averaged to the
grid that a network's ab has, half as large. So lightness is that of the very gray which is colored,
and nothing is compared at a size that smoothing never saw.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from threading import Event
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from colordaemon.color import rgb_to_lab, ycbcr_to_rgb
from colordaemon.config import Smoothing
from colordaemon.errors import DataError, Interrupted, MediaError
from colordaemon.evaluation.film_scores import FilmRow, FilmRowSum, PassageFinder, Scene, mean_rows
from colordaemon.evaluation.pictures import GRAY, REPORT_SECONDS, TRUTH, one_thread
from colordaemon.evaluation.tables import or_dash, show_tables
from colordaemon.film.analysis import analyzed_frames
from colordaemon.film.shots import Stride
from colordaemon.film.smoothing import Sample, Smoother
from colordaemon.logs import counted
from colordaemon.media.decode import FilmReader, Frame
from colordaemon.media.pixels import layout_of, plane_array
from colordaemon.media.probe import FilmInfo, probe_film
from colordaemon.media.tint import ExistingColor
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.match import make_reference
from colordaemon.network.painter import Painter
from colordaemon.transfer import Transfer

log = logging.getLogger(__name__)

MODES: tuple[Smoothing, ...] = get_args(Smoothing)
GUIDED: tuple[str, ...] = tuple(f"guided, {mode}" for mode in MODES)
ReferenceFrames = Literal["first", "shot"]  # the film's first, or that of each shot
COLUMNS: tuple[tuple[str, Callable[[FilmRow], str]], ...] = (
    ("warp\nab", lambda row: or_dash(row.warp_error, ".2f")),
    ("CDC\n/1000", lambda row: or_dash(_times(row.cdc, 1000), ".2f")),
    ("chroma\n% off", lambda row: or_dash(_times(row.chroma_of_off, 100), ".0f")),
    ("% of\ntruth", lambda row: or_dash(_times(row.chroma_of_truth, 100), ".0f")),
    ("ΔE\n2000", lambda row: f"{row.delta_e:.2f}"),
    ("ΔE\ncut", lambda row: or_dash(row.after_cut, ".2f")),
    ("ghost\nab", lambda row: or_dash(row.ghosting, ".2f")),
    ("ms a\nframe", lambda row: or_dash(row.smoothing_ms, ".1f")),
)


@dataclass(frozen=True)
class ColorFrame:
    """A frame, upright. gray: (2h, 2w) float32 0..1. luma: (h, w) uint8. lab: (3, h, w) float32,
    the truth. cut: it begins a shot, in the eyes of the detector that production uses. rgb: the
    truth of such a frame, (2h, 2w, 3) uint8 sRGB. given: it is a reference in this evaluation.
    """

    pts: int
    gray: np.ndarray
    luma: np.ndarray
    lab: Tensor
    cut: bool
    rgb: np.ndarray | None = None
    given: bool = False


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
        rgb = true_rgb(seen.full, seen.gray, info)
        lab = functional.avg_pool2d(rgb_to_lab(rgb, info.code.matrix), 2)
        pixels = (rgb * 255).round().byte().permute(1, 2, 0).numpy() if seen.cut else None
        yield ColorFrame(seen.pts, seen.gray, seen.luma, lab, seen.cut, pixels)


def true_rgb(frame: Frame, gray: np.ndarray, info: FilmInfo) -> Tensor:
    """sRGB (3, 2h, 2w) 0..1 of a frame whose luma, as the network sees it, is `gray` (2h, 2w)."""
    size = info.orientation.as_stored(gray).shape[::-1]  # width, height as it lies
    code = info.code
    planes = [gray]
    for plane in _chroma(frame):
        # Area is for shrinking; chroma of a small film may have to grow.
        shrinks = plane.shape[1] >= size[0] and plane.shape[0] >= size[1]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = cv2.resize(plane.astype(np.float32), size, interpolation=way)
        planes.append(info.orientation.upright((small - code.neutral) / code.chroma_span))
    return ycbcr_to_rgb(torch.from_numpy(np.stack(planes)), code.matrix).clamp(0, 1)


def _chroma(frame: Frame) -> list[np.ndarray]:
    """The chroma planes (H', W'), Cb then Cr, in the film's own codes."""
    picture = frame.picture
    if len(picture.planes) == 2:  # nv12 and its like, where Cb and Cr take turns
        picture = picture.reformat(format=layout_of(picture.format.name).planar)
    return [plane_array(plane, frame.depth).copy() for plane in picture.planes[1:3]]


@dataclass(frozen=True)
class FilmTable:
    """The rows of a film: left gray, smoothed in each way, and the truth itself.

    cuts: pts of the frames that begin a shot. size: height and width of the ab that is compared.
    """

    clip: str
    frames: int
    cuts: tuple[int, ...]
    size: tuple[int, int]
    rows: tuple[FilmRow, ...]


Colors = dict[str, np.ndarray]  # the ab (2, h, w) of a frame in each row, by the row's name
OnFrame = Callable[[ColorFrame, Colors], None]


class _Way:
    """A smoother whose time is taken, and what it has finished."""

    def __init__(self, mode: Smoothing) -> None:
        self.seconds = 0.0
        self.finished: deque[np.ndarray] = deque()
        self._smoother = Smoother(mode)

    def feed(self, sample: Sample, cut: bool) -> None:
        start = time.perf_counter()
        self.finished.extend(self._smoother.feed(sample, cut))
        self.seconds += time.perf_counter() - start

    def finish(self) -> None:
        start = time.perf_counter()
        self.finished.extend(self._smoother.finish())
        self.seconds += time.perf_counter() - start


class FilmEvaluation:
    """Fed a film's frames with the network's guesses; scores each as soon as it can."""

    def __init__(
        self, on_frame: OnFrame = lambda frame, colors: None, guided: bool = False
    ) -> None:
        """guided: every frame comes with a second guess, one with references."""
        self.on_frame = on_frame
        self.frames = 0
        self.cuts: list[int] = []
        self._guesses = [
            dict(zip(names, map(_Way, MODES), strict=True)) for names in (MODES, GUIDED)
        ]
        del self._guesses[1 + guided :]
        self._ways = {name: way for ways in self._guesses for name, way in ways.items()}
        self._rows = {name: FilmRowSum(name) for name in (GRAY, *self._ways, TRUTH)}
        self._waiting: deque[tuple[ColorFrame, Scene]] = deque()
        self._finder = PassageFinder()
        self._size = 0, 0

    def feed(self, frame: ColorFrame, *samples: Sample) -> None:
        """samples: the guesses for it."""
        passage = self._finder.next(frame.gray, frame.cut)
        self._waiting.append((frame, Scene(frame.lab, passage, frame.cut, frame.given)))
        for ways, sample in zip(self._guesses, samples, strict=True):
            for way in ways.values():
                way.feed(sample, frame.cut)
        self._score()

    def finish(self, clip: str) -> FilmTable:
        """The scores of all frames that were fed."""
        for way in self._ways.values():
            way.finish()
        self._score()
        off, truth = (self._rows[name].shots.value() for name in ("off", TRUTH))
        rows = []
        for name, row in self._rows.items():
            smoothed = self._ways.get(name)  # gray and truth are not
            taken = 1000 * smoothed.seconds / max(1, self.frames) if smoothed else None
            rows.append(row.row(off, truth, taken))
        return FilmTable(clip, self.frames, tuple(self.cuts), self._size, tuple(rows))

    def _score(self) -> None:
        while self._waiting and all(way.finished for way in self._ways.values()):
            frame, scene = self._waiting.popleft()
            truth = scene.lab[1:].numpy()
            colors: Colors = {GRAY: np.zeros_like(truth)}
            colors |= {name: way.finished.popleft() for name, way in self._ways.items()}
            colors[TRUTH] = truth
            for name, row in self._rows.items():
                row.add(colors[name], scene)
            self.on_frame(frame, colors)
            self.frames += 1
            self.cuts += [frame.pts] if frame.cut else []
            self._size = truth.shape[1], truth.shape[2]


def evaluate_film(
    info: FilmInfo,
    colorizer: Colorizer,
    *,
    seconds: float | None = None,
    reference: ReferenceFrames | None = None,
    damaged_percent: float = 2.0,
    on_frame: OnFrame = lambda frame, colors: None,
    stop: Event | None = None,
) -> FilmTable:
    """Color a film without its color in every way and compare.

    seconds: how much of it, None for all. reference: color it in every way once more, with the
    truth of such frames as references; ΔE is that of all others. on_frame: given every frame, in
    order, with what became of it. Raises MediaError, and Interrupted once `stop` is set.
    """
    screening = FilmEvaluation(on_frame, guided=reference is not None)
    guided = _Guided(colorizer, reference) if reference else None
    said, colored = time.monotonic(), 0
    with FilmReader(info, damaged_percent=damaged_percent) as reader:
        for batch in _batches(color_frames(reader, colorizer, seconds), colorizer.batch_size):
            if stop is not None and stop.is_set():
                raise Interrupted(f"{info.path}: stopped after {counted(colored, 'frame')}")
            samples = [_guess(batch, colorizer)]
            if guided:
                batch = guided.marked(batch)
                samples.append(guided.guess(batch))
            colored += len(batch)
            with one_thread():
                for frame, *said_of_it in zip(batch, *samples, strict=True):
                    screening.feed(frame, *said_of_it)
            if time.monotonic() - said > REPORT_SECONDS:
                said = time.monotonic()
                log.info("%s: %s colored", info.path, counted(colored, "frame"))
        with one_thread():
            return screening.finish(str(info.path))


def _batches(frames: Iterator[ColorFrame], size: int) -> Iterator[list[ColorFrame]]:
    while True:
        with one_thread():  # the truth of a frame is small operations too
            batch = list(islice(frames, size))
        if not batch:
            return
        yield batch


class _Guided:
    """Guesses frames, which come in order, with the last frame that is a reference."""

    def __init__(self, colorizer: Colorizer, reference: ReferenceFrames) -> None:
        self._colorizer, self._each_shot = colorizer, reference == "shot"
        self._painter: Painter | None = None
        self._has_begun = False

    def marked(self, batch: list[ColorFrame]) -> list[ColorFrame]:
        """The same frames, those that are references marked as given."""
        first = not self._has_begun
        self._has_begun = True
        return [
            replace(frame, given=frame.cut and (self._each_shot or (first and number == 0)))
            for number, frame in enumerate(batch)
        ]

    def guess(self, batch: list[ColorFrame]) -> list[Sample]:
        """batch: as `marked` returns it."""
        starts = [number for number, frame in enumerate(batch) if frame.given]
        samples: list[Sample] = []
        for start, end in pairwise(sorted({0, *starts, len(batch)})):
            part = batch[start:end]
            if part[0].given:
                assert part[0].rgb is not None  # it begins a shot
                reference = make_reference(self._colorizer, part[0].rgb)
                self._painter = Painter(self._colorizer, [reference])
            assert self._painter is not None  # the film's first frame is a reference
            samples += _guess(part, self._painter)
        return samples


def _guess(batch: list[ColorFrame], colorizer: Colorizer | Painter) -> list[Sample]:
    gray = torch.from_numpy(np.stack([frame.gray for frame in batch])).unsqueeze(1)
    ab, sure = (part.cpu().numpy() for part in colorizer.guess(gray))  # waits for the GPU
    return [Sample(frame.luma, ab[n], sure[n, 0]) for n, frame in enumerate(batch)]


def show_films(tables: Sequence[FilmTable], console: Console) -> None:
    """Print every film's table, and that of the mean of several: drawn on a terminal, as plain
    lines into a file or pipe."""
    titled = [
        (
            f"{table.clip}: {counted(table.frames, 'frame')}, {counted(len(table.cuts), 'shot')}",
            table.rows,
        )
        for table in tables
    ]
    if len(tables) > 1:
        title = f"mean of {len(tables)} films, which weigh the same"
        titled.append((title, mean_rows([table.rows for table in tables])))
    show_tables(titled, COLUMNS, console)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
