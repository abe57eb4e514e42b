"""`colordaemon bench`: makes or cuts clips, runs every stage in a process of its own, reports.

Everything on the disk is in one folder below TMPDIR, which is removed in any case.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from colordaemon.bench.machine import look_around
from colordaemon.bench.network import look
from colordaemon.bench.process import Ran, in_process
from colordaemon.bench.report import (
    STAGES,
    ClipReport,
    GrowthReport,
    NetworkReport,
    PhotosReport,
    Report,
)
from colordaemon.bench.timing import Measured, Timed, measured
from colordaemon.config import Config, OutputSettings
from colordaemon.errors import ConfigError, DataError, MediaError

if TYPE_CHECKING:
    from colordaemon.bench.clips import Clip

T = TypeVar("T")

log = logging.getLogger(__name__)

_BATCHES_CPU, _BATCHES_GPU = (1, 8), (1, 8, 32, 128)


@dataclass(frozen=True)
class Wishes:
    """sizes: heights in pixels of the clips that are made if none is named. seconds: of each clip,
    None: by its size. parts: what to measure. batches: sizes for the network alone, None: by the
    device. network_seconds: for each of them. photos: how many. runs: of whole pipeline and null
    transcode, in turn. growth: seconds of the two films, None: not measured."""

    sizes: tuple[int, ...] = (480, 1080, 2160)
    seconds: float | None = None
    parts: frozenset[str] = frozenset(("films", "network", "photos"))
    batches: tuple[int, ...] | None = None
    network_seconds: float = 2.0
    photos: int = 100
    runs: int = 1
    growth: tuple[float, float] | None = None


def run_bench(clips: Sequence[Path], config: Config, wishes: Wishes, stop: Event) -> Report:
    """Measure on the named films, or on films made here.

    What fails is in the report with the reason, and the rest goes on. Raises DataError for a named
    clip that is missing and MediaError for one that is no film, before anything is measured;
    ModelError, ChildProcessError if not even this machine can be described, and Interrupted.
    """
    for path in clips:
        if not path.exists():
            raise DataError(f"{path}: no such file, expected a film")
    with tempfile.TemporaryDirectory(prefix="colordaemon-bench-") as name:
        return _Bench(config, wishes, Path(name), stop).run(clips)


class _Bench:
    """folder: for everything that is written."""

    def __init__(self, config: Config, wishes: Wishes, folder: Path, stop: Event) -> None:
        self._config, self._wishes, self._folder, self._stop = config, wishes, folder, stop

    def run(self, named: Sequence[Path]) -> Report:
        wishes, config = self._wishes, self._config
        films: list[Clip | int] = [self._begin_of(path) for path in named]
        machine, network = self._call(look_around, config.model).result
        settings = {
            "film": config.film.model_dump(mode="json"),
            "model": config.model.model_dump(mode="json"),
            "workers": config.jobs.workers,
        }
        report = Report(asdict(machine), asdict(network), settings)
        if "films" in wishes.parts:
            for film in films or wishes.sizes:
                with self._failing(report, _name(film)):
                    report.clips.append(self._film(film, report))
        if "network" in wishes.parts:
            usual = _BATCHES_CPU if network.device == "CPU" else _BATCHES_GPU
            for batch in wishes.batches or usual:
                with self._failing(report, f"batches of {batch}"):
                    report.network.append(self._network(batch))
        if "photos" in wishes.parts:
            with self._failing(report, "photos"):
                report.photos = self._photos(wishes.photos)
        if wishes.growth:
            with self._failing(report, "growth"):
                report.growth = self._growth(min(wishes.sizes), wishes.growth)
        return report

    @contextmanager
    def _failing(self, report: Report, name: str) -> Iterator[None]:
        """What fails here does not hold up the rest."""
        try:
            yield
        except (MediaError, ConfigError, ChildProcessError) as error:
            report.failures[name] = str(error)
            log.warning("%s: failed: %s", name, error)

    def _call(self, function: Callable[..., T], *arguments: Any) -> Ran[T]:
        return in_process(function, *arguments, stop=self._stop)

    def _begin_of(self, path: Path) -> Clip:
        from colordaemon.bench.clips import begin_of

        return self._call(begin_of, path, self._wishes.seconds, self._new_folder()).result

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))

    def _film(self, film: Clip | int, report: Report) -> ClipReport:
        """film: a clip, or the height of one that is made."""
        from colordaemon.bench.clips import make_clip

        folder, found = self._new_folder(), dict[str, Measured]()
        if isinstance(film, int):
            log.info("making a clip of %d lines", film)
            film = self._call(make_clip, folder, film, self._wishes.seconds).result
        with self._failing(report, film.name):
            for stage in self._stages(film, folder):
                found |= stage
        shutil.rmtree(folder)
        in_order = {name: found[name] for name in STAGES if name in found}
        return ClipReport(film.name, film.own, film.codec, film.width, film.height, in_order)

    def _stages(self, clip: Clip, folder: Path) -> Iterator[dict[str, Measured]]:
        """Each as soon as it is known; after a further run again."""
        from colordaemon.bench import stages

        config, path = self._config, clip.path
        colored, kept, guesses = folder / "colored", folder / "chroma", folder / "guesses"

        def run(stage: str, function: Callable[..., Timed], *arguments: Any) -> Ran[Timed]:
            log.info("%s: %s", clip.name, STAGES[stage])
            return self._call(function, *arguments)

        wholes, nulls = [], []
        for _ in range(self._wishes.runs):
            wholes.append(run("whole", stages.color, path, config, colored))
            yield {"whole": measured(wholes)}
            if not kept.exists():
                self._call(stages.keep_chroma, path, config.film, colored, kept)
            null = stages.transcode, path, config.film, kept, folder / "null"
            nulls.append(run("null", *null))
            yield {"null": measured(nulls)}
        yield {"decode": measured([run("decode", stages.decode, path)])}
        self._call(stages.guess, path, config.model, guesses)
        yield {"smoothing": measured([run("smoothing", stages.smooth, config, guesses)])}
        yield {"chroma": measured([run("chroma", stages.paint, path, config, guesses)])}

    def _network(self, batch: int) -> NetworkReport:
        log.info("the network alone, batches of %d", batch)
        speed = self._call(look, self._config.model, batch, self._wishes.network_seconds).result
        found = measured([speed.ran])
        flops = found.per_second * speed.operations
        return NetworkReport(
            batch, speed.height, speed.width, found, flops / 1e12, speed.peak / 1e12
        )

    def _photos(self, count: int) -> PhotosReport:
        from colordaemon.bench.clips import PHOTO_SIZE, make_photos
        from colordaemon.bench.stages import color_photos

        log.info("%d photos", count)
        folder, output = self._new_folder(), self._new_folder()
        photos = self._call(make_photos, folder, count).result
        config = Config(
            model=self._config.model,
            photo=self._config.photo,
            jobs=self._config.jobs,
            output=OutputSettings(folder=output),
        )
        found = measured([self._call(color_photos, photos, config)])
        return PhotosReport(*PHOTO_SIZE, found)

    def _growth(self, height: int, seconds: tuple[float, float]) -> GrowthReport:
        from colordaemon.bench.clips import make_clip
        from colordaemon.bench.stages import color

        found = []
        for length in seconds:
            log.info("growth: %g s of %d lines", length, height)
            folder = self._new_folder()
            clip = self._call(make_clip, folder, height, length).result
            found.append(measured([self._call(color, clip.path, self._config, folder / "colored")]))
            shutil.rmtree(folder)
        return GrowthReport(clip.name, seconds, *found)


def _name(film: Clip | int) -> str:
    return f"{film} lines" if isinstance(film, int) else film.name
