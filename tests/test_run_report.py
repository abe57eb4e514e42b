"""The closing page of a run and the model's card: what they say, and what must not stop them."""

from __future__ import annotations

import base64
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pictures import hearing

from colordaemon.config import TrainSettings
from colordaemon.errors import Interrupted
from colordaemon.evaluation.pictures import Evaluation, Table, evaluate_pictures
from colordaemon.logs import printable
from colordaemon.network.checkpoint import load_model, read_notes, save_model
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.device import choose_dtype
from colordaemon.network.model import ColorNet, ModelSpec
from colordaemon.pictures.collection import Collection, collect
from colordaemon.pictures.dataset import Picture
from colordaemon.training import validator
from colordaemon.training.distributed import Team
from colordaemon.training.run_report import (
    THIS_MODEL,
    Outcome,
    against_gray,
    duration,
    escaped,
    model_card,
    origin_in_words,
    overfitting_in_words,
    page,
)
from colordaemon.training.train import train
from colordaemon.training.validator import reported

# Python 3.12 warns of any fork beside threads, and torch has threads. The loader only reads files.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
CPU = torch.device("cpu")
COMMAND = "colordaemon train 'my <pictures> & more' -o 'runs/a\nb'"
WRITTEN = ("model-card.md", "report.html", "worst-best.png")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, tiny_spec: ModelSpec) -> Path:
    path = tmp_path_factory.mktemp("start") / "tiny.safetensors"
    torch.manual_seed(5)
    notes = {"labels": ["flower"], "data_fingerprint": "0123abcd", "secret": "not passed on"}
    save_model(path, ColorNet(tiny_spec), notes)
    return path


def make_settings(start: Path, **changes: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "start": start,
        "epochs": 2,
        "batch_size": 4,
        "side": 32,
        "validation_side": 32,
        "learning_rate": 0.01,
        "held_out": 0.3,
        "cache": False,
    }
    return TrainSettings(**(values | changes))


@pytest.fixture
def settings(start: Path) -> TrainSettings:
    return make_settings(start, epochs=1, pictures_per_epoch=4, report_pictures=2)


@pytest.fixture(scope="module")
def seen() -> list[Outcome]:
    return []


@pytest.fixture(scope="module")
def finished(
    pictures_folder: Path,
    start: Path,
    tmp_path_factory: pytest.TempPathFactory,
    seen: list[Outcome],
) -> Iterator[Path]:
    """The folder of a finished run; what its page was made from is in `seen`."""
    folder = tmp_path_factory.mktemp("finished") / "run <1> & `x|y`"

    def remember(outcome: Outcome) -> str:
        seen.append(outcome)
        return page(outcome)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validator, "page", remember)
        train(pictures_folder, folder, make_settings(start), CPU, command=COMMAND)
    yield folder


@pytest.fixture
def outcome(finished: Path, seen: list[Outcome]) -> Outcome:
    assert finished.exists()
    return seen[0]


@pytest.fixture
def html(finished: Path) -> str:
    return (finished / "report.html").read_text()


@pytest.fixture
def card(finished: Path) -> str:
    return (finished / "model-card.md").read_text()


def held_out(pictures_folder: Path) -> Collection:
    return collect(pictures_folder, held_out=0.3, side=64)


# What they say


def test_page_and_card_say_what_the_model_file_scores_in_use(
    finished: Path, html: str, card: str, pictures_folder: Path
) -> None:
    validation = held_out(pictures_folder).validation
    pictures = [sample.picture for sample in validation[1::2]]
    model = load_model(finished / "model.safetensors")
    colorizer = Colorizer(model, CPU, choose_dtype("auto", CPU))
    expected = evaluate_pictures(pictures, [(THIS_MODEL, colorizer)])
    assert len(expected.tables) == 4
    for table in expected.tables:
        assert f"<caption>{table.label}: {table.pictures}</caption>" in html
        for row in table.rows:
            figures = [f"{row.mse:.1f}", f"{100 * row.accuracy:.1f}", f"{row.auc:.1f}"]
            figures += [f"{row.auc_rebalanced:.1f}", f"{row.psnr:.2f}", f"{row.delta_e:.2f}"]
            assert "".join(f"<td>{figure}</td>" for figure in figures) in html
            assert f"| {row.name} | {' | '.join(figures)} |" in card
            share = 100 * (row.colorfulness_share or 0.0)
            assert f"<td>{share:.0f}</td><td>{100 * row.blots:.1f}</td></tr>" in html
        assert against_gray(table) in unescape(html)
        assert f"- {table.label}: {against_gray(table)}." in card


