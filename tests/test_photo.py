"""Photos of every kind go in gray and come out colored, with everything else as it was.

Pictures are made by pyvips and OpenCV in the test; what comes out is read back by both.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import pyvips
import torch
from photos import (
    HEIGHT,
    KEEP,
    WIDTH,
    as_rgb,
    assert_refused,
    chunk,
    color,
    colorful,
    image,
    partial_of,
    predict,
    ramp,
    result,
    save,
)
from torch import Tensor

from colordaemon.color import gray_to_lightness, rgb_to_lab
from colordaemon.config import PhotoSettings, PhotoTarget
from colordaemon.errors import AlreadyColor, MediaError
from colordaemon.media import photo_file, photo_pixels, png, tiff
from colordaemon.media.photo import PhotoReport, color_photo, is_photo, output_suffix
from colordaemon.media.photo_pixels import paint


def tensor(pixels: np.ndarray) -> Tensor:
    """(h, w, n) codes to (1, n, h, w) in 0..1."""
    top = 255 if pixels.dtype == np.uint8 else 65535
    planes = np.atleast_3d(pixels).transpose(2, 0, 1).astype(np.float32) / top
    return torch.from_numpy(planes)[None]


def lightness_error(pixels: np.ndarray, gray: np.ndarray) -> float:
    """Greatest difference in L between RGB codes and the gray (0..1) they came from."""
    found = rgb_to_lab(tensor(pixels)[:, :3])[:, :1]
    wanted = gray_to_lightness(torch.from_numpy(gray.astype(np.float32))[None, None])
    return float((found - wanted).abs().max())


def assert_colored(picture: pyvips.Image) -> None:
    b = rgb_to_lab(tensor(picture.numpy())[:, :3])[0, 2]
    assert b[:8].mean() > 5 and b[-8:].mean() < -5, "expected warm on top and cold below"


def with_alpha(gray: np.ndarray, bands: int) -> np.ndarray:
    """Gray and alpha, or RGBA; alpha takes on every value there is."""
    top = np.iinfo(gray.dtype).max
    alpha = np.linspace(0, top, gray.size).astype(gray.dtype).reshape(gray.shape)
    return np.stack([gray] * (bands - 1) + [alpha], axis=2)


# Formats and depths


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
def test_every_format_comes_back_colored_in_its_own_format(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / f"old{suffix}", ramp())
    report = color(source)
    assert replace(report, inventory=()) == PhotoReport(WIDTH, HEIGHT, 1, 8, ())
    assert_colored(result(source))
    assert photo_file.photo_format(partial_of(source)) == photo_file.photo_format(source)
    assert output_suffix(source, KEEP) == suffix


# Half a code of rounding in each of R, G and B is up to 0.4 of L in the dark.
@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0.4), (".tif", 0.4), (".bmp", 0.4)])
def test_lightness_stays_within_a_code(tmp_path: Path, suffix: str, tolerance: float) -> None:
    source = save(tmp_path / f"old{suffix}", ramp())
    color(source)
    assert lightness_error(result(source).numpy(), ramp() / 255) < tolerance


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path, suffix: str, bands: int) -> None:
    gray = ramp(16)
    pixels = {1: gray, 2: with_alpha(gray, 2), 3: as_rgb(gray), 4: with_alpha(gray, 4)}[bands]
    source = save(tmp_path / f"deep{suffix}", pixels)
    assert color(source).depth == 16
    found = result(source).numpy()
    assert found.dtype == np.uint16
    assert lightness_error(found, gray / 65535) < 0.005
    if bands in (2, 4):
        assert np.array_equal(found[..., 3], pixels[..., -1])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("bands", [2, 4])
def test_alpha_is_kept_bit_for_bit(tmp_path: Path, suffix: str, bands: int) -> None:
    pixels = with_alpha(ramp(), bands)
    source = save(tmp_path / f"cut{suffix}", pixels)
    color(source)
    found = result(source).numpy()
    assert np.array_equal(found[..., 3], pixels[..., -1])
    if suffix != ".webp" or bands == 4:
        assert lightness_error(found, ramp() / 255) < 0.4


def test_bmp_keeps_its_alpha(tmp_path: Path) -> None:
    pixels = with_alpha(ramp(), 4)
    source = save(tmp_path / "cut.bmp", pixels)
    color(source)
    assert np.array_equal(result(source).numpy()[..., 3], pixels[..., 3])


def test_an_opaque_alpha_may_go_where_the_format_drops_it(tmp_path: Path) -> None:
    pixels = np.dstack([as_rgb(ramp()), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    source = save(tmp_path / "opaque.png", pixels)
    report = color(source, PhotoSettings(format="webp"))
    assert report.warnings == ()


def test_a_palette_and_single_bits_become_full_color(tmp_path: Path) -> None:
    indexed, line = tmp_path / "indexed.png", tmp_path / "line.png"
    image(as_rgb(ramp())).pngsave(str(indexed), palette=True)
    image(np.where(ramp() > 120, 255, 0).astype(np.uint8)).pngsave(str(line), bitdepth=1)
    for source in (indexed, line):
        assert color(source).depth == 8
        assert result(source).bands == 3
    assert lightness_error(result(line).numpy(), (ramp() > 120).astype(float)) < 0.01


def test_fax_tiff_of_one_bit_is_colored(tmp_path: Path) -> None:
    source = tmp_path / "fax.tif"
    bits = np.where(ramp() > 120, 255, 0).astype(np.uint8)
    image(bits).tiffsave(str(source), bitdepth=1, compression="ccittfax4")
    color(source)
    assert lightness_error(result(source).numpy(), bits / 255) < 0.01


def test_white_as_zero_is_not_colored_as_a_negative(tmp_path: Path) -> None:
    source = tmp_path / "inverted.tif"
    image(ramp()).tiffsave(str(source), miniswhite=True)
    assert tiff.file_tags(source, 0)[262].numbers == (0,)  # PhotometricInterpretation
    color(source)
    assert lightness_error(result(source).numpy(), ramp() / 255) < 0.4


def test_odd_and_tiny_sizes_survive(tmp_path: Path) -> None:
    for height, width in ((1, 1), (1, 37), (33, 1), (3, 5)):
        source = save(tmp_path / "tiny.png", np.full((height, width), 99, np.uint8))
        report = color(source)
        assert (report.width, report.height) == (width, height)


def test_bands_and_previews_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "whole.tif", ramp(16))
    color(source)
    whole = result(source).numpy()
    monkeypatch.setattr(photo_pixels, "_BAND_PIXELS", 7 * WIDTH)
    monkeypatch.setattr(photo_pixels, "_PREVIEW_SIDE", 12)
    color(source)
    assert np.array_equal(result(source).numpy(), whole)


# Pages


def pages(path: Path, *sheets: pyvips.Image) -> Path:
    with path.open("wb") as file:
        writer = tiff.TiffWriter(file, big=False)
        for sheet in sheets:
            writer.add(sheet.tiffsave_buffer(), {})
    return path


def test_all_pages_are_kept_whatever_their_size_and_depth(tmp_path: Path) -> None:
    source = pages(tmp_path / "book.tif", image(ramp()), image(ramp(16)[:20]), image(ramp()[:, :9]))
    report = color(source)
    assert (report.pages, report.width, report.height) == (3, WIDTH, HEIGHT)
    sizes = [(p.width, p.height, p.format) for p in (result(source, i) for i in range(3))]
    assert sizes == [(64, 48, "uchar"), (64, 20, "ushort"), (9, 48, "uchar")]


def test_opencv_reads_the_same_pages(tmp_path: Path) -> None:
    source = pages(tmp_path / "book.tif", image(ramp()), image(ramp(16)[:20]))
    color(source)
    read, found = cv2.imreadmulti(str(partial_of(source)), flags=cv2.IMREAD_UNCHANGED)
    assert read and len(found) == 2
    for index, page in enumerate(found):
        assert np.array_equal(page[..., ::-1], result(source, index).numpy())


def test_colored_pages_pass_unchanged(tmp_path: Path) -> None:
    source = pages(tmp_path / "album.tif", image(ramp()), image(colorful()))
    report = color(source)
    assert_colored(result(source, 0))
    assert np.array_equal(result(source, 1).numpy(), colorful())
    assert report.warnings == ("page 2: has color already and stays as it is",)


def test_a_page_of_one_strong_color_is_in_color_and_named(tmp_path: Path) -> None:
    red = np.full((30, 40, 3), (220, 10, 20), np.uint8)
    sepia = image(as_rgb(ramp()) * [1.0, 0.85, 0.7]).cast("uchar")
    source = pages(tmp_path / "album.tif", image(ramp()), image(red), sepia, sepia)
    report = color(source)
    assert np.array_equal(result(source, 1).numpy(), red)
    assert report.warnings == (
        "page 2: has color already and stays as it is",
        "pages 3-4: its tint (toning or a cast) is replaced",
    )
    assert_refused(save(tmp_path / "red.png", red), AlreadyColor, "has color already")


def test_an_album_of_color_is_refused(tmp_path: Path) -> None:
    source = pages(tmp_path / "album.tif", image(colorful()), image(colorful()))
    assert_refused(source, AlreadyColor, "has color already")


def test_bigtiff_pages_can_be_joined(tmp_path: Path) -> None:
    path = tmp_path / "big.tif"
    with path.open("wb") as file:
        writer = tiff.TiffWriter(file, big=True)
        for index in range(2):
            page = image(ramp()[index:]).tiffsave_buffer(bigtiff=True)
            writer.add(page, {306: tiff.text_tag("1950:01:01 00:00:00")})
    for index in range(2):
        page = pyvips.Image.tiffload(str(path), page=index)
        assert np.array_equal(page.numpy().reshape(-1, WIDTH), ramp()[index:])
        assert tiff.file_tags(path, index)[306].data == b"1950:01:01 00:00:00\0"


# What the file says about itself


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_dates_xmp_and_resolution_are_kept(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / f"dated{suffix}", ramp(), **described())
    color(source)
    found = result(source)
    assert found.get("exif-ifd0-DateTime").startswith("1950:01:01 00:00:00")
    assert found.get("exif-ifd2-DateTimeOriginal").startswith("1949:12:31 23:59:00")
    assert found.get("xmp-data").startswith(b"<x:xmpmeta>old")
    assert found.get("exif-ifd0-Software").startswith("Scanner 1; colordaemon: synthetic colors")


def described() -> dict[str, object]:
    return {
        "exif_ifd0_DateTime": "1950:01:01 00:00:00",
        "exif_ifd0_Software": "Scanner 1",
        "exif_ifd2_DateTimeOriginal": "1949:12:31 23:59:00",
        "xmp_data": b"<x:xmpmeta>old</x:xmpmeta>",
    }


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_resolution_is_kept(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"dots{suffix}"
    made = image(ramp()).copy(xres=11.811, yres=11.811)  # 300 dots per inch
    if suffix == ".bmp":
        save(source, ramp())
        data = bytearray(source.read_bytes())
        data[38:46] = struct.pack("<ii", 11811, 11811)
        source.write_bytes(data)
    else:
        made.write_to_file(str(source))
    color(source)
    found = partial_of(source).read_bytes()
    if suffix == ".bmp":
        assert struct.unpack("<ii", found[38:46]) == (11811, 11811)
    else:
        assert result(source).xres == pytest.approx(11.811, abs=0.02)


def test_iptc_is_kept(tmp_path: Path) -> None:
    record = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0a\x1c\x02\x78\0\x05Wharf"
    source = save(tmp_path / "caption.jpg", ramp(), iptc_data=record)
    color(source)
    assert b"Wharf" in result(source).get("iptc-data")


def test_a_tiff_keeps_its_exif_directory_and_page_names(tmp_path: Path) -> None:
    source = tmp_path / "scan.tif"
    shot = tiff.Tag(4, children={36867: tiff.text_tag("1949:12:31 23:59:00")})
    tags = {285: tiff.text_tag("Plate 7"), 306: tiff.text_tag("1950:01:01"), 34665: shot}
    with source.open("wb") as file:
        tiff.TiffWriter(file, big=False).add(image(ramp()).tiffsave_buffer(), tags)
    color(source)
    found = tiff.file_tags(partial_of(source), 0)
    assert found[285].data == b"Plate 7\0" and found[306].data == b"1950:01:01\0"
    assert found[34665].children == shot.children
    assert found[305].data == b"colordaemon: synthetic colors\0"


def test_exif_moves_between_jpeg_and_tiff(tmp_path: Path) -> None:
    source = save(tmp_path / "dated.jpg", ramp(), **described())
    color(source, PhotoSettings(format="tiff"))
    moved = partial_of(source).rename(tmp_path / "moved.tif")
    tags = tiff.file_tags(moved, 0)
    assert tags[306].data == b"1950:01:01 00:00:00\0"
    color(moved, PhotoSettings(format="jpeg"), force=True)
    found = result(moved)
    assert found.get("exif-ifd2-DateTimeOriginal").startswith("1949:12:31 23:59:00")


def test_big_endian_tags_are_read(tmp_path: Path) -> None:
    block = b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHII", 306, 2, 4, 0x31393530)
    block += struct.pack(">HHIHH", 274, 3, 1, 6, 0) + bytes(4)
    tags = tiff.read_tags(block)
    assert tags[306].data == b"1950" and tags[274].numbers == (6,)


def test_damaged_exif_does_not_stop_a_photo(tmp_path: Path) -> None:
    for block in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"nonsense" * 9):
        source = tmp_path / "strange.png"
        plain = image(ramp()).pngsave_buffer()
        source.write_bytes(plain[:33] + chunk(b"eXIf", block) + plain[33:])
        color(source)
        assert_colored(result(source))


def test_a_directory_that_points_to_itself_ends() -> None:
    loop = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 34665, 4, 1, 8) + bytes(4)
    assert 34665 in tiff.read_tags(loop)


# Orientation


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """As a viewer shows it, worded after the EXIF standard's table."""
    turn: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: np.swapaxes(x, 0, 1),
        6: lambda x: np.swapaxes(x[::-1], 0, 1),
        7: lambda x: np.swapaxes(x[::-1, ::-1], 0, 1),
        8: lambda x: np.swapaxes(x, 0, 1)[::-1],
    }
    return turn[orientation](pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_network_sees_the_photo_upright_and_the_file_keeps_its_orientation(
    tmp_path: Path, orientation: int
) -> None:
    source = save(tmp_path / "turned.tif", ramp(), orientation=orientation)
    seen: list[Tensor] = []

    def watch(gray: Tensor) -> Tensor:
        seen.append(gray)
        return predict(gray)

    color_photo(source, partial_of(source), watch, KEEP)
    expected = upright(ramp(), orientation)
    assert np.array_equal((seen[0][0, 0] * 255).round().numpy(), expected)
    found = result(source)
    assert found.get("orientation") == orientation
    shown = upright(found.numpy(), orientation)
    assert_colored(image(shown))
    assert lightness_error(shown, expected / 255) < 0.4


@pytest.mark.parametrize("orientation", [2, 6, 7])
@pytest.mark.parametrize("target", ["png", "bmp"])
def test_another_format_is_written_upright(
    tmp_path: Path, orientation: int, target: PhotoTarget
) -> None:
    source = save(tmp_path / "turned.tif", ramp(), orientation=orientation)
    report = color(source, PhotoSettings(format=target))
    found = result(source)
    expected = upright(ramp(), orientation)
    assert lightness_error(found.numpy(), expected / 255) < 0.4
    assert (report.height, report.width) == expected.shape
    assert not found.get_typeof("orientation") or found.get("orientation") == 1
    assert_colored(found)


# Color profiles


def icc_profile(space: bytes, gamma: float) -> bytes:
    """A minimal ICC v2 profile: gray, or RGB with the primaries of sRGB (adapted to D50)."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78 + 5)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0free\0\0\0\0", b"wtpt": xyz(0.9642, 1, 0.8249)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
        tags[b"rXYZ"] = xyz(0.43607, 0.22249, 0.01392)
        tags[b"gXYZ"] = xyz(0.38515, 0.71687, 0.09708)
        tags[b"bXYZ"] = xyz(0.14307, 0.06061, 0.71410)
    table, body = struct.pack(">I", len(tags)), b""
    for key, data in tags.items():
        table += key + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = b"test" + struct.pack(">I", 0x02100000) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    head += bytes(28) + xyz(0.9642, 1, 0.8249)[8:] + bytes(48)
    size = 4 + len(head) + len(table) + len(body)
    return struct.pack(">I", size) + head + table + body


def srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(("space", "gamma"), [(b"GRAY", 1.8), (b"RGB ", 2.2), (b"RGB ", 1.0)])
def test_the_input_profile_is_applied_and_srgb_is_written(
    tmp_path: Path, depth: int, space: bytes, gamma: float
) -> None:
    gray = ramp(depth)
    pixels = gray if space == b"GRAY" else as_rgb(gray)
    source = save(tmp_path / "mac.tif", pixels, icc_profile_data=icc_profile(space, gamma))
    report = color(source)
    exact = round(gamma * 256) / 256
    expected = srgb((gray / (2**depth - 1)) ** exact)
    found = result(source)
    assert report.warnings == () and report.depth == depth
    # Little CMS computes a gray curve to about 0.05 of L, an eighth of an 8-bit code.
    assert lightness_error(found.numpy(), expected) < (0.4 if depth == 8 else 0.06)
    assert found.get("icc-profile-data") == pyvips.Operation.call("profile_load", "srgb")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_every_result_carries_an_srgb_profile(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / f"plain{suffix}", ramp())
    color(source)
    assert result(source).get("icc-profile-data") == pyvips.Operation.call("profile_load", "srgb")


def test_a_useless_profile_is_named_in_the_report(tmp_path: Path) -> None:
    source = tmp_path / "bad.tif"
    with source.open("wb") as file:
        profile = tiff.Tag(7, b"not a profile at all" * 20)
        tiff.TiffWriter(file, big=False).add(image(ramp()).tiffsave_buffer(), {34675: profile})
    report = color(source)
    assert report.warnings == ("its color profile is damaged or of another kind; read as sRGB",)
    assert lightness_error(result(source).numpy(), ramp() / 255) < 0.4


def test_a_profile_of_another_kind_is_named_in_the_report(tmp_path: Path) -> None:
    source = tmp_path / "odd.tif"
    with source.open("wb") as file:
        profile = tiff.Tag(7, icc_profile(b"RGB ", 1.0))
        tiff.TiffWriter(file, big=False).add(image(ramp()).tiffsave_buffer(), {34675: profile})
    assert color(source).warnings[0].startswith("its color profile is damaged or of another kind")
    assert lightness_error(result(source).numpy(), ramp() / 255) < 0.4


# Painting


def test_colors_beyond_srgb_keep_lightness_and_hue() -> None:
    gray = torch.linspace(0, 1, 101)[None, None, None]
    for a, b in ((100.0, 90.0), (-100.0, 80.0), (60.0, -110.0), (-60.0, -60.0)):
        ab = torch.tensor([a, b]).reshape(1, 2, 1, 1).expand(1, 2, 1, 101)
        rgb = paint(gray, ab)
        lab = rgb_to_lab(rgb)
        assert rgb.min() >= 0 and rgb.max() <= 1
        assert (lab[:, :1] - gray_to_lightness(gray)).abs().max() < 0.01
        cross = lab[:, 1] * b - lab[:, 2] * a  # 0 where the hue is the one asked for
        assert (cross.abs() / np.hypot(a, b)).max() < 0.05
        assert lab[:, 1:].norm(dim=1).max() > 30, "as much color as fits, not none"


def test_colors_within_srgb_are_painted_as_they_are() -> None:
    gray, ab = torch.full((1, 1, 4, 4), 0.5), torch.full((1, 2, 4, 4), 12.0)
    assert (rgb_to_lab(paint(gray, ab))[:, 1:] - 12).abs().max() < 0.01


# Other formats


def test_sixteen_bits_in_a_format_of_eight_are_named_in_the_report(tmp_path: Path) -> None:
    source = save(tmp_path / "deep.png", with_alpha(ramp(16), 2))
    report = color(source, PhotoSettings(format="webp"))
    assert report.depth == 8
    assert report.warnings == ("WEBP has 8 bits; the source's 16 are rounded",)
    alpha = with_alpha(ramp(16), 2)[..., 1]
    assert np.array_equal(result(source).numpy()[..., 3], np.round(alpha / 257))


def test_transparency_in_jpeg_is_laid_on_white_and_named(tmp_path: Path) -> None:
    pixels = with_alpha(ramp(), 4)
    pixels[..., 3] = np.where(np.arange(WIDTH) < 32, 0, 255)
    source = save(tmp_path / "cut.png", pixels)
    report = color(source, PhotoSettings(format="jpeg"))
    found = result(source).numpy()
    assert report.warnings == ("JPEG has no transparency; the picture is laid on white",)
    assert found.shape[2] == 3 and found[:, :24].min() > 250
    assert lightness_error(found[:, 40:], ramp()[:, 40:] / 255) < 3


def test_what_bmp_cannot_say_is_named_in_the_report(tmp_path: Path) -> None:
    source = save(tmp_path / "dated.jpg", ramp(), **described())
    report = color(source, PhotoSettings(format="bmp"))
    assert report.warnings == ("BMP holds no EXIF, XMP or IPTC; they are lost",)


def test_pages_are_not_lost_in_a_format_of_one(tmp_path: Path) -> None:
    source = pages(tmp_path / "book.tif", image(ramp()), image(ramp()))
    assert_refused(source, MediaError, "2 pages, expected one for PNG", target="png")


def test_the_quality_setting_reaches_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    source = save(tmp_path / "grain.jpg", rng.integers(60, 200, (128, 128), np.uint8))
    sizes = []
    for quality in (30, 95):
        color(source, PhotoSettings(quality=quality))
        sizes.append(partial_of(source).stat().st_size)
    assert sizes[0] < sizes[1] / 2
    assert result(source).get("jpeg-chroma-subsample") == "4:4:4"


def test_lossless_webp_stays_lossless(tmp_path: Path) -> None:
    source = save(tmp_path / "exact.webp", ramp())
    color(source)
    assert photo_file.is_lossless_webp(partial_of(source))
    assert lightness_error(result(source).numpy(), ramp() / 255) < 0.4


def test_what_webp_cannot_hold_is_refused_before_any_work(tmp_path: Path) -> None:
    source = save(tmp_path / "long.png", np.zeros((1, 16384), np.uint8))
    assert_refused(source, MediaError, "at most 16383 on a side for WEBP", target="webp")


def test_suffixes_follow_the_format(tmp_path: Path) -> None:
    source = save(tmp_path / "old.png", ramp()).rename(tmp_path / "OLD.PNG")
    assert output_suffix(source, KEEP) == ".PNG"
    assert output_suffix(source, PhotoSettings(format="tiff")) == ".tif"
    assert output_suffix(source.rename(tmp_path / "lies.jpg"), KEEP) == ".png"


def test_names_are_never_taken_for_options(tmp_path: Path) -> None:
    source = save(tmp_path / "a.tif", ramp()).rename(tmp_path / "scan[page=3].tif")
    assert color(source).pages == 1


# Existing color


def test_a_color_photo_is_refused_unless_forced(tmp_path: Path) -> None:
    source = save(tmp_path / "color.png", colorful())
    assert_refused(source, AlreadyColor, "has color already")
    assert color(source, force=True).pages == 1
    expected = rgb_to_lab(tensor(colorful()))[0, 0]
    found = rgb_to_lab(tensor(result(source).numpy()))[0, 0]
    assert (found - expected).abs().max() < 0.6


def test_a_tint_is_replaced(tmp_path: Path) -> None:
    toned = (as_rgb(ramp()) * (1.0, 0.85, 0.6)).astype(np.uint8)
    source = save(tmp_path / "sepia.png", toned)
    report = color(source)
    assert report.warnings == ("its tint (toning or a cast) is replaced",)
    assert_colored(result(source))


def test_color_that_is_transparent_does_not_count(tmp_path: Path) -> None:
    pixels = np.dstack([as_rgb(ramp()), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    pixels[20:40, 20:40] = (255, 0, 0, 0)
    source = save(tmp_path / "hidden.png", pixels)
    color(source)


# Files that cannot be colored


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (200, 300), np.uint8)
    source = save(tmp_path / f"torn{suffix}", noise)
    data = source.read_bytes()
    source.write_bytes(data[: int(len(data) * share)])
    assert_refused(source, MediaError, "expected")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "empty.jpg"
    source.touch()
    assert_refused(source, MediaError, "empty, expected a JPEG")
    assert not is_photo(source)


def test_text_under_the_name_of_a_photo_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "letter.jpg"
    source.write_text("Dear aunt, here are the pictures.")
    assert_refused(source, MediaError, "begins with b'Dear aunt, h', expected a JPEG")
    assert not is_photo(source)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "album.tif"
    folder.mkdir()
    assert_refused(folder, MediaError, "not a plain file")
    assert not is_photo(folder)


def test_a_missing_file_is_not_the_fault_of_the_photo(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        is_photo(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError):
        color(tmp_path / "gone.jpg")


@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (0, 0)])
def test_absurd_sizes_are_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    source = tmp_path / "bomb.png"
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    source.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert_refused(source, MediaError, "expected")


def test_an_absurd_bmp_is_refused_before_decoding(tmp_path: Path) -> None:
    source = save(tmp_path / "bomb.bmp", ramp())
    data = bytearray(source.read_bytes())
    data[18:26] = struct.pack("<ii", 60000, 60000)
    source.write_bytes(data)
    assert_refused(source, MediaError, "expected 500000000 at most")


def test_moving_pictures_are_refused(tmp_path: Path) -> None:
    webp, png = tmp_path / "moves.webp", tmp_path / "moves.png"
    frames = image(ramp()).join(image(255 - ramp()), "vertical").copy()
    frames.set_type(pyvips.GValue.gint_type, "page-height", HEIGHT)
    frames.webpsave(str(webp))
    still = image(ramp()).pngsave_buffer()
    png.write_bytes(still[:33] + chunk(b"acTL", struct.pack(">II", 2, 0)) + still[33:])
    assert_refused(webp, MediaError, "animated WebP of 2 frames")
    assert_refused(png, MediaError, "animated PNG")
    gif = tmp_path / "moves.gif"
    frames.gifsave(str(gif))
    assert_refused(gif, MediaError, "animated GIF")


def test_float_and_ink_are_refused_with_a_reason(tmp_path: Path) -> None:
    floats, inks = tmp_path / "float.tif", tmp_path / "inks.jpg"
    image(ramp()).cast("float").tiffsave(str(floats))
    image(np.dstack([ramp()] * 4)).copy(interpretation="cmyk").jpegsave(str(inks))
    assert_refused(floats, MediaError, "no agreed white")
    assert_refused(inks, MediaError, "colors are CMYK (printing inks), expected gray or RGB")


def test_camera_raws_are_not_colored_as_their_thumbnails(tmp_path: Path) -> None:
    source = tmp_path / "shot.nef"
    with source.open("wb") as file:
        thumbnail = tiff.Tag(4, struct.pack("<I", 1))
        tiff.TiffWriter(file, big=False).add(
            image(ramp()).tiffsave_buffer(), {tiff.DNG_VERSION: thumbnail}
        )
    assert_refused(source, MediaError, "camera raw")


def test_an_error_of_the_network_leaves_no_partial_file(tmp_path: Path) -> None:
    source = save(tmp_path / "old.tif", ramp())

    def fail(gray: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        color_photo(source, partial_of(source), fail, KEEP)
    assert not partial_of(source).exists()


def test_a_result_that_reads_back_differently_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "old.png", ramp())
    real: Callable[..., pyvips.Image] = photo_file.PhotoFile.open_image

    def lying(file: photo_file.PhotoFile, page: int) -> pyvips.Image:
        whole = real(file, page)
        return whole.crop(0, 0, 5, 5) if file.path == partial_of(source) else whole

    monkeypatch.setattr(photo_file.PhotoFile, "open_image", lying)
    with pytest.raises(OSError, match="reads back as"):
        color(source)
    assert not partial_of(source).exists()


def test_a_panorama_is_shown_small_and_a_column_painted_in_bands(tmp_path: Path) -> None:
    wide = save(tmp_path / "wide.png", np.tile(ramp()[:8, :1], (1, 20_000)))
    tall = save(tmp_path / "tall.png", np.tile(np.arange(200, dtype=np.uint8), 500)[:, None])
    for source in (wide, tall):
        seen: list[Tensor] = []

        def watch(gray: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(gray)
            return predict(gray)

        color_photo(source, partial_of(source), watch, KEEP)
        assert max(seen[0].shape) <= 2 * 4096
        before = pyvips.Image.new_from_file(str(source)).numpy()
        assert lightness_error(result(source).numpy(), before / 255) < 0.4


def test_a_side_too_long_is_refused_with_its_number(tmp_path: Path) -> None:
    source = save(tmp_path / "thread.png", np.zeros((1, photo_file.MOST_SIDE + 1), np.uint8))
    assert_refused(source, MediaError, f"expected sides up to {photo_file.MOST_SIDE}")


def test_more_pages_than_any_book_has_are_refused_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_file, "MOST_PAGES", 2)
    source = pages(tmp_path / "endless.tif", *[image(ramp())] * 3)
    assert_refused(source, MediaError, "3 pages, expected 2 at most")


def test_packed_texts_of_a_png_are_kept_and_not_unpacked(tmp_path: Path) -> None:
    source = save(tmp_path / "bomb.png", ramp())
    data = source.read_bytes()
    assert png.without(data, lambda chunk: chunk.is_packed_text) is None
    text = png.Chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 24)))
    plain = png.Chunk(b"iTXt", b"Title\0\0\0\0\0Fj\xc3\xb6rd")
    texts = text.encoded() + plain.encoded()
    source.write_bytes(data[:33] + texts + data[33:])
    lean = png.without(source.read_bytes(), lambda chunk: chunk.is_packed_text)
    assert lean == data[:33] + plain.encoded() + data[33:]
    color(source)
    kept = png.take_apart(partial_of(source).read_bytes()).chunks
    assert text in kept and plain in kept


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_chunks_without_number_are_not_followed(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / f"many.{suffix}", ramp())
    data = source.read_bytes()
    if suffix == "png":
        source.write_bytes(data[:33] + chunk(b"teSt", b"") * 1_000_000 + data[33:])
    else:
        source.write_bytes(data + b"TEST\0\0\0\0" * 1_000_000)
    began = time.process_time()
    assert_refused(source, MediaError, "more than 10000 chunks")
    source.write_bytes(data + bytes(40_000_000))
    color(source)
    assert time.process_time() - began < 2
