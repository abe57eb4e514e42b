"""Films and photos whose colors a guide changes: where it does, where not, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from films import (
    EXACT,
    Listener,
    decode,
    luma_differences,
    luma_of,
    make_film,
    pictures,
    planes,
    short_segments,
)
from photos import ramp, save
from processes import Process

from colordaemon.config import Config, FilmSettings, ModelSettings
from colordaemon.convert.convert import prepare
from colordaemon.convert.models import Model, ModelCache
from colordaemon.errors import GuideChanged, Interrupted, MediaError
from colordaemon.film import guide as film_guide
from colordaemon.film import pipeline
from colordaemon.film.colorize import FilmJob, FilmReport, color_film, plan_film
from colordaemon.film.guide import frames_at
from colordaemon.film.pipeline import guide_bytes, reading_bytes
from colordaemon.film.segment import SegmentWorker
from colordaemon.guide.guide import Guide
from colordaemon.guide.sidecars import find_guide, named_picture, pictures_in
from colordaemon.media.probe import probe_film
from colordaemon.network.checkpoint import save_model
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.match import Reference
from colordaemon.network.model import ColorNet
from colordaemon.network.painter import Painter, hinted_frame, most_alike

SHOT = 8  # frames
FRAMES = 20
SETTINGS = short_segments(EXACT, 0.12)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_film(tmp_path / "film.mp4", pictures(FRAMES, shot_frames=SHOT))


@pytest.fixture
def colorizer(tiny_model: ColorNet) -> Colorizer:
    return Colorizer(tiny_model, torch.device("cpu"), torch.float32)


def in_color(number: int, shot: int = 0, red: bool = True) -> np.ndarray:
    """A frame of the film as somebody would color it: one half warm, the other cold."""
    luma = luma_of(number, (64, 48), shot=shot).astype(float)
    warm = np.broadcast_to(np.array([1.3, 0.9, 0.7]), (48, 64, 3)).copy()
    warm[:, 32:] = warm[:, 32:, ::-1]
    rgb: np.ndarray = luma[..., None] * (warm if red else warm[..., [1, 0, 2]])
    return rgb.clip(0, 255).astype(np.uint8)


def dabs(side: slice = slice(10, 20)) -> np.ndarray:
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[side, side] = 200, 40, 40, 255
    return rgba


def guide_of(*named: str | tuple[str, str]) -> Guide:
    """References, and ("hints", path)."""
    sidecars = [
        named_picture(each, "reference")
        if isinstance(each, str)
        else named_picture(each[1], "hints")
        for each in named
    ]
    return find_guide(Path(named[0] if isinstance(named[0], str) else named[0][1]), named=sidecars)


def chroma(path: Path) -> list[np.ndarray]:
    return [np.stack(planes(frame)[1:3]) for frame in decode(path)]


def colored(
    film: Path,
    colorizer: Colorizer,
    guide: Guide,
    settings: FilmSettings = SETTINGS,
    name: str = "done.mp4",
) -> tuple[Path, FilmReport]:
    done = film.with_name(name)
    return done, color_film(plan_film(film, settings, guide=guide), done, colorizer)


# Without a guide


def test_an_empty_guide_changes_no_byte(film: Path, colorizer: Colorizer) -> None:
    plain = film.with_name("plain.mp4")
    color_film(plan_film(film, SETTINGS), plain, colorizer)
    done, report = colored(film, colorizer, Guide())
    assert done.read_bytes() == plain.read_bytes() and report.unlike == ""


def test_without_a_guide_none_of_its_code_is_loaded(
    tmp_path: Path, model: Path, film: Path
) -> None:
    photo = save(tmp_path / "photo.png", ramp())
    program = (
        "import sys\n"
        "from colordaemon.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*[m for m in sys.modules if m.startswith('colordaemon')])\n"
    )
    line = [sys.executable, "-c", program, "once", str(film), str(photo), "--model", str(model)]
    result = subprocess.run(line, capture_output=True, text=True, check=True)  # noqa: S603
    loaded = result.stdout.split()
    assert "colordaemon.film.segment" in loaded
    assert not {"colordaemon.film.guide", "colordaemon.network.painter"} & {*loaded}


# References


def test_a_reference_changes_colors_and_nothing_else(film: Path, colorizer: Colorizer) -> None:
    reference = save(film.with_name("film.reference.png"), in_color(0))
    plain, _ = colored(film, colorizer, Guide(), name="plain.mp4")
    done, report = colored(film, colorizer, guide_of(str(reference)))
    assert luma_differences(film, done) == [0] * FRAMES
    assert report.frames == FRAMES and report.unlike == ""
    apart = [
        np.abs(a.astype(int) - b).mean() for a, b in zip(chroma(done), chroma(plain), strict=True)
    ]
    assert min(apart[:SHOT]) > 1


def test_a_reference_counts_in_its_own_frames_alone(film: Path, colorizer: Colorizer) -> None:
    save(film.with_name("a.png"), in_color(0))
    settings = SETTINGS.model_copy(update={"smoothing": "off"})
    plain, _ = colored(film, colorizer, Guide(), settings, name="plain.mp4")
    guide = guide_of(f"{film.with_name('a.png')}@0.120..0.240")
    done, _ = colored(film, colorizer, guide, settings)
    changed = [not np.array_equal(a, b) for a, b in zip(chroma(done), chroma(plain), strict=True)]
    assert [number for number, is_changed in enumerate(changed) if is_changed] == [3, 4, 5]


def test_times_of_frames_count_in_whole_milliseconds(tmp_path: Path) -> None:
    # At 30000/1001 frames a second no frame is shown at a whole millisecond.
    film = make_film(tmp_path / "film.mkv", 9, rate=30)
    info = probe_film(film)
    assert [info.seconds_at(pts) for pts in (0, 33, 67)] == [0.0, 0.033, 0.067]


# Dabs of color


@pytest.mark.parametrize(("time", "number"), [(None, 0), (0.199, 4), (0.2, 5), (0.779, 19)])
def test_hints_are_for_the_frame_that_is_shown_at_their_time(
    film: Path,
    colorizer: Colorizer,
    monkeypatch: pytest.MonkeyPatch,
    time: float | None,
    number: int,
) -> None:
    seen: list[torch.Tensor] = []
    hinted = hinted_frame

    def watched(painter: Painter, gray: torch.Tensor, *more: Any) -> object:
        seen.append(gray)
        return hinted(painter, gray, *more)

    monkeypatch.setattr(film_guide, "hinted_frame", watched)
    hints = save(film.with_name("dabs.png"), dabs())
    guide = guide_of(("hints", f"{hints}@{time}" if time is not None else str(hints)))
    done, report = colored(film, colorizer, guide)
    plain, _ = colored(film, colorizer, Guide(), name="plain.mp4")
    asked: list[torch.Tensor] = []

    class Watching(Colorizer):
        def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            asked.extend(gray)
            return super().guess(gray)

    colorizer.__class__ = Watching
    colored(film, colorizer, Guide(), name="again.mp4")
    assert len(asked) == FRAMES
    torch.testing.assert_close(seen[0][0], asked[number], rtol=0, atol=0)
    assert not np.array_equal(chroma(done)[number], chroma(plain)[number])
    assert report.unlike == ""  # there is no reference that could be


def test_frames_are_found_by_their_times_in_one_pass(film: Path) -> None:
    info = probe_film(film)
    found = frames_at(info, [0.0, 0.04, 0.05, 0.5, 0.7999, 0.8, 9.0])
    assert [frame and frame.pts * info.time_base for frame in found] == [
        *(pytest.approx(time) for time in (0.0, 0.04, 0.04, 0.48, 0.76)), None, None
    ]  # fmt: skip


# What cannot be used


def test_a_time_beyond_the_film_is_refused_by_name(film: Path) -> None:
    hints = save(film.with_name("film.hints@00-00-09.png"), dabs())
    late = save(film.with_name("late@00-01-00..00-02-00.png"), in_color(0))
    for guide in (guide_of(("hints", str(hints))), guide_of(str(late))):
        with pytest.raises(MediaError, match=rf"{guide.pictures[0].path.name}: found"):
            plan_film(film, SETTINGS, guide=guide)


def test_a_time_beyond_a_film_that_does_not_say_how_long_it_is_is_refused_by_name(
    tmp_path: Path, colorizer: Colorizer
) -> None:
    film = make_film(tmp_path / "film.ts", FRAMES)
    assert probe_film(film).duration_seconds is None
    hints = save(tmp_path / "film.hints@00-00-09.png", dabs())
    with pytest.raises(MediaError, match=r"film\.hints@00-00-09\.png: .* film\.ts has ended"):
        colored(film, colorizer, guide_of(("hints", str(hints))))
    assert {path.name for path in tmp_path.iterdir()} == {film.name, hints.name}


def test_a_picture_that_cannot_guide_a_film_is_refused_before_it_is_colored(film: Path) -> None:
    gray = save(film.with_name("gray.png"), np.dstack([ramp()] * 3))
    narrow = save(film.with_name("narrow.png"), dabs()[:, :40])
    with pytest.raises(MediaError, match=r"gray\.png: found gray"):
        plan_film(film, SETTINGS, guide=guide_of(str(gray)))
    with pytest.raises(MediaError, match=r"narrow\.png: found 40 x 48 pixels"):
        plan_film(film, SETTINGS, guide=guide_of(("hints", str(narrow))))


@pytest.mark.parametrize("kind", ["film", "photo"])
def test_a_model_that_cannot_compare_is_refused_by_name_before_anything_is_written(
    film: Path, tmp_path: Path, tiny_model: ColorNet, kind: str
) -> None:
    source = film if kind == "film" else save(tmp_path / "photo.png", ramp())
    reference = save(tmp_path / "a.png", in_color(0))
    tiny_model.axes = None
    old = tmp_path / "old.safetensors"
    save_model(old, tiny_model, {})
    model = Model(ModelSettings(file=old, device="cpu"), ModelCache())
    before = {*tmp_path.iterdir()}
    prepared = prepare(source, Config(), guide=guide_of(str(reference)))
    with pytest.raises(MediaError, match=r"a\.png: found .*old\.safetensors, which has no axes"):
        prepared.run(tmp_path / "partial", model, Listener(), tmp_path / "work")
    assert {*tmp_path.iterdir()} == before
    prepare(source, Config()).run(tmp_path / "partial", model, Listener(), None)


def test_pictures_that_guide_a_film_count_in_the_memory_that_it_takes(film: Path) -> None:
    job = plan_film(film, SETTINGS)
    enough = reading_bytes(job.source, SETTINGS.stride) + job.encoder.memory_bytes
    plan_film(film, SETTINGS, memory_bytes=enough)
    guide = guide_of(str(save(film.with_name("a.png"), in_color(0))))
    with pytest.raises(MediaError, match="MiB is the limit"):
        plan_film(film, SETTINGS, guide=guide, memory_bytes=enough)
    plan_film(film, SETTINGS, guide=guide, memory_bytes=enough + guide_bytes(guide))


# After an interruption


@pytest.fixture
def guided(film: Path) -> FilmJob:
    """A film with a reference for a part of it and dabs in its middle."""
    save(film.with_name("a.png"), in_color(0))
    hints = save(film.with_name("dabs.png"), dabs())
    guide = guide_of(f"{film.with_name('a.png')}@0.2..", ("hints", f"{hints}@0.48"))
    return plan_film(film, SETTINGS, guide=guide)


def stopping_after(count: int) -> Listener:
    return Listener(lambda listener: listener.segments[-1:] >= [count])


def test_a_guided_film_that_was_stopped_goes_on_as_if_it_had_not_been(
    guided: FilmJob, colorizer: Colorizer, tmp_path: Path
) -> None:
    partial, work, whole = (tmp_path / name for name in ("partial", "work", "whole"))
    never = color_film(guided, whole, colorizer)
    for count in (1, 3):
        with pytest.raises(Interrupted):
            color_film(guided, partial, colorizer, stopping_after(count), work=work)
    report = color_film(guided, partial, colorizer, work=work)
    assert report.resumed == 3 < report.segments == never.segments
    assert partial.read_bytes() == whole.read_bytes()
    assert report.unlike == never.unlike


@pytest.mark.parametrize("kind", ["reference and hints", "candidates"])
def test_a_guided_film_has_the_same_bytes_however_many_workers_make_it(
    guided: FilmJob,
    candidates: Guide,
    colorizer: Colorizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(film_guide, "KNOWN", -1.0)
    job = guided
    if kind == "candidates":
        job = plan_film(guided.source.path, SETTINGS, guide=candidates)
    job = replace(job, most_workers=3)
    one, three = tmp_path / "one", tmp_path / "three"
    alone = color_film(job, one, colorizer)
    helpers = [SegmentWorker(colorizer) for _ in range(2)]
    assert color_film(job, three, colorizer, helpers=lambda: helpers).unlike == alone.unlike
    assert three.read_bytes() == one.read_bytes()


def _killed(job: FilmJob, partial: Path, colorizer: Colorizer, work: Path, count: int) -> None:
    def kill(listener: Listener) -> bool:
        if listener.segments[-1:] >= [count]:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    color_film(job, partial, colorizer, Listener(kill), work=work)


def test_a_guided_film_that_was_killed_goes_on_as_if_it_had_not_been(
    guided: FilmJob, colorizer: Colorizer, tmp_path: Path
) -> None:
    partial, work, whole = (tmp_path / name for name in ("partial", "work", "whole"))
    process = Process(_killed, guided, partial, colorizer, work, 2)
    assert process.wait(60) == -signal.SIGKILL
    report = color_film(guided, partial, colorizer, work=work)
    color_film(guided, whole, colorizer)
    assert report.resumed == 2
    assert partial.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("change", ["colors", "range", "one more", "none"])
def test_a_changed_guide_makes_all_segments_anew(
    guided: FilmJob, colorizer: Colorizer, tmp_path: Path, change: str
) -> None:
    partial, work = tmp_path / "partial", tmp_path / "work"
    color_film(guided, partial, colorizer, work=work)
    assert color_film(guided, partial, colorizer, work=work).resumed > 5
    reference = tmp_path / "a.png"
    if change == "colors":
        save(reference, in_color(0, red=False))
    named: dict[str, tuple[str | tuple[str, str], ...]] = {
        "colors": (f"{reference}@0.2..", ("hints", f"{tmp_path / 'dabs.png'}@0.48")),
        "range": (f"{reference}@0.4..", ("hints", f"{tmp_path / 'dabs.png'}@0.48")),
        "one more": (f"{reference}@0.2..", str(reference)),
    }
    guide = guide_of(*named[change]) if change in named else Guide()
    job = plan_film(guided.source.path, SETTINGS, guide=guide)
    assert color_film(job, partial, colorizer, work=work).resumed == 0
    again = color_film(job, tmp_path / "again", colorizer)
    assert again.segments and (tmp_path / "again").read_bytes() == partial.read_bytes()


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_a_film_whose_guide_changes_meanwhile_is_given_up(
    guided: FilmJob, colorizer: Colorizer, tmp_path: Path, change: str
) -> None:
    def act(listener: Listener) -> bool:
        if listener.segments[-1:] == [2] and change == "removed":
            (tmp_path / "a.png").unlink(missing_ok=True)
        elif listener.segments[-1:] == [2]:
            save(tmp_path / "a.png", in_color(0, red=False))
        return False

    partial, work = tmp_path / "partial", tmp_path / "work"
    with pytest.raises(GuideChanged, match=rf"a\.png: was {change}"):
        color_film(guided, partial, colorizer, Listener(act), work=work)
    assert not partial.exists()


def test_a_guide_that_was_moved_but_not_changed_goes_on(
    guided: FilmJob, colorizer: Colorizer, tmp_path: Path
) -> None:
    partial, work, moved = (tmp_path / name for name in ("partial", "work", "moved"))
    color_film(guided, partial, colorizer, work=work)
    moved.mkdir()
    for name in ("a.png", "dabs.png"):
        (tmp_path / name).rename(moved / name)
    guide = guide_of(f"{moved / 'a.png'}@0.2..", ("hints", f"{moved / 'dabs.png'}@0.48"))
    job = plan_film(guided.source.path, SETTINGS, guide=guide)
    report = color_film(job, partial, colorizer, work=work)
    assert report.resumed == report.segments


def test_what_is_said_of_references_survives_an_interruption(
    guided: FilmJob, colorizer: Colorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = iter(np.linspace(0.0, 0.19, FRAMES - SHOT + 3))  # from 0.2 s on, 0.095 in the mean
    said: dict[float, float] = {}

    def guess(
        self: Painter, gray: torch.Tensor, seconds: list[float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for time in seconds:
            if time >= 0.2 and time not in said:
                said[time] = float(next(weights))
        self.weights = [said.get(time) for time in seconds]
        return colorizer.guess(gray)

    monkeypatch.setattr(Painter, "guess", guess)
    partial, work = tmp_path / "partial", tmp_path / "work"
    stop = stopping_after(3)
    with pytest.raises(Interrupted):
        color_film(guided, partial, colorizer, stop, work=work)
    report = color_film(guided, partial, colorizer, work=work)
    assert report.resumed == 3
    assert "a.png has little in common with the film" in report.remarks()
    said.update(dict.fromkeys(said, 0.101))
    assert not color_film(guided, tmp_path / "again", colorizer).unlike


# Candidates


@pytest.fixture
def candidates(film: Path) -> Guide:
    """A folder of pictures in color, one of a frame of each shot and one of something else."""
    folder = film.with_name("candidates")
    folder.mkdir()
    for shot in range(3):
        save(folder / f"{shot}.png", in_color(shot * SHOT, shot))
    save(folder / "other.png", in_color(0, 5)[::-1])
    return find_guide(film, named=pictures_in(folder, None, "candidate"))


def test_each_shot_has_the_candidates_that_its_first_frame_is_most_like(
    film: Path, colorizer: Colorizer, candidates: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The miniature cannot tell how much is enough.
    monkeypatch.setattr(film_guide, "KNOWN", -1.0)
    chosen: list[list[Reference]] = []
    offered: list[Sequence[Reference]] = []
    choose = most_alike

    def watched(
        colorizer: Colorizer, gray: torch.Tensor, candidates: Sequence[Reference], least: float
    ) -> list[Reference]:
        offered.append(candidates)
        chosen.append(choose(colorizer, gray, candidates, least))
        return chosen[-1]

    monkeypatch.setattr(film_guide, "most_alike", watched)
    done, report = colored(film, colorizer, candidates)
    assert report.shots == len(chosen) == 3
    for shot in range(3):
        assert len(chosen[shot]) == 2
        assert any(offered[shot][shot] is each for each in chosen[shot])
    plain, _ = colored(film, colorizer, Guide(), name="plain.mp4")
    assert done.read_bytes() != plain.read_bytes()


def test_strangers_among_candidates_change_nothing_and_that_is_said(
    film: Path, colorizer: Colorizer, candidates: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_guide, "KNOWN", 1.01)
    done, report = colored(film, colorizer, candidates)
    plain, _ = colored(film, colorizer, Guide(), name="plain.mp4")
    assert done.read_bytes() == plain.read_bytes()
    assert "none of 4 candidates has anything in common with the film" in report.remarks()


def test_candidates_without_colors_are_left_out_and_that_is_said(
    film: Path, candidates: Guide, tmp_path: Path
) -> None:
    folder = candidates.pictures[0].path.parent
    gray = save(folder / "gray.png", np.dstack([ramp()] * 3))
    (folder / "text.jpg").write_text("no picture")
    guide = find_guide(film, named=pictures_in(folder, None, "candidate"))
    job = plan_film(film, SETTINGS, guide=guide)
    assert job.guide == candidates
    remark = f"2 of 6 candidates cannot be used; the first: {gray}: found gray"
    assert any(each.startswith(remark) for each in job.remarks)
    photo = save(tmp_path / "photo.png", ramp())
    prepared = prepare(photo, Config(), guide=guide)
    assert any(each.startswith(remark) for each in prepared.plan()[1])


def test_a_shot_that_is_resumed_in_its_middle_has_the_same_candidates(
    film: Path, colorizer: Colorizer, candidates: Guide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_guide, "KNOWN", -1.0)
    monkeypatch.setattr(pipeline, "LOOK_AHEAD", 2)  # frames before a segment that are asked about
    job = plan_film(film, SETTINGS, guide=candidates)
    whole, partial, work = (film.with_name(name) for name in ("whole", "partial", "work"))
    never = color_film(job, whole, colorizer)
    for count in range(1, never.segments):
        with pytest.raises(Interrupted):
            color_film(job, partial, colorizer, stopping_after(count), work=work)
    color_film(job, partial, colorizer, work=work)
    assert never.segments > 2 * never.shots
    assert partial.read_bytes() == whole.read_bytes()


# Photos


def test_a_reference_and_dabs_change_a_photo(tmp_path: Path, model: Path) -> None:
    photo = save(tmp_path / "photo.png", ramp())
    reference, hints = save(tmp_path / "a.png", in_color(0)), save(tmp_path / "dabs.png", dabs())

    def bytes_of(guide: Guide) -> bytes:
        settings = ModelSettings(file=model, device="cpu")
        partial = tmp_path / "partial"
        prepared = prepare(photo, Config(), guide=guide)
        prepared.run(partial, Model(settings, ModelCache()), Listener(), None)
        return partial.read_bytes()

    plain = bytes_of(Guide())
    assert plain == bytes_of(Guide())
    results = {
        plain,
        bytes_of(guide_of(str(reference))),
        bytes_of(guide_of(("hints", str(hints)))),
        bytes_of(guide_of(str(reference), ("hints", str(hints)))),
    }
    assert len(results) == 4


def test_a_photo_has_no_times_and_dabs_have_its_shape(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.tif", ramp(), orientation=6)  # shown 48 wide and 64 high
    save(tmp_path / "a.png", in_color(0))
    upright = save(tmp_path / "upright.png", np.rot90(dabs()))
    lying = save(tmp_path / "lying.png", dabs())
    with pytest.raises(MediaError, match=r"a\.png: found a time, expected none"):
        prepare(photo, Config(), guide=guide_of(f"{tmp_path / 'a.png'}@0.1..0.2"))
    prepare(photo, Config(), guide=guide_of(("hints", str(upright))))
    with pytest.raises(MediaError, match=r"lying\.png: found 64 x 48 .* 48 x 64"):
        prepare(photo, Config(), guide=guide_of(("hints", str(lying))))