def test_page_and_card_tell_what_was_trained_on_what_and_how(
    html: str, card: str, pictures_folder: Path, outcome: Outcome
) -> None:
    collection = held_out(pictures_folder)
    for text in (html, card):
        assert collection.fingerprint in text
        assert pictures_folder.name in text
        assert outcome.decoding_in_words in text
        assert "tiny.safetensors (labels flower; data fingerprint 0123abcd)" in text
        assert "secret" not in text
        assert f"torch {torch.__version__}" in text
        assert "learning_rate: 0.01" in text
        assert "validation_pictures" not in text  # as it is by default
    for label, *counts in collection.table()[1:]:
        assert f"<th>{label}</th>{''.join(f'<td>{n}</td>' for n in counts)}" in html
        assert f"| {label} | {' | '.join(counts)} |" in card
    assert f"<dd>{outcome.pictures_seen}</dd>" in html
    assert overfitting_in_words(outcome.epochs) in html
    assert "responsibility of whoever trained the model" in card and "synthetic" in card


def test_the_exact_command_can_be_copied(html: str, card: str) -> None:
    shown = re.search(r"<pre>(.*?)</pre>", html, re.DOTALL)
    assert shown is not None and unescape(shown[1]) == COMMAND
    assert f"```\n{COMMAND}\n```" in card


def test_without_a_command_line_there_is_no_command(outcome: Outcome) -> None:
    silent = replace(outcome, command="")
    assert "<pre>" not in page(silent) and "```" not in model_card(silent)


def test_the_page_needs_no_other_file_and_no_script(html: str, finished: Path) -> None:
    assert not re.search(r"<script|<link|https?:|url\(|@import", html)
    sources = re.findall(r'src="([^"]*)"', html)
    names = ("worst-best.png", "contact-002.png", "curves.png")
    assert len(sources) == len(names)
    for source, name in zip(sources, names, strict=True):
        encoded = source.removeprefix("data:image/png;base64,")
        assert base64.b64decode(encoded) == (finished / name).read_bytes()


def test_every_tag_of_the_page_is_closed(html: str) -> None:
    class Checker(HTMLParser):
        opened: list[str] = []  # noqa: RUF012  (one instance)

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "img"):
                self.opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.opened.pop() == tag

    checker = Checker()
    checker.feed(html)
    checker.close()
    assert not checker.opened


# Names


def test_names_are_shown_and_mean_nothing_to_a_browser_or_to_markdown(
    outcome: Outcome, html: str, card: str
) -> None:
    assert "<h1>Training run run &lt;1&gt; &amp; `x|y`</h1>" in html
    assert r"# Model card: run \<1\> \& \`x\|y\`" in card.splitlines()
    bad = "a<b>&\n|*\x1b\udcff"
    table = outcome.evaluation.tables[0]
    evaluation = replace(outcome.evaluation, tables=(Table(bad, table.pictures, table.rows),))
    origin = {"weights": bad, "notes": {"labels": [bad]}}
    settings = outcome.settings.model_copy(update={"subset": bad})
    named = replace(outcome, name=bad, evaluation=evaluation, origin=origin, settings=settings)
    for text, expected in (
        (page(named), r"a&lt;b&gt;&amp;\n|*\x1b\udcff"),
        (model_card(named), r"a\<b\>\&\\n\|\*\\x1b\\udcff"),
    ):
        assert text.count(expected) >= 5
        assert "a<b>" not in text and "\x1b" not in text
        text.encode()


