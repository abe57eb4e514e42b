"""Colored pictures become files that carry what their sources said about themselves.

A page written here has an sRGB profile, the source's EXIF, XMP, IPTC and resolution, and a note
that its colors are synthetic. The thumbnail inside EXIF is dropped: it shows the gray picture.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyvips
from numpy.typing import NDArray

from colordaemon.errors import MediaError
from colordaemon.media import tiff
from colordaemon.media.photo_file import Page, PhotoFormat, open_image, page_count
from colordaemon.media.photo_pixels import told_of

NOTE = "colordaemon: synthetic colors"
# Longest side that a format, or its usual library, can hold.
_LONGEST = {PhotoFormat.JPEG: 65500, PhotoFormat.WEBP: 16383}
_CARRIED = ("xmp-data", "iptc-data", "photoshop-data", "resolution-unit", "image-description")
_BIG_TIFF = 3_900_000_000  # bytes; classic TIFF ends at 4 GiB, and deflate may add a little


@dataclass(frozen=True)
class Sheet:
    """A finished page: its image with all metadata set, and tags for TIFF."""

    image: pyvips.Image
    tags: tiff.Tags

    @property
    def shape(self) -> tuple[int, int, int, str]:
        image = self.image
        return image.width, image.height, image.bands, image.format


def colored_sheet(
    page: Page, pixels: NDArray[np.generic], tags: tiff.Tags, orientation: int
) -> Sheet:
    """pixels: (h, w, 3 or 4) uint8 or uint16, sRGB and alpha."""
    height, width, bands = pixels.shape
    eight = pixels.dtype == np.uint8
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(pixels).data, width, height, bands, "uchar" if eight else "ushort"
    )
    image = image.copy(
        interpretation="srgb" if eight else "rgb16", xres=page.image.xres, yres=page.image.yres
    )
    for name in page.image.get_fields():
        if name in _CARRIED or name.startswith("png-comment"):
            image.set_type(page.image.get_typeof(name), name, page.image.get(name))
    blob = pyvips.GValue.blob_type
    image.set_type(blob, "icc-profile-data", pyvips.Operation.call("profile_load", "srgb"))
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    tags = {**tags, tiff.SOFTWARE: tiff.text_tag(_note(tags))}
    exif = {**tags, tiff.ORIENTATION: tiff.short_tag(orientation)}
    image.set_type(blob, "exif-data", tiff.exif_block(exif))
    return Sheet(image, tags)


def unchanged_sheet(page: Page, tags: tiff.Tags) -> Sheet:
    return Sheet(page.image, tags)


def _note(tags: tiff.Tags) -> str:
    before = tags[tiff.SOFTWARE].data if tiff.SOFTWARE in tags else b""
    text = before.rstrip(b"\0 ").decode("utf-8", "replace")
    return f"{text}; {NOTE}" if text else NOTE


def source_tags(path: Path, kind: PhotoFormat, page: Page, index: int) -> tiff.Tags:
    """What the source says about itself, from its TIFF directory or its EXIF block."""
    if kind is PhotoFormat.TIFF:
        return tiff.descriptive(tiff.file_tags(path, index))
    if not page.image.get_typeof("exif-data"):
        return {}
    try:
        return tiff.descriptive(
            tiff.read_tags(page.image.get("exif-data").removeprefix(b"Exif\0\0"))
        )
    except (struct.error, KeyError):
        return {}


def check_size(path: Path, kind: PhotoFormat, width: int, height: int) -> None:
    longest = _LONGEST.get(kind)
    if longest and max(width, height) > longest:
        raise MediaError(
            f"{path}: {width} x {height} pixels, expected at most {longest} on a side for"
            f" {kind.name}"
        )


class PhotoWriter:
    """Writes the pages of one photo. Any failure here is the machine's: OSError."""

    def __init__(
        self, partial: Path, kind: PhotoFormat, *, quality: int, lossless: bool, raw_bytes: int,
        on_work: Callable[[], None],
    ) -> None:  # fmt: skip
        self._on_work = on_work
        self._partial, self._kind = partial, kind
        self._quality, self._lossless = quality, lossless
        self._file = partial.open("wb")
        big = raw_bytes > _BIG_TIFF
        self._pages = tiff.TiffWriter(self._file, big) if kind is PhotoFormat.TIFF else None
        self._big = big
        self._written: list[tuple[int, int, int, str]] = []

    def add(self, sheet: Sheet) -> None:
        try:
            data = self._encode(told_of(sheet.image, self._on_work))
        except (pyvips.Error, cv2.error) as error:
            raise OSError(f"{self._partial}: could not be encoded: {error}") from error
        if self._pages:
            self._pages.add(data, sheet.tags)
        else:
            self._file.write(data)
        self._written.append(sheet.shape)

    def close(self) -> None:
        """Flush to disk, then read the file back and compare it with what was meant."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            pages = page_count(self._partial, self._kind)
            found = [
                Sheet(open_image(self._partial, self._kind, index), {}).shape
                for index in range(pages)
            ]
        except MediaError as error:
            raise OSError(f"{self._partial}: unreadable after writing: {error}") from error
        if found != self._written:
            raise OSError(f"{self._partial}: reads back as {found}, expected {self._written}")

    def abandon(self) -> None:
        with suppress(OSError):  # closing flushes, and a full disk is still full
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _encode(self, image: pyvips.Image) -> bytes:
        match self._kind:
            case PhotoFormat.JPEG:
                return bytes(
                    image.jpegsave_buffer(
                        Q=self._quality, subsample_mode="off", optimize_coding=True
                    )
                )
            case PhotoFormat.PNG:
                return bytes(image.pngsave_buffer(compression=6))
            case PhotoFormat.TIFF:
                # Deflate keeps every bit and is read everywhere; the predictor halves it.
                return bytes(
                    image.tiffsave_buffer(
                        compression="deflate", predictor="horizontal", bigtiff=self._big
                    )
                )
            case PhotoFormat.WEBP:
                return bytes(
                    image.webpsave_buffer(
                        Q=self._quality, lossless=self._lossless, exact=True, smart_subsample=True
                    )
                )
            case PhotoFormat.BMP:
                return _bmp(image)


def _bmp(image: pyvips.Image) -> bytes:
    pixels = image.numpy()
    to_bgr = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    data = bytearray(cv2.imencode(".bmp", cv2.cvtColor(pixels, to_bgr))[1].tobytes())
    data[38:46] = struct.pack("<ii", round(image.xres * 1000), round(image.yres * 1000))
    return bytes(data)
