"""The command that trains a model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

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


@app.command(
    epilog=examples(
        "colordaemon train pictures/ -o runs/mine",
        "colordaemon train pictures/ -o runs/mine --resume --minutes 60",
    )
)
def train(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A subfolder of color pictures per label.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the run.")
    ] = Path("runs/default"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in that folder.")
    ] = False,
    subset: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Train one label only.")
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Train every label by itself, in turn.")
    ] = False,
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
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over the pictures.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Stop after this many minutes.")
    ] = None,
    fit_axes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train nothing: give this model file what references and int8 need.",
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
