"""A stretch of a film: its frames exactly, with all other streams cut along."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import OutputContainer
from av.packet import Packet
from command import once, write_film, write_photo
from films import (
    ARCHIVE,
    EXACT,
    Listener,
    color,
    color_and_report,
    decode,
    luma_planes,
    make_film,
    packets,
    pictures,
    short_segments,
    sound,
    still,
    times,
)

from colordaemon.errors import MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media.decode import FilmReader
from colordaemon.media.probe import probe_film
from colordaemon.media.stretch import Stretch, chapters_in, parse_stretch, timecode_at

PART = Stretch(0.5, 1.1)


def sounding_film(path: Path, **options: Any) -> Path:
    """Two seconds: 50 frames in shots of 20, with sound in 94 packets, and lines of text."""
    images = pictures(50, shot_frames=20)
    return make_film(path, images, extras=[sound("flac", 2.0), lines()], **options)


def lines() -> Callable[[OutputContainer], list[Packet[Any]]]:
    """Texts from 0.3 to 0.7 s, from 0.8 to 0.9 s, from 1.0 to 1.4 s and from 1.5 to 1.6 s."""

    def add(container: OutputContainer) -> list[Packet[Any]]:
        stream = container.add_mux_stream("subrip")
        stream.time_base = Fraction(1, 1000)
        made = []
        for start, end in ((300, 700), (800, 900), (1000, 1400), (1500, 1600)):
            packet = Packet(f"from {start}".encode())
            packet.pts = packet.dts = start
            packet.duration, packet.time_base, packet.stream = (
                end - start,
                Fraction(1, 1000),
                stream,
            )
            made.append(packet)
        return made

    return add


def shown(path: Path, index: int) -> list[tuple[float, float, bytes]]:
    """Beginning and end in seconds of a stream's packets, and what is in them."""
    with av.open(str(path)) as container:
        stream = container.streams[index]
        found = []
        for packet in container.demux(stream):
            if packet.size:
                assert packet.pts is not None and packet.time_base is not None
                begin = float(packet.pts * packet.time_base)
                end = begin + float((packet.duration or 0) * packet.time_base)
                found.append((round(begin, 3), round(end, 3), bytes(packet)))
        return found


def test_a_stretch_has_exactly_its_frames_and_begins_at_zero(tmp_path: Path) -> None:
    source = sounding_film(tmp_path / "film.mkv")
    done, report = color_and_report(source, stretch=PART)
    whole = luma_planes(source)
    # The frames of 0.52 to 1.08 seconds, at 25 a second.
    assert np.array_equal(luma_planes(done), whole[13:28])
    assert times(done) == [Fraction(40 * number, 1000) for number in range(15)]
    assert report.frames == 15
    listener = Listener()
    color(source, stretch=PART, context=listener)
    assert listener.frames[0] == pytest.approx(0.02) and listener.frames[-1] < 0.6


def test_sound_is_cut_between_its_packets_and_stays_with_the_picture(tmp_path: Path) -> None:
    source = sounding_film(tmp_path / "film.mkv")
    done = color(source, stretch=PART)
    before, after = shown(source, 1), shown(done, 1)
    # The first frame is at 0.52 s; a packet of FLAC is 4608 samples of 48000 a second.
    wanted = [(b, e, data) for b, e, data in before if 0.52 <= b < 1.12]
    assert [data for *_, data in after] == [data for *_, data in wanted]
    for (begin, *_), (there, *_) in zip(after, wanted, strict=True):
        assert begin == pytest.approx(there - 0.52, abs=0.0011)


def test_texts_that_are_on_at_an_end_of_the_stretch_are_shortened(tmp_path: Path) -> None:
    done = color(sounding_film(tmp_path / "film.mkv"), stretch=PART)
    assert shown(done, 2) == [
        (0.0, 0.18, b"from 300"),
        (0.28, 0.38, b"from 800"),
        (0.48, 0.6, b"from 1000"),
    ]


