"""Starts what makes a machine a part of a cluster: Ray's own processes, in place of this one."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from colordaemon.cluster.engine import NoHead, check_token, environment
from colordaemon.config import ClusterSettings
from colordaemon.errors import ConfigError

log = logging.getLogger(__name__)

PORTS = 200  # that a node takes, from its first one on
_OWN_PORTS = 4  # of these, for its services; the others are for its workers
_STORE_BYTES = 100 << 20  # shared memory: only messages pass through it, no pictures


def new_token(path: Path) -> None:
    """Write a file with a new secret, for its owner only. Raises FileExistsError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(path, flags, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(f"{secrets.token_hex(32)}\n")


def node_command(
    settings: ClusterSettings, *, head: bool, works: bool = True, first_port: int | None = None
) -> tuple[list[str], dict[str, str]]:
    """What to run, and what to add to its environment.

    head: begin a cluster, in place of joining one. works: whether it colors. first_port: of PORTS;
    None: the one after the head's. Raises ConfigError.
    """
    if settings.address is None:
        raise ConfigError("cluster.address: found null, expected HOST:PORT of the cluster's head")
    more = environment(settings.token_file)
    if find_spec("ray") is None:
        raise ConfigError(
            "cluster.address: Ray is missing; `pip install colordaemon[cluster]` installs it"
        )
    host, _, port = settings.address.rpartition(":")
    line = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    line += ["--disable-usage-stats", f"--object-store-memory={_STORE_BYTES}"]
    if head:
        line += ["--head", f"--port={port}", "--include-dashboard=false"]
        line += [f"--node-ip-address={settings.node_address or host}"]
        # Short, since paths of sockets have 107 letters at most; the others take the head's.
        if folder := os.environ.get("RUNTIME_DIRECTORY"):
            line += [f"--temp-dir={folder}"]
    else:
        line += [f"--address={settings.address}"]
        line += [f"--node-ip-address={settings.node_address}"] if settings.node_address else []
    names = ("node-manager", "object-manager", "runtime-env-agent", "dashboard-agent-grpc")
    first = _first(settings.address, first_port)
    line += [f"--{name}-port={first + number}" for number, name in enumerate(names)]
    line += [f"--min-worker-port={first + _OWN_PORTS}", f"--max-worker-port={first + PORTS - 1}"]
    line += [] if works else ["--num-cpus=0", "--num-gpus=0"]
    return line, more


def run_node(
    settings: ClusterSettings, *, head: bool, works: bool = True, first_port: int | None = None
) -> None:
    """Never returns: this process becomes Ray's. Raises ConfigError, also for a token that the head
    does not take, and OSError for ports that are not free: Ray would say neither clearly."""
    line, more = node_command(settings, head=head, works=works, first_port=first_port)
    assert settings.address is not None
    host, _, port = settings.address.rpartition(":")
    first = _first(settings.address, first_port)
    ports = [*([int(port)] if head else []), *range(first, first + _OWN_PORTS)]
    for each in ports:
        _check_free(settings.node_address or (host if head else ""), each)
    if not head:
        try:
            check_token(settings.address, settings.token_file)
        except NoHead as error:
            log.warning("waiting for the head of the cluster: %s", error)
    sys.stdout.flush()
    os.execve(line[0], line, os.environ | more)  # noqa: S606


def _first(address: str, first_port: int | None) -> int:
    return int(address.rpartition(":")[2]) + 1 if first_port is None else first_port


def _check_free(host: str, port: int) -> None:
    """host: empty for all addresses of this machine."""
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Ray's are
        try:
            found.bind((host, port))
        except OSError as error:
            text = f"{error.strerror}; expected a free port (is another node running here?)"
            raise OSError(error.errno, text, f"{host or 'port'}:{port}") from None
