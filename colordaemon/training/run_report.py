"""Reports on a finished run: report.html and model-card.md.

The page needs no other file and no network. The card is what somebody has to know who is handed the
model file and nothing else.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from colordaemon import __version__
from colordaemon.config import TrainSettings
from colordaemon.evaluation.pictures import GRAY, Evaluation, Table
from colordaemon.evaluation.tables import COLUMNS
from colordaemon.logs import printable
from colordaemon.network.model import Decoding
from colordaemon.pictures.collection import Collection
from colordaemon.training.metrics_log import OVERFIT_EPOCHS, overfitting
from colordaemon.training.validate import tunes

THIS_MODEL = "this model"  # its row's name in the evaluation
FEW = 20  # pictures; a mean over fewer is mostly chance


@dataclass(frozen=True)
class Outcome:
    """A finished run. All texts are unescaped: the templates escape them.

    command: a shell line, empty if there was none. origin: see `initialize.origin_of`. epochs: rows
    of metrics.csv. seconds: training and validation, all calls together. decoding: the best
    model's. unseen: of pictures whose sources were held out whole, if any were.
    """

    name: str
    command: str
    settings: TrainSettings
    origin: dict[str, Any]
    collection: Collection
    epochs: Sequence[dict[str, str]]
    pictures_seen: int
    seconds: float
    decoding: Decoding
    evaluation: Evaluation
    unseen: Evaluation | None
    curves: Path
    contact_sheet: Path
    extremes: Path

    @property
    def data_name(self) -> str:
        """The folder's own name, even if it was called `.`"""
        return self.collection.folder.resolve().name

    @property
    def changed_settings(self) -> dict[str, str]:
        """Settings that differ from their defaults, as in a configuration file."""
        values, defaults = (s.model_dump(mode="json") for s in (self.settings, TrainSettings()))
        changed = {key: value for key, value in values.items() if value != defaults[key]}
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in changed.items()}

    @property
    def facts(self) -> dict[str, str]:
        """What was trained, from what and for how long, by name."""
        changed = ", ".join(f"{key}: {value}" for key, value in self.changed_settings.items())
        return {
            "loss": self.settings.loss,
            "encoder": self.settings.encoder,
            "started from": origin_in_words(self.origin),
            "decoding, tuned": self.decoding_in_words,
            "folder": self.data_name,
            "data fingerprint": self.collection.fingerprint,
            "epochs": self.epochs[-1]["epoch"] if self.epochs else "0",
            "pictures seen": str(self.pictures_seen),
            "time": duration(self.seconds),
            "other settings": changed or "all as they are by default",
        }

    @property
    def measured_on(self) -> str:
        """What the numbers mean, in full sentences."""
        known = (
            "Measured on held-out pictures that this run neither trained on nor tuned its decoding "
            "with, colored as colordaemon colors photos."
        )
        if "notes" in self.origin:
            known += " The model it started from may have seen some of them."
        return known + (
            " Mean errors favor pale colors, so read them beside the share of chroma. Mean color "
            "is every picture painted with the average of its own true colors."
        )

    @property
    def decoding_in_words(self) -> str:
        decoding = self.decoding
        classes = f"{_percent(decoding.bin_share)} classes and {_percent(1 - decoding.bin_share)}"
        if decoding.certainty_from is not None:
            classes = (
                f"classes up to {_percent(decoding.bin_share)} where certainty is above "
                f"{decoding.certainty_from:g}, else"
            )
        return (
            f"temperature {decoding.temperature:g}, {classes} regression, chroma to the power of "
            f"{decoding.chroma_exponent:g} and times {decoding.chroma_gain:.2f}"
        )

    @property
    def unseen_in_words(self) -> str:
        """Which sources are held out, and why; empty if none are."""
        sources = self.collection.unseen_sources
        if not sources:
            return ""
        tuning = "half of them tuned the decoding, and the other half, measured here, tells"
        if not tunes(self.collection.unseen):
            tuning = "what is measured here on half of them tells"
        known = ""
        if "notes" in self.origin:
            known = " The model that this run started from may have seen some of them."
        return (
            f"Pictures of the sources {', '.join(sources)} were held out whole: {tuning} how the "
            f"model does on what resembles nothing that this run trained on.{known}"
        )


def page(outcome: Outcome) -> str:
    """report.html."""
    return _render("report.html", outcome)


def model_card(outcome: Outcome) -> str:
    """model-card.md."""
    return _render("model-card.md", outcome)