def test_chapters_and_timecode_begin_where_the_stretch_does(tmp_path: Path) -> None:
    source = tmp_path / "film.mkv"
    plain = sounding_film(tmp_path / "plain.mkv", time_base=Fraction(1, 25))
    with av.open(str(plain)) as container, av.open(str(source), "w") as copy:
        copied = {s.index: copy.add_stream_from_template(s) for s in container.streams}
        tick = Fraction(1, 1000)
        ends = ((0, 400, "one"), (400, 800, "two"), (800, 2000, "three"))
        copy.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": tick,
                 "metadata": {"title": title}}
                for number, (start, end, title) in enumerate(ends, 1)
            ]
        )  # fmt: skip
        copy.metadata["timecode"] = "01:00:00:00"
        for packet in container.demux():
            if packet.size:
                packet.stream = copied[packet.stream.index]
                copy.mux(packet)
    done, report = color_and_report(source, stretch=PART)
    with av.open(str(done)) as container:
        found = [
            (
                c["metadata"]["title"],
                *(round(float(c[end] * (c["time_base"] or 1)), 3) for end in ("start", "end")),
            )
            for c in container.chapters()
        ]
        assert found == [("two", 0.0, 0.28), ("three", 0.28, 0.6)]
        # The first frame is the fourteenth.
        assert container.metadata["TIMECODE"] == "01:00:00:13"
    fates = {entry.what: entry.fate for entry in report.inventory}
    assert fates["2 chapters"] == "kept" and fates["timecode 01:00:00:00"] == "kept"


def test_a_stretch_in_segments_is_that_of_one_and_of_the_whole_film(tmp_path: Path) -> None:
    source = sounding_film(tmp_path / "film.mkv")
    settings = short_segments(ARCHIVE.model_copy(update={"smoothing": "off"}), 0.2)
    whole = [frame.to_ndarray() for frame in decode(color(source, settings))]
    done, report = color_and_report(source, settings, stretch=PART)
    assert report.segments > 2
    assert all(
        np.array_equal(frame.to_ndarray(), other)
        for frame, other in zip(decode(done), whole[13:28], strict=True)
    )


def test_a_late_stretch_is_searched_for_and_is_the_same_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_film(
        tmp_path / "film.mp4",
        pictures(200),
        extras=[still(cover=True), sound("aac", 8.0)],
        options={"qp": "0", "preset": "ultrafast", "g": "12", "bf": "2"},
    )
    late = Stretch(6.0, 6.4)
    sought = color(source, EXACT, stretch=late)
    assert np.array_equal(luma_planes(sought), luma_planes(source)[150:160])
    heard, cover = packets(sought, 1), packets(sought, 2)
    assert cover == packets(source, 2) and len(heard) in (18, 19)
    monkeypatch.setattr("colordaemon.media.decode.SEARCHABLE", frozenset())
    monkeypatch.setattr("colordaemon.media.stretch.SEARCHABLE", frozenset())
    read = color(source, EXACT, stretch=late)
    assert read.read_bytes() == sought.read_bytes()


@pytest.mark.parametrize("name", ["film.ts", "film.avi", "film.mov", "film.webm"])
def test_other_containers_are_cut_as_exactly(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"codec": "libvpx-vp9", "options": {"lossless": "1"}}
    source = make_film(tmp_path / name, pictures(30), **(options if "webm" in name else {}))
    done = color(source, ARCHIVE, stretch=Stretch(0.4, 0.8))
    info = probe_film(source)
    with FilmReader(info) as reader:
        wanted = [f.luma.copy() for f in reader if 0.4 <= info.seconds_at(f.pts) < 0.8]
    assert len(wanted) == 10 and np.array_equal(luma_planes(done), wanted)
    assert times(done)[0] == 0


