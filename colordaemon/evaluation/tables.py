"""Prints an evaluation as tables for a terminal or a text file, and as JSON for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from colordaemon import __version__
from colordaemon.durable import replace_file
from colordaemon.evaluation.metrics import ACCURACY_DISTANCE
from colordaemon.evaluation.pictures import Evaluation
from colordaemon.evaluation.scores import EVEN_CHROMA, Row

TEXT_WIDTH = 240  # characters of a line where there is no terminal to fit


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("MSE\nof ab", lambda row: f"{row.mse:.1f}"),
    (f"< {ACCURACY_DISTANCE:g}\n%", lambda row: f"{100 * row.accuracy:.1f}"),
    ("AuC\n%", lambda row: f"{row.auc:.1f}"),
    ("AuC\nreb.%", lambda row: f"{row.auc_rebalanced:.1f}"),
    ("PSNR\ndB", lambda row: f"{row.psnr:.2f}"),
    ("ΔE\n2000", lambda row: f"{row.delta_e:.2f}"),
    (f"ΔE\n@{100 * EVEN_CHROMA:g}", lambda row: or_dash(row.delta_e_70, ".2f")),
    ("mean\nchroma", lambda row: f"{row.chroma:.1f}"),
    ("% of\ntruth", lambda row: or_dash(_percent(row.chroma_share), ".0f")),
    ("color-\nful %", lambda row: or_dash(_percent(row.colorfulness_share), ".0f")),
    ("blots\n%", lambda row: f"{100 * row.blots:.1f}"),
)


class Named(Protocol):
    """A row of scores, whatever it scores."""

    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=Named)
Columns = Sequence[tuple[str, Callable[[R], str]]]  # heading, and how a row's cell reads


def show(evaluation: Evaluation, console: Console) -> None:
    """Print every table of an evaluation."""
    titled = [(f"{table.label}: {table.pictures}", table.rows) for table in evaluation.tables]
    show_tables(titled, COLUMNS, console)


def show_tables(
    tables: Iterable[tuple[str, Sequence[R]]], columns: Columns[R], console: Console
) -> None:
    """Print tables, each with its title: drawn on a terminal, plain lines into a file or pipe."""
    if not console.is_terminal:
        console.width = TEXT_WIDTH
    for title, rows in tables:
        # Text, because a label or path with [brackets] is no markup; never broken in a file.
        console.print(Text(title, style="bold"), soft_wrap=True)
        console.print(_grid(rows, columns, drawn=console.is_terminal))
        console.print()


def _grid(rows: Sequence[R], columns: Columns[R], drawn: bool) -> Grid:
    grid = Grid(
        box=box.SIMPLE_HEAD if drawn else None,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    grid.add_column("", overflow="fold")
    for name, _ in columns:
        grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        grid.add_row(Text(row.name), *(cell(row) for _, cell in columns))
    return grid


def or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def write_json(path: Path, evaluation: Evaluation, facts: dict[str, Any]) -> None:
    """Every number of an evaluation, beside `facts`: what was evaluated on what, and where."""
    content = {
        **facts,
        "pictures": evaluation.tables[0].pictures,
        "tables": [asdict(table) for table in evaluation.tables],
    }
    save_json(path, content)


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Content beside the versions that it was made with."""
    content = {
        **content,
        "versions": {
            "colordaemon": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    replace_file(path, text.encode(errors="surrogateescape") + b"\n")
