"""`colordaemon bench`: what is measured is what it says; no test looks at a time."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import write_photo
from films import EXACT, decode, luma_planes, make_film, pictures, planes, times
from processes import Process, run
from rich.console import Console

from colordaemon.bench import command, stages
from colordaemon.bench.clips import RATE, SHOT_SECONDS, begin_of, make_clip, views
from colordaemon.bench.command import Wishes, run_bench
from colordaemon.bench.network import operations
from colordaemon.bench.process import Ran, in_process
from colordaemon.bench.report import STAGES, ClipReport, Report, show
from colordaemon.bench.timing import Measured, Timed, measured, timed
from colordaemon.cli import main as colordaemon
from colordaemon.config import Config, ModelSettings
from colordaemon.errors import ConfigError, DataError, Interrupted, MediaError
from colordaemon.film.shots import CutDetector
from colordaemon.network.model import ColorNet

TINY = Wishes(
    sizes=(48,),
    seconds=0.25,
    batches=(1, 2),
    network_seconds=0.01,
    photos=2,
    runs=2,
    growth=(0.25, 0.5),
)
MEASURED = {"count", "wall_seconds", "processor_seconds", "per_second", "wall_ms", "processor_ms",
            "peak_mib", "device_peak_mib", "runs"}  # fmt: skip


def here(function: Callable[..., Any], *arguments: Any, stop: Event) -> Ran[Any]:
    """In place of a process of its own, which takes seconds to import torch."""
    if stop.is_set():
        raise Interrupted("stopped")
    return Ran(function(*arguments), 100.0, None)


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, record=True)
    show(report, console)
    return console.export_text()


@pytest.fixture
def config(model: Path) -> Config:
    return Config(model=ModelSettings(file=model, device="cpu", precision="fp32"), film=EXACT)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Everything is called in this process; gives the folder of temporary files, empty at last."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(command, "in_process", here)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def test_the_json_has_every_field_and_its_ratios_are_what_they_say(
    config: Config, at_once: Path
) -> None:
    report = run_bench([], config, TINY, Event())
    found = json.loads(json.dumps(report.to_json()))
    assert found["version"] == 1
    assert found["settings"]["film"]["codec"] == "h264" and found["settings"]["workers"] == 1
    assert found["network_on"] == {
        "device": "CPU", "precision": "fp32", "quality": "standard", "short_side": 48,
        "batch_size": 8,
    }  # fmt: skip
    machine = found["machine"]
    assert (
        machine["cores"] >= 1 and machine["memory_mib"] > 100 and machine["threads"]["torch"] == 1
    )
    assert {"colordaemon", "Python", "torch", "PyAV", "FFmpeg", "x264", "x265"} <= set(
        machine["versions"]
    )

    (clip,) = found["clips"]
    assert (clip["name"], clip["width"], clip["height"]) == ("48p", 86, 48)
    assert clip["own"] and found["failures"] == {}
    assert list(clip["stages"]) == list(STAGES)
    for stage in clip["stages"].values():
        assert set(stage) == MEASURED | {"ratio_to_null", "processor_ratio_to_null"}
        assert stage["per_second"] == pytest.approx(stage["count"] / stage["wall_seconds"])
        assert stage["wall_ms"] == pytest.approx(1000 * stage["wall_seconds"] / stage["count"])
        assert stage["processor_ms"] * stage["count"] == pytest.approx(
            1000 * stage["processor_seconds"]
        )
        null = clip["stages"]["null"]
        for ratio, ms in (("ratio", "wall_ms"), ("processor_ratio", "processor_ms")):
            assert stage[f"{ratio}_to_null"] == pytest.approx(null[ms] / stage[ms])
    assert clip["ratio"] == clip["stages"]["whole"]["ratio_to_null"]
    assert [stage["runs"] for stage in clip["stages"].values()] == [2, 2, 1, 1, 1]
    assert {clip["stages"][name]["count"] for name in ("whole", "null", "decode")} == {6}

    assert [row["batch"] for row in found["network"]] == [1, 2]
    for row in found["network"]:
        assert set(row) == MEASURED | {
            "batch", "height", "width", "tflops", "peak_tflops", "share_of_peak",
        }  # fmt: skip
        assert row["share_of_peak"] == pytest.approx(row["tflops"] / row["peak_tflops"])
    assert set(found["photos"]) == MEASURED | {"width", "height"}
    assert found["photos"]["count"] == 2
    growth = found["growth"]
    assert (growth["short"]["count"], growth["long"]["count"]) == (6, 12)
    assert growth["time_ratio"] == pytest.approx(
        growth["long"]["wall_ms"] / growth["short"]["wall_ms"]
    )
    assert growth["processor_ratio"] == pytest.approx(
        growth["long"]["processor_ms"] / growth["short"]["processor_ms"]
    )
    assert growth["memory_ratio"] == 1.0

    text = shown(report)
    assert all(name in text for name in (*STAGES.values(), "48p, 86x48", "batches of 2", "÷ null"))


def test_the_null_transcode_encodes_the_luma_of_the_source_and_the_chroma_of_the_result(
    config: Config, tmp_path: Path
) -> None:
    clip = make_film(tmp_path / "clip.mkv", pictures(6))
    colored, kept, again = (tmp_path / name for name in ("colored", "chroma", "null.nut"))
    assert stages.color(clip, config, colored).count == 6
    stages.keep_chroma(clip, config.film, colored, kept)
    assert stages.transcode(clip, config.film, kept, again).count == 6
    for source, mine, theirs in zip(luma_planes(clip), decode(again), decode(colored), strict=True):
        luma, *chroma = planes(mine)
        np.testing.assert_array_equal(luma, source)
        np.testing.assert_array_equal(chroma, planes(theirs)[1:])
        assert np.ptp(np.stack(chroma)) > 0


def test_chroma_that_finds_no_room_is_said_with_what_to_do(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_film(tmp_path / "clip.mkv", 2)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(ConfigError, match=r"does not fit.*TMPDIR.*--seconds"):
        stages.keep_chroma(clip, config.film, clip, tmp_path / "chroma")


def test_medians_are_taken_of_times_and_the_most_of_memory() -> None:
    runs = [Ran(Timed(4, wall, 2 * wall), peak, peak) for wall, peak in ((1, 9), (5, 7), (2, 8))]
    assert measured(runs) == Measured(4, 2, 4, 9, 9, 3)


def test_a_clip_that_fails_is_in_the_report_and_the_next_one_goes_on(
    config: Config, at_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [make_film(tmp_path / name, 4) for name in ("one.mkv", "[b]two.mkv")]

    def decode_one(path: Path) -> Timed:
        if path.name == "one.mkv":
            raise MediaError("one.mkv: no frame")
        return Timed(4, 1.0, 1.0)

    monkeypatch.setattr(stages, "decode", decode_one)
    wishes = Wishes(parts=frozenset(["films"]))
    report = run_bench(clips, config, wishes, Event())
    assert report.failures == {"one.mkv": "one.mkv: no frame"}
    assert list(report.clips[0].stages) == ["whole", "null"]
    assert list(report.clips[1].stages) == list(STAGES) and not report.clips[1].own
    assert report.to_json()["photos"] is report.to_json()["growth"] is None
    text = shown(report)
    assert "one.mkv: failed: one.mkv: no frame" in text and "[b]two.mkv, 64x48" in text


def test_what_cannot_be_made_or_colored_does_not_hold_up_the_rest(
    config: Config, at_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ChildProcessError("its process was killed")

    monkeypatch.setattr("colordaemon.bench.clips.make_clip", fail)
    monkeypatch.setattr(stages, "color_photos", fail)
    report = run_bench([], config, TINY, Event())
    assert list(report.failures) == ["48 lines", "photos", "growth"]
    assert len(report.network) == 2 and not report.clips and report.photos is None


def test_without_a_null_transcode_there_is_no_ratio() -> None:
    whole = Measured(1, 1.0, 1.0, 1.0, None, 1)
    assert ClipReport("a", True, "h264", 2, 2, {"whole": whole}).to_json()["ratio"] is None


def test_only_the_beginning_of_a_long_film_is_copied(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", pictures(50))  # two seconds
    clip = begin_of(film, 1.0, tmp_path)
    assert clip.name == "film.mkv" and clip.path != film and not clip.own
    shown = times(clip.path)
    assert 20 <= len(shown) <= 25 and shown == times(film)[: len(shown)]
    for copy, source in zip(luma_planes(clip.path), luma_planes(film), strict=False):
        np.testing.assert_array_equal(copy, source)
    assert begin_of(film, 2.0, tmp_path).path == film


def test_clips_are_the_same_each_time_move_and_have_cuts() -> None:
    count = round(SHOT_SECONDS * RATE) + 8
    first, again = (list(views(128, 72, count)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert all(np.abs(a.astype(int) - b).mean() > 1 for a, b in pairwise(first))
    detector = CutDetector()
    small = [view.astype(np.float32) for view in first]
    assert [n for n, view in enumerate(small) if detector.is_cut(view)] == [0, count - 8]


def test_a_clip_has_the_length_that_is_wished_or_the_usual_one(tmp_path: Path) -> None:
    assert len(decode(make_clip(tmp_path, 32, 0.5).path)) == 12
    assert len(decode(make_clip(tmp_path, 32, None).path)) == 240


def test_operations_are_those_of_the_convolutions(tiny_model: ColorNet) -> None:
    one, four = operations(tiny_model, 32, 32), operations(tiny_model, 64, 64)
    assert four == 4 * one
    assert operations(tiny_model, 33, 33) == four  # padded
    weights = tiny_model.spec.encoder[0][0] * 9  # of the first layer alone, which sees one channel
    assert one > 2 * weights * 32 * 32


def test_a_process_says_what_it_holds_itself_and_not_what_its_parent_does() -> None:
    ballast = np.ones(400 << 20, np.uint8)
    ran = in_process(os.getpid, stop=Event())
    assert 1 < ran.peak_mib < 300
    assert ran.device_peak_mib is None
    assert ran.result != os.getpid() and not Path(f"/proc/{ran.result}").exists()
    assert ballast[-1] == 1


def test_the_memory_of_processes_that_help_counts() -> None:
    program = "held = bytearray(100 << 20); print(flush=True); input()"
    helper = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with helper:
        assert helper.stdout and helper.stdout.readline()
        took = timed(lambda: 1)
        helper.kill()
    assert 100 < took.helpers_mib - timed(lambda: 1).helpers_mib < 200
    assert measured([Ran(took, 50.0, None)]).peak_mib == 50.0 + took.helpers_mib


def test_a_process_that_dies_is_told_apart_from_one_that_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ChildProcessError, match="killed, perhaps because memory ran out"):
        in_process(signal.raise_signal, signal.SIGKILL, stop=Event())
    with pytest.raises(ChildProcessError, match=r"ended with status 1; .* standard error"):
        in_process(os.rmdir, str(tmp_path / "missing"), stop=Event())
    assert "FileNotFoundError" in capfd.readouterr().err


def test_a_process_ends_when_its_parent_is_killed() -> None:
    parent = Process(sleep_long)
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    try:
        while not (children := listed.read_text().split()):
            time.sleep(0.01)
    finally:
        parent.kill()
        parent.wait()
    (child,) = children
    while _runs(child):  # else the time of this test ends it
        time.sleep(0.01)


def sleep_long() -> None:
    in_process(time.sleep, 1000, stop=Event())


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_stop_ends_the_process_at_once() -> None:
    stop, before = Event(), _children()
    stop.set()
    with pytest.raises(Interrupted):
        in_process(time.sleep, 1000, stop=stop)
    assert _children() == before


def _children() -> str:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


def test_what_is_missing_or_no_film_is_named_before_anything_is_measured(
    config: Config, at_once: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.mkv"
    text.write_text("no film")
    photo = write_photo(tmp_path / "photo.png")
    for path, error, words in (
        (tmp_path / "none.mkv", DataError, "none.mkv: no such file, expected a film"),
        (text, MediaError, "notes.mkv: found no film container"),
        (photo, MediaError, "photo.png: found a photo, expected a film"),
        (tmp_path, MediaError, "found a folder"),
    ):
        with pytest.raises(error, match=words):
            run_bench([path], config, TINY, Event())


def test_mistakes_are_said_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    done = run("bench", write_photo(tmp_path / "photo.jpg"))
    assert done.returncode == 1
    assert done.stderr == f"ERROR {tmp_path}/photo.jpg: found a photo, expected a film\n"
    assert run("bench", "--only", "sound").returncode == 2
    assert run("bench", "--sizes", "48,x").returncode == 2
    assert not list(folder.iterdir())


def test_json_is_printed_alone_also_where_neither_pyav_nor_watchdog_can_be_loaded(
    tmp_path: Path, model: Path
) -> None:
    for name in ("av", "watchdog", "pyvips"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a library is missing')")
    places = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    options = "--only", "network", "--batches", "1", "--model", str(model), "--device", "cpu"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "colordaemon", "bench", *options, "--json"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["batch"] for row in found["network"]] == [1] and found["clips"] == []
    assert found["network"][0]["peak_mib"] > 10
    assert "PyAV" not in found["machine"]["versions"]
    assert "batches of 1" in done.stderr


def test_an_interrupted_command_leaves_nothing_behind(tmp_path: Path, model: Path) -> None:
    folder, said = tmp_path / "tmp", tmp_path / "said"
    folder.mkdir()
    words = "bench", "--model", model, "--device", "cpu", "--sizes", "480", "--seconds", "60"
    process = Process(
        colordaemon, words=words, stderr=said, environment=os.environ | {"TMPDIR": str(folder)}
    )
    try:
        while not list(folder.rglob("*.mkv")):  # the clip is being made
            assert process.poll() is None, said.read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
    assert not list(folder.iterdir())
    assert "WARNING stopped" in said.read_text()
