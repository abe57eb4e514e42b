"""Reads photo files: format, pages, pixels, and whether anything is damaged.

Files are known by their content, never by their name, and opened by descriptor: libvips takes
"a[page=1].tif" for options, and cannot be given a name that is not UTF-8.
"""

from __future__ import annotations

import logging
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from mmap import mmap
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pyvips

from colordaemon.errors import AlreadyColor, MediaError
from colordaemon.logs import counted
from colordaemon.media import heif, jpeg, png, tiff
from colordaemon.media.heif import items_of
from colordaemon.media.icc import Coding, coding_of_cicp, coding_of_gamma, profile
from colordaemon.media.metadata import Metadata, finished, mapped, read_metadata
from colordaemon.media.repair import check_compression, lean_copy, needs_packing, packed_anew
from colordaemon.media.stills import READ, PhotoFormat, moving_name, other_name, photo_kind

# libvips warns, from threads of its own and without a file name, of what it also raises.
logging.getLogger("pyvips").setLevel(logging.ERROR)

T = TypeVar("T")

# A bound against decompression bombs: 65 KB of PNG can hold 60000 x 60000 pixels. Scans of large
# glass plates stay under 300 megapixels.
MOST_PIXELS = 500_000_000
MOST_BYTES = 8 * MOST_PIXELS  # of a file with one picture, were it not packed at all
MOST_PAGES = 5_000  # of a TIFF: the pages of ten books; each takes the network a tenth of a second
MOST_SIDE = 300_000  # an enlarged line of colors takes a kilobyte a pixel

_HEAD_BYTES = 64
_MASK = 4  # bit of NewSubfileType: not a picture but a mask or an infrared plane of another


@dataclass(frozen=True)
class Page:
    """One picture of a file.

    image: as stored, pixels not yet decoded; can be read once, from top to bottom.
    pixels: gray or RGB coded as sRGB, then the other samples as they are; read like image.
    colors: how many bands of pixels are color. extras: what the others are, in TIFF's numbers: 1
    and 2 are transparency (only the first can be), 0 is unknown, as infrared is.
    top: the code of white in the color bands of pixels, 255 or 65535; the others keep their codes.
    is_bilevel: whether it holds black and white only.
    """

    image: pyvips.Image
    pixels: pyvips.Image
    colors: int
    extras: tuple[int, ...]
    top: int
    depth: int
    is_bilevel: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def has_alpha(self) -> bool:
        return bool(self.extras) and self.extras[0] in (1, 2)


def photo_format(path: Path) -> PhotoFormat | None:
    """The format by the first bytes; None if it is not one of ours. OSError passes through."""
    kind = photo_kind(_head(path))
    if kind is PhotoFormat.GIF and _moves(path):
        return None
    return kind


def picture_name(path: Path) -> str | None:
    """The name of a kind of picture that is not read, and never a film; None for anything else."""
    return other_name(_head(path))


def _head(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):
        return b""  # opening a pipe would wait for ever
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _moves(path: Path) -> bool:
    with suppress(MediaError), reading(path), path.open("rb") as file:
        source = pyvips.Source.new_from_descriptor(file.fileno())
        image = pyvips.Image.gifload_source(source)
        return bool(image.get_typeof("n-pages") and image.get("n-pages") > 1)
    return False


def describe(path: Path) -> str:
    """Names the kind of a file that is not one of our photo formats, for a message."""
    if not path.is_file():
        return "not a plain file"
    head = _head(path)
    if not head:
        return "empty"
    if head.startswith(b"GIF8"):
        return "an animated GIF"
    return other_name(head) or moving_name(head) or f"begins with {head[:12]!r}"


