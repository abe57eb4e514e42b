"""Color one photo: the source's lightness, the network's ab, and the file around them kept.

A photo keeps its format, depth, alpha, pages and stored orientation unless another format is asked
for; then its pixels are turned upright, because not every format (or viewer) knows orientation.
What a format cannot hold is said in the report's warnings. Several pages are refused where they
cannot be kept.

Large photos are read from top to bottom twice, small for the network and in bands for the pixels,
so only the finished 8- or 16-bit picture and its encoded form are held whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colordaemon.color import Matrix, rgb_to_lab, rgb_to_ycbcr
from colordaemon.config import PhotoSettings
from colordaemon.errors import AlreadyColor, MediaError
from colordaemon.media.inventory import Inventory
from colordaemon.media.metadata import Metadata
from colordaemon.media.photo_file import Page, PhotoFile, is_lossless_webp, photo_format, reading
from colordaemon.media.photo_holdings import take_stock
from colordaemon.media.photo_pixels import Codes, Kept, colored_pixels, gray_of, preview
from colordaemon.media.photo_write import (
    PhotoWriter,
    Sheet,
    check_size,
    colored_sheet,
    unchanged_sheet,
)
from colordaemon.media.provenance import Maker
from colordaemon.media.stills import PhotoFormat
from colordaemon.media.tint import ExistingColor, Marks, colored_marks, existing_color

_Read = TypeVar("_Read")
PredictAb = Callable[[Tensor], Tensor]

_THUMBNAIL_SIDE = 256
_MARKS_SIDE = 1024  # a pen is a few pixels wide then
_DEEP = (PhotoFormat.PNG, PhotoFormat.TIFF, PhotoFormat.AVIF, PhotoFormat.HEIC)
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


def plan_photo(source: Path, settings: PhotoSettings, *, force: bool = False) -> Inventory:
    """What would become of all that a photo holds. Raises what `color_photo` does."""
    file = PhotoFile(source, accept_damaged=settings.accept_damaged)
    target = _target(file.kind, settings)
    _check_pages(file, target)
    if not force:
        _refuse_our_own(file)
    pages = range(file.pages)
    unchanged = [i for i in pages if file.is_mask(i) or not (force or _is_gray(file, i))]
    if len(unchanged) == file.pages:
        raise _already_color(source)
    return take_stock(file, target).after(unchanged, {}).inventory


def color_photo(
    source: Path,
    partial: Path,
    predict_ab: PredictAb,
    settings: PhotoSettings,
    *,
    force: bool = False,
    maker: Maker | None = None,
    on_work: Callable[[], None] = lambda: None,
) -> PhotoReport:
    """Color a photo into `partial`, whose name may have any suffix; the caller publishes it.

    predict_ab: takes upright gray (1, 1, H, W) float32, gamma-coded 0..1, at any size; gives
    (1, 2, h, w) float32 Lab ab at any size. `force` colors what has color already. maker: the
    model, for the metadata. on_work: called whenever some more pixels were read, colored or
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
        _refuse_our_own(file)
    writer = PhotoWriter(
        file,
        partial,
        kind,
        quality=settings.quality,
        lossless=file.kind is PhotoFormat.WEBP and is_lossless_webp(source),
        raw_bytes=raw_bytes,
        on_work=on_work,
    )
    try:
        job = _Job(file, kind, predict_ab, force, maker or Maker(), on_work)
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


def _refuse_our_own(file: PhotoFile) -> None:
    if all(file.metadata(index).is_ours for index in range(file.pages)):
        raise AlreadyColor(f"{file.path}: is a result of colordaemon; expected a source")


def _already_color(path: Path) -> AlreadyColor:
    return AlreadyColor(
        f"{path}: has color already (chroma that does not follow its tones);"
        " expected black and white or one tint"
    )


def _is_gray(file: PhotoFile, index: int) -> bool:
    """Whether a page has no color but a tint, or marks."""

    def judge() -> bool:
        found, _ = _judge(*preview(file.open_page(index), lambda: None))
        return found is not ExistingColor.COLOR

    return _patiently(file, judge)


def _patiently(file: PhotoFile, read: Callable[[], _Read]) -> _Read:
    """Read pixels, and where they are damaged once more in every more patient way."""
    while True:
        try:
            with reading(file.path):
                return read()
        except AlreadyColor:
            raise
        except MediaError:
            if not file.trust_less():
                raise


def _target(stored: PhotoFormat, settings: PhotoSettings) -> PhotoFormat:
    if settings.format != "keep":
        return PhotoFormat.named(settings.format)
    return PhotoFormat.PNG if stored is PhotoFormat.GIF else stored


