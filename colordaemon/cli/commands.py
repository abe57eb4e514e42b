"""Commands that do one piece of work: parse options, call one function, return an exit code."""

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
    Quality,
    Saturation,
    app,
    console,
    exit_codes,
    load,
    override,
    stop_on_signals,
)
from colordaemon.config import Codec
from colordaemon.errors import ConfigError
from colordaemon.logs import printable


@app.command()
def once(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Photos and films.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder for results; default: beside each source."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace results that exist.")] = False,
    force: Annotated[bool, typer.Option(help="Also color files that have color already.")] = False,
    accept_damaged: Annotated[
        bool, typer.Option(help="Color what can be read of damaged files.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option(help="Color films even if sound or subtitles are lost.")
    ] = False,
    assume_range: Annotated[
        Literal["limited", "full"] | None,
        typer.Option(help="Range of luma codes in films, in place of their tags."),
    ] = None,
    assume_matrix: Annotated[
        Literal["bt601", "bt709", "bt2020"] | None,
        typer.Option(help="Color matrix of films, in place of their tags."),
    ] = None,
    assume_transfer: Annotated[
        Literal["sdr", "pq", "hlg"] | None,
        typer.Option(help="Transfer curve of films, in place of their tags."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[@START..END]",
            help="Picture in color that colors follow, for a film or a part of it (from 1:30 to"
            " 2:05.4 as FILE@1:30..2:05.4); repeatable.",
        ),
    ] = None,
    hints: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[@TIME]",
            help="Dabs of color on transparent ground, for the first frame or that at a time (as"
            " 1:23.4).",
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Pictures in color of which each shot or photo takes those that resemble it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Write nothing; list what would be kept, changed or lost."),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Color some places only; write NAME.preview.png of them."),
    ] = False,
    places: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="Places of films for --preview.")
    ] = 6,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Model file to use instead of the built-in one."),
    ] = None,
    codec: Annotated[
        Codec | None,
        typer.Option(help="Codec of finished films."),
    ] = None,
    quality: Quality = None,
    saturation: Saturation = None,
    device: Device = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Processes that color parts of a film together."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Color the named files and stop."""
    with exit_codes(), stop_on_signals() as stop:
        if dry_run and preview:
            raise ConfigError("once: --dry-run writes nothing; expected it without --preview")
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
            jobs={"workers": workers},
            model={
                "file": model,
                "device": device,
                "quality": quality,
                "saturation": saturation,
            },
        )
        if model is not None:  # this model is for all files, also those that `models` names
            settings = settings.model_copy(update={"models": {}})
        from colordaemon.cli.progress import BarProgress, LineProgress
        from colordaemon.convert.once import (  # torch takes seconds
            color_files,
            plan_files,
            preview_files,
        )
        from colordaemon.guide.sidecars import named_picture, pictures_in

        named = [named_picture(each, "reference") for each in reference or ()]
        named += [named_picture(each, "hints") for each in hints or ()]
        named += pictures_in(candidates, None, "candidate") if candidates else []
        if dry_run:
            tally = plan_files(
                files, settings, _say, named=named, force=force, should_stop=stop.is_set
            )
        elif preview:
            tally = preview_files(
                files, settings, places, _say, named=named, should_stop=stop.is_set
            )
        else:
            progress = BarProgress(console, stop) if console.is_terminal else LineProgress(stop)
            tally = color_files(files, settings, progress, named=named, force=force)
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
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the run.")
    ] = Path("runs/default"),
    resume: Annotated[bool, typer.Option(help="Continue the run in that folder.")] = False,
    subset: Annotated[str | None, typer.Option(help="Train one label only.")] = None,
    each: Annotated[bool, typer.Option(help="Train every label by itself, in turn.")] = False,
    loss: Annotated[
        Literal["joint", "classification", "smooth_l1", "l2"] | None,
        typer.Option(help="What training minimizes."),
    ] = None,
    encoder: Annotated[
        Literal["model", "imagenet", "frozen", "scratch"] | None,
        typer.Option(help="Weights the encoder starts from, and whether it is trained."),
    ] = None,
    vgg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="VGG16 weights (safetensors).")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Model file to start from.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pictures.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this many minutes.")] = None,
    fit_axes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train nothing: give this model file what it needs to use references.",
        ),
    ] = None,
    device: Device = None,
    config: ConfigFile = None,
) -> None:
    """Train a model on labeled color pictures, with torchrun also on several GPUs."""
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
        from colordaemon.training.train import fit_axes_of, train_each
        from colordaemon.training.train import train as train_one

        if fit_axes is not None:
            on = choose_device(settings.model.device)
            fit_axes_of(fit_axes, folder, settings.train, on, stop=stop)
            return
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
        Path | None, typer.Option(metavar="FILE", help="Another model than the built-in one.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A second model, for comparison.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Pictures of one label only.")] = None,
    pictures: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Use an evenly spaced sample of this many."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Pictures of this source only; can be repeated."),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out/--all", help="Only pictures that training does not use.")
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="N", help="Use this many seconds of each film."),
    ] = None,
    reference: Annotated[
        Literal["first", "shot"] | None,
        typer.Option(
            help="Color films also with a reference: the first frame, or that of each shot."
        ),
    ] = None,
    quality: Quality = None,
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

    Films are scored with every smoothing mode.
    """
    films = _are_films(paths)
    for_pictures = {
        "--against": against,
        "--subset": subset,
        "--pictures": pictures,
        "--source": source or None,
        "--held-out": held_out or None,
    }
    for_films = {"--seconds": seconds, "--reference": reference}
    _refuse(for_pictures if films else for_films, "films" if films else "pictures")
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
            from colordaemon.evaluation.command import evaluate_films
            from colordaemon.evaluation.films import show_films

            tables = evaluate_films(
                paths,
                settings.model,
                seconds=seconds,
                reference=reference,
                damaged_percent=settings.film.damaged_percent,
                json_file=json,
                output=output,
                stop=stop,
            )
            show_films(tables, Console())
            return
        from colordaemon.evaluation.command import evaluate_folder
        from colordaemon.evaluation.tables import show

        evaluation = evaluate_folder(
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
    """Whether the paths are films; a single folder holds pictures."""
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise typer.BadParameter(f"{folders[0]}: expected one folder of pictures, or only films")
    return not folders


def _refuse(options: dict[str, Any], kind: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"{name} does not go with {kind}")
