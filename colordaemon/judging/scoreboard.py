"""An evaluation to read: tables for a terminal or a text file, and JSON for programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from colordaemon import __version__
from colordaemon.judging.comparison import CHROMA_SHARE, Row
from colordaemon.judging.evaluate import Evaluation, Table
from colordaemon.judging.metrics import ACCURACY_DISTANCE
from colordaemon.network.checkpoint import write_durably

TEXT_WIDTH = 240  # characters of a line where there is no terminal to fit

COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("MSE\nof ab", lambda row: f"{row.mse:.1f}"),
    (f"< {ACCURACY_DISTANCE:g}\n%", lambda row: f"{100 * row.accuracy:.1f}"),
    ("AuC\n%", lambda row: f"{row.auc:.1f}"),
    ("AuC\nreb.%", lambda row: f"{row.auc_rebalanced:.1f}"),
    ("PSNR\ndB", lambda row: f"{row.psnr:.2f}"),
    ("ΔE\n2000", lambda row: f"{row.delta_e:.2f}"),
    (f"ΔE\n@{100 * CHROMA_SHARE:g}", lambda row: _or_dash(row.delta_e_70, ".2f")),
    ("mean\nchroma", lambda row: f"{row.chroma:.1f}"),
    ("% of\ntruth", lambda row: _or_dash(row.chroma_share and 100 * row.chroma_share, ".0f")),
    ("color-\nful", lambda row: f"{row.colorfulness:.1f}"),
)


def show(evaluation: Evaluation, console: Console) -> None:
    """Print every table: drawn on a terminal, as plain lines into a file or pipe."""
    if not console.is_terminal:
        console.width = TEXT_WIDTH
    for table in evaluation.tables:
        console.print(_grid(table, drawn=console.is_terminal))
        console.print()


def _grid(table: Table, drawn: bool) -> Grid:
    # Text, because a label or path with [brackets] is no markup.
    grid = Grid(
        title=Text(f"{table.label}: {table.pictures}"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if drawn else None,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    grid.add_column("", overflow="fold")
    for name, _ in COLUMNS:
        grid.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(Text(row.name), *(cell(row) for _, cell in COLUMNS))
    return grid


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def write_json(path: Path, evaluation: Evaluation, facts: dict[str, Any]) -> None:
    """Every number of an evaluation, beside `facts`: what was evaluated on what, and where."""
    content = {
        **facts,
        "pictures": evaluation.tables[0].pictures,
        "tables": [asdict(table) for table in evaluation.tables],
        "versions": {
            "colordaemon": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_durably(path, text.encode(errors="surrogateescape") + b"\n")
