"""The command that colors files and stops."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from colordaemon.choices import Codec
from colordaemon.cli.common import (
    CONFIGURATION,
    FAILED,
    INTERRUPTED,
    NOTHING_TO_DO,
    ConfigFile,
    Device,
    Quality,
    Saturation,
    Workers,
    app,
    exit_codes,
    load,
    override,
    refuse_beside,
    stop_on_signals,
    terminal,
)
from colordaemon.cli.help import examples
from colordaemon.errors import ConfigError, ModelError
from colordaemon.logs import printable

if TYPE_CHECKING:
    from colordaemon.cli.progress import Progress
    from colordaemon.convert.once import Once, Tally
    from colordaemon.convert.report import Report
    from colordaemon.guide.sidecars import Sidecar
    from colordaemon.media.stretch import Stretch

log = logging.getLogger(__name__)

_WITHOUT_CRF = ("prores", "dnxhr", "ffv1")


@app.command(
    epilog=examples(
        "colordaemon once film.mp4 portrait.tif", "colordaemon once scans/ -o colored/ --dry-run"
    )
)
def once(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="Photos and films, folders of them with all subfolders, and patterns in quotes"
            " ('scans/**/*.tif').",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Folder for results, where folders are mirrored; default: beside each source.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Names of results, of {stem}, {suffix}, {model}, {quality}, {date} and {folder};"
            " default: {stem}.color{suffix}.",
        ),
    ] = None,
    overwrite: Annotated[bool | None, typer.Option(help="Replace results that exist.")] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also color files that have color already; results of colordaemon only if they"
            " are named themselves.",
        ),
    ] = False,
    accept_damaged: Annotated[
        bool, typer.Option("--accept-damaged", help="Color what can be read of damaged files.")
    ] = False,
    accept_loss: Annotated[
        bool | None, typer.Option(help="Color films even if sound or subtitles are lost.")
    ] = None,
    assume_range: Annotated[
        Literal["limited", "full"] | None,
        typer.Option(
            "--assume-range",
            "--range-tag",
            help="Range of luma codes in films, in place of their tags.",
        ),
    ] = None,
    assume_matrix: Annotated[
        Literal["bt601", "bt709", "bt2020"] | None,
        typer.Option(
            "--assume-matrix", "--matrix", help="Color matrix of films, in place of their tags."
        ),
    ] = None,
    assume_transfer: Annotated[
        Literal["sdr", "pq", "hlg"] | None,
        typer.Option(
            "--assume-transfer",
            "--transfer",
            help="Transfer curve of films, in place of their tags.",
        ),
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
    stretch: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="START:END",
            help="Only this part of films, in seconds (90:125.4) or as two times (1:30:2:05.4,"
            " 0:01:30..0:02:05).",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write no result; list what would be kept, changed or lost, and estimate time and"
            " size.",
        ),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Color some places only; write NAME.preview.png of them."),
    ] = False,
    places: Annotated[
        int | None,
        typer.Option(
            min=1, max=100, metavar="N", help="Places of films for --preview; default: 6."
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print what happens as JSON, one object a line."),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Model file to use instead of the built-in one."),
    ] = None,
    codec: Annotated[
        Codec | None,
        typer.Option(help="Codec of finished films."),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Rate factor of finished films, from 0 to 63; lower is better and larger.",
        ),
    ] = None,
    quality: Quality = None,
    saturation: Saturation = None,
    device: Device = None,
    workers: Workers = None,
    config: ConfigFile = None,
) -> None:
    """Color the named files and stop.

    Results of colordaemon are recognized and left alone. SIGUSR1 prints the progress.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # which ends programs that do not wait for it
    with exit_codes(), stop_on_signals() as stop:
        if places is not None and not preview:
            raise ConfigError("once: --places is for --preview; expected both or none")
        if codec in _WITHOUT_CRF:
            refuse_beside(f"--codec {codec}", {"--crf": crf}, "it has no rate factor")
        if preview:
            results = {
                "--dry-run": dry_run, "--name": name, "--overwrite": overwrite, "--codec": codec,
                "--crf": crf, "--workers": workers,
            }  # fmt: skip
            refuse_beside("--preview", results, "it writes no result")
        settings = override(
            load(config),
            output={"folder": output, "name": name, "overwrite": overwrite},
            film={
                "damaged_percent": 100.0 if accept_damaged else None,
                "accept_loss": accept_loss,
                "assume_range": assume_range,
                "assume_matrix": assume_matrix,
                "assume_transfer": assume_transfer,
                "codec": codec,
                "crf": crf,
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
        from colordaemon.cli.progress import BarProgress, JsonProgress, LineProgress
        from colordaemon.convert.once import Once  # torch takes seconds
        from colordaemon.convert.report import JsonReport, Report

        named = _pictures(reference or (), hints or (), candidates)
        say = partial(_say, stop=stop)
        json_report = JsonReport(say)
        report: Report = json_report if as_json else Report(say)
        with _code_told(report):
            call = Once(
                files,
                settings,
                report,
                named=named,
                force=force,
                stretch=_stretch(stretch),
                should_stop=stop.is_set,
            )
            progress: Progress
            if as_json:
                progress = JsonProgress(call.workload, json_report.emit, stop)
            elif terminal().is_terminal:
                progress = BarProgress(call.workload, terminal(), stop)
            else:
                progress = LineProgress(call.workload, stop)
            with progress_on_signal(progress):
                tally = _run(call, progress, dry_run=dry_run, preview=places or 6 if preview else 0)
            code = _exit_code(tally)
            report.finished(code)
        if code:
            raise typer.Exit(code)


def _pictures(
    references: Sequence[str], hints: Sequence[str], candidates: Path | None
) -> list[Sidecar]:
    from colordaemon.guide.sidecars import named_picture, pictures_in

    named = [named_picture(each, "reference") for each in references]
    named += [named_picture(each, "hints") for each in hints]
    return named + (pictures_in(candidates, None, "candidate") if candidates else [])


def _stretch(text: str | None) -> Stretch | None:
    from colordaemon.media.stretch import parse_stretch

    try:
        return None if text is None else parse_stretch(text)
    except ValueError as error:
        raise ConfigError(f"--range: {error}") from None


def _run(call: Once, progress: Progress, *, dry_run: bool, preview: int) -> Tally:
    """preview: how many places of each film, 0 for none."""
    if dry_run:
        return call.plan()
    if preview:
        return call.preview(preview)
    return call.color(progress)


def _exit_code(tally: Tally) -> int:
    if tally.interrupted:
        return INTERRUPTED
    if tally.failed:
        return FAILED
    return 0 if tally.done else NOTHING_TO_DO


@contextmanager
def _code_told(report: Report) -> Iterator[None]:
    """Programs that read events are told of an error that ends the call, too."""
    try:
        yield
    except (ConfigError, ModelError) as error:
        report.finished(CONFIGURATION, str(error))
        raise


@contextmanager
def progress_on_signal(progress: Progress) -> Iterator[None]:
    """SIGUSR1 prints how far the work is."""

    def show(number: int, frame: FrameType | None) -> None:
        # Not through a file object: the signal may come while that is written to.
        with suppress(OSError):  # nobody reads it
            os.write(2, f"{printable(progress.line)}\n".encode(errors="replace"))

    before = signal.signal(signal.SIGUSR1, show)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _say(line: str, stop: Event) -> None:
    """Print a line. If that cannot be done any more, the call ends as after a signal."""
    try:
        typer.echo(printable(line))
    except OSError as error:  # whoever read it has gone, or its disk is full
        log.warning("standard output: %s", error.strerror)
        stop.set()
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  (for what is still in buffers)
            os.dup2(nowhere.fileno(), 1)
