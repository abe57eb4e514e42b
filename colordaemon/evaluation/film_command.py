"""`colordaemon evaluate CLIP…`: probe all films, load the model, evaluate them, write results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from threading import Event

from colordaemon.config import ModelSettings
from colordaemon.errors import ConfigError
from colordaemon.evaluation.command import make_folder, open_model
from colordaemon.evaluation.film_scores import mean_rows
from colordaemon.evaluation.film_strip import Strip
from colordaemon.evaluation.film_truth import open_clip
from colordaemon.evaluation.films import FilmTable, evaluate_film
from colordaemon.evaluation.tables import save_json
from colordaemon.media.probe import FilmInfo
from colordaemon.network.checkpoint import BUNDLED
from colordaemon.network.colorizer import Colorizer

log = logging.getLogger(__name__)


def evaluate_films(
    clips: Sequence[Path],
    settings: ModelSettings,
    *,
    seconds: float | None = None,
    damaged_percent: float = 2.0,
    json_file: Path | None = None,
    output: Path | None = None,
    stop: Event | None = None,
) -> list[FilmTable]:
    """Evaluate the model of `settings` with every smoothing mode on films in color.

    seconds: how much of each film. json_file: gets every number. output: a folder that gets, for
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
    log.info("%d films, %s", len(infos), colorizer)
    tables = [
        _evaluate(info, colorizer, seconds, damaged_percent, output, stop or Event())
        for info in infos
    ]
    if json_file:
        content = {
            "model": str(settings.file or BUNDLED),
            "device": str(colorizer),
            "quality": settings.quality,
            "seconds": seconds,
            "clips": [asdict(table) for table in tables],
            "mean": [asdict(row) for row in mean_rows([table.rows for table in tables])],
        }
        save_json(json_file, content)
    return tables


def _evaluate(
    info: FilmInfo,
    colorizer: Colorizer,
    seconds: float | None,
    damaged_percent: float,
    output: Path | None,
    stop: Event,
) -> FilmTable:
    with ExitStack() as files:
        strip = files.enter_context(Strip(output, info)) if output else None
        return evaluate_film(
            info,
            colorizer,
            seconds=seconds,
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
