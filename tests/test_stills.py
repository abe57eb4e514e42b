"""A picture is known by its contents and stays a picture, or is refused by the name of its kind."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pillow_heif
import pytest
import pyvips
from photos import HEIGHT, WIDTH, assert_refused, color, image, partial_of, predict, ramp

from colordaemon.config import Config, ModelSettings, PhotoSettings
from colordaemon.convert.convert import convert
from colordaemon.convert.models import Model, ModelCache
from colordaemon.errors import MediaError
from colordaemon.media import jpeg, tiff
from colordaemon.media.heif import items_in, with_content
from colordaemon.media.photo import color_photo, is_photo, output_suffix, plan_photo
from colordaemon.media.stills import PhotoFormat, photo_kind
from colordaemon.network.colorizer import Colorizer
from colordaemon.work_context import WorkContext


def heic(path: Path, *pictures: np.ndarray, **options: object) -> Path:
    file: Any = pillow_heif.HeifFile()  # type: ignore[no-untyped-call]
    for pixels in pictures:
        deep = pixels.dtype == np.uint16
        wide = np.ascontiguousarray(np.dstack([pixels] * 3))
        mode, size = "RGB;16" if deep else "RGB", (pixels.shape[1], pixels.shape[0])
        file.add_frombytes(mode, size, wide.tobytes())
    file.save(path, quality=90, chroma="444", **options)
    return path


def avif(path: Path, pixels: np.ndarray) -> Path:
    image(pixels).heifsave(str(path), compression="av1", lossless=True, effort=0)
    return path


def gif(path: Path, frames: int) -> Path:
    made = pyvips.Image.arrayjoin([image(ramp() // (n + 1)) for n in range(frames)], across=1)
    made = made.copy()
    if frames > 1:
        made.set_type(pyvips.GValue.gint_type, "page-height", HEIGHT)
    made.gifsave(str(path))
    return path


def colored(source: Path) -> np.ndarray:
    """The result as a decoder of its own sees it."""
    if photo_kind(partial_of(source).read_bytes()[:64]) is PhotoFormat.HEIC:
        return np.asarray(pillow_heif.open_heif(partial_of(source), convert_hdr_to_8bit=False))
    written = pyvips.Image.new_from_file(str(partial_of(source)), revalidate=True)
    pixels: np.ndarray = written.numpy()
    return pixels


@pytest.mark.parametrize("make", [heic, avif])
@pytest.mark.parametrize("name", ["photo.heic", "IMG_1.JPG", "no suffix"])
def test_heic_and_avif_become_photos_under_any_name(
    tmp_path: Path, make: Callable[[Path, np.ndarray], Path], name: str
) -> None:
    source = make(tmp_path / name, ramp())
    assert is_photo(source)
    report = color(source)
    found = colored(source).astype(float)
    assert (report.width, report.height, report.pages) == (WIDTH, HEIGHT, 1)
    assert np.abs(found.mean(axis=2) - ramp()).mean() < 12
    warm = found[..., 0] - found[..., 2]
    assert warm[:8].mean() > 8 and warm[-8:].mean() < -8, "warm on top and cold below"


def test_ten_bits_of_heic_stay_more_than_eight(tmp_path: Path) -> None:
    source = heic(tmp_path / "deep.heic", ramp(16))
    assert color(source).depth == 16
    assert colored(source).dtype == np.uint16
    file = pillow_heif.open_heif(partial_of(source), convert_hdr_to_8bit=False)
    assert file.info["bit_depth"] == 10


def test_heic_keeps_what_it_says_of_itself(tmp_path: Path) -> None:
    block = tiff.exif_block({306: tiff.text_tag("1950:01:01 00:00:00")})
    source = heic(tmp_path / "a.heic", ramp(), exif=jpeg.EXIF + block)
    color(source)
    info = pillow_heif.open_heif(partial_of(source)).info
    assert b"1950:01:01" in info["exif"] and b"DigitalSourceType" in info["xmp"]


def test_a_still_gif_becomes_a_png_and_says_so(tmp_path: Path) -> None:
    source = gif(tmp_path / "still.gif", 1)
    assert output_suffix(source, PhotoSettings()) == ".png"
    report = color(source)
    assert report.warnings == ("a GIF holds no more than 256 colors; the result is a PNG",)
    assert photo_kind(partial_of(source).read_bytes()[:64]) is PhotoFormat.PNG


def test_a_moving_gif_is_no_photo(tmp_path: Path) -> None:
    assert not is_photo(gif(tmp_path / "moves.gif", 2))


def boxes(brand: bytes, *others: bytes) -> bytes:
    body = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body


OTHERS = {
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "JPEG XL": b"\xff\x0a" + bytes(20),
    "DPX": b"SDPX" + bytes(60),
    "OpenEXR": b"\x76\x2f\x31\x01" + bytes(20),
    "PDF": b"%PDF-1.7\n",
    "Photoshop document": b"8BPS\0\1",
    "camera raw (Canon)": boxes(b"crx ", b"isom"),
    "camera raw (Fujifilm)": b"FUJIFILMCCD-RAW 0201",
    "PNM bitmap": b"P5 4 4 255\n" + bytes(16),
    "a sequence of AVIF pictures": boxes(b"avis", b"avif", b"msf1"),
    "a sequence of HEIC pictures": boxes(b"hevc", b"msf1"),
}


class Unloaded(Model):
    def load(self) -> Colorizer:
        raise AssertionError("the network is not needed to say no")


@pytest.mark.parametrize("name", OTHERS)
def test_pictures_that_are_not_read_are_refused_by_name(tmp_path: Path, name: str) -> None:
    source = tmp_path / "picture.jpg"
    source.write_bytes(OTHERS[name])
    with pytest.raises(MediaError) as caught:
        convert(source, Config(), Unloaded(ModelSettings(), ModelCache()), WorkContext(), {})
    said = str(caught.value)
    assert said.startswith(f"{source}: found {name}, expected a JPEG, PNG") and "a film" in said
    assert [*tmp_path.iterdir()] == [source]


def test_an_ordinary_film_is_not_taken_for_a_picture() -> None:
    for head in (boxes(b"isom", b"mp42"), boxes(b"qt  "), b"\0\0\1\xb3" + bytes(60), b"\0\0\1\0"):
        assert photo_kind(head) is None


# TIFF


def tiff_of(
    path: Path, pixels: np.ndarray, tags: dict[int, tuple[int, bytes]], order: Literal["<", ">"]
) -> Path:
    """One strip, written by hand. tags: by their numbers type and value, in the file's order."""
    height, width, samples = np.atleast_3d(pixels).shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data = tags.pop(0, (0, data))[1]
    bits = struct.pack(f"{order}{samples}H", *[pixels.dtype.itemsize * 8] * samples)

    def long(value: int) -> tuple[int, bytes]:
        return 4, struct.pack(order + "I", value)

    def short(value: int) -> tuple[int, bytes]:
        return 3, struct.pack(order + "H", value)

    entries = {
        256: long(width), 257: long(height), 258: (3, bits), 259: short(1),
        262: short(2 if samples > 2 else 1), 273: long(8), 277: short(samples),
        278: long(height), 279: long(len(data)), **tags,
    }  # fmt: skip
    start = 8 + len(data) + len(data) % 2
    values, place = b"", start + 2 + 12 * len(entries) + 4
    table = struct.pack(order + "H", len(entries))
    for code, (kind, value) in sorted(entries.items()):
        count = len(value) // {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}[kind]
        if len(value) > 4:
            where = struct.pack(order + "I", place + len(values))
            values += value + bytes(len(value) % 2)
        else:
            where = value.ljust(4, b"\0")
        table += struct.pack(order + "HHI", code, kind, count) + where
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, start)
    path.write_bytes(head + data.ljust(start - 8, b"\0") + table + bytes(4) + values)
    return path