def test_a_label_of_any_name_is_trained_on_and_written_about(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings
) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(pictures_folder / "face", folder / "<i>&\nface|")
    train(folder, tmp_path / "run", settings, CPU)
    html = (tmp_path / "run" / "report.html").read_text()
    assert r"<th>&lt;i&gt;&amp;\nface|</th><td>16</td>" in html and "<i>" not in html
    assert r"| \<i\>\&\\nface\| | 16 |" in (tmp_path / "run" / "model-card.md").read_text()


def test_a_command_with_backticks_stays_in_its_fence(outcome: Outcome) -> None:
    text = model_card(replace(outcome, command="train '```\n# Heading'"))
    assert text.endswith("\n````\ntrain '```\n# Heading'\n````\n")


def test_control_characters_are_made_visible_and_letters_left_alone() -> None:
    assert printable("Fön 犬\n\x1b[2J\u202e\udcff") == r"Fön 犬\n\x1b[2J\u202e\udcff"
    assert escaped("a_b") == r"a\_b"


# Words


def history(trained: list[float], validated: list[float]) -> list[dict[str, str]]:
    return [
        {"epoch": str(n), "training_loss": str(a), "validation_loss": str(b)}
        for n, (a, b) in enumerate(zip(trained, validated, strict=True), 1)
    ]


def test_overfitting_is_told_in_every_case() -> None:
    falling = [5.0, 4.0, 3.0, 2.0, 1.0]
    short = overfitting_in_words(history(falling[:3], [4.0, 4.5, 4.6]))
    assert short.startswith("Too few epochs to tell") and "at least 4" in short and "had 3" in short
    bad = overfitting_in_words(history(falling, [5.0, 4.0, 4.5, 4.6, 4.8]))
    assert bad.startswith("Overfitting: since epoch 2") and bad.endswith("more epochs not.")
    good = overfitting_in_words(history(falling, [5.0, 4.0, 4.2, 3.5, 3.6]))
    assert good.startswith("No sign of overfitting") and "epoch 4 of 5 (3.5000)" in good
    assert "ended at 3.6000" in good and "from 5.0000 to 1.0000" in good


def verdict(outcome: Outcome, delta_e: float, chroma_share: float | None, pictures: int) -> str:
    """With gray at a CIEDE2000 of 10."""
    gray, mean, model, truth = outcome.evaluation.tables[0].rows
    rows = (
        replace(gray, delta_e=10.0),
        mean,
        replace(model, delta_e=delta_e, chroma_share=chroma_share),
        truth,
    )
    return against_gray(Table("face", pictures, rows))


def test_a_verdict_says_better_or_worse_than_gray_and_how_strong(outcome: Outcome) -> None:
    assert verdict(outcome, 8.0, 0.71, 100) == (
        "20 % closer to the truth than gray, CIEDE2000 8.00 against 10.00, with 71 % of the "
        "truth's chroma"
    )
    assert verdict(outcome, 11.5, 0.5, 100).startswith("15 % further from the truth than gray")
    assert verdict(outcome, 9.95, 0.5, 100).startswith("no closer to the truth than gray")
    assert "the truth has no chroma" in verdict(outcome, 10.0, None, 100)
    assert verdict(outcome, 8.0, 0.7, 19).endswith("(pictures: 19, so mostly chance)")


def test_origins_are_told_back_to_the_first(start: Path) -> None:
    first = {"weights": "noise"}
    second = {"weights": "a.safetensors", "notes": {"pictures": 7, "origin": first}}
    assert origin_in_words(second) == "a.safetensors (pictures 7), which started from noise"
    assert origin_in_words({}) == "not known"


def test_durations_are_short() -> None:
    assert [duration(s) for s in (41.7, 150, 3599, 3900)] == [
        "42 s", "2 min", "1 h 00 min", "1 h 05 min"
    ]  # fmt: skip


# What is judged


