"""Colors a photo with the help of its guide: reference pictures and dabs of color."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from colordaemon.config import PhotoSettings
from colordaemon.guide.guide import Guide, GuidePicture
from colordaemon.guide.pictures import read_hints, read_reference, usable
from colordaemon.guide.references import open_references
from colordaemon.media.photo import PhotoReport, color_photo, upright_shape
from colordaemon.media.provenance import Maker
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.match import Reference
from colordaemon.network.painter import HintedFrame, Painter, hinted_frame, most_alike

_KEPT = 32  # references, of 2 MB each


def check_guide(guide: Guide, source: Path) -> tuple[Guide, tuple[str, ...]]:
    """What of a guide is usable for a photo, and remarks; see `usable`. Raises MediaError for a
    picture that cannot guide it, or is for a time."""
    guide.check_times(source, None)
    for picture in guide.hints:
        read_hints(picture, *upright_shape(source))
    return usable(guide, _check_reference)


# Photos of one folder often share their references: with three of 12 megapixels, each photo takes
# 0.6 s of processor time in place of 2.5. What is kept belongs to the sha256 of a picture.


def color_guided(
    source: Path,
    partial: Path,
    guide: Guide,
    colorizer: Colorizer,
    settings: PhotoSettings,
    *,
    force: bool,
    maker: Maker,
    heartbeat: Callable[[], None],
) -> PhotoReport:
    """Color a photo with the help of its guide; see `color_photo`. Raises GuideChanged too."""
    painter = PhotoPainter(guide, source, colorizer)
    report = color_photo(
        source, partial, painter.predict_ab, settings, force=force, maker=maker, heartbeat=heartbeat
    )
    told = (painter.remark,) if painter.remark else ()
    return replace(report, warnings=(*report.warnings, *told))


@lru_cache(maxsize=_KEPT)
def _check_reference(picture: GuidePicture) -> None:
    read_reference(picture)


@lru_cache(maxsize=_KEPT)
def _reference(picture: GuidePicture, colorizer: Colorizer) -> Reference:
    (reference,) = open_references([picture], colorizer)
    return reference


class PhotoPainter:
    """Guesses colors of a photo's pages; dabs are for the first of them. Raises MediaError."""

    def __init__(self, guide: Guide, source: Path, colorizer: Colorizer) -> None:
        self._guide, self._colorizer = guide, colorizer
        self._references = [_reference(picture, colorizer) for picture in guide.references]
        self._candidates = [_reference(picture, colorizer) for picture in guide.candidates]
        self._dabs = [read_hints(picture, *upright_shape(source)) for picture in guide.hints]
        self._hints: list[HintedFrame] | None = None
        self._weights: list[float] = []

    def predict_ab(self, gray: Tensor) -> Tensor:
        """As `Colorizer.predict_ab`, for one page.

        Of candidates it has the best, however little they are like it: who names candidates for a
        photo wants their colors (measured on 28 photos, they were farther from the truth than
        those of the network).
        """
        chosen = most_alike(self._colorizer, gray, self._candidates)
        references = [*self._references, *chosen]
        if self._hints is None:
            base = Painter(self._colorizer, references)
            self._hints = [hinted_frame(base, gray, dabs) for dabs in self._dabs]
        painter = Painter(self._colorizer, references, self._hints)
        ab = painter.predict_ab(gray)
        self._weights += [weight for weight in painter.weights if weight is not None]
        return ab

    @property
    def remark(self) -> str:
        """Says that references have little in common with the photo; else empty."""
        found = self._weights
        return self._guide.remark(sum(found) / len(found) if found else None, "photo")
