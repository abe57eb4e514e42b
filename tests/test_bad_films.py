"""Files that are damaged, foreign or hostile: one clear error each, and nothing left behind."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import own_threads
from films import (
    ARCHIVE,
    EXACT,
    SIZE,
    color,
    color_and_report,
    decode,
    luma_of,
    make_film,
    picture_of,
    pictures,
    short_segments,
    sound,
    times,
)

from colordaemon.config import FilmSettings
from colordaemon.errors import ConfigError, MediaError
from colordaemon.film.colorize import plan_film


def text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        make_film(path.with_name("other.mp4"), 2)
        path.write_text(content)

    return write


def truncated_mp4(path: Path) -> None:
    options = {"movflags": "faststart"}
    make_film(path, 60, container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_mkv(path: Path) -> None:
    make_film(path.with_suffix(".mkv"), 60).rename(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def headless_mp4(path: Path) -> None:
    make_film(path, 10)
    path.write_bytes(path.read_bytes()[:4000])


def only_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        found = sound()(container)
        container.start_encoding()
        container.mux(list(found))


def changing_size(path: Path) -> None:
    """Two H.264 streams behind each other, as a recorder writes them when the signal changes."""
    sizes = (SIZE, (96, 64))
    parts = [make_film(path.with_suffix(f".{w}.ts"), 4, size=(w, h)) for w, h in sizes]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (text(""), "the file is empty"),
        (text("hello, this is no film\n" * 50), "no film container"),
        (text("ffconcat version 1.0\nfile other.mp4\n"), "no film container"),
        (text("#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"), "no film container"),
        (truncated_mp4, "truncated"),
        (truncated_mkv, "truncated"),
        (headless_mp4, "expected a film"),
        (only_sound, "no video stream, found audio"),
        (changing_size, "the picture changes from 64x48"),
        (lambda path: make_film(path, 0), "film.mp4"),
    ],
    ids=[
        "empty", "text", "ffconcat", "playlist", "truncated mp4", "truncated mkv",
        "mp4 without moov",
        "only sound", "changing size", "no frames",
    ],
)  # fmt: skip
def test_a_bad_film_is_refused_and_leaves_nothing(
    tmp_path: Path, make: Callable[[Path], None], complaint: str
) -> None:
    path = tmp_path / "film.mp4"
    make(path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MediaError, match=complaint) as caught:
        color(path, short_segments(EXACT, 0.2))
    assert str(path) in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert len(own_threads()) == 1


def test_a_missing_film_is_an_error_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"film\.mp4"):
        plan_film(tmp_path / "film.mp4", EXACT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_film_is_an_error_of_the_machine(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", 2)
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"film\.mp4"):
        plan_film(path, EXACT)


def test_a_folder_is_no_film(tmp_path: Path) -> None:
    folder = tmp_path / "film.mp4"
    folder.mkdir()
    with pytest.raises(MediaError, match=r"film\.mp4: found a folder"):
        plan_film(folder, EXACT)


@pytest.mark.parametrize("make", [truncated_mp4, truncated_mkv])
def test_a_truncated_film_is_colored_when_damage_is_accepted(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "film.mp4"
    make(path)
    done, report = color_and_report(path, EXACT.model_copy(update={"damaged_percent": 100.0}))
    assert 10 < report.frames < 60
    assert len(decode(done)) == report.frames


def corrupt(path: Path, broken: list[int]) -> Path:
    """Break some of the film's packets, in a container that guards none of them."""
    out = path.with_name(f"broken{path.suffix}")
    with av.open(str(path)) as source, av.open(str(out), "w") as container:
        copy = container.add_stream_from_template(source.streams.video[0])
        number = 0
        for packet in source.demux():
            if not packet.size:
                continue
            if number in broken:
                data = np.frombuffer(bytes(packet), np.uint8).copy()
                data[: len(data) * 2 // 3] = 0x55
                spoiled = av.Packet(data.tobytes())
                spoiled.pts, spoiled.dts, spoiled.duration = packet.pts, packet.dts, packet.duration
                spoiled.time_base, spoiled.is_keyframe = packet.time_base, packet.is_keyframe
                packet = spoiled
            packet.stream = copy
            container.mux(packet)
            number += 1
    return out


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_few_damaged_packets_are_passed_over_and_counted(tmp_path: Path, suffix: str) -> None:
    codec = "ffv1" if suffix == "mkv" else "libx264"
    source = make_film(tmp_path / f"film.{suffix}", 40, codec=codec, options={"g": "1"})
    broken = corrupt(source, [5, 6, 20])
    done, report = color_and_report(broken, short_segments(ARCHIVE, 0.3))
    assert report.damaged == 3
    found = times(done)
    assert len(found) == report.frames >= 37
    assert set(found) <= set(times(source))


def test_much_damage_is_refused_unless_accepted(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 60, options={"g": "1"})
    broken = corrupt(source, [*range(5, 60, 2)])
    with pytest.raises(MediaError, match=r"broken\.mp4: 2\d of 60 video packets do not"):
        color(broken)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mp4", "film.mp4"]
    accepted = EXACT.model_copy(update={"damaged_percent": 100.0})
    _, report = color_and_report(broken, accepted)
    assert 25 <= report.damaged <= 28
    assert report.frames >= 32


def test_an_unknown_encoder_option_is_the_operators_mistake(tmp_path: Path) -> None:
    path = make_film(tmp_path / "film.mp4", 2)
    with pytest.raises(ConfigError, match="no option nonsense"):
        color(path, FilmSettings(encoder_options={"nonsense": "1"}))


def test_a_film_whose_pictures_are_all_broken_is_refused(tmp_path: Path) -> None:
    broken = corrupt(make_film(tmp_path / "film.mkv", 5, codec="ffv1"), [0, 1, 2, 3, 4])
    with pytest.raises(MediaError, match=r"broken\.mkv"):
        color(broken)


def test_tiny_pictures_are_colored(tmp_path: Path) -> None:
    images = [picture_of(luma_of(0, (2, 2)))]
    done = color(make_film(tmp_path / "film.mkv", images, size=(2, 2), codec="ffv1"), ARCHIVE)
    assert (decode(done)[0].width, decode(done)[0].height) == (2, 2)


def test_a_full_folder_of_work_is_gone_after_success(tmp_path: Path) -> None:
    color(make_film(tmp_path / "film.mp4", pictures(4)), short_segments(EXACT, 0.05))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.color.mp4", "film.mp4"]


def with_broken_sound(path: Path, every: int) -> Path:
    """A recording with bad reception: the headers of so many packets of AAC are damaged."""
    make_film(path, 50, extras=[sound("aac", 2.0)])
    data, at, count = bytearray(path.read_bytes()), 0, 0
    while (at := data.find(b"\xff\xf1\x4c", at)) >= 0:
        data[at] = 0 if count % every == every - 1 else 0xFF
        at, count = at + 3, count + 1
    assert count > every
    path.write_bytes(data)
    return path


def test_damaged_sound_is_left_out_aloud_up_to_a_limit(tmp_path: Path) -> None:
    path = with_broken_sound(tmp_path / "film.ts", 2)
    with pytest.raises(MediaError, match="packets of sound or subtitles are too damaged"):
        color(path)
    assert [left.name for left in tmp_path.iterdir()] == [path.name]
    _, report = color_and_report(path, EXACT.model_copy(update={"damaged_percent": 100.0}))
    assert any("of sound or subtitles" in remark for remark in report.remarks())


@pytest.mark.parametrize(
    ("suffix", "codec", "audio"),
    [("mkv", "libx264", "aac"), ("mp4", "libx264", "aac"), ("ts", "libx264", "aac"),
     ("flv", "libx264", "aac"), ("mpg", "mpeg2video", "mp2"), ("avi", "mpeg4", "mp3")],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(4))
def test_scratches_anywhere_give_a_film_or_one_clear_error(
    tmp_path: Path, suffix: str, codec: str, audio: str, seed: int
) -> None:
    base = Fraction(1, 25) if codec in ("mpeg4", "mpeg2video") else Fraction(1, 1000)
    path = tmp_path / f"film.{suffix}"
    make_film(path, 25, codec=codec, time_base=base, extras=[sound(audio, 1.0)])
    chance = random.Random(seed)  # noqa: S311  (damage, not a secret)
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 3, 20])):
        length = chance.choice([1, 50, 1000])
        start = chance.randrange(300, len(data) - length)
        data[start : start + length] = chance.randbytes(length)
    path.write_bytes(data)
    accepting = EXACT.model_copy(update={"damaged_percent": 100.0})
    try:
        done, report = color_and_report(path, accepting, force=True)
    except MediaError as error:
        assert str(path) in str(error)
        assert [left.name for left in tmp_path.iterdir()] == [path.name]
    else:
        assert len(times(done)) == report.frames