class _Job:
    """The pages of one photo on their way from a file to a writer."""

    def __init__(
        self,
        file: PhotoFile,
        target: PhotoFormat,
        predict_ab: PredictAb,
        force: bool,
        maker: Maker,
        on_work: Callable[[], None],
    ) -> None:
        self._file, self._target = file, target
        self._predict_ab, self._force, self._on_work = predict_ab, force, on_work
        self._maker = maker
        self.stock = take_stock(file, target)
        self._warnings: dict[str, None] = {}  # a set that keeps its order
        self._is_whole = True

    def run(self, writer: PhotoWriter, count: int) -> PhotoReport:
        first: Sheet | None = None
        colored, unchanged = 0, []
        for index in range(count):
            sheet, is_new = self._sheet(index)
            colored += is_new
            if not is_new:
                unchanged.append(index)
            first = first or sheet
            if is_new or count > 1:
                writer.add(sheet)
        if not colored or first is None:
            raise _already_color(self._file.path)
        if passed := sum(not self._file.is_mask(index) for index in unchanged):
            self._warn(f"{passed} of {count} pages have color and stay as they are")
        for warning in (*self._file.remarks, *writer.remarks):
            self._warn(warning)
        self.stock = self.stock.after(unchanged, writer.lost)
        width, height, _, codes = first.shape
        depth = 8 if codes == "uchar" else 16
        return PhotoReport(
            width, height, count, depth, tuple(self._warnings), self._is_whole, self.stock.inventory
        )

    def _warn(self, text: str) -> None:
        self._warnings[text] = None

    def _sheet(self, index: int) -> tuple[Sheet, bool]:
        """A page as it will be written, and whether it was colored."""
        return _patiently(self._file, lambda: self._read_sheet(index))

    def _read_sheet(self, index: int) -> tuple[Sheet, bool]:
        page, said = self._file.open_page(index), self._file.metadata(index)
        if self._file.is_mask(index):
            self._warn("holds a mask or an infrared plane, which stays as it is")
            return unchanged_sheet(page, said, index), False
        color, alpha = preview(page, self._on_work)
        found, marks = _judge(color, alpha)
        if found is ExistingColor.COLOR and not self._force:
            return unchanged_sheet(self._file.open_page(index), said, index), False
        self._tell(page, said, found, marks is not None and not self._force)
        ab = self._predict(gray_of(color), said.orientation)
        pixels = colored_pixels(
            self._file.open_page(index),
            ab,
            self._depth(page),
            self._keeps_extras(page),
            self._on_work,
            (marks and not self._force and _kept(marks, color)) or None,
        )
        return self._finished(page, pixels, said), True

    def _tell(self, page: Page, said: Metadata, found: ExistingColor, has_marks: bool) -> None:
        """What the owner should know of this page."""
        self._is_whole = self._is_whole and said.is_whole
        for warning in (*page.warnings, *said.remarks):
            self._warn(warning)
        if found is ExistingColor.TINT:
            self._warn("its tint (toning or a cast) is replaced")
        if has_marks:
            self._warn("colored marks on it (a stamp, ink or the like) keep their color")
        if page.is_bilevel:
            self._warn("has one bit: pure black and white, which hardly shows any color")
        if self._file.kind is PhotoFormat.GIF and self._target is PhotoFormat.PNG:
            self._warn("a GIF holds no more than 256 colors; the result is a PNG")

    def _finished(self, page: Page, pixels: Codes, said: Metadata) -> Sheet:
        """The page with its metadata, as far as the target format can hold them."""
        orientation = said.orientation
        if self._target is not self._file.kind:
            turns, mirrored = _UPRIGHT[orientation]
            pixels = np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
            orientation = 1
        has_alpha = pixels.shape[2] == 4
        if self._target is PhotoFormat.WEBP and has_alpha and pixels[..., 3].min() == 255:
            pixels = pixels[..., :3]  # libwebp writes no alpha that is opaque everywhere
        if self._target is PhotoFormat.BMP and (said.all_tags or said.xmp or said.resources):
            self._warn("BMP holds no EXIF, XMP or IPTC; they are lost")
        return colored_sheet(page, pixels, said, orientation, self._maker)

    def _predict(self, gray: Tensor, orientation: int) -> Tensor:
        turns, mirrored = _UPRIGHT[orientation]
        upright = torch.rot90(gray.flip(-1) if mirrored else gray, turns, (-2, -1))
        ab = self._predict_ab(upright.contiguous()).detach().to("cpu", torch.float32)
        ab = torch.rot90(ab, -turns, (-2, -1))
        return ab.flip(-1) if mirrored else ab

    def _depth(self, page: Page) -> int:
        if page.depth == 16 and self._target not in _DEEP:
            self._warn(f"{self._target.name} has 8 bits; the source's 16 are rounded")
            return 8
        return page.depth

    def _keeps_extras(self, page: Page) -> bool:
        if self._target is PhotoFormat.TIFF or not page.extras:
            return True
        if page.has_alpha and self._target is PhotoFormat.JPEG:
            self._warn("JPEG has no transparency; the picture is laid on white")
            return False
        if len(page.extras) > page.has_alpha:
            self._warn(f"{self._target.name} holds no further planes (infrared or the like)")
        return page.has_alpha and len(page.extras) == 1


def _judge(color: Tensor, alpha: NDArray[np.float32] | None) -> tuple[ExistingColor, Marks | None]:
    """What color a picture has already, and the marks that stand apart from it."""
    if color.shape[1] == 1:
        return ExistingColor.NONE, None
    ycbcr = rgb_to_ycbcr(color, Matrix.BT601)[0].numpy() * 255
    if alpha is not None:
        ycbcr[1:] *= alpha  # nobody sees the color of what is transparent
    wide = _shrunk(ycbcr, _MARKS_SIDE)
    if marks := colored_marks(wide[0], wide[1:]):
        return (ExistingColor.TINT if marks.is_tinted else ExistingColor.NONE), marks
    small = _shrunk(ycbcr, _THUMBNAIL_SIDE)
    return existing_color(small[0], small[1:]), None


def _shrunk(planes: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    _, height, width = planes.shape
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes])


def _kept(marks: Marks, color: Tensor) -> Kept:
    """Marks as they are painted around: what surrounds them is the picture's own tint."""
    small = torch.nn.functional.interpolate(color, marks.area.shape, mode="area")
    rest = torch.from_numpy(marks.area == 0)
    a, b = rgb_to_lab(small)[0, 1:, rest].median(dim=1).values.tolist()
    return Kept(torch.from_numpy(marks.area)[None, None], (a, b))
