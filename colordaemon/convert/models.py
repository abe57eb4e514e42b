"""Chooses the model for each file, and loads it when the first file needs it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from colordaemon.config import (
    ClusterSettings,
    Config,
    JobSettings,
    ModelSettings,
    PhotoSettings,
)
from colordaemon.convert.publish import sha256
from colordaemon.convert.routing import first_fitting
from colordaemon.errors import ModelError
from colordaemon.film.helper import HelperProcess
from colordaemon.guide.guide import Guide
from colordaemon.media.photo import PhotoReport
from colordaemon.media.provenance import Maker
from colordaemon.network.checkpoint import BUILT_IN
from colordaemon.network.colorizer import Colorizer, open_colorizer
from colordaemon.network.device import gpus_alike
from colordaemon.work_context import WorkContext

if TYPE_CHECKING:
    from colordaemon.cluster.admission import Terms
    from colordaemon.cluster.cluster import Cluster
    from colordaemon.cluster.film import FilmCluster
    from colordaemon.cluster.photos import PhotoCluster

log = logging.getLogger(__name__)

# Models in memory: one for a film, and one for photos that are done between its segments.
LOADED = 2
ON_A_GPU = 4  # processes at the most, each of which has a model of its own there
CORES = 4  # of a processor that one worker keeps busy: as many threads as an encoder has


class ModelCache:
    """Loaded models, shared by all configurations, and the helpers that have them too.

    cluster: other machines that color in place of this one. photos: what they do of photos; None:
    nothing. network: the one thread that uses the models, where several threads want their colors;
    None: whoever asks.
    """

    def __init__(
        self,
        helpers: Sequence[HelperProcess] = (),
        cluster: Cluster | None = None,
        network: Executor | None = None,
        photos: PhotoCluster | None = None,
    ) -> None:
        self.network = network
        self.colorizer = lru_cache(maxsize=LOADED)(_load)
        self.helpers, self.cluster, self.photos = helpers, cluster, photos


@dataclass(frozen=True)
class _Load:
    """Loads a model in another process. name: changes when the model's file is replaced."""

    settings: ModelSettings
    name: str

    def __call__(self) -> Colorizer:
        return _load(self.settings)


