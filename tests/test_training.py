"""Training runs of a few seconds: that they learn, stop, go on and leave what they should."""

from __future__ import annotations

import copy
import csv
import errno
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import pytest
import torch
from pictures import hearing
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from colordaemon.cli.common import app
from colordaemon.config import TrainSettings
from colordaemon.errors import ConfigError, DataError, Interrupted, ModelError
from colordaemon.evaluation.metrics import Scores
from colordaemon.network.checkpoint import load_model, read_notes, read_tensors, save_model
from colordaemon.network.model import ColorNet, ModelSpec
from colordaemon.network.vgg import balance
from colordaemon.pictures.collection import collect
from colordaemon.pictures.dataset import find_pictures
from colordaemon.pictures.loader import Schedule, center_crops
from colordaemon.training import initialize as starting
from colordaemon.training import train as training
from colordaemon.training import validator
from colordaemon.training.initialize import make_objective, set_training_mode, starting_model
from colordaemon.training.losses import Objective, l2, train_step
from colordaemon.training.metrics_log import overfitting
from colordaemon.training.state import Run, averaged_weights
from colordaemon.training.train import fit_axes_of, learning_rate_share, train
from colordaemon.training.validate import Measured, Validation, validate

# Python 3.12 warns of any fork beside threads, and torch has threads. The loader only reads files.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
CPU = torch.device("cpu")
PROGRAMS = Path(__file__).parent / "programs"
BATCHES = 9  # in an epoch of these settings


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, tiny_spec: ModelSpec) -> Path:
    """A miniature that knows nothing yet, as a model file."""
    path = tmp_path_factory.mktemp("start") / "tiny.safetensors"
    torch.manual_seed(5)
    model = ColorNet(tiny_spec)
    balance(model.encoder, examples()[0])
    save_model(path, model, {})
    return path


def make_settings(start: Path, **changes: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "start": start,
        "epochs": 2,
        "batch_size": 4,
        "side": 32,
        "validation_side": 32,
        "learning_rate": 0.01,
        "held_out": 0.25,
        "loss": "l2",
        "cache": False,
        "report_pictures": 1,
        "save_seconds": 0,
    }
    return TrainSettings(**(values | changes))


@pytest.fixture
def settings(start: Path) -> TrainSettings:
    return make_settings(start)


@pytest.fixture
def run(tiny_model: ColorNet, settings: TrainSettings) -> Run:
    return Run(tiny_model, settings, CPU, BATCHES)


@pytest.fixture
def _short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "WARM_UP_STEPS", 5)


def examples(count: int = 4) -> tuple[Tensor, Tensor]:
    """Gray pictures whose color is a matter of brightness."""
    gray = torch.rand(count, 1, 8, 8).repeat_interleave(4, -1).repeat_interleave(4, -2)
    small = nn.functional.avg_pool2d(gray, 2)
    return gray, torch.cat((40 * small - 20, 80 * small - 40), 1)


class StopAfter:
    """Asks for a stop once so many batches are done; with `error`, breaks down instead."""

    def __init__(self, batches: int, error: BaseException | None = None) -> None:
        self.left, self.error, self.stop = batches, error, Event()

    def __call__(self, line: str) -> None:
        self.left -= "pictures/s" in line
        if self.left == 0:
            if self.error:
                raise self.error
            self.stop.set()


def train_until(
    batches: int, folder: Path, run_folder: Path, settings: TrainSettings, resume: bool = False
) -> None:
    """Train, with a report after every batch, and stop after so many."""
    after = StopAfter(batches)
    every = settings.model_copy(update={"report_seconds": 1e-9})
    with pytest.raises(Interrupted, match="resume"), hearing(after):
        train(folder, run_folder, every, CPU, resume=resume, stop=after.stop)


