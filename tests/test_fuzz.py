"""What the fuzzing in benchmarks/ has found, and a small round of it."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import pyvips
from films import color_and_report, make_film, picture_of
from photos import assert_refused, color, image, partial_of, ramp, result

from colordaemon.config import FilmSettings, PhotoSettings
from colordaemon.errors import MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media import tiff

FUZZ = Path(__file__).parent.parent / "benchmarks" / "fuzz.py"
EXIF = b"Exif\0\0" + tiff.exif_block({271: tiff.text_tag("Maker")})


@pytest.mark.timeout(300)
def test_nothing_unforeseen_comes_of_files_that_are_changed_at_random() -> None:
    line = [sys.executable, str(FUZZ), "--count", "50", "--seed", "7"]
    found = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603
    assert found.returncode == 0, found.stdout
    assert "50 files" in found.stdout and "no sample of" not in found.stderr


def test_pictures_with_side_data_that_pyav_has_no_name_for_are_colored(tmp_path: Path) -> None:
    """As of cameras that put EXIF into every picture of their Motion JPEG."""
    source = tmp_path / "film.avi"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(5):
            gray = np.full((48, 64), 90 + number, np.uint8)
            for packet in stream.encode(picture_of(gray, "yuvj420p")):
                data = bytes(packet)
                head = struct.pack(">BBH", 0xFF, 0xE1, len(EXIF) + 2)
                marked = av.Packet(data[:2] + head + EXIF + data[2:])
                marked.pts = marked.dts = number
                marked.time_base, marked.stream = Fraction(1, 25), stream
                marked.is_keyframe = True
                container.mux(marked)
    assert color_and_report(source)[1].frames == 5
    inventory = plan_film(source, FilmSettings()).inventory
    assert [e.fate for e in inventory if e.what == "exif"] == ["left out"]


def test_a_heif_picture_of_no_known_brand_is_no_film(tmp_path: Path) -> None:
    source = tmp_path / "photo.avif"
    image(ramp()).heifsave(str(source), compression="av1")
    data = bytearray(source.read_bytes())
    end = int.from_bytes(data[:4], "big")
    data[8:end] = b"what" + bytes(end - 12)
    source.write_bytes(data)
    with pytest.raises(MediaError, match="HEIF picture"):
        plan_film(source, FilmSettings())


def test_a_tiff_whose_unit_of_resolution_is_none_loses_it_and_the_result_is_sound(
    tmp_path: Path,
) -> None:
    source = tmp_path / "old.tif"
    with source.open("wb") as file:
        tags = {296: tiff.short_tag(10), 271: tiff.text_tag("Maker")}
        tiff.TiffWriter(file, big=False).add(image(ramp()).tiffsave_buffer(), tags)
    report = color(source, PhotoSettings(accept_damaged=True))
    assert any("unit of resolution" in warning for warning in report.warnings)
    whole = result(source)
    assert whole.width == 64 and isinstance(whole.avg(), float)
    strict = pyvips.Image.tiffload(str(source.with_name("result.partial")), fail_on="error")
    assert strict.avg() > 0


def test_a_heic_without_a_picture_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "old.heic"
    image(ramp()).heifsave(str(source), compression="av1")
    data = source.read_bytes().replace(b"ftypavif", b"ftypheic").replace(b"av01", b"xx01")
    source.write_bytes(data)
    assert_refused(source, MediaError, "expected a sound HEIC picture")


def test_a_first_frame_that_is_shown_for_ages_is_refused_by_name(tmp_path: Path) -> None:
    """Behind 32 bytes of an IVF's header, every picture has its size and its time ahead of it."""
    source = make_film(tmp_path / "film.ivf", codec="libvpx", options={"deadline": "realtime"})
    data = bytearray(source.read_bytes())
    second = 32 + 12 + int.from_bytes(data[32:36], "little")
    struct.pack_into("<Q", data, second + 4, (1 << 63) + 1)
    source.write_bytes(data)
    with pytest.raises(MediaError, match=re.escape(str(source))):
        color_and_report(source, FilmSettings())


def test_a_tiff_whose_tags_all_say_that_they_are_the_whole_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "old.tif"
    with source.open("wb") as file:
        note = {65000 + number: tiff.Tag(7, bytes(1 << 20)) for number in range(3)}
        tiff.TiffWriter(file, big=False).add(image(ramp()).tiffsave_buffer(), note)
    assert color(source).pages == 1  # large tags of its own are no reason
    data = bytearray(source.read_bytes())
    for number in range(3):
        entry = data.index(struct.pack("<HHI", 65000 + number, 7, 1 << 20))
        struct.pack_into("<II", data, entry + 4, 3 << 20, 8)
    source.write_bytes(data)
    partial_of(source).unlink()
    assert_refused(source, MediaError, "its tags are said to hold")