class PhotoFile:
    """A photo, opened as often as its pixels are needed.

    accept_damaged: whether what is left of a damaged picture will do. `trust_less` is asked after a
    picture could not be read through: it says whether there is a more patient way.
    """

    def __init__(self, path: Path, *, accept_damaged: bool = False) -> None:
        kind = photo_format(path)
        if kind is None:
            raise MediaError(f"{path}: {describe(path)}, expected a {READ} picture")
        if kind is not PhotoFormat.TIFF and (size := path.stat().st_size) > MOST_BYTES:
            raise MediaError(f"{path}: {size} bytes, expected {MOST_BYTES} at most")
        self.path, self.kind = path, kind
        self.remarks: tuple[str, ...] = ()
        self._repaired: dict[int, bytes] = {}
        self._known_tags: dict[int, tiff.Tags] = {}
        self._ways = ["error"]
        with mapped(path) as data:
            if (lean := lean_copy(data, path, kind)) is not None:
                self._repaired[0] = lean
            if kind is PhotoFormat.JPEG:
                self._ways = ["warning", "error"]
                self._mend_end(data)
        self._accept_damaged = accept_damaged
        if accept_damaged:
            self._ways.append("none")
        # "truncated" would let a TIFF pass whose strips lie behind its end.

    def _mend_end(self, data: mmap) -> None:
        """Without its end marker, a JPEG may still have every pixel; that shows as they are read,
        if its decoder is strict."""
        if jpeg.take_apart(data).end is None:
            self._repaired[0] = self._repaired.get(0, data[:]) + jpeg.END
            self._ways.remove("error")
            self.remarks = ("its end marker is missing; everything before it is there",)

    def trust_less(self) -> bool:
        """Read more patiently from now on, and say so. False: there is no other way."""
        if len(self._ways) == 1:
            return False
        self._ways.pop(0)
        said = {
            "error": "its decoder met damage and passed over it",
            "none": "it is damaged; what could be read is colored",
        }
        self.remarks = (said[self._ways[0]],)
        return True

    def read_patiently(self, read: Callable[[], T], *, advises: bool = True) -> T:
        """Read pixels, and where they are damaged once more in every more patient way.

        advises: the error says how a damaged photo is colored nevertheless.
        """
        while True:
            try:
                with reading(self.path):
                    return read()
            except AlreadyColor:
                raise
            except MediaError as error:
                if self.trust_less():
                    continue
                if self._accept_damaged or not advises or not self._is_legible(read):
                    raise
                cure = "`once --accept-damaged` colors what can be read"
                raise MediaError(f"{error}; {cure}") from error

    def _is_legible(self, read: Callable[[], T]) -> bool:
        """Whether a damaged picture can be read in part. Nothing else is to be read after this."""
        self._ways = ["none"]
        try:
            with reading(self.path):
                read()
        except MediaError:
            return False
        return True

    @cached_property
    def pages(self) -> int:
        """How many pages a file has. Raises MediaError for moving pictures and camera raws."""
        _check_still(self.path, self.kind)
        if self.kind in (PhotoFormat.JPEG, PhotoFormat.PNG, PhotoFormat.BMP, PhotoFormat.HEIC):
            return 1
        image = self.open_image(0)
        pages = int(image.get("n-pages")) if image.get_typeof("n-pages") else 1
        if self.kind is PhotoFormat.WEBP and pages > 1:
            raise MediaError(
                f"{self.path}: animated WebP of {pages} frames, expected a still picture"
            )
        if pages > MOST_PAGES:
            raise MediaError(f"{self.path}: {pages} pages, expected {MOST_PAGES} at most")
        return 1 if self.kind is PhotoFormat.AVIF else pages

    @cached_property
    def _further_pictures(self) -> tuple[str, ...]:
        """A remark on the pictures of a HEIF file beside the one that is shown."""
        count = len(items_of(self.path).further_pictures())
        return (f"left out: {counted(count, 'further picture')} in it",) if count else ()

    def open_image(self, page: int) -> pyvips.Image:
        """A page as stored; checks the header only, the pixels follow as they are read."""
        with reading(self.path):
            match self.kind:
                case PhotoFormat.BMP:
                    image = _open_bmp(self.path)
                case PhotoFormat.HEIC:
                    _check_pixels(self.path, *heif.size_of(self.path))
                    image = self._heic.image
                case _:
                    image = self._load(page)
        _check_pixels(self.path, image.width, image.height)
        return image

    @cached_property
    def _heic(self) -> heif.HeicPicture:
        return heif.read(self.path)

    @cached_property
    def _shown(self) -> int:
        """Which of the pictures of an AVIF file is the one to show."""
        with self._source(0) as source:
            image = pyvips.Image.heifload_source(source)
        return int(image.get("heif-primary")) if image.get_typeof("heif-primary") else 0

    def _load(self, page: int) -> pyvips.Image:
        load = {
            PhotoFormat.JPEG: pyvips.Image.jpegload_source,
            PhotoFormat.PNG: pyvips.Image.pngload_source,
            PhotoFormat.TIFF: pyvips.Image.tiffload_source,
            PhotoFormat.WEBP: pyvips.Image.webpload_source,
            PhotoFormat.AVIF: pyvips.Image.heifload_source,
            PhotoFormat.GIF: pyvips.Image.gifload_source,
        }[self.kind]
        options: dict[str, object] = {"access": "sequential", "fail_on": self._ways[0]}
        if self.kind in (PhotoFormat.TIFF, PhotoFormat.AVIF, PhotoFormat.JPEG, PhotoFormat.PNG):
            options["unlimited"] = True  # our own bound on pixels holds; tags may be large
        if self.kind is PhotoFormat.AVIF:
            options["page"] = self._shown
        if self.kind is PhotoFormat.TIFF:
            self._pack_anew(page)
            options["page"] = 0 if page in self._repaired else page
        with self._source(page) as source:
            return load(source, **options)

    @contextmanager
    def _source(self, page: int) -> Iterator[pyvips.Source]:
        """The file, or what takes its place."""
        if page in self._repaired:
            yield pyvips.Source.new_from_memory(self._repaired[page])
            return
        with self.path.open("rb") as file:
            yield pyvips.Source.new_from_descriptor(file.fileno())

    def _pack_anew(self, page: int) -> None:
        if page in self._repaired:
            return
        tags = self.tags(page)
        try:
            check_compression(tags)
            if needs_packing(tags):
                with mapped(self.path) as data:
                    self._repaired[page] = packed_anew(data, page)
        except MediaError as error:
            raise MediaError(f"{self.path}: {error}") from None

    def metadata(self, page: int) -> Metadata:
        if self.kind is PhotoFormat.HEIC:
            heic = self._heic
            remarks = (*heic.remarks, *self._further_pictures)
            told = finished(
                Metadata(exif=heic.exif, xmp=heic.xmp, remarks=remarks, is_whole=not remarks)
            )
            return replace(told, orientation=1)  # the decoder has turned it upright
        if self.kind is PhotoFormat.AVIF:
            image = self.open_image(page)
            exif, xmp = (
                image.get(name) if image.get_typeof(name) else b""
                for name in ("exif-data", "xmp-data")
            )
            remarks = self._further_pictures
            told = finished(
                Metadata(
                    exif=exif.removeprefix(jpeg.EXIF),
                    xmp=xmp,
                    remarks=remarks,
                    is_whole=not remarks,
                )
            )
            return replace(told, orientation=1)
        tags = self.tags(page) if self.kind is PhotoFormat.TIFF else {}
        found = read_metadata(self.path, self.kind, tags)
        if self.kind is PhotoFormat.BMP:
            image = self.open_image(page)
            dots = image.xres * 10, image.yres * 10  # per cm
            found = replace(found, density=(2, *dots) if image.get_typeof(_DENSITY) else None)
        return found

    def tags(self, page: int) -> tiff.Tags:
        """The tags of a TIFF page; some are as large as the picture, and are read once."""
        if page not in self._known_tags:
            self._known_tags = {page: tiff.file_tags(self.path, page)}
        return self._known_tags[page]

    def is_mask(self, page: int) -> bool:
        """Whether a page belongs to another, as infrared planes and masks do."""
        if self.kind is not PhotoFormat.TIFF:
            return False
        tag = self.tags(page).get(tiff.NEW_SUBFILE_TYPE)
        return bool(tag and tag.numbers and tag.numbers[0] & _MASK)

    def open_page(self, page: int) -> Page:
        """A page with its color profile applied. Raises MediaError for what is not gray or RGB."""
        image = self.open_image(page)
        tags = self.tags(page) if self.kind is PhotoFormat.TIFF else {}
        _check_samples(self.path, image, tags)
        colors = _colors(image, tags)
        extras = _extras(image.bands - colors, tags)
        color = image.extract_band(0, n=colors) if extras else image
        depth = 8 if image.format == "uchar" else 16
        color, warnings = self._as_srgb(color)
        pixels = color
        if extras:
            pixels = color.bandjoin(image.extract_band(colors, n=len(extras)))
        top = 255 if color.format == "uchar" else 65535
        bits = image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else 8
        return Page(image, pixels, color.bands, extras, top, depth, bits == 1, warnings)

    def _as_srgb(self, color: pyvips.Image) -> tuple[pyvips.Image, tuple[str, ...]]:
        is_gray = color.bands == 1
        coded = self._coding
        if coded is not None and not coded.is_srgb and not (is_gray and coded.gamma is None):
            color = color.copy()
            kind = pyvips.GValue.blob_type
            color.set_type(kind, "icc-profile-data", profile(coded, is_gray))
        elif coded is not None or not color.get_typeof("icc-profile-data"):
            return color, ()
        found = color.get("icc-profile-data")
        # libvips would put a profile of its own in place of one that does not fit, and not say so.
        if found[36:40] == b"acsp" and found[16:20] == (b"GRAY" if is_gray else b"RGB "):
            with suppress(pyvips.Error):
                # 16 bits also for 8-bit pictures: a second rounding would move gray by a code.
                return color.icc_transform("srgb", embedded=True, depth=16, intent="relative"), ()
        return color, ("its color profile is damaged or of another kind; read as sRGB",)

    @cached_property
    def _coding(self) -> Coding | None:
        """Curve and primaries where they are told in numbers that count; None: by a profile."""
        try:
            if self.kind is PhotoFormat.PNG:
                with mapped(self.path) as data:
                    return _png_coding(png.take_apart(data))
            if self.kind is PhotoFormat.AVIF:
                coded = heif.coding_of(self.path)
                return None if self.open_image(0).get_typeof("icc-profile-data") else coded
            if self.kind is PhotoFormat.HEIC:
                coded = heif.coding_of(self.path)
                return None if self._heic.icc else coded
        except MediaError as error:
            raise MediaError(f"{self.path}: {error}") from None
        return None


