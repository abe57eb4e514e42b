"""Daemon, workers and helpers are killed at random times; every file comes out once, and whole.

    python benchmarks/kills.py [--workers 2] [--kills 60] [--seed 1] [--beside]

Films of several segments and photos keep coming for as long as there are kills, so that now each
worker has a file of its own, now one has a film that a helper works on too. The model is a
miniature, and a worker takes its time with each frame. At the end the results are compared, byte
for byte, with those of a daemon that nobody disturbed; no process may be left, and no file but the
results. A film that two kills in a row have hit before it got on has failed, as it should, and is
retried. With --beside, all files beside results are made as well. Ends with 0 if all is
well.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import torch
from command import write_photo
from daemons import Daemon
from films import make_film, pictures

from colordaemon.bench.machine import describe_machine
from colordaemon.convert.publish import BESIDE
from colordaemon.network.checkpoint import save_model
from colordaemon.network.model import ColorNet, ModelSpec
from colordaemon.service.job import State

CHANCE = random.Random()  # noqa: S311
FRAME_SECONDS = 0.02
WAITING = 4  # files at once that are not finished
KINDS: dict[str, Callable[[Path], object]] = {
    "long.mp4": lambda path: make_film(path, pictures(500, shot_frames=60)),
    "short.mp4": lambda path: make_film(path, pictures(120, shot_frames=60)),
    "photo.png": write_photo,
}
WITH_FILES_BESIDE = "output: {preview: true, framemd5: true}"
ENDS = (State.DONE, State.FAILED, State.SKIPPED, State.CANCELLED)


def make_model(path: Path) -> None:
    torch.manual_seed(0)
    widths = ((4, 4), (6,), (8,), (8,), (8, 8))
    spec = ModelSpec(encoder=widths, decoder=(8, 8, 6, 4), short_side=64)
    save_model(path, ColorNet(spec).eval(), {})


def begin(root: Path, workers: int, more: str) -> Daemon:
    """more: further lines of the configuration."""
    root.mkdir()
    model = root.parent / "model.safetensors"  # one for all: results say which it was, by digest
    daemon = Daemon(root / "place", model, more, frame_seconds=FRAME_SECONDS)
    settings = daemon.config.read_text()
    daemon.config.write_text(settings.replace("jobs: {", f"jobs: {{workers: {workers}, "))
    (root / "temporary").mkdir()
    return daemon


def start(daemon: Daemon) -> None:
    daemon.start(TMPDIR=str(daemon.root.parent / "temporary"))


class Supply:
    """Puts copies of the files into the inbox."""

    def __init__(self, daemon: Daemon, made: Path) -> None:
        self._daemon, self._made, self.count = daemon, made, 0

    def drop(self, kind: str) -> None:
        stem, _, suffix = kind.partition(".")
        hidden = self._daemon.root / f"copy.{suffix}"
        hidden.write_bytes((self._made / kind).read_bytes())
        hidden.rename(self._daemon.inbox / f"{stem}-{self.count:03}.{suffix}")
        self.count += 1

    def refill(self, kind: str) -> None:
        """A long film alone, which has a helper, or several files, for a worker each."""
        is_alone = kind == "helper"
        while self.count - len(self._daemon.jobs(*ENDS)) < (1 if is_alone else WAITING):
            self.drop("long.mp4" if is_alone else CHANCE.choice([*KINDS]))


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def identity(pid: int) -> tuple[int, str]:
    """A process: its number, which may be given to another one later, and when it began."""
    return pid, (_status(pid) or [""] * 20)[19]


def is_gone(process: tuple[int, str]) -> bool:
    found = _status(process[0])
    return found is None or found[0] == "Z" or found[19] != process[1]


def _status(pid: int) -> list[str] | None:
    """What the kernel says of a process after its name."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def find(daemon: Daemon, kind: str) -> int | None:
    workers = children(daemon.pid)
    helpers = [helper for worker in workers for helper in children(worker)]
    found = {"daemon": [daemon.pid], "worker": workers, "helper": helpers}[kind]
    return CHANCE.choice(found) if found else None


