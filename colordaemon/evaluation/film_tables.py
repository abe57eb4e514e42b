"""Prints an evaluation of films as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from colordaemon.evaluation.film_scores import FilmRow, mean_rows
from colordaemon.evaluation.films import FilmTable
from colordaemon.evaluation.tables import or_dash, show_tables

COLUMNS: tuple[tuple[str, Callable[[FilmRow], str]], ...] = (
    ("warp\nab", lambda row: or_dash(row.warp_error, ".2f")),
    ("CDC\n/1000", lambda row: or_dash(_times(row.cdc, 1000), ".2f")),
    ("chroma\n% off", lambda row: or_dash(_times(row.chroma_of_off, 100), ".0f")),
    ("% of\ntruth", lambda row: or_dash(_times(row.chroma_of_truth, 100), ".0f")),
    ("ΔE\n2000", lambda row: f"{row.delta_e:.2f}"),
    ("ΔE\ncut", lambda row: or_dash(row.after_cut, ".2f")),
    ("ghost\nab", lambda row: or_dash(row.ghosting, ".2f")),
    ("ms a\nframe", lambda row: or_dash(row.smoothing_ms, ".1f")),
)


def show(tables: Sequence[FilmTable], console: Console) -> None:
    """Print every film's table, and that of the mean of several: drawn on a terminal, as plain
    lines into a file or pipe."""
    titled = [
        (
            f"{table.clip}: {_count(table.frames, 'frame')}, {_count(len(table.cuts), 'shot')}",
            table.rows,
        )
        for table in tables
    ]
    if len(tables) > 1:
        title = f"mean of {len(tables)} films, which weigh the same"
        titled.append((title, mean_rows([table.rows for table in tables])))
    show_tables(titled, COLUMNS, console)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