_DENSITY = "resolution-unit"


def _png_coding(parts: png.Parts) -> Coding | None:
    """In the order in which the specification ranks what a PNG may say."""
    if cicp := parts.first(b"cICP"):
        return coding_of_cicp(*cicp[:2]) if len(cicp) >= 2 else Coding()
    if parts.first(b"iCCP") is not None:
        return None
    if parts.first(b"sRGB") is not None:
        return Coding()
    gamma, chroma = parts.first(b"gAMA"), parts.first(b"cHRM")
    primaries = None
    if chroma and len(chroma) == 32:
        primaries = tuple(n / 100000 for n in struct.unpack(">8I", chroma))
        primaries = primaries if all(0 < n < 1 for n in primaries) else None
    value = struct.unpack(">I", gamma)[0] / 100000 if gamma and len(gamma) == 4 else None
    return coding_of_gamma(value, primaries)


def _check_still(path: Path, kind: PhotoFormat) -> None:
    """Raises MediaError for moving pictures and camera raws."""
    if kind is PhotoFormat.PNG and b"acTL" in _chunks(path, 8, ">I4s", b"IDAT"):
        raise MediaError(f"{path}: animated PNG, expected a still picture")
    if kind is PhotoFormat.TIFF:
        tags = tiff.file_tags(path, 0)
        subfile = tags.get(tiff.NEW_SUBFILE_TYPE)
        # NEF, ARW and the like begin with a thumbnail; coloring that would look like success.
        if tiff.DNG_VERSION in tags or (subfile and subfile.numbers and subfile.numbers[0] & 1):
            raise MediaError(f"{path}: camera raw, expected a developed picture")


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise MediaError(f"{path}: {width} x {height} pixels, expected {MOST_PIXELS} at most")
    if max(width, height) > MOST_SIDE:
        raise MediaError(f"{path}: {width} x {height} pixels, expected sides up to {MOST_SIDE}")