@pytest.mark.parametrize("samples", [2, 4, 5])
def test_an_infrared_plane_stays_a_plane_and_is_no_transparency(
    tmp_path: Path, samples: int
) -> None:
    infrared = np.full((HEIGHT, WIDTH), 30000, np.uint16)
    infrared[10:14] = 2000
    colors = 1 if samples == 2 else 3
    pixels = np.dstack([ramp(16)] * colors + [infrared] * (samples - colors))
    kinds = struct.pack(f"<{samples - colors}H", *[0] * (samples - colors))
    source = tiff_of(tmp_path / "scan.tif", pixels, {338: (3, kinds)}, "<")
    color(source)
    tags = tiff.file_tags(partial_of(source), 0)
    assert set(tags[338].numbers) == {0}
    assert np.array_equal(colored(source)[..., 3], infrared)
    report = color(source, PhotoSettings(format="jpeg"))
    assert "further planes" in report.warnings[-1] or "further planes" in report.warnings[0]
    assert abs(colored(source).mean() - (ramp(16) / 257).mean()) < 6, "not laid on white"


def test_an_infrared_page_stays_to_the_last_byte(tmp_path: Path) -> None:
    source, infrared = tmp_path / "scan.tif", ramp(16)[::-1].copy()
    with source.open("wb") as file:
        writer = tiff.TiffWriter(file, big=False)
        writer.add(image(np.dstack([ramp(16)] * 3)).tiffsave_buffer(), {})
        page = image(infrared).tiffsave_buffer(compression="lzw")
        writer.add(page, {254: tiff.Tag(4, struct.pack("<I", 4))})
    report = color(source)
    assert report.pages == 2
    assert report.warnings == ("page 2: holds a mask or an infrared plane, which stays as it is",)
    before, after = tiff.file_tags(source, 1), tiff.file_tags(partial_of(source), 1)
    assert before.keys() == after.keys() and after[259].numbers == (5,), "still LZW"
    made = pyvips.Image.tiffload(str(partial_of(source)), page=1)
    assert np.array_equal(made.numpy().reshape(infrared.shape), infrared)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("compression", "pack"), [(34925, "lzma"), (50000, "zstd")])
