"""A film that goes on in its middle is read from there, and comes out as if never interrupted."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from av.video.frame import VideoFrame
from films import (
    EXACT,
    SIZE,
    decode,
    durations,
    luma_of,
    make_film,
    picture_of,
    pictures,
    short_segments,
    sound,
    times,
)
from test_bad_films import corrupt

from colordaemon.errors import MediaError
from colordaemon.film.colorize import FilmJob, FilmReport, color_film, plan_film
from colordaemon.media import decode as decoding
from colordaemon.media.decode import FilmReader
from colordaemon.media.demux import EntryPoint
from colordaemon.media.probe import probe_film
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet

FRAMES, SHOT = 120, 30  # a cut every 1.2 s
SMOOTHED = EXACT.model_copy(update={"smoothing": "ema"})  # remembers, and costs little
SETTINGS = short_segments(SMOOTHED, 0.8)  # so the sixth begins ten frames behind a cut
FROM_ITS_BEGINNING = "reading it from its beginning"
B_FRAMES = {"qp": "20", "bf": "3", "b-adapt": "0", "g": "12"}
OPEN_GOP = B_FRAMES | {"x264-params": "open-gop=1"}
MPEG2 = {"g": "12", "bf": "2"}
UNEVEN = [40 * number + number * 37 % 23 for number in range(FRAMES)]
FILM_RATE = Fraction(1, 25)


@pytest.fixture
def colorizer(tiny_model: ColorNet) -> Colorizer:
    return Colorizer(tiny_model, torch.device("cpu"), torch.float32)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[VideoFrame]:
    """All pictures that any reader has decoded since this list was cleared."""
    found: list[VideoFrame] = []

    def noted(pictures: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        for picture in pictures:
            found.append(picture)
            yield picture

    in_order = decoding.in_order
    monkeypatch.setattr(
        decoding, "in_order", lambda pictures, *rest: in_order(noted(pictures), *rest)
    )
    return found


@dataclass
class Film:
    """A film that was colored once, and what that left behind."""

    job: FilmJob
    work: Path
    done: Path
    report: FilmReport
    colorizer: Colorizer

    def resume(self, kept: int) -> tuple[Path, FilmReport]:
        """Color it again, with only so many segments of the first call."""
        record = self.work / "segments.jsonl"
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(lines[: 1 + kept]))
        done = self.done.with_name("resumed")
        report = color_film(self.job, done, self.colorizer, work=self.work)
        assert report.resumed == kept < report.segments
        return done, replace(report, resumed=0)


@pytest.fixture
def colored(
    colorizer: Colorizer, decoded: list[VideoFrame], caplog: pytest.LogCaptureFixture
) -> Callable[[Path], Film]:
    def colored(source: Path, **changes: Any) -> Film:
        job = plan_film(source, SETTINGS.model_copy(update=changes))
        work, done = source.with_name("work"), source.with_name("whole")
        report = color_film(job, done, colorizer, work=work)
        decoded.clear()
        caplog.set_level(logging.INFO)
        return Film(job, work, done, report, colorizer)

    return colored


def pictures_of(path: Path) -> list[list[bytes]]:
    return [[bytes(plane) for plane in frame.planes] for frame in decode(path)]


def assert_same(film: Film, kept: int) -> None:
    done, report = film.resume(kept)
    assert report == film.report
    assert times(done) == times(film.done)
    assert durations(done) == durations(film.done)
    assert pictures_of(done) == pictures_of(film.done)


FILMS: dict[str, dict[str, Any]] = {
    "closed.mp4": {"options": B_FRAMES},
    "open.mp4": {"options": OPEN_GOP},
    "refresh.mp4": {"options": {"qp": "20", "bf": "0", "g": "12", "intra-refresh": "1"}},
    "closed.ts": {"options": B_FRAMES},
    "open.ts": {"options": OPEN_GOP},
    "mpeg2.ts": {"codec": "mpeg2video", "time_base": FILM_RATE, "options": MPEG2},
    "mpeg2.vob": {"codec": "mpeg2video", "time_base": FILM_RATE, "options": MPEG2},
    "disordered.avi": {"time_base": FILM_RATE, "options": B_FRAMES},
    "mpeg4.avi": {"codec": "mpeg4", "time_base": FILM_RATE, "options": {"g": "12"}},
    "uneven.mkv": {"options": B_FRAMES, "pts": UNEVEN},
    "ffv1.mkv": {"codec": "ffv1"},
    "mjpeg.avi": {"codec": "mjpeg", "time_base": FILM_RATE, "pix_fmt": "yuvj420p"},
}


@pytest.mark.parametrize("name", FILMS)
def test_a_film_is_read_from_its_middle_and_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path,
    name: str,
    colored: Callable[..., Film],
    decoded: list[VideoFrame],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pix_fmt = FILMS[name].get("pix_fmt", "yuv420p")
    images = pictures(FRAMES, pix_fmt=pix_fmt, shot_frames=SHOT)
    film = colored(make_film(tmp_path / name, images, **FILMS[name]))
    assert_same(film, kept=5)
    assert FROM_ITS_BEGINNING not in caplog.text
    assert len(decoded) < 0.7 * FRAMES


@pytest.fixture
def film(tmp_path: Path, colored: Callable[..., Film]) -> Film:
    images = pictures(FRAMES, shot_frames=SHOT)
    return colored(make_film(tmp_path / "film.mp4", images, options=B_FRAMES))


def test_a_segment_may_begin_with_a_cut(
    tmp_path: Path,
    colored: Callable[..., Film],
    decoded: list[VideoFrame],
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = pictures(FRAMES, shot_frames=SHOT)
    source = make_film(tmp_path / "film.mkv", images, options=B_FRAMES)
    film = colored(source, segment_seconds=10.0, smoothing="motion")
    edge = json.loads((film.work / "segments.jsonl").read_text().splitlines()[1])["next"]
    assert edge["pts"] == edge["shot_pts"] == edge["warm_pts"] == 40 * 2 * SHOT
    assert_same(film, kept=1)
    assert FROM_ITS_BEGINNING not in caplog.text
    assert len(decoded) < FRAMES


@pytest.mark.parametrize("changed", ["before_crc", "shot_crc", "shot_pts"])
def test_a_film_that_looks_different_behind_a_search_is_read_from_its_beginning(
    film: Film, changed: str, decoded: list[VideoFrame], caplog: pytest.LogCaptureFixture
) -> None:
    record = film.work / "segments.jsonl"
    lines = record.read_text().splitlines()
    values = json.loads(lines[5])
    values["next"][changed] += 1
    record.write_text("\n".join([*lines[:5], json.dumps(values), *lines[6:]]) + "\n")
    assert_same(film, kept=5)
    assert len(decoded) > FRAMES
    assert caplog.text.count(FROM_ITS_BEGINNING) == 1


def test_a_film_without_a_keyframe_in_its_middle_is_read_from_its_beginning(
    tmp_path: Path,
    colored: Callable[..., Film],
    decoded: list[VideoFrame],
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = B_FRAMES | {"g": "1000", "sc_threshold": "0"}
    images = pictures(FRAMES, shot_frames=SHOT)
    assert_same(colored(make_film(tmp_path / "film.mkv", images, options=options)), kept=5)
    assert len(decoded) == FRAMES
    assert caplog.text.count(FROM_ITS_BEGINNING) == 1


def still_scenes(folder: Path) -> Path:
    """Frames so small that many of them share a time stamp, as in no real program stream; and all
    frames of a shot are the same one, so that their checksums are right at any time."""
    images = (picture_of(luma_of(0, SIZE, shot=number // SHOT)) for number in range(FRAMES))
    options = {"g": "12", "bf": "2"}
    path = folder / "film.mpg"
    return make_film(path, images, codec="mpeg1video", time_base=FILM_RATE, options=options)


def test_times_that_are_wrong_behind_a_search_are_noticed(tmp_path: Path) -> None:
    info = probe_film(still_scenes(tmp_path))
    with FilmReader(info) as reader:
        whole = [(frame.pts, frame.luma_crc(), replace(reader.damage)) for frame in reader]
    noticed = 0
    for number in range(2 * SHOT, FRAMES, SHOT):  # the second shot is too near the beginning
        before, (pts, _, damage) = whole[number - 1 : number + 1]
        with FilmReader(info, entry=EntryPoint(pts, *before[:2], pts, damage)) as reader:
            assert reader.sought
            try:
                found = [(frame.pts, frame.luma_crc(), replace(reader.damage)) for frame in reader]
            except MediaError as error:
                assert "has changed" in str(error)
                noticed += 1
            else:
                assert found == whole[number:]
    assert noticed


def test_times_that_are_wrong_behind_a_search_do_not_get_into_the_film(
    tmp_path: Path, colored: Callable[..., Film], caplog: pytest.LogCaptureFixture
) -> None:
    film = colored(still_scenes(tmp_path))
    assert_same(film, kept=5)
    assert f"has changed; {FROM_ITS_BEGINNING}" in caplog.text


def test_a_film_that_is_read_twice_is_entered_twice(
    tmp_path: Path,
    colored: Callable[..., Film],
    decoded: list[VideoFrame],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("colordaemon.film.pipeline.HELD_BYTES", 0)
    images = pictures(FRAMES, shot_frames=SHOT)
    source = make_film(tmp_path / "film.mp4", images, options=B_FRAMES)
    assert_same(colored(source, smoothing="motion", stride="auto"), kept=5)
    assert FRAMES / 2 < len(decoded) < 1.4 * FRAMES  # twice a part of it


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_damage_is_counted_as_if_the_film_had_been_read_from_its_beginning(
    tmp_path: Path, colored: Callable[..., Film], suffix: str, decoded: list[VideoFrame]
) -> None:
    codec = "ffv1" if suffix == "mkv" else "libx264"
    images = pictures(FRAMES, shot_frames=SHOT)
    source = make_film(tmp_path / f"film.{suffix}", images, codec=codec, options={"g": "1"})
    broken = [5, 6, 45, 70, 93, 97, 110, 111, 118]  # before, on the way to, and behind the entry
    film = colored(corrupt(source, broken), damaged_percent=10.0)
    assert film.report.damaged == len(broken)
    for kept in (4, 5):
        assert_same(film, kept)
        assert 0 < len(decoded) < FRAMES
        decoded.clear()


def test_too_much_damage_is_refused_wherever_the_film_was_entered(
    tmp_path: Path, colorizer: Colorizer
) -> None:
    images = pictures(FRAMES, shot_frames=SHOT)
    source = make_film(tmp_path / "film.mkv", images, codec="ffv1", options={"g": "1"})
    job = plan_film(corrupt(source, [*range(3, 13)]), SETTINGS)
    for _ in range(2):
        with pytest.raises(MediaError, match=r"10 of 120 video packets do not decode"):
            color_film(job, tmp_path / "done", colorizer, work=tmp_path / "work")


def test_sound_that_lies_before_the_entry_and_lasts_longer_is_not_missed(
    tmp_path: Path, colored: Callable[..., Film]
) -> None:
    path = tmp_path / "film.mkv"
    images = pictures(FRAMES, shot_frames=SHOT)
    film = colored(make_film(path, images, options=B_FRAMES, extras=[sound(seconds=8.0)]))
    assert film.job.source.container_seconds == pytest.approx(8.0, abs=0.1)
    assert_same(film, kept=5)
