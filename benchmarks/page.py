"""What the page costs, itself and the daemon, with a journal of very many jobs.

    python benchmarks/page.py [JOBS]

The journal has a tenth of them done, 7 % failed and the others queued; work is paused. Printed in
milliseconds of a processor: a request of each kind, of the page's process and of the daemon's;
`status` and `queue`, Python's start included; and how much of a processor daemon and page take
while nobody looks on, then while ten browsers do. The latter is what the page adds to the daemon's
turns.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from daemon import COPYING_DAEMON, processor_seconds, wait_for

from colordaemon.service.job import State
from colordaemon.service.journal import Journal

REQUESTS, COMMANDS, BROWSERS, WATCHED_SECONDS = 20, 5, 10, 20.0
ADDRESSES = (
    "/", "/queue", "/queue?page=1000", "/done", "/done?page=200", "/done?q=no+such+file",
    "/queue?q=no+such+file", "/failed", "/failed?q=8999", "/job/5", "/status.json", "/metrics",
)  # fmt: skip
HELD = json.dumps([{"kind": "film", "what": "stream 0", "fate": "kept", "how": ""}] * 4)


def main(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="colordaemon-bench-") as name, ExitStack() as stack:
        root = Path(name)
        for folder in ("in", "out", "state"):
            (root / folder).mkdir()
        config = root / "config.yaml"
        config.write_text("inbox: in\noutbox: out\nstate_dir: state\njobs: {free_mib: 0}\n")
        fill(root / "state" / "journal.sqlite3", root / "in", count)
        daemon, _ = stack.enter_context(running(root, str(COPYING_DAEMON), "watch", str(config)))
        wait_for((root / "state" / "control.sock").exists)
        line = ("-m", "colordaemon", "web", "--config", str(config), "--listen", "127.0.0.1:0")
        page, log = stack.enter_context(running(root, *line))
        wait_for(lambda: "the page is at" in log.read_text())
        found = re.search(r"http://\S+:\d+", log.read_text())
        assert found is not None
        url, token = found[0], (root / "state" / "web.token").read_text().strip()
        print(f"{count} jobs")
        for address in ADDRESSES:
            measure_request(url, address, token, page, daemon)
        for command in ("status", "queue"):
            measure_command(command, config)
        alone = shares(daemon, page)
        with looked_at(url, token):
            watched = shares(daemon, page)
        print(f"while nobody looks on: daemon {alone[0]:.2%} of a processor, page {alone[1]:.2%}")
        print(f"while {BROWSERS} browsers do: daemon {watched[0]:.2%}, page {watched[1]:.2%}")


def fill(path: Path, inbox: Path, count: int) -> None:
    now = time.time()
    with Journal(path) as journal:
        journal.note("paused", "yes")
        journal._db.execute("BEGIN")
        for number in range(count):
            share, is_film = number / count, number % 10 == 0
            state = State.DONE if share < 0.1 else State.FAILED if share < 0.17 else State.QUEUED
            source = inbox / f"album {number % 997:03}" / f"Großvater {number:06}.jpg"
            target = os.fsencode(f"{source}.color.jpg") if state is State.DONE else None
            began = now - count + number if state is State.DONE else 0.0
            journal._db.execute(
                "INSERT INTO jobs (source, size, mtime_ns, rank, priority, state, changed, claimed,"
                " code, reason, target, inventory) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
                (
                    os.fsencode(source), 1000 + number, number, int(is_film), state, began + 1,
                    began, "media" if state is State.FAILED else "", "a reason of some words",
                    target, HELD,
                ),
            )  # fmt: skip
        journal._db.execute("COMMIT")


@contextmanager
def running(root: Path, *line: str) -> Iterator[tuple[int, Path]]:
    """A process of Python, its number and its log."""
    path = root / f"{len([*root.glob('*.log')])}.log"
    with path.open("wb") as log:
        process = subprocess.Popen([sys.executable, *line], stderr=log)  # noqa: S603
        try:
            yield process.pid, path
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def asked(url: str, token: str) -> Request:
    return Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310


def measure_request(url: str, address: str, token: str, page: int, daemon: int) -> None:
    before = processor_seconds(page), processor_seconds(daemon)
    for _ in range(REQUESTS):
        with urlopen(asked(f"{url}{address}", token)) as answer:  # noqa: S310
            size = len(answer.read())
    took = [
        1000 * (processor_seconds(pid) - begun) / REQUESTS
        for pid, begun in zip((page, daemon), before, strict=True)
    ]
    print(f"{address:24} page {took[0]:6.1f} ms, daemon {took[1]:5.1f} ms, {size >> 10} KiB")


def measure_command(command: str, config: Path) -> None:
    took = []
    for _ in range(COMMANDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        line = [sys.executable, "-m", "colordaemon", command, "--config", str(config)]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"colordaemon {command:12} {1000 * statistics.median(took):6.0f} ms")


def shares(*pids: int) -> list[float]:
    before = [processor_seconds(pid) for pid in pids]
    time.sleep(WATCHED_SECONDS)
    pairs = zip(pids, before, strict=True)
    return [(processor_seconds(pid) - begun) / WATCHED_SECONDS for pid, begun in pairs]


@contextmanager
def looked_at(url: str, token: str) -> Iterator[None]:
    """By some browsers that read the news."""
    ended = threading.Event()

    def look() -> None:
        with urlopen(asked(f"{url}/events", token)) as stream:  # noqa: S310
            while not ended.is_set() and stream.readline():
                pass

    threads = [threading.Thread(target=look, daemon=True) for _ in range(BROWSERS)]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    yield
    ended.set()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
