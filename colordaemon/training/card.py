"""model-card.md: what somebody has to know who is handed the model file and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from colordaemon import __version__
from colordaemon.evaluation.pictures import Table
from colordaemon.training.outcome import (
    Outcome,
    against_gray,
    duration,
    figures,
    origin_in_words,
    visible,
)


def model_card(outcome: Outcome) -> str:
    """The whole card, as Markdown."""
    tables = outcome.evaluation.tables
    settings = (f"- {key}: {escaped(value)}" for key, value in outcome.changed_settings.items())
    sections = (
        f"# Model card: {escaped(outcome.name)}",
        "A model for colordaemon that guesses the colors of black-and-white photos and films.",
        "## Data",
        f"Pictures of the folder {escaped(outcome.data_name)}, fingerprint "
        f"{outcome.collection.fingerprint}:",
        _table(outcome.collection.table()),
        f"Training started from: {escaped(origin_in_words(outcome.origin))}.",
        "The terms of these pictures, and the rights of the people in them, are the responsibility "
        "of whoever trained the model; colordaemon has checked neither.",
        "## Intended use",
        "Coloring black-and-white photos and films where plausible colors are wanted and said to "
        "be synthetic. Not as evidence of what something or somebody looked like.",
        "## Limits",
        "\n".join(
            (
                "- The colors are synthetic: guesses that may look right and be wrong. Skin, "
                "clothes, flags and paint are guessed like everything else.",
                "- It knows what it was trained on; other subjects, and film that is more damaged "
                "than it has seen, come out worse than the numbers say.",
                *(f"- {escaped(table.label)}: {against_gray(table)}." for table in tables),
            )
        ),
        "## Numbers",
        outcome.measured_on,
        *(part for table in tables for part in _scores(table)),
        *_unseen(outcome),
        "## How it was made",
        "\n".join(
            (
                f"- colordaemon {__version__}, torch {torch.__version__}",
                f"- loss: {outcome.settings.loss}, encoder: {outcome.settings.encoder}",
                f"- {outcome.pictures_seen} crops seen in {duration(outcome.seconds)}",
                f"- decoding: {outcome.decoding_in_words}",
                *settings,
            )
        ),
        *([_code(outcome.command)] if outcome.command else []),
    )
    return "\n\n".join(sections) + "\n"


def _unseen(outcome: Outcome) -> list[str]:
    if outcome.unseen is None:
        return []
    scores = (part for table in outcome.unseen.tables for part in _scores(table))
    return [escaped(outcome.unseen_in_words), *scores]


def escaped(text: str) -> str:
    """Any text as Markdown that shows it on one line, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|&~$#])", r"\\\1", visible(text))


def _scores(table: Table) -> tuple[str, str]:
    return f"**{escaped(table.label)}: {table.pictures}**", _table(figures(table))


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *others = ("| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows)
    return "\n".join((heading, "|---" + "|---:" * (len(rows[0]) - 1) + "|", *others))


def _code(text: str) -> str:
    """A fence longer than any that the text holds."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
