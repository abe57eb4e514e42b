"""What photos say about themselves stays: EXIF, texts, captions, times and measures.

Files are put together byte by byte in the test, because libraries that write them drop the same
things as libraries that read them.
"""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
from photos import (
    HEIGHT,
    WIDTH,
    assert_refused,
    chunk,
    color,
    image,
    partial_of,
    ramp,
    result,
    save,
)

from colordaemon import __version__
from colordaemon.config import PhotoSettings
from colordaemon.errors import AlreadyColor, MediaError
from colordaemon.media import exif, jpeg, png, provenance, tiff, webp
from colordaemon.media.heif import items_in, with_content
from colordaemon.media.photo import PhotoReport, color_photo, plan_photo
from colordaemon.media.provenance import Maker

NOTE = "colordaemon: synthetic colors"
PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    b' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="uuid:7"'
    b' xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="old" %s></rdf:Description></rdf:RDF>'
    b"</x:xmpmeta>"
)


def jpeg_with(path: Path, *segments: jpeg.Segment, behind: bytes = b"") -> Path:
    plain = bytes(image(ramp()).jpegsave_buffer(Q=98))
    path.write_bytes(plain[:2] + b"".join(s.encoded() for s in segments) + plain[2:] + behind)
    return path


def png_with(
    path: Path, *chunks: bytes, behind: bytes = b"", pixels: np.ndarray | None = None
) -> Path:
    """A PNG without resolution; `behind` stands behind the pixels."""
    gray = ramp() if pixels is None else pixels
    rows = b"".join(b"\0" + row.tobytes() for row in gray)
    size = struct.pack(">IIBBBBB", gray.shape[1], gray.shape[0], 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", size) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts + behind + chunk(b"IEND", b""))
    return path


def tiff_with(path: Path, tags: tiff.Tags, pixels: np.ndarray | None = None) -> Path:
    with path.open("wb") as file:
        page = image(ramp() if pixels is None else pixels).tiffsave_buffer()
        tiff.TiffWriter(file, big=False).add(page, tags)
    return path


def parts_of(source: Path) -> jpeg.Parts:
    return jpeg.take_apart(partial_of(source).read_bytes())


def chunks_of(source: Path) -> png.Parts:
    return png.take_apart(partial_of(source).read_bytes())


# EXIF


def camera_block() -> bytes:
    """A big-endian block with a maker's note, Windows' title, Adobe RGB and a thumbnail."""
    gray = bytes(image(ramp()).jpegsave_buffer(Q=50, keep=0))
    note = b"\0\2" + bytes(range(40))
    title = "Oma".encode("utf-16-le") + b"\0\0"
    first, shot = 8, 8 + 2 + 4 * 12 + 4
    interop = shot + 2 + 4 * 12 + 4
    values = interop + 2 + 12 + 4
    second = values + len(title) + len(note)
    thumb = second + 2 + 3 * 12 + 4
    return b"".join(
        (
            struct.pack(">2sHI", b"MM", 42, first),
            struct.pack(">H", 4),
            struct.pack(">HHIHH", 274, 3, 1, 1, 0),
            struct.pack(">HHI4s", 271, 2, 4, b"Kod\0"),
            struct.pack(">HHII", 34665, 4, 1, shot),
            struct.pack(">HHII", 40091, 1, len(title), values),
            struct.pack(">I", second),
            struct.pack(">H", 4),
            struct.pack(">HHII", 37500, 7, len(note), values + len(title)),
            struct.pack(">HHIHH", 40961, 3, 1, 2, 0),
            struct.pack(">HHII", 40962, 4, 1, 7),
            struct.pack(">HHII", 40965, 4, 1, interop),
            bytes(4),
            struct.pack(">H", 1),
            struct.pack(">HHI4s", 1, 2, 4, b"R03\0"),
            bytes(4),
            title,
            note,
            struct.pack(">H", 3),
            struct.pack(">HHIHH", 259, 3, 1, 6, 0),
            struct.pack(">HHII", 513, 4, 1, thumb),
            struct.pack(">HHII", 514, 4, 1, len(gray)),
            bytes(4),
            gray,
        )
    )


def test_a_makers_note_stays_at_its_place_in_its_byte_order(tmp_path: Path) -> None:
    block = camera_block()
    source = jpeg_with(tmp_path / "shot.jpg", jpeg.Segment(0xE1, jpeg.EXIF + block))
    color(source)
    found = jpeg.exif_of(parts_of(source))
    place = block.index(bytes(range(40)))
    assert found[:2] == b"MM" and found[place : place + 40] == bytes(range(40))


def test_windows_titles_stay_and_the_color_space_is_srgb(tmp_path: Path) -> None:
    source = jpeg_with(tmp_path / "shot.jpg", jpeg.Segment(0xE1, jpeg.EXIF + camera_block()))
    color(source)
    tags = tiff.read_tags(jpeg.exif_of(parts_of(source)))
    assert tags[40091].data.decode("utf-16-le") == "Oma\0"
    assert tags[271].data == b"Kod\0" and tags[305].data == NOTE.encode() + b"\0"
    shot = tags[34665].children or {}
    assert shot[40961].numbers == (1,) and shot[40962].numbers == (WIDTH,)
    assert (shot[40965].children or {})[1].data == b"R98\0"


def test_the_thumbnail_is_made_anew_in_color(tmp_path: Path) -> None:
    block = camera_block()
    source = jpeg_with(tmp_path / "shot.jpg", jpeg.Segment(0xE1, jpeg.EXIF + block))
    color(source)
    found = jpeg.exif_of(parts_of(source))
    start = found.index(b"\xff\xd8\xff")
    small = pyvips.Image.new_from_buffer(found[start:], "")
    assert small.bands == 3 and small.width / small.height == pytest.approx(WIDTH / HEIGHT, 0.1)
    assert found.count(b"\xff\xd8\xff") == 1, "the gray one is gone"
    assert exif.has_thumbnail(found)


def directory(entries: list[tuple[int, int]], following: int) -> bytes:
    """Of pointers: each a tag and a place in the block."""
    raw = b"".join(struct.pack("<HHII", tag, 4, 1, place) for tag, place in entries)
    return struct.pack("<H", len(entries)) + raw + struct.pack("<I", following)


def tangled_block(kind: str) -> bytes:
    """Directories that lead to each other: as many ways through them as there are atoms."""
    if kind == "a thousand ways to itself":
        return b"II*\0\x08\0\0\0" + directory([(34665, 8)] * 4000, 8)
    if kind == "three that lead to each other":
        pointers = [(34665, 8), (34853, 8), (40965, 8)]
        return b"II*\0\x08\0\0\0" + directory(sorted(pointers * 30), 0)
    if kind == "a directory within that leads to itself":
        return (
            b"II*\0\x08\0\0\0" + directory([(34665, 26)], 26) + directory([(40965, 26)] * 4000, 0)
        )
    if kind == "overlapping directories":
        places = [(34665, 8 + 2 * number) for number in range(4000)]
        return b"II*\0\x08\0\0\0" + directory(places, 0)
    assert kind == "the next one is the first"
    return b"II*\0\x08\0\0\0" + directory([(34665, 8)], 8)


TANGLES = (
    "a thousand ways to itself",
    "three that lead to each other",
    "a directory within that leads to itself",
    "overlapping directories",
    "the next one is the first",
)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif"])
@pytest.mark.parametrize("kind", TANGLES)
def test_exif_that_leads_to_itself_is_known_at_once_and_left_out(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    block, source = tangled_block(kind), tmp_path / f"tangled.{suffix}"
    if suffix == "jpg":
        jpeg_with(source, jpeg.Segment(0xE1, jpeg.EXIF + block))
    elif suffix == "png":
        png_with(source, chunk(b"eXIf", block))
    elif suffix == "avif":
        dated = jpeg.EXIF + tiff.exif_block({306: tiff.text_tag("1950:01:01 00:00:00")})
        plain = image(ramp(), exif_data=dated).heifsave_buffer(compression="av1")
        (number,) = items_in(plain).of_kind(b"Exif")
        source.write_bytes(with_content(plain, number, bytes(4) + block))
    else:
        plain = image(ramp()).webpsave_buffer(lossless=True, profile="srgb")
        source.write_bytes(webp.put_together(plain, exif=block, xmp=b"", kept=()))
    began = time.process_time()
    fates = {
        entry.what: (entry.fate, entry.how) for entry in plan_photo(source, PhotoSettings())[0]
    }
    assert fates["EXIF"] == ("left out", "it is damaged")
    report = color(source)
    assert report.inventory and "EXIF" in report.warnings[0]
    assert result(source).bands == 3
    assert time.process_time() - began < 3


def test_a_tiff_whose_exif_leads_to_itself_loses_no_more_than_that(tmp_path: Path) -> None:
    within = tiff.Tag(4, children={1: tiff.text_tag("R98")})
    shot = tiff.Tag(4, children={40965: within, 37510: tiff.Tag(7, b"a comment")})
    source = tiff_with(tmp_path / "tangled.tif", {34665: shot, 305: tiff.text_tag("Scanner 1")})
    data = bytearray(source.read_bytes())
    at = data.index(struct.pack("<HHI", 34665, 4, 1)) + 8
    (place,) = struct.unpack_from("<I", data, at)
    at = data.index(struct.pack("<HHI", 40965, 4, 1)) + 8
    struct.pack_into("<I", data, at, place)
    source.write_bytes(data)
    color(source)
    found = tiff.read_tags(partial_of(source).read_bytes())
    assert found[34665].children is not None and 37510 in found[34665].children


def test_several_exif_blocks_lead_nobody_astray(tmp_path: Path) -> None:
    traps = [jpeg.Segment(0xE1, jpeg.EXIF + tangled_block(TANGLES[0]))] * 2
    sound = jpeg.Segment(0xE1, jpeg.EXIF + camera_block())
    source = jpeg_with(tmp_path / "odd.jpg", *traps, sound)
    began = time.process_time()
    color(source)
    assert time.process_time() - began < 3


def test_damaged_exif_gives_way_to_a_new_block(tmp_path: Path) -> None:
    for block in (b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff", b"nonsense", b""):
        source = jpeg_with(tmp_path / "odd.jpg", jpeg.Segment(0xE1, jpeg.EXIF + block))
        color(source)
        assert tiff.read_tags(jpeg.exif_of(parts_of(source)))[305].data == NOTE.encode() + b"\0"


def test_a_makers_note_that_cannot_move_is_named(tmp_path: Path) -> None:
    source = jpeg_with(tmp_path / "shot.jpg", jpeg.Segment(0xE1, jpeg.EXIF + camera_block()))
    report = color(source, PhotoSettings(format="tiff"))
    assert "camera's own note" in report.warnings[0]
    assert tiff.file_tags(partial_of(source), 0)[271].data == b"Kod\0"


# JPEG


def test_comments_extended_xmp_and_makers_segments_stay(tmp_path: Path) -> None:
    kept = (
        jpeg.Segment(0xFE, "Großmutter, 1912".encode()),
        jpeg.Segment(0xFE, b"a second one"),
        jpeg.Segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40) + b"<long/>"),
        jpeg.Segment(0xEC, b"Ducky\0\1\0\4"),
    )
    source = jpeg_with(tmp_path / "old.jpg", *kept)
    assert color(source).warnings == ()
    assert [s for s in parts_of(source).segments if s in kept] == [*kept]


def test_long_captions_stand_in_several_segments(tmp_path: Path) -> None:
    iptc = b"\x1c\x02\x78\x80\x04" + struct.pack(">I", 90_000) + bytes(90_000)
    resources = b"8BIM" + struct.pack(">HHI", 1028, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    halves = resources[:65_000], resources[65_000:]
    source = jpeg_with(
        tmp_path / "old.jpg", *(jpeg.Segment(0xED, jpeg.PHOTOSHOP + half) for half in halves)
    )
    color(source)
    assert jpeg.resources_of(parts_of(source)) == resources


def test_photoshops_gray_thumbnail_goes_and_its_other_resources_stay(tmp_path: Path) -> None:
    def resource(code: int, data: bytes) -> bytes:
        return b"8BIM" + struct.pack(">HHI", code, 0, len(data)) + data

    data = resource(1036, b"gray") + resource(1028, b"\x1c\x02\x78\0\1x")
    source = jpeg_with(tmp_path / "old.jpg", jpeg.Segment(0xED, jpeg.PHOTOSHOP + data))
    color(source)
    assert jpeg.resources_of(parts_of(source)) == resource(1028, b"\x1c\x02\x78\0\1x")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_colored_and_it_is_said(
    tmp_path: Path, progressive: bool
) -> None:
    source = tmp_path / "torn.jpg"
    source.write_bytes(image(ramp()).jpegsave_buffer(Q=95, interlace=progressive)[:-2])
    report = color(source)
    assert report.warnings == ("its end marker is missing; everything before it is there",)
    assert result(source).width == WIDTH


def test_a_damaged_photo_is_colored_on_request_and_it_is_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (200, 300), np.uint8)
    for suffix in (".jpg", ".png", ".tif"):
        source = save(tmp_path / f"torn{suffix}", noise)
        source.write_bytes(source.read_bytes()[:20_000])
        if suffix == ".tif":
            continue  # its directory stands at the end
        with pytest.raises(MediaError, match="expected a sound picture; `once --accept-damaged`"):
            color(source)
        report = color(source, PhotoSettings(accept_damaged=True))
        assert report.warnings == ("it is damaged; what could be read is colored",)


def test_what_cannot_be_read_at_all_is_not_offered_to_be_colored(tmp_path: Path) -> None:
    source = save(tmp_path / "torn.png", ramp())
    source.write_bytes(source.read_bytes()[:20])
    with pytest.raises(MediaError) as caught:
        color(source)
    assert "--accept-damaged" not in str(caught.value)


def test_what_stands_behind_a_jpeg_is_named_and_pointers_to_it_go(tmp_path: Path) -> None:
    xmp = PACKET % b'xmlns:GCamera="g" GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="9000"'
    film = b"\0\0\0\x18ftypmp42" + bytes(9000)
    source = jpeg_with(tmp_path / "motion.jpg", jpeg.Segment(0xE1, jpeg.XMP + xmp), behind=film)
    report = color(source)
    assert len(report.warnings) == 1 and "9012 bytes behind the picture" in report.warnings[0]
    assert not report.is_whole
    found = jpeg.xmp_of(parts_of(source))
    assert b"MotionPhoto" not in found and b"MicroVideo" not in found and b"dc:format" in found


def test_further_pictures_in_a_jpeg_are_named_and_make_it_less_than_whole(tmp_path: Path) -> None:
    source = jpeg_with(tmp_path / "stereo.mpo", jpeg.Segment(0xE2, b"MPF\0II*\0"))
    report = color(source)
    assert "further pictures" in report.warnings[0] and not report.is_whole
    assert not jpeg.holds_more_pictures(parts_of(source))


def test_a_signature_is_left_out_and_named(tmp_path: Path) -> None:
    source = jpeg_with(tmp_path / "signed.jpg", jpeg.Segment(0xEB, b"JP\0\1c2pa"))
    assert "signature" in color(source).warnings[0]
    assert not jpeg.holds_signature(parts_of(source))


# Resolution


def test_no_resolution_is_invented(tmp_path: Path) -> None:
    color(png := png_with(tmp_path / "a.png"))
    assert chunks_of(png).first(b"pHYs") is None
    bare = tiff.file_tags(tiff_with(tmp_path / "a.tif", {}), 0)
    assert not {282, 283, 296} & bare.keys()
    color(tmp_path / "a.tif")
    assert not {282, 283, 296} & tiff.file_tags(partial_of(tmp_path / "a.tif"), 0).keys()
    plain = bytes(image(ramp()).jpegsave_buffer())
    bare_jpeg = tmp_path / "a.jpg"
    others = [s for s in jpeg.take_apart(plain).segments if s.marker not in (0xE0, 0xE1)]
    scan = plain[jpeg.take_apart(plain).scan :]
    bare_jpeg.write_bytes(plain[:2] + b"".join(s.encoded() for s in others) + scan)
    color(bare_jpeg)
    assert jpeg.density_of(parts_of(bare_jpeg)) == (0, 1, 1)


def test_a_resolution_moves_between_formats(tmp_path: Path) -> None:
    source = png_with(tmp_path / "a.png", chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)))
    color(source, PhotoSettings(format="jpeg"))
    assert jpeg.density_of(parts_of(source)) == (2, 118, 118)
    color(source, PhotoSettings(format="tiff"))
    assert tiff.density_of(tiff.file_tags(partial_of(source), 0)) == (2, 118.11, 118.11)


