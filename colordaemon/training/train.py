"""Training, on one page: L2 on ab, from a VGG encoder or from a finished model.

A run is a folder. state.pt holds everything a later run needs to go on (weights, averages,
optimizer, position in the data); model.safetensors is the best model so far, ready for use. Both
are replaced in one step, so that a run can be stopped at any line.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from colordaemon.color import AB_LIMIT
from colordaemon.config import TrainSettings
from colordaemon.errors import DataError, Interrupted
from colordaemon.network.checkpoint import balance, load_model, load_vgg, save_model, write_durably
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
from colordaemon.training.metrics import Scores, ScoreSum
from colordaemon.training.report import Report

log = logging.getLogger(__name__)

EMA_DECAY = 0.999
WARM_UP_STEPS = 200
COOL_DOWN_SHARE = 0.2  # the last fifth of a run brings the learning rate down to zero


@dataclass
class Run:
    """Everything that changes while training, and how to save and restore it."""

    model: ColorNet
    settings: TrainSettings
    device: torch.device
    step: int = 0
    epoch: int = 0
    pictures_seen: int = 0
    seconds: float = 0.0
    best_mse: float = float("inf")
    optimizer: torch.optim.Optimizer = field(init=False)
    averaged: AveragedModel = field(init=False)

    def __post_init__(self) -> None:
        self.model.to(self.device, memory_format=torch.channels_last)
        self.optimizer = _optimizer(self.model, self.settings)
        self.averaged = AveragedModel(
            self.model.decoder, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True
        )

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        parts = (self.model, self.optimizer, self.averaged)
        counters = {name: getattr(self, name) for name in _COUNTERS}
        torch.save({"counters": counters, "parts": [part.state_dict() for part in parts]}, buffer)
        write_durably(path, buffer.getvalue())

    def restore(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        for part, saved in zip(
            (self.model, self.optimizer, self.averaged), state["parts"], strict=True
        ):
            part.load_state_dict(saved)
        for name in _COUNTERS:
            setattr(self, name, state["counters"][name])

    def progress(self) -> float:
        """How much of the run is done, 0..1: by epochs or by minutes, whichever is further."""
        epochs = self.epoch / self.settings.epochs
        minutes = self.seconds / (self.settings.minutes * 60) if self.settings.minutes else 0.0
        return min(1.0, max(epochs, minutes))


_COUNTERS = ("step", "epoch", "pictures_seen", "seconds", "best_mse")


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

    Raises DataError, ModelError, and Interrupted once `stop` is set and the state is saved.
    """
    stop = stop or Event()
    training, validation = _pictures(folder, settings)
    torch.manual_seed(settings.seed)
    state_path, model_path = run_folder / "state.pt", run_folder / "model.safetensors"
    if state_path.exists() and not resume:
        raise DataError(f"{run_folder}: holds a run already; resume it or name another folder")
    run_folder.mkdir(parents=True, exist_ok=True)
    run = Run(starting_model(settings, training), settings, device)
    if resume and state_path.exists():
        run.restore(state_path)
        report_progress(f"going on after {run.pictures_seen} pictures, epoch {run.epoch + 1}")
    report = Report(run_folder, Crops(_samples(validation), settings.validation_side, train=False))
    notes = _notes(folder, [*training, *validation], settings)
    while run.progress() < 1.0:
        trained = train_epoch(run, training, stop, report_progress)
        if stop.is_set():
            run.save(state_path)
            raise Interrupted(f"{run_folder}: stopped after {run.pictures_seen} pictures; resume")
        run.epoch += 1
        with averaged_weights(run):
            scores = evaluate(run.model, validation, settings, device)
            best = scores.mse < run.best_mse
            if best:
                run.best_mse = scores.mse
                save_model(model_path, run.model, {**notes, "validation": asdict(scores)})
            report.add_epoch(run.epoch, run.pictures_seen, trained, scores, best)
            report.draw_contact_sheet(run.epoch, run.model, device)
        run.save(state_path)
        report_progress(report.last_line)
    return model_path


def train_epoch(
    run: Run, pictures: Sequence[Picture], stop: Event, report_progress: Callable[[str], None]
) -> Scores:
    """One epoch, or as much of it as time and `stop` allow; returns the training scores."""
    settings, scores = run.settings, ScoreSum()
    began, said, seen = time.monotonic(), time.monotonic(), 0
    set_training_mode(run.model, settings)
    for batch in _batches(pictures, run.epoch, settings):
        step_began = time.monotonic()
        for group in run.optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate_share(run.step, run.progress())
        gray, truth = to_gray_and_ab(batch.to(run.device))
        ab = train_step(run.model, run.optimizer, gray, truth)
        run.averaged.update_parameters(run.model.decoder)
        scores.add(ab, truth)
        run.step, run.pictures_seen, seen = (
            run.step + 1,
            run.pictures_seen + len(ab),
            seen + len(ab),
        )
        run.seconds += time.monotonic() - step_began
        if time.monotonic() - said > settings.report_seconds:
            said = time.monotonic()
            now = scores.scores()
            report_progress(
                f"epoch {run.epoch + 1}: {run.pictures_seen} pictures, "
                f"{seen / (said - began):.1f} pictures/s, mse {now.mse:.1f} (gray {now.gray_mse:.1f}),"
                f" chroma {now.chroma:.1f} of {now.true_chroma:.1f}, {run.progress():.0%} of the run"
            )
        if stop.is_set() or run.progress() >= 1.0:
            break
    return scores.scores()


