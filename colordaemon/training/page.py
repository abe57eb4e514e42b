"""report.html: a finished run on one page that needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import torch

from colordaemon import __version__
from colordaemon.evaluation.pictures import Table
from colordaemon.training.outcome import (
    MODEL,
    Outcome,
    against_gray,
    duration,
    figures,
    origin_in_words,
    overfitting_in_words,
    visible,
)

_STYLE = """
:root { color-scheme: light dark; --line: #d8d8d8; --soft: #f4f4f4; --quiet: #666; }
@media (prefers-color-scheme: dark) { :root { --line: #444; --soft: #262626; --quiet: #aaa; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; padding: .3rem 0; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; } thead th { vertical-align: bottom; color: var(--quiet); }
tbody th { font-weight: normal; white-space: nowrap; } .own, .own th { font-weight: bold; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
figcaption, footer { color: var(--quiet); }
"""


def page(outcome: Outcome) -> str:
    """The whole page, as HTML."""
    tables = outcome.evaluation.tables
    return "\n".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>Training run {_text(outcome.name)}</title>",
            f"<style>{_STYLE}</style>\n</head>\n<body>",
            f"<h1>Training run {_text(outcome.name)}</h1>",
            _verdicts(tables),
            f"<p>{_text(overfitting_in_words(outcome.epochs))}</p>",
            "<h2>What was trained</h2>",
            _facts(outcome),
            "<h2>On what</h2>",
            _table(outcome.collection.table(), "", ("all",)),
            "<h2>How good it is</h2>",
            f"<p>{outcome.measured_on}</p>",
            *(_scores(table) for table in tables),
            *_unseen(outcome),
            "<h2>What it looks like</h2>",
            _picture(outcome.extremes, "The worst, median and best of these pictures by CIEDE2000"),
            _picture(outcome.contact_sheet, "After the last epoch: input, output, truth"),
            "<h2>How it went</h2>",
            _picture(outcome.curves, "Loss, error and accuracy after each epoch"),
            f"<footer>colordaemon {__version__}, torch {_text(torch.__version__)}</footer>",
            "</body>\n</html>\n",
        )
    )


def _verdicts(tables: Iterable[Table]) -> str:
    items = (f"<li>{_text(table.label)}: {_text(against_gray(table))}</li>" for table in tables)
    return f"<ul>{''.join(items)}</ul>"


def _facts(outcome: Outcome) -> str:
    facts = {
        "loss": outcome.settings.loss,
        "encoder": outcome.settings.encoder,
        "started from": origin_in_words(outcome.origin),
        "decoding, tuned": outcome.decoding_in_words,
        "folder": outcome.data_name,
        "data fingerprint": outcome.collection.fingerprint,
        "epochs": outcome.epochs[-1]["epoch"] if outcome.epochs else "0",
        "pictures seen": str(outcome.pictures_seen),
        "time": duration(outcome.seconds),
    }
    changed = ", ".join(f"{key}: {value}" for key, value in outcome.changed_settings.items())
    facts["other settings"] = changed or "all as they are by default"
    lines = (f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    command = f"<pre>{escape(outcome.command)}</pre>" if outcome.command else ""
    return f"<dl>{''.join(lines)}</dl>{command}"


def _unseen(outcome: Outcome) -> list[str]:
    if outcome.unseen is None:
        return []
    heading = f"<h2>On sources that it has never seen</h2>\n<p>{_text(outcome.unseen_in_words)}</p>"
    return [heading, *(_scores(table) for table in outcome.unseen.tables)]


def _scores(table: Table) -> str:
    return _table(figures(table), f"{table.label}: {table.pictures}", (MODEL,))


def _table(rows: Sequence[Sequence[str]], caption: str, bold: Sequence[str]) -> str:
    """The first row is the heading; those whose first cell is among `bold` stand out."""
    heading, *others = rows
    lines = [f"<tr>{''.join(f'<th>{_text(cell)}</th>' for cell in heading)}</tr>"]
    for name, *cells in others:
        kind = ' class="own"' if name in bold else ""
        figures = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        lines.append(f"<tr{kind}><th>{_text(name)}</th>{figures}</tr>")
    head = f"<caption>{_text(caption)}</caption>" if caption else ""
    body = "\n".join(lines[1:])
    return (
        f'<div class="scroll"><table>{head}<thead>{lines[0]}</thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _picture(path: Path, caption: str) -> str:
    """A PNG within the page itself, so that it can be mailed."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{_text(caption)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _text(text: str) -> str:
    """Any text, on one line and without a meaning to a browser."""
    return escape(visible(text))
