"""What work takes of the memory is known before, and bounded."""

from __future__ import annotations

import errno
import resource
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from films import make_film
from processes import run
from programs import greedy

from colordaemon import color, memory
from colordaemon.color import Matrix, PixelCode, chroma_planes
from colordaemon.config import Codec, FilmSettings
from colordaemon.errors import MediaError
from colordaemon.film.colorize import plan_film
from colordaemon.media import probe
from colordaemon.media.codec import EncoderSettings, choose_encoder
from colordaemon.media.decode import decoder_threads
from colordaemon.media.encoders import ENCODERS
from colordaemon.media.probe import FilmInfo, probe_film
from colordaemon.service.coloring import _is_out_of_memory

GIB = 1 << 30


@pytest.fixture
def info(tmp_path: Path) -> FilmInfo:
    return probe_film(make_film(tmp_path / "film.mkv", 2))


def encoder_of(info: FilmInfo, width: int, height: int, **settings: object) -> EncoderSettings:
    wanted = FilmSettings(**settings)  # type: ignore[arg-type]
    return choose_encoder(replace(info, width=width, height=height), wanted)[0]


def test_a_film_that_does_not_fit_is_refused_with_numbers(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", 2)
    with pytest.raises(MediaError, match=r"64 x 48 pixels of 8 bits take about \d+ MiB.* 9 MiB is"):
        plan_film(film, FilmSettings(), memory_bytes=9 << 20)
    assert plan_film(film, FilmSettings(), memory_bytes=4 * GIB)


def test_a_film_of_absurd_size_is_refused_before_a_picture_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film(tmp_path / "film.mkv", 2)
    monkeypatch.setattr(probe, "MOST_PIXELS", 64 * 48 - 1)
    monkeypatch.setattr(probe, "_first_frame", lambda *_: pytest.fail("decoded"))
    with pytest.raises(MediaError, match="64 x 48 pixels, expected 3071 at most"):
        probe_film(film)


def test_every_codec_has_an_encoder_of_known_cost(info: FilmInfo) -> None:
    assert set(ENCODERS) == set(get_args(Codec))
    for codec in get_args(Codec):
        encoder = encoder_of(info, 1920, 1080, codec=codec)
        assert encoder.codec == codec
        assert encoder.memory_bytes > 1920 * 1080


def test_encoders_keep_their_own_look_ahead_up_to_4k(info: FilmInfo) -> None:
    usual = encoder_of(info, 64, 48).options
    assert encoder_of(info, 4096, 2304).options == usual
    assert "rc-lookahead" not in dict(usual)


def test_larger_pictures_wait_in_fewer_numbers(info: FilmInfo) -> None:
    wide = dict(encoder_of(info, 5760, 2880).options)
    ultra = dict(encoder_of(info, 7680, 4320).options)
    assert 40 > int(wide["rc-lookahead"]) > int(ultra["rc-lookahead"]) == 5
    hevc = dict(encoder_of(info, 7680, 4320, codec="hevc").options)["x265-params"]
    assert "rc-lookahead=5:frame-threads=1" in hevc and "open-gop=0" in hevc


def test_av1_takes_few_large_pictures_together(info: FilmInfo) -> None:
    encoder = encoder_of(info, 7680, 4320, codec="av1")
    assert "hierarchical-levels=3" in dict(encoder.options)["svtav1-params"]
    assert encoder.memory_bytes < 4 * GIB
    asked = {"svtav1-params": "lookahead=60"}
    longer = encoder_of(info, 7680, 4320, codec="av1", encoder_options=asked)
    assert dict(longer.options)["svtav1-params"] == "lookahead=60"
    assert longer.memory_bytes > 2 * encoder.memory_bytes


def test_a_look_ahead_that_was_asked_for_stays_and_is_counted(info: FilmInfo) -> None:
    asked = {"rc-lookahead": "60"}
    usual = encoder_of(info, 7680, 4320)
    longer = encoder_of(info, 7680, 4320, encoder_options=asked)
    assert dict(longer.options)["rc-lookahead"] == "60"
    assert longer.memory_bytes > 2 * usual.memory_bytes


def test_fewer_large_pictures_are_decoded_at_once(info: FilmInfo) -> None:
    assert decoder_threads(info) == 0
    assert 1 <= decoder_threads(replace(info, width=7680, height=4320)) <= 4


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("subsampling", [(2, 2), (2, 1), (1, 1)])
def test_bands_of_a_large_frame_are_the_frame(
    interlaced: bool, subsampling: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = PixelCode(Matrix.BT709, subsampling=subsampling, interlaced=interlaced)
    luma = torch.randint(16, 236, (2, 1, 53, 31), dtype=torch.uint8)
    ab = torch.randn(2, 2, 9, 7) * 40
    whole = chroma_planes(luma, ab, code)
    monkeypatch.setattr(color, "WHOLE_PIXELS", 100)
    monkeypatch.setattr(color, "_BAND_PIXELS", 300)
    assert (chroma_planes(luma, ab, code).int() - whole.int()).abs().max() <= 1  # rounded


def test_the_limit_is_a_share_of_the_least_control_group(tmp_path: Path) -> None:
    groups, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "a.slice" / "b").mkdir(parents=True)
    (root / "memory" / "old").mkdir(parents=True)
    (root / "a.slice" / "memory.max").write_text("1000\n")
    (root / "a.slice" / "b" / "memory.max").write_text("max\n")
    (root / "memory" / "memory.limit_in_bytes").write_text("3000\n")
    groups.write_text("4:cpu,memory:/old\n3:cpu:/x\n0::/a.slice/b\n")
    assert sorted(memory._group_bytes(groups, root)) == [1000, 3000]
    assert list(memory._group_bytes(tmp_path / "none", root)) == []


def test_a_limit_that_is_set_holds_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.limit_bytes(3000) == 3000 << 20
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 1000)
    monkeypatch.setattr(memory, "_group_bytes", lambda *_: iter([500, 2000]))
    assert memory.limit_bytes(None) == 350


def test_a_worker_is_refused_memory_and_knows_it() -> None:
    done = run(program=greedy.main)
    assert done.returncode == 0, done.stderr


def test_an_error_of_a_gpu_is_not_of_this_process() -> None:
    assert not _is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not _is_out_of_memory(OSError(errno.EIO, "broken"))
    assert _is_out_of_memory(OSError(errno.ENOMEM, "none left"))


def test_what_is_free_in_the_heap_is_given_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    blocks = [bytearray(b"x" * 65536) for _ in range(1024)]
    before, pin = resident(), blocks[-1]
    blocks.clear()
    memory.release_free_heaps()
    assert resident() < before - (32 << 20)
    assert pin
