"""Photo files as they are found: which format, how many pages, which pixels, and is it all sound.

Files are known by their content, never by their name, and opened by descriptor: libvips takes
"a[page=1].tif" for options, and cannot be given a name that is not UTF-8.
"""

from __future__ import annotations

import logging
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np
import pyvips

from colordaemon.errors import MediaError
from colordaemon.media import tiff

# libvips warns, from threads of its own and without a file name, of what it also raises.
logging.getLogger("pyvips").setLevel(logging.ERROR)

# A bound against decompression bombs: 65 KB of PNG can hold 60000 x 60000 pixels. Scans of large
# glass plates stay under 300 megapixels.
MOST_PIXELS = 500_000_000

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of all header versions


class PhotoFormat(Enum):
    """What a photo file is, by its content. The suffixes: the usual one first."""

    JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
    PNG = (".png",)
    TIFF = (".tif", ".tiff")
    WEBP = (".webp",)
    BMP = (".bmp", ".dib")

    @classmethod
    def named(cls, name: str) -> PhotoFormat:
        return cls[name.upper()]


@dataclass(frozen=True)
class Page:
    """One picture of a file.

    image: as stored, pixels not yet decoded; can be read once, from top to bottom.
    pixels: gray or RGB coded as sRGB, then alpha if there is any; read like image.
    top: the code of white in the color bands of pixels, 255 or 65535; alpha keeps its own codes.
    orientation: as in EXIF, 1 to 8.
    """

    image: pyvips.Image
    pixels: pyvips.Image
    has_alpha: bool
    top: int
    depth: int
    orientation: int
    warnings: tuple[str, ...] = ()


def photo_format(path: Path) -> PhotoFormat | None:
    """The format by the first bytes; None if it is not one of ours. OSError passes through."""
    if not stat.S_ISREG(path.stat().st_mode):
        return None  # opening a pipe would wait for ever
    with path.open("rb") as file:
        head = file.read(18)
    starts = {
        b"\xff\xd8\xff": PhotoFormat.JPEG,
        b"\x89PNG\r\n\x1a\n": PhotoFormat.PNG,
        b"II*\0": PhotoFormat.TIFF,
        b"MM\0*": PhotoFormat.TIFF,
        b"II+\0": PhotoFormat.TIFF,
        b"MM\0+": PhotoFormat.TIFF,
    }
    for start, kind in starts.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return PhotoFormat.WEBP
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return PhotoFormat.BMP
    return None


def page_count(path: Path, kind: PhotoFormat) -> int:
    """How many pages a file has. Raises MediaError for moving pictures and camera raws."""
    if kind is PhotoFormat.PNG and b"acTL" in _chunks(path, 8, ">I4s", b"IDAT"):
        raise MediaError(f"{path}: animated PNG, expected a still picture")
    if kind is PhotoFormat.TIFF:
        tags = tiff.file_tags(path, 0)
        subfile = tags.get(tiff.NEW_SUBFILE_TYPE)
        # NEF, ARW and the like begin with a thumbnail; coloring that would look like success.
        if tiff.DNG_VERSION in tags or (subfile and subfile.numbers and subfile.numbers[0] & 1):
            raise MediaError(f"{path}: camera raw, expected a developed picture")
    if kind not in (PhotoFormat.TIFF, PhotoFormat.WEBP):
        return 1
    image = open_image(path, kind, 0)
    pages = int(image.get("n-pages")) if image.get_typeof("n-pages") else 1
    if kind is PhotoFormat.WEBP and pages > 1:
        raise MediaError(f"{path}: animated WebP of {pages} frames, expected a still picture")
    return pages


def open_image(path: Path, kind: PhotoFormat, page: int) -> pyvips.Image:
    """A page as stored; checks the header only, the pixels follow as they are read."""
    with reading(path):
        image = _open_bmp(path) if kind is PhotoFormat.BMP else _open(path, kind, page)
    if image.width * image.height > MOST_PIXELS:
        raise MediaError(
            f"{path}: {image.width} x {image.height} pixels, expected {MOST_PIXELS} at most"
        )
    return image


def open_page(path: Path, kind: PhotoFormat, page: int) -> Page:
    """A page with its color profile applied. Raises MediaError for what is not gray or RGB."""
    image = open_image(path, kind, page)
    if image.interpretation not in ("b-w", "grey16", "srgb", "rgb", "rgb16", "multiband"):
        raise MediaError(f"{path}: colors are {image.interpretation}, expected gray or RGB")
    if image.format not in ("uchar", "ushort") or not 1 <= image.bands <= 4:
        raise MediaError(
            f"{path}: {image.bands} channels of {image.format}, expected 1 to 4 of 8 or 16 bits;"
            " other numbers have no agreed white"
        )
    has_alpha = image.bands in (2, 4)
    color = image.extract_band(0, n=image.bands - 1) if has_alpha else image
    depth = 8 if image.format == "uchar" else 16
    color, warnings = _as_srgb(color)
    pixels = color.bandjoin(image.extract_band(image.bands - 1)) if has_alpha else color
    orientation = int(image.get("orientation")) if image.get_typeof("orientation") else 1
    if orientation not in range(1, 9):
        orientation = 1
    top = 255 if color.format == "uchar" else 65535
    return Page(image, pixels, has_alpha, top, depth, orientation, warnings)


