"""Selects the pictures of a run: which are trained on, held out, or left out and why."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np

from colordaemon.errors import DataError
from colordaemon.pictures.cache import CachedPicture, CachedPixels, cache_folder_of
from colordaemon.pictures.dataset import UNKNOWN, Picture, find_pictures, is_held_out, sources_of
from colordaemon.pictures.statistics import Statistics, duplicate_groups
from colordaemon.pictures.survey import survey

log = logging.getLogger(__name__)

MIN_CHROMA = 4.0  # mean Lab chroma; below are gray pictures, scans of them, night and fog
MIN_COLORFULNESS = 15.0  # "slightly colorful" in Hasler & Süsstrunk 2003
REASONS = ("unreadable", "gray", "dull", "copy")


@dataclass(frozen=True)
class CollectedPicture:
    """A picture to train on: its pixels come from the cache, or else from its file."""

    picture: Picture
    statistics: Statistics
    place: CachedPixels | None
    side: int  # pixels, that the short side has at most
    source: str = UNKNOWN

    @property
    def name(self) -> str:
        return self.picture.name

    @property
    def label(self) -> str:
        return self.picture.label

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 sRGB, the same with and without a cache."""
        return self.place.read() if self.place else self.picture.pixels(self.side)


@dataclass(frozen=True)
class Dropped:
    """A picture that is left out. reason: one of REASONS; detail: the figure or error behind it."""

    name: str
    label: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Counts:
    """Pictures of one label; `dropped` by reason, the others are what is left."""

    found: int
    training: int
    validation: int
    unseen: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Collection:
    """Pictures on two sides of a split, sorted by name, with an account of the others.

    unseen: pictures of sources that are held out whole, however like those of training they are.
    moved: pictures held out because of a near-duplicate there, not by their own name or source.
    groups: how many groups of near-duplicates there are.
    """

    folder: Path
    training: list[CollectedPicture]
    validation: list[CollectedPicture]
    unseen: list[CollectedPicture]
    dropped: list[Dropped]
    moved: list[str]
    groups: int

    @property
    def unseen_sources(self) -> list[str]:
        """The names of the sources that are held out whole."""
        return sorted({sample.source for sample in self.unseen})

    @property
    def labels(self) -> list[str]:
        """Labels with at least one picture left."""
        return sorted({sample.label for sample in (*self.training, *self.validation)})

    @property
    def fingerprint(self) -> str:
        """A hash of names, contents and sides, to identify later what a model was trained on."""
        digest = hashlib.sha256()
        for samples in (self.training, self.validation, self.unseen):
            for sample in samples:
                digest.update(sample.name.encode(errors="surrogateescape") + b"\n")
                digest.update(sample.statistics.content.encode() + b"\n")
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    def counts(self) -> dict[str, Counts]:
        """By label, those with nothing left included."""
        training = Counter(sample.label for sample in self.training)
        validation = Counter(sample.label for sample in self.validation)
        unseen = Counter(sample.label for sample in self.unseen)
        dropped = Counter((drop.label, drop.reason) for drop in self.dropped)
        labels = sorted({*training, *validation, *unseen, *(drop.label for drop in self.dropped)})
        counts = {}
        for label in labels:
            reasons = {reason: dropped[label, reason] for reason in REASONS}
            left = training[label], validation[label], unseen[label]
            counts[label] = Counts(sum(left) + sum(reasons.values()), *left, reasons)
        return counts

    def table(self) -> list[tuple[str, ...]]:
        """The counts as text: a heading, a line for each label, and the totals."""
        columns = ("label", "found", "training", "validation", "unseen", *REASONS)
        table: list[tuple[str, ...]] = [columns]
        for label, count in self.counts().items():
            left = count.training, count.validation, count.unseen
            figures = (count.found, *left, *count.dropped.values())
            table.append((label, *map(str, figures)))
        totals = [sum(int(row[i]) for row in table[1:]) for i in range(1, len(columns))]
        return [*table, ("all", *map(str, totals))]

    def report(self) -> str:
        """The whole account as text, names included."""
        table = self.table()
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [str(self.folder), ""]
        for first, *others in table:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            lines.append("  ".join((first.ljust(widths[0]), *cells)))
        lines += ["", f"{self.groups} groups of near-duplicates; {_moved(len(self.moved))}"]
        lines += [f"{name}: near-duplicate of a held-out picture" for name in self.moved]
        if self.unseen:
            lines += ["", f"unseen: of the sources {', '.join(self.unseen_sources)}"]
        lines += ["", f"{len(self.dropped)} left out"]
        lines += [f"{drop.name}: {drop.reason}, {drop.detail}" for drop in self.dropped]
        return "\n".join(lines) + "\n"

    def log_summary(self) -> None:
        """Log what is used and what is left out, in a few lines."""
        for label, count in self.counts().items():
            log.info("%s: %d to train on, %d held out", label, count.training, count.validation)
            if not count.training or not count.validation:
                side = "validate" if count.training else "train on"
                left = count.training + count.validation
                log.warning(
                    "%s: %d of %d pictures left, none to %s", label, left, count.found, side
                )
        if self.unseen:
            sources = ", ".join(self.unseen_sources)
            log.info("%d held out, the whole of the sources %s", len(self.unseen), sources)
        for reason in REASONS:
            names = [drop.name for drop in self.dropped if drop.reason == reason]
            if names:
                shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
                level = logging.WARNING if reason == "unreadable" else logging.INFO
                log.log(level, "%d left out, %s: %s", len(names), reason, shown)
        if self.groups:
            log.info("%d groups of near-duplicates; %s", self.groups, _moved(len(self.moved)))


