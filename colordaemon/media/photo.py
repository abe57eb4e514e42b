"""Colors one photo: the source's lightness, the network's ab, and everything else in the file kept.

A photo keeps its format, depth, alpha, pages and stored orientation unless another format is asked
for; then its pixels are turned upright, because not every format (or viewer) knows orientation.
What a format cannot hold is said in the report's warnings. Several pages are refused where they
cannot be kept.

Large photos are read from top to bottom twice, small for the network and in bands for the pixels,
so only the finished 8- or 16-bit picture and its encoded form are held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colordaemon.color import Matrix, rgb_to_lab, rgb_to_ycbcr
from colordaemon.config import PhotoSettings
from colordaemon.errors import AlreadyColor, MediaError, OwnResult
from colordaemon.media.inventory import Inventory, Note
from colordaemon.media.metadata import Metadata
from colordaemon.media.photo_file import Page, PhotoFile, is_lossless_webp, photo_format
from colordaemon.media.photo_holdings import take_stock
from colordaemon.media.photo_pixels import (
    UPRIGHT,
    Codes,
    Kept,
    colored_pixels,
    gray_of,
    preview,
    upright,
)
from colordaemon.media.photo_write import (
    PhotoWriter,
    Sheet,
    check_size,
    colored_sheet,
    unchanged_sheet,
)
from colordaemon.media.provenance import Maker
from colordaemon.media.stills import PhotoFormat
from colordaemon.media.tint import (
    ExistingColor,
    Marks,
    colored_marks,
    existing_color,
    is_colored_sheet,
)

PredictAb = Callable[[Tensor], Tensor]

_THUMBNAIL_SIDE = 256
_MARKS_SIDE = 1024  # a pen is a few pixels wide then
_DEEP = (PhotoFormat.PNG, PhotoFormat.TIFF, PhotoFormat.AVIF, PhotoFormat.HEIC)


@dataclass(frozen=True)
class PhotoReport:
    """What was written. Width, height and depth (bits) are those of the first page. is_whole:
    whether every picture of the source is in it. inventory: all that the source holds, and what
    became of it."""

    width: int
    height: int
    pages: int
    depth: int
    warnings: tuple[str, ...]
    is_whole: bool = True
    inventory: Inventory = ()


def is_photo(path: Path) -> bool:
    """Whether this is a picture of a kind that is colored, by content. OSError passes through."""
    return photo_format(path) is not None


def output_suffix(source: Path, settings: PhotoSettings) -> str:
    """The suffix for the colored photo: the source's own as long as it names the format."""
    kind = _target(PhotoFile(source).kind, settings)
    own = source.suffix
    return own if own.lower() in kind.value else kind.value[0]


def upright_shape(source: Path) -> tuple[int, int]:
    """(H, W) of a photo's first page as a viewer sees it. Raises MediaError."""
    file = PhotoFile(source)
    image, (turns, _) = file.open_page(0).image, UPRIGHT[file.metadata(0).orientation]
    return (image.width, image.height) if turns % 2 else (image.height, image.width)


def pixels_of(source: Path) -> int:
    """Of all pages of a photo. Raises MediaError."""
    file = PhotoFile(source)
    pages = (file.open_page(index).image for index in range(file.pages))
    return sum(page.width * page.height for page in pages)


def plan_photo(
    source: Path, settings: PhotoSettings, *, force: bool = False
) -> tuple[Inventory, tuple[str, ...]]:
    """What would happen to all that a photo holds, and what else its owner should know. Raises what
    `color_photo` does."""
    file = PhotoFile(source, accept_damaged=settings.accept_damaged)
    target = _target(file.kind, settings)
    _check_pages(file, target)
    if not force:
        refuse_our_own(file)
    told, unchanged = _Told(file.pages), []
    for index in range(file.pages):
        found = _look_at(file, target, index, force)
        told.add(index, *found.remarks)
        unchanged += [index] if found.stays else []
    if len(unchanged) == file.pages:
        raise _already_color(source)
    inventory = take_stock(file, target).after(unchanged, {}).inventory
    return inventory, (*told.remarks, *file.remarks)