_COLOR_NAMES = {"cmyk": "CMYK (printing inks)", "lab": "Lab", "labs": "Lab", "xyz": "XYZ"}


def _check_samples(path: Path, image: pyvips.Image, tags: tiff.Tags) -> None:
    if image.interpretation not in ("b-w", "grey16", "srgb", "rgb", "rgb16", "multiband"):
        name = _COLOR_NAMES.get(image.interpretation, image.interpretation)
        raise MediaError(f"{path}: colors are {name}, expected gray or RGB in {READ}")
    inks = tags.get(tiff.PHOTOMETRIC)
    if inks and inks.numbers[:1] == (5,):
        raise MediaError(f"{path}: colors are CMYK (printing inks), expected gray or RGB in {READ}")
    if image.format not in ("uchar", "ushort"):
        raise MediaError(
            f"{path}: samples are {image.format}, expected 8 or 16 bits without sign;"
            " other numbers have no agreed white"
        )


def _colors(image: pyvips.Image, tags: tiff.Tags) -> int:
    """How many bands are color: one for gray, three for RGB."""
    bands = int(image.bands)
    if tiff.EXTRA_SAMPLES in tags:
        bands -= len(tags[tiff.EXTRA_SAMPLES].numbers)
    photometric = tags[tiff.PHOTOMETRIC].numbers[:1] if tiff.PHOTOMETRIC in tags else ()
    if photometric and photometric[0] in (0, 1):
        return 1
    return 1 if bands < 3 else 3