# PNG


def test_png_texts_and_times_stay_as_they_are_also_behind_the_pixels(tmp_path: Path) -> None:
    author = b"Author\0\0\0\0\0" + "Jörg".encode()
    packed = b"Comment\0\0" + zlib.compress("Größe".encode("latin-1"))
    time = struct.pack(">H5B", 1999, 5, 6, 7, 8, 9)
    block = tiff.exif_block({306: tiff.text_tag("1950:01:01 00:00:00")})
    source = png_with(
        tmp_path / "a.png",
        chunk(b"iTXt", author),
        chunk(b"tIME", time),
        behind=chunk(b"zTXt", packed) + chunk(b"eXIf", block) + chunk(b"tEXt", b"Title\0Kai"),
    )
    assert color(source).warnings == ()
    found = [(c.name, c.data) for c in chunks_of(source).chunks]
    for name, data in (
        (b"iTXt", author), (b"tIME", time), (b"zTXt", packed), (b"tEXt", b"Title\0Kai"),
    ):  # fmt: skip
        assert (name, data) in found
    assert tiff.read_tags(chunks_of(source).first(b"eXIf") or b"")[306].data.startswith(b"1950")


def test_chunks_of_others_stay_only_if_they_say_that_they_may(tmp_path: Path) -> None:
    source = png_with(tmp_path / "a.png", chunk(b"prVa", b"stays"), chunk(b"prVA", b"goes"))
    assert color(source).warnings == (
        "chunks that hold only for the old pixels are left out: prVA",
    )
    assert chunks_of(source).first(b"prVa") == b"stays" and chunks_of(source).first(b"prVA") is None


