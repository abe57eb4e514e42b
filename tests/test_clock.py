"""Recordings that are joined end to end, so that their clock starts anew or jumps."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest
from films import (
    EXACT,
    color,
    color_and_report,
    luma_differences,
    make_film,
    pictures,
    sound,
    times,
)

from colordaemon.film.colorize import plan_film
from colordaemon.media.inventory import remarks


def joined(tmp_path: Path, suffix: str, starts: tuple[str, ...], codec: str = "mpeg2video") -> Path:
    """Parts of 20 and then 15 frames with sound, whose clocks start at these seconds."""
    data = b""
    for number, start in enumerate(starts):
        part = make_film(
            tmp_path / f"part{number}.{suffix}",
            pictures(15 if number else 20, shot_frames=20),
            codec=codec,
            time_base=Fraction(1, 25),
            extras=[sound("mp2", 0.6 if number else 0.8)],
            container_options={"output_ts_offset": start},
        )
        data += part.read_bytes()
    path = tmp_path / f"tape.{suffix}"
    path.write_bytes(data)
    return path


def test_a_picture_that_is_cut_at_a_join_is_counted(tmp_path: Path) -> None:
    whole = joined(tmp_path, "ts", ("90", "5"), codec="libx264")
    first, second = ((tmp_path / f"part{number}.ts").read_bytes() for number in range(2))
    video = [at for at in range(0, len(first), 188) if first[at + 1 : at + 3] == b"\1\0"]
    whole.write_bytes(first[: video[-6]] + second)
    report = color_and_report(whole)[1]
    assert (report.frames, report.damaged) == (35, 1)


@pytest.mark.parametrize("suffix", ["vob", "ts"])
@pytest.mark.parametrize("starts", [("5", "5"), ("5", "1"), ("5", "90"), ("90", "5", "5")])
def test_everything_goes_on_where_a_clock_jumps(
    tmp_path: Path, suffix: str, starts: tuple[str, ...]
) -> None:
    source = joined(tmp_path, suffix, starts)
    done, report = color_and_report(source)
    frames = 20 + 15 * (len(starts) - 1)
    assert (report.frames, report.jumps, report.damaged) == (frames, len(starts) - 1, 0)
    shown = times(done)
    steps = [after - before for before, after in pairwise(shown)]
    # Sound stays with its pictures, so that a join may be a little off the beat.
    assert all(Fraction(1, 50) < step < Fraction(1, 10) for step in steps)
    assert luma_differences(source, done) == [0] * frames
    heard = times(done, 1)
    # Packets of MP2 last 24 ms; at a join the sound begins and ends a little beside the picture.
    gaps = [after - before for before, after in pairwise(heard)]
    assert max(gaps) < Fraction(1, 5)
    assert abs((heard[-1] - heard[0]) - (shown[-1] - shown[0])) < Fraction(1, 5)


def test_a_program_stream_whose_pictures_have_no_times_begins_with_its_sound(
    tmp_path: Path,
) -> None:
    source = joined(tmp_path, "vob", ("5",))
    data = bytearray(source.read_bytes())
    start = 0
    while (start := data.find(b"\0\0\1\xe0", start)) >= 0:
        if data[start + 6] >> 6 == 2:  # the head of a packet of pictures
            data[start + 7] &= 0x3F
            length = data[start + 8]
            data[start + 9 : start + 9 + length] = b"\xff" * length
        start += 4
    source.write_bytes(data)
    done, report = color_and_report(source)
    assert (report.frames, report.retimed) == (20, 20)
    assert times(done) == [Fraction(number, 25) for number in range(20)]
    assert luma_differences(source, done) == [0] * 20


def test_a_recording_in_one_piece_has_no_jumps(tmp_path: Path) -> None:
    source = joined(tmp_path, "ts", ("5",))
    assert color_and_report(source)[1].jumps == 0


@pytest.mark.parametrize("timecode", ["", "10:20:30:12"])
def test_a_timecode_of_groups_of_pictures_becomes_the_containers(
    tmp_path: Path, timecode: str
) -> None:
    source = make_film(
        tmp_path / "film.mpg", 6, codec="mpeg2video", time_base=Fraction(1, 25),
        options={"gop_timecode": timecode} if timecode else {}, extras=[sound("mp2")],
    )  # fmt: skip
    told = remarks(plan_film(source, EXACT).inventory)
    assert told == []  # neither of an empty timecode nor of an empty pan and scan
    with av.open(str(color(source))) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert found.get("timecode", "") == timecode