def train_step(
    model: ColorNet, optimizer: torch.optim.Optimizer, gray: Tensor, truth: Tensor
) -> Tensor:
    """Move the parameters once; returns the prediction (N, 2, h/2, w/2) in ab units, detached.

    gray: (N, 1, h, w) in 0..1. truth: (N, 2, h/2, w/2) ab units. The loss is half the squared
    distance in ab, ½ Σ ‖Y − Ŷ‖² of Zhang et al. 2016 equation 1, as a mean over pixels.
    """
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(gray.device.type, dtype=torch.bfloat16):
        predicted = model(gray)
    loss = 0.5 * (predicted.float() - truth / AB_LIMIT).square().sum(dim=1).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return predicted.detach().float() * AB_LIMIT


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
    for batch in DataLoader(crops, settings.batch_size, num_workers=1):
        gray, truth = to_gray_and_ab(batch.to(device))
        with torch.autocast(device.type, dtype=torch.bfloat16):
            ab = model.predict(gray)
        sums.add(ab, truth)
    return sums.scores()


class averaged_weights:  # noqa: N801  (a context manager, used like a function)
    """Within the block the decoder has its averaged weights; after it, its own again."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> None:
        decoder = self.run.model.decoder
        self.own = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
        decoder.load_state_dict(self.run.averaged.module.state_dict())

    def __exit__(self, *_: object) -> None:
        self.run.model.decoder.load_state_dict(self.own)


def starting_model(settings: TrainSettings, pictures: Sequence[Picture]) -> ColorNet:
    """The network before the first step, as `settings.encoder` says."""
    if settings.encoder == "model":
        assert settings.start is not None
        log.info("starting from the model %s; its encoder stays as it is", settings.start)
        return load_model(settings.start)
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
    learning = {"model": 5, "frozen": 5, "imagenet": 2, "scratch": 0}[settings.encoder]
    for number, stage in enumerate(model.encoder.stages):
        stage.requires_grad_(number >= learning)


def _optimizer(model: ColorNet, settings: TrainSettings) -> torch.optim.Optimizer:
    rates = (
        (model.decoder, settings.learning_rate),
        (model.encoder, settings.learning_rate * settings.encoder_rate_share),
    )
    groups = [{"params": list(m.parameters()), "lr": rate, "base_lr": rate} for m, rate in rates]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01)


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
    counts = {label: 0 for label in sorted({p.label for p in pictures})}
    for picture in pictures:
        counts[picture.label] += 1
    labels = ", ".join(f"{label} {count}" for label, count in counts.items())
    log.info("%d pictures (%s), %d held out", len(pictures), labels, len(validation))
    return training, validation[:: max(1, len(validation) // settings.validation_pictures)]


def _batches(pictures: Sequence[Picture], epoch: int, settings: TrainSettings) -> Iterator[Tensor]:
    """The batches of an epoch, shuffled the same way whenever this epoch is run."""
    generator = torch.Generator().manual_seed(settings.seed + epoch)
    order = torch.randperm(len(pictures), generator=generator).tolist()
    chosen = order[: settings.pictures_per_epoch or len(order)]
    crops = Crops([pictures[i] for i in chosen], settings.side, train=True)
    if len(crops) < settings.batch_size:
        raise DataError(
            f"{len(crops)} training pictures do not fill a batch of {settings.batch_size}"
        )
    yield from DataLoader(
        crops, settings.batch_size, num_workers=1, drop_last=True, generator=generator
    )


def _samples(validation: Sequence[Picture], per_label: int = 3) -> list[Picture]:
    """A few validation pictures of each label, always the same, for the contact sheet."""
    labels = sorted({picture.label for picture in validation})
    return [p for label in labels for p in [q for q in validation if q.label == label][:per_label]]


def _notes(folder: Path, pictures: Sequence[Picture], settings: TrainSettings) -> dict[str, Any]:
    return {
        "labels": sorted({picture.label for picture in pictures}),
        "pictures": len(pictures),
        "data_fingerprint": fingerprint(pictures),
        "loss": "l2",
        "settings": settings.model_dump(mode="json", exclude={"start", "vgg"}),
    }