def rows(run_folder: Path) -> list[dict[str, str]]:
    with (run_folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def state(run_folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run_folder / "state.pt", weights_only=True)
    del loaded["counters"]["seconds"], loaded["origin"], loaded["judged_by"]  # these hold text
    return loaded


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit, through dicts and lists."""
    torch.testing.assert_close(one, other, atol=0, rtol=0, equal_nan=True)


# Learning


@pytest.fixture(scope="module")
def finished(
    pictures_folder: Path, start: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The folder of a run that has had time to learn."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "WARM_UP_STEPS", 5)
        settings = make_settings(start, epochs=8, learning_rate=0.005)
        assert train(pictures_folder, folder, settings, CPU) == folder / "model.safetensors"
    yield folder


def test_a_run_learns_that_brightness_means_color(finished: Path) -> None:
    first, last = rows(finished)[0], rows(finished)[-1]
    assert float(last["training_loss"]) < 0.5 * float(first["training_loss"])
    assert float(last["validation_mse"]) < 0.5 * float(last["gray_mse"])
    assert float(last["validation_accuracy"]) > float(last["gray_accuracy"])


def test_the_model_file_is_the_one_that_scored_best(finished: Path, pictures_folder: Path) -> None:
    notes = read_notes(finished / "model.safetensors")
    stated = notes["validation"]
    scores = stated["held_out"]["scores"]
    assert scores["mse"] < 0.5 * scores["gray_mse"]
    held_out = collect(pictures_folder, held_out=0.25, side=64).validation
    settings = make_settings(finished)
    model = load_model(finished / "model.safetensors")
    crops = center_crops(held_out, settings)
    again = validate(model, crops, crops[:0], settings, l2, CPU)
    # 16-bit floats in the file
    assert again.tuning_delta_e_70 == pytest.approx(stated["tuning_delta_e_70"], rel=0.02)
    assert again.held_out.scores.mse == pytest.approx(scores["mse"], rel=0.05)


def test_the_model_file_tells_what_it_was_trained_on(finished: Path) -> None:
    notes = read_notes(finished / "model.safetensors")
    assert notes["labels"] == ["animal", "face", "landscape"]
    assert notes["pictures"] == 48
    assert notes["loss"] == "l2"
    assert notes["settings"]["learning_rate"] == 0.005


def test_a_finished_model_can_compare_pictures_and_compute_in_integers(finished: Path) -> None:
    model = load_model(finished / "model.safetensors")
    assert model.axes is not None and model.peaks is not None


def test_a_finished_run_that_is_resumed_leaves_its_model_alone(
    pictures_folder: Path, tmp_path: Path, finished: Path, settings: TrainSettings
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    before = (folder / "model.safetensors").stat()
    train(pictures_folder, folder, settings, CPU, resume=True)
    after = (folder / "model.safetensors").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_an_older_model_gets_axes_and_peaks_and_keeps_all_else(
    pictures_folder: Path, tmp_path: Path, finished: Path, settings: TrainSettings
) -> None:
    """And they are those that training itself fits, for training pictures are what both take."""
    (path := tmp_path / "older").write_bytes((finished / "model.safetensors").read_bytes())
    metadata, tensors = read_tensors(path)
    older = {name: each for name, each in tensors.items() if not name.startswith("axes.")}
    save_file(older, path, {name: text for name, text in metadata.items() if name != "peaks"})
    assert load_model(path).axes is None and load_model(path).peaks is None
    fit_axes_of(path, pictures_folder, settings, CPU)
    assert read_tensors(path)[0] == metadata
    assert read_tensors(path)[1].keys() == tensors.keys()
    for name, tensor in read_tensors(path)[1].items():
        torch.testing.assert_close(tensor, tensors[name], atol=0, rtol=0)


def test_train_adds_axes_to_a_file_and_makes_no_run(
    pictures_folder: Path,
    tmp_path: Path,
    tiny_model: ColorNet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model.axes = None
    save_model(path := tmp_path / "older", tiny_model, {})
    (config := tmp_path / "config.yaml").write_text("train: {cache: false, held_out: 0.3}\n")
    words = ["train", pictures_folder, "--fit-axes", path, "--device", "cpu", "--config", config]
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert load_model(path).axes is not None
    assert {each.name for each in tmp_path.iterdir()} == {"older", "config.yaml"}


def test_every_epoch_has_a_row(finished: Path) -> None:
    assert [int(row["epoch"]) for row in rows(finished)] == list(range(1, 9))
    seen = [int(float(row["pictures"])) for row in rows(finished)]
    assert seen == [epoch * seen[0] for epoch in range(1, 9)]
    assert {"loss", "unseen_delta_e", "blots"} - set(rows(finished)[0]) == {"loss"}
    assert {row["unseen_delta_e"] for row in rows(finished)} == {""}


def test_curves_and_contact_sheets_are_pictures_of_the_right_size(finished: Path) -> None:
    curves = cv2.imread(str(finished / "curves.png"))
    assert curves is not None and curves.shape == (400, 1400, 3)
    for epoch in range(1, 9):
        sheet = cv2.imread(str(finished / f"contact-{epoch:03}.png"))
        # Three labels of three samples, each as input, output and truth.
        assert sheet is not None and sheet.shape == (3 * 32, 3 * 3 * 32, 3)


def test_a_contact_sheet_shows_input_output_and_truth(finished: Path) -> None:
    sheet = cv2.imread(str(finished / "contact-008.png"))
    assert sheet is not None
    given, guessed, true = (sheet[:32, i * 32 : (i + 1) * 32].astype(int) for i in range(3))
    assert (given.max(axis=2) == given.min(axis=2)).all()
    assert abs(guessed - true).mean() < 0.7 * abs(given - true).mean()


def test_nothing_half_written_is_left(finished: Path) -> None:
    assert not [path for path in finished.iterdir() if path.name.startswith(".")]


# A step


def loss_of(run: Run, gray: Tensor, truth: Tensor) -> Tensor:
    """The L2 loss of a batch as it is, undamaged."""
    plain = run.settings.model_copy(update={"degradations": False, "saturation": 1.0})
    loss, _ = Objective(plain, l2)(run.model, gray, truth, 0.0, torch.Generator())
    return loss


def test_a_step_moves_every_parameter_once(run: Run) -> None:
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1, fused=True)
    set_training_mode(run.model, run.settings)
    run.model.encoder.requires_grad_(True)
    before = copy.deepcopy(dict(run.model.named_parameters()))
    train_step(run.model, optimizer, loss_of(run, *examples()))
    for name, parameter in run.model.named_parameters():
        if "classifier" in name:
            assert parameter.grad is None
            continue
        assert parameter.grad is not None
        expected = before[name].detach() - 0.1 * parameter.grad
        torch.testing.assert_close(parameter.detach(), expected, msg=name)


def test_a_step_does_not_add_to_the_gradient_of_the_last_one(run: Run) -> None:
    frozen_rate = torch.optim.SGD(run.model.parameters(), lr=0.0, fused=True)
    batch = examples()
    run.model.eval()  # so that the norms do not change between the two
    train_step(run.model, frozen_rate, loss_of(run, *batch))
    first = [p.grad.clone() for p in run.model.parameters() if p.grad is not None]
    train_step(run.model, frozen_rate, loss_of(run, *batch))
    second = [p.grad for p in run.model.parameters() if p.grad is not None]
    assert_same(first, second)


@pytest.mark.parametrize(
    ("encoder", "moving"),
    [
        ("model", set[int]()),
        ("frozen", set[int]()),
        ("imagenet", {2, 3, 4}),
        ("scratch", {0, 1, 2, 3, 4}),
    ],
)
@pytest.mark.parametrize(
    ("loss", "idle"),
    [
        ("l2", ("classifier",)),
        ("smooth_l1", ("classifier",)),
        ("classification", ("head", "climbs.2")),
        ("joint", ()),
    ],
)
def test_only_what_should_learn_moves(
    pictures_folder: Path,
    tiny_model: ColorNet,
    start: Path,
    encoder: str,
    moving: set[int],
    loss: str,
    idle: tuple[str, ...],
) -> None:
    run = Run(tiny_model, make_settings(start, encoder=encoder, loss=loss), CPU, BATCHES)
    objective = make_objective(run.settings, run.model, find_pictures(pictures_folder), CPU)
    set_training_mode(run.model, run.settings)
    before = copy.deepcopy(dict(run.model.named_parameters()))
    for step in range(3):
        chance = torch.Generator().manual_seed(step)
        objective_loss, _ = objective(run.model, *examples(), 0.0, chance)
        train_step(run.model, run.optimizer, objective_loss)
    moved = {n for n, x in run.model.named_parameters() if not torch.equal(x, before[n])}
    stages = {int(name.split(".")[2]) for name in moved if name.startswith("encoder")}
    assert stages == moving
    decoder = {name for name in before if name.startswith("decoder")}
    resting = {n for n in decoder if n.startswith(tuple(f"decoder.{part}." for part in idle))}
    assert moved & decoder == decoder - resting


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_moves_nothing(run: Run, bad: float) -> None:
    gray, truth = examples()
    run.model.train()
    before = copy.deepcopy(dict(run.model.named_parameters()))
    assert not train_step(run.model, run.optimizer, loss_of(run, gray, truth * bad)).isfinite()
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_loss_that_is_no_number_ends_the_run_and_spoils_nothing(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def break_down(model: Any, optimizer: Any, loss: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        bad = float("nan") if steps == BATCHES + 3 else 1.0
        return train_step(model, optimizer, loss * bad)

    monkeypatch.setattr(training, "train_step", break_down)
    with pytest.raises(ModelError, match=f"training step {BATCHES + 3}: .* nan") as caught:
        train(pictures_folder, tmp_path / "run", settings, CPU)
    training_side = collect(pictures_folder, held_out=0.25, side=64).training
    schedule = Schedule([sample.source for sample in training_side], settings)
    assert schedule.batches == BATCHES
    batch = schedule.of_batch(1, 2)
    assert len(batch) == 4
    assert str(caught.value).endswith(", ".join(training_side[index].name for index in batch))
    assert state(tmp_path / "run")["counters"]["epoch"] == 1
    for tensor in state(tmp_path / "run")["parts"][0].values():
        assert tensor.isfinite().all()


# Rates and averages


def test_the_rate_climbs_stays_and_falls_to_zero() -> None:
    assert 0 < learning_rate_share(0, 0.0) <= 0.01
    assert learning_rate_share(10_000, 0.0) == learning_rate_share(10_000, 0.79) == 1
    assert learning_rate_share(10_000, 0.9) == pytest.approx(0.5)
    assert learning_rate_share(10_000, 1.0) == 0
    shares = [learning_rate_share(10_000, p / 100) for p in range(101)]
    assert shares == sorted(shares, reverse=True)


def test_a_run_of_one_epoch_cools_down_too(tiny_model: ColorNet, start: Path) -> None:
    run = Run(tiny_model, make_settings(start, epochs=1), CPU, epoch_batches=10)
    shares = []
    for run.batch in range(11):
        shares.append(run.progress())
    assert shares == pytest.approx([batch / 10 for batch in range(11)])


def test_progress_is_the_further_of_epochs_and_minutes(tiny_model: ColorNet, start: Path) -> None:
    run = Run(tiny_model, make_settings(start, epochs=10, minutes=2), CPU, BATCHES)
    run.epoch, run.seconds = 2, 90.0
    assert run.progress() == 0.75
    run.epoch = 9
    assert run.progress() == 0.9
    run.seconds = 1e6
    assert run.progress() == 1


def test_time_is_counted_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    run.count_time()
    before = run.seconds
    for seconds in (3.0, 4.5):
        now += seconds
        run.count_time()
        run.count_time()
    assert run.seconds - before == pytest.approx(7.5)


def test_averages_of_a_short_run_have_left_its_start_behind(run: Run) -> None:
    """Norms' buffers included: with a fixed decay of 0.999, 30 steps would be 3 % of the way."""
    tensors = [x for x in run.model.state_dict().values() if x.is_floating_point()]
    for run.step in range(31):
        with torch.no_grad():
            for tensor in tensors:
                tensor.fill_(float(run.step > 0))
        run.average()
    for tensor in run.averaged.state_dict().values():
        if tensor.is_floating_point():
            assert 0.9 < tensor.mean() < 1


def test_averages_of_a_long_run_are_slow(run: Run) -> None:
    run.average()
    run.step, run.batch = 1_000_000, 1
    with torch.no_grad():
        run.model.decoder.head.weight += 1.0
    before = run.averaged.state_dict()["decoder.head.weight"].clone()
    run.average()
    moved = run.averaged.state_dict()["decoder.head.weight"] - before
    torch.testing.assert_close(moved, torch.full_like(moved, 0.001), atol=1e-6, rtol=0)


def test_averages_look_back_over_less_than_the_cool_down(tiny_model: ColorNet, start: Path) -> None:
    """So that none of what they average is as noisy as before it."""
    run = Run(tiny_model, make_settings(start, epochs=10), CPU, epoch_batches=100)
    run.average()
    run.step, run.epoch = 1000, 10
    with torch.no_grad():
        run.model.decoder.head.weight += 1.0
    before = run.averaged.state_dict()["decoder.head.weight"].clone()
    for _ in range(200):  # the cool-down
        run.average()
    moved = run.averaged.state_dict()["decoder.head.weight"] - before
    assert moved.min() > 0.99


def test_a_state_of_the_version_before_goes_on(
    pictures_folder: Path, tmp_path: Path, start: Path, uninterrupted: Path
) -> None:
    """Its optimizer was not fused, its averages were torch's AveragedModel."""
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    old = torch.load(folder / "state.pt", weights_only=True)
    del old["judged_by"]
    for group in old["parts"][1]["param_groups"]:
        group["fused"] = None
    averages = {f"module.{name}": tensor for name, tensor in old["parts"][2].items()}
    old["parts"][2] = averages | {"n_averaged": torch.tensor(18)}
    torch.save(old, folder / "state.pt")
    train(pictures_folder, folder, make_settings(start, epochs=3), CPU, resume=True)
    assert len(rows(folder)) == 3


def test_the_best_figure_counts_only_for_the_same_pictures(
    pictures_folder: Path, tmp_path: Path, start: Path, uninterrupted: Path
) -> None:
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    saved = torch.load(folder / "state.pt", weights_only=True)
    saved["counters"]["best_delta_e_70"] = 0.001  # nothing will ever be better
    torch.save(saved, folder / "state.pt")
    before = load_model(folder / "model.safetensors").state_dict()
    train(pictures_folder, folder, make_settings(start, epochs=3), CPU, resume=True)
    after = load_model(folder / "model.safetensors").state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    other = make_settings(start, epochs=4, validation_pictures=5)
    train(pictures_folder, folder, other, CPU, resume=True)
    after = load_model(folder / "model.safetensors").state_dict()
    assert not all(torch.equal(after[name], before[name]) for name in before)


def test_a_million_pictures_are_told_like_ten(
    pictures_folder: Path, tmp_path: Path, start: Path, uninterrupted: Path
) -> None:
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    saved = torch.load(folder / "state.pt", weights_only=True)
    saved["counters"]["pictures_seen"] = 1_234_567
    torch.save(saved, folder / "state.pt")
    train(pictures_folder, folder, make_settings(start, epochs=4), CPU, resume=True)
    assert [row["pictures"] for row in rows(folder)][2:] == ["1234603", "1234639"]


@pytest.mark.parametrize("seed", [0, 20_261_128])
def test_any_seed_will_do(pictures_folder: Path, tmp_path: Path, start: Path, seed: int) -> None:
    settings = make_settings(start, epochs=1, pictures_per_epoch=4, seed=seed)
    assert train(pictures_folder, tmp_path, settings, CPU).exists()


def test_averaged_weights_are_lent_and_given_back(run: Run) -> None:
    run.average()
    with torch.no_grad():
        run.model.decoder.head.weight += 1.0
    own = copy.deepcopy(run.model.state_dict())
    with averaged_weights(run):
        lent = copy.deepcopy(run.model.state_dict())
    assert_same(lent, dict(run.averaged.state_dict()))
    assert_same(dict(run.model.state_dict()), dict(own))
    with pytest.raises(RuntimeError, match="on purpose"), averaged_weights(run):
        raise RuntimeError("on purpose")
    assert_same(dict(run.model.state_dict()), dict(own))


def test_evaluation_changes_neither_the_model_nor_chance(
    pictures_folder: Path, run: Run, settings: TrainSettings
) -> None:
    crops = center_crops(find_pictures(pictures_folder), settings)
    set_training_mode(run.model, settings)
    before, chance = copy.deepcopy(run.model.state_dict()), torch.get_rng_state()
    first = validate(run.model, crops, crops[:0], settings, l2, CPU)
    assert validate(run.model, crops, crops[:0], settings, l2, CPU) == first
    assert first.held_out.scores.pictures == len(crops) // 2
    assert_same(dict(run.model.state_dict()), dict(before))
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize(
    ("encoder", "frozen_stages", "learning"),
    [("model", None, ""), ("model", 3, "34"), ("imagenet", None, "234"), ("scratch", 4, "4")],
)
def test_as_many_stages_of_the_encoder_learn_as_the_settings_say(
    settings: TrainSettings, encoder: str, frozen_stages: int | None, learning: str
) -> None:
    model = ColorNet(ModelSpec(encoder=((4,),) * 5, decoder=(4,) * 4))
    told = settings.model_copy(update={"encoder": encoder, "frozen_stages": frozen_stages})
    set_training_mode(model, told)
    moving = {
        number
        for number, stage in enumerate(model.encoder.stages)
        if all(parameter.requires_grad for parameter in stage.parameters())
    }
    assert moving == {int(number) for number in learning}


def test_a_cosine_falls_from_one_to_zero_all_along() -> None:
    shares = [learning_rate_share(10_000, p / 100, "cosine") for p in range(101)]
    assert shares[0] == 1 and shares[50] == pytest.approx(0.5) and shares[100] == 0
    assert shares == sorted(shares, reverse=True)


def test_overfitting_is_called_by_its_name_and_nothing_else_is() -> None:
    def history(trained: list[float], validated: list[float]) -> list[dict[str, str]]:
        return [
            {"epoch": str(n), "training_loss": str(a), "validation_loss": str(b)}
            for n, (a, b) in enumerate(zip(trained, validated, strict=True), 1)
        ]

    falling = [5.0, 4.0, 3.0, 2.0, 1.0]
    warning = overfitting(history(falling, [5.0, 4.0, 4.5, 4.6, 4.8]))
    assert warning is not None and "since epoch 2" in warning and "4.0000 to 4.8000" in warning
    assert overfitting(history(falling, falling)) is None
    assert overfitting(history(falling, [5.0, 4.0, 4.5, 3.9, 4.8])) is None  # a better one since
    assert overfitting(history(falling[:3], [4.0, 4.5, 4.6])) is None  # too early to say
    assert overfitting(history(falling[::-1], [1.0, 2.0, 3.0, 4.0, 5.0])) is None  # it diverges


# Stopping and going on


@pytest.fixture(scope="module")
def uninterrupted(
    pictures_folder: Path, start: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(pictures_folder, folder, make_settings(start), CPU)
    return folder


def assert_same_run(run_folder: Path, expected: Path) -> None:
    assert_same(state(run_folder), state(expected))
    assert rows(run_folder) == rows(expected)
    name = "model.safetensors"  # its metadata come in any order
    assert_same(load_file(run_folder / name), load_file(expected / name))
    one, other = (read_notes(folder / name) for folder in (run_folder, expected))
    assert (one["validation"], one["origin"]) == (other["validation"], other["origin"])


@pytest.mark.parametrize("batches", [1, BATCHES, BATCHES + 3, 2 * BATCHES])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    batches: int,
    pictures_folder: Path,
    tmp_path: Path,
    settings: TrainSettings,
    uninterrupted: Path,
) -> None:
    train_until(batches, pictures_folder, tmp_path, settings)
    assert state(tmp_path)["counters"]["step"] == batches
    train(pictures_folder, tmp_path, settings, CPU, resume=True)
    assert_same_run(tmp_path, uninterrupted)


def test_a_run_may_be_stopped_more_than_once(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings, uninterrupted: Path
) -> None:
    train_until(2, pictures_folder, tmp_path, settings)
    train_until(3, pictures_folder, tmp_path, settings, resume=True)
    assert state(tmp_path)["counters"]["step"] == 5
    train(pictures_folder, tmp_path, settings, CPU, resume=True)
    assert_same_run(tmp_path, uninterrupted)


def test_a_killed_run_goes_on_from_its_last_epoch(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings, uninterrupted: Path
) -> None:
    every = settings.model_copy(update={"report_seconds": 1e-9})
    killed = StopAfter(BATCHES + 3, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), hearing(killed):
        train(pictures_folder, tmp_path, every, CPU)
    train(pictures_folder, tmp_path, settings, CPU, resume=True)
    assert_same_run(tmp_path, uninterrupted)


def test_states_are_saved_no_oftener_than_wanted_but_always_at_the_end(
    pictures_folder: Path, tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = Run.save

    def count(run: Run, path: Path) -> None:
        saved.append(run.epoch)
        save(run, path)

    monkeypatch.setattr(Run, "save", count)
    settings = make_settings(start, epochs=3, pictures_per_epoch=4, save_seconds=1000)
    train(pictures_folder, tmp_path, settings, CPU)
    assert saved == [3]
    assert len(rows(tmp_path)) == 3


def test_a_stop_in_the_first_epoch_leaves_a_state_and_no_model(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings
) -> None:
    train_until(3, pictures_folder, tmp_path, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.txt", "state.pt"]


def test_a_finished_run_resumed_does_nothing(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings, uninterrupted: Path
) -> None:
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    train(pictures_folder, folder, settings, CPU, resume=True)
    assert_same_run(folder, uninterrupted)


def test_a_finished_run_can_be_prolonged(
    pictures_folder: Path, tmp_path: Path, start: Path, uninterrupted: Path
) -> None:
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    train(pictures_folder, folder, make_settings(start, epochs=3), CPU, resume=True)
    assert rows(folder)[:2] == rows(uninterrupted)
    assert len(rows(folder)) == 3


def test_a_resumed_run_takes_the_new_learning_rate(uninterrupted: Path, start: Path) -> None:
    slower = make_settings(start, learning_rate=0.001)
    run = Run.load(uninterrupted / "state.pt", slower, CPU, BATCHES)
    assert run.optimizer.param_groups[0]["base_lr"] == 0.001


def test_a_run_resumes_without_the_model_it_started_from(
    pictures_folder: Path, tmp_path: Path, start: Path, uninterrupted: Path
) -> None:
    borrowed = tmp_path / "start.safetensors"
    shutil.copy(start, borrowed)
    moved = make_settings(borrowed)
    train_until(2, pictures_folder, tmp_path / "run", moved)
    borrowed.unlink()
    train(pictures_folder, tmp_path / "run", moved, CPU, resume=True)
    assert_same(state(tmp_path / "run"), state(uninterrupted))


def test_ctrl_c_does_not_end_the_loader_before_the_run(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings, uninterrupted: Path
) -> None:
    """A terminal sends SIGINT to every process of the group."""

    def interrupt_loaders(_: str) -> None:
        for child in multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGINT)

    every = settings.model_copy(update={"report_seconds": 1e-9})
    with hearing(interrupt_loaders):
        train(pictures_folder, tmp_path, every, CPU)
    assert_same(state(tmp_path), state(uninterrupted))


def test_time_runs_out_within_an_epoch(pictures_folder: Path, tmp_path: Path, start: Path) -> None:
    path = train(pictures_folder, tmp_path, make_settings(start, minutes=1e-9), CPU)
    assert path.exists()
    assert [int(float(row["pictures"])) for row in rows(tmp_path)] == [4]


# Several processes


def test_two_processes_train_one_model(pictures_folder: Path, tmp_path: Path, start: Path) -> None:
    script, run_folder = PROGRAMS / "training_together.py", tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", *map(str, (script, pictures_folder, run_folder, start))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    counters = state(run_folder)["counters"]
    assert counters["epoch"] == 2
    assert counters["pictures_seen"] == 2 * counters["step"] * 2  # two of each step a process
    assert [int(row["epoch"]) for row in rows(run_folder)] == [1, 2]
    trained = load_model(run_folder / "model.safetensors")
    assert not torch.equal(trained.decoder.head.weight, load_model(start).decoder.head.weight)


# What is kept


def test_a_worse_epoch_does_not_replace_the_best_model(
    pictures_folder: Path, tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter((3.0, 1.0, 2.0))

    def judge(*_: object) -> Validation:
        scores = Scores(9, 5.0, 0.5, 10.0, 10.0, 4.0, 0.4)
        measured = Measured(0.1, scores, 9.0, 9.0, 10.0, 20.0, 40.0, 0.01)
        return Validation(measured, None, tuning_delta_e_70=next(results))

    monkeypatch.setattr(validator, "validate", judge)
    path = train(pictures_folder, tmp_path, make_settings(start, epochs=3), CPU)
    assert read_notes(path)["validation"]["tuning_delta_e_70"] == 1.0
    assert state(tmp_path)["counters"]["best_delta_e_70"] == 1.0
    assert len(rows(tmp_path)) == 3


def test_a_full_disk_leaves_the_last_state_intact(
    pictures_folder: Path,
    tmp_path: Path,
    start: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "run"))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train(pictures_folder, folder, make_settings(start, epochs=3), CPU, resume=True)
    assert_same_run(folder, uninterrupted)


def test_a_run_is_not_overwritten(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings, uninterrupted: Path
) -> None:
    folder = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    with pytest.raises(DataError, match="holds a run already"):
        train(pictures_folder, folder, settings, CPU)
    assert_same_run(folder, uninterrupted)


def test_a_folder_that_cannot_be_written_is_found_out_first(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="file/run: a run cannot be written here"):
        train(pictures_folder, tmp_path / "file" / "run", settings, CPU)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_torn_state_is_named(
    pictures_folder: Path,
    tmp_path: Path,
    settings: TrainSettings,
    uninterrupted: Path,
    share: float,
) -> None:
    content = (uninterrupted / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"state\.pt: expected the state of a training run"):
        train(pictures_folder, tmp_path, settings, CPU, resume=True)


def test_resuming_what_was_never_begun_says_so_and_begins(
    pictures_folder: Path, tmp_path: Path, settings: TrainSettings, uninterrupted: Path
) -> None:
    lines: list[str] = []
    with hearing(lines.append):
        train(pictures_folder, tmp_path, settings, CPU, resume=True)
    assert any("no run to continue" in line for line in lines)
    assert_same_run(tmp_path, uninterrupted)


# Where a run starts


def test_without_a_name_training_starts_from_the_bundled_model_and_says_so(
    start: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(starting, "BUILT_IN", start)
    with caplog.at_level(logging.INFO):
        model = starting_model(TrainSettings(), [])
    assert f"starting from the built-in model ({start})" in caplog.text
    assert_same(dict(model.state_dict()), dict(load_model(start).state_dict()))


def test_a_missing_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.safetensors: no such model"):
        starting_model(make_settings(tmp_path / "gone.safetensors"), [])


# Pictures


@pytest.fixture
def folder(pictures_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(pictures_folder, tmp_path / "pictures"))


@pytest.fixture
def one_batch(start: Path) -> TrainSettings:
    return make_settings(start, epochs=1, pictures_per_epoch=4)


def test_a_subset_trains_on_one_label(pictures_folder: Path, tmp_path: Path, start: Path) -> None:
    settings = make_settings(start, epochs=1, pictures_per_epoch=4, subset="face")
    path = train(pictures_folder, tmp_path, settings, CPU)
    assert read_notes(path)["labels"] == ["face"]
    assert read_notes(path)["pictures"] == 16


def test_an_epoch_may_be_longer_than_the_collection(
    pictures_folder: Path, tmp_path: Path, start: Path
) -> None:
    settings = make_settings(start, epochs=1, pictures_per_epoch=120)
    train(pictures_folder, tmp_path, settings, CPU)
    assert [row["pictures"] for row in rows(tmp_path)] == ["120"]


def test_whole_sources_are_held_out_judged_and_named(
    folder: Path, tmp_path: Path, start: Path
) -> None:
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    lines = [f"{name},{'away' if name.endswith('5.png') else 'home'}" for name in names]
    (folder / "sources.csv").write_text("\n".join(["file,source", *lines]))
    settings = make_settings(start, epochs=1, pictures_per_epoch=4, held_out_sources=("away",))
    path = train(folder, tmp_path / "run", settings, CPU)
    notes = read_notes(path)
    assert notes["unseen_sources"] == ["away"] and notes["crops_seen"] == 4
    assert notes["validation"]["unseen"]["scores"]["pictures"] == 3  # half of those there are
    (row,) = rows(tmp_path / "run")
    assert float(row["unseen_delta_e"]) > 0 and float(row["unseen_blots"]) >= 0
    for name in ("report.html", "model-card.md"):
        text = (tmp_path / "run" / name).read_text()
        assert "Pictures of the sources away were held out whole: what is measured here" in text


def test_training_needs_no_library_for_films_photos_or_folders(
    pictures_folder: Path, tmp_path: Path, start: Path
) -> None:
    """A bare machine with a GPU has torch and OpenCV, and nothing else."""
    (tmp_path / "config.yaml").write_text(
        "train: {epochs: 1, batch_size: 4, side: 32, validation_side: 32, held_out: 0.25,"
        " pictures_per_epoch: 4, report_pictures: 1, cache: false}"
    )
    command = [sys.executable, str(PROGRAMS / "training_bare.py"), "train", str(pictures_folder)]
    command += ["-o", str(tmp_path / "run"), "--from", str(start), "--device", "cpu"]
    command += ["--config", str(tmp_path / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()


def test_unreadable_pictures_and_videos_are_named_and_training_goes_on(
    folder: Path, tmp_path: Path, one_batch: TrainSettings, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "face" / "03.png").write_bytes(b"torn")
    (folder / "face" / "clip.mp4").write_bytes(b"film")
    (folder / "empty").mkdir()
    path = train(folder, tmp_path / "run", one_batch, CPU)
    assert read_notes(path)["pictures"] == 47
    for name in ("face/03.png", "face/clip.mp4", "empty"):
        assert name in caplog.text


def test_a_label_with_one_picture_trains_with_the_others(
    folder: Path, tmp_path: Path, one_batch: TrainSettings
) -> None:
    (folder / "rare").mkdir()
    pixels = cv2.imread(str(folder / "face" / "00.png"))
    assert pixels is not None
    cv2.imwrite(str(folder / "rare" / "00.png"), pixels[:, ::-1])  # a copy would be left out
    path = train(folder, tmp_path / "run", one_batch, CPU)
    assert "rare" in read_notes(path)["labels"]


def test_a_label_with_one_picture_alone_is_too_little(
    folder: Path, tmp_path: Path, start: Path
) -> None:
    (folder / "rare").mkdir()
    shutil.copy(folder / "face" / "00.png", folder / "rare")
    with pytest.raises(DataError, match="1 usable pictures give"):
        train(folder, tmp_path / "run", make_settings(start, subset="rare"), CPU)


def test_fewer_pictures_than_a_batch_are_too_few(
    pictures_folder: Path, tmp_path: Path, start: Path
) -> None:
    with pytest.raises(DataError, match="do not fill a batch of 64"):
        train(pictures_folder, tmp_path, make_settings(start, batch_size=64), CPU)


@pytest.mark.gpu
def test_a_gpu_learns_too(pictures_folder: Path, tmp_path: Path, start: Path) -> None:
    # Not compiled: torch's compiler warns of itself and keeps a thread, both errors here.
    settings = make_settings(start, epochs=4, compile=False)
    train(pictures_folder, tmp_path, settings, torch.device("cuda"))
    assert float(rows(tmp_path)[-1]["training_mse"]) < float(rows(tmp_path)[0]["training_mse"])
