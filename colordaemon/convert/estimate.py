"""Estimates how long files will take and how large their results will be, by trying it.

A second from the middle of a film is colored for it, or a photo, in a folder of its own that is
removed. Of each kind of file the first few are tried, and the others go by what these took for
their pixels or bytes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colordaemon.config import Config
from colordaemon.convert.convert import convert
from colordaemon.convert.models import Models
from colordaemon.convert.workload import weight_of
from colordaemon.errors import ConfigError, Interrupted, ModelError
from colordaemon.guide.sidecars import Sidecar
from colordaemon.inbox.scan import rank_of
from colordaemon.media.probe import probe_film
from colordaemon.media.stretch import Stretch
from colordaemon.work_context import WorkContext

_TRIALS = 3  # of each kind of file
_SECONDS = 1.0  # of a film


@dataclass(frozen=True)
class Estimate:
    """About how long a file will take on this machine as it is now, and how large its result will
    be. was_tried: whether with this very file."""

    seconds: float
    bytes: float
    was_tried: bool

    def times(self, factor: float) -> Estimate:
        return Estimate(self.seconds * factor, self.bytes * factor, self.was_tried)


class Estimator:
    """Estimates one file after the other."""

    def __init__(
        self, config: Config, named: Sequence[Sidecar], force: bool, stretch: Stretch | None
    ) -> None:
        self._models = Models(config)
        self._named, self._force, self._stretch = named, force, stretch
        self._tried: dict[int, list[tuple[float, Estimate]]] = {0: [], 1: []}

    def of(self, source: Path, config: Config) -> Estimate | None:
        """None where nothing is known: its own trial has failed, and there was no other. Raises
        ModelError, ConfigError and Interrupted."""
        is_film, weight = bool(rank_of(source)), weight_of(source)
        share = 1.0
        if is_film:
            info = probe_film(source, config.film, self._stretch)
            whole, wanted = info.duration_seconds or info.container_seconds, info.wanted_seconds
            share = wanted / whole if whole and wanted else 1.0
        tried = self._tried[is_film]
        if len(tried) < _TRIALS and (found := self._try(source, config, is_film)):
            tried.append((weight * share, found))
            return found
        if not tried or not (total := sum(each for each, _ in tried)):
            return None
        seconds = sum(estimate.seconds for _, estimate in tried)
        size = sum(estimate.bytes for _, estimate in tried)
        return Estimate(seconds, size, was_tried=False).times(weight * share / total)

    def _try(self, source: Path, config: Config, is_film: bool) -> Estimate | None:
        with tempfile.TemporaryDirectory(prefix="colordaemon-") as folder:
            output = config.output.model_copy(update={"folder": Path(folder)})
            config = config.model_copy(update={"output": output})
            model = self._models.model_for(source)
            model.load()  # which takes seconds, once
            stretch, share, watch = self._stretch, 1.0, _StopWatch()
            try:
                if is_film:
                    stretch, share = self._middle(source, config)
                result, _ = convert(
                    source, config, model, watch, {},
                    named=self._named, force=self._force, stretch=stretch,
                )  # fmt: skip
            except (ConfigError, ModelError, Interrupted):
                raise
            except Exception:  # whatever it is, the plan of this file or its coloring will say it
                return None
            return Estimate(watch.seconds, result.stat().st_size, True).times(1 / share)

    def _middle(self, source: Path, config: Config) -> tuple[Stretch | None, float]:
        """A stretch of a film, and which share of what is wanted of it that is."""
        info = probe_film(source, config.film, self._stretch)
        if (wanted := info.wanted_seconds) is None or wanted < 2 * _SECONDS:
            return self._stretch, 1.0
        start = info.start_seconds + (wanted - _SECONDS) / 2
        return Stretch(start, start + _SECONDS), _SECONDS / wanted


class _StopWatch(WorkContext):
    """Measures a film from the first frame on, without what is done to plan it."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def begin(self, source: Path, seconds: float | None) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
