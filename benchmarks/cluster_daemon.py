"""A daemon with a cluster while its nodes, workers, actors and the daemon itself are killed.

    python benchmarks/cluster_daemon.py [--films 8] [--photos 200] [--seconds 240] [--seed 1]

A daemon that has two films and many photos in work at the same time, on three nodes of this
machine. Every few seconds something is killed. In the end each file has to be there once, with the
bytes that `once` makes without a cluster, broken photos have to have failed, and nothing else may
be left in the outbox.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from clusters import LocalCluster, descendants
from daemons import Daemon
from films import make_film, pictures
from photos import draw

from colordaemon.config import Config, ModelSettings, OutputSettings
from colordaemon.config_file import load_config
from colordaemon.convert.once import Once
from colordaemon.network.checkpoint import save_model
from colordaemon.network.model import ColorNet, ModelSpec
from colordaemon.service.job import Reason, State
from colordaemon.work_context import WorkContext

WORKING = (State.QUEUED, State.RUNNING, State.PUBLISHING)
BROKEN = 20  # each such photo is cut short
PATIENCE = 900.0  # seconds, for what is left when nothing is killed any more


def save_small_model(path: Path) -> Path:
    torch.manual_seed(0)
    widths = ((4, 4), (6,), (8,), (8,), (8, 8))
    spec = ModelSpec(encoder=widths, decoder=(8, 8, 6, 4), short_side=64)
    save_model(path, ColorNet(spec).eval(), {})
    return path


def make_sources(folder: Path, films: int, photos: int) -> list[Path]:
    folder.mkdir()
    made = [
        make_film(folder / f"film{number}.mp4", pictures(1000 + 100 * number, shot_frames=50))
        for number in range(films)
    ]
    for number in range(photos):
        photo = draw(folder / f"{number:04}.png", 24 + number)
        if number % BROKEN == 0:
            photo.write_bytes(photo.read_bytes()[:70])
        made.append(photo)
    return made


def kill_something(daemon: Daemon, place: LocalCluster, chance: random.Random) -> str:
    """Returns what."""
    what = chance.choices(("actor", "worker", "node", "daemon"), (5, 3, 2, 1))[0]
    if what == "node":
        place.kill(chance.randrange(len(place.nodes)))
        add(place)
    elif what == "daemon":
        daemon.kill()
        daemon.start_untampered()
    else:
        pids = daemon.worker_pids
        if what == "actor":
            found = [pid for node in place.nodes for pid in descendants(node.pid)]
            pids = [pid for pid in found if _title(pid).startswith(b"ray::Actor")]
        if not pids:
            return "nothing"
        with suppress(OSError):
            os.kill(chance.choice(pids), signal.SIGKILL)
    return what


def add(place: LocalCluster) -> None:
    """A node; on a busy machine some do not start in time."""
    while True:
        count = len(place.nodes)
        try:
            place.add()
            return
        except AssertionError:
            while len(place.nodes) > count:
                place.kill(-1)


def _title(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def retried(daemon: Daemon) -> int:
    """Files that were set aside after two deaths over them are tried again; returns how many."""
    crashed = [job.id for job in daemon.jobs(State.FAILED) if job.code is Reason.CRASH]
    if crashed:
        daemon.ask("retry", jobs=crashed)
    return len(crashed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance, killed, begin = random.Random(options.seed), Counter[str](), time.monotonic()  # noqa: S311
    with tempfile.TemporaryDirectory() as name:
        root, place = Path(name), LocalCluster()
        os.environ |= place.environment()
        for _ in range(3):
            add(place)
        model = save_small_model(root / "model.safetensors")
        daemon = Daemon(root / "place", model, f"cluster: {place.settings().model_dump_json()}")
        text = daemon.config.read_text().replace("jobs: {", "jobs: {workers: 2, tries: 100, ")
        daemon.config.write_text(text)
        sources = make_sources(root / "sources", options.films, options.photos)
        daemon.start_untampered()
        try:
            daemon.wait_ready()
            for source in sources:
                os.link(source, daemon.inbox / source.name)
            while time.monotonic() - begin < options.seconds:
                time.sleep(chance.uniform(2.0, 6.0))
                killed[kill_something(daemon, place, chance)] += 1
            retries = 0
            while True:
                daemon.wait(lambda: len(daemon.jobs()) == len(sources), PATIENCE)
                daemon.wait(lambda: not daemon.jobs(*WORKING), PATIENCE)
                if not (again := retried(daemon)):
                    break
                retries += again
            judge(daemon, sources, root / "here", model)
        finally:
            daemon.close()
            place.close()
    print(f"killed: {dict(killed)}; {retries} retried by hand; {time.monotonic() - begin:.0f} s")


def judge(daemon: Daemon, sources: list[Path], here: Path, model: Path) -> None:
    settings = ModelSettings(file=model, device="cpu", precision="fp32")
    film = load_config(daemon.config).film
    config = Config(model=settings, film=film, output=OutputSettings(folder=here))
    expected = Once(sources, config).color(WorkContext())
    made = {path.name: path.read_bytes() for path in here.iterdir()}
    found = {path.name: path.read_bytes() for path in daemon.outbox.iterdir() if path.is_file()}
    notes = {f"failed/{path.name}.error.txt" for path in expected.failed}
    wrong = sorted(name for name in made.keys() & found.keys() if made[name] != found[name])
    print(f"{len(made)} results, {len(wrong)} of them differ: {wrong}")
    print(f"missing: {sorted(made.keys() - found.keys())}")
    print(f"left over: {sorted({*daemon.results} - made.keys() - notes)}")
    print(f"jobs: {dict(Counter(job.state.value for job in daemon.jobs()))}")
    broken = {path.name for path in expected.failed}
    for job in daemon.jobs(State.FAILED):
        if job.source.name not in broken:
            print(f"failed: {job.source.name}: {job.code}: {job.reason}")


if __name__ == "__main__":
    main()
