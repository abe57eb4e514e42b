"""The scores of several films as one: the mean film.

Every film weighs the same, however long it is, as in the warp error of Lai et al. 2018: one long
take would drown what the others say. A film without a score, say without a cut, has no part in that
score's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from colordaemon.evaluation.film_scores import FilmRow


def mean_rows(films: Sequence[Sequence[FilmRow]]) -> tuple[FilmRow, ...]:
    """A row for each way of coloring; all films have the same ways, in the same order."""
    return tuple(_mean(rows) for rows in zip(*films, strict=True))


def _mean(rows: Sequence[FilmRow]) -> FilmRow:
    means: dict[str, Any] = {"name": rows[0].name}
    for score in fields(FilmRow)[1:]:
        found = [getattr(row, score.name) for row in rows]
        there = [value for value in found if value is not None]
        means[score.name] = sum(there) / len(there) if there else None
    return FilmRow(**means)
