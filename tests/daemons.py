"""A real daemon in a process of its own, and what tests do to it."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import Process
from programs import tampered_worker, watching

from colordaemon.service.control import ask
from colordaemon.service.job import Job, State
from colordaemon.service.records import JournalVersion, Records

PATIENCE = 200.0  # seconds, on a machine that is busy with something else; only failures take them
CONFIG = """
{folders}
state_dir: state
model: {{file: {model}, device: cpu, precision: fp32}}
film:
  {{segment_seconds: 2, smoothing: off, stride: 1, encoder_options: {{qp: 0, preset: ultrafast}}}}
watch: {{settle_seconds: 0.3, poll_seconds: 0.3}}
jobs: {{free_mib: 0, drain_seconds: 0, retry_seconds: 0.5}}
{more}
"""


class Daemon:
    """Its folders, and one process after the other that works in them."""

    def __init__(
        self,
        root: Path,
        model: Path,
        more: str = "",
        frame_seconds: float = 0.0,
        folders: str = "inbox: in\noutbox: out",
        work: Callable[[], None] = tampered_worker.main,
    ) -> None:
        self.root, self.inbox, self.outbox = root, root / "in", root / "out"
        self.inbox.mkdir(parents=True)
        self.config = root / "config.yaml"
        self.config.write_text(CONFIG.format(model=model, more=more, folders=folders))
        self._work = work
        self.log = root / "log"
        self.log.touch()
        self.segments = root / "segments"
        self._frame_seconds = frame_seconds
        self._process: Process | subprocess.Popen[bytes] | None = None
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._address = f"colordaemon-{os.getpid()}-{id(self)}"
        self.systemd.bind(f"\0{self._address}")
        self.systemd.setblocking(False)
        self.told: list[str] = []

    def start(self, **environment: str) -> None:
        more = {
            "SEGMENTS": str(self.segments),
            "FRAME_SECONDS": str(self._frame_seconds),
            "NOTIFY_SOCKET": f"@{self._address}",
        }
        environment = os.environ | more | environment
        self._process = Process(
            watching.main, self.config, self._work, stderr=self.log, environment=environment
        )

    def start_untampered(self) -> None:
        """As its users start it: the program itself, which begins from nothing."""
        line = [sys.executable, "-m", "colordaemon", "watch", "--config", str(self.config)]
        with self.log.open("ab") as log:
            environment = os.environ | {"NOTIFY_SOCKET": f"@{self._address}"}
            self._process = subprocess.Popen(  # noqa: S603
                line, stderr=log, env=environment, start_new_session=True
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def worker_pid(self) -> int:
        return self.worker_pids[0]

    @property
    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(child) for child in children]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float = PATIENCE) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(seconds)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.systemd.close()

    def hear(self) -> list[str]:
        """All that systemd has been told so far."""
        try:
            while True:
                self.told.append(self.systemd.recv(4096).decode())
        except BlockingIOError:
            return self.told

    def jobs(self, *states: State) -> list[Job]:
        path = self.root / "state" / "journal.sqlite3"
        try:
            with Records(path) as journal:
                return journal.jobs(*(states or State))
        except (sqlite3.OperationalError, JournalVersion):  # being made
            return []

    def ask(self, verb: str, **more: Any) -> dict[str, Any]:
        reply = ask(self.root / "state" / "control.sock", {"verb": verb, **more})
        assert reply is not None
        return reply

    def wait(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        until = time.monotonic() + seconds
        while not condition():
            self.hear()  # or its queue would fill up
            assert self._process is None or self._process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(0.02)

    def wait_for_ends(self, count: int, seconds: float = PATIENCE) -> None:
        ends = (State.DONE, State.FAILED, State.SKIPPED, State.CANCELLED)
        self.wait(lambda: len(self.jobs(*ends)) >= count, seconds)

    def wait_ready(self) -> None:
        self.wait(lambda: "READY=1" in self.hear())

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def results(self) -> list[str]:
        """Everything in the outbox, hidden or not."""
        return sorted(
            str(path.relative_to(self.outbox)) for path in self.outbox.rglob("*") if path.is_file()
        )

    def segments_begun(self, name: str = "") -> list[int]:
        """The numbers of segments of a film, or of all, in the order in which they were begun."""
        lines = self.segments.read_text().splitlines() if self.segments.exists() else []
        return [int(line.rpartition(" ")[2]) for line in lines if name in line]
