"""Trains a model: epochs of steps, validated on held-out pictures.

A run is a folder. state.pt holds everything a later run needs to go on (weights, averages,
optimizer, position in the data); model.safetensors is the best model so far, ready for use. Both
are replaced in one step, so a run can be stopped at any time: after a kill it continues from the
last state saved at the end of an epoch, after a stop on request from the last finished batch.
Random numbers depend only on the seed and the position in the data, so a resumed run sees the same
pictures and crops as one that was never stopped.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Literal

import torch
from torch import Tensor

from colordaemon.config import TrainSettings
from colordaemon.durable import replace_file
from colordaemon.errors import ConfigError, DataError, Interrupted, ModelError
from colordaemon.network.checkpoint import load_model, save_fitted
from colordaemon.network.model import certainty, decode
from colordaemon.pictures.collection import CollectedPicture, Collection, collect
from colordaemon.pictures.dataset import find_pictures
from colordaemon.pictures.loader import Schedule, stream, to_gray_and_ab
from colordaemon.training.distributed import Team, join_team
from colordaemon.training.fitting import fit
from colordaemon.training.initialize import (
    make_objective,
    origin_of,
    set_training_mode,
    starting_model,
)
from colordaemon.training.losses import Objective, compiled, train_step
from colordaemon.training.state import COOL_DOWN_SHARE, Run
from colordaemon.training.validator import MODEL, STATE, Validator

log = logging.getLogger(__name__)
WARM_UP_STEPS = 200


def train(
    folder: Path,
    run_folder: Path,
    settings: TrainSettings,
    device: torch.device,
    *,
    resume: bool = False,
    command: str = "",
    stop: Event | None = None,
) -> Path:
    """Train on a folder of labeled pictures; returns the path of the best model file.

    command: the shell command, for the report. Processes started by torchrun train one model
    together. Raises ConfigError, DataError, ModelError, and Interrupted
    once `stop` is set and the state is saved.
    """
    stop = stop or Event()
    state_path = run_folder / STATE
    if state_path.exists() and not resume:
        raise DataError(f"{run_folder}: holds a run already; resume it or name another folder")
    _check_writable(run_folder)
    with join_team(device) as team:
        collection = collect_for(settings, folder, stop)
        samples = collection.training
        schedule = Schedule([sample.source for sample in samples], settings, team.size)
        run = _open_run(state_path, samples, settings, team, schedule.batches, resume)
        objective = make_objective(settings, run.model, samples, team.device)
        validator = None
        if team.leads:
            replace_file(run_folder / "dataset.txt", _encoded(collection.report()))
            validator = Validator(run, run_folder, collection, objective.loss)
        with closing(Trainer(run, objective, samples, schedule, team, stop)) as trainer:
            # A run may stop between its last batch and here.
            while run.progress() < 1.0 or run.batch:
                if not trainer.finish_epoch():
                    if validator:
                        run.save(state_path)
                    seen = run.pictures_seen
                    raise Interrupted(
                        f"{run_folder}: stopped after {seen} pictures; resume goes on"
                    )
                trained = run.close_epoch()
                if validator:
                    validator.close_epoch(*trained)
                team.wait()
                # Only the leader has spent time on validation, and all have to end together.
                _, run.seconds = team.agree(False, run.seconds)
        if validator:
            validator.close_run(command, stop)
        team.wait()
    return run_folder / MODEL


def fit_axes_of(
    file: Path,
    folder: Path,
    settings: TrainSettings,
    device: torch.device,
    *,
    stop: Event | None = None,
) -> None:
    """Give a model file the axes that comparing pictures takes and the peaks that integers take,
    fitted on the training pictures of a folder; nothing else of it changes. Raises DataError,
    ModelError and Interrupted."""
    model = load_model(file)  # before the pictures are looked through
    collection = collect_for(settings, folder, stop)
    save_fitted(file, *fit(model, device, collection.training))
    log.info("%s: can use references and hints now, and compute in integers", file)


def _open_run(
    state_path: Path,
    samples: Sequence[CollectedPicture],
    settings: TrainSettings,
    team: Team,
    epoch_batches: int,
    resume: bool,
) -> Run:
    if state_path.exists():
        run = Run.load(state_path, settings, team.device, epoch_batches)
        log.info("continuing after %d pictures, epoch %d", run.pictures_seen, run.epoch + 1)
        return run
    if resume:
        log.info("%s: no run to continue, starting a new one", state_path.parent)
    torch.manual_seed(settings.seed)
    model, origin = starting_model(settings, samples), origin_of(settings)
    return Run(model, settings, team.device, epoch_batches, origin=origin)


def collect_for(settings: TrainSettings, folder: Path, stop: Event | None = None) -> Collection:
    """The pictures of a folder that a run with these settings uses. Raises DataError."""
    cache_folder = settings.cache_folder and settings.cache_folder.expanduser()
    return collect(
        folder,
        subset=settings.subset,
        held_out=settings.held_out,
        held_out_sources=settings.held_out_sources,
        side=2 * max(settings.side, settings.validation_side),  # the smallest crops are half of it
        cache_folder=(cache_folder or _user_caches()) if settings.cache else None,
        stop=stop,
    )


def _user_caches() -> Path:
    from platformdirs import user_cache_path  # seldom needed, and missing where we only train

    return user_cache_path("colordaemon")


def _check_writable(run_folder: Path) -> None:
    """Raises ConfigError if the folder cannot be written to, before hours of training."""
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_folder):
            pass
    except OSError as error:
        raise ConfigError(f"{run_folder}: a run cannot be written here ({error})") from error


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def train_each(
    folder: Path,
    runs_folder: Path,
    settings: TrainSettings,
    device: torch.device,
    *,
    resume: bool = False,
    command: str = "",
    stop: Event | None = None,
) -> list[Path]:
    """Train a model for each label of a folder, one run after the other, each in a folder of its
    own; returns the model files, by label.

    Arguments and errors are those of `train`; a label that cannot be trained on is named and passed
    over, and DataError is raised when that goes for all of them.
    """
    labels = sorted({picture.label for picture in find_pictures(folder)})
    models: list[Path] = []
    for label in labels:
        log.info("label %s, %d of %d", label, len(models) + 1, len(labels))
        try:
            models.append(
                train(
                    folder,
                    runs_folder / label,
                    settings.model_copy(update={"subset": label}),
                    device,
                    resume=resume,
                    command=command,
                    stop=stop,
                )
            )
        except DataError as error:
            log.error("label %s: %s", label, error)
    if not models:
        raise DataError(f"{folder}: none of {len(labels)} labels can be trained on")
    return models


@dataclass(frozen=True)
class Step:
    """The result of a step, on the device. loss, length (of the gradient): scalars."""

    number: int
    epoch: int
    batch: int
    loss: Tensor
    length: Tensor


class Trainer:
    """Runs the epochs of a run, as one of the team's processes; `close` ends its loader.

    Nothing in a step waits for the device. Whether a gradient was a number is asked one step late,
    while the next one is computed, and always before a state is saved; no parameter has moved then.
    """

    def __init__(
        self,
        run: Run,
        objective: Objective,
        samples: Sequence[CollectedPicture],
        schedule: Schedule,
        team: Team,
        stop: Event,
    ) -> None:
        self.run, self.objective, self.team, self.stop = run, objective, team, stop
        self._samples, self._schedule = samples, schedule
        set_training_mode(run.model, run.settings)  # before the team asks what learns
        self._model = compiled(team.wrap(run.model), run.device, run.settings.compile)
        self._chance = torch.Generator(run.device)
        self._batches = stream(
            samples, schedule, run.settings, run.epoch, run.batch, team.rank, team.size
        )
        self._last: Step | None = None

    def close(self) -> None:
        self._batches.close()

    def finish_epoch(self) -> bool:
        """Run the rest of an epoch, or as much as the time limit allows; False after a stop."""
        run, team = self.run, self.team
        began = said = time.monotonic()
        seen_before = run.pictures_seen
        set_training_mode(run.model, run.settings)
        while run.batch < run.epoch_batches:
            stopping, run.seconds = team.agree(self.stop.is_set(), run.seconds)
            if stopping or run.progress() >= 1.0:
                break
            batch = next(self._batches).to(run.device, non_blocking=True)
            self._step(*to_gray_and_ab(batch))
            if time.monotonic() - said > run.settings.report_seconds:
                said = time.monotonic()
                speed = (run.pictures_seen - seen_before) / (said - began)
                log.info("%s", _progress_line(run, speed))
        self._check()
        stopping, run.seconds = team.agree(self.stop.is_set(), run.seconds)
        return not stopping

    def _step(self, gray: Tensor, truth: Tensor) -> None:
        run, progress = self.run, self.run.progress()
        share = learning_rate_share(run.step, progress, run.settings.schedule)
        for group in run.optimizer.param_groups:
            group["lr"] = group["base_lr"] * share
        # Differs for every process and step, and is the same when a step is repeated.
        seed = (run.settings.seed << 40) + (self.team.rank << 32) + run.step
        self._chance.manual_seed(seed % 2**63)
        loss, heads = self.objective(self._model, gray, truth, progress, self._chance)
        length = train_step(run.model, run.optimizer, loss)
        self._check()
        self._last = Step(run.step, run.epoch, run.batch, loss.detach(), length)
        run.average()
        with torch.no_grad():
            ab = decode(heads, certainty(heads), run.model.bins, run.model.decoding)
            run.trained.add(ab, truth)
        run.loss_sum = run.loss_sum + loss.detach() * len(gray)
        run.step, run.batch = run.step + 1, run.batch + 1
        run.pictures_seen += len(gray) * self.team.size
        run.count_time()

    def _check(self) -> None:
        """Raise ModelError if the last step had no finite gradient."""
        step, self._last = self._last, None
        if step is None or step.length.isfinite():  # waits for the GPU, but one step late
            return
        of_batch = self._schedule.of_batch(step.epoch, step.batch, self.team.rank, self.team.size)
        raise ModelError(
            f"training step {step.number + 1}: loss {step.loss.item():g} with a gradient of "
            f"{step.length.item():g}; what is saved is from before it, so resume with a learning "
            f"rate below {self.run.settings.learning_rate:g}. The batch: "
            + ", ".join(self._samples[index].name for index in of_batch)
        )


def learning_rate_share(
    step: int, progress: float, schedule: Literal["plateau", "cosine"] = "plateau"
) -> float:
    """Share of the full learning rate, after a short warm-up.

    plateau: a long plain and a fall to zero at the end, so that a run may be ended or prolonged at
    any time. cosine: half a cosine from one to zero over the whole run.
    """
    climb = min(1.0, (step + 1) / WARM_UP_STEPS)
    if schedule == "cosine":
        return climb * (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return climb * max(0.0, min(1.0, (1.0 - progress) / COOL_DOWN_SHARE))


def _progress_line(run: Run, speed: float) -> str:
    now = run.trained.scores()
    loss = float(run.loss_sum) / now.pictures
    left = _time_left(run)
    return (
        f"epoch {run.epoch + 1}: {run.pictures_seen} pictures, {speed:.1f} pictures/s, "
        f"loss {loss:.4f}, mse {now.mse:.1f} (gray {now.gray_mse:.1f}), "
        f"chroma {now.chroma:.1f} of {now.true_chroma:.1f}, {run.progress():.0%} of the run{left}"
    )


def _time_left(run: Run) -> str:
    progress = run.progress()
    if progress < 0.001:
        return ""
    minutes = round(run.seconds * (1 - progress) / progress / 60)
    return f", about {minutes // 60}:{minutes % 60:02} h left"
