"""Training, on one page: epochs of steps, judged on pictures held out.

A run is a folder. state.pt holds everything a later run needs to go on (weights, averages,
optimizer, position in the data); model.safetensors is the best model so far, ready for use. Both
are replaced in one step, so that a run can be stopped at any line: killed within an epoch, it goes
on from the epoch's start, and stopped on request, after the last batch done. Chance depends only on
the seed and the position in the data, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any, Literal

import torch

from colordaemon.config import TrainSettings
from colordaemon.errors import ConfigError, DataError, Interrupted, ModelError
from colordaemon.network.checkpoint import save_model
from colordaemon.network.model import ColorNet, decode
from colordaemon.training.dataset import (
    Crops,
    Picture,
    find_pictures,
    fingerprint,
    readable,
    split,
    to_gray_and_ab,
)
from colordaemon.training.loader import batches, epoch_batches, load
from colordaemon.training.metrics import Scores, ScoreSum
from colordaemon.training.report import Report
from colordaemon.training.run import Run, averaged_weights
from colordaemon.training.start import make_objective, set_training_mode, starting_model
from colordaemon.training.step import Objective, autocast, train_step

log = logging.getLogger(__name__)

WARM_UP_STEPS = 200
COOL_DOWN_SHARE = 0.2  # the last fifth of a run brings the learning rate down to zero


def train(
    folder: Path,
    run_folder: Path,
    settings: TrainSettings,
    device: torch.device,
    *,
    resume: bool = False,
    stop: Event | None = None,
    report_progress: Callable[[str], None] = log.info,
) -> Path:
    """Train on a folder of labeled pictures; returns the path of the best model file.

    Raises ConfigError, DataError, ModelError, and Interrupted once `stop` is set and the state is
    saved.
    """
    stop = stop or Event()
    state_path, model_path = run_folder / "state.pt", run_folder / "model.safetensors"
    if state_path.exists() and not resume:
        raise DataError(f"{run_folder}: holds a run already; resume it or name another folder")
    _check_writable(run_folder)
    training, validation = _pictures(folder, settings)
    batch_count = epoch_batches(training, settings)
    if state_path.exists():
        run = Run.load(state_path, settings, device, batch_count)
        report_progress(f"going on after {run.pictures_seen} pictures, epoch {run.epoch + 1}")
    else:
        if resume:
            report_progress(f"{run_folder}: no run to go on with, starting a new one")
        torch.manual_seed(settings.seed)
        run = Run(starting_model(settings, training), settings, device, batch_count)
    objective = make_objective(settings, run.model, training, device)
    report = Report(run_folder, Crops(_samples(validation), settings.validation_side, train=False))
    notes = _notes([*training, *validation], settings)
    while run.progress() < 1.0 or run.batch:  # a run may be stopped between its last batch and here
        train_epoch(run, objective, training, stop, report_progress)
        if stop.is_set():
            run.save(state_path)
            raise Interrupted(f"{run_folder}: stopped after {run.pictures_seen} pictures; resume")
        run.epoch, run.batch = run.epoch + 1, 0
        trained, run.trained = run.trained.scores(), ScoreSum()
        with averaged_weights(run):
            scores = evaluate(run.model, validation, settings, device)
            best = scores.mse < run.best_mse
            if best:
                run.best_mse = scores.mse
                save_model(model_path, run.model, {**notes, "validation": asdict(scores)})
            report.add_epoch(run.epoch, run.pictures_seen, trained, scores, best)
            report.draw_contact_sheet(run.epoch, run.model, device)
        run.count_time()
        run.save(state_path)
        report_progress(report.last_line)
    return model_path


def train_epoch(
    run: Run,
    objective: Objective,
    pictures: Sequence[Picture],
    stop: Event,
    report_progress: Callable[[str], None],
) -> None:
    """The rest of an epoch, or as much of it as time and `stop` allow; adds to `run.trained`."""
    began = said = time.monotonic()
    seen_before, schedule = run.pictures_seen, run.settings.schedule
    set_training_mode(run.model, run.settings)
    chance = torch.Generator(run.device)
    for batch in batches(pictures, run.epoch, run.settings, done=run.batch):
        if stop.is_set() or run.progress() >= 1.0:
            break
        for group in run.optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate_share(run.step, run.progress(), schedule)
        chance.manual_seed((run.settings.seed << 32) + run.step)
        gray, truth = to_gray_and_ab(batch.to(run.device))
        try:
            loss, heads = objective(run.model, gray, truth, run.progress(), chance)
            train_step(run.model, run.optimizer, loss)
        except FloatingPointError as error:
            raise ModelError(
                f"training step {run.step + 1}: {error}; what is saved is from before it, "
                f"so resume with a learning rate below {run.settings.learning_rate:g}"
            ) from error
        run.averaged.update_parameters(run.model)
        with torch.no_grad():
            run.trained.add(decode(heads, run.model.bins, run.model.decoding), truth)
        run.step, run.batch = run.step + 1, run.batch + 1
        run.pictures_seen += len(gray)
        run.count_time()
        if time.monotonic() - said > run.settings.report_seconds:
            said = time.monotonic()
            speed = (run.pictures_seen - seen_before) / (said - began)
            report_progress(_progress_line(run, speed))


def _progress_line(run: Run, speed: float) -> str:
    now = run.trained.scores()
    return (
        f"epoch {run.epoch + 1}: {run.pictures_seen} pictures, {speed:.1f} pictures/s, "
        f"mse {now.mse:.1f} (gray {now.gray_mse:.1f}), "
        f"chroma {now.chroma:.1f} of {now.true_chroma:.1f}, {run.progress():.0%} of the run"
    )


def learning_rate_share(
    step: int, progress: float, schedule: Literal["plateau", "cosine"] = "plateau"
) -> float:
    """Share of the full learning rate, after a short climb.

    plateau: a long plain and a fall to zero at the end, so that a run may be ended or prolonged at
    any time. cosine: half a cosine from one to zero over the whole run.
    """
    climb = min(1.0, (step + 1) / WARM_UP_STEPS)
    if schedule == "cosine":
        return climb * (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return climb * max(0.0, min(1.0, (1.0 - progress) / COOL_DOWN_SHARE))


@torch.inference_mode()
def evaluate(
    model: ColorNet, pictures: Sequence[Picture], settings: TrainSettings, device: torch.device
) -> Scores:
    """Score a model on the center crops of pictures."""
    model.eval()
    sums = ScoreSum()
    crops = Crops(pictures, settings.validation_side, train=False)
    for batch in load(crops, settings):
        gray, truth = to_gray_and_ab(batch.to(device))
        with autocast(device):
            ab = model.predict(gray)
        sums.add(ab, truth)
    return sums.scores()


def _pictures(folder: Path, settings: TrainSettings) -> tuple[list[Picture], list[Picture]]:
    pictures, unreadable = readable(find_pictures(folder, settings.subset))
    for name in unreadable:
        log.warning("%s: skipped, it cannot be read as a picture", name)
    training, validation = split(pictures, settings.held_out)
    if not training or not validation:
        raise DataError(
            f"{folder}: {len(pictures)} readable pictures give {len(training)} for training and "
            f"{len(validation)} for validation; both need at least one"
        )
    counts = Counter(picture.label for picture in pictures)
    labels = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
    log.info("%d pictures (%s), %d held out", len(pictures), labels, len(validation))
    return training, validation[:: max(1, len(validation) // settings.validation_pictures)]


def _check_writable(run_folder: Path) -> None:
    """Better now than when the first epoch is to be saved, perhaps hours later."""
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_folder):
            pass
    except OSError as error:
        raise ConfigError(f"{run_folder}: a run cannot be written here ({error})") from error


def _samples(validation: Sequence[Picture], per_label: int = 3) -> list[Picture]:
    """A few validation pictures of each label, always the same, for the contact sheet."""
    labels = sorted({picture.label for picture in validation})
    return [p for label in labels for p in [q for q in validation if q.label == label][:per_label]]


def _notes(pictures: Sequence[Picture], settings: TrainSettings) -> dict[str, Any]:
    return {
        "labels": sorted({picture.label for picture in pictures}),
        "pictures": len(pictures),
        "data_fingerprint": fingerprint(pictures),
        "loss": settings.loss,
        "settings": settings.model_dump(mode="json", exclude={"start", "vgg"}),
    }
