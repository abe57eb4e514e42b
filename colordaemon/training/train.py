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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any, Literal

import torch

from colordaemon.config import TrainSettings
from colordaemon.errors import ConfigError, DataError, Interrupted, ModelError
from colordaemon.network.checkpoint import save_model, write_durably
from colordaemon.network.model import decode
from colordaemon.pictures.collection import Collection, Sample, collect
from colordaemon.pictures.crops import Crops, to_gray_and_ab
from colordaemon.pictures.dataset import lot
from colordaemon.pictures.loader import batches, epoch_batches, pictures_of_batch
from colordaemon.training.closing import close_run
from colordaemon.training.report import Report
from colordaemon.training.run import Run, averaged_weights
from colordaemon.training.start import (
    make_objective,
    origin_of,
    set_training_mode,
    starting_model,
)
from colordaemon.training.step import Objective, train_step
from colordaemon.training.team import Team, join_team
from colordaemon.training.validate import Validation, validate

log = logging.getLogger(__name__)

WARM_UP_STEPS = 200
COOL_DOWN_SHARE = 0.2  # the last fifth of a run brings the learning rate down to zero
CACHES = Path("~/.cache/colordaemon")


def train(
    folder: Path,
    run_folder: Path,
    settings: TrainSettings,
    device: torch.device,
    *,
    resume: bool = False,
    command: str = "",
    stop: Event | None = None,
    report_progress: Callable[[str], None] = log.info,
) -> Path:
    """Train on a folder of labeled pictures; returns the path of the best model file.

    command: the shell line that asked for it, for the closing page. Processes that torchrun has
    started train one model together. Raises ConfigError, DataError, ModelError, and Interrupted
    once `stop` is set and the state is saved.
    """
    stop = stop or Event()
    state_path, model_path = run_folder / "state.pt", run_folder / "model.safetensors"
    if state_path.exists() and not resume:
        raise DataError(f"{run_folder}: holds a run already; resume it or name another folder")
    _check_writable(run_folder)
    with join_team(device) as team:
        say = report_progress if team.leads else _say_nothing
        collection = _collect(folder, settings, say, stop)
        samples = collection.training
        run = _open_run(state_path, samples, settings, team, resume, say)
        objective = make_objective(settings, run.model, samples, team.device)
        trainer = Trainer(run, objective, samples, team, stop, say)
        validation = _chosen(collection.validation, settings.validation_pictures)
        shown = Crops(_shown(validation), settings.validation_side, train=False)
        report = Report(run_folder, shown)
        if team.leads:
            write_durably(run_folder / "dataset.txt", _encoded(collection.report()))
        while run.progress() < 1.0 or run.batch:  # a run may stop between its last batch and here
            if not trainer.finish_epoch():
                if team.leads:
                    run.save(state_path)
                seen = run.pictures_seen
                raise Interrupted(f"{run_folder}: stopped after {seen} pictures; resume goes on")
            training_loss, trained = run.close_epoch()
            if team.leads:
                with averaged_weights(run):
                    judged = validate(run.model, validation, settings, objective.loss, team.device)
                    best = judged.tuning_delta_e_70 < run.best_delta_e_70
                    if best:
                        run.best_delta_e_70 = judged.tuning_delta_e_70
                        save_model(model_path, run.model, _notes(collection, run, judged))
                    report.add_epoch(run, training_loss, trained, judged, best)
                    report.draw_contact_sheet(run.epoch, run.model, team.device)
                run.count_time()
                run.save(state_path)
                say(report.last_line)
            team.wait()
        if team.leads:
            close_run(model_path, report, run, collection, validation, command, stop, say)
        team.wait()
    return model_path


