"""What a photo holds is listed, with what becomes of it, and the list is true."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import pyvips
from command import once
from photos import HEIGHT, WIDTH, as_rgb, chunk, color, colorful, image, partial_of, ramp, save

from colordaemon.config import PhotoSettings, PhotoTarget
from colordaemon.errors import AlreadyColor, MediaError
from colordaemon.media import tiff
from colordaemon.media.inventory import Inventory
from colordaemon.media.photo import plan_photo
from colordaemon.media.photo_file import PhotoFile
from colordaemon.media.photo_holdings import take_stock
from colordaemon.media.stills import PhotoFormat

IPTC = b"\x1c\x02\x78\x00\x05words"
RESOURCES = (
    b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"8BIM\x04\x0a\0\0\0\0\0\x01\x01\0"
)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
TAGS = {271: tiff.text_tag("Maker"), 40092: tiff.Tag(1, "Words".encode("utf-16-le"))}


def listed(inventory: Inventory) -> dict[str, str]:
    return {entry.what: entry.fate for entry in inventory}


def rich_jpeg(path: Path) -> Path:
    """With everything that a JPEG may hold."""
    pixels = image(ramp())
    pixels.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    pixels.set_type(pyvips.GValue.blob_type, "iptc-data", b"Photoshop 3.0\0" + RESOURCES)
    data = pixels.jpegsave_buffer(Q=95)
    block = b"Exif\0\0" + tiff.exif_block(TAGS)
    jfif = b"JFIF\0\1\2\1\0\xfe\0\xfe\0\0"
    parts = [
        (0xE0, jfif),
        (0xE1, block),
        (0xFE, b"a comment"),
        (0xE5, b"maker\0\1\2"),
        (0xEB, b"JP\0\1signed"),
    ]
    more = b"".join(struct.pack(">BBH", 0xFF, m, len(p) + 2) + p for m, p in parts)
    path.write_bytes(data[:2] + more + data[2:] + b"the film of a motion photo")
    return path


def test_all_that_a_jpeg_holds_is_listed_and_what_is_kept_is_found(tmp_path: Path) -> None:
    source = rich_jpeg(tmp_path / "old.jpg")
    report = color(source)
    assert listed(report.inventory) == {
        "picture 64x48, 8 bit": "converted",
        "EXIF": "kept",
        "XMP": "kept",
        "IPTC": "kept",
        "Photoshop's resources": "kept",
        "resolution": "kept",
        "comment": "kept",
        "segment APP5 maker": "kept",
        "signature (C2PA)": "left out",
        "26 bytes behind the picture": "left out",
    }
    assert all(entry.how for entry in report.inventory if entry.fate != "kept")
    assert plan_photo(source, PhotoSettings())[0] == report.inventory


@pytest.mark.parametrize("target", ["jpeg", "png", "tiff", "webp", "bmp", "avif", "heic"])
def test_what_another_format_does_not_hold_is_listed_as_left_out(
    tmp_path: Path, target: PhotoTarget
) -> None:
    source = rich_jpeg(tmp_path / "old.jpg")
    report = color(source, PhotoSettings(format=target))
    fates = listed(report.inventory)
    assert fates["EXIF"] == fates["XMP"] == ("left out" if target == "bmp" else "kept")
    assert fates["IPTC"] == ("kept" if target in ("jpeg", "tiff") else "left out")
    assert fates["comment"] == ("kept" if target == "jpeg" else "left out")


def test_every_field_that_libvips_reports_is_in_the_list(tmp_path: Path) -> None:
    png = image(as_rgb(ramp())).copy(xres=10, yres=10)
    png.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    png.set_type(pyvips.GValue.blob_type, "icc-profile-data", srgb())
    png.set_type(pyvips.GValue.gstr_type, "png-comment-0-Title", "words")
    png.pngsave(str(tmp_path / "a.png"))
    rich_jpeg(tmp_path / "a.jpg")
    pages = image(ramp()).copy(xres=10, yres=10)
    pages.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    pages.set_type(pyvips.GValue.blob_type, "icc-profile-data", gray_profile())
    pages.set_type(pyvips.GValue.blob_type, "photoshop-data", RESOURCES)
    pages.tiffsave(str(tmp_path / "a.tif"))
    png.webpsave(str(tmp_path / "a.webp"), lossless=True)
    png.heifsave(str(tmp_path / "a.avif"), compression="av1")
    names = {
        "exif-data": "EXIF",
        "xmp-data": "XMP",
        "iptc-data": "IPTC",
        "photoshop-data": "Photoshop's resources",
        "icc-profile-data": "ICC profile",
        "png-comment-0-Title": "chunk zTXt Title",
        "jpeg-thumbnail-data": "thumbnail",
        "resolution-unit": "resolution",
    }
    technical = ("exif-ifd", "jpeg-", "vips-", "heif-", "jpeg-multiscan", "jpeg-chroma-subsample",
                 "interlaced", "bits-per-sample", "palette", "n-pages", "orientation", "width",
                 "height", "bands", "format", "coding", "interpretation", "xoffset", "yoffset",
                 "xres", "yres", "filename", "n-subifds", "tiff-predictor", "webp-")  # fmt: skip
    seen: set[str] = set()
    for path in sorted(tmp_path.glob("a.*")):
        what = listed(plan_photo(path, PhotoSettings())[0])
        for field in pyvips.Image.new_from_file(str(path)).get_fields():
            field = re.sub(r"png-comment-\d+-", "png-comment-0-", field)
            if field not in names:
                assert field.startswith(technical), (path.name, field)
            elif not (field == "resolution-unit" and path.suffix in (".webp", ".avif")):
                assert names[field] in what, (path.name, field, what)
                seen.add(field)
    assert seen >= names.keys() - {"jpeg-thumbnail-data"}


def srgb() -> bytes:
    return bytes(pyvips.Operation.call("profile_load", "srgb"))


def gray_profile() -> bytes:
    """sRGB called gray: enough for libvips, which only carries it here."""
    return srgb()[:16] + b"GRAY" + srgb()[20:]


def test_planes_and_pages_of_a_tiff_are_listed_each(tmp_path: Path) -> None:
    infrared = np.dstack([ramp()] * 4)
    source = tmp_path / "old.tif"
    with source.open("wb") as file:
        pages = tiff.TiffWriter(file, big=False)
        one = image(ramp()).tiffsave_buffer()
        pages.add(one, {})
        extra = image(infrared).tiffsave_buffer()
        pages.add(extra, {tiff.EXTRA_SAMPLES: tiff.short_tags(0)})
        pages.add(image(colorful()).tiffsave_buffer(), {271: tiff.text_tag("Maker")})
    report = color(source)
    fates = [(e.what, e.fate, e.how) for e in report.inventory]
    assert ("page 1: picture 64x48, 8 bit", "converted", "colored") in fates
    assert ("page 2: further plane 1 (infrared or the like, 0)", "kept", "") in fates
    assert ("page 3: picture 64x48, 8 bit", "kept", "has color already") in fates
    assert plan_photo(source, PhotoSettings())[0] == report.inventory


def test_a_result_that_lacks_what_the_list_calls_kept_is_refused(tmp_path: Path) -> None:
    stock = take_stock(PhotoFile(rich_jpeg(tmp_path / "old.jpg")), PhotoFormat.JPEG)
    bare = PhotoFile(save(tmp_path / "bare.jpg", ramp()))
    with pytest.raises(MediaError, match=r"EXIF.* did not come out"):
        stock.check(bare)


def test_png_chunks_are_listed_with_their_keywords_and_reasons(tmp_path: Path) -> None:
    source = save(tmp_path / "old.png", ramp())
    data = source.read_bytes()
    more = chunk(b"tEXt", b"Author\0me") + chunk(b"gAMA", struct.pack(">I", 45455))
    more += chunk(b"bKGD", b"\0\0") + chunk(b"prVT", b"private")
    source.write_bytes(data[:33] + more + data[33:])
    fates = listed(color(source).inventory)
    assert fates["chunk tEXt Author"] == "kept"
    assert fates["chunk gAMA"] == "converted"
    assert fates["chunk bKGD"] == "left out" and fates["chunk prVT"] == "left out"


def test_comments_of_a_gif_come_out_in_the_png(tmp_path: Path) -> None:
    data = image(ramp()).gifsave_buffer()
    table = 3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0
    start = 13 + table
    comment = b"\x21\xfe\x05words\0"
    source = tmp_path / "old.gif"
    source.write_bytes(data[:start] + comment + data[start:])
    assert listed(color(source).inventory)["chunk tEXt Comment"] == "kept"
    assert b"Comment\0words" in partial_of(source).read_bytes()


def test_of_several_pictures_in_a_heic_the_one_to_show_is_colored_and_the_others_are_told(
    tmp_path: Path,
) -> None:
    source = tmp_path / "old.heic"
    file = pillow_heif.from_bytes("RGB", (WIDTH, HEIGHT), as_rgb(ramp()).tobytes())
    file.add_frombytes("RGB", (32, 24), as_rgb(ramp())[::2, ::2].tobytes())
    out = io.BytesIO()
    file.save(out, quality=90, primary_index=1)
    source.write_bytes(out.getvalue())
    report = color(source)
    assert (report.width, report.height) == (32, 24)
    assert not report.is_whole  # so that no source is moved or deleted
    assert any("further picture" in warning for warning in report.warnings)
    assert listed(report.inventory)["1 further picture"] == "left out"


def test_a_dry_run_tells_what_becomes_of_each_part_and_writes_nothing(tmp_path: Path) -> None:
    source = rich_jpeg(tmp_path / "old.jpg")
    known = save(tmp_path / "known.png", colorful())
    found = once("--dry-run", source, known)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert lines[0] == f"{source} -> {tmp_path / 'old.color.jpg'}"
    assert "  kept       IPTC" in lines
    assert "  left out   signature (C2PA) (it holds only for the source)" in lines
    # What is in color is listed as it would come out by force.
    assert f"{known} -> {tmp_path / 'known.color.png'} with --force" in lines
    assert f"skipped: {known}" in found.stderr.replace("\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["known.png", "old.jpg"]
    with pytest.raises(AlreadyColor):
        plan_photo(known, PhotoSettings())
