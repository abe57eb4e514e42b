"""Color the named files one after the other; what happens to one does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Event

from colordaemon.config import Config
from colordaemon.errors import (
    AlreadyColor,
    ColordaemonError,
    ConfigError,
    Interrupted,
    ModelError,
    TargetExists,
)
from colordaemon.network.colorizer import Colorizer, open_colorizer
from colordaemon.service.convert import Converted, Progress, convert

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """How many files came to which end."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)
    interrupted: bool = False


def color_files(
    sources: Sequence[Path],
    config: Config,
    progress: Progress,
    *,
    force: bool = False,
    stop: Event | None = None,
) -> Tally:
    """Color files and say a line about each.

    Raises ModelError and ConfigError, because they concern all files.
    """
    stop = stop or Event()
    tally = Tally()
    made: dict[Path, Path] = {}
    get_colorizer = _loader(config)
    for source in dict.fromkeys(sources):  # a name given twice is meant once
        if stop.is_set():
            tally.interrupted = True
            break
        try:
            done = convert(
                source, config, get_colorizer, progress, made, force=force, should_stop=stop.is_set
            )
        except (ConfigError, ModelError):
            raise  # the next file would meet it too
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
            _log_success(source, done)
            tally.done.append(source)
            made[done.target.resolve()] = source
    return tally


def _log_success(source: Path, done: Converted) -> None:
    for warning in done.warnings:
        log.warning("%s: %s", source, warning)
    log.info("done: %s (%s)", done.target, done.summary)


def _log_failure(source: Path, error: Exception) -> None:
    """One line that names the source; with the traceback of what nobody has foreseen."""
    if isinstance(error, ColordaemonError):
        log.error("failed: %s", error)
    elif isinstance(error, OSError):
        reason = error.strerror or error
        where = f" ({error.filename})" if error.filename not in (None, str(source)) else ""
        log.error("failed: %s: %s%s", source, reason, where)
    else:
        log.error("failed: %s: unexpected %r", source, error, exc_info=error)


def _loader(config: Config) -> Callable[[], Colorizer]:
    @cache
    def load() -> Colorizer:
        settings = config.model
        colorizer = open_colorizer(
            settings.file,
            settings.device,
            settings.precision,
            settings.quality,
            settings.batch_size,
        )
        log.info("coloring on %s", colorizer)
        return colorizer

    return load
