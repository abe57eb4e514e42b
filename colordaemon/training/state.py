"""The state of a training run: everything that changes while training, saved and restored."""

from __future__ import annotations

import copy
import io
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colordaemon.config import TrainSettings
from colordaemon.durable import replace_file
from colordaemon.errors import ModelError
from colordaemon.evaluation.metrics import Scores, ScoreSum
from colordaemon.network.model import ColorNet, Decoding, ModelSpec

COOL_DOWN_SHARE = 0.2  # the last fifth of a run brings the learning rate down to zero
# Averages look back over a fifth of the cool-down, or they would lie before it, where weights are
# noisy; in very long runs over a thousand steps.
AVERAGED_SHARE = COOL_DOWN_SHARE / 5
AVERAGED_STEPS = 1000


@dataclass
class Run:
    """Everything that changes while training, and how to save and restore it."""

    model: ColorNet
    settings: TrainSettings
    device: torch.device
    epoch_batches: int = 1
    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches done of this epoch
    pictures_seen: int = 0
    seconds: float = 0.0
    loss_sum: Tensor | float = 0.0  # of this epoch, over its pictures; on the device
    best_delta_e_70: float = float("inf")
    judged_by: str = ""  # a fingerprint of the pictures that decide which epoch is the best
    origin: dict[str, Any] = field(
        default_factory=dict
    )  # see `initialize.origin_of`; empty: unknown
    optimizer: torch.optim.Optimizer = field(init=False)
    averaged: ColorNet = field(init=False)
    trained: ScoreSum = field(init=False, default_factory=ScoreSum)  # scores of this epoch
    _now: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.model.to(self.device)
        self.model.to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(self.model, self.settings)
        self.averaged = copy.deepcopy(self.model).requires_grad_(False)

    @torch.no_grad()
    def average(self) -> None:
        """Move the averages toward the current weights and norm buffers."""
        steps = self.step / max(self.progress(), 1e-9)  # of the whole run, as far as can be told
        horizon = min(AVERAGED_STEPS, max(1.0, AVERAGED_SHARE * steps))
        # Early averages change faster: otherwise a run of 200 steps would end near its random
        # start. The formula is that of TensorFlow's ExponentialMovingAverage with num_updates.
        decay = min(1 - 1 / horizon, (1 + self.step) / (10 + self.step))
        # torch's AveragedModel has a counter that makes every step wait for the GPU.
        averages, current = (list(m.state_dict().values()) for m in (self.averaged, self.model))
        floats = [i for i, tensor in enumerate(averages) if tensor.is_floating_point()]
        torch._foreach_lerp_([averages[i] for i in floats], [current[i] for i in floats], 1 - decay)

    def judge_by(self, pictures: str) -> None:
        """Set the pictures by which models are compared from now on. The best figure so far is
        dropped if it was measured on others."""
        if pictures != self.judged_by:
            self.judged_by, self.best_delta_e_70 = pictures, float("inf")

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        parts = (self.model, self.optimizer, self.averaged)
        state = {
            "spec": asdict(self.model.spec),
            "decoding": asdict(self.model.decoding),
            "counters": {name: getattr(self, name) for name in _COUNTERS}
            | {"loss_sum": float(self.loss_sum)},
            "parts": [part.state_dict() for part in parts],
            "trained": self.trained.state(),
            "origin": self.origin,
            "judged_by": self.judged_by,
        }
        torch.save(state, buffer)
        replace_file(path, buffer.getbuffer())

    @classmethod
    def load(
        cls, path: Path, settings: TrainSettings, device: torch.device, epoch_batches: int
    ) -> Run:
        """Restore a saved run, with the rates and limits of `settings`. Raises ModelError."""
        data = io.BytesIO(path.read_bytes())  # from a torn file, torch.load may raise OSError
        try:
            state = torch.load(data, map_location=device, weights_only=True)
            model = ColorNet(ModelSpec(**state["spec"]), Decoding(**state["decoding"]))
            run = cls(model, settings, device, epoch_batches)
            run._restore(state)
        except _DAMAGE as error:
            raise ModelError(
                f"{path}: expected the state of a training run, found {error!r}"
            ) from error
        return run

    def _restore(self, state: dict[str, Any]) -> None:
        rates = [group["base_lr"] for group in self.optimizer.param_groups]
        model, optimizer, averaged = state["parts"]
        self.model.load_state_dict(model)
        for group in optimizer["param_groups"]:
            group["fused"] = True  # states of before were not
        self.optimizer.load_state_dict(optimizer)
        # Older files have a counter, and names that begin with `module`.
        averaged.pop("n_averaged", None)
        self.averaged.load_state_dict(
            {name.removeprefix("module."): tensor for name, tensor in averaged.items()}
        )
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["base_lr"] = rate  # the optimizer's state brings back the old one
        for name, value in state["counters"].items():
            if name in _COUNTERS:
                setattr(self, name, value)
        if "trained" in state:
            self.trained.resume(state["trained"])
        self.origin = state.get("origin", {})
        self.judged_by = state.get("judged_by", "")

    def close_epoch(self) -> tuple[float, Scores]:
        """Begin the next epoch; returns the mean loss and the scores of the one that ended."""
        scores = self.trained.scores()
        loss = float(self.loss_sum) / scores.pictures
        self.epoch, self.batch = self.epoch + 1, 0
        self.trained, self.loss_sum = ScoreSum(), 0.0
        return loss, scores

    def progress(self) -> float:
        """How much of the run is done, 0..1: by epochs or by minutes, whichever is further."""
        epochs = (self.epoch + self.batch / self.epoch_batches) / self.settings.epochs
        minutes = self.seconds / (self.settings.minutes * 60) if self.settings.minutes else 0.0
        return min(1.0, max(epochs, minutes))

    def count_time(self) -> None:
        """Add the time since the last call, including waits for pictures and validation."""
        before, self._now = self._now, time.monotonic()
        self.seconds += self._now - before


# Errors of torch.load and load_state_dict for a file that is incomplete or of another program.
_DAMAGE = (EOFError, KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError)
_COUNTERS = (
    "step",
    "epoch",
    "batch",
    "pictures_seen",
    "seconds",
    "loss_sum",  # a number in the file
    "best_delta_e_70",
)


@contextmanager
def averaged_weights(run: Run) -> Iterator[None]:
    """Within the block the model has its averaged weights; after it, its own again."""
    own = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.model.load_state_dict(run.averaged.state_dict())
    try:
        yield
    finally:
        run.model.load_state_dict(own)


def _optimizer(model: ColorNet, settings: TrainSettings) -> torch.optim.Optimizer:
    rates = (
        (model.decoder, settings.learning_rate),
        (model.encoder, settings.learning_rate * settings.encoder_rate_share),
    )
    groups = [{"params": list(m.parameters()), "lr": rate, "base_lr": rate} for m, rate in rates]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
