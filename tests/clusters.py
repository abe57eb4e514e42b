"""A cluster of several nodes on this machine: processes of Ray, each of which may be killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from colordaemon.cluster.node import PORTS, new_token, node_command
from colordaemon.config import ClusterSettings

HEAD = "127.0.0.2"  # Ray takes 127.0.0.1 for another address of this machine
PATIENCE = 120.0
# Dead nodes are noticed after some 8 seconds in place of 18; sooner, and a busy machine looks dead.
_QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "6",
    "RAY_enable_infeasible_task_early_exit": "0",
    "OMP_NUM_THREADS": "1",
}


class LocalCluster:
    """A head that does not color, and nodes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cd"))  # short: it is in paths of sockets
        self.token_file = self.folder / "token"
        new_token(self.token_file)
        self._port = _free_port()
        self._next_port, self._next_host = self._port + 1, 3
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.begin()

    def begin(self) -> None:
        """Start the head, again if it was killed."""
        self.head = self._start(HEAD, head=True)
        until = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError):
                socket.create_connection((HEAD, self._port), 1.0).close()
                break
            assert time.monotonic() < until and self.head.poll() is None, self.said()
            time.sleep(0.1)

    def settings(self, **more: object) -> ClusterSettings:
        base = {
            "address": f"{HEAD}:{self._port}",
            "token_file": self.token_file,
            "node_address": HEAD,
            "device": "cpu",
            "cpus": 1,
            "memory_mib": 1200,
            "node_seconds": 10.0,
            "stretch_seconds": 2.0,
        }
        return ClusterSettings.model_validate(base | more)

    def add(self, cpus: int = 1, **environment: str) -> str:
        """Start a node; returns its address."""
        host = f"127.0.0.{self._next_host}"
        self._next_host += 1
        node = self._start(host, cpus=cpus, environment=environment)
        self.nodes.append(node)
        # One after the other: two that start at once on one machine choose the same sockets.
        until, log = time.monotonic() + PATIENCE, self.folder / f"{host}.log"
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < until and node.poll() is None, self.said()
            time.sleep(0.1)
        return host

    def kill(self, number: int = 0) -> None:
        """One of the nodes, with all its processes, as if its plug were pulled."""
        node = self.nodes.pop(number)
        _kill_session(node)

    def kill_all(self) -> None:
        """As if the plug of the whole rack were pulled."""
        for node in (*self.nodes, self.head):
            _kill_session(node)
        self.nodes = []

    def close(self) -> None:
        for node in (*self.nodes, self.head):
            _kill_session(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Of processes that work with the cluster."""
        found = os.environ | _QUICK
        return found | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def _start(
        self, host: str, *, head: bool = False, cpus: int = 0, environment: Mapping[str, str] = {}
    ) -> subprocess.Popen[bytes]:
        settings = self.settings(node_address=host)
        os.environ.pop("RUNTIME_DIRECTORY", None)
        line, more = node_command(settings, head=head, first_port=self._next_port)
        self._next_port += PORTS
        line += [f"--num-cpus={cpus}", "--num-gpus=0"]
        line += [f"--temp-dir={self.folder / 'ray'}"] if head else []
        found = self.environment() | more
        with (self.folder / f"{host}.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603
                line, stdout=log, stderr=log, env=found | dict(environment), start_new_session=True
            )


def _kill_session(node: subprocess.Popen[bytes]) -> None:
    """A node and all its processes; workers have groups of their own."""
    for pid in descendants(node.pid):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def descendants(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def _free_port() -> int:
    """The first of a thousand that nobody seems to use, below those that Linux gives out."""
    for port in range(11000 + os.getpid() % 50 * 400, 32000, 400):
        with suppress(OSError), socket.socket() as found:
            found.bind((HEAD, port))
            return port
    raise AssertionError("no free port")
