"""Colors the named files one after the other; an error in one does not stop the others."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from colordaemon.config import Config
from colordaemon.convert.ahead import Ahead
from colordaemon.convert.convert import Colored, Prepared, converted, plan, refuse_our_own
from colordaemon.convert.estimate import Estimator
from colordaemon.convert.models import ModelCache, Models, cluster_of, helpers_for, photos_on
from colordaemon.convert.report import Report
from colordaemon.convert.routing import check_guides
from colordaemon.convert.sources import Source, find_sources
from colordaemon.convert.workload import Workload
from colordaemon.errors import (
    AlreadyColor,
    ConfigError,
    GuideChanged,
    Interrupted,
    ModelError,
    OwnResult,
    TargetExists,
    TargetTaken,
)
from colordaemon.guide.sidecars import Sidecar
from colordaemon.inbox.safe_open import PRIVATE, umask
from colordaemon.media.stretch import Stretch
from colordaemon.sidecar_names import sidecar_file
from colordaemon.work_context import WorkContext


@dataclass
class Tally:
    """The files, by what happened to them."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)
    interrupted: bool = False


class Once:
    """One call: the files that were named, or found in folders and by patterns, and what is said of
    each.

    named: pictures that guide the colors of all of them, in place of those beside each. force:
    color files that have color already; our own results only if they were named themselves.
    stretch: all that is wanted of films; None: the whole of them, and photos.
    """

    def __init__(
        self,
        wanted: Sequence[Path],
        config: Config,
        report: Report | None = None,
        *,
        named: Sequence[Sidecar] = (),
        force: bool = False,
        stretch: Stretch | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Raises ConfigError if a picture that the configuration names is missing."""
        check_guides(config)
        self._config, self._report = config, report or Report()
        self._named, self._force, self._should_stop = named, force, should_stop
        self._stretch = stretch
        self._tally = Tally()
        self.sources = find_sources(
            wanted, config.output.folder, self._report.passed_over, self._failed
        )
        self.workload = Workload([source.path for source in self.sources])

    def color(self, context: WorkContext) -> Tally:
        """Color the files. Raises ModelError and ConfigError, because they affect all files."""
        config, made = self._config, dict[Path, Path]()
        with (
            helpers_for(config.jobs, config.model) as helpers,
            cluster_of(config) as cluster,
            photos_on(cluster, context) as photos,
            ThreadPoolExecutor(1, "network") as network,
            umask(PRIVATE) as folder_umask,
        ):
            models = Models(config, ModelCache(helpers, cluster, network, photos))

            def begun(
                source: Source, context: WorkContext, check: Callable[[Prepared], None]
            ) -> AbstractContextManager[Callable[[], tuple[Path, Colored]]]:
                def check_all(prepared: Prepared, target: Path) -> None:
                    self._refuse_other_source(source.path, target)
                    check(prepared)

                return converted(
                    source.path, source.settings(config), models.model_for(source.path), context,
                    made, folder_umask, named=self._named, force=self._force,
                    stretch=self._stretch, check=check_all,
                )  # fmt: skip

            def alone(source: Source) -> tuple[Path, Colored]:
                while True:
                    try:
                        with begun(source, context, lambda prepared: None) as publish:
                            return publish()
                    except GuideChanged as reason:
                        self._report.begins_anew(source.path, reason)

            beside = functools.partial(begun, context=WorkContext())
            paths = [source.path for source in self.sources]
            wanted = [each for each in self.sources if not _guided_by(each.path, paths)]
            with Ahead(wanted, lambda source, check: beside(source, check=check), photos) as ahead:

                def color_one(source: Source) -> None:
                    target, done = ahead.publish(source) or alone(source)
                    made[target.resolve()] = source.path
                    self._report.done(source.path, target, done)

                return self._each(color_one)

    def _refuse_other_source(self, source: Path, target: Path) -> None:
        """Raises TargetTaken if a result would replace another of the named files, `overwrite` or
        not, unless that is an older result which a pattern of the shell has named as well."""
        if not target.exists() or os.path.realpath(target) not in self._real_paths:
            return
        with suppress(OwnResult):
            refuse_our_own(target)
            raise TargetTaken(f"{source}: its result would replace {target}, which is a source too")

    @cached_property
    def _real_paths(self) -> set[str]:
        return {os.path.realpath(source.path) for source in self.sources}

    def plan(self) -> Tally:
        """Say for each file what would be done with it and with everything that it holds, how long
        that would take and how large the result would be. Raises ModelError and ConfigError."""
        estimator = Estimator(self._config, self._named, self._force, self._stretch)

        def plan_one(source: Source) -> None:
            settings = source.settings(self._config)
            planned = plan(
                source.path,
                settings,
                named=self._named,
                force=self._force,
                stretch=self._stretch,
            )
            self._refuse_other_source(source.path, planned.target)
            estimate = None if planned.skipped else estimator.of(source.path, settings)
            self._report.planned(source.path, planned, estimate)
            if planned.skipped:
                raise AlreadyColor(planned.skipped)

        tally = self._each(plan_one)
        self._report.planned_all()
        return tally

    def preview(self, places: int) -> Tally:
        """Draw some places of each film; color nothing else. Raises ModelError and ConfigError."""
        from colordaemon.convert.frames import write_preview  # with all that guides need

        models = Models(self._config)
        alike = Counter(source.path.with_suffix("") for source in self.sources)

        def preview_one(source: Source) -> None:
            model, settings = models.model_for(source.path), source.settings(self._config)
            is_alone = alike[source.path.with_suffix("")] == 1
            path = write_preview(
                source.path, settings, model, places, named=self._named, stretch=self._stretch,
                name=None if is_alone else source.path.name,
            )  # fmt: skip
            self._report.previewed(source.path, path)

        return self._each(preview_one)

    def _each(self, act: Callable[[Source], None]) -> Tally:
        """Call `act` for every file and report errors."""
        paths = [source.path for source in self.sources]
        self._report.found(paths)
        for source in self.sources:
            if guided := _guided_by(source.path, paths):
                reason = f"{source.path}: by its name it guides the colors of {guided}"
                self._skipped(source.path, reason, is_expected=True)
                continue
            if self._should_stop():
                self._tally.interrupted = True
                break
            self._report.begun(source.path)
            self.workload.begin(source.path)
            is_done = self._try(source, act)
            self.workload.end(source.path, is_done=is_done)
        return self._tally

    def _try(self, source: Source, act: Callable[[Source], None]) -> bool:
        """Whether it was done; reports errors that concern this file alone, and counts it."""
        path = source.path
        try:
            if source.top is not None and self._force:
                refuse_our_own(path)
            act(source)
        except (ConfigError, ModelError):
            raise  # the next file would fail in the same way
        except Interrupted as reason:
            self._report.interrupted(path, reason)
            self._tally.interrupted = True
        except OwnResult as reason:
            self._skipped(path, reason, is_expected=source.top is not None)
        except (AlreadyColor, TargetExists) as reason:
            self._skipped(path, reason)
        except Exception as error:
            self._failed(path, error)
        else:
            self._tally.done.append(path)
            return True
        return False

    def _skipped(self, path: Path, reason: object, *, is_expected: bool = False) -> None:
        self._report.skipped(path, reason, is_expected=is_expected)
        self._tally.skipped.append(path)

    def _failed(self, path: Path, error: Exception) -> None:
        self._report.failed(path, error)
        self._tally.failed.append(path)


def _guided_by(source: Path, sources: Iterable[Path]) -> Path | None:
    """Another of the named files that this one is a sidecar of, as in `once *`."""
    name = sidecar_file(source.name)
    if name is None:
        return None
    fits = (each for each in sources if each.parent == source.parent and name.serves(each))
    return next(fits, None)
