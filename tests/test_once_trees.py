"""Which files `once` takes: folders, patterns, its own results; and what it calls the results."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from command import once, write_film, write_photo
from processes import Process
from typer.testing import CliRunner

from colordaemon.cli import main as colordaemon
from colordaemon.cli.common import app
from colordaemon.cli.once import progress_on_signal
from colordaemon.cli.progress import LineProgress
from colordaemon.config import Config, OutputSettings
from colordaemon.convert.sources import Source, find_sources
from colordaemon.convert.workload import Workload
from colordaemon.errors import ConfigError


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "scans"
    for name in ("a.png", "1931/b.png", "1931/deep/c.jpg", "references/d.png", ".trash/e.png"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        write_photo(top / name, color="references" in name)
    (top / "notes.txt").write_text("no photo")
    (top / "link.png").symlink_to("a.png")
    return top


def test_a_folder_means_every_photo_and_film_in_it_and_is_mirrored(tree: Path, model: Path) -> None:
    out = tree.parent / "out"
    result = once(tree, "-o", out, "--model", model)
    assert result.returncode == 0, result.stderr
    assert names_in(out) == ["1931/b.color.png", "1931/deep/c.color.jpg", "a.color.png"]


def test_results_are_never_taken_as_sources_however_often_a_folder_is_colored(
    tree: Path, model: Path
) -> None:
    write_film(tree / "1931" / "film.mp4")
    assert once(tree, "--model", model).returncode == 0
    names = names_in(tree)
    assert len(names) == 8 + 4  # of a, b, c and the film
    again = once(tree, "--model", model)
    assert again.returncode == 3 and names_in(tree) == names
    forced = once(tree, "--model", model, "--force", "--overwrite")
    assert forced.returncode == 0 and names_in(tree) == names, forced.stderr
    # One that was given another name as well, also with options that overwrite and force.
    (tree / "a.color.png").rename(tree / "renamed.png")
    assert once(tree, "--model", model, "--force", "--overwrite").returncode == 0
    assert "renamed.color.png" not in names_in(tree)


def test_a_folder_of_results_inside_the_folder_of_sources_is_not_looked_into(tree: Path) -> None:
    out = tree / "out"
    out.mkdir()
    shutil.copy(tree / "a.png", out / "a.color.png")
    found = [source.path for source in find_sources([tree], out)]
    assert found == [tree / "1931/b.png", tree / "1931/deep/c.jpg", tree / "a.png"]
    assert tree / "out/a.color.png" in [source.path for source in find_sources([tree], None)]


def test_patterns_are_mirrored_from_their_first_part_without_a_star(tree: Path) -> None:
    config = Config(output=OutputSettings(folder=Path("/out")))
    found = find_sources([tree / "**" / "*.[pj][np]g"], None)
    assert [source.path for source in found] == [
        tree / "1931/b.png", tree / "1931/deep/c.jpg", tree / "a.png",
    ]  # fmt: skip
    assert [str(source.settings(config).output.folder) for source in found] == [
        "/out/1931", "/out/1931/deep", "/out",
    ]  # fmt: skip
    assert Source(tree / "a.png").settings(config) is config
    odd = tree / "a[1].png"
    os.rename(tree / "a.png", odd)  # noqa: PTH104
    assert [source.path for source in find_sources([odd], None)] == [odd]  # a file of this name


def test_what_nothing_is_found_for_is_a_failure_that_names_it(tree: Path) -> None:
    told: list[str] = []
    wanted = [tree / ".trash" / "x", tree / "*.mp4", tree / "notes"]
    (tree / "notes").mkdir()
    found = find_sources(wanted, None, on_failure=lambda path, error: told.append(str(error)))
    assert [source.path for source in found] == [wanted[0]]  # a name is tried as it is
    assert [line.split(":")[0] for line in told] == [str(wanted[1]), str(wanted[2])]


def test_a_file_that_is_found_twice_is_colored_once(tree: Path) -> None:
    found = find_sources([tree / "a.png", tree, tree / "*.png"], None)
    assert [source.path for source in found].count(tree / "a.png") == 1


def test_the_name_of_results_can_be_chosen(tree: Path, model: Path) -> None:
    photo, out = tree / "1931" / "b.png", tree.parent / "out"
    pattern = "{folder}_{stem}_{model}_{quality}{suffix}"
    done = once(photo, "-o", out, "--model", model, "--name", pattern, "--quality", "draft")
    assert done.returncode == 0, done.stderr
    assert names_in(out) == [f"1931_b_{model.stem}_draft.png"]
    wrong = once(photo, "--name", "{number}{suffix}")
    assert wrong.returncode == 78 and "expected text with {stem}" in wrong.stderr


# JSON


def events(text: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(event["version"] == 1 and event["stage"] for event in found)
    return found


def test_json_has_an_event_for_every_file_also_for_those_that_are_refused(
    tree: Path, model: Path
) -> None:
    film, text = write_film(tree / "film.mp4"), tree / "notes.txt"
    color = write_photo(tree / "color.png", color=True)
    result = once(tree, text, "-o", tree.parent / "out", "--model", model, "--json")
    told = events(result.stdout)
    assert result.returncode == 1
    ends = {str(event["file"]): event["stage"] for event in told if "file" in event}
    assert ends == {
        str(tree / "a.png"): "done",
        str(tree / "1931/b.png"): "done",
        str(tree / "1931/deep/c.jpg"): "done",
        str(film): "done",
        str(color): "skipped",
        str(tree / "link.png"): "passed over",
        str(tree / "references"): "passed over",
        str(text): "failed",
    }
    assert {"joining", "checking"} <= {event["stage"] for event in told}
    assert told[-1] == {"version": 1, "stage": "finished", "exit_code": 1, "reason": ""}
    done = next(event for event in told if event["stage"] == "done")
    assert Path(str(done["target"])).stat().st_size == done["bytes"]


def test_json_of_a_dry_run_is_a_list_of_plans(tree: Path, model: Path) -> None:
    film = write_film(tree / "film.mp4")
    result = once(film, tree / "none.png", "--dry-run", "--json", "--model", model)
    planned, failed = (
        event for event in events(result.stdout) if event["stage"] in ("planned", "failed")
    )
    assert planned["target"] == str(tree / "film.color.mp4")
    assert planned["inventory"][0] == {  # type: ignore[index]
        "kind": "film", "what": "video stream 0 (mpeg4)", "fate": "converted", "how": "colored",
    }  # fmt: skip
    assert failed["file"] == str(tree / "none.png") and "No such file" in str(failed["reason"])


def test_json_says_why_a_call_ended_before_its_files(tree: Path) -> None:
    result = once(tree, "--json", "--model", tree / "none.safetensors")
    (*_, last) = events(result.stdout)
    assert (result.returncode, last["exit_code"]) == (78, 78)
    assert "none.safetensors" in str(last["reason"])


@pytest.mark.parametrize(
    "options",
    [
        ("--dry-run", "--preview"),
        ("--overwrite", "--preview"),
        ("--name", "{stem}", "--preview"),
        ("--places", "3"),
        ("--crf", "20", "--codec", "prores"),
    ],
)
def test_options_that_make_no_sense_together_are_refused_by_name(
    tree: Path, options: tuple[str, ...]
) -> None:
    result = once(tree / "a.png", *options)
    assert result.returncode == 78
    assert options[0] in result.stderr
    assert "a.color.png" not in names_in(tree)


# Time left


def test_time_left_of_a_call_goes_by_what_it_has_done_of_each_kind(tree: Path) -> None:
    short, long = write_film(tree / "short.mp4", 10), write_film(tree / "long.mp4", 30)
    photos = [write_photo(tree / f"{number}.png") for number in range(3)]
    now = 0.0
    load = Workload([short, *photos, long], clock=lambda: now)
    load.begin(short)
    now = 4.0
    assert load.seconds_left(0.5) is None  # nothing is known of photos
    now = 8.0
    load.end(short, is_done=True)
    load.begin(photos[0])
    now = 10.0
    load.end(photos[0], is_done=True)
    # Two photos of two seconds, and three times the frames that took eight.
    assert load.seconds_left(0.0) == pytest.approx(2 * 2.0 + 3 * 8.0)
    for photo in photos[1:]:
        load.begin(photo)
        load.end(photo, is_done=False)  # it had color, for instance
    load.begin(long)
    now = 22.0
    # Twenty frames' worth are done of forty, in 20 seconds.
    assert load.seconds_left(1 / 3) == pytest.approx(20.0)


def test_sigusr1_prints_the_progress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(Workload([tmp_path / "a.mp4"]))
    progress.begin(tmp_path / "a.mp4", 2.0)
    progress.advance(0.5)
    with progress_on_signal(progress):
        os.kill(os.getpid(), signal.SIGUSR1)
    line = capfd.readouterr().err
    assert line.startswith("a.mp4: 1 frame, ") and ", 25%, about " in line


def test_sigusr1_ends_nothing_before_there_is_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []

    def load(path: Path | None) -> Config:
        found.append(signal.getsignal(signal.SIGUSR1))
        raise ConfigError("enough")

    monkeypatch.setattr("colordaemon.cli.once.load", load)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        assert CliRunner().invoke(app, ["once", str(tmp_path)]).exit_code == 78
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert found == [signal.SIG_IGN]


@pytest.mark.parametrize("option", ["--json", "--dry-run"])
def test_a_call_whose_output_cannot_be_written_ends_as_after_a_signal(
    tmp_path: Path, model: Path, option: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        write_photo(tmp_path / "in" / f"{name}.png")
    words = ("once", tmp_path / "in", "-o", tmp_path / "out", "--model", model, option)
    said = tmp_path / "said"
    process = Process(colordaemon, words=words, stdout=Path("/dev/full"), stderr=said)
    assert process.wait(100.0) == 130
    told = said.read_text()
    assert "standard output: No space left on device" in told and "Traceback" not in told


def test_lines_of_progress_name_the_stage_and_the_time_for_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    films = [write_film(tmp_path / f"{number}.mp4", 20) for number in range(2)]
    now = 0.0
    load = Workload(films, clock=lambda: now)
    progress = LineProgress(load, clock=lambda: now)
    load.begin(films[0])
    progress.begin(films[0], 0.8)
    now = 10.0
    progress.advance(0.4)
    progress.stage("joining", 0.1)  # sooner than anything is said again
    now = 20.0
    progress.stage("joining", 0.2)
    assert [record.getMessage() for record in caplog.records] == [
        "0.mp4: 1 frame, 0.1 fps, 50%, about 0:10 left; about 0:30 for all",
        "0.mp4: joining, 20%; about 0:20 for all",
    ]


def test_a_dry_run_estimates_time_and_size_by_a_trial_that_leaves_nothing(
    tmp_path: Path, model: Path
) -> None:
    films = [write_film(tmp_path / f"{number}.mp4", 60) for number in range(5)]
    photo = write_photo(tmp_path / "photo.png")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    told = events(once(*films, photo, "--dry-run", "--json", "--model", model).stdout)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    found = {str(each["file"]): each["estimate"] for each in told if each["stage"] == "planned"}
    tried = [found[str(path)]["was_tried"] for path in (*films, photo)]  # type: ignore[index]
    assert tried == [True, True, True, False, False, True]
    done = once(*films, photo, "--model", model)
    assert done.returncode == 0
    for path in (*films, photo):
        result = path.with_name(f"{path.stem}.color{path.suffix}")
        size, expected = result.stat().st_size, found[str(path)]["bytes"]  # type: ignore[index]
        assert 0.3 * size < expected < 3 * size  # headers count for more in a second


def test_a_dry_run_adds_up_for_people(tmp_path: Path, model: Path) -> None:
    photos = [write_photo(tmp_path / f"{number}.png") for number in range(2)]
    lines = once(*photos, "--dry-run", "--model", model).stdout.splitlines()
    assert sum(line.startswith("  estimate   about 0:0") for line in lines) == 2
    assert lines[-1].startswith("in all     about 0:0")
