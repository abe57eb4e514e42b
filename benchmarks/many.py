"""What very many files cost: memory and descriptors, the journal, `status`, the first look around.

    python benchmarks/many.py [--files 10000] [--rows 100000]

Photos are colored by a real worker with a miniature network, in waves of a tenth: what daemon and
worker hold after each of them tells what a thousand files leave behind. The journal that comes of
it is measured with the lists of what each photo held and without them. Then an inbox of --rows
files is looked at from the start, with work paused: one that knows none of them, one that knows
all, one that gets other priorities, and one where all that failed is retried. Meanwhile `status` is
asked again and again over the socket, and the longest wait for an answer is how long the loop was
held up.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from daemon import COPYING_DAEMON, wait_for

from colordaemon.bench.machine import describe_machine
from colordaemon.network.checkpoint import save_model
from colordaemon.network.model import ColorNet, ModelSpec
from colordaemon.service.control import NoAnswer, ask
from colordaemon.service.job import ENDS, State
from colordaemon.service.journal import Journal
from colordaemon.service.records import Records

WAVES, SIZE = 10, (40, 56)
CONFIG = """\
inbox: in
outbox: out
state_dir: state
model: {file: model.safetensors, device: cpu, precision: fp32, quality: draft}
watch: {settle_seconds: 0.5}
jobs: {free_mib: 0}
"""
MEASURED = Path(__file__).with_name("measured.py")


class Running:
    """A daemon, and what systemd is told of it. copies: its worker does no more than that."""

    def __init__(self, root: Path, *, copies: bool = False) -> None:
        self.root, self.began = root, time.monotonic()
        self._systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._systemd.settimeout(120.0)
        self._systemd.bind(f"\0colordaemon-many-{os.getpid()}-{id(self)}")
        config = str(root / "config.yaml")
        line = [sys.executable, "-m", "colordaemon", "watch", "--config", config]
        if copies:
            line = [sys.executable, str(COPYING_DAEMON), "watch", config]
        name = self._systemd.getsockname().decode().replace("\0", "@")
        with (root / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                line, stderr=log, env=os.environ | {"NOTIFY_SOCKET": name}
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def worker_pid(self) -> int:
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    @property
    def socket(self) -> Path:
        return self.root / "state" / "control.sock"

    def wait_ready(self) -> float:
        """Seconds that it took."""
        while b"READY=1" not in self._systemd.recv(4096):
            pass
        self._systemd.settimeout(None)
        threading.Thread(target=self._hear, daemon=True).start()
        return time.monotonic() - self.began

    def _hear(self) -> None:
        while self._systemd.recv(4096):
            pass

    def stop(self) -> None:
        self._process.terminate()
        if self._process.wait(120):
            raise SystemExit(f"the daemon failed; see {self.root / 'log'}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)


@contextmanager
def asked_all_the_time(path: Path) -> Iterator[Callable[[], float]]:
    """Ask for `status` meanwhile; gives the longest that an answer took, in seconds."""
    longest, over = [0.0], threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            began = time.monotonic()
            try:
                ask(path, {"verb": "status"}, seconds=100.0)
            except NoAnswer:
                continue  # it ends, or begins
            longest[0] = max(longest[0], time.monotonic() - began)
            time.sleep(0.1)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        yield lambda: longest[0]
    finally:
        over.set()
        thread.join()


def furnish(root: Path) -> None:
    (root / "in").mkdir()
    (root / "config.yaml").write_text(CONFIG)
    torch.manual_seed(0)
    widths = ((4, 4), (6,), (8,), (8,), (8, 8))
    spec = ModelSpec(encoder=widths, decoder=(8, 8, 6, 4), short_side=64)
    save_model(root / "model.safetensors", ColorNet(spec).eval(), {})


def memory(root: Path, count: int) -> None:
    """What a thousand files leave behind, in the daemon and in its worker."""
    furnish(root)
    picture = np.tile(np.linspace(0, 255, SIZE[1], dtype=np.uint8), (SIZE[0], 1))
    photo = cv2.imencode(".png", picture)[1].tobytes()
    daemon = Running(root)
    daemon.wait_ready()
    held = []
    for wave in range(WAVES):
        folder = root / "in" / f"{wave:02}"
        folder.mkdir()
        for number in range(count // WAVES):
            (folder / f"{number:05}.png").write_bytes(photo)
        wait_for(lambda: ended(root) >= (wave + 1) * (count // WAVES), 3600.0)  # noqa: B023
        time.sleep(1.0)
        held.append([*holds(daemon.pid), *holds(daemon.worker_pid)])
        print("  {} files: daemon {:.1f} MiB, {:.0f} descriptors; worker {:.1f} MiB, {:.0f} "
              "descriptors".format(ended(root), *held[-1]), flush=True)  # fmt: skip
    daemon.stop()
    # The first two waves fill pools and caches.
    thousands = np.arange(2, WAVES) * (count // WAVES) / 1000
    slopes = np.polyfit(thousands, np.array(held[2:]), 1)[0]
    print("a thousand files leave behind: daemon {:+.2f} MiB, {:+.2f} descriptors; worker {:+.2f} "
          "MiB, {:+.2f} descriptors".format(*slopes))  # fmt: skip


def holds(pid: int) -> tuple[float, float]:
    """MiB of memory of its own, and descriptors."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
    return kib / 1024, float(len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208


def ended(root: Path) -> int:
    with Records(root / "state" / "journal.sqlite3") as records:
        return sum(records.counts()[state] for state in ENDS)


def journal_size(root: Path) -> None:
    """Bytes a file, packed; and those that the list of what each photo held takes."""
    copy = root / "copy.sqlite3"
    shutil.copyfile(root / "state" / "journal.sqlite3", copy)
    with closing(sqlite3.connect(copy)) as db:
        rows, letters = db.execute("SELECT count(*), avg(length(inventory)) FROM jobs").fetchone()
        db.execute("VACUUM")
        whole = copy.stat().st_size
        db.execute("UPDATE jobs SET inventory = '[]'")
        db.commit()
        db.execute("VACUUM")
    print(f"journal: {whole / rows:.0f} bytes a photo, {copy.stat().st_size / rows:.0f} without its"
          f" list of {letters:.0f} letters")  # fmt: skip


def many(root: Path, count: int) -> None:
    """An inbox of so many files, from the first look on."""
    furnish(root)
    for number in range(count):
        folder = root / "in" / f"{number // 1000:03}"
        folder.mkdir(exist_ok=True)
        (folder / f"photograph {number:06}.png").write_bytes(b"%d" % number)
    (root / "state").mkdir()
    journal = root / "state" / "journal.sqlite3"
    with Journal(journal) as opened:
        opened.note("paused", "yes")
    with asked_all_the_time(root / "state" / "control.sock") as longest:
        daemon = Running(root, copies=True)
        ready = daemon.wait_ready()
        wait_for(lambda: queued(root) >= count, 3600.0)
        took = time.monotonic() - daemon.began
        print(f"first look at {count} files: ready after {ready:.1f} s, all queued after {took:.1f}"
              f" s; `status` answered within {longest():.2f} s", flush=True)  # fmt: skip
    status_of(root, f"with {count} queued")
    daemon.stop()
    status_of(root, f"with {count} queued, without a daemon")
    with asked_all_the_time(root / "state" / "control.sock") as longest:
        daemon = Running(root, copies=True)
        ready = daemon.wait_ready()
        wait_until_idle(daemon)
        print(f"start with {count} queued: ready after {ready:.1f} s, `status` answered within "
              f"{longest():.2f} s", flush=True)  # fmt: skip
    config = root / "config.yaml"
    config.write_text(CONFIG + "priorities: {'*.png': 7}\n")
    with asked_all_the_time(root / "state" / "control.sock") as longest:
        began = time.monotonic()
        daemon.signal(signal.SIGHUP)
        wait_for(lambda: of_priority(journal, 7) >= count, 600.0)
        print(f"other priorities for {count}: {time.monotonic() - began:.1f} s, `status` answered "
              f"within {longest():.2f} s", flush=True)  # fmt: skip
    daemon.stop()
    with closing(sqlite3.connect(journal)) as db:
        db.execute("UPDATE jobs SET state = 'failed', code = 'media', reason = 'no photo'")
        db.commit()
    daemon = Running(root, copies=True)
    daemon.wait_ready()
    status_of(root, f"with {count} failed")
    with asked_all_the_time(root / "state" / "control.sock") as longest:
        began = time.monotonic()
        ask(daemon.socket, {"verb": "retry"})
        wait_for(lambda: queued(root) >= count, 600.0)
        print(f"retry of {count}: {time.monotonic() - began:.1f} s, `status` answered within "
              f"{longest():.2f} s", flush=True)  # fmt: skip
    daemon.stop()


def wait_until_idle(daemon: Running) -> None:
    """Until a second goes by in which it does next to nothing."""
    while True:
        before = processor_seconds(daemon.pid)
        time.sleep(1.0)
        if processor_seconds(daemon.pid) - before < 0.3:
            return


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def queued(root: Path) -> int:
    with Records(root / "state" / "journal.sqlite3") as records:
        return records.counts()[State.QUEUED]


def of_priority(journal: Path, priority: int) -> int:
    with closing(sqlite3.connect(journal)) as db:
        query = "SELECT count(*) FROM jobs WHERE state = 'queued' AND priority = ?"
        return int(db.execute(query, (priority,)).fetchone()[0])


def status_of(root: Path, what: str) -> None:
    for options in ([], ["--json"]):
        line = ["colordaemon", "status", *options, "--config", str(root / "config.yaml")]
        run = [sys.executable, str(MEASURED), sys.executable, "-m", *line]
        said = subprocess.run(run, check=True, capture_output=True, text=True).stdout  # noqa: S603
        print(f"status {' '.join(options)} {what}: {said.splitlines()[-1]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()
    print(describe_machine())
    for act, count in ((memory, asked.files), (many, asked.rows)):
        with tempfile.TemporaryDirectory(prefix="colordaemon-many-") as name:
            act(Path(name), count)
            if act is memory:
                journal_size(Path(name))


if __name__ == "__main__":
    main()