def test_zstd_and_lzma_are_read(
    tmp_path: Path, order: Literal["<", ">"], compression: int, pack: str
) -> None:
    import lzma

    import zstandard

    raw = ramp(16).astype(ramp(16).dtype.newbyteorder(order)).tobytes()
    packed = lzma.compress(raw) if pack == "lzma" else zstandard.compress(raw)
    kind = struct.pack(order + "H", compression)
    source = tiff_of(tmp_path / "a.tif", ramp(16), {0: (0, packed), 259: (3, kind)}, order)
    report = color(source)
    assert report.depth == 16
    assert np.abs(colored(source).mean(axis=2) - ramp(16)).mean() < 2500


def test_a_compression_that_nobody_unpacks_is_named(tmp_path: Path) -> None:
    kind = struct.pack("<H", 34887)
    source = tiff_of(tmp_path / "a.tif", ramp(), {259: (3, kind)}, "<")
    assert_refused(source, MediaError, "packed with LERC (TIFF compression 34887)")


def test_tags_of_more_than_fifty_megabytes_stop_no_picture(tmp_path: Path) -> None:
    layers = b"Adobe Photoshop Document Data Block\0" + bytes(51_000_000)
    source = tiff_of(tmp_path / "a.tif", ramp(), {37724: (7, layers)}, "<")
    report = color(source)
    assert "Photoshop's layers" in report.warnings[0]
    assert partial_of(source).stat().st_size < 1_000_000


def test_a_picture_of_one_bit_says_so(tmp_path: Path) -> None:
    bits = np.where(ramp() > 120, 255, 0).astype(np.uint8)
    fax, line = tmp_path / "fax.tif", tmp_path / "line.png"
    image(bits).tiffsave(str(fax), bitdepth=1, compression="ccittfax4")
    image(bits).pngsave(str(line), bitdepth=1)
    for source in (fax, line):
        assert any("has one bit" in warning for warning in color(source).warnings)
        inventory, remarks = plan_photo(source, PhotoSettings())
        assert any("has one bit" in remark for remark in remarks)
        if source == fax:  # which has no EXIF, though it has tags of its own
            assert not any("EXIF" in entry.what for entry in inventory)


# Marks on a gray photo


def gray_photo(height: int = 480, width: int = 640) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    gray = np.clip(columns * 0.3 + 40 * np.sin(rows / 9) + 40, 0, 255)
    return np.dstack([gray] * 3).astype(np.uint8)


@pytest.mark.parametrize("place", [(30, 30), (240, 320)], ids=["at the rim", "inside"])
@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (0.75, 0.9, 1.0)], ids=["gray", "sepia"])
def test_a_colored_stamp_keeps_its_color_and_the_rest_is_colored(
    tmp_path: Path, place: tuple[int, int], tint: tuple[float, float, float]
) -> None:
    photo = (gray_photo() * np.array(tint)).astype(np.uint8)
    cv2.circle(photo, place[::-1], 25, (30, 30, 200), -1)  # BGR
    source = tmp_path / "stamped.png"
    cv2.imwrite(str(source), photo)
    report = color_photo(source, partial_of(source), predict, PhotoSettings())
    assert "colored marks on it (a stamp, ink or the like) keep their color" in report.warnings
    found = colored(source).astype(int)
    assert np.abs(found[place] - (200, 30, 30)).max() < 12
    away = found[100, 500]
    assert away[0] - away[2] > 10, "warm, as the network has it"


def test_a_signature_in_blue_ink_keeps_its_color(tmp_path: Path) -> None:
    photo = gray_photo()
    cv2.putText(photo, "Opa", (380, 440), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 3, (190, 40, 30), 3)
    source = tmp_path / "signed.png"
    cv2.imwrite(str(source), photo)
    ink = (photo == (190, 40, 30)).all(axis=2)
    color_photo(source, partial_of(source), predict, PhotoSettings())
    found = colored(source).astype(int)[ink]
    assert np.abs(found - (30, 40, 190)).mean() < 12


def test_exif_comes_out_of_an_avif_byte_for_byte(tmp_path: Path) -> None:
    """libexif, through which libvips puts it, would move what makers' notes point to."""
    note = tiff.Tag(7, b"Maker\0" + bytes(range(200)))
    shot = tiff.Tag(4, children={37500: note, 37510: tiff.Tag(7, b"ASCII\0\0\0words")})
    block = tiff.exif_block({271: tiff.text_tag("Maker"), 34665: shot, 50000: tiff.short_tag(7)})
    source = avif(tmp_path / "old.avif", ramp())
    encoded = source.read_bytes()
    (number,) = items_in(encoded).of_kind(b"Exif")
    source.write_bytes(with_content(encoded, number, struct.pack(">I", 6) + jpeg.EXIF + block))
    color(source)
    done = pyvips.Image.new_from_file(str(partial_of(source)), revalidate=True)
    said = done.get("exif-data").removeprefix(jpeg.EXIF)
    assert said.index(note.data) == block.index(note.data)
    tags = tiff.read_tags(said)
    assert tags[50000].numbers == (7,) and tags[271].data == b"Maker\0"
    assert colored(source).shape[2] == 3
