"""The command line: parse, set up logging, call one function, turn the outcome into an exit code.

0 all done · 1 some failed · 2 usage · 3 nothing to do · 78 configuration or model · 130 interrupted
"""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler

from colordaemon import __version__
from colordaemon.config import Config, load_config
from colordaemon.errors import ConfigError, DataError, Interrupted, MediaError, ModelError
from colordaemon.service.printable import PrintableFormatter

FAILED, NOTHING_TO_DO, CONFIGURATION, INTERRUPTED = 1, 3, 78, 130

app = typer.Typer(
    help="Color black-and-white photos and films; sound, subtitles, timing and luma stay.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(stderr=True)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings; see config.yaml.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where the network runs.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"colordaemon {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Set up logging: one line per event, on standard error."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s %(message)s"))
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False)
        handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("pyvips").setLevel(logging.WARNING)  # it tells of its threads


@app.command()
def once(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Photos and films.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where results go; else beside."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace results that exist.")] = False,
    force: Annotated[bool, typer.Option(help="Replace color that is there already.")] = False,
    accept_damaged: Annotated[bool, typer.Option(help="Color what is left of bad films.")] = False,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another model than the bundled one.")
    ] = None,
    codec: Annotated[
        Literal["h264", "hevc", "av1", "prores", "dnxhr", "ffv1"] | None,
        typer.Option(help="How films are encoded."),
    ] = None,
    quality: Annotated[
        Literal["draft", "standard", "best"] | None,
        typer.Option(help="How much of the picture the network sees."),
    ] = None,
    device: Device = None,
    config: ConfigFile = None,
) -> None:
    """Color the named files and stop."""
    with _exit_codes(), _stop_on_signals() as stop:
        settings = _override(
            _load(config),
            output={"folder": output, "overwrite": overwrite or None},
            film={"damaged_percent": 100.0 if accept_damaged else None, "codec": codec},
            model={"file": model, "device": device, "quality": quality},
        )
        if model is not None:  # meant for all files, whatever the configuration says of some
            settings = settings.model_copy(update={"models": {}})
        from colordaemon.service.once import color_files  # torch takes seconds to import
        from colordaemon.service.progress import BarProgress, LineProgress

        progress = BarProgress(console) if console.is_terminal else LineProgress()
        tally = color_files(files, settings, progress, force=force, stop=stop)
        if tally.interrupted:
            raise typer.Exit(INTERRUPTED)
        if tally.failed:
            raise typer.Exit(FAILED)
        if not tally.done:
            raise typer.Exit(NOTHING_TO_DO)


@app.command()
def train(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A subfolder of color pictures per label.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The run's folder.")
    ] = Path("runs/default"),
    resume: Annotated[bool, typer.Option(help="Go on with the run in that folder.")] = False,
    subset: Annotated[str | None, typer.Option(help="Train one label only.")] = None,
    each: Annotated[bool, typer.Option(help="Train every label by itself, in turn.")] = False,
    loss: Annotated[
        Literal["joint", "classification", "smooth_l1", "l2"] | None,
        typer.Option(help="What training minimizes."),
    ] = None,
    encoder: Annotated[
        Literal["model", "imagenet", "frozen", "scratch"] | None,
        typer.Option(help="What the encoder starts from, and whether it learns."),
    ] = None,
    vgg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="VGG16 weights (safetensors).")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A model to start from.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures.")] = None,
    minutes: Annotated[float | None, typer.Option(help="End after this time.")] = None,
    device: Device = None,
    config: ConfigFile = None,
) -> None:
    """Train a model on labeled color pictures; under torchrun, on several GPUs."""
    if each and subset:
        raise typer.BadParameter("--each trains all labels, --subset one")
    with _exit_codes(), _stop_on_signals() as stop:
        settings = _override(
            _load(config),
            train={
                "subset": subset,
                "loss": loss,
                "encoder": encoder,
                "vgg": vgg,
                "start": start,
                "epochs": epochs,
                "minutes": minutes,
            },
            model={"device": device},
        )
        from colordaemon.network.colorizer import choose_device
        from colordaemon.training.each import train_each
        from colordaemon.training.train import train as train_one

        run_training = train_each if each else train_one
        run_training(
            folder,
            output,
            settings.train,
            choose_device(settings.model.device),
            resume=resume,
            command=shlex.join(sys.argv),
            stop=stop,
        )


@app.command()
def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR|CLIP…", help="A subfolder of color pictures per label; or films in color."
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another model than the bundled one.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A second model, for comparison.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Pictures of one label only.")] = None,
    pictures: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="An evenly spaced sample.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out/--all", help="Only pictures that training leaves aside.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="How much of each film.")
    ] = None,
    quality: Annotated[
        Literal["draft", "standard", "best"] | None,
        typer.Option(help="How much of the picture the network sees."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every number to this file.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Contact sheets go to this folder."),
    ] = None,
    device: Device = None,
    config: ConfigFile = None,
) -> None:
    """Strip pictures or films of their color, color them again and score the result.

    Films are smoothed in every way, side by side.
    """
    films = _are_films(paths)
    for_pictures = {
        "--against": against,
        "--subset": subset,
        "--pictures": pictures,
        "--held-out": held_out or None,
    }
    _refuse({"--seconds": seconds} if not films else for_pictures, "films" if films else "pictures")
    with _exit_codes(), _stop_on_signals() as stop:
        settings = _override(
            _load(config), model={"file": model, "device": device, "quality": quality}
        )
        if films:
            from colordaemon.screening import board
            from colordaemon.screening.screen import screen

            tables = screen(
                paths,
                settings.model,
                seconds=seconds,
                damaged_percent=settings.film.damaged_percent,
                json_file=json,
                output=output,
                stop=stop,
            )
            board.show(tables, Console())
            return
        from colordaemon.judging.judge import judge
        from colordaemon.judging.scoreboard import show

        evaluation = judge(
            paths[0],
            settings.model,
            against=against,
            subset=subset,
            held_out=settings.train.held_out if held_out else None,
            limit=pictures,
            json_file=json,
            output=output,
            stop=stop,
        )
        show(evaluation, Console())


def main() -> None:
    """The entry point."""
    app()


def _are_films(paths: list[Path]) -> bool:
    """Whether films are meant, by what the paths are: one folder holds pictures."""
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise typer.BadParameter(f"{folders[0]}: expected one folder of pictures, or only films")
    return not folders


def _refuse(options: dict[str, Any], kind: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"{name} does not go with {kind}")


def _load(path: Path | None) -> Config:
    return Config() if path is None else load_config(path)


def _override(config: Config, **sections: dict[str, Any]) -> Config:
    """The configuration with what was given on the command line; None means not given."""
    values = config.model_dump()
    for section, options in sections.items():
        values[section] |= {name: value for name, value in options.items() if value is not None}
    try:
        return Config.model_validate(values)
    except ValueError as error:
        raise ConfigError(f"command line: {error}") from error


@contextmanager
def _exit_codes() -> Iterator[None]:
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
    except (DataError, MediaError) as error:
        log.error("%s", error)
        raise typer.Exit(FAILED) from None
    except Interrupted as reason:
        log.warning("%s", reason)
        raise typer.Exit(INTERRUPTED) from None
    except KeyboardInterrupt:
        log.warning("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        log.exception("%s", error)
        sys.exit(FAILED)


@contextmanager
def _stop_on_signals() -> Iterator[Event]:
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
