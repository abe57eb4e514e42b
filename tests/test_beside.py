"""What comes with pictures beside the pixels is carried by the codec, or its loss is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av
import pytest
from films import ARCHIVE, EXACT, color, color_and_report, decode, make_film
from films import luma_differences as differences

from colordaemon.config import FilmSettings
from colordaemon.errors import MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media import encode
from colordaemon.media.captions import t35_of, with_messages
from colordaemon.media.holdings import light_found, side_entries
from colordaemon.media.inventory import Entry
from colordaemon.media.probe import probe_film
from colordaemon.media.side_data import all_side_data, light_of
from colordaemon.media.tint import ExistingColor

DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
HDR: dict[str, Any] = {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1}
HEVC = FilmSettings(codec="hevc", encoder_options={"x265-params": "lossless=1"})
AV1 = FilmSettings(codec="av1", preset="12")


def hdr10(path: Path, params: str = f"master-display={DISPLAY}:max-cll=1000,400") -> Path:
    options = {"x265-params": f"log-level=error:{params}", "preset": "ultrafast"}
    size, pix_fmt = (128, 96), "yuv420p10le"
    return make_film(path, 4, codec="libx265", size=size, pix_fmt=pix_fmt, options=options, **HDR)


def said(path: Path, name: str) -> list[bytes]:
    """The side data of that name of all pictures."""
    return [bytes(s) for f in decode(path) for s in all_side_data(f) if s.type.name == name]


def of_side_data(entries: tuple[Entry, ...]) -> dict[str, str]:
    return {entry.what: entry.fate for entry in entries if entry.kind == "side data"}


@pytest.mark.parametrize("settings", [HEVC, AV1, EXACT])
def test_the_light_of_hdr10_is_carried(tmp_path: Path, settings: FilmSettings) -> None:
    source = hdr10(tmp_path / "film.mkv")
    job = plan_film(source, settings)
    assert of_side_data(job.inventory) == {
        "HDR10 mastering display": "kept",
        "HDR10 content light level": "kept",
    }
    light = light_of(decode(color(source, settings))[0])
    red_green_blue_white = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450)
    # AV1 counts in 1/65536 and in 1/16384 cd/m².
    assert light.display[:8] == pytest.approx(red_green_blue_white, abs=1)
    assert light.display[8:] == pytest.approx((50, 10000000), abs=1)
    assert light.content == (1000, 400)


def test_in_hevc_it_comes_through_to_the_last_digit_with_every_key_frame(tmp_path: Path) -> None:
    source = hdr10(tmp_path / "film.mkv")
    done = color(source, HEVC)
    for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"):
        assert said(done, name)[0] == said(source, name)[0]
    assert differences(source, done) == [0] * 4


@pytest.mark.parametrize("settings", [ARCHIVE, FilmSettings(codec="prores")])
def test_the_container_says_it_where_the_codec_cannot(
    tmp_path: Path, settings: FilmSettings
) -> None:
    source = hdr10(tmp_path / "film.mkv")
    done = color(source, settings)
    assert set(of_side_data(plan_film(source, settings).inventory).values()) == {"kept"}
    light, ours = light_of(decode(source)[0]), light_of(decode(done)[0])
    assert ours == light and len(light.display) == 10 and light.content == (1000, 400)


def test_light_that_nobody_can_say_is_told(tmp_path: Path) -> None:
    info = probe_film(hdr10(tmp_path / "film.mkv"))
    entries = side_entries(info.light.names, info, "ffv1", "mxf")
    assert [entry.fate for entry in entries] == ["left out", "left out"]


def test_parameters_of_the_user_stand_beside_those_of_light(tmp_path: Path) -> None:
    source = hdr10(tmp_path / "film.mkv", "max-cll=700,300")
    job = plan_film(source, HEVC)
    options = dict(job.encoder.options)
    assert options["x265-params"].startswith("lossless=1:")
    assert options["x265-params"].endswith(":max-cll=700,300")


def captioned_at(path: Path, number: int, count: int = 60) -> Path:
    """Key frames only, one of which has a caption."""
    bare = make_film(path.with_name("bare.ts"), count, options={"qp": "0", "g": "1", "bf": "0"})
    with av.open(str(bare)) as film, av.open(str(path), "w") as out:
        stream = film.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for index, packet in enumerate(p for p in film.demux(stream) if p.size):
            told = (("A53_CC", b"\xfc\x94\x2c"),) if index == number else ()
            new = av.Packet(with_messages(bytes(packet), told, "h264"))
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe, new.stream = True, copy
            out.mux(new)
    return path


def test_the_pictures_that_tell_the_color_of_a_film_tell_of_captions_too(tmp_path: Path) -> None:
    info = probe_film(captioned_at(tmp_path / "film.ts", 5))  # the second of twelve places
    assert (info.beside, info.existing_color) == (("A53_CC",), ExistingColor.NONE)


def test_a_caption_that_samples_miss_is_not_lost_in_silence(tmp_path: Path) -> None:
    source = captioned_at(tmp_path / "film.ts", 8)
    assert not any(e.kind == "captions" for e in plan_film(source, ARCHIVE).inventory)
    with pytest.raises(MediaError, match=r"closed captions .* left out: .*--accept-loss"):
        color(source, ARCHIVE)
    accepting = ARCHIVE.model_copy(update={"accept_loss": True})
    report = color_and_report(source, accepting)[1]
    assert [(e.kind, e.fate) for e in report.inventory if e.kind == "captions"] == [
        ("captions", "left out")
    ]


def test_a_caption_that_samples_miss_is_kept_where_it_can_be(tmp_path: Path) -> None:
    source = captioned_at(tmp_path / "film.ts", 8)
    done, report = color_and_report(source, EXACT)
    assert said(done, "A53_CC") == [b"\xfc\x94\x2c"]
    assert [(e.kind, e.fate) for e in report.inventory if e.kind == "captions"] == [
        ("captions", "kept")
    ]


def test_captions_that_do_not_arrive_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = captioned_at(tmp_path / "film.ts", 8)
    monkeypatch.setattr(encode, "with_messages", lambda coded, *_: coded)
    with pytest.raises(MediaError, match="lacks 1 closed captions in the pictures"):
        color(source, EXACT)


def test_light_that_the_result_does_not_say_is_told(tmp_path: Path) -> None:
    inventory = plan_film(hdr10(tmp_path / "film.mkv"), HEVC).inventory
    dark = decode(make_film(tmp_path / "dark.mkv", 1))[0]
    told = of_side_data(light_found(inventory, dark))
    assert set(told.values()) == {"left out"}
    bright = decode(tmp_path / "film.mkv")[0]
    assert light_found(inventory, bright) == inventory


def with_unit(source: Path, path: Path, payloads: list[tuple[int, bytes]]) -> Path:
    """An HEVC film with an SEI message more for each of its pictures, in the order of decoding."""
    with av.open(str(source)) as film, av.open(str(path), "w") as out:
        stream = film.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in film.demux(stream) if packet.size]
        for packet, (kind, payload) in zip(packets, payloads, strict=True):
            body = bytes([kind, len(payload)]) + payload + b"\x80"
            escaped = re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", body)
            new = av.Packet(b"\0\0\0\1\x4e\x01" + escaped + bytes(packet))
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe, new.stream = packet.is_keyframe, copy
            out.mux(new)
    return path


def packed(*fields: tuple[int, int]) -> bytes:
    """Values of so many bits, most significant bit first."""
    bits = "".join(f"{value:0{width}b}" for value, width in fields)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def bare_hevc(path: Path, rate: int = 25) -> Path:
    """Without B-pictures; a transport stream keeps start codes."""
    options = {"x265-params": "log-level=error:bframes=0", "preset": "ultrafast"}
    more: dict[str, Any] = {"size": (128, 96), "pix_fmt": "yuv420p10le", "rate": rate}
    return make_film(path, 4, codec="libx265", options=options, **more, **HDR)


def hdr10_plus(brightness: int, peaks: bool) -> bytes:
    """ST 2094-40 for one window, with a tone curve of three anchors and a saturation weight."""
    rows = [(1, 1), (2, 5), (3, 5), *((n, 4) for n in (1, 2, 3, 4, 5, 15))] if peaks else [(0, 1)]
    return b"\xb5\0\x3c\0\1\4" + packed(
        (1, 8), (1, 2), (400, 27), *rows,
        (brightness, 17), (2000, 17), (3000, 17), (1234, 17),
        (3, 4), (1, 7), (17, 17), (50, 7), (5000, 17), (99, 7), (99999, 17), (250, 10),
        (0, 1), (1, 1), (1000, 12), (2000, 12), (3, 4), (100, 10), (500, 10), (1023, 10),
        (1, 1), (33, 6),
    )  # fmt: skip


@pytest.mark.parametrize("peaks", [False, True])
def test_hdr10_plus_stays_with_its_pictures(tmp_path: Path, peaks: bool) -> None:
    messages = [hdr10_plus(1000 * number, peaks) for number in range(1, 5)]
    film = bare_hevc(tmp_path / "bare.ts")
    source = with_unit(film, tmp_path / "film.ts", [(4, message) for message in messages])
    before = said(source, "DYNAMIC_HDR_PLUS")
    assert len(before) == 4 and [t35_of(data) for data in before] == messages
    done, report = color_and_report(source, HEVC)
    assert said(done, "DYNAMIC_HDR_PLUS") == before
    assert len([e for e in report.inventory if e.what == "HDR10+ dynamic metadata"]) == 1
    assert of_side_data(plan_film(source, HEVC).inventory) == {"HDR10+ dynamic metadata": "kept"}
    assert of_side_data(plan_film(source, AV1).inventory) == {"HDR10+ dynamic metadata": "left out"}


def time_code(hours: int, minutes: int, seconds: int, frames: int, dropping: bool) -> bytes:
    return packed(
        (1, 2), (1, 1), (0, 1), (4 * dropping, 5), (1, 1), (0, 1), (dropping, 1),
        (frames, 9), (seconds, 6), (minutes, 6), (hours, 5), (0, 5), (1, 1),
    )  # fmt: skip


@pytest.mark.parametrize(("rate", "dropping"), [(25, False), (30, True), (50, False), (60, False)])
def test_timecodes_stay_with_their_pictures(tmp_path: Path, rate: int, dropping: bool) -> None:
    codes = [time_code(13, 59, 58, rate - 4 + number, dropping) for number in range(3)]
    codes.append(time_code(10, 0, 0, 7, dropping))  # they jump where the tape was stopped
    film = bare_hevc(tmp_path / "bare.ts", rate)
    source = with_unit(film, tmp_path / "film.ts", [(136, code) for code in codes])
    used = slice(8)  # a count of one and its timecode; FFmpeg does not fill the room behind it
    before = [data[used] for data in said(source, "S12M_TIMECODE")]
    assert len({*before}) == 4
    assert [data[used] for data in said(color(source, HEVC), "S12M_TIMECODE")] == before


def test_where_pictures_hold_no_timecode_the_container_has_the_first(tmp_path: Path) -> None:
    film = bare_hevc(tmp_path / "bare.ts")
    codes = [(136, time_code(13, 59, 58, 20 + number, False)) for number in range(4)]
    source = with_unit(film, tmp_path / "film.ts", codes)
    entries = [e for e in plan_film(source, ARCHIVE).inventory if e.kind == "timecode"]
    assert [entry.fate for entry in entries] == ["converted"]
    with av.open(str(color(source, ARCHIVE))) as done:
        tags = {**done.metadata, **done.streams.video[0].metadata}
    assert "13:59:58:20" in {value for key, value in tags.items() if key.lower() == "timecode"}


def with_box(path: Path, box: bytes) -> Path:
    """The mp4 with a box more in the description of its first stream; its moov comes last."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"hvc1") - 4
    end = entry + int.from_bytes(data[entry : entry + 4], "big")
    data[end:end] = box
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1"):
        place = data.rindex(kind, 0, end) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(box)
        data[place : place + 4] = size.to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("profile", "compatible"), [(8, 1), (5, 0)])
def test_dolby_vision_is_told_when_it_goes(tmp_path: Path, profile: int, compatible: int) -> None:
    film = hdr10(tmp_path / "plain.mkv")
    source = tmp_path / "film.mp4"
    with av.open(str(film)) as plain, av.open(str(source), "w") as out:
        copy = out.add_stream_from_template(plain.streams.video[0])
        copy.codec_context.codec_tag = "hvc1"
        for packet in plain.demux(plain.streams.video[0]):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    # Version 1.0, level 1, with metadata and base layer; 1 is compatible with HDR10, 0 with none.
    body = bytes([1, 0, profile << 1, 1 << 3 | 5, compatible << 4]) + bytes(19)
    kind = b"dvvC" if profile > 7 else b"dvcC"
    with_box(source, (8 + len(body)).to_bytes(4, "big") + kind + body)
    assert decode(source)
    entries = [e for e in plan_film(source, HEVC).inventory if "Dolby Vision" in e.what]
    assert [entry.fate for entry in entries] == ["left out"] * (2 - compatible)
    assert entries[0].how == "it describes the colors of the old pictures"