@dataclass(frozen=True)
class Model:
    """A model that is loaded at the first call of `load`. settings.file: None is the built-in
    one."""

    settings: ModelSettings
    cache: ModelCache

    def load(self) -> Colorizer:
        """Raises ModelError."""
        return self.cache.colorizer(self.settings)

    def predict_ab(self, gray: Tensor) -> Tensor:
        """See `Colorizer.predict_ab`; loads the model if need be, and may be called by any thread.
        Raises ModelError."""
        if self.cache.network is None:
            return self.load().predict_ab(gray)
        return self.cache.network.submit(lambda: self.load().predict_ab(gray)).result()

    def helpers(self, most: int) -> Sequence[HelperProcess]:
        """As many helpers with this model as there are by now, and `most` at the most, just started
        if need be."""
        found = self.cache.helpers[:most]
        threads = max(1, torch.get_num_threads() // (len(found) + 1))
        for helper in found:
            helper.load, helper.threads = _Load(self.settings, self.name), threads
            helper.start()
        return found

    def elsewhere(self, context: WorkContext) -> FilmCluster | None:
        """The machines that color a film with this model; None where there is no cluster."""
        cluster = self.cache.cluster
        if cluster is None:
            return None
        from colordaemon.cluster.film import FilmCluster

        return FilmCluster(cluster, self._terms(cluster.settings), context)

    def photo_elsewhere(
        self,
        source: Path,
        partial: Path,
        settings: PhotoSettings,
        context: WorkContext,
        *,
        guide: Guide,
        force: bool,
    ) -> PhotoReport | None:
        """What `color_photo` or `color_guided` does, on another machine; None where there is none
        for photos. Raises Interrupted too."""
        photos, cluster = self.cache.photos, self.cache.cluster
        if photos is None or cluster is None:
            return None
        from colordaemon.cluster.photo_task import PhotoTask

        task = PhotoTask.of(source, partial, settings, guide, force=force, maker=self.maker())
        return photos.color(self._terms(cluster.settings), task, context)

    def _terms(self, cluster: ClusterSettings) -> Terms:
        """All machines compute with the same numbers, whatever this one would choose."""
        from colordaemon.cluster.admission import Terms
        from colordaemon.cluster.shared import SharedPaths

        precision, device = self.settings.precision, cluster.device
        if precision == "auto" and device == "cuda":
            precision = "fp16"
        update: dict[str, object] = {"device": device, "precision": precision}
        if self.settings.file is not None:
            update["file"] = SharedPaths(cluster.paths).there(self.settings.file)
        there = self.settings.model_copy(update=update)
        digest = self.maker().sha256
        colors = f"{digest}, {device}, {precision}, {there.quality}, {there.saturation:g}"
        return Terms(_Load(there, digest), self.settings.file, digest, colors)

    @property
    def name(self) -> str:
        """Identifies the model, and changes when its file is replaced."""
        file = self.settings.file
        if file is None:
            return "built-in"
        try:
            found = file.stat()
        except OSError:
            return str(file)  # loading it gives a better error
        return f"{file}, {found.st_size} bytes, {found.st_mtime_ns}"

    def maker(self) -> Maker:
        """What metadata of results say about the model."""
        return _maker(self.settings.file, self.name)


class Models:
    """The models of a configuration. cache: of loaded models, may be shared.

    Raises ModelError at once if a file that `models` names is missing, not hours later when the
    first picture for it arrives.
    """

    def __init__(self, config: Config, cache: ModelCache | None = None) -> None:
        self._cache = cache or ModelCache()
        self._settings, self._routes = config.model, config.models
        for pattern, file in config.models.items():
            if not file.is_file():
                raise ModelError(f"models: {pattern}: no model file {file}")

    def model_for(self, source: Path) -> Model:
        """The model for a photo or film: the first of `models` whose folder or pattern fits, else
        that of `model.file`."""
        file = first_fitting(source, self._routes, self._settings.file)
        return Model(self._settings.model_copy(update={"file": file}), self._cache)


@contextmanager
def cluster_of(config: Config) -> Iterator[Cluster | None]:
    """The cluster of a configuration, if it names one. It is left with the block."""
    if config.cluster.address is None:
        yield None
        return
    from colordaemon.cluster.cluster import Cluster  # with what only clusters need

    cluster = Cluster(config.cluster, config.jobs.hang_seconds)
    try:
        yield cluster
    finally:
        cluster.end()


@contextmanager
def photos_on(cluster: Cluster | None, context: WorkContext) -> Iterator[PhotoCluster | None]:
    """What a cluster does of the photos of one call."""
    if cluster is None:
        yield None
        return
    from colordaemon.cluster.photos import PhotoCluster

    photos = PhotoCluster(cluster, context)
    try:
        yield photos
    finally:
        photos.close()


def environments(
    settings: JobSettings, model: ModelSettings, *, has_cluster: bool = False
) -> list[dict[str, str]]:
    """For each process that the settings ask for: its environment, in addition to ours. The first
    is meant to be this one.

    With GPUs, each process has one of those of the kind of the first, in turn. Several share one
    where there are cores for the encoders of several: these take longer than the network. With a
    cluster other machines have all that, and each process has a film of its own.
    """
    if has_cluster:
        return [{} for _ in range(1 if settings.workers == "auto" else settings.workers)]
    gpus = gpus_alike() if model.device != "cpu" and settings.workers != 1 else []
    busy = (os.cpu_count() or 1) // CORES
    auto = max(len(gpus), min(busy, ON_A_GPU * len(gpus)) if gpus else busy, 1)
    count = auto if settings.workers == "auto" else settings.workers
    return [
        {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        for number in range(count)
    ]


@contextmanager
def helpers_for(settings: JobSettings, model: ModelSettings) -> Iterator[list[HelperProcess]]:
    """The helpers that the settings ask for; their processes end with the block."""
    every = environments(settings, model)[1:]
    helpers = [HelperProcess(each, settings.hang_seconds) for each in every]
    try:
        yield helpers
    finally:
        for helper in helpers:
            helper.end()


def _load(settings: ModelSettings) -> Colorizer:
    colorizer = open_colorizer(
        settings.file,
        settings.device,
        settings.precision,
        settings.quality,
        settings.batch_size,
        settings.saturation,
    )
    log.info("coloring on %s, with %s", colorizer, settings.file or "the built-in model")
    return colorizer


@lru_cache(maxsize=16)
def _maker(file: Path | None, name: str) -> Maker:
    """name: part of the cache key, so that a replaced file is read again."""
    del name
    try:
        digest = sha256(file or BUILT_IN)
    except OSError:
        digest = ""  # loading it will tell more
    return Maker(file.name if file else "built-in", digest)
