"""Films on a cluster of several nodes: real ones, on this machine, each of which may be killed.

One cluster serves all tests. Its nodes come and go, so each test waits for as many as it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from clusters import LocalCluster
from films import EXACT, Listener, make_film, pictures, short_segments

from colordaemon.cluster.cluster import Cluster
from colordaemon.config import ModelSettings
from colordaemon.convert.models import Model, ModelCache
from colordaemon.film.colorize import FilmJob, FilmReport, color_film, plan_film

pytestmark = [
    pytest.mark.cluster,
    # Not imported here: Ray reads at its import that it has to use a token.
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[LocalCluster]:
    made = LocalCluster()
    made.add()
    made.add()
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(place: LocalCluster) -> Iterator[Cluster]:
    made = Cluster(place.settings(), hang_seconds=100.0)
    made.turn()  # connects, before any test counts threads
    yield made
    made.end()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4", pictures(60, shot_frames=7))


@pytest.fixture
def settings(model: Path) -> ModelSettings:
    return ModelSettings(file=model, device="cpu", precision="fp32")


def job_of(film: Path) -> FilmJob:
    return plan_film(film, short_segments(EXACT, 0.2))


def color_alone(job: FilmJob, done: Path, settings: ModelSettings) -> bytes:
    color_film(job, done, Model(settings, ModelCache()).load())
    return done.read_bytes()


def color_there(
    job: FilmJob,
    done: Path,
    settings: ModelSettings,
    cluster: Cluster,
    context: Listener | None = None,
    **options: Any,
) -> FilmReport:
    context = context or Listener()
    model = Model(settings, ModelCache((), cluster))
    return color_film(
        job, done, model.load(), context, elsewhere=model.elsewhere(context), **options
    )


def test_a_film_of_two_nodes_is_that_of_this_machine_to_the_byte(
    tmp_path: Path, film: Path, settings: ModelSettings, cluster: Cluster
) -> None:
    job, done = job_of(film), tmp_path / "there.mp4"
    listener = Listener()
    report = color_there(job, done, settings, cluster, listener)
    assert len(listener.frames) == report.frames == 60
    assert done.read_bytes() == color_alone(job, tmp_path / "here.mp4", settings)
