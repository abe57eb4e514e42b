"""Evaluates models on color pictures: strip the color, color them again, compare.

Two passes, because ΔE@70 needs the mean chroma of all outputs before it can score the first one.
The first runs the networks, as for results, and keeps what they say on disk; running them twice
would double the time. The second reads the pictures again, which is cheap, and scores them. Memory
does not grow with the number of pictures.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from colordaemon.color import lightness_to_gray, rgb_to_lab
from colordaemon.errors import DataError, Interrupted
from colordaemon.evaluation.metrics import chroma
from colordaemon.evaluation.scores import (
    VIEW_SIDE,
    Row,
    RowSum,
    Truth,
    chroma_factor,
    read_pixels,
    shrunk,
    truth_of,
)
from colordaemon.network.colorizer import Colorizer
from colordaemon.pictures.dataset import Picture, find_pictures, readable, sources_of, split

log = logging.getLogger(__name__)

TOGETHER = 32  # pictures that are in memory at once, so that equal sizes can share a batch
REPORT_SECONDS = 30.0
ALL = "all pictures"
GRAY, MEAN_COLOR, TRUTH = "left gray", "mean color", "truth"


class SavedPredictions:
    """One colorizer's ab of picture after picture, in a temporary file instead of memory; a context
    manager, for that file.

    Float16, at the network's own size: 65 kB for a square picture at 256 px, so 3 GB for 50,000.
    Its rounding, 0.03 ab units at the most, is far below what any score shows.
    """

    def __init__(self, colorizer: Colorizer) -> None:
        self.colorizer = colorizer
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self._places: list[tuple[int, tuple[int, ...]]] = []

    def __enter__(self) -> SavedPredictions:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def extend(self, grays: Sequence[Tensor]) -> None:
        """Color pictures (1, 1, H, W) in 0..1 and remember them as the next ones."""
        for ab in predict_each(self.colorizer, grays):
            self._places.append((self._file.seek(0, 2), tuple(ab.shape)))
            self._file.write(ab.half().cpu().numpy().tobytes())  # waits for the GPU

    def at_size(self, number: int, size: tuple[int, int]) -> Tensor:
        """The ab of a picture, enlarged as for a result: (1, 2, *size) float32."""
        place, shape = self._places[number]
        self._file.seek(place)
        values = np.frombuffer(self._file.read(2 * int(np.prod(shape))), np.float16)
        ab = torch.from_numpy(values.reshape(shape).astype(np.float32)).to(self.colorizer.device)
        return functional.interpolate(ab, size, mode="bicubic", align_corners=False)


def predict_each(colorizer: Colorizer, grays: Sequence[Tensor]) -> list[Tensor]:
    """The ab (1, 2, h, w) of pictures (1, 1, H, W) in 0..1, those of equal size in one batch."""
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, gray in enumerate(grays):
        alike[tuple(gray.shape)].append(number)
    found: dict[int, Tensor] = {}
    for numbers in alike.values():
        batch = colorizer.predict_ab(torch.cat([grays[number] for number in numbers]))
        found.update(zip(numbers, batch.unsqueeze(1), strict=True))
    return [found[number] for number in range(len(grays))]


def gray_view(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 sRGB to the gray of equal lightness that a network is given.

    (1, 1, h, w) in 0..1, the whole picture. Large photos are shrunk first, as they are for results.
    """
    return lightness_to_gray(rgb_to_lab(shrunk(pixels, VIEW_SIDE))[:, :1])


@dataclass(frozen=True)
class Table:
    """The rows of one label, or of all pictures together."""

    label: str
    pictures: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Evaluation:
    """Tables, that of all pictures first; and every picture's CIEDE2000 under the first model.

    Rows: the picture left gray; painted with the mean color of its truth, which is the best that
    one color a picture can do; by each model; and the truth itself, whose ΔE@70 is the price of
    having 70 % of the chroma with every hue right.
    """

    tables: tuple[Table, ...]
    delta_e: tuple[tuple[Picture, float], ...]


