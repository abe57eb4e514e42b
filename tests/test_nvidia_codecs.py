"""Encoding and decoding on a GPU: wished for, tried first, and done by the processor otherwise."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from films import Painter, decode, luma_differences, make_film

from colordaemon.config import Codec, FilmSettings
from colordaemon.film.colorize import color_film, plan_film
from colordaemon.media import codec, nvdec
from colordaemon.media import decode as decoding
from colordaemon.media.decode import FilmReader
from colordaemon.media.demux import open_film
from colordaemon.media.encoders import ENCODERS, NVENC
from colordaemon.media.probe import FilmInfo, probe_film

ON_GPU = FilmSettings(codec="h264", encode_on="gpu")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def lumas(info: FilmInfo) -> list[np.ndarray]:
    with FilmReader(info) as reader:
        return [frame.luma.copy() for frame in reader]


@no_gpu
def test_a_film_is_encoded_on_the_processor_where_there_is_no_gpu(tmp_path: Path) -> None:
    job = plan_film(make_film(tmp_path / "film.mp4", 3), ON_GPU)
    assert not job.encoder.on_gpu and job.encoder.encoder is ENCODERS["h264"]
    (told,) = (remark for remark in job.remarks if "on the processor" in remark)
    assert "h264_nvenc fails" in told
    plain = plan_film(make_film(tmp_path / "plain.mp4", 3), FilmSettings(codec="h264"))
    assert plain.encoder == job.encoder


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"codec": "ffv1"}, "NVENC knows no ffv1"),
        ({"preset": "slow"}, "preset and encoder_options are not for NVENC"),
        ({"encoder_options": {"tune": "grain"}}, "preset and encoder_options are not for NVENC"),
    ],
)
def test_what_nvenc_is_not_used_for_is_said(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    job = plan_film(make_film(tmp_path / "film.mp4", 3), ON_GPU.model_copy(update=settings))
    assert not job.encoder.on_gpu
    assert any(reason in remark for remark in job.remarks)


def test_deep_pictures_are_encoded_on_the_processor(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 3, pix_fmt="yuv420p10le", codec="ffv1")
    job = plan_film(source, ON_GPU.model_copy(update={"codec": "hevc"}))
    assert not job.encoder.on_gpu
    assert any("this becomes yuv420p10le" in remark for remark in job.remarks)


def test_a_film_goes_to_the_encoder_of_a_gpu_that_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = {**NVENC, "h264": ENCODERS["h264"]}
    monkeypatch.setattr(codec, "NVENC", stand_in)
    source = make_film(tmp_path / "film.mp4", 12)
    job = plan_film(source, ON_GPU.model_copy(update={"crf": 20}))
    assert job.encoder.on_gpu and dict(job.encoder.options)["crf"] == "20"
    assert not [remark for remark in job.remarks if "processor" in remark]
    painter: Any = Painter()
    assert color_film(job, tmp_path / "done.mp4", painter).frames == 12


def test_options_of_nvenc_exist() -> None:
    for name, encoder in NVENC.items():
        if encoder.name in av.codecs_available:
            options = av.CodecContext.create(encoder.name, "w").supported_options
            known = {option.name for option in (*options.generic, *options.private)}
            assert set(encoder.options) <= known, name


def packed(picture: VideoFrame) -> VideoFrame:
    """As NVDEC gives it."""
    name = {planar: packing for packing, planar in nvdec.UNPACKED.items()}[picture.format.name]
    found = picture.reformat(format=name)
    found.pts, found.time_base = picture.pts, picture.time_base
    found.color_range, found.color_trc = picture.color_range, picture.color_trc
    return found


@pytest.mark.parametrize(
    ("encoder", "pix_fmt"),
    [("libx264", "yuv420p"), ("libx265", "yuv420p10le"), ("libvpx-vp9", "yuv420p")],
)
def test_pictures_of_nvdec_are_those_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, pix_fmt: str
) -> None:
    source = make_film(tmp_path / "film.mkv", 8, codec=encoder, pix_fmt=pix_fmt)
    plain = probe_film(source)
    info = probe_film(source, FilmSettings(decode_on="gpu"))
    assert info.on_gpu and not plain.on_gpu
    expected, opened = lumas(plain), []

    def stand_in(info: FilmInfo) -> InputContainer:
        opened.append(info.path)
        return open_film(info.path)

    pictures = FilmReader._pictures
    monkeypatch.setattr(decoding, "opened_on_gpu", stand_in)
    monkeypatch.setattr(FilmReader, "_pictures", lambda self: map(packed, pictures(self)))
    found = lumas(info)
    assert opened == [source] and len(found) == 8
    assert all(map(np.array_equal, found, expected))


@no_gpu
def test_a_film_is_decoded_by_the_processor_where_there_is_no_gpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_film(tmp_path / "film.mp4", 8)
    info = probe_film(source, FilmSettings(decode_on="gpu"))
    with caplog.at_level(logging.WARNING):
        assert len(lumas(info)) == 8
    assert "the GPU does not decode it" in caplog.text


def test_other_films_are_not_shown_to_nvdec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvdec, "open_film", lambda *_: pytest.fail("opened"))
    for kind, pix_fmt in (("ffv1", "yuv420p"), ("libx264", "yuv444p")):
        source = make_film(tmp_path / f"{kind}.mkv", 2, codec=kind, pix_fmt=pix_fmt)
        assert nvdec.opened_on_gpu(probe_film(source, FilmSettings(decode_on="gpu"))) is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["h264", "hevc"])
def test_nvdec_and_nvenc_keep_all_frames(tmp_path: Path, name: Codec) -> None:
    source = make_film(tmp_path / "film.mp4", 30, size=(256, 192))
    settings = FilmSettings(codec=name, encode_on="gpu", decode_on="gpu", segment_seconds=2.0)
    on_gpu, plain = probe_film(source, settings), probe_film(source)
    assert all(map(np.array_equal, lumas(on_gpu), lumas(plain)))
    job = plan_film(source, settings)
    if not job.encoder.on_gpu:
        pytest.skip(f"this GPU does not encode {name}: {job.remarks}")
    painter: Any = Painter()
    assert color_film(job, tmp_path / "done.mp4", painter).frames == 30
    assert max(luma_differences(source, tmp_path / "done.mp4")) < 30
    assert len(decode(tmp_path / "done.mp4")) == 30
