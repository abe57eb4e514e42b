"""Validates and reports after each epoch and at the end of a run, in the leading process."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from colordaemon.durable import replace_file
from colordaemon.errors import ColordaemonError
from colordaemon.evaluation.metrics import Scores
from colordaemon.evaluation.pictures import Evaluation, evaluate_pictures
from colordaemon.evaluation.sheets import draw_contact_sheet
from colordaemon.network.checkpoint import load_model, save_fitted, save_model
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.device import choose_dtype
from colordaemon.pictures.collection import CollectedPicture, Collection
from colordaemon.pictures.dataset import Picture, fingerprint, lot
from colordaemon.pictures.loader import center_crops
from colordaemon.training.fitting import fit
from colordaemon.training.losses import Loss
from colordaemon.training.metrics_log import MetricsLog
from colordaemon.training.run_report import THIS_MODEL, Outcome, model_card, page
from colordaemon.training.state import Run, averaged_weights
from colordaemon.training.validate import Validation, reporting_half, tunes, validate

log = logging.getLogger(__name__)

STATE, MODEL = "state.pt", "model.safetensors"  # in a run's folder


class Validator:
    """Validates a run after each epoch, logs it, and saves its best model and its state."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        collection: Collection,
        loss: Loss,
    ) -> None:
        settings = run.settings
        self._run, self._folder, self._loss = run, folder, loss
        self._collection = collection
        self._held_out = chosen(collection.validation, settings.validation_pictures)
        self._unseen = chosen(collection.unseen, settings.validation_pictures)
        self._crops = center_crops(self._held_out, settings)
        self._unseen_crops = center_crops(self._unseen, settings)
        self._log = MetricsLog(folder, center_crops(_shown(self._held_out), settings))
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
            self._log.add_epoch(run, training_loss, trained, judged, best)
            self._log.draw_contact_sheet(run.epoch, run.model, run.device)
        run.count_time()
        if run.progress() >= 1.0 or time.monotonic() - self._saved > run.settings.save_seconds:
            run.save(self._folder / STATE)
            self._saved = time.monotonic()
        log.info("%s", self._log.last_line)

    def close_run(self, command: str, stop: Event) -> None:
        """Fit the best model's axes and peaks, evaluate it as it will be used, and write
        report.html, model-card.md and worst-best.png into the run's folder, or say why not.

        The model is safe on disk before this begins. Whatever fails here is logged and takes
        nothing away, and resuming the finished run tries again.
        """
        unfinished = f"{self._folder}: the run is finished, but has no report; resume tries again"
        try:
            self._fit()
            outcome = self._judge(command, stop)
            for name, render in (("report.html", page), ("model-card.md", model_card)):
                # A name that is not UTF-8 cannot be written as text.
                text = render(outcome).encode(errors="backslashreplace")
                replace_file(self._folder / name, text)
        except (ColordaemonError, OSError) as error:
            log.warning("%s (%s)", unfinished, error)
        except Exception:  # hours of training are worth more than a page about them
            log.exception("%s", unfinished)
        else:
            log.info("the report is %s", self._folder / "report.html")

    def _fit(self) -> None:
        """Only now: what fits weights that go on learning would be of no use. A model that has axes
        and peaks got them here, after an earlier call of this run."""
        path = self._folder / MODEL
        model = load_model(path)
        if model.axes is None or model.peaks is None:
            save_fitted(path, *fit(model, self._run.device, self._collection.training))

    def _judge(self, command: str, stop: Event) -> Outcome:
        run = self._run
        model = load_model(self._folder / MODEL)
        decoding = model.decoding
        colorizer = Colorizer(model, run.device, choose_dtype("auto", run.device))

        def evaluate(samples: Sequence[CollectedPicture], what: str) -> Evaluation:
            pictures = reported(samples, run.settings.report_pictures)
            log.info("evaluating the best model on %d %s", len(pictures), what)
            models = [(THIS_MODEL, colorizer)]
            return evaluate_pictures(pictures, models, stop=stop)

        evaluation = evaluate(self._held_out, "held-out pictures")
        extremes = self._folder / "worst-best.png"
        draw_contact_sheet(extremes, evaluation.delta_e, colorizer)
        return Outcome(
            name=self._folder.resolve().name,
            command=command,
            settings=run.settings,
            origin=run.origin,
            collection=self._collection,
            epochs=self._log.rows(),
            pictures_seen=run.pictures_seen,
            seconds=run.seconds,
            decoding=decoding,
            evaluation=evaluation,
            unseen=evaluate(self._unseen, "pictures of unseen sources") if self._unseen else None,
            curves=self._folder / "curves.png",
            contact_sheet=self._log.contact_sheet(run.epoch),
            extremes=extremes,
        )


def reported(validation: Sequence[CollectedPicture], count: int) -> list[Picture]:
    """Up to `count` pictures, evenly spaced, of the half that did not tune the decoding."""
    half = reporting_half(validation)
    count = min(count, len(half))
    return [half[i * len(half) // count].picture for i in range(count)]


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
