"""Color one photo: the source's lightness, the network's ab, and the file around them kept.

A photo keeps its format, depth, alpha, pages and stored orientation unless another format is asked
for; then its pixels are turned upright, because not every format (or viewer) knows orientation.
What a format cannot hold is said in the report's warnings: 16 bits and transparency. Several pages
are refused where they cannot be kept.

Large photos are read from top to bottom twice, small for the network and in bands for the pixels,
so only the finished 8- or 16-bit picture and its encoded form are held whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colordaemon.color import Matrix, rgb_to_ycbcr
from colordaemon.config import PhotoSettings
from colordaemon.errors import AlreadyColor, MediaError
from colordaemon.media.photo_file import (
    Page,
    PhotoFormat,
    has_more_pictures,
    is_lossless_webp,
    open_page,
    page_count,
    photo_format,
    reading,
)
from colordaemon.media.photo_pixels import Codes, colored_pixels, gray_of, preview
from colordaemon.media.photo_write import (
    PhotoWriter,
    Sheet,
    check_size,
    colored_sheet,
    source_tags,
    unchanged_sheet,
)
from colordaemon.media.tiff import Tags
from colordaemon.media.tint import ExistingColor, existing_color

PredictAb = Callable[[Tensor], Tensor]

_THUMBNAIL_SIDE = 256
# Quarter turns counterclockwise, after mirroring left and right or not, that bring a stored picture
# of each EXIF orientation upright.
_UPRIGHT = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (1, True),
    6: (3, False),
    7: (3, True),
    8: (1, False),
}


@dataclass(frozen=True)
class PhotoReport:
    """What was written. Width, height and depth (bits) are those of the first page."""

    width: int
    height: int
    pages: int
    depth: int
    warnings: tuple[str, ...]


def is_photo(path: Path) -> bool:
    """Whether this is a JPEG, PNG, TIFF, WebP or BMP, by content. OSError passes through."""
    return photo_format(path) is not None


def output_suffix(source: Path, settings: PhotoSettings) -> str:
    """The suffix for the colored photo: the source's own as long as it names the format."""
    kind = _target(_source_format(source), settings)
    own = source.suffix
    return own if own.lower() in kind.value else kind.value[0]


def color_photo(
    source: Path,
    partial: Path,
    predict_ab: PredictAb,
    settings: PhotoSettings,
    *,
    force: bool = False,
    on_work: Callable[[], None] = lambda: None,
) -> PhotoReport:
    """Color a photo into `partial`, whose name may have any suffix; the caller publishes it.

    predict_ab: takes upright gray (1, 1, H, W) float32, gamma-coded 0..1, at any size; gives
    (1, 2, h, w) float32 Lab ab at any size. `force` colors what has color already. on_work: called
    whenever some more pixels were read, colored or encoded; large scans take minutes.
    Raises MediaError for what can never be colored; no partial file remains after an error.
    """
    stored = _source_format(source)
    count = page_count(source, stored)
    kind = _target(stored, settings)
    if count > 1 and kind is not PhotoFormat.TIFF:
        raise MediaError(f"{source}: {count} pages, expected one for {kind.name}")
    raw_bytes = 0
    for index in range(count):  # everything that can be refused is, before the network runs
        page = open_page(source, stored, index)
        check_size(source, kind, page.image.width, page.image.height)
        raw_bytes += page.image.width * page.image.height * 4 * page.depth // 8
    writer = PhotoWriter(
        partial,
        kind,
        quality=settings.quality,
        lossless=stored is PhotoFormat.WEBP and is_lossless_webp(source),
        raw_bytes=raw_bytes,
        on_work=on_work,
    )
    try:
        job = _Job(source, stored, kind, predict_ab, force, on_work)
        report = job.run(writer, count)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    return report


def _source_format(source: Path) -> PhotoFormat:
    kind = photo_format(source)
    if kind is None:
        found = "not a plain file"
        if source.is_file():
            with source.open("rb") as file:
                head = file.read(12)
            found = f"begins with {head!r}" if head else "empty"
        raise MediaError(f"{source}: {found}, expected a JPEG, PNG, TIFF, WebP or BMP picture")
    return kind


def _target(stored: PhotoFormat, settings: PhotoSettings) -> PhotoFormat:
    return stored if settings.format == "keep" else PhotoFormat.named(settings.format)


