"""Captions inside the pictures come through, in the order of the pictures."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from films import ARCHIVE, color, decode, luma_differences, make_film

from colordaemon.config import FilmSettings
from colordaemon.errors import MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media.captions import with_messages
from colordaemon.media.side_data import messages_of

Told = list[tuple[tuple[str, bytes], ...]]


def captioned(path: Path, count: int = 8) -> Path:
    """An H.264 film in which every picture has captions and an active format."""
    bare = make_film(path.with_name("bare.ts"), count, options={"qp": "0", "bf": "2"})
    with av.open(str(bare)) as film, av.open(str(path), "w") as out:
        stream = film.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in film.demux(stream):
            if not packet.size or packet.pts is None:
                continue
            number = packet.pts // 3600 % 256
            cc = b"\xfc" + bytes([0x80 | number % 100, 0]) + b"\xfd\x80\x80" + b"\xff\0\0"
            told = (("A53_CC", cc), ("AFD", bytes([8 + number % 3])))
            new = av.Packet(with_messages(bytes(packet), told, "h264"))
            new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
            new.is_keyframe, new.stream = packet.is_keyframe, copy
            out.mux(new)
    return path


def told(path: Path) -> Told:
    return [messages_of(frame) for frame in decode(path)]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_captions_stay_with_their_pictures(tmp_path: Path, codec: str) -> None:
    source = captioned(tmp_path / "film.ts")
    options = {"qp": "0", "bf": "2"} if codec == "h264" else {"x265-params": "lossless=1"}
    settings = FilmSettings.model_validate({"codec": codec, "encoder_options": options})
    before = told(source)
    assert all(len(messages) == 2 for messages in before) and len({*before}) > 3
    job = plan_film(source, settings)
    assert any(e.kind == "captions" and e.fate == "kept" for e in job.inventory)
    done = color(source, settings)
    assert told(done) == before
    assert luma_differences(source, done) == [0] * len(before)


def test_captions_come_into_mp4_too(tmp_path: Path) -> None:
    made = captioned(tmp_path / "film.ts")
    source = tmp_path / "film.mp4"
    with av.open(str(made)) as film, av.open(str(source), "w") as out:
        copy = out.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(film.streams.video[0]):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    assert told(color(source)) == told(made)


def test_a_film_fails_where_its_captions_have_no_place(tmp_path: Path) -> None:
    source = captioned(tmp_path / "film.ts")
    with pytest.raises(MediaError, match=r"closed captions in the pictures .* left out"):
        plan_film(source, ARCHIVE)
    accepting = ARCHIVE.model_copy(update={"accept_loss": True})
    assert plan_film(source, accepting).inventory


def test_bytes_that_look_like_a_start_code_are_broken_up() -> None:
    coded = b"\0\0\0\1\x67abc\0\0\1\x65slice"
    made = with_messages(coded, (("A53_CC", b"\0\0\1\0\0\0"),), "h264")
    start, sei, rest = made.partition(b"\0\0\0\1\x06")
    assert start == b"\0\0\0\1\x67abc" and rest.endswith(b"\0\0\1\x65slice") and sei
    message = rest.removesuffix(b"\0\0\1\x65slice")
    assert all(bad not in message for bad in (b"\0\0\0", b"\0\0\1", b"\0\0\2"))