def collect(
    folder: Path,
    *,
    subset: str | None = None,
    held_out: float,
    held_out_sources: Sequence[str] = (),
    side: int,
    cache_folder: Path | None = None,
    stop: Event | None = None,
) -> Collection:
    """Check every picture of a folder, and decode those that are not in its cache.

    subset: one label to keep. held_out: share of names, 0..1, for validation. held_out_sources: see
    `sources`; their pictures are for judging alone. side: pixels that the short side is shrunk to.
    cache_folder: where caches of all folders lie; None decodes each time. Raises DataError when a
    side of the split is left empty or a source is not there, and Interrupted once `stop` is set.
    """
    pictures = find_pictures(folder, subset)
    sources = sources_of(folder, pictures, held_out_sources)
    cache = cache_folder and cache_folder_of(folder, side, cache_folder)
    entries = survey(pictures, side, cache, stop or Event())
    dropped, colorful = _sort_out(pictures, entries)
    statistics = [entries[index].statistics for index in colorful]
    groups = [[colorful[member] for member in group] for group in duplicate_groups(statistics)]
    foreign = [source in held_out_sources for source in sources]
    own = [
        other or is_held_out(picture.name, held_out)
        for picture, other in zip(pictures, foreign, strict=True)
    ]
    held = list(own)
    for group in groups:
        for index in group:
            held[index] = any(own[member] for member in group)
        dropped |= _copies(group, pictures, entries, own)
    training, validation, unseen = (
        list[CollectedPicture](),
        list[CollectedPicture](),
        list[CollectedPicture](),
    )
    for index in colorful:
        if index not in dropped:
            entry = entries[index]
            side_of_split = unseen if foreign[index] else validation if held[index] else training
            side_of_split.append(
                CollectedPicture(
                    pictures[index], entry.statistics, entry.place, side, sources[index]
                )
            )
    near = [[index for index in group if index not in dropped] for group in groups]
    collection = Collection(
        folder,
        training,
        validation,
        unseen,
        dropped=[dropped[index] for index in sorted(dropped)],
        moved=[sample.name for sample in validation if not is_held_out(sample.name, held_out)],
        groups=sum(len(group) > 1 for group in near),
    )
    collection.log_summary()
    _check(collection)
    return collection


def _sort_out(
    pictures: Sequence[Picture], entries: Sequence[CachedPicture]
) -> tuple[dict[int, Dropped], list[int]]:
    """Pictures that are left out by themselves, by index; indices of the others."""
    dropped, colorful = {}, []
    for index, (picture, entry) in enumerate(zip(pictures, entries, strict=True)):
        statistics = entry.statistics
        if statistics.problem:
            reason, detail = "unreadable", statistics.problem
        elif statistics.chroma < MIN_CHROMA:
            reason, detail = "gray", f"mean chroma {statistics.chroma:.1f}"
        elif statistics.colorfulness < MIN_COLORFULNESS:
            reason, detail = "dull", f"colorfulness {statistics.colorfulness:.1f}"
        else:
            colorful.append(index)
            continue
        dropped[index] = Dropped(picture.name, picture.label, reason, detail)
    return dropped, colorful


def _copies(
    group: Sequence[int],
    pictures: Sequence[Picture],
    entries: Sequence[CachedPicture],
    held_out: Sequence[bool],
) -> dict[int, Dropped]:
    """The members of a group to leave out because the same file is there already.

    The first by name stays, held-out ones before others: a copy that is added under an earlier name
    would otherwise take a picture's place in validation.
    """
    kept: dict[str, str] = {}
    dropped = {}
    for index in sorted(group, key=lambda index: (not held_out[index], pictures[index].name)):
        picture, content = pictures[index], entries[index].statistics.content
        if content in kept:
            dropped[index] = Dropped(picture.name, picture.label, "copy", f"of {kept[content]}")
        kept.setdefault(content, picture.name)
    return dropped


def _check(collection: Collection) -> None:
    training, validation = len(collection.training), len(collection.validation)
    if training and validation:
        return
    left = training + validation
    reasons = Counter(drop.reason for drop in collection.dropped)
    why = ", ".join(f"{reasons[reason]} {reason}" for reason in REASONS if reasons[reason])
    raise DataError(
        f"{collection.folder}: {left} usable pictures give {training} for training and "
        f"{validation} for validation; both need at least one"
        + (f" (left out: {why})" if why else "")
        + (f" (of held-out sources: {len(collection.unseen)})" if collection.unseen else "")
    )


def _moved(count: int) -> str:
    return f"{count} pictures held out because of them"
