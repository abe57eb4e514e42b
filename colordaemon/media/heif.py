"""Reads and writes HEIC through the libheif in pillow-heif, since this libvips cannot."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pyvips
from numpy.typing import NDArray

from colordaemon.errors import MediaError
from colordaemon.media.icc import Coding, coding_of_cicp

_SRGB_CODE, _BT601, _PRIMARIES = 13, 6, 1
_HEADER_BYTES = 1 << 20
_FAILURES = (OSError, ValueError, RuntimeError, SyntaxError, EOFError)  # all that its plugins raise


@dataclass(frozen=True)
class Found:
    """One HEIC picture, upright. icc: its profile, or empty. coding: what it says in its place."""

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


def read(path: Path) -> Found:
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
    return Found(
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
    """What HEIC or AVIF says in numbers of its curve and primaries (colr, nclx).

    Raises MediaError, without the file's name, for high dynamic range.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    place = head.find(b"colrnclx")
    if place < 0 or place + 12 > len(head):
        return Coding()
    return coding_of_cicp(*struct.unpack_from(">HH", head, place + 8))
