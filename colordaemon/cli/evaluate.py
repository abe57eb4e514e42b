"""The command that scores a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from colordaemon.cli.common import (
    ConfigFile,
    Device,
    Quality,
    Saturation,
    app,
    exit_codes,
    load,
    override,
    stop_on_signals,
)
from colordaemon.cli.help import examples


@app.command(
    epilog=examples(
        "colordaemon evaluate pictures/ --held-out --model mine.safetensors",
        "colordaemon evaluate clip.mp4 --seconds 10 -o sheets/",
    )
)
def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR|CLIP", help="A subfolder of color pictures per label; or films in color."
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another model than the built-in one.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A second model, for comparison.")
    ] = None,
    subset: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Pictures of one label only.")
    ] = None,
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
        from rich.console import Console

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