class _Job:
    """The pages of one photo on their way from a file to a writer."""

    def __init__(
        self,
        source: Path,
        stored: PhotoFormat,
        target: PhotoFormat,
        predict_ab: PredictAb,
        force: bool,
        on_work: Callable[[], None],
    ) -> None:
        self._source, self._stored, self._target = source, stored, target
        self._predict_ab, self._force, self._on_work = predict_ab, force, on_work
        self._warnings: dict[str, None] = {}  # a set that keeps its order

    def run(self, writer: PhotoWriter, count: int) -> PhotoReport:
        if self._stored is PhotoFormat.JPEG and has_more_pictures(self._source):
            self._warn("holds further pictures behind the first; only the first is kept")
        first: Sheet | None = None
        colored = 0
        for index in range(count):
            with reading(self._source):
                sheet, is_new = self._sheet(index)
            colored += is_new
            first = first or sheet
            if is_new or count > 1:
                writer.add(sheet)
        if not colored or first is None:
            raise AlreadyColor(
                f"{self._source}: has color already (chroma that does not follow its tones);"
                " expected black and white or one tint"
            )
        if colored < count:
            self._warn(f"{count - colored} of {count} pages have color and stay as they are")
        width, height, _, codes = first.shape
        depth = 8 if codes == "uchar" else 16
        return PhotoReport(width, height, count, depth, tuple(self._warnings))

    def _warn(self, text: str) -> None:
        self._warnings[text] = None

    def _sheet(self, index: int) -> tuple[Sheet, bool]:
        """A page as it will be written, and whether it was colored."""
        page = self._open(index)
        tags = source_tags(self._source, self._stored, page, index)
        color, alpha = preview(page, self._on_work)
        found = _judge(color, alpha)
        if found is ExistingColor.COLOR and not self._force:
            return unchanged_sheet(self._open(index), tags), False
        if found is ExistingColor.TINT:
            self._warn("its tint (toning or a cast) is replaced")
        for warning in page.warnings:
            self._warn(warning)
        ab = self._predict(gray_of(color), page.orientation)
        depth, keeps_alpha = self._depth(page), self._keeps_alpha(page)
        pixels = colored_pixels(self._open(index), ab, depth, keeps_alpha, self._on_work)
        return self._finished(page, pixels, tags), True

    def _finished(self, page: Page, pixels: Codes, tags: Tags) -> Sheet:
        """The page with its metadata, as far as the target format can hold them."""
        orientation = page.orientation
        if self._target is not self._stored:
            turns, mirrored = _UPRIGHT[orientation]
            pixels = np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
            orientation = 1
        has_alpha = pixels.shape[2] == 4
        if self._target is PhotoFormat.WEBP and has_alpha and pixels[..., 3].min() == 255:
            pixels = pixels[..., :3]  # libwebp writes no alpha that is opaque everywhere
        if self._target is PhotoFormat.BMP and (tags or page.image.get_typeof("xmp-data")):
            self._warn("BMP holds no EXIF, XMP or IPTC; they are lost")
        return colored_sheet(page, pixels, tags, orientation)

    def _open(self, index: int) -> Page:
        return open_page(self._source, self._stored, index)

    def _predict(self, gray: Tensor, orientation: int) -> Tensor:
        turns, mirrored = _UPRIGHT[orientation]
        upright = torch.rot90(gray.flip(-1) if mirrored else gray, turns, (-2, -1))
        ab = self._predict_ab(upright.contiguous()).detach().to("cpu", torch.float32)
        ab = torch.rot90(ab, -turns, (-2, -1))
        return ab.flip(-1) if mirrored else ab

    def _depth(self, page: Page) -> int:
        if page.depth == 16 and self._target not in (PhotoFormat.PNG, PhotoFormat.TIFF):
            self._warn(f"{self._target.name} has 8 bits; the source's 16 are rounded")
            return 8
        return page.depth

    def _keeps_alpha(self, page: Page) -> bool:
        if page.has_alpha and self._target is PhotoFormat.JPEG:
            self._warn("JPEG has no transparency; the picture is laid on white")
            return False
        return True


def _judge(color: Tensor, alpha: NDArray[np.float32] | None) -> ExistingColor:
    if color.shape[1] == 1:
        return ExistingColor.NONE
    ycbcr = rgb_to_ycbcr(color, Matrix.BT601)[0].numpy() * 255
    if alpha is not None:
        ycbcr[1:] *= alpha  # nobody sees the color of what is transparent
    _, height, width = ycbcr.shape
    scale = min(1.0, _THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    planes = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in ycbcr]
    return existing_color(planes[0], np.stack(planes[1:]))
