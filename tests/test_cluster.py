"""Films and photos on a cluster of several nodes: real ones, on this machine, which may be killed.

One cluster serves all tests, in their order: nodes join it, and some are killed. What needs none is
tested elsewhere: that the tasks of a scout give the film of a sequential run, whatever the film
(test_workers), and that segments of two kinds of processor are joined (test_segment).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from clusters import PATIENCE, LocalCluster
from conftest import Start
from daemons import Daemon
from films import EXACT, Listener, Painter, make_film, pictures, short_segments
from photos import draw, save
from test_guide import meadow
from typer.testing import CliRunner

from colordaemon.cli.common import app
from colordaemon.cluster import engine
from colordaemon.cluster.admission import Admission, Terms
from colordaemon.cluster.cluster import Cluster
from colordaemon.cluster.film import FilmCluster
from colordaemon.cluster.helper import ActorHelper, Film, Line
from colordaemon.cluster.node import run_node
from colordaemon.cluster.photo_task import PhotoTask
from colordaemon.cluster.photos import Batch, Photo, PhotoCluster
from colordaemon.cluster.shared import Mark, SharedPaths, Version
from colordaemon.config import (
    ClusterSettings,
    Config,
    ModelSettings,
    OutputSettings,
    PhotoSettings,
)
from colordaemon.config_file import load_config
from colordaemon.convert.models import Model, ModelCache
from colordaemon.convert.once import Once
from colordaemon.errors import ConfigError, GuideChanged, HelperDied, Interrupted
from colordaemon.film.colorize import FilmJob, FilmReport, color_film, plan_film
from colordaemon.film.helper import Failed, Load
from colordaemon.film.plan import SegmentTask
from colordaemon.guide.guide import NO_GUIDE, Guide, GuidePicture
from colordaemon.media.provenance import Maker
from colordaemon.network.checkpoint import BUILT_IN_SHA256
from colordaemon.network.colorizer import Colorizer
from colordaemon.service.job import State
from colordaemon.work_context import WorkContext

TESTS = Path(__file__).parent
pytestmark = [
    pytest.mark.cluster,
    # Not imported here: Ray reads at its import that it has to use a token.
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]


class SlowPainter(Painter):
    seconds = 0.15

    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(self.seconds)
        return super().guess(gray)


class SlowestPainter(SlowPainter):
    seconds = 0.6


class DeadlyPainter(Painter):
    def guess(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("alive")


class Watcher(Listener):
    """Also hears of the machines. acts: called with what they do, until it returns true."""

    def __init__(self, acts: Any = lambda found: True) -> None:
        super().__init__()
        self.found: list[Mapping[str, Any]] = []
        self._acts, self._is_done = acts, False

    def machines(self, found: Mapping[str, Any]) -> None:
        self.found.append(found)
        self._is_done = self._is_done or self._acts(found)


@pytest.fixture(scope="module")
def place() -> Iterator[LocalCluster]:
    """At first it has a head, and no nodes."""
    made = LocalCluster()
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(place: LocalCluster) -> Iterator[Cluster]:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    made = Cluster(place.settings(), hang_seconds=100.0)
    made.turn()  # connects, before any test counts threads
    yield made
    made.end()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4", pictures(60, shot_frames=7))


def job_of(film: Path) -> FilmJob:
    return plan_film(film, short_segments(EXACT, 0.2))


def color_here(job: FilmJob, done: Path) -> bytes:
    color_film(job, done, Painter())  # type: ignore[arg-type]
    return done.read_bytes()


def film_of(cluster: Cluster, context: Listener, load: Any = Painter) -> FilmCluster:
    return FilmCluster(cluster, Terms(load, None, BUILT_IN_SHA256, str(Painter())), context)


def color_there(
    job: FilmJob, done: Path, there: FilmCluster, context: Listener, **options: Any
) -> FilmReport:
    colorizer: Any = Painter()
    return color_film(job, done, colorizer, context, elsewhere=there, **options)


def busy_nodes(found: Mapping[str, Any]) -> list[str]:
    return [
        node["name"] for node in found["nodes"] if any(each["film"] for each in node["workers"])
    ]


def test_a_film_waits_for_the_first_node_and_takes_those_that_join_late(
    tmp_path: Path, film: Path, place: LocalCluster, cluster: Cluster
) -> None:
    def add(found: Mapping[str, Any]) -> bool:
        place.add()
        place.add()
        return True

    watcher = Watcher(add)
    job, done = job_of(film), tmp_path / "there.mp4"
    report = color_there(job, done, film_of(cluster, watcher, SlowPainter), watcher)
    assert watcher.found[0]["waiting"] == "for a node"
    assert watcher.found[-1]["waiting"] == ""
    assert len(watcher.frames) == report.frames == 60
    assert done.read_bytes() == color_here(job, tmp_path / "here.mp4")


def test_two_nodes_with_the_model_give_the_film_of_this_machine(
    tmp_path: Path, film: Path, cluster: Cluster, model: Path
) -> None:
    settings = ModelSettings(file=model, device="cpu", precision="fp32")
    loaded, context = Model(settings, ModelCache((), cluster)), Watcher()
    job, here, there = job_of(film), tmp_path / "here.mp4", tmp_path / "there.mp4"
    color_film(job, there, loaded.load(), context, elsewhere=loaded.elsewhere(context))
    color_film(job, here, loaded.load())
    assert there.read_bytes() == here.read_bytes()


def test_a_worker_process_that_has_connected_still_takes_no_sigterm(cluster: Cluster) -> None:
    assert cluster.trouble == ""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)


def test_an_actor_that_did_not_answer_comes_back_and_its_copy_is_swept(
    tmp_path: Path, film: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both copies of its segment are made; the film has one of them."""
    whole, lost = engine.Stream.next, list[engine.Stream]()
    ask = engine.Actor.ask

    def deaf(self: engine.Stream, seconds: float) -> Any:
        said = whole(self, seconds)
        if said is not None and not lost:
            lost.append(self)
            raise engine.Unreachable("no answer")
        return said

    def unstoppable(self: engine.Actor, method: str, *given: Any) -> engine.Answer:
        return ask(self, "is_idle") if method == "stop" else ask(self, method, *given)

    monkeypatch.setattr(engine.Stream, "next", deaf)
    monkeypatch.setattr(engine.Actor, "ask", unstoppable)
    work, done, context = tmp_path / "work", tmp_path / "there.mp4", Watcher()
    job = job_of(film)
    there = film_of(cluster, context, SlowPainter)
    report = color_there(job, done, there, context, work=work)
    assert lost and max(member.turns for member in cluster.members) == 1
    assert len(list(work.glob("*.segment"))) == report.segments
    assert done.read_bytes() == color_here(job, tmp_path / "here.mp4")