def hashes(folder: Path) -> dict[str, set[str]]:
    """Of all files in it, by the kind of their source."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            kind = f"{path.name.partition('-')[0]}{path.suffix}"
            found.setdefault(kind, set()).add(hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def disturb(
    daemon: Daemon, supply: Supply, kills: int
) -> tuple[Counter[str], set[tuple[int, str]]]:
    """Kill processes; returns how many of each kind, and all workers and helpers that were seen."""
    killed, seen = Counter[str](), set[tuple[int, str]]()
    while sum(killed.values()) < kills:
        kind = CHANCE.choice(("daemon", "worker", "helper", "helper"))
        until = time.monotonic() + 60.0
        supply.refill(kind)
        while find(daemon, kind) is None and time.monotonic() < until:
            supply.refill(kind)
            daemon.hear()
            time.sleep(0.02)
        time.sleep(CHANCE.uniform(0.0, 1.0))
        if (victim := find(daemon, kind)) is None:
            continue
        for worker in children(daemon.pid):
            seen |= {identity(pid) for pid in (worker, *children(worker))}
        if kind == "daemon":
            daemon.kill()
            start(daemon)
        else:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        killed[kind] += 1
        time.sleep(CHANCE.uniform(0.0, 2.0))
    return killed, seen


def undisturbed(root: Path, made: Path, more: str) -> dict[str, set[str]]:
    daemon = begin(root, 1, more)
    start(daemon)
    supply = Supply(daemon, made)
    for kind in KINDS:
        supply.drop(kind)
    daemon.wait_for_ends(len(KINDS))
    daemon.stop()
    daemon.close()
    return hashes(daemon.outbox)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--beside", action="store_true")
    asked = parser.parse_args()
    CHANCE.seed(asked.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="colordaemon-kills-") as name:
        root = Path(name)
        (root / "made").mkdir()
        for kind, make in KINDS.items():
            make(root / "made" / kind)
        make_model(root / "model.safetensors")
        more = WITH_FILES_BESIDE if asked.beside else ""
        expected = undisturbed(root / "one", root / "made", more)
        daemon = begin(root / "many", asked.workers, more)
        start(daemon)
        supply = Supply(daemon, root / "made")
        killed, seen = disturb(daemon, supply, asked.kills)
        retried = 0
        while True:
            daemon.wait_for_ends(supply.count)
            failed = daemon.jobs(State.FAILED)
            if not failed:
                break
            retried += len(failed)
            print("retried:", *(f"{job.source.name}: {job.reason}" for job in failed), sep="\n  ")
            daemon.ask("retry", jobs=[job.id for job in failed])
        status = daemon.stop()
        until = time.monotonic() + 20.0
        while any(not is_gone(each) for each in seen) and time.monotonic() < until:
            time.sleep(0.1)
        left = sum(not is_gone(each) for each in seen)
        found = hashes(daemon.outbox)
        beside = [name for name in daemon.results if name.endswith(BESIDE)]
        results = [name for name in daemon.results if not name.endswith(BESIDE)]
        spare = [path.name for path in (daemon.root.parent / "temporary").rglob("*")]
        tracebacks = daemon.said().count("Traceback")
        daemon.close()
    wanted = sum(1 if name.endswith(".png") else 3 for name in results) if asked.beside else 0
    other = [kind for kind in found if found[kind] != expected[kind]]
    print(describe_machine())
    print(f"{asked.workers} workers, {sum(killed.values())} kills ({dict(killed)}) in "
          f"{time.monotonic() - began:.0f} s: {supply.count} files, {len(results)} results, "
          f"{len(beside)} of {wanted} files beside them, "
          f"{f'OTHER bytes of {other}' if other else 'the same bytes'}; {retried} retried after "
          f"two kills; {left} of {len(seen)} processes left, {len(spare)} temporary files, "
          f"{tracebacks} tracebacks; the daemon ended with {status}")  # fmt: skip
    is_well = not (other or left or spare or tracebacks or status) and len(beside) == wanted
    sys.exit(0 if is_well and len(results) == supply.count else 1)


if __name__ == "__main__":
    main()
