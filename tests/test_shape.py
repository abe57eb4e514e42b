"""How pictures are to be shown: the shape of pixels, display size, crop, stereoscopic marks."""

from __future__ import annotations

import dataclasses
import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.video.stream import VideoStream
from films import (
    ARCHIVE,
    EXACT,
    SIZE,
    color,
    decode,
    luma_differences,
    make_film,
    pictures,
)

from colordaemon.config import Codec, FilmSettings
from colordaemon.film.colorize import plan_film
from colordaemon.media import boxes, ebml
from colordaemon.media.demux import open_film
from colordaemon.media.inventory import Entry
from colordaemon.media.originals import original_of
from colordaemon.media.probe import probe_film
from colordaemon.media.shape import Crop, Shape, shape_of
from colordaemon.media.side_data import Orientation

CROP = (Fraction(6), Fraction(2), Fraction(4), Fraction(0))
WIDTH, HEIGHT = SIZE


def shape_in(path: Path) -> Shape:
    with open_film(path) as container:
        return shape_of(probe_film(path), original_of(container, path))


def shaped(path: Path, **parts: object) -> Path:
    """A film whose container says a shape."""
    said = dataclasses.replace(shape_in(path), **parts)  # type: ignore[arg-type]
    if path.suffix == ".mkv":
        header = ebml.read_header(path)
        tracks = ebml.Element(ebml.TRACKS, bytes(said.in_matroska(header.tracks[0])))
        ebml.write_header(path, header, ebml.with_parts(header, {ebml.TRACKS: tracks}))
    else:
        contents = boxes.read_contents(path)
        assert contents is not None
        said.in_mp4(contents.tracks[0], path.suffix[1:])
        boxes.write_contents(path, contents)
    return path


def make_shaped(path: Path, **parts: object) -> Path:
    room = {ebml.ROOM_TAG: " " * 1024} if path.suffix == ".mkv" else {}
    return shaped(make_film(path, 3, metadata=room), **parts)


def aspect_of(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        return container.streams.video[0].sample_aspect_ratio


def lost_shape(source: Path, settings: FilmSettings = EXACT) -> list[Entry]:
    inventory = plan_film(source, settings).inventory
    return [entry for entry in inventory if (entry.kind, entry.fate) == ("shape", "left out")]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "ffv1"])
@pytest.mark.parametrize("aspect", [Fraction(16, 15), Fraction(32, 27), Fraction(12, 11)])
def test_matroska_itself_says_the_shape_of_pixels(
    tmp_path: Path, aspect: Fraction, codec: Codec
) -> None:
    source = make_film(tmp_path / "film.mkv", 2, sample_aspect_ratio=aspect)
    done = color(source, FilmSettings(codec=codec, preset="12" if codec == "av1" else None))
    assert done.suffix == ".mkv"
    assert shape_in(done).display
    assert aspect_of(done) == probe_film(done).sample_aspect == aspect


def test_the_shape_of_pixels_of_mp4_is_kept_in_matroska(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 2, sample_aspect_ratio=Fraction(64, 45))
    done = color(source, ARCHIVE)
    assert (done.suffix, aspect_of(done)) == (".mkv", Fraction(64, 45))


