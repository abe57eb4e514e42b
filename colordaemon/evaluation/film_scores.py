"""Scores one way of coloring a film against the truth, frame by frame, as a row of a table.

No score stands alone: whatever is averaged long enough is calm (warp error), pale output comes near
the truth (ΔE), gray ghosts little. Only together do they tell calm from smeared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from colordaemon.color import lab_to_rgb
from colordaemon.evaluation.metrics import delta_e_2000
from colordaemon.film.motion import fetched

# A pixel and its way back may differ by this much: Sundaram, Brox & Keutzer 2010, equation 5, as in
# the warp error of Lai et al. 2018.
RELATIVE_SLIP, ABSOLUTE_SLIP = 0.01, 0.5
_SMALLEST = 16  # pixels a side, which DIS wants
AFTER_CUT = 6  # frames, the cut's own included: those that a moving average gets wrong
CDC_STEPS = (1, 2, 4)  # frames
CDC_BINS = 256


@dataclass(frozen=True)
class Passage:
    """From a frame's ab to that of the frame before.

    places: (h, w, 2) float32, x and y there. visible: (h, w) bool, seen there as a whole.
    uncovered: (h, w) bool, for the most part not seen there: something lay over it or it came in at
    the edge. Pixels at outlines are neither.
    """

    places: np.ndarray
    visible: np.ndarray
    uncovered: np.ndarray

    def fetch(self, values: np.ndarray) -> np.ndarray:
        """What values (h, w, n) of the frame before become in this one."""
        return fetched(values, self.places)


class PassageFinder:
    """Finds where each pixel was in the frame before. Fed the gray of one frame after the other;
    not to be shared by threads.

    The measurement must not have the errors of what it measures. Smoothing follows DIS in its
    fastest preset at the size of ab; here its medium preset runs at the size of the gray, twice as
    large, where it descends to finer patches and refines them (Kroeger et al. 2016, table 1).
    Farnebäck's flow would differ even more, but its windows blur the outlines of things: of a
    textured square that moved 8 px it called over four times the pixels uncovered that were, this
    one a good two.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._last: np.ndarray | None = None

    def next(self, gray: np.ndarray, cut: bool) -> Passage | None:
        """gray: (h, w) float32 0..1, even sides. None for the first frame of a shot (cut)."""
        codes = (gray * 255).round().clip(0, 255).astype(np.uint8)
        last, self._last = self._last, codes
        if cut or last is None:
            return None
        back, forth = self._flow(codes, last), self._flow(last, codes)
        return passage_along(back, forth)

    def _flow(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        flow = np.zeros((*one.shape, 2), np.float32)
        if min(one.shape) < _SMALLEST:
            return flow
        return np.asarray(self._dis.calc(one, other, flow))


def passage_along(back: np.ndarray, forth: np.ndarray) -> Passage:
    """From flow (2h, 2w, 2) to the frame before and from there, both in pixels of the gray."""
    height, width = back.shape[:2]
    x, y = cv2.split(_grid(height, width) + back)
    there = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    slip = _squared(back + there)
    same = slip <= RELATIVE_SLIP * (_squared(back) + _squared(there)) + ABSOLUTE_SLIP
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    half = width // 2, height // 2
    seen = cv2.resize((same & inside).astype(np.float32), half, interpolation=cv2.INTER_AREA)
    flow = cv2.resize(back, half, interpolation=cv2.INTER_AREA) / 2
    return Passage(_grid(*half[::-1]) + flow, seen > 0.99, seen < 0.5)


def _grid(height: int, width: int) -> np.ndarray:
    axes = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return np.stack(np.meshgrid(*axes), axis=-1)


def _squared(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.square(vectors).sum(axis=-1)
    return lengths


class DivergenceSum:
    """Color distribution consistency (CDC): how much histograms change over a few frames.

    As the eval_results.py of Liu et al. 2021, "Temporally Consistent Video Colorization", computes
    it: for t in 1, 2 and 4 the Jensen-Shannon divergence of the 256-bin histograms of frames i and
    i + t, natural logarithm, averaged over i; the mean of the three; the mean of R, G and B. It
    looks at RGB, so what moves in the picture dominates it, and gray scores less than the truth
    does: the target is the truth's own value. Pairs across a cut are left out here, and histograms
    are those of frames as small as ab, so compare it within one table only.

    Fed the frames of a film one after the other.
    """

    def __init__(self) -> None:
        self._recent: deque[np.ndarray] = deque(maxlen=max(CDC_STEPS))
        self._sums = dict.fromkeys(CDC_STEPS, 0.0)
        self._pairs = dict.fromkeys(CDC_STEPS, 0)

    def add(self, rgb: np.ndarray, cut: bool) -> None:
        """rgb: (3, h, w) uint8. cut: it begins a shot, so none before it is compared with it."""
        if cut:
            self._recent.clear()
        shares = histograms(rgb)
        for step in CDC_STEPS:
            if len(self._recent) >= step:
                self._sums[step] += float(divergence(self._recent[-step], shares).mean())
                self._pairs[step] += 1
        self._recent.append(shares)

    def value(self) -> float | None:
        """None before there are two frames; steps that no shot is long enough for do not count."""
        means = [self._sums[step] / self._pairs[step] for step in CDC_STEPS if self._pairs[step]]
        return sum(means) / len(means) if means else None


def histograms(rgb: np.ndarray) -> np.ndarray:
    """(3, h, w) uint8 to (3, 256), the share of pixels with each code."""
    counts = [np.bincount(channel.ravel(), minlength=CDC_BINS) for channel in rgb]
    shares: np.ndarray = np.stack(counts) / rgb[0].size
    return shares


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of shares (n, 256) twice, (n,); 0 for equal ones, at most ln 2."""
    middle = (one + other) / 2
    mean: np.ndarray = (_relative_entropy(one, middle) + _relative_entropy(other, middle)) / 2
    return mean


def _relative_entropy(shares: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence; where a share is 0 it adds nothing."""
    there = shares > 0
    ratio = np.divide(shares, of, out=np.ones_like(shares), where=there)
    total: np.ndarray = (shares * np.log(ratio)).sum(axis=-1)
    return total


@dataclass(frozen=True)
class Scene:
    """What a frame is compared with: its true Lab (3, h, w), and the way to the frame before it.

    passage: None where the frame begins a shot. cut: whether it does. given: it is a reference of
    itself, so its error is that of no frame.
    """

    lab: Tensor
    passage: Passage | None
    cut: bool
    given: bool = False


@dataclass(frozen=True)
class FilmRow:
    """Scores of one way of coloring a film; None where it has no frame that a score is about.

    warp_error: mean distance in ab between a pixel and where it was in the frame before, over
    pixels visible there. cdc: see `DivergenceSum`; the target is the truth's. chroma: of the mean
    color of each pixel over a shot, so that noise, which has a chroma of its own, does not count.
    chroma_of_off, chroma_of_truth: its ratio to that without smoothing, and to the truth's.
    delta_e: mean CIEDE2000 at the truth's lightness. after_cut: the same over the first six frames
    after each cut. ghosting: mean distance in ab from the truth on pixels just uncovered.
    smoothing_ms: time that smoothing took, per frame.
    """

    name: str
    warp_error: float | None
    cdc: float | None
    chroma: float
    chroma_of_off: float | None
    chroma_of_truth: float | None
    delta_e: float
    after_cut: float | None
    ghosting: float | None
    smoothing_ms: float | None


@dataclass
class Mean:
    """A mean of values that come with weights."""

    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.total += value * weight
        self.weight += weight

    @property
    def value(self) -> float | None:
        return self.total / self.weight if self.weight else None


class ShotChroma:
    """The chroma of each shot's mean picture; every frame weighs the same."""

    def __init__(self) -> None:
        self._shots = Mean()
        self._sum: np.ndarray | None = None
        self._frames = 0

    def add(self, ab: np.ndarray, cut: bool) -> None:
        if cut:
            self._close(self._shots)
            self._sum, self._frames = None, 0
        self._sum = ab.astype(np.float64) if self._sum is None else self._sum + ab
        self._frames += 1

    def value(self) -> float:
        whole = Mean(self._shots.total, self._shots.weight)
        self._close(whole)
        return whole.value or 0.0

    def _close(self, shots: Mean) -> None:
        if self._sum is not None:
            strength = np.linalg.norm(self._sum / self._frames, axis=0)
            shots.add(float(strength.mean()), self._frames)


@dataclass
class FilmRowSum:
    """Collects a row frame by frame; remembers one frame of ab, whatever the film's length."""

    name: str
    warp: Mean = field(default_factory=Mean)
    ghosting: Mean = field(default_factory=Mean)
    delta_e: Mean = field(default_factory=Mean)
    after_cut: Mean = field(default_factory=Mean)
    cdc: DivergenceSum = field(default_factory=DivergenceSum)
    shots: ShotChroma = field(default_factory=ShotChroma)
    _last: np.ndarray | None = None
    _since_cut: int | None = None  # frames; None before the first cut inside the film

    def add(self, ab: np.ndarray, scene: Scene) -> None:
        """ab: (2, h, w) float32 Lab units."""
        if scene.cut and self._last is not None:
            self._since_cut = 0
        if scene.passage is not None and self._last is not None:
            self._compare_with_last(ab, scene.passage, scene.lab[1:].numpy())
        self._judge_color(torch.from_numpy(ab), scene)
        self.shots.add(ab, scene.cut)
        self._last = ab

    def _compare_with_last(self, ab: np.ndarray, passage: Passage, truth: np.ndarray) -> None:
        assert self._last is not None
        moved = passage.fetch(np.ascontiguousarray(self._last.transpose(1, 2, 0)))
        change = np.linalg.norm(ab - moved.transpose(2, 0, 1), axis=0)
        if passage.visible.any():
            self.warp.add(float(change[passage.visible].mean()))  # frames weigh the same
        error = np.linalg.norm(ab - truth, axis=0)[passage.uncovered]
        self.ghosting.add(float(error.mean()) if error.size else 0.0, error.size)

    def _judge_color(self, ab: Tensor, scene: Scene) -> None:
        lab = torch.cat((scene.lab[:1], ab))
        difference = float(delta_e_2000(lab, scene.lab).mean())
        if not scene.given:
            self.delta_e.add(difference)
        if self._since_cut is not None and self._since_cut < AFTER_CUT:
            if not scene.given:
                self.after_cut.add(difference)
            self._since_cut += 1
        codes = (lab_to_rgb(lab).clamp(0, 1) * 255).round().byte()
        self.cdc.add(codes.numpy(), scene.cut)

    def row(self, off_chroma: float, true_chroma: float, smoothing_ms: float | None) -> FilmRow:
        """The scores, beside the chroma of the other rows that it is a ratio to."""
        chroma = self.shots.value()
        return FilmRow(
            name=self.name,
            warp_error=self.warp.value,
            cdc=self.cdc.value(),
            chroma=chroma,
            chroma_of_off=chroma / off_chroma if off_chroma else None,
            chroma_of_truth=chroma / true_chroma if true_chroma else None,
            delta_e=self.delta_e.value or 0.0,
            after_cut=self.after_cut.value,
            ghosting=self.ghosting.value,
            smoothing_ms=smoothing_ms,
        )


def mean_rows(films: Sequence[Sequence[FilmRow]]) -> tuple[FilmRow, ...]:
    """The mean film: a row for each way of coloring; all films have the same ways, in one order.

    Every film weighs the same, however long it is, as in the warp error of Lai et al. 2018: one
    long take would drown what the others say. A film without a score, say without a cut, has no
    part in that score's mean.
    """
    return tuple(_mean(rows) for rows in zip(*films, strict=True))


def _mean(rows: Sequence[FilmRow]) -> FilmRow:
    means: dict[str, Any] = {"name": rows[0].name}
    for score in fields(FilmRow)[1:]:
        found = [getattr(row, score.name) for row in rows]
        there = [value for value in found if value is not None]
        means[score.name] = sum(there) / len(there) if there else None
    return FilmRow(**means)
