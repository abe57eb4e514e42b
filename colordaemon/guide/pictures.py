"""Reads reference pictures and hints, any photo file, into plain arrays.

A film is worked on for hours, perhaps by several processes and after a restart, and its guide may
change meanwhile. So every reading checks that the file still is the one that the work began with:
no film is ever made with two guides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pyvips
import torch
from numpy.typing import NDArray

from colordaemon.color import Matrix, rgb_to_ycbcr
from colordaemon.errors import GuideChanged, MediaError
from colordaemon.guide.guide import Guide, GuidePicture
from colordaemon.guide.sidecars import digest_of
from colordaemon.inbox.safe_open import OpenedSource, opened_picture
from colordaemon.media.photo_file import Page, PhotoFile
from colordaemon.media.photo_pixels import shrinking, upright
from colordaemon.media.tint import ExistingColor, existing_color, is_colored_sheet

Codes = NDArray[np.uint8]

_OPAQUE = 128  # alpha from which on a pixel counts
_OFF_ASPECT = 0.01
_THUMBNAIL_SIDE = 256
# Less than the 6 codes by which sources are judged, since somebody has chosen a reference: of 600
# color photos 2.0 % are refused (5.0 % with 6), of 600 in sepia with noise, as JPEG of quality 60,
# 0.3 % pass, and none in gray.
_FOREIGN_CODES = 4.0


def read_reference(picture: GuidePicture) -> tuple[Codes, NDArray[np.bool_]]:
    """A picture in color.

    Returns (H, W, 3) uint8 sRGB, upright and shrunk to a short side below 2048, and (H, W) which
    pixels are opaque. Raises MediaError for what cannot be read, is gray or has a single tint,
    GuideChanged if it is no longer the file that was found, and OSError.
    """
    with _unchanged(picture) as file:
        pixels = _read(file)
    opaque = pixels[..., 3] >= _OPAQUE
    if not opaque.any():
        raise MediaError(f"{picture.path}: found no opaque pixel, expected a picture in color")
    if (found := _color_of(pixels, opaque)) is not ExistingColor.COLOR:
        words = "a single tint" if found is ExistingColor.TINT else "gray"
        raise MediaError(f"{picture.path}: found {words}, expected a picture in color")
    return np.ascontiguousarray(pixels[..., :3]), opaque


def read_hints(picture: GuidePicture, height: int, width: int) -> Codes:
    """Dabs of color on transparent ground.

    height, width: of the upright picture that they are for, in pixels; hints may have another size
    but not another shape. Returns (h, w, 4) uint8, sRGB and alpha, upright and shrunk to a short
    side below 2048. Raises MediaError for hints without transparency or without dabs and for
    another shape, GuideChanged if it is no longer the file that was found, and OSError.
    """
    with _unchanged(picture) as file:
        pixels = _read(file, needs_alpha=True)
    found, alpha = pixels.shape[1] / pixels.shape[0], pixels[..., 3]
    if abs(found / (width / height) - 1) > _OFF_ASPECT:
        raise MediaError(
            f"{picture.path}: found {pixels.shape[1]} x {pixels.shape[0]} pixels, expected the"
            f" shape of the picture that it is for, {width} x {height}"
        )
    if alpha.min() >= _OPAQUE:
        raise MediaError(
            f"{picture.path}: found an opaque picture, expected dabs of color on transparent ground"
        )
    if alpha.max() < _OPAQUE:
        raise MediaError(f"{picture.path}: found no dabs, expected some that are opaque")
    return np.ascontiguousarray(pixels)


def usable(
    guide: Guide, check: Callable[[GuidePicture], object] = read_reference
) -> tuple[Guide, tuple[str, ...]]:
    """The guide without candidates that are of no use, and a remark on these if there are any.

    A folder of candidates is somebody's collection, so a gray picture in it is no mistake; a
    reference was chosen for this file. check: reads a picture in color. Raises MediaError for a
    reference that is of no use, GuideChanged and OSError.
    """
    for picture in guide.references:
        check(picture)
    useless: dict[GuidePicture, MediaError] = {}
    for picture in guide.candidates:
        try:
            check(picture)
        except MediaError as error:
            useless[picture] = error
    if not useless:
        return guide, ()
    kept = tuple(picture for picture in guide.pictures if picture not in useless)
    count, first = len(useless), next(iter(useless.values()))
    remark = f"{count} of {len(guide.candidates)} candidates cannot be used; the first: {first}"
    return Guide(kept), (remark,)


def check_unchanged(guide: Guide) -> None:
    """Raises GuideChanged if a file of a guide was changed or removed, and OSError."""
    for picture in guide.pictures:
        with _unchanged(picture):
            pass


@contextmanager
def _unchanged(picture: GuidePicture) -> Iterator[OpenedSource]:
    """Open a picture. Raises GuideChanged after it was read, or could not be, if it is not the file
    that was found."""
    try:
        with opened_picture(picture.path, picture.top) as file:
            try:
                yield file
            finally:
                if digest_of(file) != picture.sha256:
                    raise GuideChanged(f"{picture.path}: was changed since work began with it")
    except FileNotFoundError:
        raise GuideChanged(f"{picture.path}: was removed since work began with it") from None


def _read(path: Path, *, needs_alpha: bool = False) -> Codes:
    """The only page of a file: (H, W, 4) uint8, sRGB and alpha, upright. Raises MediaError."""
    file = PhotoFile(path)
    if file.pages != 1:
        raise MediaError(f"{path}: found {file.pages} pages, expected one")
    return file.read_patiently(lambda: _read_page(file, needs_alpha), advises=False)


def _read_page(file: PhotoFile, needs_alpha: bool) -> Codes:
    page = file.open_page(0)
    if needs_alpha and not page.has_alpha:
        raise MediaError(
            f"{file.path}: found a picture without transparency, expected dabs of color on"
            " transparent ground, as PNG, WebP or TIFF"
        )
    image = _shrunk(page)
    stored = np.frombuffer(image.write_to_memory(), np.uint8)
    pixels = stored.reshape(image.height, image.width, image.bands)
    if image.bands == 3:
        pixels = np.dstack((pixels, np.full(pixels.shape[:2], 255, np.uint8)))
    return np.asarray(upright(pixels, file.metadata(0).orientation), np.uint8)


def _shrunk(page: Page) -> pyvips.Image:
    """8-bit sRGB, and alpha if it has any. What is transparent adds no color to its neighbors."""
    across, down = shrinking(page)
    scale = 255 / page.top
    color = page.pixels.extract_band(0, n=page.colors) * scale
    if page.colors == 1:
        color = color.bandjoin([color, color])
    if not page.has_alpha:
        return color.shrink(across, down).rint().cast("uchar")
    alpha = page.pixels.extract_band(page.colors) * (255 / (255 if page.depth == 8 else 65535))
    image = color.bandjoin(alpha).copy(interpretation="srgb")
    image = image.premultiply(max_alpha=255).shrink(across, down).unpremultiply(max_alpha=255)
    return image.rint().cast("uchar")


def _color_of(pixels: Codes, opaque: NDArray[np.bool_]) -> ExistingColor:
    """What color a picture shows where it is opaque."""
    height, width = opaque.shape
    scale = min(1.0, _THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    visible = np.where(opaque[..., None], pixels[..., :3], np.uint8(128))
    small = cv2.resize(visible, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    rgb = torch.from_numpy(small.transpose(2, 0, 1))[None]
    luma, *chroma = rgb_to_ycbcr(rgb, Matrix.BT601)[0].numpy() * 255
    planes = np.stack(chroma)
    if is_colored_sheet(luma, planes):
        return ExistingColor.TINT
    return existing_color(luma, planes, _FOREIGN_CODES)