def _render(name: str, outcome: Outcome) -> str:
    """Fill in a template; everything in double braces is escaped."""
    environment = Environment(
        loader=PackageLoader("colordaemon.training"),
        autoescape=True,
        finalize=_escaped_for(Path(name).suffix),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "against_gray": against_gray,
        "as_written": Markup.escape,
        "base64": lambda path: base64.b64encode(path.read_bytes()).decode(),
        "duration": duration,
        "fenced": fenced,
        "figures": figures,
        "origin_in_words": origin_in_words,
        "overfitting_in_words": overfitting_in_words,
        "own": THIS_MODEL,
        "torch_version": str(torch.__version__),
        "version": __version__,
    }
    return environment.get_template(name).render(run=outcome)


def _escaped_for(suffix: str) -> Callable[[object], object]:
    """The function that escapes text for this kind of file; markup stays as it is."""

    def escape(value: object) -> object:
        if isinstance(value, Markup):
            return value
        return Markup(escaped(str(value))) if suffix == ".md" else printable(str(value))  # noqa: S704

    return escape


def escaped(text: str) -> str:
    """Any text as Markdown that shows it on one line, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|&~$#])", r"\\\1", printable(text))


def fenced(text: str) -> Markup:
    """Any text as a block of code in Markdown; its fence is longer than any that the text holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence}\n{text}\n{fence}")  # noqa: S704  (nothing within a fence is markup)


def against_gray(table: Table) -> str:
    """How much better than gray the colors of one table are, and how strong."""
    rows = {row.name: row for row in table.rows}
    model, gray = rows[THIS_MODEL], rows[GRAY]
    change = model.delta_e / gray.delta_e - 1 if gray.delta_e else 0.0
    if abs(change) < 0.01:
        verdict = "no closer to the truth than gray"
    else:
        verdict = f"{_percent(abs(change))} {'further from' if change > 0 else 'closer to'} the "
        verdict += "truth than gray"
    if model.chroma_share is None:
        strength = "the truth has no chroma"
    else:
        strength = f"with {_percent(model.chroma_share)} of the truth's chroma"
    few = f" (pictures: {table.pictures}, so mostly chance)" if table.pictures < FEW else ""
    return f"{verdict}, CIEDE2000 {model.delta_e:.2f} against {gray.delta_e:.2f}, {strength}{few}"


def figures(table: Table) -> list[tuple[str, ...]]:
    """A heading and a line for each row of an evaluation's table."""
    heading = ("", *(name.replace("-\n", "").replace("\n", " ") for name, _ in COLUMNS))
    return [heading, *((row.name, *(cell(row) for _, cell in COLUMNS)) for row in table.rows)]


def overfitting_in_words(epochs: Sequence[dict[str, str]]) -> str:
    """Whether a run is overfitted, or why that cannot be known."""
    if len(epochs) <= OVERFIT_EPOCHS:
        return (
            f"Too few epochs to tell whether it overfits: that takes at least "
            f"{OVERFIT_EPOCHS + 1}, and this run had {len(epochs)}."
        )
    warning = overfitting(epochs)
    if warning:
        return f"{warning[0].upper()}{warning[1:]}."
    best = min(epochs, key=lambda row: float(row["validation_loss"]))
    first, last = epochs[0], epochs[-1]
    return (
        f"No sign of overfitting: the loss on validation pictures was at its best in epoch "
        f"{best['epoch']} of {last['epoch']} ({float(best['validation_loss']):.4f}) and ended at "
        f"{float(last['validation_loss']):.4f}; on training pictures it went from "
        f"{float(first['training_loss']):.4f} to {float(last['training_loss']):.4f}."
    )


def origin_in_words(origin: dict[str, Any]) -> str:
    """The weights that a run started from, and those that they came from, as far as is known."""
    if not origin:
        return "not known"
    notes = origin.get("notes", {})
    facts = [f"labels {', '.join(notes['labels'])}"] if notes.get("labels") else []
    facts += [f"pictures {notes['pictures']}"] if "pictures" in notes else []
    facts += [f"crops seen {notes['crops_seen']}"] if "crops_seen" in notes else []
    facts += (
        [f"data fingerprint {notes['data_fingerprint']}"] if "data_fingerprint" in notes else []
    )
    words = origin["weights"] + (f" ({'; '.join(facts)})" if facts else "")
    return (
        f"{words}, which started from {origin_in_words(notes['origin'])}"
        if notes.get("origin")
        else words
    )


def duration(seconds: float) -> str:
    """As in `1 h 05 min` or `42 s`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
