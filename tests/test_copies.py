"""Streams that PyAV does not copy by itself: without a decoder, or in old codecs."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from films import (
    EXACT,
    Extra,
    color,
    color_and_report,
    luma_differences,
    make_film,
    packets,
    sound,
    subtitles,
    times,
)

from colordaemon.errors import MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media.boxes import read_contents, sample_entries, write_contents
from colordaemon.media.ebml import CODEC_ID, read_header
from colordaemon.media.holdings import as_found


def foreign_track(path: Path, kind: bytes, box: bytes) -> Path:
    """Rename the codec of the last track of an mp4 to one that nobody knows."""
    data = bytearray(path.read_bytes())
    start = data.rindex(b"stsd")
    for name in (kind, box):
        place = data.index(name, start)
        data[place : place + 4] = b"apac" if name == kind else b"dapa"
    path.write_bytes(data)
    return path


def teletext() -> Extra:
    def add(container: OutputContainer) -> list[Packet[Any]]:
        stream = container.add_mux_stream("dvb_teletext")
        stream.time_base = Fraction(1, 90000)
        stream.metadata["language"] = "ger"
        made = []
        for number in range(6):
            packet = Packet(b"\x10" + (b"\x02\x2c\xe7\xe4" + b"\x15" * 42) * 3)
            packet.pts = packet.dts = 3600 * number
            packet.time_base, packet.stream = Fraction(1, 90000), stream
            made.append(packet)
        return made

    return add


def decoded(path: Path, number: int = 0) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=number)]
    return np.concatenate([f.T.reshape(-1) if len(f) > 1 else f[0] for f in frames])


def stream_kinds(path: Path) -> list[tuple[str, str | None]]:
    with av.open(str(path)) as container:
        return [
            (s.type, s.codec_context.name if s.codec_context else None) for s in container.streams
        ]


@pytest.mark.parametrize("suffix", ["mov", "mp4"])
def test_sound_in_an_unknown_codec_is_copied_with_its_description(
    tmp_path: Path, suffix: str
) -> None:
    source = make_film(tmp_path / f"film.{suffix}", extras=[sound("aac"), sound("aac")])
    foreign_track(source, b"mp4a", b"esds")
    job = plan_film(source, EXACT)
    assert [str(e) for e in job.inventory][2] == "audio stream 2 (apac) eng kept"
    done = color(source)
    assert packets(done, 2) == packets(source, 2) != []
    assert times(done, 2) == times(source, 2)
    found = [c for path in (source, done) if (c := read_contents(path))]
    entries = [[sample_entries(t) for t in contents.tracks] for contents in found]
    assert entries[1][2] == entries[0][2] and entries[1][2][0][0] == b"apac"
    assert luma_differences(source, done) == [0] * 6


def test_subtitles_in_an_unknown_codec_stay_in_matroska(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", extras=[sound(), subtitles(title="Ruby")])
    data = source.read_bytes()
    assert data.count(b"S_TEXT/UTF8") == 1
    source.write_bytes(data.replace(b"S_TEXT/UTF8", b"S_TEXT/RUBY"))
    done = color(source)
    header = read_header(done)
    assert header.tracks[2].child(CODEC_ID) == b"S_TEXT/RUBY"
    assert packets(done, 2) == packets(source, 2) != []
    assert packets(done, 1) == packets(source, 1)
    with av.open(str(done)) as container:
        assert "COLORDAEMON_ROOM" not in container.metadata
        assert container.streams[2].metadata.get("title") == "Ruby"
        container.seek(0)  # by the index, whose place the header knows
    assert luma_differences(source, done) == [0] * 6


def test_teletext_stays_in_a_transport_stream(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.ts", 6, extras=[teletext()])
    done = color(source)
    assert done.suffix == ".ts"
    assert packets(done, 1) == packets(source, 1) != []
    assert times(done, 1) == times(source, 1)
    assert times(done, 0) == times(source, 0)
    assert luma_differences(source, done) == [0] * 6


def test_a_film_in_an_unknown_codec_is_refused_in_one_line(tmp_path: Path) -> None:
    source = foreign_track(make_film(tmp_path / "film.mp4"), b"avc1", b"avcC")
    with pytest.raises(
        MediaError, match=r"film\.mp4: its video is in a codec that FFmpeg does not"
    ):
        plan_film(source, EXACT)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("avi", "adpcm_ms"), ("avi", "adpcm_ima_wav"), ("wmv", "wmav2"), ("asf", "wmav1")],
)
def test_sound_that_a_wav_file_may_hold_is_copied_into_matroska(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    source = make_film(
        tmp_path / f"film.{suffix}", codec="mpeg4", time_base=Fraction(1, 25),
        extras=[sound(codec, 0.3, bit_rate=96_000)],
    )  # fmt: skip
    done = color(source)
    assert stream_kinds(done)[-1] == stream_kinds(source)[-1] == ("audio", codec)
    assert packets(done, 1) == packets(source, 1) != []
    assert np.array_equal(decoded(done), decoded(source))


@pytest.mark.parametrize(
    ("suffix", "codec", "pcm"),
    [("vob", "pcm_dvd", "pcm_s16le"), ("m2ts", "pcm_bluray", "pcm_s16le")],
)
def test_sound_of_discs_becomes_plain_pcm_sample_for_sample(
    tmp_path: Path, suffix: str, codec: str, pcm: str
) -> None:
    source = make_film(
        tmp_path / f"film.{suffix}", codec="mpeg2video", time_base=Fraction(1, 25),
        extras=[sound(codec, 0.3)],
    )  # fmt: skip
    done = color(source)
    assert stream_kinds(done)[-1] == ("audio", pcm)
    assert np.array_equal(decoded(done), decoded(source))
    before = times(source, 1)[0] - times(source, 0)[0]
    assert abs(times(done, 1)[0] - times(done, 0)[0] - before) <= Fraction(1, 500)
    job = plan_film(source, EXACT)
    assert any(str(e).endswith("converted: to PCM") for e in job.inventory)


def test_text_of_mp4_becomes_srt_in_matroska(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", extras=[subtitles("mov_text")])
    done = color(source, EXACT.model_copy(update={"codec": "ffv1", "encoder_options": {}}))
    assert stream_kinds(done)[-1] == ("subtitle", "srt")
    assert packets(done, 1) == [b"Good evening.", b"It is raining."]


def test_a_film_that_would_lose_its_sound_fails_unless_that_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from colordaemon.media import target

    monkeypatch.setattr(target, "ways_of", lambda stream, *_: iter(()))
    source = make_film(tmp_path / "film.mp4", extras=[sound()])
    with pytest.raises(MediaError, match=r"audio stream 1 \(aac\) eng left out: no container"):
        plan_film(source, EXACT)
    job = plan_film(source, EXACT.model_copy(update={"accept_loss": True}))
    assert [e.fate for e in job.inventory if e.kind == "sound"] == ["left out"]


def mebx(container: OutputContainer) -> list[Packet[Any]]:
    """Two samples of data in mp4's only kind of it."""
    stream = container.add_mux_stream("bin_data")
    stream.time_base = Fraction(1, 1000)
    made = []
    for number in range(2):
        packet = Packet(bytes(range(16)))
        packet.pts = packet.dts = 40 * number
        packet.duration, packet.time_base, packet.stream = 40, Fraction(1, 1000), stream
        made.append(packet)
    return made


