"""What all commands share: logging, options, exit codes.

0 all done · 1 some failed · 2 usage · 3 nothing to do · 78 configuration or model · 130 interrupted
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from colordaemon import __version__
from colordaemon.cli.help import Commands, Program, examples
from colordaemon.errors import (
    ConfigError,
    DataError,
    GuideChanged,
    Interrupted,
    MediaError,
    ModelError,
    TargetExists,
)
from colordaemon.logs import set_up_logging

if TYPE_CHECKING:
    from rich.console import Console

    from colordaemon.config import Config

FAILED, NOTHING_TO_DO, CONFIGURATION, INTERRUPTED = 1, 3, 78, 130
SYSTEM_CONFIG = Path("/etc/colordaemon/config.yaml")

app = Commands(
    cls=Program,
    help="Color black-and-white photos and films; sound, subtitles, timing and luma stay.",
    epilog=examples("colordaemon once film.mp4", "colordaemon watch --config config.yaml"),
    no_args_is_help=True,
    rich_markup_mode=None,  # its table cuts off options on a terminal of 80 columns
    pretty_exceptions_enable=False,
)


@cache
def terminal() -> Console:
    """Standard error, for bars and colors."""
    from rich.console import Console

    return Console(stderr=True)


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration file; see config.yaml."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where the network runs.")
]
Quality = Annotated[
    Literal["draft", "standard", "best"] | None,
    typer.Option(help="How much of the picture the network sees."),
]
Workers = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Processes that color parts of a film together."),
]
Saturation = Annotated[
    float | None,
    typer.Option(metavar="N", help="How strong colors are, from 0 (gray) to 2; 1 is as tuned."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        import av

        ffmpeg, torch = av.ffmpeg_version_info, version("torch")
        libraries = f"FFmpeg {ffmpeg}, PyAV {av.__version__}, torch {torch}"
        typer.echo(f"colordaemon {__version__} ({libraries})")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Show the version, and those of FFmpeg, PyAV and torch.",
        ),
    ] = False,
) -> None:
    """Set up logging: one line per event, on standard error."""
    set_up_logging(terminal)


def load(path: Path | None) -> Config:
    from colordaemon.config import Config
    from colordaemon.config_file import load_config  # settings take 0.1 s to import

    if path == SYSTEM_CONFIG and not path.exists():
        raise ConfigError(f"{path}: there is no such file; --config FILE names another")
    return Config() if path is None else load_config(path)


def override(config: Config, **sections: dict[str, Any]) -> Config:
    """The configuration, changed by options of the command line; None means not given."""
    from pydantic import ValidationError

    from colordaemon.config import Config
    from colordaemon.config_file import explain_values

    values = config.model_dump()
    for section, options in sections.items():
        values[section] |= {name: value for name, value in options.items() if value is not None}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        mistakes = (f"command line: {mistake}" for mistake in explain_values(error))
        raise ConfigError("\n".join(mistakes)) from error


def refuse_beside(option: str, others: Mapping[str, object], why: str) -> None:
    """Raises ConfigError for the first of other options that was given and makes no sense beside
    one."""
    for other, value in others.items():
        if value not in (None, False):
            raise ConfigError(f"{other} makes no sense beside {option}, since {why}")


@contextmanager
def exit_codes() -> Iterator[None]:
    log = logging.getLogger(__name__)
    try:
        yield
    except ConfigError as error:
        for mistake in str(error).split("\n"):
            log.error("%s", mistake)
        raise typer.Exit(CONFIGURATION) from None
    except ModelError as error:
        log.error("%s", error)
        raise typer.Exit(CONFIGURATION) from None
    except (DataError, GuideChanged, MediaError, TargetExists) as error:
        log.error("%s", error)
        raise typer.Exit(FAILED) from None
    except Interrupted as reason:
        log.warning("%s", reason)
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        log.warning("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except sqlite3.Error as error:  # a disk error or a lock
        log.error("the journal: %s", error)
        raise typer.Exit(FAILED) from None
    except OSError as error:
        if error.filename is None:
            log.exception("%s", error)
        else:
            log.error("%s: %s", os.fsdecode(error.filename), error.strerror or error)
        sys.exit(FAILED)


@contextmanager
def stop_on_signals() -> Iterator[Event]:
    """The first SIGINT or SIGTERM asks for a clean stop, a second SIGINT interrupts at once."""
    stop = Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