def test_a_stretch_without_frames_is_refused_and_says_how_long_the_film_is(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 25)
    with pytest.raises(
        MediaError, match=r"found 1\.0\d* s of film, expected more than the 5\.000 s"
    ):
        plan_film(source, EXACT, stretch=Stretch(5.0))
    with pytest.raises(MediaError, match=r"found no frame from 0\.041 s to 0\.079 s"):
        color(source, stretch=Stretch(0.041, 0.079))


def test_what_is_wanted_plays_as_long_as_it_does_in_the_film(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 50)
    for stretch, seconds in ((PART, 0.6), (Stretch(1.5), 0.5), (None, 2.0)):
        wanted = probe_film(source, stretch=stretch).wanted_seconds
        assert wanted == pytest.approx(seconds, abs=0.05)


@pytest.mark.parametrize(
    ("text", "stretch"),
    [
        ("90:125.4", Stretch(90, 125.4)),
        ("1:30:2:05.4", Stretch(90, 125.4)),
        ("0:01:30:0:02:05", Stretch(90, 125)),
        ("0:01:30..125", Stretch(90, 125)),
        ("00-01-30:00-02-05", Stretch(90, 125)),
        ("90:", Stretch(90, math.inf)),
        (":20", Stretch(0, 20)),
        ("..20", Stretch(0, 20)),
    ],
)
def test_ranges_are_two_times_of_one_form_or_any_two_with_dots(text: str, stretch: Stretch) -> None:
    assert parse_stretch(text) == stretch


@pytest.mark.parametrize(
    "text", ["", ":", "20", "30:20", "1:2:3", "a:b", "1:30..1:20", "1:70:2:00"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_stretch(text)


@pytest.mark.parametrize(
    ("timecode", "frames", "rate", "later"),
    [
        ("01:00:00:00", 13, 25, "01:00:00:13"),
        ("01:00:59:24", 1, 25, "01:01:00:00"),
        ("23:59:59:24", 1, 25, "00:00:00:00"),
        # SMPTE ST 12-1: of 29.97, numbers 00 and 01 are left out but every tenth minute.
        ("00:00:59;29", 1, Fraction(30000, 1001), "00:01:00;02"),
        ("00:09:59;29", 1, Fraction(30000, 1001), "00:10:00;00"),
        ("00:00:00;00", 17982, Fraction(30000, 1001), "00:10:00;00"),
        ("00:00:00;00", 107892, Fraction(30000, 1001), "01:00:00;00"),
        ("00:01:00;02", 1798, Fraction(30000, 1001), "00:02:00;02"),
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
        ("00:00:59:29", 1, Fraction(30000, 1001), "00:01:00:00"),
        ("no timecode", 5, 25, "no timecode"),
    ],
)
def test_a_timecode_counts_on_and_drops_numbers_where_it_did_before(
    timecode: str, frames: int, rate: Fraction, later: str
) -> None:
    assert timecode_at(timecode, frames, Fraction(rate)) == later


def test_chapters_outside_a_stretch_are_left_out() -> None:
    tick = Fraction(1, 10)
    chapters = [{"id": n, "start": 10 * n, "end": 10 * n + 10, "time_base": tick} for n in range(5)]
    kept = chapters_in(chapters, Fraction(2), Fraction(3))
    assert kept == [{"id": 2, "start": 0, "end": 10, "time_base": tick}]


def test_once_colors_a_range_and_refuses_photos_for_it(tmp_path: Path, model: Path) -> None:
    film, photo = write_film(tmp_path / "film.mp4", 30), write_photo(tmp_path / "photo.png")
    done = once(film, photo, "--range", "0.4:0.8", "--model", model)
    assert done.returncode == 1 and "found a photo, expected a film" in done.stderr.replace(
        "\n", ""
    )
    assert len(decode(tmp_path / "film.color.mp4")) == 10
    assert once(film, "--range", "2", "--model", model).returncode == 78
    said = once(film, "--range", "0.4:0.8", "--dry-run", "--overwrite", "--model", model).stdout
    assert "only what is shown from 0.4 s to 0.8 s is wanted of it" in said