def test_timed_metadata_of_phones_is_copied_with_its_description(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", extras=[mebx])
    data = source.read_bytes()
    source.write_bytes(data.replace(b"gpmd", b"mebx"))
    done = color(source)
    contents = [c for path in (source, done) if (c := read_contents(path))]
    described = [sample_entries(c.tracks[1]) for c in contents]
    assert described[0] == described[1] and described[1][0][0] == b"mebx"
    assert packets(done, 1) == packets(source, 1)


def test_every_stream_and_tag_that_ffmpeg_reports_is_in_the_inventory(tmp_path: Path) -> None:
    metadata: dict[str, str] = {"title": "Oma", "artist": "Opa", "comment": "1953"}
    extras: list[Callable[[OutputContainer], Any]] = [sound(), sound("flac"), subtitles()]
    source = make_film(tmp_path / "film.mkv", extras=extras, metadata=metadata)
    inventory = plan_film(source, EXACT).inventory
    listed = " | ".join(entry.what for entry in inventory)
    with av.open(str(source)) as container:
        for stream in container.streams:
            assert f"{stream.type} stream {stream.index} (" in listed
        for key in container.metadata:
            assert key in listed
    assert all(entry.how for entry in inventory if entry.fate != "kept")


def test_tags_of_streams_are_listed_and_looked_for_in_the_finished_film(tmp_path: Path) -> None:
    extras = [sound(title="Orchestra"), subtitles(title="Words")]
    source = make_film(tmp_path / "film.mkv", extras=extras, metadata={"title": "Oma"})
    done, report = color_and_report(source)
    fates = {entry.what: entry.fate for entry in report.inventory}
    assert fates["tag title of stream 1"] == fates["tag title of stream 2"] == "kept"
    info, listed = plan_film(source, EXACT).source, report.inventory
    with av.open(str(source)) as one, av.open(str(done)) as other:
        assert as_found(listed, one, other, "matroska", (0, 1, 2), info) == listed
        poor = av.open(str(make_film(tmp_path / "poor.mkv", metadata={"title": "Oma"})))
        with poor:
            told = as_found(listed, one, poor, "matroska", (0, 1, 2), info)
    lost = [entry.what for entry in told if "not found" in entry.how]
    assert lost == ["tag title of stream 1", "tag title of stream 2"]


def test_boxes_that_nobody_knows_are_listed_as_left_out(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4")
    with source.open("ab") as file:
        file.write(struct.pack(">I4s", 12, b"what") + b"ever")
        file.write(struct.pack(">I4s", 32, b"uuid") + bytes(range(24)))
    fates = {entry.what: entry.fate for entry in plan_film(source, EXACT).inventory}
    assert fates["box what"] == fates["box uuid 0001020304050607"] == "left out"


def test_the_null_filter_still_copies_all_that_describes_a_stream(tmp_path: Path) -> None:
    """The way in which streams are declared that PyAV has no other way for."""
    source = make_film(tmp_path / "film.avi", codec="mpeg4", time_base=Fraction(1, 25),
                       extras=[sound("adpcm_ms")])  # fmt: skip
    with av.open(str(source)) as film, av.open(str(tmp_path / "o.mkv"), "w") as out:
        copy = out.add_mux_stream("subrip")
        BitStreamFilterContext("null", in_stream=film.streams[1], out_stream=copy)
        assert copy.type == "audio"


def test_a_text_of_a_duration_that_no_container_holds_is_refused_in_one_line(
    tmp_path: Path,
) -> None:
    source = make_film(tmp_path / "film.mp4", extras=[sound(), subtitles("mov_text")])
    contents = read_contents(source)
    assert contents
    table = contents.tracks[2].only("mdia minf stbl stts")
    count = int.from_bytes(table.data[4:8], "big")
    entries = [list(struct.unpack_from(">II", table.data, 8 + 8 * n)) for n in range(count)]
    entries[0][1] = 0x9F000050
    packed = b"".join(struct.pack(">II", *entry) for entry in entries)
    table.data = table.data[:8] + packed
    write_contents(source, contents)
    with pytest.raises(MediaError, match="refuses a packet of it"):
        color(source)


def gsm() -> Extra:
    """As WAV files have it: 65 bytes for 320 samples; there is no encoder."""

    def add(container: OutputContainer) -> Iterator[Packet[Any]]:
        body = bytes(range(195))
        head = struct.pack("<HHIIHHHH", 0x31, 1, 8000, 1625, 65, 0, 2, 320)
        parts = ((b"fmt ", head), (b"fact", struct.pack("<I", 960)), (b"data", body))
        chunks = b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in parts)
        wav = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
        source = av.open(io.BytesIO(wav), "r")
        copy = container.add_stream_from_template(source.streams.audio[0])

        def moved() -> Iterator[Packet[Any]]:
            with source:
                for packet in source.demux():
                    packet.stream = copy
                    yield packet

        return (packet for packet in moved() if packet.size)

    return add


def test_sound_in_gsm_is_copied(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.avi", 4, codec="mpeg4", extras=[gsm()])
    done = color(source)
    assert packets(done, 1) == packets(source, 1)
    assert len(packets(source, 1)) == 3