@pytest.mark.parametrize(
    ("chunks", "gamma"),
    [
        ((chunk(b"gAMA", struct.pack(">I", 100000)),), 1.0),
        ((chunk(b"gAMA", struct.pack(">I", 55556)),), 1.8),
        ((chunk(b"gAMA", struct.pack(">I", 45455)),), None),
        ((chunk(b"gAMA", struct.pack(">I", 100000)), chunk(b"sRGB", b"\0")), None),
        ((chunk(b"cICP", bytes((1, 8, 0, 1))), chunk(b"sRGB", b"\0")), 1.0),
        ((chunk(b"cICP", bytes((1, 13, 0, 1))), chunk(b"gAMA", struct.pack(">I", 100000))), None),
    ],
)
def test_what_a_png_says_of_its_curve_is_honored(
    tmp_path: Path, chunks: tuple[bytes, ...], gamma: float | None
) -> None:
    source = png_with(tmp_path / "a.png", *chunks)
    color(source)
    codes = ramp() / 255
    linear = (
        codes**gamma
        if gamma
        else np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    )
    found = result(source).numpy() / 255
    light = np.where(found <= 0.04045, found / 12.92, ((found + 0.055) / 1.055) ** 2.4)
    assert np.abs(light @ (0.2126, 0.7152, 0.0722) - linear).max() < 0.02
    assert chunks_of(source).first(b"gAMA") is None and chunks_of(source).first(b"cICP") is None


