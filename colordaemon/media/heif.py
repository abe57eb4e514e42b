"""HEIF files: HEIC pictures, and the items that a HEIC or AVIF file consists of.

HEIC is read and written through the libheif in pillow-heif, since this libvips cannot. Layout of
the items: ISO/IEC 23008-12 and 14496-12, section 8.11.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pillow_heif
import pyvips
from numpy.typing import NDArray

from colordaemon.errors import MediaError
from colordaemon.media.boxes import split, top_level
from colordaemon.media.icc import Coding, coding_of_cicp

_SRGB_CODE, _BT601, _PRIMARIES = 13, 6, 1
_HEADER_BYTES = 1 << 20
_FAILURES = (OSError, ValueError, RuntimeError, SyntaxError, EOFError)  # all that its plugins raise
_MOST_BYTES = 1 << 24  # of the boxes that list the items; a picture of 10,000 tiles has a megabyte
_PICTURES = frozenset((b"hvc1", b"av01", b"grid", b"iden", b"iovl", b"tmap", b"avc1", b"jpeg"))
_PARTS = frozenset((b"dimg", b"thmb", b"auxl"))  # what makes a picture a part of another


@dataclass(frozen=True)
class HeicPicture:
    """One HEIC picture, upright. icc: its profile, or empty."""

    image: pyvips.Image
    exif: bytes
    xmp: bytes
    icc: bytes
    remarks: tuple[str, ...]


def size_of(path: Path) -> tuple[int, int]:
    """Width and height, before anything is decoded. Raises MediaError."""
    width, height = _open(path).size
    return width, height


def exif_of(path: Path) -> bytes:
    """The EXIF block of the picture that is shown, or nothing. Raises MediaError."""
    return bytes(_open(path).info.get("exif") or b"")


def read(path: Path) -> HeicPicture:
    """Decode the picture that is shown, of several. Raises MediaError for what is damaged."""
    file = _open(path)
    try:
        pixels: NDArray[Any] = np.asarray(file)
    except _FAILURES as error:
        raise MediaError(f"{path}: {error}, expected a sound HEIC picture") from error
    pixels = np.atleast_3d(pixels)
    deep = pixels.dtype == np.uint16
    colors = ("grey16" if deep else "b-w") if pixels.shape[2] < 3 else ("rgb16" if deep else "srgb")
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation=colors)
    info = file.info
    if info.get("icc_profile"):
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", info["icc_profile"])
    return HeicPicture(
        image,
        (info.get("exif") or b"").removeprefix(b"Exif\0\0"),
        info.get("xmp") or b"",
        info.get("icc_profile") or b"",
        tuple(_remarks(info)),
    )


def _open(path: Path) -> Any:
    try:
        file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
    except _FAILURES as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise MediaError(f"{path}: {error}, expected a sound HEIC picture") from error
    if not len(file):
        raise MediaError(f"{path}: no picture in it, expected a sound HEIC picture")
    return file[file.primary_index]


def _remarks(info: dict[str, Any]) -> list[str]:
    remarks = []
    if info.get("depth_images"):
        remarks.append("its depth map is left out")
    if info.get("aux"):
        remarks.append("further planes of it (gain map, mattes) are left out")
    return remarks


def write(image: pyvips.Image, quality: int, exif: bytes, xmp: bytes, icc: bytes) -> bytes:
    """A HEIC file of 8 bits, or of 10 for a picture of 16, with half the chroma as all readers
    expect it. Anything that fails here is the machine's fault."""
    deep, alpha = image.format == "ushort", image.bands == 4
    mode = ("RGBA" if alpha else "RGB") + (";16" if deep else "")
    file = pillow_heif.from_bytes(
        mode=mode, size=(image.width, image.height), data=image.write_to_memory()
    )
    info: dict[str, Any] = file[0].info
    info["icc_profile"], info["icc_profile_type"] = icc, "prof"
    out = io.BytesIO()
    file.save(
        out,
        quality=quality,
        exif=b"Exif\0\0" + exif,
        xmp=xmp,
        matrix_coefficients=_BT601,
        color_primaries=_PRIMARIES,
        transfer_characteristics=_SRGB_CODE,
        full_range_flag=1,
    )
    return out.getvalue()