def color_photo(
    source: Path,
    partial: Path,
    predict_ab: PredictAb,
    settings: PhotoSettings,
    *,
    force: bool = False,
    maker: Maker | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> PhotoReport:
    """Color a photo into `partial`, whose name may have any suffix; the caller publishes it.

    predict_ab: takes upright gray (1, 1, H, W) float32, gamma-coded 0..1, at any size; gives
    (1, 2, h, w) float32 Lab ab at any size. `force` colors what has color already. maker: the
    model, for the metadata. heartbeat: called whenever some more pixels were read, colored or
    encoded; large scans take minutes. Raises MediaError for what can never be colored; no partial
    file remains after an error.
    """
    file = PhotoFile(source, accept_damaged=settings.accept_damaged)
    count = file.pages
    kind = _target(file.kind, settings)
    _check_pages(file, kind)
    raw_bytes = 0
    for index in range(count):  # everything that can be refused is, before the network runs
        page = file.open_page(index)
        check_size(source, kind, page.image.width, page.image.height)
        raw_bytes += page.image.width * page.image.height * (3 + len(page.extras)) * page.depth // 8
    if not force:
        refuse_our_own(file)
    writer = PhotoWriter(
        file,
        partial,
        kind,
        quality=settings.quality,
        lossless=file.kind is PhotoFormat.WEBP and is_lossless_webp(source),
        raw_bytes=raw_bytes,
        heartbeat=heartbeat,
    )
    try:
        job = _Job(file, kind, predict_ab, force, maker or Maker(), heartbeat)
        report = job.run(writer, count)
        try:
            job.stock.check(writer.close())
        except MediaError as error:
            raise MediaError(f"{source}: {error}") from error
    except BaseException:
        writer.abandon()
        raise
    return report


def _check_pages(file: PhotoFile, target: PhotoFormat) -> None:
    if file.pages > 1 and target is not PhotoFormat.TIFF:
        raise MediaError(f"{file.path}: {file.pages} pages, expected one for {target.name}")


def refuse_our_own(file: PhotoFile) -> None:
    """Raises OwnResult for a photo all of whose pages say that colordaemon made them."""
    if all(file.metadata(index).is_ours for index in range(file.pages)):
        raise OwnResult(f"{file.path}: is a result of colordaemon; expected a source")


def _already_color(path: Path) -> AlreadyColor:
    return AlreadyColor(
        f"{path}: has color already (chroma that does not follow its tones);"
        " expected black and white or one tint"
    )


def _target(stored: PhotoFormat, settings: PhotoSettings) -> PhotoFormat:
    if settings.format != "keep":
        return PhotoFormat.named(settings.format)
    return PhotoFormat.PNG if stored is PhotoFormat.GIF else stored


@dataclass(frozen=True)
class _Look:
    """A page as it was found. color: (1, C, h, w), small. stays: whether it comes out as it is.
    remarks: what its owner should know. The page can be read once more."""

    said: Metadata
    stays: bool
    remarks: tuple[str, ...]
    color: Tensor | None = None
    marks: Marks | None = None


def _look_at(
    file: PhotoFile,
    target: PhotoFormat,
    index: int,
    force: bool,
    heartbeat: Callable[[], None] = lambda: None,
) -> _Look:
    """Judge a page. Raises MediaError."""
    return file.read_patiently(lambda: _look_once(file, target, index, force, heartbeat))


def _look_once(
    file: PhotoFile, target: PhotoFormat, index: int, force: bool, heartbeat: Callable[[], None]
) -> _Look:
    page, said = file.open_page(index), file.metadata(index)
    if file.is_mask(index):
        return _Look(said, True, ("holds a mask or an infrared plane, which stays as it is",))
    color, alpha = preview(page, heartbeat)
    found, marks = _judge(color, alpha)
    if found is ExistingColor.COLOR and not force:
        return _Look(said, True, ("has color already and stays as it is",))
    marks = None if force else marks
    remarks = [*page.warnings, *said.remarks]
    if found is ExistingColor.TINT:
        remarks.append("its tint (toning or a cast) is replaced")
    if marks is not None:
        remarks.append("colored marks on it (a stamp, ink or the like) keep their color")
    if page.is_bilevel:
        remarks.append("has one bit: pure black and white, which hardly shows any color")
    remarks += _losses(page, said, file.kind, target)
    return _Look(said, False, tuple(remarks), color, marks)


def _losses(page: Page, said: Metadata, source: PhotoFormat, target: PhotoFormat) -> Iterator[str]:
    """What a format does not hold of a page."""
    if source is PhotoFormat.GIF and target is PhotoFormat.PNG:
        yield Note("a GIF holds no more than 256 colors; the result is a PNG")
    if page.depth == 16 and target not in _DEEP:
        yield f"{target.name} has 8 bits; the source's 16 are rounded"
    if target is not PhotoFormat.TIFF and page.extras:
        if page.has_alpha and target is PhotoFormat.JPEG:
            yield "JPEG has no transparency; the picture is laid on white"
        elif len(page.extras) > page.has_alpha:
            yield f"{target.name} holds no further planes (infrared or the like)"
    if target is PhotoFormat.BMP and (said.all_tags or said.xmp or said.resources):
        yield "BMP holds no EXIF, XMP or IPTC; they are lost"


class _Told:
    """What the owner of a photo should know, and of which pages it holds."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pages: dict[str, list[int]] = {}

    def add(self, index: int, *remarks: str) -> None:
        for remark in remarks:
            self._pages.setdefault(remark, []).append(index + 1)

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(
            remark if self._count == 1 else type(remark)(f"{self._named(pages)}: {remark}")
            for remark, pages in self._pages.items()
        )

    def _named(self, pages: list[int]) -> str:
        if len(pages) == self._count:
            return "all pages"
        breaks = [i for i in range(1, len(pages)) if pages[i] != pages[i - 1] + 1]
        runs = [pages[a:b] for a, b in pairwise([0, *breaks, len(pages)])]
        names = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
        return f"page{'s' if len(pages) > 1 else ''} {', '.join(names)}"


class _Job:
    """The pages of one photo on their way from a file to a writer."""

    def __init__(
        self,
        file: PhotoFile,
        target: PhotoFormat,
        predict_ab: PredictAb,
        force: bool,
        maker: Maker,
        heartbeat: Callable[[], None],
    ) -> None:
        self._file, self._target = file, target
        self._predict_ab, self._force, self._heartbeat = predict_ab, force, heartbeat
        self._maker = maker
        self.stock = take_stock(file, target)
        self._told = _Told(file.pages)
        self._is_whole = True

    def run(self, writer: PhotoWriter, count: int) -> PhotoReport:
        first: Sheet | None = None
        unchanged = []
        for index in range(count):
            found = _look_at(self._file, self._target, index, self._force, self._heartbeat)
            self._told.add(index, *found.remarks)
            if found.stays:
                unchanged.append(index)
            if found.stays and count == 1:
                break
            sheet = self._sheet(index, found)
            first = first or sheet
            writer.add(sheet)
        if len(unchanged) == count or first is None:
            raise _already_color(self._file.path)
        warnings = dict.fromkeys((*self._told.remarks, *self._file.remarks, *writer.remarks))
        self.stock = self.stock.after(unchanged, writer.lost)
        width, height, _, codes = first.shape
        depth = 8 if codes == "uchar" else 16
        return PhotoReport(
            width, height, count, depth, tuple(warnings), self._is_whole, self.stock.inventory
        )

    def _sheet(self, index: int, found: _Look) -> Sheet:
        """A page as it will be written."""
        return self._file.read_patiently(lambda: self._read_sheet(index, found))

    def _read_sheet(self, index: int, found: _Look) -> Sheet:
        page, said = self._file.open_page(index), found.said
        if found.stays or found.color is None:
            return unchanged_sheet(page, said, index)
        self._is_whole = self._is_whole and said.is_whole
        ab = self._predict(gray_of(found.color), said.orientation)
        pixels = colored_pixels(
            page,
            ab,
            8 if self._target not in _DEEP else page.depth,
            self._keeps_extras(page),
            self._heartbeat,
            (found.marks and _kept(found.marks, found.color)) or None,
        )
        return self._finished(page, pixels, said)

    def _finished(self, page: Page, pixels: Codes, said: Metadata) -> Sheet:
        """The page with its metadata, as far as the target format can hold them."""
        orientation = said.orientation
        if self._target is not self._file.kind:
            pixels = upright(pixels, orientation)
            orientation = 1
        has_alpha = pixels.shape[2] == 4
        if self._target is PhotoFormat.WEBP and has_alpha and pixels[..., 3].min() == 255:
            pixels = pixels[..., :3]  # libwebp writes no alpha that is opaque everywhere
        return colored_sheet(page, pixels, said, orientation, self._maker)

    def _predict(self, gray: Tensor, orientation: int) -> Tensor:
        turns, mirrored = UPRIGHT[orientation]
        upright = torch.rot90(gray.flip(-1) if mirrored else gray, turns, (-2, -1))
        ab = self._predict_ab(upright.contiguous()).detach().to("cpu", torch.float32)
        ab = torch.rot90(ab, -turns, (-2, -1))
        return ab.flip(-1) if mirrored else ab

    def _keeps_extras(self, page: Page) -> bool:
        if self._target is PhotoFormat.TIFF or not page.extras:
            return True
        is_alone = page.has_alpha and len(page.extras) == 1
        return is_alone and self._target is not PhotoFormat.JPEG


def _judge(color: Tensor, alpha: NDArray[np.float32] | None) -> tuple[ExistingColor, Marks | None]:
    """What color a picture has already, and the marks that stand apart from it."""
    if color.shape[1] == 1:
        return ExistingColor.NONE, None
    ycbcr = rgb_to_ycbcr(color, Matrix.BT601)[0].numpy() * 255
    if alpha is not None:
        ycbcr[1:] *= alpha  # the color of transparent pixels is not seen
    wide = _shrunk(ycbcr, _MARKS_SIDE)
    if marks := colored_marks(wide[0], wide[1:]):
        return (ExistingColor.TINT if marks.is_tinted else ExistingColor.NONE), marks
    small = _shrunk(ycbcr, _THUMBNAIL_SIDE)
    if is_colored_sheet(small[0], small[1:]):
        return ExistingColor.COLOR, None
    return existing_color(small[0], small[1:]), None


def _shrunk(planes: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    _, height, width = planes.shape
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes])


def _kept(marks: Marks, color: Tensor) -> Kept:
    """Marks for painting around them: what surrounds them has the picture's own tint."""
    small = torch.nn.functional.interpolate(color, marks.area.shape, mode="area")
    rest = torch.from_numpy(marks.area == 0)
    a, b = rgb_to_lab(small)[0, 1:, rest].median(dim=1).values.tolist()
    return Kept(torch.from_numpy(marks.area)[None, None], (a, b))
