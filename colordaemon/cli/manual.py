"""The manual page, made of the commands themselves when the package is built; see setup.py.

python -m colordaemon.cli.manual > colordaemon.1
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import typer

from colordaemon import __version__
from colordaemon.cli import app
from colordaemon.cli.help import help_record

_EXIT_CODES = {
    "0": "All done.",
    "1": "Some files failed, or something is wrong.",
    "2": "Wrong usage.",
    "3": "Nothing to do.",
    "78": "The configuration or the model is wrong.",
    "130": "Interrupted.",
}
_FILES = {
    "/etc/colordaemon/config.yaml": "The configuration of the daemon.",
}


def page() -> str:
    """The page in the language of man (groff_man(7))."""
    root = typer.main.get_command(app)
    context = root.make_context("colordaemon", [], resilient_parsing=True)
    lines = [
        f'.TH COLORDAEMON 1 "" "colordaemon {__version__}" "User Commands"',
        ".SH NAME",
        f"colordaemon \\- {_plain('color black-and-white photos and films')}",
        ".SH SYNOPSIS",
        ".B colordaemon",
        r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
        _plain(str(root.help)),
        ".SH OPTIONS",
        *_options(root, context),
        ".SH COMMANDS",
        *_commands(root, context, "colordaemon"),
        ".SH EXIT STATUS",
    ]
    for term, words in _EXIT_CODES.items():
        lines += [".TP", f".B {term}", _plain(words)]
    lines.append(".SH FILES")
    for term, words in _FILES.items():
        lines += [".TP", f".I {_plain(term)}", _plain(words)]
    return "\n".join(lines) + "\n"


def _commands(group: Any, context: Any, name: str) -> Iterator[str]:
    """A section of each command, and of those below it. The classes are typer's own."""
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        full = f"{name} {word}"
        inner = command.make_context(word, [], parent=context, resilient_parsing=True)
        if hasattr(command, "list_commands"):
            yield from _commands(command, inner, full)
            continue
        usage = " ".join(command.collect_usage_pieces(inner))
        yield f'.SS "{_plain(full)} {_plain(usage)}"'
        for paragraph in re.split(r"\n\s*\n", str(command.help)):
            yield from (".PP", _plain(" ".join(paragraph.split())))
        yield from _options(command, inner)
        _, _, *examples = map(str.strip, str(command.epilog).split("\n"))
        yield from (".PP", "Examples:", ".PP", ".nf", ".RS")
        yield from map(_plain, examples)
        yield from (".RE", ".fi")


def _options(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        if (record := help_record(parameter, context)) is not None:
            names, words = record
            yield from (".TP", f".B {_plain(names)}", _plain(words))


def _plain(text: str) -> str:
    """Text that man takes for nothing but text."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in text.split("\n"))


if __name__ == "__main__":
    sys.stdout.write(page())