def choose_pictures(
    folder: Path,
    subset: str | None,
    held_out: float | None,
    limit: int | None,
    sources: Sequence[str] = (),
) -> tuple[list[Picture], list[str]]:
    """Pictures to evaluate, and the names of those that cannot be read. Raises DataError.

    subset: one label. held_out: only what training leaves aside with this share. limit: an evenly
    spaced sample, always the same. sources: only pictures of these, if any are named.
    """
    pictures = find_pictures(folder, subset)
    if sources:
        named = zip(pictures, sources_of(folder, pictures, sources), strict=True)
        pictures = [picture for picture, source in named if source in sources]
    if held_out is not None:
        pictures = split(pictures, held_out)[1]
    if not pictures:
        raise DataError(f"{folder}: training holds none of its few pictures out; take them all")
    if limit is not None and limit < len(pictures):
        pictures = [pictures[i * len(pictures) // limit] for i in range(limit)]
    good, unreadable = readable(pictures)
    for name in unreadable:
        log.warning("%s: skipped, it cannot be read as a picture", name)
    if not good:
        raise DataError(f"{folder}: none of {len(pictures)} pictures can be read")
    return good, unreadable


def evaluate_pictures(
    pictures: Sequence[Picture],
    colorizers: Sequence[tuple[str, Colorizer]],
    *,
    stop: Event | None = None,
) -> Evaluation:
    """Score colorizers (at least one, each with its row's name) on readable pictures.

    Raises Interrupted once `stop` is set.
    """
    watch = _Watch(len(pictures), stop or Event())
    device = colorizers[0][1].device
    with ExitStack() as files:
        predictions = [
            files.enter_context(SavedPredictions(colorizer)) for _, colorizer in colorizers
        ]
        names = [GRAY, MEAN_COLOR, *(name for name, _ in colorizers), TRUTH]
        chromas = _color(pictures, predictions, device, watch)
        factors = [chroma_factor(mean, chromas[-1]) for mean in chromas]
        sums: dict[str, list[RowSum]] = {}
        delta_e: list[tuple[Picture, float]] = []
        with one_thread():
            for number, picture in enumerate(pictures):
                watch.count("scored", number)
                rows = sums.setdefault(picture.label, _rows(names, factors))
                truth = truth_of(read_pixels(picture), device)
                candidates = _candidates(number, truth, predictions)
                errors = [row.add(ab, truth) for row, ab in zip(rows, candidates, strict=True)]
                delta_e.append((picture, errors[2]))
    return Evaluation(tuple(_tables(sums, names, factors)), tuple(delta_e))


def _color(
    pictures: Sequence[Picture],
    predictions: Sequence[SavedPredictions],
    device: torch.device,
    watch: _Watch,
) -> list[float]:
    """The first pass: have every picture colored; returns the mean chroma of each row."""
    chromas: Tensor | float = 0.0
    for first in range(0, len(pictures), TOGETHER):
        watch.count("colored", first)
        pixels = [read_pixels(picture) for picture in pictures[first : first + TOGETHER]]
        grays = [gray_view(picture) for picture in pixels]
        for prediction in predictions:
            prediction.extend(grays)
        for number, picture in enumerate(pixels, first):
            candidates = _candidates(number, truth_of(picture, device), predictions)
            chromas = chromas + torch.cat([chroma(ab) for ab in candidates]).double()
    assert isinstance(chromas, Tensor)
    means: list[float] = (chromas / len(pictures)).tolist()
    return means


def _candidates(number: int, truth: Truth, predictions: Sequence[SavedPredictions]) -> list[Tensor]:
    """The ab (1, 2, h, w) of a picture in each row, in the order of the rows."""
    mean = truth.ab.mean(dim=(2, 3), keepdim=True)
    size = truth.ab.shape[2], truth.ab.shape[3]
    said = [prediction.at_size(number, size) for prediction in predictions]
    return [torch.zeros_like(truth.ab), mean.expand_as(truth.ab), *said, truth.ab]


def _rows(names: Sequence[str], factors: Sequence[float | None]) -> list[RowSum]:
    return [RowSum(name, factor) for name, factor in zip(names, factors, strict=True)]


def _tables(
    sums: dict[str, list[RowSum]], names: Sequence[str], factors: Sequence[float | None]
) -> Iterator[Table]:
    """All pictures together, then each label if there are several."""
    whole = _rows(names, factors)
    for rows in sums.values():
        for total, row in zip(whole, rows, strict=True):
            total.merge(row)
    yield _table(ALL, whole)
    if len(sums) > 1:
        for label in sorted(sums):
            yield _table(label, sums[label])


def _table(label: str, rows: Sequence[RowSum]) -> Table:
    truth = rows[-1]
    return Table(label, truth.count, tuple(row.row(truth) for row in rows))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the CPU score with one thread.

    Scores are hundreds of small operations. On a busy machine, where every one of them has to wait
    for the last of its threads, a row took 75 ms with two threads and 16 ms with one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Watch:
    """Logs the progress of an evaluation, and ends it when a stop is requested."""

    def __init__(self, total: int, stop: Event) -> None:
        self.total, self.stop = total, stop
        self._said = time.monotonic()

    def count(self, done: str, number: int) -> None:
        if self.stop.is_set():
            raise Interrupted(f"stopped after {number} of {self.total} pictures were {done}")
        if time.monotonic() - self._said > REPORT_SECONDS:
            self._said = time.monotonic()
            log.info("%d of %d pictures %s", number, self.total, done)
