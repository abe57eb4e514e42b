"""The command that measures how fast this machine colors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from colordaemon.choices import Codec
from colordaemon.cli.common import (
    FAILED,
    ConfigFile,
    Device,
    Quality,
    Workers,
    app,
    exit_codes,
    load,
    override,
    stop_on_signals,
)
from colordaemon.cli.help import examples

PARTS = "films", "network", "photos"


@app.command(
    epilog=examples(
        "colordaemon bench --sizes 1080 --only films", "colordaemon bench film.mp4 --json"
    )
)
def bench(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CLIP", help="Films; default: some are made.", show_default=False),
    ] = None,
    sizes: Annotated[
        str, typer.Option(metavar="N,…", help="Heights of the films that are made, in pixels.")
    ] = "480,1080,2160",
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="N", help="How much of each film; default: 10 to 2.5, by its size."
        ),
    ] = None,
    only: Annotated[str, typer.Option(metavar="PART,…", help="What to measure.")] = ",".join(PARTS),
    photos: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many small photos are colored.")
    ] = 100,
    batches: Annotated[
        str | None,
        typer.Option(
            metavar="N,…", help="Batches for the network alone; default: 1,8; GPU: 1,8,32,128."
        ),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Runs of pipeline and null transcode; the median counts."
        ),
    ] = 1,
    growth: Annotated[
        bool, typer.Option("--growth", help="Also color films of 1 and 10 minutes; takes long.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; the table goes to standard error.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another model than the built-in one.")
    ] = None,
    codec: Annotated[Codec | None, typer.Option(help="Codec of finished films.")] = None,
    quality: Quality = None,
    device: Device = None,
    workers: Workers = None,
    config: ConfigFile = None,
) -> None:
    """Measure how fast this machine colors, beside decoding and encoding without color.

    Films are measured stage by stage, each in a process of its own, then the network and small
    photos. Only ratios from one call compare machines that are busy with other things.
    """
    with exit_codes(), stop_on_signals() as stop:
        settings = override(
            load(config),
            film={"codec": codec},
            jobs={"workers": workers},
            model={"file": model, "device": device, "quality": quality},
        )
        heights = _numbers("--sizes", sizes, 32, 8640)
        counts = _numbers("--batches", batches, 1, 256) if batches else None
        parts = _parts(only)
        from rich.console import Console

        from colordaemon.bench.command import Wishes, run_bench  # torch takes seconds
        from colordaemon.bench.report import show

        wishes = Wishes(
            sizes=heights,
            seconds=seconds,
            parts=parts,
            batches=counts,
            photos=photos,
            runs=runs,
            growth=(60.0, 600.0) if growth else None,
        )
        report = run_bench(clips or [], settings, wishes, stop)
        show(report, Console(stderr=as_json))
        if as_json:
            typer.echo(json.dumps(report.to_json(), indent=2))
        if report.failures:
            raise typer.Exit(FAILED)


def _numbers(option: str, text: str, least: int, most: int) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.strip().isdecimal() and least <= int(word) <= most for word in words):
        raise typer.BadParameter(
            f"{option}: found {text}, expected numbers from {least} to {most} with commas between"
        )
    return tuple(dict.fromkeys(map(int, words)))


def _parts(text: str) -> frozenset[str]:
    parts = frozenset(word.strip() for word in text.split(","))
    if parts - set(PARTS):
        raise typer.BadParameter(f"--only: found {text}, expected some of {', '.join(PARTS)}")
    return parts
