"""The command that writes frames of a film as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colordaemon.cli.common import (
    ConfigFile,
    Device,
    app,
    exit_codes,
    load,
    override,
    stop_on_signals,
)
from colordaemon.cli.help import examples
from colordaemon.errors import ConfigError, Interrupted
from colordaemon.logs import printable
from colordaemon.sidecar_names import parse_time


@app.command(
    epilog=examples(
        "colordaemon frames film.mp4 --shots -o frames/",
        "colordaemon frames film.mp4 --at 1:23.4 -o frames/",
    )
)
def frames(
    film: Annotated[Path, typer.Argument(metavar="FILM", help="The film.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the pictures.")
    ],
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME", help="A frame's time, as 1:23.4 or 83.4; repeatable."),
    ] = None,
    shots: Annotated[bool, typer.Option("--shots", help="The middle frame of every shot.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace pictures that exist, edited or not.")
    ] = False,
    device: Device = None,
    config: ConfigFile = None,
) -> None:
    """Write frames of a film as PNG: gray, colored, and transparent for dabs of color.

    Either --shots or --at says which. An edited picture that is put beside the film guides its
    colors.
    """
    with exit_codes(), stop_on_signals() as stop:
        if shots == bool(at):
            raise ConfigError("frames: expected either --at TIME or --shots")
        settings = override(load(config), model={"device": device})
        try:
            times = None if shots else [parse_time(each) for each in at or ()]
        except ValueError as error:
            raise ConfigError(f"--at: {error}") from None
        from colordaemon.convert.frames import write_frames  # torch takes seconds
        from colordaemon.convert.models import Models

        def said(path: Path) -> None:
            typer.echo(printable(str(path)))
            if stop.is_set():
                raise Interrupted(f"{film}: stopped")

        model = Models(settings).model_for(film)
        write_frames(film, output, settings, model, times=times, overwrite=overwrite, on_file=said)
