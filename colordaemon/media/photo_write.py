"""Writes colored pictures to files, with the metadata of their sources.

A page written here has an sRGB profile, the source's metadata, and marks that say in words and for
machines that its colors are synthetic. The thumbnail inside EXIF is made anew: it showed the gray
picture.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pyvips
from numpy.typing import NDArray

from colordaemon.errors import MediaError
from colordaemon.media import exif, heif, jpeg, png, tiff, webp
from colordaemon.media.heif import items_in, with_content
from colordaemon.media.metadata import Metadata, exif_block, mapped, page_tags
from colordaemon.media.photo_file import Page, PhotoFile, reading
from colordaemon.media.photo_pixels import told_of
from colordaemon.media.provenance import NOTE, Maker, packet
from colordaemon.media.stills import PhotoFormat

# Longest side that a format, or its usual library, can hold.
_LONGEST = {
    PhotoFormat.JPEG: 65500,
    PhotoFormat.WEBP: 16383,
    PhotoFormat.AVIF: 16384,
    PhotoFormat.HEIC: 16384,
}
_BIG_TIFF = 3_900_000_000  # bytes; classic TIFF ends at 4 GiB, and deflate may add a little
_Block = TypeVar("_Block")
_THUMBNAIL_SIDE = 160  # pixels, as the Exif standard has it


@dataclass(frozen=True)
class Sheet:
    """A finished page. copied: for a page that was not colored, its number in the source, from
    which it is copied. said: what its metadata say of the picture and of its colors."""

    image: pyvips.Image
    said: Metadata = field(default_factory=Metadata)
    extras: tuple[int, ...] = ()
    maker: Maker | None = None
    copied: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, str]:
        image = self.image
        return image.width, image.height, image.bands, image.format


def colored_sheet(
    page: Page,
    pixels: NDArray[np.generic],
    said: Metadata,
    orientation: int,
    maker: Maker,
) -> Sheet:
    """pixels: (h, w, 3 and extra samples) uint8 or uint16, sRGB."""
    height, width, bands = pixels.shape
    eight = pixels.dtype == np.uint8
    image = pyvips.Image.new_from_memory(
        np.ascontiguousarray(pixels).data, width, height, bands, "uchar" if eight else "ushort"
    )
    image = image.copy(interpretation="srgb" if eight else "rgb16", **_resolution(said))
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", srgb_profile())
    return Sheet(image, replace(said, orientation=orientation), page.extras[: bands - 3], maker)


def _resolution(said: Metadata) -> dict[str, float]:
    """Pixels per mm."""
    if said.density is None or said.density[0] == 0:
        return {}
    unit, across, down = said.density
    scale = 1 / 25.4 if unit == 1 else 0.1
    return {"xres": across * scale, "yres": down * scale}


def srgb_profile() -> bytes:
    return bytes(pyvips.Operation.call("profile_load", "srgb"))


def unchanged_sheet(page: Page, said: Metadata, index: int) -> Sheet:
    return Sheet(page.image, said, page.extras, copied=index)


def software(said: Metadata) -> str:
    return f"{said.software}; {NOTE}" if said.software else NOTE


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
        self, source: PhotoFile, partial: Path, kind: PhotoFormat, *, quality: int, lossless: bool,
        raw_bytes: int, heartbeat: Callable[[], None],
    ) -> None:  # fmt: skip
        self._heartbeat = heartbeat
        self._source, self._partial, self._kind = source, partial, kind
        self._quality, self._lossless = quality, lossless
        self._file = partial.open("wb")
        big = raw_bytes > _BIG_TIFF
        self._pages = tiff.TiffWriter(self._file, big) if kind is PhotoFormat.TIFF else None
        self._big = big
        self._written: list[tuple[int, int, int, str]] = []
        self._copied: set[int] = set()
        self.remarks: tuple[str, ...] = ()
        self.lost: dict[str, str] = {}  # what turned out to have no room, and why

    def add(self, sheet: Sheet) -> None:
        if self._pages and sheet.copied is not None and self._copies(self._pages, sheet.copied):
            self._copied.add(len(self._written))
            self._written.append(sheet.shape)
            return
        try:
            data = self._encode(told_of(sheet.image, self._heartbeat), sheet)
        except (pyvips.Error, cv2.error, RuntimeError, ValueError) as error:
            raise OSError(
                f"the result for {self._source.path} cannot be encoded: {error}"
            ) from error
        if self._pages:
            self._pages.add(data, self._tags(sheet))
        else:
            self._file.write(data)
        self._written.append(sheet.shape)

    def _copies(self, pages: tiff.TiffWriter, index: int) -> bool:
        if self._source.kind is not PhotoFormat.TIFF:
            return False
        with mapped(self._source.path) as data:
            return pages.copy(data, index)

    def _tags(self, sheet: Sheet) -> tiff.Tags:
        """Those of a page, in place of what libvips makes up (as 25.4 dots per inch)."""
        if sheet.maker is None:
            return sheet.said.tags
        tags, remarks = page_tags(sheet.said, software(sheet.said))
        self._remark(remarks)
        tags[tiff.ORIENTATION] = tiff.short_tag(sheet.said.orientation)
        tags[tiff.XMP] = tiff.Tag(1, packet(sheet.maker, sheet.said.xmp))
        if sheet.extras:
            tags[tiff.EXTRA_SAMPLES] = tiff.short_tags(*sheet.extras)
        return tags

    def _remark(self, remarks: tuple[str, ...]) -> None:
        self.remarks = (*self.remarks, *remarks)

    def close(self) -> PhotoFile:
        """Flush to disk, then read the file back, compare it with what was meant, and return it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = f"the result for {self._source.path}"
        try:
            written = PhotoFile(self._partial)
            found = [self._read_back(written, index) for index in range(written.pages)]
        except MediaError as error:
            raise OSError(f"{name} is unreadable after writing: {error}") from error
        if found != self._written:
            raise OSError(f"{name} reads back as {found}, expected {self._written}")
        return written

    def _read_back(self, written: PhotoFile, index: int) -> tuple[int, int, int, str]:
        """The shape of a page; every pixel of it can be read, unless it is a copy."""
        image = written.open_image(index)
        if index not in self._copied:
            with reading(self._partial):
                told_of(image, self._heartbeat).avg()
        return Sheet(image).shape

    def abandon(self) -> None:
        with suppress(OSError):  # closing flushes, and a full disk is still full
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _encode(self, image: pyvips.Image, sheet: Sheet) -> bytes:
        match self._kind:
            case PhotoFormat.JPEG:
                return self._jpeg(image, sheet)
            case PhotoFormat.PNG:
                return self._png(image, sheet)
            case PhotoFormat.TIFF:
                # Deflate keeps every bit and is read everywhere; the predictor halves it.
                return bytes(
                    image.tiffsave_buffer(
                        compression="deflate", predictor="horizontal", bigtiff=self._big, keep="icc"
                    )
                )
            case PhotoFormat.WEBP:
                return self._webp(image, sheet)
            case PhotoFormat.AVIF | PhotoFormat.HEIC:
                return self._heif(image, sheet)
            case PhotoFormat.BMP:
                return _bmp(image, sheet.said)
            case PhotoFormat.GIF:
                raise AssertionError("GIF is never written")

    def _jpeg(self, image: pyvips.Image, sheet: Sheet) -> bytes:
        encoded = bytes(
            image.jpegsave_buffer(
                Q=self._quality, subsample_mode="off", optimize_coding=True, keep="icc"
            )
        )
        said = sheet.said
        block, xmp = self._block(sheet, image), self._xmp(sheet)
        if len(block) > exif.LONGEST_IN_JPEG:
            block = self._block(sheet, None)
        if len(block) > exif.LONGEST_IN_JPEG:
            self._remark(("its EXIF is too long for a JPEG and is left out",))
            self.lost["EXIF"] = "it is too long for a JPEG"
            block = exif_block(Metadata(), software(said), said.orientation, (0, 0), b"")
        if len(xmp) > jpeg.LONGEST - len(jpeg.XMP):
            self._remark(("its XMP is too long for a JPEG and is left out",))
            self.lost["XMP"] = "it is too long for a JPEG"
            xmp = packet(sheet.maker or Maker())
        return jpeg.put_together(
            encoded,
            exif=block,
            xmp=xmp,
            resources=said.resources,
            density=said.density,
            kept=self._kept(said, jpeg.Segment),
        )

    def _png(self, image: pyvips.Image, sheet: Sheet) -> bytes:
        encoded = bytes(image.pngsave_buffer(compression=6, keep="icc"))
        kept = self._kept(sheet.said, png.Chunk)
        if sheet.said.density and not any(chunk.name == b"pHYs" for chunk in kept):
            kept = [png.density_chunk(sheet.said.density), *kept]
        return png.put_together(
            encoded, exif=self._block(sheet, image), xmp=self._xmp(sheet), kept=kept
        )

    def _webp(self, image: pyvips.Image, sheet: Sheet) -> bytes:
        encoded = image.webpsave_buffer(
            Q=self._quality, lossless=self._lossless, exact=True, smart_subsample=True, keep="icc"
        )
        return webp.put_together(
            bytes(encoded),
            exif=self._block(sheet, image),
            xmp=self._xmp(sheet),
            kept=tuple(self._kept(sheet.said, tuple)),
        )

    def _heif(self, image: pyvips.Image, sheet: Sheet) -> bytes:
        block, xmp = self._block(sheet, image), self._xmp(sheet)
        self._kept(sheet.said, type(None))
        if self._kind is PhotoFormat.HEIC:
            return heif.write(image, self._quality, block, xmp, srgb_profile())
        image.set_type(pyvips.GValue.blob_type, "exif-data", jpeg.EXIF + block)
        image.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
        bits = 8 if image.format == "uchar" else 10
        encoded = bytes(
            image.heifsave_buffer(
                compression="av1", Q=self._quality, bitdepth=bits, effort=4, subsample_mode="off"
            )
        )
        # libvips puts EXIF through libexif, which moves what makers' notes point to.
        (number,) = items_in(encoded).of_kind(b"Exif")
        return with_content(encoded, number, struct.pack(">I", 6) + jpeg.EXIF + block)

    def _block(self, sheet: Sheet, image: pyvips.Image | None) -> bytes:
        """EXIF, with a thumbnail where the source has one and `image` is given."""
        said, size = sheet.said, (sheet.image.width, sheet.image.height)
        thumbnail = b""
        if image is not None and exif.has_thumbnail(said.exif):
            thumbnail = _thumbnail(sheet.image)
        if said.tags and self._kind is not PhotoFormat.TIFF:
            lost = said.tags.keys() - tiff.descriptive(said.tags).keys() - tiff.ELSEWHERE
            if lost:
                self._remark((f"{len(lost)} TIFF tags that only TIFF holds are left out",))
        return exif_block(said, software(said), said.orientation, size, thumbnail)

    def _xmp(self, sheet: Sheet) -> bytes:
        return packet(sheet.maker or Maker(), sheet.said.xmp)

    def _kept(self, said: Metadata, kind: type[_Block]) -> list[_Block]:
        """What passes unchanged, if it is of this format; else a remark says what is lost."""
        kept = [each for each in said.kept if isinstance(each, kind)]
        lost = [each for each in said.kept if not isinstance(each, kind)]
        if any(not (isinstance(each, png.Chunk) and each.is_measure) for each in lost):
            self._remark((f"{self._kind.name} does not hold the comments, texts and further blocks"
                          f" of {self._source.kind.name}; they are left out",))  # fmt: skip
        if said.resources and self._kind not in (PhotoFormat.JPEG, PhotoFormat.TIFF):
            self._remark((f"{self._kind.name} does not hold IPTC; it is left out",))
        return kept


def _thumbnail(image: pyvips.Image) -> bytes:
    small = image.thumbnail_image(_THUMBNAIL_SIDE)
    return bytes(small.extract_band(0, n=3).cast("uchar", shift=True).jpegsave_buffer(Q=75, keep=0))


def _bmp(image: pyvips.Image, said: Metadata) -> bytes:
    """Behind the pixels, where no reader looks, stands the mark that BMP has no place for."""
    pixels = image.numpy()
    to_bgr = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    data = bytearray(cv2.imencode(".bmp", cv2.cvtColor(pixels, to_bgr))[1].tobytes())
    known = said.density is not None and said.density[0] > 0
    dots = (round(image.xres * 1000), round(image.yres * 1000)) if known else (0, 0)
    data[38:46] = struct.pack("<ii", *dots)
    return bytes(data) + NOTE.encode()