def test_high_dynamic_range_is_refused_by_name(tmp_path: Path) -> None:
    source = png_with(tmp_path / "a.png", chunk(b"cICP", bytes((9, 16, 0, 1))))
    with pytest.raises(Exception, match=r"a\.png: high dynamic range \(PQ\)"):
        color(source)


# TIFF


def test_captions_in_tiff_stay_whole_whatever_their_type(tmp_path: Path) -> None:
    record = b"\x1c\x02\x78\0\x17A caption of some length"[:28]
    for kind in (1, 4, 7):
        source = tiff_with(tmp_path / f"{kind}.tif", {33723: tiff.Tag(kind, record)})
        color(source)
        assert tiff.file_tags(partial_of(source), 0)[33723].data == record


def test_georeferences_and_unknown_tags_stay(tmp_path: Path) -> None:
    tags = {
        33550: tiff.Tag(12, struct.pack("<3d", 0.5, 0.5, 0)),
        33922: tiff.Tag(12, struct.pack("<6d", 0, 0, 0, 5e5, 5.4e6, 0)),
        34735: tiff.Tag(3, struct.pack("<8H", 1, 1, 0, 1, 1024, 0, 1, 1)),
        40093: tiff.Tag(1, "Jörg".encode("utf-16-le")),
        65001: tiff.Tag(2, b"of a maker\0"),
    }
    source = tiff_with(tmp_path / "aerial.tif", tags)
    assert color(source).warnings == ()
    found = tiff.file_tags(partial_of(source), 0)
    assert {code: found[code] for code in tags} == tags


