"""Every label by itself: one run after the other, each in a folder of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event

import torch

from colordaemon.config import TrainSettings
from colordaemon.errors import DataError
from colordaemon.pictures.dataset import find_pictures
from colordaemon.training.train import train

log = logging.getLogger(__name__)


def train_each(
    folder: Path,
    runs_folder: Path,
    settings: TrainSettings,
    device: torch.device,
    *,
    resume: bool = False,
    command: str = "",
    stop: Event | None = None,
    report_progress: Callable[[str], None] = log.info,
) -> list[Path]:
    """Train a model for each label of a folder; returns the model files, by label.

    Arguments and errors are those of `train`; a label that cannot be trained on is named and passed
    over, and DataError is raised when that goes for all of them.
    """
    labels = sorted({picture.label for picture in find_pictures(folder)})
    models: list[Path] = []
    for label in labels:
        report_progress(f"label {label}, {len(models) + 1} of {len(labels)}")
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
                    report_progress=report_progress,
                )
            )
        except DataError as error:
            log.error("label %s: %s", label, error)
    if not models:
        raise DataError(f"{folder}: none of {len(labels)} labels can be trained on")
    return models
