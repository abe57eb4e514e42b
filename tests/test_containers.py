"""What mp4, mov and Matroska say beside their streams, beyond what FFmpeg reads and writes."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest
from films import (
    ARCHIVE,
    EXACT,
    color,
    color_and_report,
    luma_differences,
    make_film,
    packets,
    sound,
    subtitles,
    times,
)

from colordaemon.config import FilmSettings
from colordaemon.film.colorize import plan_film
from colordaemon.media import boxes, ebml, provenance, userdata
from colordaemon.media.boxes import Box
from colordaemon.media.demux import open_film
from colordaemon.media.ebml import Element
from colordaemon.media.finish import move_samples, plays_early
from colordaemon.media.inventory import remarks
from colordaemon.media.originals import original_of
from colordaemon.media.tags import is_result

WIDE = (256, 128)  # DNxHR begins there
HEVC = FilmSettings(codec="hevc", encoder_options={"preset": "ultrafast"})


def moov_of(path: Path) -> Box:
    contents = boxes.read_contents(path)
    assert contents
    return contents.moov


def changed(path: Path, *children: Box) -> Path:
    """Put further boxes into the table of contents of an mp4, in place of those of their kind."""
    contents = boxes.read_contents(path)
    assert contents
    kinds = {child.kind for child in children}
    rest = [child for child in contents.moov.children if child.kind not in kinds]
    contents.moov.children = [*rest, *children]
    boxes.write_contents(path, contents)
    return path


def metadata(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_hevc_is_called_as_apple_calls_it(tmp_path: Path, suffix: str) -> None:
    done = color(make_film(tmp_path / f"film.{suffix}"), HEVC)
    assert [boxes.sample_entries(t)[0][0] for t in moov_of(done).all("trak")] == [b"hvc1"]


@pytest.mark.parametrize("early", [True, False])
def test_a_film_that_plays_before_it_has_arrived_does_so_again(tmp_path: Path, early: bool) -> None:
    source = make_film(
        tmp_path / "film.mp4",
        extras=[sound(), sound("flac")],
        container_options={"movflags": "faststart"} if early else {},
    )
    done = color(source)
    assert plays_early(done) is plays_early(source) is early
    assert luma_differences(source, done) == [0] * 6
    for index in (1, 2):
        assert packets(done, index) == packets(source, index)
        assert times(done, index) == times(source, index)


def test_offsets_beyond_four_gigabytes_become_longer() -> None:
    high = struct.pack(">III", 0, 1, (1 << 32) - 40)
    stbl = Box(b"stbl", children=[Box(b"stco", high)])
    tree = stbl
    for kind in (b"minf", b"mdia", b"trak", b"moov"):
        tree = Box(kind, children=[tree])
    size = len(bytes(tree))
    room = move_samples(tree, 100)
    assert room == size + 4 + 100
    table = stbl.children[0]
    assert (table.kind, struct.unpack(">IIQ", table.data)) == (
        b"co64",
        (0, 1, (1 << 32) - 40 + room),
    )


KEYS = {
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.location.ISO6709": "+52.5200+013.4050+034.000/",
    "com.apple.quicktime.creationdate": "2022-11-09T20:36:38+0300",
    "com.example.reel-in-the-box": "7",
    "title": "Oma",
}


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_quicktimes_keys_are_kept(tmp_path: Path, suffix: str) -> None:
    source = make_film(
        tmp_path / f"film.{suffix}",
        metadata=KEYS,
        container_options={"movflags": "use_metadata_tags"},
    )
    done = color(source)
    found = metadata(done)
    assert {key: found.get(key) for key in KEYS} == KEYS
    assert found["comment"].startswith("Colors are synthetic")
    listed = [entry.what for entry in plan_film(source, EXACT).inventory if entry.fate == "kept"]
    assert {f"tag {key}" for key in KEYS} <= {*listed}


def test_keys_that_are_no_text_and_user_data_of_cameras_are_kept(tmp_path: Path) -> None:
    number = struct.pack(">I4sIIf", 20, b"data", 23, 0, 4.5)
    items = [(b"mdtacom.example.rating", number), *userdata.text_items({"encoder": "old"})]
    parts = struct.pack(">I4s", 12, b"CNTH") + b"lens" + struct.pack(">I4sI", 12, b"free", 0)
    source = changed(
        make_film(tmp_path / "film.mov"),
        userdata.with_items(items, is_mov=True),
        Box(b"udta", parts),
    )
    moov = moov_of(color(source))
    assert userdata.items_of(moov) == items[:1]
    assert dict(boxes.split(moov.only("udta").data))[b"CNTH"] == b"lens"
    told = remarks(plan_film(source, ARCHIVE).inventory)
    assert "user data CNTH left out: matroska has no place for it" in told


def test_tags_that_mp4_has_no_name_for_become_keys(tmp_path: Path) -> None:
    tags = {"SCANNER": "ARRISCAN", "title": "Oma"}
    source = make_film(tmp_path / "film.mkv", 2, size=WIDE, pix_fmt="yuv422p", metadata=tags)
    done = color(source, FilmSettings(codec="dnxhr"))
    assert done.suffix == ".mov"
    found = metadata(done)
    assert (found["SCANNER"], found["title"]) == ("ARRISCAN", "Oma")


@pytest.mark.parametrize(("suffix", "settings"), [("mov", EXACT), ("mov", ARCHIVE)])
def test_the_reel_of_a_timecode_is_kept(
    tmp_path: Path, suffix: str, settings: FilmSettings
) -> None:
    source = make_film(
        tmp_path / f"film.{suffix}",
        metadata={"timecode": "10:00:00:05"},
        prepare=lambda stream: stream.metadata.update({"reel_name": "A001"}),
    )
    with av.open(str(color(source, settings))) as container:
        reels = [
            s.metadata.get("reel_name", s.metadata.get("REEL_NAME")) for s in container.streams
        ]
    assert "A001" in reels


def with_chapters(path: Path) -> Path:
    """Two chapters out of order, one of them with another inside."""

    def atom(number: int, start: int, *inner: bytes) -> bytes:
        name = Element(ebml.DISPLAY, bytes(Element(b"\x85", b"part %d" % number)))
        parts = (
            Element(b"\x73\xc4", bytes([number])),
            Element(ebml.ATOM_START, start.to_bytes(8, "big")),
            Element(b"\x92", (start + 50_000_000).to_bytes(8, "big")),
            name,
        )
        return bytes(Element(ebml.ATOM, b"".join(map(bytes, parts)) + b"".join(inner)))

    ordered = bytes(Element(ebml.EDITION_ORDERED, b"\1"))
    edition = ordered + atom(1, 100_000_000) + atom(2, 0, atom(3, 10_000_000))
    part = Element(ebml.CHAPTERS, bytes(Element(ebml.EDITION, edition)))
    header = ebml.read_header(path)
    ebml.write_header(path, header, ebml.with_parts(header, {ebml.CHAPTERS: part}))
    return path


def test_nested_and_ordered_chapters_stay_as_they_are_in_matroska(tmp_path: Path) -> None:
    room = {ebml.ROOM_TAG: " " * 4000}
    source = with_chapters(
        make_film(tmp_path / "film.mkv", size=WIDE, pix_fmt="yuv422p", extras=[sound()],
                  metadata=room)
    )  # fmt: skip
    done = color(source)
    found = [ebml.part_of(path, ebml.read_header(path), ebml.CHAPTERS) for path in (source, done)]
    for part in found:
        assert part is not None
        editions = [child for child in part.children if child.id == ebml.EDITION]
        assert len(editions) == 1 and editions[0].data.count(b"part ") == 3
    assert packets(done, 1) == packets(source, 1)
    for codec in ("dnxhr", "prores"):
        job = plan_film(source, FilmSettings(codec=codec))
        assert job.target.suffix == ".mov"
        assert any("nested" in told for told in remarks(job.inventory))


def speaking(path: Path, language: str) -> Path:
    """Give the second track of a film a language as BCP 47 writes it."""
    if path.suffix == ".mkv":
        header = ebml.read_header(path)
        tracks = [header.tracks[0], ebml.with_language(header.tracks[1], language)]
        part = Element(ebml.TRACKS, b"".join(map(bytes, tracks)))
        ebml.write_header(path, header, ebml.with_parts(header, {ebml.TRACKS: part}))
        return path
    contents = boxes.read_contents(path)
    assert contents
    boxes.set_language(contents.tracks[1], language)
    boxes.write_contents(path, contents)
    return path


@pytest.mark.parametrize(
    ("suffix", "settings"), [("mkv", EXACT), ("mp4", EXACT), ("mp4", ARCHIVE), ("mkv", HEVC)]
)
def test_languages_with_regions_and_scripts_are_kept(
    tmp_path: Path, suffix: str, settings: FilmSettings
) -> None:
    room = {ebml.ROOM_TAG: " " * 4000} if suffix == "mkv" else {}
    path = make_film(tmp_path / f"film.{suffix}", extras=[sound(language="por")], metadata=room)
    done = color(speaking(path, "pt-BR"), settings)
    with open_film(done) as container:
        assert original_of(container, done).languages() == {1: "pt-BR"}
        assert container.streams[1].language == "por"


OLD_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
    b'"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="reel 7"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("early", [True, False])
def test_xmp_says_what_made_the_colors_beside_what_the_source_said(
    tmp_path: Path, suffix: str, early: bool
) -> None:
    source = make_film(
        tmp_path / f"film.{suffix}",
        container_options={"movflags": "faststart"} if early else {},
    )
    with source.open("ab") as file:
        file.write(userdata.xmp_box(OLD_XMP))
    maker = provenance.Maker("faces.safetensors", "ab" * 32)
    done = color(source, maker=maker)
    xmp = userdata.xmp_of(done, moov_of(done)).decode()
    assert provenance.SOURCE_TYPE in xmp and 'dc:source="reel 7"' in xmp
    assert "faces.safetensors" in xmp and "ab" * 32 in xmp
    assert luma_differences(source, done) == [0] * 6


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_matroska_says_as_tags_what_made_the_colors(tmp_path: Path, suffix: str) -> None:
    codec, settings = (
        ("libx264", EXACT) if suffix == "mkv" else ("libvpx", FilmSettings(codec="av1"))
    )
    source = make_film(tmp_path / f"film.{suffix}", codec=codec)
    maker = provenance.Maker("faces.safetensors", "ab" * 32)
    done = color(source, settings, maker=maker)
    assert done.suffix == f".{suffix}"
    assert maker.tags().items() <= metadata(done).items()


def test_subtitles_survive_the_move_of_the_table_of_contents(tmp_path: Path) -> None:
    source = make_film(
        tmp_path / "film.mp4",
        extras=[sound(), subtitles("mov_text", language="ger")],
        container_options={"movflags": "faststart"},
    )
    done = color(source)
    assert packets(done, 2) == packets(source, 2)
    assert times(done, 2) == times(source, 2)


def test_tags_that_are_no_utf8_are_read_as_windows_wrote_them(tmp_path: Path) -> None:
    path = make_film(
        tmp_path / "film.avi", codec="mpeg4", time_base=Fraction(1, 25),
        metadata={"title": "K@se 1953", "artist": "Zoë"},
    )  # fmt: skip
    data = path.read_bytes()
    assert data.count(b"K@se") == 1
    path.write_bytes(data.replace(b"K@se", b"K\xe4se"))
    found = {key.lower(): value for key, value in metadata(color(path)).items()}
    assert (found["title"], found["artist"]) == ("Käse 1953", "Zoë")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_result_is_known_though_its_comment_was_replaced(tmp_path: Path, suffix: str) -> None:
    source = make_film(tmp_path / f"film.{suffix}")
    done = color(source)
    sentence = b"Colors are synthetic, made by colordaemon"
    data = done.read_bytes()
    assert data.count(sentence) == 1
    done.write_bytes(data.replace(sentence, b"x" * len(sentence)))
    for path, expected in ((source, False), (done, True)):
        with open_film(path) as container:
            assert is_result(container, path) is expected


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_films_whose_tracks_have_names_stay_what_they_are(tmp_path: Path, suffix: str) -> None:
    extras = [sound("aac", language="jpn", title="日本語")]
    source = make_film(tmp_path / f"film.{suffix}", extras=extras)
    done, report = color_and_report(source)
    assert done.suffix == source.suffix
    assert ("tag name of stream 1", "kept") in [(e.what, e.fate) for e in report.inventory]
    with av.open(str(done)) as container:
        assert container.streams[1].metadata["name"] == "日本語"