def test_what_must_go_from_a_tiff_is_named(tmp_path: Path) -> None:
    tags = {37724: tiff.Tag(7, b"layers" * 9), 330: tiff.Tag(4, struct.pack("<I", 8))}
    report = color(source := tiff_with(tmp_path / "layers.tif", tags))
    assert any("Photoshop's layers" in warning for warning in report.warnings)
    assert any("SubIFDs" in warning for warning in report.warnings)
    assert not tags.keys() & tiff.file_tags(partial_of(source), 0).keys()


def test_tags_that_share_their_bytes_do_not_fill_the_memory() -> None:
    data = bytes(100_000)
    entries = b"".join(
        struct.pack("<HHII", 40000 + number, 7, len(data), 8) for number in range(1000)
    )
    file = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    tags = tiff.read_tags(file + struct.pack("<H", 1000) + entries + bytes(4))
    assert sum(len(tag.data) for tag in tags.values()) <= len(file) + len(entries) + 6


def test_an_offset_beyond_all_files_is_damage(tmp_path: Path) -> None:
    source = tmp_path / "a.tif"
    source.write_bytes(b"II" + struct.pack("<HHHQ", 43, 8, 0, 2**63 + 16) + bytes(64))
    assert_refused(source, MediaError, "damaged TIFF directory")