def test_an_actor_that_dies_twice_of_one_segment_is_a_crash_of_the_film(
    tmp_path: Path,
    film: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("colordaemon.cluster.helper._NODE_SECONDS", 0.5)
    context = Watcher()
    there = film_of(cluster, context, DeadlyPainter)
    with pytest.raises(HelperDied, match=r"film\.mp4: a worker on .* has died"):
        color_there(job_of(film), tmp_path / "there.mp4", there, context)
    assert "once more" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_is_killed_costs_no_try_and_others_make_what_it_had(
    tmp_path: Path,
    film: Path,
    place: LocalCluster,
    cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    def kill(found: Mapping[str, Any]) -> bool:
        if len(busy_nodes(found)) < 2:
            return False
        place.kill(0)
        return True

    context = Watcher(kill)
    there = film_of(cluster, context, SlowestPainter)
    there.tries = 1
    job, done = job_of(film), tmp_path / "there.mp4"
    color_there(job, done, there, context)
    assert len(place.nodes) == 1 and "once more" in caplog.text
    assert done.read_bytes() == color_here(job, tmp_path / "here.mp4")


@dataclass(frozen=True)
class SlowLoad:
    """Of a model that takes its time for each photo."""

    load: Load

    def __call__(self) -> Colorizer:
        colorizer = self.load()
        predict_ab = colorizer.predict_ab

        def slow(gray: torch.Tensor) -> torch.Tensor:
            time.sleep(0.2)
            return predict_ab(gray)

        colorizer.predict_ab = slow  # type: ignore[method-assign]
        return colorizer


@pytest.mark.logs_errors
def test_photos_are_colored_by_all_nodes_and_those_of_one_that_is_killed_by_others(
    tmp_path: Path,
    place: LocalCluster,
    cluster: Cluster,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    photos = [draw(tmp_path / f"{number:02}.png", 24 + number) for number in range(40)]
    photos[7].write_bytes(photos[7].read_bytes()[:70])
    config = Config(
        model=ModelSettings(file=model, device="cpu", precision="fp32"),
        output=OutputSettings(folder=tmp_path / "here"),
    )
    here = Once(photos, config).color(WorkContext())
    monkeypatch.setattr("colordaemon.convert.once.cluster_of", lambda _: nullcontext(cluster))
    terms, take = Model._terms, PhotoCluster._take
    done = dict[str, int]()

    def slowly(self: Model, settings: ClusterSettings) -> Terms:
        found = terms(self, settings)
        return replace(found, load=SlowLoad(found.load))

    def count(self: PhotoCluster, photo: Any, value: object, member: Any, now: float) -> None:
        done[member.node.name] = done.get(member.node.name, 0) + 1
        take(self, photo, value, member, now)
        if len(done) == 2 and len(place.nodes) == 2:
            place.kill(0)

    monkeypatch.setattr(Model, "_terms", slowly)
    monkeypatch.setattr(PhotoCluster, "_take", count)
    caplog.set_level(logging.INFO)
    while len(place.nodes) < 2:
        place.add()
    until = time.monotonic() + PATIENCE
    while sum(member.is_here for member in cluster.members) < 2:
        assert time.monotonic() < until
        cluster.turn()
        time.sleep(0.1)
    output = OutputSettings(folder=tmp_path / "there")
    there = Once(photos, config.model_copy(update={"output": output})).color(WorkContext())
    assert len(done) == 2 and len(place.nodes) == 1 and "photos once more" in caplog.text
    assert (there.done, there.failed) == (here.done, here.failed)
    assert there.failed == [photos[7]] and len(there.done) == 39
    results = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("here", "there")
    ]
    assert results[0] == results[1] and len(results[0]) == 39


def test_a_node_of_another_version_is_refused_by_name_and_others_do_the_work(
    tmp_path: Path,
    film: Path,
    place: LocalCluster,
    cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import colordaemon\ncolordaemon.__version__ = '9.9'\n"
    )
    odd = place.add(PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    context = Watcher()
    job, done = job_of(film), tmp_path / "there.mp4"
    while not any(odd in name for name in cluster.refused):
        color_there(job, done, film_of(cluster, context, SlowPainter), context)
    (why,) = (why for name, why in cluster.refused.items() if odd in name)
    assert why.startswith("found colordaemon 9.9, expected ")
    assert f"({odd}): does not take part: found colordaemon 9.9" in caplog.text
    assert done.read_bytes() == color_here(job, tmp_path / "here.mp4")
    place.kill(-1)


def test_a_folder_that_is_not_shared_is_refused_by_name(
    tmp_path: Path, film: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {"paths": {str(tmp_path): Path("/nowhere")}}
    monkeypatch.setattr(cluster, "_settings", cluster.settings.model_copy(update=elsewhere))
    context = Watcher()
    there = film_of(cluster, context)
    with pytest.raises(
        ConfigError, match=r"cluster: .* \(127.*cannot use /nowhere/.*cluster\.paths"
    ):
        color_there(job_of(film), tmp_path / "there.mp4", there, context)
    assert list(tmp_path.iterdir()) == []


def test_a_driver_that_is_killed_takes_its_actors_along_and_the_next_goes_on(
    tmp_path: Path, film: Path, place: LocalCluster, cluster: Cluster
) -> None:
    cluster.end()  # or the only node would have no room
    work, done = tmp_path / "work", tmp_path / "there.mp4"
    settings = place.settings()
    line = [sys.executable, "-m", "programs.on_cluster", str(settings.address)]
    line += [str(settings.token_file), str(film), str(work), str(done)]
    driver = subprocess.Popen(  # noqa: S603
        line, cwd=TESTS, env=place.environment(), stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    pids: list[int] = []
    for said in driver.stdout:
        pids = [int(word) for word in said.split()[1:]] if said.startswith("busy") else pids
        if pids and len(list(work.glob("*.segment"))) >= 3:
            break
    driver.kill()
    driver.wait()
    driver.stdout.close()
    assert pids
    until = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)
    colorizer: Any = Painter()
    report = color_film(job_of(film), done, colorizer, work=work)
    assert 2 <= report.resumed < report.segments
    assert done.read_bytes() == color_here(job_of(film), tmp_path / "here.mp4")


def daemon_on(place: LocalCluster, start: Start, **more: object) -> Daemon:
    settings = place.settings(**more).model_dump(mode="json")
    return start(f"cluster: {json.dumps(settings)}")


@pytest.mark.logs_errors
def test_a_daemon_has_its_photos_colored_by_nodes_in_turn_with_its_film(
    tmp_path: Path, place: LocalCluster, cluster: Cluster, start: Start, model: Path
) -> None:
    """One of them is broken, one has a guide; each is what it would have been here."""
    cluster.end()  # or the nodes would have no room
    sources = tmp_path / "sources"
    sources.mkdir()
    photos = [draw(sources / f"{number:02}.png", 24 + number) for number in range(40)]
    photos[7].write_bytes(photos[7].read_bytes()[:70])
    save(sources / "09.reference.png", meadow())
    settings = ModelSettings(file=model, device="cpu", precision="fp32")
    output = OutputSettings(folder=tmp_path / "here")
    Once([sources], Config(model=settings, output=output)).color(WorkContext())
    daemon = daemon_on(place, start)
    film = make_film(tmp_path / "film.mp4", pictures(1500, shot_frames=50))
    daemon.start(**place.environment())
    daemon.wait_ready()
    film.replace(daemon.inbox / film.name)
    daemon.wait(lambda: sum(name.endswith(".segment") for name in daemon.results) >= 2)
    for path in sorted(sources.iterdir(), reverse=True):  # what guides comes first
        path.replace(daemon.inbox / path.name)
    seen: set[str] = set()

    def is_over() -> bool:
        found = daemon.ask("status")["daemon"]["cluster"] or {"nodes": []}
        for worker in (each for node in found["nodes"] for each in node["workers"]):
            seen.update(key for key in ("film", "photo") if worker[key])
        return not daemon.jobs(State.QUEUED, State.RUNNING, State.PUBLISHING)

    daemon.wait(lambda: len(daemon.jobs()) == 41 and is_over())
    ended = {job.source.name: job for job in daemon.jobs()}
    assert seen == {"film", "photo"}
    assert {name for name, job in ended.items() if job.state is State.FAILED} == {"07.png"}
    last = max(job.changed for name, job in ended.items() if name != film.name)
    assert ended[film.name].state is State.DONE and last < ended[film.name].changed
    made = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert made == {
        name: (daemon.outbox / name).read_bytes()
        for name in daemon.results
        if name.endswith(".png")
    }
    assert len(made) == 39
    assert {*daemon.results} - {*made} == {"film.color.mp4", "failed/07.png.error.txt"}
    assert daemon.stop() == 0


def test_films_at_the_same_time_have_a_part_of_the_nodes_each(
    tmp_path: Path, place: LocalCluster, start: Start, model: Path
) -> None:
    while len(place.nodes) < 2:
        place.add()
    long, short = (
        make_film(tmp_path / name, pictures(count, shot_frames=50))
        for name, count in (("long.mp4", 8000), ("short.mp4", 600))
    )
    daemon = daemon_on(place, start)
    daemon.config.write_text(daemon.config.read_text().replace("jobs: {", "jobs: {workers: 2, "))
    daemon.start(**place.environment())
    daemon.wait_ready()

    def at_work() -> list[str]:
        found = daemon.ask("status")["daemon"]["cluster"] or {"nodes": []}
        workers = [worker for node in found["nodes"] for worker in node["workers"]]
        return sorted(Path(worker["film"]).name for worker in workers if worker["film"])

    long.rename(daemon.inbox / long.name)
    daemon.wait(lambda: at_work() == ["long.mp4", "long.mp4"])
    shutil.copyfile(short, daemon.inbox / short.name)
    daemon.wait(lambda: at_work() == ["long.mp4", "short.mp4"])
    daemon.wait(lambda: daemon.jobs(State.DONE))
    daemon.wait(lambda: at_work() == ["long.mp4", "long.mp4"])
    settings = ModelSettings(file=model, device="cpu", precision="fp32")
    output, film = OutputSettings(folder=tmp_path / "here"), load_config(daemon.config).film
    Once([short], Config(model=settings, output=output, film=film)).color(WorkContext())
    name = "short.color.mp4"
    assert (daemon.outbox / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert daemon.stop() == 0


def test_a_film_waits_for_a_head_that_is_killed_and_goes_on_with_the_next(
    tmp_path: Path,
    film: Path,
    place: LocalCluster,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("colordaemon.cluster.cluster._HEAD_SECONDS", 3.0)
    work, done = tmp_path / "work", tmp_path / "there.mp4"
    stages = iter(("kill", "begin"))
    stage = next(stages)

    def act(found: Mapping[str, Any]) -> bool:
        nonlocal stage
        if stage == "kill" and len(list(work.glob("*.segment"))) >= 3:
            place.kill_all()
            stage = next(stages)
        elif stage == "begin" and "does not answer" in found["waiting"]:
            place.begin()
            place.add()
            return True
        return False

    context = Watcher(act)
    there = film_of(cluster, context, SlowPainter)
    color_there(job_of(film), done, there, context, work=work)
    cluster.end()  # with the threads of its second connection
    assert place.nodes and done.read_bytes() == color_here(job_of(film), tmp_path / "here.mp4")


def test_an_actor_of_a_cluster_that_another_thread_has_left_does_not_answer(
    cluster: Cluster,
) -> None:
    cluster.turn()
    cluster.end()
    answer, stream = engine.Answer(None), engine.Stream(None)
    assert not answer.is_there and not cluster.nodes()
    with pytest.raises(engine.Unreachable):
        answer.get(0.0)
    with pytest.raises(engine.Unreachable):
        stream.next(0.0)


def test_a_wrong_token_is_refused(tmp_path: Path, place: LocalCluster) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    settings = place.settings()
    code = "import sys; from pathlib import Path; from colordaemon.cluster import engine\n"
    code += "engine.connect(sys.argv[1], Path(sys.argv[2]), None)"
    line = [sys.executable, "-c", code, str(settings.address), str(token)]
    tried = subprocess.run(  # noqa: S603
        line, env=place.environment(), capture_output=True, text=True, check=False
    )
    assert "ConfigError: cluster.token_file: " in tried.stderr
    assert "does not take the token of" in tried.stderr


def test_a_node_begins_only_with_free_ports_and_the_token_of_its_head(
    tmp_path: Path, place: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = place.settings()
    monkeypatch.setattr("os.execve", lambda *given: pytest.fail("Ray was begun"))
    with pytest.raises(OSError, match="expected a free port") as busy:
        run_node(settings, head=True)
    assert busy.value.filename == settings.address
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="expected a free port"):
            run_node(
                settings.model_copy(update={"node_address": None}), head=False, first_port=port
            )
    token = tmp_path / "token"
    token.write_text("0" * 64)
    (tmp_path / "config.yaml").write_text(
        f"inbox: in\noutbox: out\nstate_dir: state\ncluster: {{address: '{settings.address}',"
        f" token_file: {token}, node_address: 127.0.0.1}}\n"
    )
    line = [sys.executable, "-m", "colordaemon", "node", "--config", str(tmp_path / "config.yaml")]
    tried = subprocess.run(  # noqa: S603
        [*line, "--first-port", "10600"], env=place.environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert tried.returncode == 78 and "does not take the token of" in tried.stderr


def test_a_cluster_without_a_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.token_file: found none, expected a file"):
        engine.environment(None)
    short = tmp_path / "token"
    short.write_text("secret")
    with pytest.raises(ConfigError, match="found 6 letters, expected at least 32"):
        engine.environment(short)


def test_a_cluster_without_gpus_says_what_it_waits_for() -> None:
    assert Cluster(ClusterSettings(address="head:1"), 1.0).waits_for == "for a GPU node"


@pytest.mark.parametrize(
    ("settings", "gpus", "cpus", "seats", "share"),
    [
        ({}, 2, 16, 4, 0.5),  # two on each, where there are cores for their encoders
        ({}, 2, 8, 2, 1.0),
        ({}, 4, 8, 2, 1.0),  # no more than have cores
        ({}, 0, 64, 0, 1.0),
        ({"workers_per_gpu": 3}, 1, 32, 3, 1 / 3),
        ({"device": "cpu", "cpus": 2}, 1, 9, 4, 0.0),
    ],
)
def test_a_machine_has_as_many_workers_as_it_has_gpus_and_cores_for(
    settings: dict[str, Any], gpus: int, cpus: int, seats: int, share: float
) -> None:
    cluster = Cluster(ClusterSettings(address="head:1", **settings), 1.0)
    node = engine.Node("1", "node 1", {"GPU": gpus, "CPU": cpus})
    found = cluster._seats(node)
    assert found[0] == seats and (found[1] == pytest.approx(share) or not seats)


class Unmanned(Cluster):
    """A cluster that has no machines yet, and looks for none."""

    def turn(self) -> None:
        pass


def test_what_waits_for_a_node_says_so_and_what_has_ended_waits_for_none(
    tmp_path: Path, film: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told = list[Mapping[str, object]]()

    class Told(WorkContext):
        def machines(self, found: Mapping[str, object]) -> None:
            told.append(found)

    context = Told()
    terms: Any = Terms(Painter, None, "", "")  # type: ignore[arg-type]
    cluster = Unmanned(ClusterSettings(address="head:1", device="cpu"), 1.0)
    there = FilmCluster(cluster, terms, context)
    there.open(film, tmp_path)
    assert not there.helpers() and not there.helpers()
    assert caplog.messages == [f"{film} waits for a node"]
    there.close()
    photos = PhotoCluster(cluster, context)
    source = draw(tmp_path / "photo.png", 24)
    task = PhotoTask.of(
        source, tmp_path / "x" / "y", PhotoSettings(), NO_GUIDE, force=False, maker=Maker()
    )
    photo = Photo(terms, task, SharedPaths({}), WorkContext())
    photos._waiting.append(photo)
    photos.turn()
    photos.drop()
    photos.turn()
    assert [each["waiting"] for each in told] == ["for a node", "", "for a node", ""]


@pytest.mark.parametrize("running", [[], [{"id": 1}]])
@pytest.mark.parametrize("can_look", [True, False])
def test_the_machines_are_looked_at_unless_a_daemon_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: list[object], can_look: bool
) -> None:
    def look_at(settings: ClusterSettings) -> dict[str, object]:
        if not can_look:
            raise ConfigError("the token cannot be read")
        return shown | {"address": "looked at"}

    shown: dict[str, object] = {
        "nodes": [{"name": "gpu1", "gpus": 1, "cpus": 8, "workers": [], "refused": ""}],
        "waiting": "",
        "address": "told",
    }
    reply = {"daemon": {"cluster": shown, "running": running}}
    monkeypatch.setattr("colordaemon.service.control.ask", lambda *given: reply)
    monkeypatch.setattr("colordaemon.cluster.cluster.look_at", look_at)
    config = tmp_path / "config.yaml"
    config.write_text("inbox: in\noutbox: out\nstate_dir: state\ncluster: {address: 'head:1'}\n")
    (tmp_path / "in").mkdir()
    found = CliRunner().invoke(app, ["cluster", "status", "--config", str(config)])
    expected = "looked at" if can_look and not running else "told"
    assert found.exit_code == 0 and f"cluster at {expected}" in found.output


def helper_with(wait_seconds: float, version: Version) -> ActorHelper:
    node = SimpleNamespace(name="node 1")
    member: Any = SimpleNamespace(node=node, turns=0)
    load: Any = Painter
    return ActorHelper(
        member, Film(load, None, version, SharedPaths({}), wait_seconds, 1.0), nodes=lambda: []
    )


def task_of(film: Path) -> SegmentTask:
    job = job_of(film)
    return SegmentTask(0, job.source, job.encoder, film.with_name("0"), 1.0, 2.0)


def test_a_segment_that_arrives_late_and_in_parts_is_waited_for(tmp_path: Path, film: Path) -> None:
    path, text = tmp_path / "000000.1.segment", b"segment" * 1000
    path.write_bytes(text)
    mark = Mark.of(path)
    path.unlink()

    def write() -> None:
        for part in (text[:10], b"x" * len(text), text):
            time.sleep(0.2)
            path.write_bytes(part)

    writer = threading.Thread(target=write)
    writer.start()
    helper_with(60.0, Version.of(film))._wait_for(task_of(film), path, mark)
    assert path.read_bytes() == text
    writer.join()


def test_a_segment_that_never_arrives_is_a_fault_of_the_share(tmp_path: Path, film: Path) -> None:
    path = tmp_path / "000000.1.segment"
    path.write_bytes(b"se")
    with pytest.raises(
        OSError, match="found 2 bytes of 7 bytes that node 1 has written"
    ) as failure:
        helper_with(0.1, Version.of(film))._wait_for(task_of(film), path, Mark(7, 0))
    assert failure.value.filename == str(path)


def test_shared_folders_have_the_names_of_the_other_machines(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inner)
    paths = SharedPaths({str(tmp_path): Path("/mnt"), str(tmp_path / "a"): Path("/other")})
    assert paths.there(tmp_path / "x") == Path("/mnt/x")
    assert paths.there(inner / "x") == Path("/other/b/x")
    assert paths.there(tmp_path / "link" / "x") == Path("/other/b/x")
    assert paths.there(Path("/srv/x")) == Path("/srv/x")


def test_without_a_cluster_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, colordaemon.cli, colordaemon.convert.once, colordaemon.service.worker\n"
        "import colordaemon.service.daemon, colordaemon.film.helper\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'ray'"
        " or name.startswith('colordaemon.cluster')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert said.stdout.strip() == "[]"


class Nowhere:
    """A cluster without machines."""

    settings, hang_seconds = ClusterSettings(tries=2), 1.0
    members: tuple[Any, ...] = ()
    waits_for = "for a GPU node"

    def turn(self) -> None:
        pass

    def as_json(self) -> dict[str, Any]:
        return {"nodes": []}

    at_rest = as_json


class Stoppable(WorkContext):
    is_stopped = False

    def should_stop(self) -> bool:
        return self.is_stopped


@pytest.mark.parametrize("reason", ["its own", "all", "trouble"])
def test_photos_that_wait_for_a_node_are_left_when_that_is_asked(
    tmp_path: Path, reason: str
) -> None:
    whole, contexts = Stoppable(), [Stoppable(), Stoppable()]
    there = PhotoCluster(Nowhere(), whole)  # type: ignore[arg-type]
    terms = Terms(Painter, None, "", "")  # type: ignore[arg-type]
    tasks = [
        PhotoTask.of(
            draw(tmp_path / name, 24), tmp_path / "done", PhotoSettings(), NO_GUIDE, force=False,
            maker=Maker(),
        )
        for name in ("a.png", "b.png")
    ]  # fmt: skip
    with ThreadPoolExecutor(2) as executor:
        one, other = (
            executor.submit(there.color, terms, task, context)
            for task, context in zip(tasks, contexts, strict=True)
        )
        while len(there._waiting) < 2:
            time.sleep(0.01)
        there.turn()
        assert not one.done() and not other.done()
        if reason == "trouble":
            there.drop(ConfigError("no machine is fit"))
            with pytest.raises(ConfigError, match="no machine is fit"):
                one.result(10)
        else:
            (whole if reason == "all" else contexts[0]).is_stopped = True
            there.turn()
            with pytest.raises(Interrupted, match=r"a\.png: stopped"):
                one.result(10)
        assert bool(there._waiting) == (reason == "its own")
        there.close()
        with pytest.raises((Interrupted, ConfigError)):
            other.result(10)
        with pytest.raises(Interrupted):
            there.color(terms, tasks[0], contexts[1])


def test_a_photo_that_is_cancelled_in_a_batch_is_left_and_the_others_are_not(
    tmp_path: Path,
) -> None:
    there = PhotoCluster(Nowhere(), WorkContext())  # type: ignore[arg-type]
    terms, photos = Terms(Painter, None, "", ""), list[Photo]()  # type: ignore[arg-type]
    for name in ("a", "b"):
        source = draw(tmp_path / f"{name}.png", 24)
        task = PhotoTask.of(
            source, tmp_path / name, PhotoSettings(), NO_GUIDE, force=False, maker=Maker()
        )
        photos.append(Photo(terms, task, SharedPaths({}), Stoppable()))
    a, b = photos
    member: Any = SimpleNamespace(node=engine.Node("1", "node 1", {}), is_gone=False)
    there._batches.append(Batch(member, 1, Any, deque(photos), 0.0))  # type: ignore[arg-type]
    a.context.is_stopped = True  # type: ignore[attr-defined]
    a.begin()
    there._stop_unwanted()
    with pytest.raises(Interrupted, match=r"a\.png: stopped"):
        a.done.result(0)
    assert not b.done.done()
    a.attempt.write_bytes(b"late")
    there._take(a, ("report", Mark.of(a.attempt)), member, 0.0)
    assert not a.attempt.exists() and not there._arriving


@pytest.mark.parametrize("is_here", [True, False])
def test_a_guide_that_only_this_machine_sees_is_a_fault_of_the_share(
    tmp_path: Path, is_here: bool
) -> None:
    source, reference = draw(tmp_path / "a.png", 24), draw(tmp_path / "r.png", 24)
    digest = hashlib.sha256(reference.read_bytes()).hexdigest()
    guide = Guide((GuidePicture(reference, "reference", digest),))
    task = PhotoTask.of(
        source, tmp_path / "done", PhotoSettings(), guide, force=False, maker=Maker()
    )
    terms: Any = Terms(Painter, None, "", "")  # type: ignore[arg-type]
    photo = Photo(terms, task, SharedPaths({}), WorkContext())
    there = PhotoCluster(Nowhere(), WorkContext())  # type: ignore[arg-type]
    failed = Failed(GuideChanged("r.png: was removed since work began with it"), "trace")
    stream = SimpleNamespace(next=lambda seconds: failed)
    member: Any = SimpleNamespace(
        node=engine.Node("1", "node 1", {}), next_number=lambda: 1,
        actor=SimpleNamespace(stream=lambda *given: stream),
    )  # fmt: skip
    helper = helper_with(0.1, Version(1, 1))
    helper._member = member
    segment: Any = SimpleNamespace(guide=guide)
    if not is_here:
        reference.unlink()
    expected, words = (OSError, "node 1 does not see the") if is_here else (GuideChanged, "removed")
    there._take(photo, failed, member, 0.0)
    with pytest.raises(expected, match=words):
        photo.done.result(0)
    failed.error.__traceback__ = None
    with pytest.raises(expected, match=words):
        helper._done(segment, ())  # type: ignore[arg-type]


def test_an_actor_is_had_in_the_order_of_asking() -> None:
    line = Line()
    film, photos = object(), object()
    assert line.is_turn_of(film) and not line.is_turn_of(photos)
    line.leave(film)
    assert line.is_turn_of(photos) and not line.is_turn_of(film)
    line.leave(photos)
    assert line.is_turn_of(film)
    line.leave(photos)  # who is not in it leaves nothing
    assert line.is_turn_of(film)


def test_a_photo_of_which_two_workers_die_is_blamed_and_its_neighbors_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colordaemon.cluster.helper._NODE_SECONDS", 0.0)
    node = engine.Node("1", "node 1", {})
    cluster: Any = SimpleNamespace(
        settings=ClusterSettings(tries=2), nodes=lambda: [node], hang_seconds=1.0
    )
    there = PhotoCluster(cluster, WorkContext())
    terms, paths = Terms(Painter, None, "", ""), SharedPaths({})  # type: ignore[arg-type]
    photos = []
    for name in ("deadly", "next"):
        source = draw(tmp_path / f"{name}.png", 24)
        task = PhotoTask.of(
            source, tmp_path / name, PhotoSettings(), NO_GUIDE, force=False, maker=Maker()
        )
        photos.append(Photo(terms, task, paths, WorkContext()))
    for _ in range(2):
        member: Any = SimpleNamespace(node=node, is_gone=True, line=Line())
        there._waiting.clear()
        batch = Batch(member, 1, Any, deque(photos), 0.0)  # type: ignore[arg-type]
        there._batches.append(batch)
        there._listen(batch, 1.0)
    assert [*there._waiting] == [photos[1]]
    with pytest.raises(HelperDied, match=r"deadly\.png: a worker on node 1 has died"):
        photos[0].done.result(0)


def test_a_photo_whose_worker_is_lost_while_it_is_handed_out_waits_for_another(
    tmp_path: Path,
) -> None:
    def stream(*given: object) -> None:
        raise engine.Unreachable("gone")

    there = PhotoCluster(Nowhere(), WorkContext())  # type: ignore[arg-type]
    task = PhotoTask.of(
        draw(tmp_path / "a.png", 24), tmp_path / "done", PhotoSettings(), NO_GUIDE, force=False,
        maker=Maker(),
    )  # fmt: skip
    terms = Terms(Painter, None, "", "")  # type: ignore[arg-type]
    photo = Photo(terms, task, SharedPaths({}), WorkContext())
    member: Any = SimpleNamespace(next_number=lambda: 1, actor=SimpleNamespace(stream=stream))
    there._begin(member, [photo], 5.0)
    assert [*there._waiting] == [photo] and not there._batches and member.lost_at == 5.0


def test_a_node_that_is_fit_for_other_work_is_refused_with_the_reason_for_this_one() -> None:
    member: Any = SimpleNamespace(node=engine.Node("1", "node 1", {}))
    cluster: Any = SimpleNamespace(members=[member], settings=ClusterSettings(), refused={})
    admission = Admission(cluster, Terms(Painter, None, "", ""))  # type: ignore[arg-type]
    admission._refused["node 1"] = 0.0, "another model"
    with pytest.raises(ConfigError, match="node 1: another model"):
        admission._refuse_if_none_is_fit()
