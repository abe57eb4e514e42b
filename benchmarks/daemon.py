"""What the daemon costs while it waits, how fast it takes in many files, and whether it loses any.

    python benchmarks/daemon.py [FILES]

The worker is a stand-in that copies instead of coloring, so that only the daemon is measured: no
model and no GPU is needed. Printed: seconds from a burst of files to the last result, whether each
has exactly one, the memory at the end, the time from a settled file to work on it, and the share of
a processor that the daemon takes while it waits, with all those files in its inbox.
"""

from __future__ import annotations

import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from colordaemon.service.job import State
from colordaemon.service.records import Records

SETTLE_SECONDS, IDLE_SECONDS, SINGLE_FILES = 1.0, 30.0, 10
COPYING_DAEMON = Path(__file__).with_name("copying_daemon.py")


def main(count: int) -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {count} files")
    with tempfile.TemporaryDirectory(prefix="colordaemon-bench-") as name:
        root = Path(name)
        inbox = root / "in"
        inbox.mkdir()
        config = root / "config.yaml"
        config.write_text(
            "inbox: in\noutbox: out\nstate_dir: state\njobs: {free_mib: 0}\n"
            f"watch: {{settle_seconds: {SETTLE_SECONDS}}}\n"
        )
        with (root / "log").open("wb") as log:
            line = [sys.executable, str(COPYING_DAEMON), "watch", str(config)]
            daemon = subprocess.Popen(line, stderr=log)  # noqa: S603
        try:
            measure(daemon.pid, root, count)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)


def measure(pid: int, root: Path, count: int) -> None:
    inbox, outbox = root / "in", root / "out"
    wait_for(lambda: (root / "state" / "control.sock").exists())
    time.sleep(1.0)
    began = time.monotonic()
    for number in range(count):
        folder = inbox / f"{number % 100:02}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    dropped = time.monotonic() - began
    wait_for(lambda: done(root) >= count, 3600.0)
    took = time.monotonic() - began
    results = [path for path in outbox.rglob("*") if path.is_file()]
    right = sum(path.read_bytes() == b"%d" % int(path.stem) for path in results)
    print(f"dropped in {dropped:.1f} s, all done after {took:.1f} s ({count / took:.0f} a second)")
    print(f"results: {len(results)}, right: {right}, lost: {count - right}, twice: "
          f"{len(results) - right}")  # fmt: skip
    print(f"memory of the daemon: {memory_mib(pid)} MiB")
    delays = [delay_of_one(inbox, outbox, number) for number in range(SINGLE_FILES)]
    print(f"from settled to done, one file: median {1000 * statistics.median(delays):.0f} ms, "
          f"longest {1000 * max(delays):.0f} ms")  # fmt: skip
    before = processor_seconds(pid)
    time.sleep(IDLE_SECONDS)
    share = (processor_seconds(pid) - before) / IDLE_SECONDS
    print(f"idle: {share:.2%} of a processor")
    before = processor_seconds(pid)
    os.kill(pid, signal.SIGHUP)
    time.sleep(5.0)
    print(f"one look at the whole inbox: {processor_seconds(pid) - before:.2f} s of a processor")


def delay_of_one(inbox: Path, outbox: Path, number: int) -> float:
    """Seconds from when a file has settled to when its result is there."""
    began = time.monotonic()
    (inbox / f"single-{number}.png").write_bytes(b"one")
    result = outbox / f"single-{number}.png"
    wait_for(result.exists)
    return time.monotonic() - began - SETTLE_SECONDS


def wait_for(condition: object, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > until:
            raise SystemExit("waited in vain")
        time.sleep(0.005 if seconds <= 60 else 0.5)


def done(root: Path) -> int:
    with Records(root / "state" / "journal.sqlite3") as journal:
        return journal.counts()[State.DONE]


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
