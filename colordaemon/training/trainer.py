"""Runs the steps and epochs of training."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal

import torch
from torch import Tensor

from colordaemon.errors import ModelError
from colordaemon.network.model import certainty, decode
from colordaemon.pictures.collection import CollectedPicture
from colordaemon.pictures.loader import stream, to_gray_and_ab
from colordaemon.pictures.schedule import Schedule
from colordaemon.training.distributed import Team
from colordaemon.training.initialize import set_training_mode
from colordaemon.training.objective import Objective, compiled, train_step
from colordaemon.training.state import COOL_DOWN_SHARE, Run

log = logging.getLogger(__name__)

WARM_UP_STEPS = 200


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
