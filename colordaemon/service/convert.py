"""One source file, photo or film, to one published file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from colordaemon.config import Config
from colordaemon.film.film import color_film, plan_film
from colordaemon.media.decode import Frame
from colordaemon.media.photo import color_photo, is_photo, output_suffix
from colordaemon.network.colorizer import Colorizer
from colordaemon.service.publish import partial_for, publish, target_for


class Progress(Protocol):
    """Told how far a file is; shows it somewhere."""

    def begin(self, source: Path, seconds: float | None) -> None:
        """A film begins; seconds: how long it plays, None if unknown."""

    def advance(self, seconds: float) -> None:
        """One more frame is done; seconds: how far into the film it is."""

    def end(self) -> None:
        """The film is done, or failed."""


@dataclass(frozen=True)
class Converted:
    """A published file, what was done in one line, and what its owner should know."""

    target: Path
    summary: str
    warnings: tuple[str, ...]


def convert(
    source: Path,
    config: Config,
    get_colorizer: Callable[[], Colorizer],
    progress: Progress,
    made: Mapping[Path, Path],
    *,
    force: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Converted:
    """Color a file and publish it. The network is asked for only once the file has proved good.

    made: results of the same call, which are not replaced, and their sources; see `target_for`.
    Raises MediaError, AlreadyColor, TargetExists, TargetTaken, OSError, and Interrupted on request.
    """
    if source.is_file() and is_photo(source):
        return _convert_photo(source, config, get_colorizer, made, force)
    return _convert_film(source, config, get_colorizer, progress, made, force, should_stop)


def _convert_photo(
    source: Path,
    config: Config,
    get_colorizer: Callable[[], Colorizer],
    made: Mapping[Path, Path],
    force: bool,
) -> Converted:
    target = target_for(source, output_suffix(source, config.photo), config.output, made)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_for(target)
    # The network is loaded when the first pixel needs it.
    report = color_photo(
        source, partial, lambda gray: get_colorizer().predict_ab(gray), config.photo, force=force
    )
    _publish(partial, target, config)
    pages = f", {report.pages} pages" if report.pages > 1 else ""
    summary = f"{report.width}x{report.height}, {report.depth} bit{pages}"
    return Converted(target, summary, report.warnings)


def _convert_film(
    source: Path,
    config: Config,
    get_colorizer: Callable[[], Colorizer],
    progress: Progress,
    made: Mapping[Path, Path],
    force: bool,
    should_stop: Callable[[], bool],
) -> Converted:
    job = plan_film(source, config.film, force=force)
    target = target_for(source, job.target.suffix, config.output, made)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_space(source, target.parent)
    partial = partial_for(target)
    colorizer = get_colorizer()
    info = job.source
    progress.begin(source, info.duration_seconds or info.container_seconds)

    def on_frame(frame: Frame) -> None:
        progress.advance(float(frame.pts * info.time_base - info.origin_seconds))

    try:
        report = color_film(job, partial, colorizer, on_frame=on_frame, should_stop=should_stop)
    finally:
        progress.end()
    _publish(partial, target, config)
    warnings = list(job.remarks)
    if report.kept:
        warnings.append(f"{report.kept} of {report.frames} frames had color already and keep it")
    if report.damaged:
        warnings.append(f"{report.damaged} damaged video packets; the rest is done")
    if report.retimed:
        warnings.append(f"{report.retimed} frames had no time or one out of order; put in order")
    summary = f"{report.frames} frames, {report.shots} shots, {info.width}x{info.height}"
    return Converted(target, summary, tuple(warnings))


def _publish(partial: Path, target: Path, config: Config) -> None:
    try:
        publish(partial, target, overwrite=config.output.overwrite)
    finally:
        partial.unlink(missing_ok=True)


def _check_space(source: Path, folder: Path) -> None:
    """Segments and the joined film stand side by side; each is about as large as the source."""
    needed, free = 2 * source.stat().st_size, shutil.disk_usage(folder).free
    if free < needed:
        reason = f"{free >> 20} MiB free, about {needed >> 20} MiB needed"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({reason})", str(folder))
