"""A film that was interrupted goes on after its last finished segment, and only after good ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from films import EXACT, Listener, luma_differences, make_film, pictures, short_segments, times

from colordaemon.errors import Interrupted
from colordaemon.film.colorize import FilmJob, FilmReport, color_film, plan_film
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.model import ColorNet


@pytest.fixture
def job(tmp_path: Path) -> FilmJob:
    source = make_film(tmp_path / "film.mp4", pictures(20, shot_frames=8))
    return plan_film(source, short_segments(EXACT, 0.12))


@pytest.fixture
def colorizer(tiny_model: ColorNet) -> Colorizer:
    return Colorizer(tiny_model, torch.device("cpu"), torch.float32)


@pytest.fixture
def run(job: FilmJob, colorizer: Colorizer, tmp_path: Path) -> Callable[..., FilmReport]:
    """Colors the film with the folder `work`; stops after so many segments if told to."""

    def run(stop_after: int = 1000, made_by: str = "a") -> FilmReport:
        listener = Listener(lambda listener: listener.segments[-1:] >= [stop_after])
        partial, work = tmp_path / "partial", tmp_path / "work"
        return color_film(job, partial, colorizer, listener, work=work, made_by=made_by)

    return run


def test_a_film_goes_on_after_its_last_finished_segment(
    job: FilmJob, run: Callable[..., FilmReport], tmp_path: Path, colorizer: Colorizer
) -> None:
    with pytest.raises(Interrupted):
        run(stop_after=3)
    report = run()
    assert report.resumed == 3 and report.segments > 5
    whole = tmp_path / "whole.mp4"
    color_film(job, whole, colorizer)
    assert times(tmp_path / "partial") == times(whole)
    assert luma_differences(job.source.path, tmp_path / "partial") == [0] * 20
    assert (tmp_path / "partial").read_bytes() == whole.read_bytes()


def test_a_finished_film_whose_result_got_lost_is_only_joined_again(
    run: Callable[..., FilmReport],
) -> None:
    count = run().segments
    assert run().resumed == count


@pytest.mark.parametrize("harm", ["flip a bit", "cut it off", "remove it"])
def test_only_the_segment_whose_file_is_not_what_was_written_is_made_again(
    run: Callable[..., FilmReport], tmp_path: Path, harm: str
) -> None:
    with pytest.raises(Interrupted):
        run(stop_after=4)
    path = tmp_path / "work" / "000002.segment"
    written = path.read_bytes()
    data = bytearray(written)
    data[len(data) // 2] ^= 1
    path.write_bytes(data if harm == "flip a bit" else data[:-1])
    if harm == "remove it":
        path.unlink()
    assert run().resumed == 3
    assert path.read_bytes() == written


def test_a_torn_line_of_the_record_counts_for_nothing(
    run: Callable[..., FilmReport], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        run(stop_after=3)
    record = tmp_path / "work" / "segments.jsonl"
    record.write_bytes(record.read_bytes()[:-5])
    assert run().resumed == 2


def test_another_model_starts_anew(run: Callable[..., FilmReport], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(stop_after=3)
    assert run(made_by="b").resumed == 0
    assert "b" not in {path.suffix for path in (tmp_path / "work").iterdir()}