# Whence colors come


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_results_say_for_machines_that_a_model_made_their_colors(
    tmp_path: Path, suffix: str
) -> None:
    source = tmp_path / f"old{suffix}"
    image(ramp()).write_to_file(str(source))
    maker = Maker("faces.safetensors", "ab" * 32)
    color_photo(source, partial_of(source), lambda gray: gray.repeat(1, 2, 1, 1) * 0 + 9,
                PhotoSettings(), maker=maker)  # fmt: skip
    xmp = result(source).get("xmp-data").decode()
    assert f'DigitalSourceType="{provenance.SOURCE_TYPE}"' in xmp
    assert f"<colordaemon:Software>colordaemon {__version__}</" in xmp
    assert "<colordaemon:Model>faces.safetensors</" in xmp
    assert f"<colordaemon:ModelSHA256>{'ab' * 32}</" in xmp


def test_former_claims_of_origin_give_way_and_all_else_stays() -> None:
    film = "http://cv.iptc.org/newscodes/digitalsourcetype/negativeFilm"
    for claim in (
        f'xmlns:Iptc4xmpExt="i" Iptc4xmpExt:DigitalSourceType="{film}"',
        f'xmlns:Iptc4xmpExt="i"><Iptc4xmpExt:DigitalSourceType>{film}'
        "</Iptc4xmpExt:DigitalSourceType",
    ):
        found = provenance.packet(Maker(), PACKET % claim.encode()).decode()
        assert film not in found and 'dc:format="old"' in found
        assert found.count('rdf:about="uuid:7"') == 2, "one resource, two descriptions"
        assert found.count("DigitalSourceType") == 1


def test_a_packet_in_utf_16_is_understood() -> None:
    wide = b"\xff\xfe" + (PACKET % b"").decode().encode("utf-16-le")
    assert b'dc:format="old"' in provenance.packet(Maker(), wide)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp", ".avif"])
def test_our_own_results_are_not_colored_again(tmp_path: Path, suffix: str) -> None:
    source = save(tmp_path / f"old{suffix}", ramp())
    if suffix == ".avif":
        image(ramp()).heifsave(str(source), compression="av1")
    color(source)
    again = partial_of(source).rename(tmp_path / f"old.color{suffix}")
    with pytest.raises(AlreadyColor, match="is a result of colordaemon"):
        color(again)
    assert isinstance(color(again, force=True), PhotoReport)
