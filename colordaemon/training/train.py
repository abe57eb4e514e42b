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
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Event

import torch

from colordaemon.config import TrainSettings
from colordaemon.durable import replace_file
from colordaemon.errors import ConfigError, DataError, Interrupted
from colordaemon.pictures.collection import CollectedPicture, Collection, collect
from colordaemon.pictures.dataset import find_pictures
from colordaemon.pictures.schedule import Schedule
from colordaemon.training.distributed import Team, join_team
from colordaemon.training.initialize import make_objective, origin_of, starting_model
from colordaemon.training.state import Run
from colordaemon.training.trainer import Trainer
from colordaemon.training.validator import MODEL, STATE, Validator

log = logging.getLogger(__name__)


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
