"""Colors the named files one after the other; an error in one does not stop the others."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colordaemon.config import Config
from colordaemon.convert.convert import convert, plan
from colordaemon.convert.models import ModelCache, Models, helpers_for
from colordaemon.convert.routing import check_guides
from colordaemon.errors import (
    AlreadyColor,
    ColordaemonError,
    ConfigError,
    GuideChanged,
    Interrupted,
    ModelError,
    TargetExists,
)
from colordaemon.guide.sidecars import Sidecar
from colordaemon.media.inventory import level_of
from colordaemon.sidecar_names import sidecar_file
from colordaemon.work_context import WorkContext

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """The files, by what happened to them."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)
    interrupted: bool = False


def color_files(
    sources: Sequence[Path],
    config: Config,
    context: WorkContext,
    *,
    named: Sequence[Sidecar] = (),
    force: bool = False,
) -> Tally:
    """Color files and log a line about each.

    named: pictures that guide the colors of all of them, in place of those beside each. Raises
    ModelError and ConfigError, because they affect all files.
    """
    check_guides(config)
    with helpers_for(config.jobs, config.model) as helpers:
        models = Models(config, ModelCache(helpers))
        return _color_files(sources, config, models, context, named, force)


def _color_files(
    sources: Sequence[Path],
    config: Config,
    models: Models,
    context: WorkContext,
    named: Sequence[Sidecar],
    force: bool,
) -> Tally:
    made: dict[Path, Path] = {}

    def color_one(source: Path) -> None:
        model = models.model_for(source)
        while True:
            try:
                target, done = convert(
                    source, config, model, context, made, named=named, force=force
                )
                break
            except GuideChanged as reason:
                log.warning("%s: begins anew: %s", source, reason)
        for remark in done.remarks:
            log.log(level_of(remark), "%s: %s", source, remark)
        log.info("done: %s (%s)", target, done.summary)
        made[target.resolve()] = source

    return _each(sources, color_one, context.should_stop)


def plan_files(
    sources: Sequence[Path],
    config: Config,
    say: Callable[[str], None],
    *,
    named: Sequence[Sidecar] = (),
    force: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tally:
    """Print for each file what would be done with it and with everything that it holds.

    Raises ConfigError.
    """
    check_guides(config)

    def plan_one(source: Path) -> None:
        planned = plan(source, config, named=named, force=force)
        say(f"{source} -> {planned.target}{' with --force' if planned.skipped else ''}")
        for entry in planned.inventory:
            how = f" ({entry.how})" if entry.how else ""
            say(f"  {entry.fate:<9}  {entry.what}{how}")
        for remark in planned.remarks:
            say(f"  remark     {remark}")
        if planned.skipped:
            raise AlreadyColor(planned.skipped)

    return _each(sources, plan_one, should_stop)


def preview_files(
    sources: Sequence[Path],
    config: Config,
    places: int,
    say: Callable[[str], None],
    *,
    named: Sequence[Sidecar] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Tally:
    """Draw some places of each film and print the path of each picture; color nothing else.

    Raises ModelError and ConfigError.
    """
    from colordaemon.convert.frames import write_preview  # with all that guides need

    models = Models(config)
    check_guides(config)

    def preview_one(source: Path) -> None:
        model = models.model_for(source)
        say(str(write_preview(source, config, model, places, named=named)))

    return _each(sources, preview_one, should_stop)


def _each(
    sources: Sequence[Path], act: Callable[[Path], None], should_stop: Callable[[], bool]
) -> Tally:
    """Call `act` for every file and log errors."""
    tally = Tally()
    for source in dict.fromkeys(sources):  # without repetitions
        if guided := _guided_by(source, sources):
            log.info("skipped: %s: by its name it guides the colors of %s", source, guided)
            tally.skipped.append(source)
            continue
        if should_stop():
            tally.interrupted = True
            break
        try:
            act(source)
        except (ConfigError, ModelError):
            raise  # the next file would fail in the same way
        except Interrupted as reason:
            log.warning("interrupted: %s", reason)
            tally.interrupted = True
        except (AlreadyColor, TargetExists) as reason:
            log.warning("skipped: %s", reason)
            tally.skipped.append(source)
        except Exception as error:
            _log_failure(source, error)
            tally.failed.append(source)
        else:
            tally.done.append(source)
    return tally


def _guided_by(source: Path, sources: Iterable[Path]) -> Path | None:
    """Another of the named files that this one is a sidecar of, as in `once *`."""
    name = sidecar_file(source.name)
    if name is None:
        return None
    fits = (each for each in sources if each.parent == source.parent and name.serves(each))
    return next(fits, None)


def _log_failure(source: Path, error: Exception) -> None:
    """Log one line that names the source, with a traceback only for unexpected errors."""
    if isinstance(error, ColordaemonError):
        log.error("failed: %s", error)
    elif isinstance(error, OSError):
        reason, name = error.strerror or error, error.filename
        where = "" if name in (None, str(source), os.path.abspath(source)) else f" ({name})"  # noqa: PTH100
        log.error("failed: %s: %s%s", source, reason, where)
    else:
        log.error("failed: %s: unexpected %r", source, error, exc_info=error)