def _as_srgb(color: pyvips.Image) -> tuple[pyvips.Image, tuple[str, ...]]:
    if not color.get_typeof("icc-profile-data"):
        return color, ()
    profile = color.get("icc-profile-data")
    # libvips would put a profile of its own in place of one that does not fit, and not say so.
    if profile[36:40] == b"acsp" and profile[16:20] == (b"GRAY" if color.bands == 1 else b"RGB "):
        try:
            # 16 bits also for 8-bit pictures: a second rounding would move gray by a code.
            return color.icc_transform("srgb", embedded=True, depth=16, intent="relative"), ()
        except pyvips.Error:
            pass
    return color, ("its color profile is damaged or of another kind; read as sRGB",)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What libvips says about a file becomes a MediaError that names it."""
    try:
        yield
    except pyvips.Error as error:
        _read_through(path)
        reason = (error.detail or error.message or "unreadable").strip().splitlines()
        raise MediaError(
            f"{path}: {reason[-1] if reason else 'unreadable'}, expected a sound picture"
        ) from error


def _read_through(path: Path) -> None:
    """Raise OSError if it is the disk that fails and not the picture."""
    with path.open("rb") as file:
        while file.read(1 << 22):
            pass


def _open(path: Path, kind: PhotoFormat, page: int) -> pyvips.Image:
    load = {
        PhotoFormat.JPEG: pyvips.Image.jpegload_source,
        PhotoFormat.PNG: pyvips.Image.pngload_source,
        PhotoFormat.TIFF: pyvips.Image.tiffload_source,
        PhotoFormat.WEBP: pyvips.Image.webpload_source,
    }[kind]
    options = {"page": page} if kind is PhotoFormat.TIFF else {}
    with path.open("rb") as file:
        source = pyvips.Source.new_from_descriptor(file.fileno())
        # fail_on "truncated" would let a TIFF pass whose strips lie behind its end.
        return load(source, access="sequential", fail_on="error", **options)


def _open_bmp(path: Path) -> pyvips.Image:
    """libvips has no BMP; OpenCV has, but prints its errors, so we look before it does."""
    data = path.read_bytes()
    width, height, bits, compression, resolution = _bmp_header(path, data)
    start = int.from_bytes(data[10:14], "little")
    need = start + (width * bits + 31) // 32 * 4 * height
    if width * height > MOST_PIXELS:
        raise MediaError(f"{path}: {width} x {height} pixels, expected {MOST_PIXELS} at most")
    if compression in (0, 3, 6) and len(data) < need:
        raise MediaError(f"{path}: truncated, found {len(data)} bytes, expected {need}")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise MediaError(f"{path}: BMP data cannot be decoded, expected {width} x {height} pixels")
    if pixels.ndim == 3:
        to_rgb = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(pixels, to_rgb)
    colors = "b-w" if pixels.ndim == 2 else "srgb"
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=colors)
    return image.copy(xres=resolution / 1000, yres=resolution / 1000) if resolution > 0 else image


def _bmp_header(path: Path, data: bytes) -> tuple[int, int, int, int, int]:
    """Width, height, bits per pixel, compression and pixels per metre."""
    try:
        if data[14] == 12:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            compression = resolution = 0
        else:
            width, height, _, bits, compression, _, resolution = struct.unpack_from(
                "<iiHHIIi", data, 18
            )
    except (struct.error, IndexError) as error:
        raise MediaError(f"{path}: truncated in its header, expected a BMP picture") from error
    if width <= 0 or height == 0:
        raise MediaError(f"{path}: {width} x {height} pixels, expected at least one")
    return width, abs(height), bits, compression, resolution  # negative: rows from top to bottom


def is_lossless_webp(path: Path) -> bool:
    return b"VP8L" in _chunks(path, 12, "<4sI", b"VP8 ")


def has_more_pictures(path: Path) -> bool:
    """Whether a JPEG carries further pictures behind the first (multi-picture format)."""
    with path.open("rb") as file:
        return b"MPF\0" in file.read(1 << 17)


def _chunks(path: Path, start: int, layout: str, last: bytes) -> set[bytes]:
    """Names of the chunks of a PNG or WebP file, up to the one that holds the pixels."""
    names: set[bytes] = set()
    with path.open("rb") as file:
        file.seek(start)
        while len(head := file.read(8)) == 8 and last not in names:
            first, second = struct.unpack(layout, head)
            name, size = (second, first) if layout.startswith(">") else (first, second)
            names.add(name)
            # PNG has a checksum behind each chunk, WebP an even size.
            file.seek(size + 4 if layout.startswith(">") else size + size % 2, 1)
    return names
