"""Interlaced films: which field is shown first, and colors that keep the fields apart."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from films import (
    ARCHIVE,
    EXACT,
    Painter,
    color,
    color_and_report,
    field_orders,
    luma_differences,
    make_film,
    picture_of,
    pictures,
    with_fields,
)

from colordaemon.color import Matrix, PixelCode, chroma_planes
from colordaemon.config import Codec, FilmSettings
from colordaemon.film.colorize import color_film, plan_film
from colordaemon.media.fields import FieldOrder
from colordaemon.media.probe import probe_film

SIZE = (256, 128)
INTERLACED = {"flags": "+ildct+ilme"}
ORDERS: list[FieldOrder] = ["top first", "bottom first"]


def make_interlaced(
    path: Path, *orders: FieldOrder, count: int = 3, codec: str = "ffv1", pix_fmt: str = "yuv420p"
) -> Path:
    images = with_fields(pictures(count, SIZE, pix_fmt), *orders)
    options = INTERLACED if codec != "ffv1" else {}
    return make_film(
        path, images, codec=codec, size=SIZE, pix_fmt=pix_fmt, options=options,
        time_base=Fraction(1, 25),
    )  # fmt: skip


@pytest.mark.parametrize("codec", ["h264", "prores", "ffv1"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_picture_of_an_interlaced_film_keeps_its_field_order(
    tmp_path: Path, order: FieldOrder, codec: Codec
) -> None:
    source = make_interlaced(tmp_path / "film.mkv", order)
    assert field_orders(source) == [order] * 3
    done = color(source, FilmSettings(codec=codec))
    assert field_orders(done) == [order] * 3
    with av.open(str(done)) as container:
        assert container.streams.video[0].codec_context.name == codec
    if codec == "ffv1":
        assert luma_differences(source, done) == [0] * 3


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264", "prores_ks"])
@pytest.mark.parametrize("order", ORDERS)
def test_the_field_order_is_what_decoded_pictures_say(
    tmp_path: Path, order: FieldOrder, codec: str
) -> None:
    pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    source = make_interlaced(tmp_path / "film.mov", order, codec=codec, pix_fmt=pix_fmt)
    info = probe_film(source)
    assert (info.field_order, info.has_own_fields) == (order, True)


def test_pictures_of_both_orders_and_whole_ones_each_keep_theirs_in_ffv1(tmp_path: Path) -> None:
    orders: list[FieldOrder] = ["progressive", "top first", "bottom first", "progressive"]
    source = make_interlaced(tmp_path / "film.mkv", *orders, count=4)
    done, report = color_and_report(source, ARCHIVE)
    assert field_orders(done) == orders
    assert report.misshown == 0


@pytest.mark.parametrize(("codec", "misshown"), [("prores", 0), ("h264", 1)])
def test_both_orders_in_one_film_are_kept_or_said(
    tmp_path: Path, codec: Codec, misshown: int
) -> None:
    orders: list[FieldOrder] = ["top first", "top first", "bottom first"]
    source = make_interlaced(tmp_path / "film.mkv", *orders)
    done, report = color_and_report(source, FilmSettings(codec=codec))
    assert field_orders(done) == (["top first"] * 3 if misshown else orders)
    assert report.misshown == misshown


def test_a_film_is_interlaced_whose_leader_is_not(tmp_path: Path) -> None:
    leader: list[FieldOrder] = ["progressive"] * 20
    orders: list[FieldOrder] = [*leader, "top first"]
    source = make_interlaced(tmp_path / "film.mkv", *orders, count=40)
    assert plan_film(source, EXACT).encoder.field_order == "top first"
    done, report = color_and_report(source)
    assert field_orders(done) == ["top first"] * 40
    assert report.misshown == 20
    assert "20 frames had another field order than the film says" in report.remarks()


def test_a_few_interlaced_pictures_make_no_interlaced_film(tmp_path: Path) -> None:
    plain: list[FieldOrder] = ["progressive"] * 35
    source = make_interlaced(tmp_path / "film.mkv", *plain, "top first", count=40)
    assert plan_film(source, EXACT).encoder.field_order == "progressive"
    done, report = color_and_report(source)
    assert field_orders(done) == ["progressive"] * 40
    assert report.misshown == 5
    assert field_orders(color(source, ARCHIVE)) == field_orders(source)


def test_interlaced_pictures_that_were_not_foreseen_are_counted(tmp_path: Path) -> None:
    source = make_interlaced(tmp_path / "film.mkv", "progressive", "top first", count=2)
    job = plan_film(source, EXACT)
    blind = dataclasses.replace(job.encoder, field_order="progressive", options=())
    job = dataclasses.replace(job, encoder=blind)
    colorizer: Any = Painter()
    report = color_film(job, tmp_path / "done.mkv", colorizer)
    assert field_orders(tmp_path / "done.mkv") == ["progressive"] * 2
    assert report.misshown == 1


def test_only_a_container_may_know_of_fields(tmp_path: Path) -> None:
    source = make_film(
        tmp_path / "film.mkv", 2, codec="mjpeg", size=SIZE, pix_fmt="yuvj420p", field_order=2
    )
    info = probe_film(source)
    assert (info.field_order, info.has_own_fields) == ("top first", False)
    assert field_orders(color(source, ARCHIVE)) == ["top first"] * 2


def test_a_container_is_not_believed_where_pictures_say_otherwise(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mkv", 2, field_order=2)
    assert probe_film(source).field_order == "progressive"


@pytest.mark.parametrize(("pix_fmt", "codec"), [("yuv420p", "h264"), ("yuv422p10le", "h264")])
def test_fields_never_become_pictures_of_their_own_in_hevc(
    tmp_path: Path, pix_fmt: str, codec: str
) -> None:
    source = make_interlaced(tmp_path / "film.mkv", "top first", pix_fmt=pix_fmt)
    job = plan_film(source, FilmSettings(codec="hevc"))
    assert (job.encoder.codec, job.encoder.pix_fmt) == (codec, pix_fmt)
    assert any("because hevc suits it badly" in remark for remark in job.remarks)


def test_pictures_that_are_single_fields_stay_whole_pictures(tmp_path: Path) -> None:
    """As broadcasts in HEVC have them, and as x265 writes them."""
    source = make_film(
        tmp_path / "film.mkv", 4, codec="libx265", size=SIZE,
        options={"x265-params": "interlace=tff:log-level=error", "preset": "ultrafast"},
    )  # fmt: skip
    assert {*field_orders(source)} == {"top first", "bottom first"}
    job = plan_film(source, EXACT)
    assert job.encoder.field_order == "progressive"
    assert any("each picture is a single field left out" in str(e) for e in job.inventory)
    assert {*field_orders(color(source))} == {"progressive"}


@pytest.mark.parametrize("codec", ["av1", "dnxhr"])
def test_codecs_that_cannot_say_fields_leave_it_to_the_container(
    tmp_path: Path, codec: Codec
) -> None:
    source = make_interlaced(tmp_path / "film.mov", "top first", codec="libx264")
    settings = FilmSettings(codec=codec, preset="12" if codec == "av1" else None)
    assert any("only the container" in remark for remark in plan_film(source, settings).remarks)
    with av.open(str(color(source, settings))) as container:
        assert container.streams.video[0].codec_context.field_order in (2, 5)


def test_a_moving_edge_keeps_the_color_of_each_field() -> None:
    """A picture whose top field is gray and whose bottom field is black."""
    luma = torch.full((1, 1, 16, 16), 16, dtype=torch.uint8)
    luma[..., 0::2, :] = 120
    ab = torch.tensor((20.0, 30.0))[None, :, None, None].expand(1, 2, 8, 8).contiguous()
    code = PixelCode(Matrix.BT601, interlaced=True)
    found = chroma_planes(luma, ab, code)
    flat = chroma_planes(torch.full_like(luma, 120), ab, code)
    black = chroma_planes(torch.full_like(luma, 16), ab, code)
    assert torch.equal(found[..., 0::2, :], flat[..., 0::2, :])
    assert torch.equal(found[..., 1::2, :], black[..., 1::2, :])
    whole = chroma_planes(luma, ab, dataclasses.replace(code, interlaced=False))
    assert (whole.int() - 128).abs().max() < (flat.int() - 128).abs().max() / 2


@pytest.mark.parametrize("height", [16, 18, 17, 15])
@pytest.mark.parametrize("subsampling", [(2, 2), (2, 1), (1, 1)])
def test_fields_do_not_matter_where_both_are_alike(
    height: int, subsampling: tuple[int, int]
) -> None:
    luma = torch.arange(40, 72, 2, dtype=torch.uint8).expand(1, 1, height, 16).contiguous()
    ab = torch.randn(1, 2, 4, 4) * 20
    code = PixelCode(Matrix.BT709, subsampling=subsampling)
    one, other = (
        chroma_planes(luma, ab, dataclasses.replace(code, interlaced=fields))
        for fields in (False, True)
    )
    assert torch.equal(one, other)


def test_the_film_itself_has_fields_of_their_own_color(tmp_path: Path) -> None:
    luma = np.full((128, 256), 16, np.uint8)
    luma[0::2] = 120
    source = make_film(
        tmp_path / "film.mkv",
        with_fields([picture_of(luma)] * 2, "top first"),
        codec="ffv1",
        size=SIZE,
    )
    done = color(source, ARCHIVE, colorizer=Painter())
    with av.open(str(done)) as container:
        cb = next(container.decode(video=0)).to_ndarray()[128:160].reshape(64, 128).astype(int)
    assert np.abs(cb[0::2] - 128).max() > 10
    assert np.abs(cb[1::2] - 128).max() <= 1