def test_a_display_size_of_matroska_stays_to_the_last_unit(tmp_path: Path) -> None:
    display = (
        ebml.Element(ebml.DISPLAY_WIDTH, b"\x01\x2c"),
        ebml.Element(ebml.DISPLAY_HEIGHT, b"\x64"),
        ebml.Element(ebml.DISPLAY_UNIT, b"\x01"),  # centimeters
    )
    source = make_shaped(tmp_path / "film.mkv", display=display)
    assert aspect_of(source) == Fraction(300 * HEIGHT, 100 * WIDTH)
    done = color(source, ARCHIVE)
    assert [(e.id, e.data) for e in shape_in(done).display] == [(e.id, e.data) for e in display]
    assert aspect_of(done) == aspect_of(source)


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [("mkv", EXACT), ("mp4", EXACT), ("mov", EXACT), ("mp4", ARCHIVE), ("mkv", ARCHIVE)],
)
def test_a_crop_is_kept_and_cuts_nothing_off(
    tmp_path: Path, suffix: str, settings: FilmSettings
) -> None:
    source = make_shaped(tmp_path / f"film.{suffix}", crop=CROP)
    assert shape_in(source).crop == CROP
    job = plan_film(source, settings)
    assert any(entry.what.startswith("crop (6, 2, 4, 0 pixels") for entry in job.inventory)
    done = color(source, settings)
    assert shape_in(done).crop == CROP
    assert luma_differences(source, done) == [0] * 3
    with av.open(str(done)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == SIZE


def test_half_pixels_of_a_crop_cannot_stand_in_matroska(tmp_path: Path) -> None:
    crop = (Fraction(1, 2), Fraction(0), Fraction(1, 2), Fraction(0))
    source = make_shaped(tmp_path / "film.mov", crop=crop)
    assert lost_shape(source) == []
    assert [entry.how for entry in lost_shape(source, ARCHIVE)] == ["matroska cannot hold it"]
    assert shape_in(color(source)).crop == crop


@pytest.mark.parametrize(
    ("suffix", "mode", "settings"),
    [("mkv", 1, EXACT), ("mkv", 11, EXACT), ("mkv", 3, ARCHIVE), ("mp4", 3, EXACT),
     ("mov", 1, EXACT), ("mp4", 1, ARCHIVE)],
)  # fmt: skip
def test_two_views_in_a_picture_stay_two_views(
    tmp_path: Path, suffix: str, mode: int, settings: FilmSettings
) -> None:
    source = make_shaped(tmp_path / f"film.{suffix}", stereo=mode)
    assert probe_film(source).stereo_mode == mode
    assert lost_shape(source, settings) == []
    done = color(source, settings)
    assert probe_film(done).stereo_mode == mode
    assert (aspect_of(done) or 1) == (aspect_of(source) or 1)


def test_boxes_of_spherical_pictures_are_kept_where_they_can(tmp_path: Path) -> None:
    head = boxes.Box(b"prhd", bytes(16)), boxes.Box(b"equi", bytes(20))
    parts = (
        boxes.Box(b"svhd", bytes(4) + b"by hand\0"),
        boxes.Box(b"proj", b"".join(map(bytes, head))),
    )
    projection = boxes.Box(b"sv3d", b"".join(map(bytes, parts)))
    source = make_shaped(tmp_path / "film.mov", spherical=(projection,))
    done = color(source)
    assert [bytes(box) for box in shape_in(done).spherical] == [bytes(projection)]
    assert [entry.what for entry in lost_shape(source, ARCHIVE)] == ["marks of spherical pictures"]


def test_a_result_with_one_view_does_not_claim_two(tmp_path: Path) -> None:
    """As spatial video of phones has them, the second inside the codec."""
    source = make_film(tmp_path / "film.mov", 2)
    contents = boxes.read_contents(source)
    assert contents is not None
    views = boxes.Box(b"stri", bytes(4) + b"\x03")
    eyes = boxes.Box(b"eyes", bytes(views))
    boxes.add_to_entry(contents.tracks[0], [boxes.Box(b"vexu", bytes(eyes))])
    boxes.write_contents(source, contents)
    assert "second views of spatial video" in [entry.what for entry in lost_shape(source)]
    done = boxes.read_contents(color(source))
    assert done is not None
    assert b"vexu" not in [box.kind for box in boxes.entry_boxes(done.tracks[0])]


def test_tracks_are_found_behind_the_clusters(tmp_path: Path) -> None:
    """Where an editor puts them if they do not fit any more."""
    source = make_shaped(tmp_path / "film.mkv", crop=CROP)
    header = ebml.read_header(source)
    tracks = bytes(next(e for e in header.elements if e.id == ebml.TRACKS))
    data = bytearray(source.read_bytes())
    place = data.index(tracks)
    data[place : place + 9] = ebml.VOID + (len(tracks) - 9 | 1 << 56).to_bytes(8, "big")
    index = data.index(bytes(ebml.Element(ebml.SEEK_ID, ebml.TRACKS)))
    moved = bytes(ebml.Element(ebml.SEEK_POSITION, (len(data) - header.start).to_bytes(8, "big")))
    data[index + 14 : index + 14 + len(moved)] = moved
    data += tracks
    size = len(data) - header.start | 1 << 56
    data[header.start - 8 : header.start] = size.to_bytes(8, "big")
    source.write_bytes(data)
    assert ebml.read_header(source).tracks == []
    assert len(decode(source)) == 3
    assert shape_in(source).crop == shape_in(color(source)).crop == CROP


def test_a_header_that_cannot_be_read_is_said_and_no_reason_to_fail(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 2)
    data = source.read_bytes()
    # A box in the sample description that says that it is larger than what it stands in.
    place = data.index(b"avcC") - 4
    size = struct.unpack_from(">I", data, place)[0]
    extra = data.index(b"pasp") - 4 if b"pasp" in data else data.index(b"btrt") - 4
    assert extra >= place + size
    source.write_bytes(data[:extra] + struct.pack(">I", 1 << 20) + data[extra + 4 :])
    assert len(decode(source)) == 2
    assert [entry.what for entry in lost_shape(source)] == ["crop and marks of the container"]
    assert len(decode(color(source))) == 2


@pytest.mark.parametrize("settings", [EXACT, ARCHIVE])
def test_a_shape_of_pixels_that_changes_is_said(tmp_path: Path, settings: FilmSettings) -> None:
    parts = [
        make_film(
            tmp_path / f"{aspect.numerator}.mkv", pictures(10, (96, 64)), codec="mpeg2video",
            size=(96, 64), time_base=Fraction(1, 25), sample_aspect_ratio=aspect,
        )
        for aspect in (Fraction(8, 9), Fraction(32, 27), Fraction(32, 27))
    ]  # fmt: skip
    source = joined(tmp_path / "film.ts", parts)
    info = probe_film(source)
    assert info.sample_aspect == Fraction(32, 27)
    assert info.other_aspects == (Fraction(8, 9),)
    assert [str(entry) for entry in lost_shape(source, settings)] == [
        "pixels of 8:9 in parts of the film left out: all of it is said to have 32:27"
    ]


def test_a_matrix_that_stretches_does_so_once(tmp_path: Path) -> None:
    matrix = (2 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)

    def stretch(stream: VideoStream) -> None:
        stream.set_display_matrix(matrix)

    source = make_film(tmp_path / "film.mp4", 2, prepare=stretch)
    assert aspect_of(source) == 2
    done = color(source)
    assert Orientation.of(decode(done)[0]).matrix == matrix
    assert aspect_of(done) == 2
    assert decode_aspect(done) in (0, 1)  # and not twice, for players that heed both
    assert aspect_of(color(source, ARCHIVE)) == 2


def decode_aspect(path: Path) -> Fraction:
    """The shape of pixels that the codec says."""
    with av.open(str(path)) as container:
        next(container.decode(video=0))
        return Fraction(container.streams.video[0].codec_context.sample_aspect_ratio or 0)


def joined(path: Path, parts: list[Path]) -> Path:
    """Films behind each other in one stream."""
    with av.open(str(parts[0])) as first, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(first.streams.video[0])
        shift = 0
        for part in parts:
            with av.open(str(part)) as container:
                found = [p for p in container.demux(video=0) if p.size]
                for packet in found:
                    assert packet.pts is not None and packet.dts is not None
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    out.mux(packet)
                shift += len(found) * 40
    return path


@pytest.mark.parametrize(
    "crop",
    [(Fraction(-8), Fraction(0), Fraction(0), Fraction(0)),
     (Fraction(1, 4_000_000_000), Fraction(0), Fraction(1, 3_999_999_999), Fraction(0))],
    ids=["negative", "too many digits"],
)  # fmt: skip
def test_a_crop_that_makes_no_sense_ends_no_film(tmp_path: Path, crop: Crop) -> None:
    shape = dataclasses.replace(shape_in(make_film(tmp_path / "film.mkv", 1)), crop=crop)
    for container in ("matroska", "mp4", "mpegts"):
        (entry,) = shape.entries(container)
        assert entry.fate == "left out" or shape.is_incomplete_in(container)


def test_apertures_of_quicktime_are_kept(tmp_path: Path) -> None:
    sizes = struct.pack(">III", 0, 60 << 16, 48 << 16)
    kinds = (b"clef", b"prof", b"enof")
    aperture = boxes.Box(b"tapt", b"".join(bytes(boxes.Box(kind, sizes)) for kind in kinds))
    source = make_shaped(tmp_path / "film.mov", aperture=aperture)
    assert shape_in(source).aperture == aperture
    assert lost_shape(source) == []
    done = color(source)
    assert shape_in(done).aperture == aperture
    contents = boxes.read_contents(done)
    assert contents is not None and len(contents.tracks[0].all("tapt")) == 1
