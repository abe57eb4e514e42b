"""Recognizes the kind of a picture by its first bytes: formats that are colored, and others by
name.

They are recognized because FFmpeg opens many of them as films of one frame.
"""

from __future__ import annotations

import struct
from enum import Enum

from colordaemon import suffixes

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of all header versions
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis")
_MOVING_BRANDS = {
    b"avis": "a sequence of AVIF pictures",
    b"hevc": "a sequence of HEIC pictures",
    b"hevx": "a sequence of HEIC pictures",
    b"msf1": "a sequence of HEIF pictures",
}


class PhotoFormat(Enum):
    """What a photo file is, by its content. The suffixes: the usual one first."""

    JPEG = suffixes.JPEG
    PNG = suffixes.PNG
    TIFF = suffixes.TIFF
    WEBP = suffixes.WEBP
    BMP = suffixes.BMP
    AVIF = suffixes.AVIF
    HEIC = suffixes.HEIC
    GIF = suffixes.GIF

    @classmethod
    def named(cls, name: str) -> PhotoFormat:
        return cls[name.upper()]


READ = "JPEG, PNG, TIFF, WebP, BMP, AVIF, HEIC or still GIF"

_STARTS = {
    b"\xff\xd8\xff": PhotoFormat.JPEG,
    b"\x89PNG\r\n\x1a\n": PhotoFormat.PNG,
    b"II*\0": PhotoFormat.TIFF,
    b"MM\0*": PhotoFormat.TIFF,
    b"II+\0": PhotoFormat.TIFF,
    b"MM\0+": PhotoFormat.TIFF,
    b"GIF87a": PhotoFormat.GIF,
    b"GIF89a": PhotoFormat.GIF,
}
_OTHERS = {
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"II\xbc": "JPEG XR",
    b"SDPX": "DPX",
    b"XPDS": "DPX",
    b"\x80\x2a\x5f\xd7": "Cineon",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop document",
    b"gimp xcf": "GIMP document",
    b"FUJIFILMCCD-RAW": "camera raw (Fujifilm)",
    b"IIU\0": "camera raw (Panasonic)",
    b"IIRO": "camera raw (Olympus)",
    b"IIRS": "camera raw (Olympus)",
    b"MMOR": "camera raw (Olympus)",
    b"\0MRM": "camera raw (Minolta)",
    b"FOVb": "camera raw (Sigma)",
    b"II\x1a\0\0\0HEAPCCDR": "camera raw (Canon)",
    b"SIMPLE  =": "FITS",
    b"AT&TFORM": "DjVu",
    b"\x01\xda": "SGI picture",
    b"\x59\xa6\x6a\x95": "Sun raster",
    b"qoif": "QOI",
    b"BPG\xfb": "BPG",
    b"FLIF": "FLIF",
    b"\x8bJNG\r\n": "JNG",
    b"\x8aMNG\r\n": "MNG",
    b"<svg": "SVG",
}
_BITMAPS = {b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"Pf", b"PF"}


def photo_kind(head: bytes) -> PhotoFormat | None:
    """The format by the first 64 bytes; None if it is not one that is colored as a photo."""
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return None if head[8:10] == b"CR" and kind is PhotoFormat.TIFF else kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return PhotoFormat.WEBP
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return PhotoFormat.BMP
    brands = _brands(head)
    if brands and moving_name(head) is None:
        if brands[0] == b"avif" or (brands[0] == b"mif1" and b"avif" in brands):
            return PhotoFormat.AVIF
        if brands[0] in _HEIC_BRANDS or (brands[0] == b"mif1" and {*_HEIC_BRANDS} & {*brands}):
            return PhotoFormat.HEIC
    return None


def moving_name(head: bytes) -> str | None:
    """What a sequence of pictures in a file made for stills is called."""
    brands = _brands(head)
    return _MOVING_BRANDS.get(brands[0]) if brands else None


def other_name(head: bytes) -> str | None:
    """The name of a picture or document that is not read; None for what may be a film."""
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return name
    if head.startswith((b"II*\0\x10\0\0\0CR", b"II*\0")) and head[8:10] == b"CR":
        return "camera raw (Canon)"
    if head[:2] in _BITMAPS and head[2:3].isspace():
        return "PNM bitmap"
    brands = _brands(head)
    if not brands:
        return None
    if brands[0] == b"crx ":
        return "camera raw (Canon)"
    return moving_name(head) or (
        "HEIF of another kind" if brands[0] in (b"mif1", b"jpeg", b"j2ki") else None
    )


def _brands(head: bytes) -> list[bytes]:
    """Brands of a file made of ISO boxes: the major one, then those it is compatible with."""
    if head[4:8] != b"ftyp" or len(head) < 16:
        return []
    (size,) = struct.unpack_from(">I", head)
    rest = head[16 : min(size, len(head))]
    return [head[8:12], *(rest[i : i + 4] for i in range(0, len(rest) - 3, 4))]
