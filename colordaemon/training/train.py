"""Training, on one page: L2 on ab, from a VGG encoder or from a finished model.

A run is a folder. state.pt holds everything a later run needs to go on (weights, averages,
optimizer, position in the data); model.safetensors is the best model so far, ready for use. Both
are replaced in one step, so that a run can be stopped at any line: killed within an epoch, it goes
on from the epoch's start, and stopped on request, after the last batch done. Chance depends only on
the seed and the position in the data, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from colordaemon.color import AB_LIMIT
from colordaemon.config import TrainSettings
from colordaemon.errors import ConfigError, DataError, Interrupted, ModelError
from colordaemon.network.checkpoint import (
    BUNDLED,
    balance,
    load_model,
    load_vgg,
    save_model,
)
from colordaemon.network.colorizer import choose_dtype
from colordaemon.network.model import ColorNet, ModelSpec
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
    report = Report(run_folder, Crops(_samples(validation), settings.validation_side, train=False))
    notes = _notes([*training, *validation], settings)
    while run.progress() < 1.0 or run.batch:  # a run may be stopped between its last batch and here
        train_epoch(run, training, stop, report_progress)
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
    run: Run, pictures: Sequence[Picture], stop: Event, report_progress: Callable[[str], None]
) -> None:
    """The rest of an epoch, or as much of it as time and `stop` allow; adds to `run.trained`."""
    began = said = time.monotonic()
    seen_before = run.pictures_seen
    set_training_mode(run.model, run.settings)
    for batch in batches(pictures, run.epoch, run.settings, done=run.batch):
        if stop.is_set() or run.progress() >= 1.0:
            break
        for group in run.optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate_share(run.step, run.progress())
        gray, truth = to_gray_and_ab(batch.to(run.device))
        try:
            ab = train_step(run.model, run.optimizer, gray, truth)
        except FloatingPointError as error:
            raise ModelError(
                f"training step {run.step + 1}: {error}; what is saved is from before it, "
                f"so resume with a learning rate below {run.settings.learning_rate:g}"
            ) from error
        run.averaged.update_parameters(run.model.decoder)
        run.trained.add(ab, truth)
        run.step, run.batch = run.step + 1, run.batch + 1
        run.pictures_seen += len(ab)
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


def train_step(
    model: ColorNet, optimizer: torch.optim.Optimizer, gray: Tensor, truth: Tensor
) -> Tensor:
    """Move the parameters once; returns the prediction (N, 2, h/2, w/2) in ab units, detached.

    gray: (N, 1, h, w) in 0..1. truth: (N, 2, h/2, w/2) ab units. The loss is half the squared
    distance in ab, ½ Σ ‖Y − Ŷ‖² of Zhang et al. 2016 equation 1, as a mean over pixels.
    Raises FloatingPointError, before any parameter moves, when that is not a finite number.
    """
    optimizer.zero_grad(set_to_none=True)
    with _autocast(gray.device):
        predicted: Tensor = model(gray)
    loss = 0.5 * (predicted.float() - truth / AB_LIMIT).square().sum(dim=1).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    slope = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not slope.isfinite():  # waits for the GPU
        raise FloatingPointError(f"loss {loss.item():g} with a gradient of {slope.item():g}")
    optimizer.step()
    return predicted.detach().float() * AB_LIMIT


def _autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on every GPU (float16 would need its gradients scaled) and on a CPU that has it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=_has_half(device))


@cache
def _has_half(device: torch.device) -> bool:
    return choose_dtype("auto", device) is not torch.float32


def learning_rate_share(step: int, progress: float) -> float:
    """Share of the full learning rate: a short climb, a long plain, a fall to zero at the end.

    A plain instead of a cosine, so that a run may be ended or prolonged at any time.
    """
    climb = min(1.0, (step + 1) / WARM_UP_STEPS)
    fall = min(1.0, (1.0 - progress) / COOL_DOWN_SHARE)
    return climb * max(fall, 0.0)


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
        with _autocast(device):
            ab = model.predict(gray)
        sums.add(ab, truth)
    return sums.scores()


def starting_model(settings: TrainSettings, pictures: Sequence[Picture]) -> ColorNet:
    """The network before the first step, as `settings.encoder` says."""
    if settings.encoder == "model":
        name = settings.start or f"bundled with colordaemon ({BUNDLED})"
        log.info("starting from the model %s; its encoder stays as it is", name)
        return load_model(settings.start or BUNDLED)
    model = ColorNet(ModelSpec())
    if settings.encoder != "scratch":
        log.info("starting from ImageNet VGG16: %s", settings.vgg or "torchvision's weights")
        load_vgg(settings.vgg, model.encoder)
    sample = Crops(pictures[:: max(1, len(pictures) // 32)][:32], settings.side, train=False)
    gray, _ = to_gray_and_ab(torch.stack([sample[i] for i in range(len(sample))]))
    balance(model.encoder, gray)
    return model


def set_training_mode(model: ColorNet, settings: TrainSettings) -> None:
    """Which parameters learn: the decoder always, of the encoder as much as `encoder` says.

    ImageNet's first two stages are edges and textures that any picture has; they never change.
    """
    model.train()
    stages = len(model.encoder.stages)
    learning = {"model": stages, "frozen": stages, "imagenet": 2, "scratch": 0}[settings.encoder]
    for number, stage in enumerate(model.encoder.stages):
        stage.requires_grad_(number >= learning)


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
        "loss": "l2",
        "settings": settings.model_dump(mode="json", exclude={"start", "vgg"}),
    }