def test_only_the_reporting_half_is_judged_and_no_more_than_asked_for(
    pictures_folder: Path, outcome: Outcome
) -> None:
    validation = held_out(pictures_folder).validation
    names = [sample.name for sample in validation]
    half = names[1::2]
    assert len(half) > 3
    assert [picture.name for picture, _ in outcome.evaluation.delta_e] == half
    some = [picture.name for picture in reported(validation, 3)]
    assert len(some) == 3 and set(some) < set(half)
    assert [picture.name for picture in reported(validation[:1], 3)] == names[:1]


def test_where_a_run_began_is_remembered_when_it_goes_on(
    pictures_folder: Path, finished: Path, start: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    forgetful = make_settings(tmp_path / "gone.safetensors", epochs=3)
    path = train(pictures_folder, folder, forgetful, CPU, resume=True)
    assert "tiny.safetensors (labels flower" in (folder / "model-card.md").read_text()
    assert read_notes(path)["origin"]["notes"]["data_fingerprint"] == "0123abcd"
    assert "<dt>epochs</dt><dd>3</dd>" in (folder / "report.html").read_text()


# When there is none, and when it fails


def test_a_run_that_time_ended_has_a_page(
    pictures_folder: Path, tmp_path: Path, start: Path
) -> None:
    train(pictures_folder, tmp_path, make_settings(start, minutes=1e-9, report_pictures=1), CPU)
    assert all((tmp_path / name).exists() for name in WRITTEN)
    assert "this run had 1." in (tmp_path / "report.html").read_text()


def test_a_run_that_was_interrupted_has_none(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings
) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        train(pictures_folder, tmp_path, settings, CPU, stop=stop)
    assert not any((tmp_path / name).exists() for name in WRITTEN)


def test_a_stop_while_the_model_is_judged_leaves_a_finished_run(
    pictures_folder: Path,
    tmp_path: Path,
    settings: TrainSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = Event()

    def say(line: str) -> None:
        if line.startswith("evaluating the best model"):
            stop.set()

    with hearing(say):
        path = train(pictures_folder, tmp_path, settings, CPU, stop=stop)
    assert path.exists() and not any((tmp_path / name).exists() for name in WRITTEN)
    assert "the run is finished, but has no report; resume tries again (stopped" in caplog.text
    train(pictures_folder, tmp_path, settings, CPU, resume=True)
    assert all((tmp_path / name).exists() for name in WRITTEN)


def test_a_full_disk_costs_the_page_and_not_the_model(
    pictures_folder: Path,
    tmp_path: Path,
    settings: TrainSettings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(validator, "replace_file", full)
    path = train(pictures_folder, tmp_path, settings, CPU)
    assert load_model(path)
    mine = [record for record in caplog.records if record.name == validator.__name__]
    [warning] = [record for record in mine if record.levelno >= logging.WARNING]
    assert "No space left" in warning.getMessage()
    assert not (tmp_path / "report.html").exists()


def test_a_picture_that_vanished_is_named(
    pictures_folder: Path,
    tmp_path: Path,
    settings: TrainSettings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = Picture("face", "face/gone.png", tmp_path / "gone.png", archive=False)
    monkeypatch.setattr(validator, "reported", lambda *_: [gone])
    assert train(pictures_folder, tmp_path / "run", settings, CPU).exists()
    assert "has no report" in caplog.text and "gone.png" in caplog.text


@pytest.mark.logs_errors
def test_a_page_that_breaks_down_says_where_and_ends_nothing(
    pictures_folder: Path,
    tmp_path: Path,
    settings: TrainSettings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> Evaluation:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(validator, "evaluate_pictures", broken)
    assert train(pictures_folder, tmp_path, settings, CPU).exists()
    assert "Traceback" in caplog.text and "on purpose" in caplog.text


def test_only_the_leader_of_a_team_closes_a_run(
    pictures_folder: Path,
    tmp_path: Path,
    settings: TrainSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Team, "leads", False)
    train(pictures_folder, tmp_path, settings, CPU)
    assert not list(tmp_path.iterdir())


def test_the_worst_median_and_best_are_on_one_sheet(finished: Path) -> None:
    sheet = cv2.imread(str(finished / "worst-best.png"))
    assert sheet is not None and sheet.shape[1] == 9 * 160 + 24
    assert np.ptp(sheet) > 100
