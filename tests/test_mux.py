"""What comes out beside the film: streams, metadata, chapters, timecode, and in which container."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.container import OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream
from av.video.stream import VideoStream
from films import (
    ARCHIVE,
    EXACT,
    SIZE,
    attachment,
    color,
    color_and_report,
    decode,
    luma_differences,
    make_film,
    packets,
    pictures,
    sound,
    still,
    subtitles,
    times,
)

from colordaemon.config import FilmSettings
from colordaemon.errors import MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media.probe import probe_film

Streams = list[tuple[str, dict[str, str], int]]


def streams(path: Path) -> Streams:
    """Type, language and title, disposition of every stream."""
    with av.open(str(path)) as container:
        return [
            (
                stream.type,
                {
                    k.lower(): v
                    for k, v in stream.metadata.items()
                    if k.lower() in ("language", "title")
                },
                int(stream.disposition),
            )
            for stream in container.streams
        ]


def without_adts(data: bytes) -> bytes:
    """AAC without the header that a transport stream repeats in every packet."""
    return data[7:] if data[:2] == b"\xff\xf1" else data


def metadata(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def test_matroska_keeps_every_stream_bit_for_bit(tmp_path: Path) -> None:
    extras = [
        sound("aac", language="ger", title="Ton"),
        sound("flac", language="eng", title="Commentary"),
        subtitles(language="fre", title="Forced"),
        still(cover=False),
        attachment(),
    ]
    source = make_film(tmp_path / "film.mkv", 5, extras=extras)
    done = color(source)
    assert streams(done) == streams(source)
    assert [kind for kind, _, _ in streams(done)].count("audio") == 2
    for index in (1, 2, 3, 4):
        assert packets(done, index) == packets(source, index) != []
        assert times(done, index) == times(source, index)
    with av.open(str(source)) as before, av.open(str(done)) as after:
        assert isinstance(before.streams[5], AttachmentStream)
        assert isinstance(after.streams[5], AttachmentStream)
        assert after.streams[5].data == before.streams[5].data == bytes(range(256))
        assert after.streams[5].name == before.streams[5].name == "font.ttf"


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_mp4_and_mov_keep_every_stream_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    extras = [sound("aac", language="ger"), subtitles("mov_text", language="fre")]
    source = make_film(tmp_path / f"film.{suffix}", 5, extras=extras)
    done = color(source)
    assert done.suffix == source.suffix
    assert streams(done) == streams(source)
    assert packets(done, 1) == packets(source, 1) != []
    assert times(done, 1) == times(source, 1)
    lines = [[*zip(packets(path, 2), times(path, 2), strict=True)] for path in (source, done)]
    # FFmpeg ends every line with an empty packet, though the copied ones stand there already.
    kept, found = ([line for line in some if line[0] != bytes(2)] for some in lines)
    assert kept == found
    assert len(found) == 2


@pytest.mark.parametrize("suffix", ["mp4", "m4v"])
def test_cover_art_is_neither_colored_nor_lost(tmp_path: Path, suffix: str) -> None:
    source = make_film(tmp_path / "film.mp4", 3, extras=[still(cover=True)])
    source = source.rename(tmp_path / f"film.{suffix}")
    done = color(source)
    assert done.suffix == source.suffix
    assert streams(done) == streams(source)
    assert packets(done, 1) == packets(source, 1)
    assert luma_differences(source, done) == [0] * 3


def test_dispositions_are_kept(tmp_path: Path) -> None:
    wanted = av.stream.Disposition.forced | av.stream.Disposition.hearing_impaired

    def forced(container: av.container.OutputContainer) -> list[av.Packet[Any]]:
        found = subtitles()(container)
        container.streams[1].disposition = wanted
        return list(found)

    source = make_film(tmp_path / "film.mkv", 3, extras=[forced])
    assert streams(color(source))[1][2] & int(wanted) == int(wanted)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_chapters_are_kept(tmp_path: Path, suffix: str) -> None:
    chapters = [
        {"id": n, "start": 100 * n, "end": 100 * n + 100, "time_base": Fraction(1, 1000),
         "metadata": {"title": f"Part {n}"}}
        for n in (0, 1)
    ]  # fmt: skip

    def chaptered(container: av.container.OutputContainer) -> list[av.Packet[Any]]:
        container.set_chapters(chapters)  # type: ignore[arg-type]
        return []

    source = make_film(tmp_path / f"film.{suffix}", 5, extras=[chaptered])
    with av.open(str(source)) as before, av.open(str(color(source))) as after:
        found = [
            [(c["start"] * tick, c["end"] * tick, c["metadata"])
             for c in container.chapters() if (tick := c["time_base"])]
            for container in (before, after)
        ]  # fmt: skip
    assert found[0] == found[1]
    assert len(found[1]) == 2


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_metadata_is_kept_and_says_that_colors_are_synthetic(tmp_path: Path, suffix: str) -> None:
    tags = {"title": "Rain", "comment": "Reel 2"}
    source = make_film(tmp_path / f"film.{suffix}", 2, metadata=tags)
    found = {key.lower(): value for key, value in metadata(color(source)).items()}
    assert found["title"] == "Rain"
    assert found["comment"].startswith("Reel 2; Colors are synthetic, made by colordaemon")


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_timecode_comes_out_as_a_timecode(tmp_path: Path, suffix: str) -> None:
    timecode = {"timecode": "01:02:03:04"}
    source = make_film(tmp_path / f"film.{suffix}", 4, metadata=timecode, extras=[sound()])
    assert "data" in [kind for kind, _, _ in streams(source)]
    done = color(source)
    assert sorted(kind for kind, _, _ in streams(done)) == ["audio", "data", "video"]
    with av.open(str(done)) as container:
        assert {s.metadata.get("timecode") for s in container.streams if s.type == "data"} == {
            "01:02:03:04"
        }
    assert packets(done, 1) == packets(source, 1)


def test_a_timecode_goes_along_into_matroska(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mov", 2, metadata={"timecode": "01:02:03:04"})
    found = metadata(color(source, ARCHIVE))
    assert {key.lower(): value for key, value in found.items()}["timecode"] == "01:02:03:04"


def test_ffv1_goes_into_matroska(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 3, extras=[sound()])
    job = plan_film(source, ARCHIVE)
    assert job.target.suffix == ".mkv"
    assert "writing Matroska instead of .mp4" in job.remarks
    done = color(source, ARCHIVE)
    assert packets(done, 1) == packets(source, 1)


def test_matroska_takes_over_where_webm_cannot_hold_the_encoding(tmp_path: Path) -> None:
    options = {"cpu-used": "8", "lossless": "1"}
    source = make_film(
        tmp_path / "film.webm", 3, codec="libvpx-vp9", options=options, extras=[sound("libopus")]
    )
    job = plan_film(source, EXACT)
    assert job.remarks == ("writing Matroska, because webm cannot hold h264",)
    done = color(source)
    assert luma_differences(source, done) == [0] * 3
    assert packets(done, 1) == packets(source, 1)


def test_quicktime_takes_over_for_dnxhr(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 2, size=(256, 128), extras=[sound()])
    job = plan_film(source, EXACT.model_copy(update={"codec": "dnxhr", "encoder_options": {}}))
    assert job.target.suffix == ".mov"
    assert "writing QuickTime instead of .mkv" in job.remarks


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_prores_goes_into_quicktime_unless_subtitles_would_be_lost(
    tmp_path: Path, suffix: str
) -> None:
    settings = FilmSettings(codec="prores")
    source = make_film(tmp_path / f"film.{suffix}", 2, extras=[sound()])
    assert plan_film(source, settings).target.suffix == ".mov"
    with_text = make_film(tmp_path / "text.mkv", 2, extras=[subtitles()])
    assert plan_film(with_text, settings).target.suffix == ".mkv"


@pytest.mark.parametrize(
    ("suffix", "codec", "audio"),
    [("avi", "mpeg4", "mp3"), ("ts", "libx264", "aac"), ("mpg", "mpeg2video", "mp2"),
     ("vob", "mpeg2video", "ac3"), ("flv", "libx264", "aac")],
)  # fmt: skip
def test_other_containers_become_matroska(
    tmp_path: Path, suffix: str, codec: str, audio: str
) -> None:
    base = Fraction(1, 25) if codec in ("mpeg4", "mpeg2video") else Fraction(1, 1000)
    late = {"output_ts_offset": "10"} if suffix in ("ts", "mpg", "vob") else {}
    source = make_film(
        tmp_path / f"film.{suffix}", 8, codec=codec, time_base=base, extras=[sound(audio)],
        container_options=late,
    )  # fmt: skip
    done, report = color_and_report(source)
    assert done.suffix == ".mkv"
    assert report.frames == len(decode(source))
    assert luma_differences(source, done) == [0] * report.frames
    assert packets(done, 1) == [without_adts(data) for data in packets(source, 1)] != []
    before = [times(source, index)[0] for index in (0, 1)]
    after = [times(done, index)[0] for index in (0, 1)]
    assert abs((after[1] - after[0]) - (before[1] - before[0])) <= Fraction(2, 1000)
    if late:
        assert min(before) > 9
        assert min(after) <= Fraction(1, 1000)
    moved = [now - then for then, now in zip(times(source), times(done), strict=True)]
    assert max(moved) - min(moved) <= Fraction(1, 1000)


def avi_of_type_1(frames: list[bytes], size: tuple[int, int]) -> bytes:
    """An AVI file with one stream, that of whole DV frames, sound and all."""

    def chunk(kind: bytes, *parts: bytes) -> bytes:
        data = b"".join(parts)
        return kind + struct.pack("<I", len(data)) + data

    count, length = len(frames), len(frames[0])
    main = struct.pack("<14I", 40000, 0, 0, 0, count, 0, 1, length, *size, 0, 0, 0, 0)
    header = struct.pack("<8s3I6I2H4H", b"iavsdvsd", 0, 0, 0, 1, 25, 0, count, length, 0, 0, 0,
                         0, 0, *size)  # fmt: skip
    stream = chunk(b"LIST", b"strl", chunk(b"strh", header), chunk(b"strf", bytes(32)))
    return chunk(
        b"RIFF",
        b"AVI ",
        chunk(b"LIST", b"hdrl", chunk(b"avih", main), stream),
        chunk(b"LIST", b"movi", *(chunk(b"00__", frame) for frame in frames)),
    )


@pytest.mark.parametrize("container", ["dv", "avi"])
def test_a_dv_tape_keeps_its_rate_its_fields_and_the_shape_of_its_pixels(
    tmp_path: Path, container: str
) -> None:
    size, source = (720, 576), tmp_path / f"film.{container}"
    tape = make_film(
        tmp_path / "tape.avi", 2, codec="dvvideo", size=size, time_base=Fraction(1, 25),
        sample_aspect_ratio=Fraction(64, 45),
    )  # fmt: skip
    frames = packets(tape, 0)
    source.write_bytes(b"".join(frames) if container == "dv" else avi_of_type_1(frames, size))
    before = probe_film(source)
    assert (before.container, before.field_order) == (container, "bottom first")
    assert before.rate == 25
    done = color(source)
    after = probe_film(done)
    for name in ("width", "height", "field_order", "sample_aspect"):
        assert getattr(after, name) == getattr(before, name)
    assert luma_differences(source, done) == [0] * 2


def test_sound_from_mp4_keeps_its_times_in_matroska(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", 8, extras=[sound(seconds=0.4)])
    assert times(source, 1)[0] < 0  # AAC begins with a packet that is not heard
    done = color(source, ARCHIVE)
    for index in (0, 1):
        pairs = zip(times(source, index), times(done, index), strict=True)
        assert all(abs(before - after) <= Fraction(1, 1000) for before, after in pairs)


def test_a_film_stream_that_is_not_the_first_keeps_its_place(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 4)
    swapped = tmp_path / "swapped.mkv"
    with av.open(str(source)) as film, av.open(str(swapped), "w") as out:
        found = sound()(out)
        copy = out.add_stream_from_template(film.streams.video[0])
        out.start_encoding()
        out.mux(list(found))
        for packet in film.demux():
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    done = color(swapped)
    assert [kind for kind, _, _ in streams(done)] == ["audio", "video"]
    assert luma_differences(swapped, done) == [0] * 4


def test_only_sound_and_a_cover_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        found = [*sound()(container), *still(cover=True)(container)]
        container.start_encoding()
        container.mux(found)
    with pytest.raises(MediaError, match=r"song\.mp4: no video stream"):
        plan_film(path, EXACT)


def second_video(container: OutputContainer) -> Iterator[Packet[Any]]:
    stream = container.add_stream("libx264", rate=25)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
    stream.metadata.update({"timecode": "10:00:00:00", "handler_name": "Time of day"})

    def packets() -> Iterator[Packet[Any]]:
        for number, picture in enumerate(pictures(6)):
            picture.pts = number
            yield from stream.encode(picture)
        yield from stream.encode(None)

    return packets()


@pytest.mark.parametrize("suffix", ["mov", "mp4"])
def test_two_tracks_of_timecode_keep_their_times_and_names(tmp_path: Path, suffix: str) -> None:
    def prepare(stream: VideoStream) -> None:
        stream.metadata["timecode"] = "01:00:00:00"

    source = make_film(tmp_path / f"film.{suffix}", prepare=prepare, extras=[second_video])
    done = color(source)
    said = [
        [
            (s.metadata["timecode"], s.metadata["handler_name"])
            for s in c.streams
            if s.type == "data"
        ]
        for c in (av.open(str(source)), av.open(str(done)))
    ]
    assert said[0] == said[1]
    assert said[1] == [("01:00:00:00", "TimeCodeHandler"), ("10:00:00:00", "Time of day")]
    fates = {e.what: e.fate for e in plan_film(source, ARCHIVE).inventory if e.kind == "timecode"}
    # Matroska says one of each video; both of these have their own.
    assert set(fates.values()) == {"converted"}
