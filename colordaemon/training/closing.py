"""The end of a run: its best model judged the way it will be used, and written about.

The model is safe on disk before this begins. Whatever fails here is logged and takes nothing away,
and resuming the finished run tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from colordaemon.durable import replace_file
from colordaemon.errors import ColordaemonError
from colordaemon.evaluation.pictures import Evaluation, evaluate_pictures
from colordaemon.evaluation.sheets import draw_contact_sheet
from colordaemon.network.checkpoint import load_model
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.device import choose_dtype
from colordaemon.pictures.collection import CollectedPicture, Collection
from colordaemon.pictures.dataset import Picture
from colordaemon.training.card import model_card
from colordaemon.training.metrics_log import Report
from colordaemon.training.outcome import MODEL, Outcome
from colordaemon.training.page import page
from colordaemon.training.state import Run
from colordaemon.training.validate import reporting_half

log = logging.getLogger(__name__)


def close_run(
    model_path: Path,
    report: Report,
    run: Run,
    collection: Collection,
    validation: Sequence[CollectedPicture],
    unseen: Sequence[CollectedPicture],
    command: str,
    stop: Event,
    report_progress: Callable[[str], None],
) -> None:
    """Write report.html, model-card.md and worst-best.png into the run's folder, or say why not."""
    unfinished = f"{report.folder}: the run is finished, but has no report; resume tries again"
    try:
        outcome = _judge(
            model_path, report, run, collection, validation, unseen, command, stop, report_progress
        )
        for name, text in (("report.html", page(outcome)), ("model-card.md", model_card(outcome))):
            # Bytes in a name that are no text cannot be written as text either.
            replace_file(report.folder / name, text.encode(errors="backslashreplace"))
    except (ColordaemonError, OSError) as error:
        log.warning("%s (%s)", unfinished, error)
    except Exception:  # hours of training are worth more than a page about them
        log.exception("%s", unfinished)
    else:
        report_progress(f"{report.folder / 'report.html'} tells how it went")


def _judge(
    model_path: Path,
    report: Report,
    run: Run,
    collection: Collection,
    validation: Sequence[CollectedPicture],
    unseen: Sequence[CollectedPicture],
    command: str,
    stop: Event,
    report_progress: Callable[[str], None],
) -> Outcome:
    model = load_model(model_path)
    decoding = model.decoding
    colorizer = Colorizer(model, run.device, choose_dtype("auto", run.device))

    def evaluate(samples: Sequence[CollectedPicture], what: str) -> Evaluation:
        pictures = reported(samples, run.settings.report_pictures)
        report_progress(f"judging the best model on {len(pictures)} {what}")
        models = [(MODEL, colorizer)]
        return evaluate_pictures(pictures, models, stop=stop, report_progress=report_progress)

    evaluation = evaluate(validation, "held-out pictures")
    extremes = report.folder / "worst-best.png"
    draw_contact_sheet(extremes, evaluation.delta_e, colorizer)
    return Outcome(
        name=report.folder.resolve().name,
        command=command,
        settings=run.settings,
        origin=run.origin,
        collection=collection,
        epochs=report.rows(),
        pictures_seen=run.pictures_seen,
        seconds=run.seconds,
        decoding=decoding,
        evaluation=evaluation,
        unseen=evaluate(unseen, "pictures of unseen sources") if unseen else None,
        curves=report.folder / "curves.png",
        contact_sheet=report.contact_sheet(run.epoch),
        extremes=extremes,
    )


def reported(validation: Sequence[CollectedPicture], count: int) -> list[Picture]:
    """Up to `count` pictures, evenly spaced, of the half that did not tune the decoding."""
    half = reporting_half(validation)
    count = min(count, len(half))
    return [half[i * len(half) // count].picture for i in range(count)]
