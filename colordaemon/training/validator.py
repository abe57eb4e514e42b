"""What the leading process does after each epoch of a run, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from colordaemon.evaluation.metrics import Scores
from colordaemon.network.checkpoint import save_model
from colordaemon.pictures.collection import CollectedPicture, Collection
from colordaemon.pictures.dataset import fingerprint, lot
from colordaemon.pictures.loader import center_crops
from colordaemon.training.closing import close_run
from colordaemon.training.losses import Loss
from colordaemon.training.metrics_log import Report
from colordaemon.training.state import Run, averaged_weights
from colordaemon.training.validate import Validation, tunes, validate

STATE, MODEL = "state.pt", "model.safetensors"  # in a run's folder


class Validator:
    """Judges a run after each epoch, reports it, and keeps its best model and its state."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        collection: Collection,
        loss: Loss,
        say: Callable[[str], None],
    ) -> None:
        settings = run.settings
        self._run, self._folder, self._loss, self._say = run, folder, loss, say
        self._collection = collection
        self._held_out = chosen(collection.validation, settings.validation_pictures)
        self._unseen = chosen(collection.unseen, settings.validation_pictures)
        self._crops = center_crops(self._held_out, settings)
        self._unseen_crops = center_crops(self._unseen, settings)
        self._report = Report(folder, center_crops(_shown(self._held_out), settings))
        self._saved = time.monotonic()
        judged = self._unseen if tunes(self._unseen) else self._held_out
        run.judge_by(f"{settings.validation_side} {fingerprint([s.picture for s in judged])}")

    def close_epoch(self, training_loss: float, trained: Scores) -> None:
        """training_loss, trained: means over the epoch."""
        run = self._run
        with averaged_weights(run):
            judged = validate(
                run.model, self._crops, self._unseen_crops, run.settings, self._loss, run.device
            )
            best = judged.tuning_delta_e_70 < run.best_delta_e_70
            if best:
                run.best_delta_e_70 = judged.tuning_delta_e_70
                save_model(self._folder / MODEL, run.model, _notes(self._collection, run, judged))
            self._report.add_epoch(run, training_loss, trained, judged, best)
            self._report.draw_contact_sheet(run.epoch, run.model, run.device)
        run.count_time()
        if run.progress() >= 1.0 or time.monotonic() - self._saved > run.settings.save_seconds:
            run.save(self._folder / STATE)
            self._saved = time.monotonic()
        self._say(self._report.last_line)

    def close_run(self, command: str, stop: Event) -> None:
        """Judge the best model as it will be used, and write about it."""
        close_run(
            self._folder / MODEL,
            self._report,
            self._run,
            self._collection,
            self._held_out,
            self._unseen,
            command,
            stop,
            self._say,
        )


def chosen(samples: Sequence[CollectedPicture], count: int) -> list[CollectedPicture]:
    """Up to `count` samples; adding pictures to the folder changes the choice little."""
    lots = sorted(samples, key=lambda sample: lot(sample.name))
    return sorted(lots[:count], key=lambda sample: sample.name)


def _shown(validation: Sequence[CollectedPicture], per_label: int = 3) -> list[CollectedPicture]:
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
