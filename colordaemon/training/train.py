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
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any, Literal

import torch
from torch import Tensor

from colordaemon.config import TrainSettings
from colordaemon.errors import ConfigError, DataError, Interrupted, ModelError
from colordaemon.network.checkpoint import save_model, write_durably
from colordaemon.network.model import certainty, decode
from colordaemon.pictures.collection import Collection, Sample, collect
from colordaemon.pictures.crops import to_gray_and_ab
from colordaemon.pictures.dataset import lot
from colordaemon.pictures.loader import center_crops, stream
from colordaemon.pictures.schedule import Schedule
from colordaemon.training.closing import close_run
from colordaemon.training.report import Report
from colordaemon.training.run import COOL_DOWN_SHARE, Run, averaged_weights
from colordaemon.training.start import (
    make_objective,
    origin_of,
    set_training_mode,
    starting_model,
)
from colordaemon.training.step import Objective, compiled, train_step
from colordaemon.training.team import Team, join_team
from colordaemon.training.validate import Validation, validate

log = logging.getLogger(__name__)

WARM_UP_STEPS = 200
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
        schedule = Schedule([sample.source for sample in samples], settings, team.size)
        run = _open_run(state_path, samples, settings, team, schedule.batches, resume, say)
        objective = make_objective(settings, run.model, samples, team.device)
        validation = _chosen(collection.validation, settings.validation_pictures)
        unseen = _chosen(collection.unseen, settings.validation_pictures)
        crops, unseen_crops = (center_crops(part, settings) for part in (validation, unseen))
        report = Report(run_folder, center_crops(_shown(validation), settings))
        if team.leads:
            write_durably(run_folder / "dataset.txt", _encoded(collection.report()))
        saved = time.monotonic()
        with closing(Trainer(run, objective, samples, schedule, team, stop, say)) as trainer:
            # A run may stop between its last batch and here.
            while run.progress() < 1.0 or run.batch:
                if not trainer.finish_epoch():
                    if team.leads:
                        run.save(state_path)
                    seen = run.pictures_seen
                    raise Interrupted(
                        f"{run_folder}: stopped after {seen} pictures; resume goes on"
                    )
                training_loss, trained = run.close_epoch()
                if team.leads:
                    with averaged_weights(run):
                        judged = validate(
                            run.model, crops, unseen_crops, settings, objective.loss, team.device
                        )
                        best = judged.tuning_delta_e_70 < run.best_delta_e_70
                        if best:
                            run.best_delta_e_70 = judged.tuning_delta_e_70
                            save_model(model_path, run.model, _notes(collection, run, judged))
                        report.add_epoch(run, training_loss, trained, judged, best)
                        report.draw_contact_sheet(run.epoch, run.model, team.device)
                    run.count_time()
                    if run.progress() >= 1.0 or time.monotonic() - saved > settings.save_seconds:
                        run.save(state_path)
                        saved = time.monotonic()
                    say(report.last_line)
                team.wait()
        if team.leads:
            close_run(model_path, report, run, collection, validation, unseen, command, stop, say)
        team.wait()
    return model_path


@dataclass(frozen=True)
class Step:
    """A step that was taken, on the device. loss, length (of the gradient): scalars."""

    number: int
    epoch: int
    batch: int
    loss: Tensor
    length: Tensor


class Trainer:
    """Takes a run through its epochs, as one of a team; closing it ends its loader.

    Nothing in a step waits for the device. Whether a gradient was a number is asked one step late,
    while the next one is computed, and always before a state is saved; no parameter has moved then.
    """

    def __init__(
        self,
        run: Run,
        objective: Objective,
        samples: Sequence[Sample],
        schedule: Schedule,
        team: Team,
        stop: Event,
        say: Callable[[str], None],
    ) -> None:
        self.run, self.objective, self.team, self.stop, self.say = run, objective, team, stop, say
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
        """The rest of an epoch, or as much of it as its time allows; False if a stop is wanted."""
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
                self.say(_progress_line(run, (run.pictures_seen - seen_before) / (said - began)))
        self._check()
        stopping, run.seconds = team.agree(self.stop.is_set(), run.seconds)
        return not stopping

    def _step(self, gray: Tensor, truth: Tensor) -> None:
        run, progress = self.run, self.run.progress()
        share = learning_rate_share(run.step, progress, run.settings.schedule)
        for group in run.optimizer.param_groups:
            group["lr"] = group["base_lr"] * share
        # Another one for every process and step, and the same when a step is run again.
        self._chance.manual_seed((run.settings.seed << 40) + (self.team.rank << 32) + run.step)
        loss, heads = self.objective(self._model, gray, truth, progress, self._chance)
        length = train_step(run.model, run.optimizer, loss)
        self._check()
        self._last = Step(run.step, run.epoch, run.batch, loss.detach(), length)
        run.averaged.update_parameters(run.model)
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
    epoch_batches: int,
    resume: bool,
    say: Callable[[str], None],
) -> Run:
    if state_path.exists():
        run = Run.load(state_path, settings, team.device, epoch_batches)
        say(f"going on after {run.pictures_seen} pictures, epoch {run.epoch + 1}")
        return run
    if resume:
        say(f"{state_path.parent}: no run to go on with, starting a new one")
    torch.manual_seed(settings.seed)
    model, origin = starting_model(settings, samples), origin_of(settings)
    return Run(model, settings, team.device, epoch_batches, origin=origin)


def _collect(
    folder: Path, settings: TrainSettings, say: Callable[[str], None], stop: Event
) -> Collection:
    caches = (settings.cache_folder or CACHES).expanduser()
    return collect(
        folder,
        subset=settings.subset,
        held_out=settings.held_out,
        held_out_sources=settings.held_out_sources,
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
        "crops_seen": run.pictures_seen,
        "unseen_sources": collection.unseen_sources,
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


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _say_nothing(_: str) -> None:
    pass
