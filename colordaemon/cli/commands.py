"""Commands that do one piece of work: parse, call one function, turn the outcome into a code."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from colordaemon.cli.common import (
    FAILED,
    INTERRUPTED,
    NOTHING_TO_DO,
    ConfigFile,
    Device,
    Saturation,
    app,
    console,
    exit_codes,
    load,
    override,
    stop_on_signals,
)
from colordaemon.config import Codec
from colordaemon.logs import printable


@app.command()
def once(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Photos and films.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Where results go; else beside."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace results that exist.")] = False,
    force: Annotated[bool, typer.Option(help="Replace color that is there already.")] = False,
    accept_damaged: Annotated[bool, typer.Option(help="Color what is left of bad files.")] = False,
    accept_loss: Annotated[
        bool, typer.Option(help="Color films whose sound or subtitles cannot be kept.")
    ] = False,
    assume_range: Annotated[
        Literal["limited", "full"] | None,
        typer.Option(help="What luma codes of films mean, whatever they say."),
    ] = None,
    assume_matrix: Annotated[
        Literal["bt601", "bt709", "bt2020"] | None,
        typer.Option(help="The color matrix of films, whatever they say."),
    ] = None,
    assume_transfer: Annotated[
        Literal["sdr", "pq", "hlg"] | None,
        typer.Option(help="The transfer curve of films, whatever they say."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would become of all they hold.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another model than the bundled one.")
    ] = None,
    codec: Annotated[
        Codec | None,
        typer.Option(help="How films are encoded."),
    ] = None,
    quality: Annotated[
        Literal["draft", "standard", "best"] | None,
        typer.Option(help="How much of the picture the network sees."),
    ] = None,
    saturation: Saturation = None,
    device: Device = None,
    config: ConfigFile = None,
) -> None:
    """Color the named files and stop."""
    with exit_codes(), stop_on_signals() as stop:
        settings = override(
            load(config),
            output={"folder": output, "overwrite": overwrite or None},
            film={
                "damaged_percent": 100.0 if accept_damaged else None,
                "accept_loss": accept_loss or None,
                "assume_range": assume_range,
                "assume_matrix": assume_matrix,
                "assume_transfer": assume_transfer,
                "codec": codec,
            },
            photo={"accept_damaged": accept_damaged or None},
            model={
                "file": model,
                "device": device,
                "quality": quality,
                "saturation": saturation,
            },
        )
        if model is not None:  # meant for all files, whatever the configuration says of some
            settings = settings.model_copy(update={"models": {}})
        from colordaemon.cli.progress import BarProgress, LineProgress
        from colordaemon.convert.once import color_files, plan_files  # torch takes seconds

        if dry_run:
            tally = plan_files(files, settings, _say, force=force, should_stop=stop.is_set)
        else:
            progress = BarProgress(console, stop) if console.is_terminal else LineProgress(stop)
            tally = color_files(files, settings, progress, force=force)
        if tally.interrupted:
            raise typer.Exit(INTERRUPTED)
        if tally.failed:
            raise typer.Exit(FAILED)
        if not tally.done:
            raise typer.Exit(NOTHING_TO_DO)


def _say(line: str) -> None:
    typer.echo(printable(line))


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
    with exit_codes(), stop_on_signals() as stop:
        settings = override(
            load(config),
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
        from colordaemon.network.device import choose_device
        from colordaemon.training.train import train as train_one
        from colordaemon.training.train import train_each

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
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Pictures of this source only; can be repeated."),
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
    saturation: Saturation = None,
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
        "--source": source or None,
        "--held-out": held_out or None,
    }
    _refuse({"--seconds": seconds} if not films else for_pictures, "films" if films else "pictures")
    with exit_codes(), stop_on_signals() as stop:
        settings = override(
            load(config),
            model={
                "file": model,
                "device": device,
                "quality": quality,
                "saturation": saturation,
            },
        )
        if films:
            from colordaemon.evaluation import film_tables
            from colordaemon.evaluation.film_command import screen

            tables = screen(
                paths,
                settings.model,
                seconds=seconds,
                damaged_percent=settings.film.damaged_percent,
                json_file=json,
                output=output,
                stop=stop,
            )
            film_tables.show(tables, Console())
            return
        from colordaemon.evaluation.command import judge
        from colordaemon.evaluation.tables import show

        evaluation = judge(
            paths[0],
            settings.model,
            against=against,
            subset=subset,
            held_out=settings.train.held_out if held_out else None,
            limit=pictures,
            sources=source or (),
            json_file=json,
            output=output,
            stop=stop,
        )
        show(evaluation, Console())


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
