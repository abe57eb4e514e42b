"""`colordaemon evaluate`: choose pictures or probe films, open models, compare, write results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from threading import Event

from colordaemon.config import ModelSettings
from colordaemon.errors import ConfigError
from colordaemon.evaluation.film_scores import mean_rows
from colordaemon.evaluation.film_strip import GUIDED_PANELS, PANELS, strip_of
from colordaemon.evaluation.films import FilmTable, ReferenceFrames, evaluate_film, open_clip
from colordaemon.evaluation.pictures import Evaluation, choose_pictures, evaluate_pictures
from colordaemon.evaluation.sheets import draw_contact_sheet
from colordaemon.evaluation.tables import save_json, write_json
from colordaemon.logs import counted
from colordaemon.media.probe import FilmInfo
from colordaemon.network.checkpoint import BUILT_IN, read_notes
from colordaemon.network.colorizer import Colorizer, open_colorizer
from colordaemon.pictures.dataset import fingerprint

log = logging.getLogger(__name__)


def evaluate_folder(
    folder: Path,
    settings: ModelSettings,
    *,
    against: Path | None = None,
    subset: str | None = None,
    held_out: float | None = None,
    limit: int | None = None,
    sources: Sequence[str] = (),
    json_file: Path | None = None,
    output: Path | None = None,
    stop: Event | None = None,
) -> Evaluation:
    """Evaluate the model of `settings`, and a second one if named, on a folder of color pictures.

    subset, held_out, limit, sources: see `choose_pictures`. json_file: gets every number. output: a
    folder that gets a contact sheet of the first model. Raises ConfigError, DataError, ModelError
    and Interrupted.
    """
    for path in (json_file and json_file.parent, output):
        make_folder(path)
    files = [settings.file, against] if against else [settings.file]
    colorizers = [(_name(file), open_model(file, settings)) for file in files]
    pictures, unreadable = choose_pictures(folder, subset, held_out, limit, sources)
    first = colorizers[0][1]
    log.info("%s, %s", counted(len(pictures), "picture"), first)
    evaluation = evaluate_pictures(pictures, colorizers, stop=stop)
    if json_file:
        facts = {
            "folder": str(folder),
            "subset": subset,
            "held_out": held_out,
            "sources": list(sources),
            "data_fingerprint": fingerprint(pictures),
            "unreadable": unreadable,
            "models": [
                {
                    "row": name,
                    "file": str(file or BUILT_IN),
                    "data_fingerprint": read_notes(file or BUILT_IN).get("data_fingerprint"),
                }
                for file, (name, _) in zip(files, colorizers, strict=True)
            ],
            "device": str(first),
            "quality": settings.quality,
        }
        write_json(json_file, evaluation, facts)
    if output:
        draw_contact_sheet(output / "contact.png", evaluation.delta_e, first)
    return evaluation


def _name(file: Path | None) -> str:
    return "built-in model" if file is None else str(file)


def open_model(file: Path | None, settings: ModelSettings) -> Colorizer:
    """A model file (None: the built-in one), run as the settings say. Raises ModelError."""
    return open_colorizer(
        file,
        settings.device,
        settings.precision,
        settings.quality,
        settings.batch_size,
        settings.saturation,
    )


def make_folder(path: Path | None) -> None:
    """Raises ConfigError if the files cannot be written, before an hour of work."""
    try:
        if path:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: results cannot be written here ({error})") from error


def evaluate_films(
    clips: Sequence[Path],
    settings: ModelSettings,
    *,
    seconds: float | None = None,
    reference: ReferenceFrames | None = None,
    damaged_percent: float = 2.0,
    json_file: Path | None = None,
    output: Path | None = None,
    stop: Event | None = None,
) -> list[FilmTable]:
    """Evaluate the model of `settings` with every smoothing mode on films in color.

    seconds: how much of each film. reference: frames that are given in color; every film is then
    colored with them and without. json_file: gets every number. output: a folder that gets, for
    each film, another with the ways side by side, and a contact sheet. Every film is looked at
    before the first is colored. Raises ConfigError, DataError, MediaError, ModelError and
    Interrupted.
    """
    for path in (json_file and json_file.parent, output):
        make_folder(path)
    if output:
        _check_names(clips)
    infos = [open_clip(path) for path in clips]
    colorizer = open_model(settings.file, settings)
    log.info("%s, %s", counted(len(infos), "film"), colorizer)
    tables = [
        _evaluate(info, colorizer, seconds, reference, damaged_percent, output, stop or Event())
        for info in infos
    ]
    if json_file:
        content = {
            "model": str(settings.file or BUILT_IN),
            "device": str(colorizer),
            "quality": settings.quality,
            "seconds": seconds,
            "reference": reference,
            "clips": [asdict(table) for table in tables],
            "mean": [asdict(row) for row in mean_rows([table.rows for table in tables])],
        }
        save_json(json_file, content)
    return tables


def _evaluate(
    info: FilmInfo,
    colorizer: Colorizer,
    seconds: float | None,
    reference: ReferenceFrames | None,
    damaged_percent: float,
    output: Path | None,
    stop: Event,
) -> FilmTable:
    with ExitStack() as files:
        panels = GUIDED_PANELS if reference else PANELS
        strip = files.enter_context(strip_of(output, info, panels)) if output else None
        return evaluate_film(
            info,
            colorizer,
            seconds=seconds,
            reference=reference,
            damaged_percent=damaged_percent,
            on_frame=strip.add if strip else lambda frame, colors: None,
            stop=stop,
        )


def _check_names(clips: Sequence[Path]) -> None:
    """Raises DataError for films of the same name, since results are named after them."""
    first: dict[str, Path] = {}
    for clip in clips:
        other = first.setdefault(clip.stem, clip)
        if other is not clip:
            raise ConfigError(f"{clip}: results would be called as those of {other}")
