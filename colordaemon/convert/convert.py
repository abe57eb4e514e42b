"""One source file, photo or film, to one published file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from colordaemon.config import Config
from colordaemon.convert.publish import RESULT, publish, seal, target_for
from colordaemon.durable import partial_for
from colordaemon.errors import AlreadyColor, MediaError, TargetExists
from colordaemon.film.colorize import FilmJob, color_film, plan_film
from colordaemon.inbox.safe_open import PRIVATE, errors_by_name, umask
from colordaemon.inbox.source import opened
from colordaemon.media.decode import Frame
from colordaemon.media.inventory import Inventory, remarks
from colordaemon.media.photo import color_photo, is_photo, output_suffix, plan_photo
from colordaemon.media.photo_file import picture_name
from colordaemon.media.probe import open_film
from colordaemon.media.provenance import Maker
from colordaemon.media.stills import READ
from colordaemon.media.tags import is_result
from colordaemon.memory import limit_bytes
from colordaemon.network.colorizer import Colorizer

_LONGEST_STEM = 60  # letters of a name in the name of the folder for unfinished work


class NoRoom(OSError):
    """A film needs more space than there is, and nothing was written yet: smaller ones may fit."""


class Progress(Protocol):
    """Told how far a file is; shows it somewhere."""

    def begin(self, source: Path, seconds: float | None) -> None:
        """A film begins; seconds: how long it plays, None if unknown."""

    def advance(self, seconds: float) -> None:
        """One more frame is done; seconds: how far into the film it is."""

    def end(self) -> None:
        """The film is done, or failed."""


@dataclass(frozen=True)
class Place:
    """Where a result goes, and the name it is written under. work: a folder for what is finished of
    a film, which stays after an interruption; None: what is finished is lost then."""

    target: Path
    partial: Path
    work: Path | None = None


@dataclass(frozen=True)
class Colored:
    """A complete, checked file under its partial name, what was done in one line, and what its
    owner should know. inventory: all that the source holds, and what became of it. is_whole:
    whether every picture of the source is in it. is_damaged: whether some of it could not be
    read."""

    place: Place
    summary: str
    remarks: tuple[str, ...]
    inventory: Inventory = ()
    is_whole: bool = True
    is_damaged: bool = False


@dataclass(frozen=True)
class Converted:
    """A published file, what was done in one line, and what its owner should know. inventory: as in
    `Colored`."""

    target: Path
    summary: str
    remarks: tuple[str, ...]
    inventory: Inventory = ()


@dataclass(frozen=True)
class Planned:
    """Where the result of a file would go, what would become of all that the file holds, and what
    else its owner should know. skipped: why it would be left as it is; the rest holds if it is
    colored by force."""

    target: Path
    inventory: Inventory
    remarks: tuple[str, ...] = ()
    skipped: str = ""


@dataclass(frozen=True)
class Model:
    """A network that is loaded when the first pixel needs it. name: tells it from all others.
    maker: finds out what metadata say of it."""

    load: Callable[[], Colorizer]
    name: str = ""
    maker: Callable[[], Maker] = Maker


def convert(
    source: Path,
    config: Config,
    model: Model,
    progress: Progress,
    made: Mapping[Path, Path],
    *,
    force: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Converted:
    """Color a file and publish it.

    made: results of the same call, which are not replaced, and their sources; see `target_for`.
    Raises MediaError, AlreadyColor, TargetExists, TargetTaken, OSError, and Interrupted on request.
    """
    with opened(source) as opened_source, umask(PRIVATE) as mask, errors_by_name():
        return _convert(opened_source, config, model, progress, made, force, should_stop, mask)


def _convert(
    source: Path,
    config: Config,
    model: Model,
    progress: Progress,
    made: Mapping[Path, Path],
    force: bool,
    should_stop: Callable[[], bool],
    folder_umask: int,
) -> Converted:
    """folder_umask: for folders, which others look into; files are private until they are whole."""
    with ExitStack() as stack:

        def find_place(suffix: str) -> Place:
            target = target_for(source, suffix, config.output, made)
            with umask(folder_umask):
                target.parent.mkdir(parents=True, exist_ok=True)
            hidden = partial_for(target).stem[:_LONGEST_STEM]
            folder = stack.enter_context(
                TemporaryDirectory(".work", f"{hidden}.", target.parent, ignore_cleanup_errors=True)
            )
            return Place(target, Path(folder) / RESULT)

        colored = color(
            source, config, model, progress, find_place, force=force, should_stop=should_stop
        )
        place = colored.place
        seal(place.partial, source)
        try:
            publish(place.partial, place.target, overwrite=config.output.overwrite)
        except TargetExists as reason:
            raise TargetExists(f"{source}: {reason}") from None
    return Converted(place.target, colored.summary, colored.remarks, colored.inventory)


def color(
    source: Path,
    config: Config,
    model: Model,
    progress: Progress,
    find_place: Callable[[str], Place],
    *,
    force: bool = False,
    on_segment: Callable[[int], None] = lambda count: None,
    on_work: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Colored:
    """Color a file into a partial one, which the caller publishes.

    find_place: told the suffix of the result; makes the folders. on_work: called now and then while
    work goes on that finishes no frame. Raises what `convert` does; no partial is left then.
    """
    if _is_photo(source):
        return _color_photo(source, config, model, find_place, force, on_work)
    return _color_film(
        source, config, model, progress, find_place, force, on_segment, on_work, should_stop
    )


def plan(source: Path, config: Config, *, force: bool = False) -> Planned:
    """What `convert` would do with a file, found out without the network.

    Raises MediaError, TargetExists, OSError.
    """
    with opened(source) as file:
        try:
            return _plan(file, config, force)
        except AlreadyColor as reason:
            return replace(_plan(file, config, force=True), skipped=str(reason))


def _plan(file: Path, config: Config, force: bool) -> Planned:
    if _is_photo(file):
        suffix = output_suffix(file, config.photo)
        told, said = plan_photo(file, config.photo, force=force)
        return Planned(target_for(file, suffix, config.output, {}), told, said)
    if not force:
        _refuse_our_own(file)
    job = _plan_film(file, config, force)
    target = target_for(file, job.target.suffix, config.output, {})
    return Planned(target, job.inventory, job.remarks)


def _is_photo(source: Path) -> bool:
    """Raises MediaError for a picture of a kind that is not read."""
    if is_photo(source):
        return True
    if name := picture_name(source):  # which FFmpeg may open as a film of one frame
        raise MediaError(f"{source}: found {name}, expected a {READ} picture or a film")
    return False


def _color_photo(
    source: Path,
    config: Config,
    model: Model,
    find_place: Callable[[str], Place],
    force: bool,
    on_work: Callable[[], None],
) -> Colored:
    place = find_place(output_suffix(source, config.photo))
    report = color_photo(
        source,
        place.partial,
        lambda gray: model.load().predict_ab(gray),
        config.photo,
        force=force,
        maker=model.maker(),
        on_work=on_work,
    )
    pages = f", {report.pages} pages" if report.pages > 1 else ""
    summary = f"{report.width}x{report.height}, {report.depth} bit{pages}"
    return Colored(
        place,
        summary,
        report.warnings,
        report.inventory,
        report.is_whole,
        is_damaged=not report.is_whole,
    )


def _color_film(
    source: Path,
    config: Config,
    model: Model,
    progress: Progress,
    find_place: Callable[[str], Place],
    force: bool,
    on_segment: Callable[[int], None],
    on_work: Callable[[], None],
    should_stop: Callable[[], bool],
) -> Colored:
    if not force:
        _refuse_our_own(source)
    job = _plan_film(source, config, force)
    place = find_place(job.target.suffix)
    _check_space(source, place)
    colorizer = model.load()
    info = job.source
    progress.begin(source, info.duration_seconds or info.container_seconds)

    def on_frame(frame: Frame) -> None:
        progress.advance(float(frame.pts * info.time_base - info.origin_seconds))

    try:
        report = color_film(
            job,
            place.partial,
            colorizer,
            work=place.work,
            made_by=model.name,
            maker=model.maker(),
            on_frame=on_frame,
            on_segment=on_segment,
            on_work=on_work,
            should_stop=should_stop,
        )
    finally:
        progress.end()
    told = (*job.remarks, *remarks(report.inventory), *report.remarks())
    summary = f"{report.frames} frames, {report.shots} shots, {info.width}x{info.height}"
    if report.resumed:
        summary += f", {report.resumed} of {report.segments} segments from before"
    is_damaged = bool(report.damaged or report.left_out)
    return Colored(place, summary, told, report.inventory, is_damaged=is_damaged)


def _plan_film(source: Path, config: Config, force: bool) -> FilmJob:
    memory_bytes = limit_bytes(config.jobs.memory_mib)
    return plan_film(source, config.film, force=force, memory_bytes=memory_bytes)


def _refuse_our_own(source: Path) -> None:
    """Raises AlreadyColor for a film that carries our mark."""
    with open_film(source) as container:
        if is_result(container, source):
            raise AlreadyColor(f"{source}: is a result of colordaemon; expected a source")


def _check_space(source: Path, place: Place) -> None:
    """Segments and the joined film stand side by side; each is about as large as the source."""
    folder = place.target.parent
    needed, free = 2 * source.stat().st_size, shutil.disk_usage(folder).free
    if place.work is not None and place.work.exists():
        needed -= sum(path.stat().st_size for path in place.work.iterdir())
    if free < needed:
        reason = f"{free >> 20} MiB free, about {needed >> 20} MiB needed"
        raise NoRoom(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({reason})", str(folder))
