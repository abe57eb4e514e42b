"""One of several processes that train one model; torchrun starts them."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from colordaemon.config import TrainSettings
from colordaemon.training.train import train

torch.set_num_threads(1)
pictures, run, start = map(Path, sys.argv[1:])
settings = TrainSettings(
    start=start,
    epochs=2,
    batch_size=2,
    side=32,
    validation_side=32,
    learning_rate=0.01,
    held_out=0.25,
    loss="joint",
    cache=False,
)
train(pictures, run, settings, torch.device("cpu"))