def _extras(count: int, tags: tiff.Tags) -> tuple[int, ...]:
    told = tags[tiff.EXTRA_SAMPLES].numbers if tiff.EXTRA_SAMPLES in tags else (2,) * (not tags)
    return (*told, *(0,) * count)[:count]


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


def _open_bmp(path: Path) -> pyvips.Image:
    """libvips has no BMP; OpenCV has, but prints its errors, so we look before it does."""
    data = path.read_bytes()
    width, height, bits, compression, resolution = _bmp_header(path, data)
    start = int.from_bytes(data[10:14], "little")
    need = start + (width * bits + 31) // 32 * 4 * height
    _check_pixels(path, width, height)
    if compression in (0, 3, 6) and len(data) < need:
        raise MediaError(f"{path}: truncated, found {len(data)} bytes, expected {need}")
    pixels = None
    with suppress(cv2.error):  # as for more than 2^20 pixels on a side
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise MediaError(f"{path}: BMP data cannot be decoded, expected {width} x {height} pixels")
    if pixels.ndim == 3:
        to_rgb = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(pixels, to_rgb)
    colors = "b-w" if pixels.ndim == 2 else "srgb"
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=colors)
    if resolution > 0:
        image = image.copy(xres=resolution / 1000, yres=resolution / 1000)
        image.set_type(pyvips.GValue.gstr_type, _DENSITY, "cm")
    return image


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


def _chunks(path: Path, start: int, layout: str, last: bytes) -> set[bytes]:
    """Names of the chunks of a PNG or WebP file, up to the one that holds the pixels."""
    names: set[bytes] = set()
    with path.open("rb") as file:
        file.seek(start)
        while len(head := file.read(8)) == 8 and last not in names:
            first, second = struct.unpack(layout, head)
            name, size = (second, first) if layout.startswith(">") else (first, second)
            if not name.strip().isalnum():
                break
            names.add(name)
            # PNG has a checksum behind each chunk, WebP an even size.
            file.seek(size + 4 if layout.startswith(">") else size + size % 2, 1)
    return names