def coding_of(path: Path) -> Coding:
    """The curve and primaries that HEIC or AVIF gives as numbers (colr, nclx).

    Raises MediaError, without the file's name, for high dynamic range.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    place = head.find(b"colrnclx")
    if place < 0 or place + 12 > len(head):
        return Coding()
    return coding_of_cicp(*struct.unpack_from(">HH", head, place + 8))


@dataclass(frozen=True)
class Items:
    """kinds: four letters of each item by its number. references: kind, from, to. primary: the
    number of the picture that is shown."""

    kinds: dict[int, bytes]
    references: tuple[tuple[bytes, int, int], ...]
    primary: int

    def of_kind(self, kind: bytes) -> list[int]:
        return [number for number, found in self.kinds.items() if found == kind]

    def referring(self, kind: bytes) -> list[int]:
        """Items that are to another what the kind of reference says: thumbnails, planes."""
        return [*dict.fromkeys(start for name, start, _ in self.references if name == kind)]

    def further_pictures(self) -> list[int]:
        """Pictures beside the one that is shown, which are no part of any other."""
        parts = {end if name == b"dimg" else start
                 for name, start, end in self.references if name in _PARTS}  # fmt: skip
        pictures = (number for number, kind in self.kinds.items() if kind in _PICTURES)
        return [number for number in pictures if number not in parts | {self.primary}]


def items_of(path: Path) -> Items:
    """Raises MediaError for what is damaged."""
    with path.open("rb") as file:
        return _items(file, str(path))


def items_in(data: bytes) -> Items:
    """Of a file in memory."""
    return _items(io.BytesIO(data), "an encoded picture")


def _items(file: BinaryIO, path: str) -> Items:
    try:
        boxes = dict(split(_meta(file, path)[4:]))
        (primary,) = struct.unpack_from(">I" if boxes[b"pitm"][0] else ">H", boxes[b"pitm"], 4)
        kinds = dict(_kinds(boxes[b"iinf"]))
        return Items(kinds, tuple(_references(boxes.get(b"iref", b""))), primary)
    except (MediaError, KeyError, IndexError, struct.error) as error:
        raise MediaError(f"{path}: its list of items is damaged, expected a HEIF file") from error


def _meta(file: BinaryIO, path: str) -> bytes:
    for kind, offset, header, size in top_level(file):
        if kind == b"meta":
            file.seek(offset + header)
            return file.read(min(size - header, _MOST_BYTES))
    raise MediaError(f"{path}: no list of items, expected a HEIF file")


def _kinds(data: bytes) -> Iterator[tuple[int, bytes]]:
    for kind, entry in split(data[6:] if data[0] == 0 else data[8:]):
        if kind == b"infe" and entry[0] in (2, 3):
            wide = entry[0] == 3
            (number,) = struct.unpack_from(">I" if wide else ">H", entry, 4)
            start = 10 if wide else 8
            yield number, entry[start : start + 4]


def _references(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    if not data:
        return
    code = ">I" if data[0] else ">H"
    size = struct.calcsize(code)
    for kind, body in split(data[4:]):
        (start,) = struct.unpack_from(code, body)
        (count,) = struct.unpack_from(">H", body, size)
        for number in range(count):
            (end,) = struct.unpack_from(code, body, size + 2 + number * size)
            yield kind, start, end


def with_content(data: bytes, number: int, content: bytes) -> bytes:
    """A file with another content of an item, which is put behind everything else.

    Raises ValueError where the item's place is told in a way that libheif does not write.
    """
    base, place = _place_of(data, number)
    box = struct.pack(">I4s", 8 + len(content), b"mdat") + content
    changed = bytearray(data + box)
    changed[base] = bytes(base.stop - base.start)
    changed[place : place + 8] = struct.pack(">II", len(data) + 8, len(content))
    return bytes(changed)


def _place_of(data: bytes, number: int) -> tuple[slice, int]:
    """Where the base of an item's offset stands; and where that offset does, in four bytes, with
    the length in four more behind it."""
    start = data.index(b"iloc") + 4
    version, sizes, more = data[start], data[start + 4], data[start + 5]
    wide = ">I" if version == 2 else ">H"
    (count,) = struct.unpack_from(wide, data, start + 6)
    position = start + 6 + struct.calcsize(wide)
    base, index = more >> 4, (more & 15 if version else 0)
    for _ in range(count):
        (item,) = struct.unpack_from(wide, data, position)
        position += struct.calcsize(wide)
        method = struct.unpack_from(">H", data, position)[0] & 15 if version else 0
        position += 4 if version else 2
        base_at = slice(position, position + base)
        position += base
        (extents,) = struct.unpack_from(">H", data, position)
        position += 2
        if item == number:
            if sizes != 0x44 or method or extents != 1:
                raise ValueError(f"item {number} lies in several places, or within another box")
            return base_at, position + index
        position += extents * (index + (sizes >> 4) + (sizes & 15))
    raise ValueError(f"no place of item {number}")