@dataclass
class Trainer:
    """Takes a run through its epochs, as one of a team."""

    run: Run
    objective: Objective
    samples: Sequence[Sample]
    team: Team
    stop: Event
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        set_training_mode(self.run.model, self.run.settings)  # before the team asks what learns
        self._model = self.team.wrap(self.run.model)
        self._chance = torch.Generator(self.run.device)

    def finish_epoch(self) -> bool:
        """The rest of an epoch, or as much of it as its time allows; False if a stop is wanted."""
        run, team = self.run, self.team
        began = said = time.monotonic()
        seen_before = run.pictures_seen
        set_training_mode(run.model, run.settings)
        for batch in batches(
            self.samples, run.epoch, run.settings, run.batch, team.rank, team.size
        ):
            stopping, run.seconds = team.agree(self.stop.is_set(), run.seconds)
            if stopping:
                return False
            if run.progress() >= 1.0:
                break
            self._step(*to_gray_and_ab(batch.to(run.device)))
            if time.monotonic() - said > run.settings.report_seconds:
                said = time.monotonic()
                self.say(_progress_line(run, (run.pictures_seen - seen_before) / (said - began)))
        stopping, run.seconds = team.agree(self.stop.is_set(), run.seconds)
        return not stopping

    def _step(self, gray: torch.Tensor, truth: torch.Tensor) -> None:
        run, progress = self.run, self.run.progress()
        share = learning_rate_share(run.step, progress, run.settings.schedule)
        for group in run.optimizer.param_groups:
            group["lr"] = group["base_lr"] * share
        # Another one for every process and step, and the same when a step is run again.
        self._chance.manual_seed((run.settings.seed << 40) + (self.team.rank << 32) + run.step)
        try:
            loss, heads = self.objective(self._model, gray, truth, progress, self._chance)
            train_step(run.model, run.optimizer, loss)
        except FloatingPointError as error:
            raise ModelError(self._explain(error)) from error
        run.averaged.update_parameters(run.model)
        with torch.no_grad():
            run.trained.add(decode(heads, run.model.bins, run.model.decoding), truth)
        run.loss_sum += loss.item() * len(gray)
        run.step, run.batch = run.step + 1, run.batch + 1
        run.pictures_seen += len(gray) * self.team.size
        run.count_time()

    def _explain(self, error: FloatingPointError) -> str:
        run, team = self.run, self.team
        of_batch = pictures_of_batch(
            self.samples, run.epoch, run.settings, run.batch, team.rank, team.size
        )
        return (
            f"training step {run.step + 1}: {error}; what is saved is from before it, so resume "
            f"with a learning rate below {run.settings.learning_rate:g}. The batch: "
            + ", ".join(sample.name for sample in of_batch)
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


def _open_run(
    state_path: Path,
    samples: Sequence[Sample],
    settings: TrainSettings,
    team: Team,
    resume: bool,
    say: Callable[[str], None],
) -> Run:
    batch_count = epoch_batches(samples, settings, team.size)
    if state_path.exists():
        run = Run.load(state_path, settings, team.device, batch_count)
        say(f"going on after {run.pictures_seen} pictures, epoch {run.epoch + 1}")
        return run
    if resume:
        say(f"{state_path.parent}: no run to go on with, starting a new one")
    torch.manual_seed(settings.seed)
    model, origin = starting_model(settings, samples), origin_of(settings)
    return Run(model, settings, team.device, batch_count, origin=origin)


def _collect(
    folder: Path, settings: TrainSettings, say: Callable[[str], None], stop: Event
) -> Collection:
    caches = (settings.cache_folder or CACHES).expanduser()
    return collect(
        folder,
        subset=settings.subset,
        held_out=settings.held_out,
        side=2 * max(settings.side, settings.validation_side),  # the smallest crops are half of it
        cache_folder=caches if settings.cache else None,
        report_progress=say,
        stop=stop,
    )


def _check_writable(run_folder: Path) -> None:
    """Better now than when the first epoch is to be saved, perhaps hours later."""
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_folder):
            pass
    except OSError as error:
        raise ConfigError(f"{run_folder}: a run cannot be written here ({error})") from error


def _chosen(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Up to `count` samples; adding pictures to the folder changes the choice little."""
    lots = sorted(samples, key=lambda sample: lot(sample.name))
    return sorted(lots[:count], key=lambda sample: sample.name)


def _shown(validation: Sequence[Sample], per_label: int = 3) -> list[Sample]:
    """A few validation pictures of each label, always the same, for the contact sheet."""
    labels = sorted({sample.label for sample in validation})
    return [p for label in labels for p in [q for q in validation if q.label == label][:per_label]]


def _notes(collection: Collection, run: Run, judged: Validation) -> dict[str, Any]:
    return {
        "labels": collection.labels,
        "pictures": len(collection.training) + len(collection.validation),
        "data_fingerprint": collection.fingerprint,
        "origin": run.origin,
        "loss": run.settings.loss,
        "validation": asdict(judged),
        "settings": run.settings.model_dump(
            mode="json", exclude={"start", "vgg", "cache", "cache_folder"}
        ),
    }


def _progress_line(run: Run, speed: float) -> str:
    now = run.trained.scores()
    left = _time_left(run)
    return (
        f"epoch {run.epoch + 1}: {run.pictures_seen} pictures, {speed:.1f} pictures/s, "
        f"loss {run.loss_sum / now.pictures:.4f}, mse {now.mse:.1f} (gray {now.gray_mse:.1f}), "
        f"chroma {now.chroma:.1f} of {now.true_chroma:.1f}, {run.progress():.0%} of the run{left}"
    )


def _time_left(run: Run) -> str:
    progress = run.progress()
    if progress < 0.001:
        return ""
    minutes = round(run.seconds * (1 - progress) / progress / 60)
    return f", about {minutes // 60}:{minutes % 60:02} h left"


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _say_nothing(_: str) -> None:
    pass
