"""The tables in docs/formats.md say what was really tried: a sample of each kind with everything in
it is colored, and what others' readers find in the result is compared with the table.

    COLORDAEMON_WRITE_TABLES=1 python -m pytest tests/test_formats.py

writes the tables anew.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pillow_heif
import pytest
import pyvips
from av.container import OutputContainer
from films import Extra, attachment, make_film, sound, still, subtitles
from films import color as color_film
from photos import WIDTH, as_rgb, chunk, color, image, partial_of, ramp

from colordaemon.config import FilmSettings
from colordaemon.media import tiff
from colordaemon.media.photo_file import PhotoFile

DOCS = Path(__file__).parent.parent / "docs" / "formats.md"
BEGIN, END = "<!-- {}: written by tests/test_formats.py -->", "<!-- end -->"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    b' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="MarkOfXmp"/></rdf:RDF></x:xmpmeta>'
)
IPTC = b"\x1c\x02\x78" + struct.pack(">H", 10) + b"MarkOfIptc"
RESOURCES = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
MAKE = tiff.text_tag("MarkOfExif")
EXIF = tiff.exif_block({271: MAKE})
MARKS = {"EXIF": b"MarkOfExif", "XMP": b"MarkOfXmp", "IPTC": b"MarkOfIptc", "texts": b"MarkOfText"}
YES, NO, NONE = "kept", "left out", ""
Row = dict[str, str]


# Photos


def alpha() -> np.ndarray:
    return np.dstack([as_rgb(ramp()), np.full_like(ramp(), 200)])


def described(pixels: np.ndarray) -> pyvips.Image:
    made = image(pixels).copy(xres=10, yres=10)
    made.set_type(pyvips.GValue.blob_type, "exif-data", b"Exif\0\0" + EXIF)
    made.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    return made


def jpeg() -> bytes:
    data = image(ramp()).jpegsave_buffer(Q=95)
    parts = [(0xE0, b"JFIF\0\1\2\1\0\xfe\0\xfe\0\0"), (0xE1, b"Exif\0\0" + EXIF),
             (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP), (0xFE, b"MarkOfText"),
             (0xED, b"Photoshop 3.0\0" + RESOURCES)]  # fmt: skip
    more = b"".join(struct.pack(">BBH", 0xFF, m, len(p) + 2) + p for m, p in parts)
    return bytes(data[:2] + more + data[2:])


def png() -> bytes:
    deep = alpha().astype(np.uint16) * 257
    data = image(deep).pngsave_buffer()
    more = chunk(b"eXIf", EXIF) + chunk(b"pHYs", struct.pack(">IIB", 10000, 10000, 1))
    more += chunk(b"tEXt", b"Title\0MarkOfText")
    more += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    return bytes(data[:33] + more + data[33:])


def tif() -> bytes:
    out = io.BytesIO()
    writer = tiff.TiffWriter(out, big=False)
    tags = {271: MAKE, 700: tiff.Tag(1, XMP), tiff.IPTC: tiff.Tag(7, IPTC),
            tiff.EXTRA_SAMPLES: tiff.short_tag(2), 270: tiff.text_tag("MarkOfText"),
            **tiff.density_tags((1, 254.0, 254.0))}  # fmt: skip
    deep = alpha().astype(np.uint16) * 257
    for _ in range(2):
        writer.add(image(deep).tiffsave_buffer(), tags)
    return out.getvalue()


def heic() -> bytes:
    out = io.BytesIO()
    file = pillow_heif.from_bytes("RGBA", (WIDTH, len(ramp())), alpha().tobytes())
    file.save(out, quality=90, exif=b"Exif\0\0" + EXIF, xmp=XMP)
    return out.getvalue()


def gif() -> bytes:
    data = image(ramp()).gifsave_buffer()
    start = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    return bytes(data[:start] + b"\x21\xfe\x0aMarkOfText\0" + data[start:])


def bmp() -> bytes:
    data = bytearray(cv2.imencode(".bmp", alpha())[1].tobytes())
    data[38:46] = struct.pack("<ii", 10000, 10000)
    return bytes(data)


PHOTOS: dict[str, Callable[[], bytes]] = {
    "JPEG": jpeg,
    "PNG": png,
    "TIFF": tif,
    "WebP": lambda: bytes(described(alpha()).webpsave_buffer(lossless=True)),
    "BMP": bmp,
    "AVIF": lambda: bytes(described(alpha()).heifsave_buffer(compression="av1", effort=0)),
    "HEIC": heic,
    "GIF": gif,
}


def features_of(path: Path) -> set[str]:
    """What readers other than our lists find in a photo."""
    data = path.read_bytes()
    found = {name for name, mark in MARKS.items() if mark in data}
    file = PhotoFile(path)
    picture = file.open_image(0)
    found |= {"pages"} if file.pages > 1 else set()
    found |= {"16 bit"} if picture.format == "ushort" else set()
    found |= {"transparency"} if picture.bands in (2, 4) else set()
    found |= {"resolution"} if round(picture.xres * 25.4) == 254 else set()
    return found


def photo_row(folder: Path, name: str) -> Row:
    source = folder / name
    source.write_bytes(PHOTOS[name]())
    color(source)
    before, after = features_of(source), features_of(partial_of(source))
    row = {feature: (YES if feature in after else NO) if feature in before else NONE
           for feature in ("16 bit", "transparency", "pages", "EXIF", "XMP", "IPTC", "texts",
                           "resolution")}  # fmt: skip
    return {"photo": name, "becomes": PhotoFile(partial_of(source)).kind.name} | row


# Films


def chapters(container: OutputContainer) -> list[Any]:
    base = Fraction(1, 1000)
    marks = [{"id": n, "start": n * 100, "end": n * 100 + 100, "time_base": base,
              "metadata": {"title": f"Chapter {n}"}} for n in range(2)]  # fmt: skip
    container.set_chapters(marks)  # type: ignore[arg-type]
    return []


FILMS: dict[str, tuple[str, list[Extra]]] = {
    "mp4": ("libx264", [sound(), subtitles("mov_text"), chapters, still(cover=True)]),
    "mov": ("libx264", [sound(), subtitles("mov_text"), chapters]),
    "mkv": ("libx264", [sound(), subtitles(), attachment(), chapters]),
    "webm": ("libvpx-vp9", [sound("libopus"), chapters]),
    "avi": ("mpeg4", [sound("libmp3lame")]),
    "ts": ("mpeg2video", [sound("mp2")]),
    "mpg": ("mpeg2video", [sound("mp2")]),
    "mxf": ("mpeg2video", [sound("pcm_s16le", seconds=0.24)]),
    "nut": ("ffv1", [sound("flac")]),
    "asf": ("wmv2", [sound("wmav2", bit_rate=64000)]),
}
_EVEN = Fraction(1, 25)  # the only clock of these containers
_OWN_CLOCK = {"avi": _EVEN, "mxf": _EVEN, "mpg": _EVEN, "ts": _EVEN}


def film_features(path: Path) -> set[str]:
    with av.open(str(path)) as container:
        kinds = {stream.type for stream in container.streams}
        covers = [
            s for s in container.streams if s.disposition & av.stream.Disposition.attached_pic
        ]
        found = {"sound"} if "audio" in kinds else set()
        found |= {"subtitles"} if "subtitle" in kinds else set()
        found |= {"attachments"} if "attachment" in kinds else set()
        found |= {"cover"} if covers else set()
        found |= {"chapters"} if len(container.chapters()) == 2 else set()
        words = [v for k, v in container.metadata.items() if k.lower() == "title"]
        found |= {"title"} if "MarkOfTitle" in words else set()
        languages = {s.language for s in container.streams if s.type == "audio"}
        found |= {"languages"} if "eng" in languages else set()
    return found


def film_row(folder: Path, name: str) -> Row:
    codec, extras = FILMS[name]
    source = make_film(folder / f"film.{name}", codec=codec, extras=extras,
                       time_base=_OWN_CLOCK.get(name, Fraction(1, 1000)),
                       metadata={"title": "MarkOfTitle"})  # fmt: skip
    done = color_film(source, FilmSettings(encoder_options={"preset": "ultrafast"}))
    before, after = film_features(source), film_features(done)
    row = {feature: (YES if feature in after else NO) if feature in before else NONE
           for feature in ("sound", "subtitles", "languages", "chapters", "attachments", "cover",
                           "title")}  # fmt: skip
    return {"film": f"{name}, {codec.removeprefix('lib')}", "becomes": done.suffix} | row


TABLES: Mapping[str, tuple[Callable[[Path, str], Row], list[str]]] = {
    "photos": (photo_row, [*PHOTOS]),
    "films": (film_row, [*FILMS]),
}


def line_of(row: Mapping[str, str]) -> str:
    return "| " + " | ".join(row.values()) + " |"


@pytest.mark.parametrize("table", [*TABLES])
def test_the_tables_of_formats_say_what_was_tried(tmp_path: Path, table: str) -> None:
    make_row, names = TABLES[table]
    rows = [make_row(tmp_path, name) for name in names]
    lines = [line_of({key: key for key in rows[0]}), "|---" * len(rows[0]) + "|"]
    made = "\n".join([*lines, *map(line_of, rows)])
    text = DOCS.read_text()
    begin = text.index(BEGIN.format(table)) + len(BEGIN.format(table)) + 1
    end = text.index(END, begin)
    if os.environ.get("COLORDAEMON_WRITE_TABLES"):
        DOCS.write_text(f"{text[:begin]}{made}\n{text[end:]}")
    else:
        assert text[begin:end].strip() == made
