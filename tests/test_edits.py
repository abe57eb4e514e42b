"""What edit lists say: what is shown of a film and heard of its sound, and from when on."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest
from films import ARCHIVE, EXACT, color, luma_differences, make_film, sound, times

from colordaemon.config import FilmSettings
from colordaemon.film.colorize import plan_film
from colordaemon.media import boxes
from colordaemon.media.boxes import Box
from colordaemon.media.inventory import remarks


def cut(path: Path, *edits: tuple[Fraction, Fraction]) -> Path:
    """Give all tracks of an mp4 an edit list: when each edit begins, and how long it is."""
    contents = boxes.read_contents(path)
    assert contents
    clock = struct.unpack_from(">I", contents.moov.only("mvhd").data, 12)[0]
    for track in contents.tracks:
        ticks = struct.unpack_from(">I", track.only("mdia mdhd").data, 12)[0]
        priming = 1024 if track.only("mdia hdlr").data[8:12] == b"soun" else 0
        entries = [
            struct.pack(">IiI", int(length * clock), int(start * ticks) + priming, 1 << 16)
            for start, length in edits
        ]
        elst = struct.pack(">II", 0, len(entries)) + b"".join(entries)
        kept = [child for child in track.children if child.kind != b"edts"]
        edts = Box(b"edts", children=[Box(b"elst", elst)])
        track.children = [kept[0], edts, *kept[1:]]
    boxes.write_contents(path, contents)
    return path


def heard_samples(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


def two_edits(path: Path) -> Path:
    make_film(path, 30, time_base=Fraction(1, 25), extras=[sound("aac", 1.2)])
    return cut(path, (Fraction(1, 5), Fraction(3, 10)), (Fraction(4, 5), Fraction(3, 10)))


def test_sound_that_an_edit_list_cuts_away_does_not_return(tmp_path: Path) -> None:
    source = two_edits(tmp_path / "film.mp4")
    done = color(source)
    assert heard_samples(done) == heard_samples(source) < 0.7 * 48000
    assert luma_differences(source, done) == [0] * len(times(done))


def test_what_an_edit_list_cuts_away_is_named(tmp_path: Path) -> None:
    source = two_edits(tmp_path / "film.mp4")
    told = remarks(plan_film(source, EXACT).inventory)
    assert "0.6 s that an edit list cuts away left out: they are neither shown nor heard" in told
    whole = make_film(tmp_path / "whole.mp4", 30, extras=[sound("aac", 1.2)])
    assert remarks(plan_film(whole, EXACT).inventory) == []


def test_in_matroska_only_the_packet_that_leads_into_an_edit_is_left(tmp_path: Path) -> None:
    source = two_edits(tmp_path / "film.mp4")
    done = color(source, ARCHIVE)
    assert done.suffix == ".mkv"
    assert heard_samples(source) < heard_samples(done) <= heard_samples(source) + 2 * 1024


@pytest.mark.parametrize(
    ("start", "time_base"), [(2002, Fraction(1, 30000)), (1001, Fraction(1, 24000))]
)
def test_a_film_that_starts_between_two_milliseconds_starts_there_again(
    tmp_path: Path, start: int, time_base: Fraction
) -> None:
    source = make_film(
        tmp_path / "film.mp4",
        pts=[start + 1001 * number for number in range(6)],
        time_base=time_base,
        extras=[sound("aac", rate=44100)],
        container_options={"movie_timescale": str(time_base.denominator)},
    )
    assert times(source)[0] == start * time_base
    done = color(source)
    assert times(done) == times(source)
    assert times(done, 1) == times(source, 1)


@pytest.mark.parametrize("settings", [EXACT, ARCHIVE])
def test_opus_loses_no_sample_at_either_end(tmp_path: Path, settings: FilmSettings) -> None:
    source = make_film(tmp_path / "film.mkv", extras=[sound("libopus", 0.25)])
    assert heard_samples(color(source, settings)) == heard_samples(source)
