"""What --help shows, and what answers a typing error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

_F = TypeVar("_F", bound=Callable[..., Any])

# What --help of the program says of each command, in this order.
HEADINGS = {
    "Coloring files": ("once", "frames"),
    "Watching folders": ("watch", "install-service", "web", "metrics"),
    "Asking and steering the daemon": (
        "status", "queue", "first", "retry", "cancel", "forget", "pause", "resume",
    ),
    "Several machines": ("node", "cluster"),
    "If something is wrong": ("doctor", "config", "journal"),
    "Models and measurements": ("evaluate", "train", "bench"),
}  # fmt: skip


def examples(*commands: str) -> str:
    """The end of a help text; \\b keeps its lines as they are."""
    return "\n  ".join(("\b\nExamples:", *commands))


class _Command(TyperCommand):
    """Says of an argument no more than its name and what it means; typer adds <list[Path]>."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for heading, kind in (("Arguments", "argument"), ("Options", "option")):
            parameters = [p for p in self.get_params(ctx) if p.param_type_name == kind]
            if rows := [row for p in parameters if (row := help_record(p, ctx)) is not None]:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def help_record(parameter: Any, context: Any) -> tuple[str, str] | None:
    """Names and meaning of a parameter; None if it is hidden."""
    if (record := parameter.get_help_record(context)) is None:
        return None
    names, words = record
    if parameter.param_type_name == "argument":
        names = parameter.metavar
    return names, words or ""


class Commands(typer.Typer):
    """Adds commands of our own kind."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[_F], _F]:
        return super().command(name, cls=_Command, **options)


class Group(TyperGroup):
    """Lists its commands with the whole first sentence of each, which typer would cut off."""

    def headings(self) -> Mapping[str, Sequence[str]]:
        return {"Commands": list(self.commands)}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for heading, names in self.headings().items():
            with formatter.section(heading):
                # All columns begin at the same place.
                width = max(map(len, self.commands))
                rows = [(name.ljust(width), self._sentence(name)) for name in names]
                formatter.write_dl(rows)

    def _sentence(self, name: str) -> str:
        paragraph, *_ = (self.commands[name].help or "").split("\n\n")
        return " ".join(paragraph.split())


class Program(Group):
    """Says what was meant by an option that does not exist, in the words that typer has for
    commands. Refuses words that are empty: as a path that would be the current folder."""

    def headings(self) -> Mapping[str, Sequence[str]]:
        return HEADINGS

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in HEADINGS.values() for name in names]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "" in args:
            raise typer.BadParameter(
                "found an empty word, expected none; is a variable of the shell not set?"
            )
        with _typing_errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _typing_errors():
            return super().invoke(ctx)


@contextmanager
def _typing_errors() -> Iterator[None]:
    try:
        yield
    except typer.TyperException as error:
        if options := getattr(error, "possibilities", None):
            error.message += f". Did you mean {' or '.join(options)}?"
            error.possibilities = None  # type: ignore[attr-defined]
        error.message = error.message.removeprefix("Value error, ")
        raise
