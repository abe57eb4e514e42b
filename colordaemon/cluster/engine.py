"""Ray as we use it: one cluster, its nodes, and actors that stream what they have to say.

All that knows Ray is here, and Ray is imported when a cluster is connected to. What Ray would do by
itself is switched off: no restarts and no retries of actors (the journal has those), no placement
(each actor is made for a certain node, so that none waits in silence for a GPU that nobody has).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colordaemon.errors import ColordaemonError, ConfigError

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 3.0
_ASK_SECONDS = 10.0
# In place of its defaults: no reports to its makers, the children of an actor end with it, what
# colors is as important as anything else there (by default it waits for all other programs), and a
# node that is told to stop does not go on for 30 seconds, in which its actors would get more work.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_process_group_cleanup_enabled": "1",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # after we have left a cluster, no call begins another one
}


class Unreachable(ColordaemonError):
    """An actor does not answer; it may have done what it was asked for, and may be back later."""


class Gone(ColordaemonError):
    """An actor has ended."""


class NoHead(ColordaemonError):
    """The head of the cluster does not answer."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster. resources: what Ray knows of it, as "CPU" and "GPU"."""

    number: str
    name: str
    resources: Mapping[str, float]


def environment(token_file: Path | None) -> dict[str, str]:
    """What processes of Ray have to have in their environment. Raises ConfigError without a token:
    then anybody who reaches the ports could run programs here."""
    if token_file is None:
        raise ConfigError(
            "cluster.token_file: found none, expected a file with a secret that all machines have;"
            " `colordaemon node --new-token FILE` makes one"
        )
    try:
        token = token_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cluster.token_file: {token_file} cannot be read: {error}") from None
    if len(token) < 32:
        raise ConfigError(
            f"cluster.token_file: {token_file}: found {len(token)} letters, expected at least 32"
        )
    return _ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": str(token_file)}


def connect(address: str, token_file: Path | None, node_address: str | None) -> None:
    """Connect this process, which can do so once at a time.

    address: HOST:PORT of the head. node_address: of this machine, as its own node was started with.
    Raises ConfigError for a wrong token or without Ray, NoHead.
    """
    check_token(address, token_file)
    import ray
    from ray._private import worker
    from ray.exceptions import RaySystemError

    worker.print_to_stdstream = _log
    with _signals_kept():
        try:
            ray.init(
                address=address,
                _node_ip_address=node_address,
                namespace="colordaemon",
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, RaySystemError) as error:
            raise NoHead(f"{address}: {error}") from None


def check_token(address: str, token_file: Path | None) -> None:
    """See whether the head takes our token: by itself Ray tries a wrong one or a dead head again
    and again, for minutes. Raises ConfigError, also without Ray, and NoHead."""
    os.environ |= environment(token_file)
    try:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.exceptions import AuthenticationError
    except ImportError as error:
        raise ConfigError(
            f"cluster.address: {error}; `pip install colordaemon[cluster]` installs what is needed"
        ) from None
    _knock(address)
    try:
        GcsClient(address=address)
    except AuthenticationError:
        raise ConfigError(
            f"cluster.token_file: {address} does not take the token of {token_file}; expected the"
            " same file on all machines"
        ) from None
    except Exception as error:
        raise NoHead(f"{address} does not answer: {error}") from None


def is_there(address: str) -> bool:
    """Whether the head takes connections."""
    try:
        _knock(address)
    except NoHead:
        return False
    return True


def disconnect() -> None:
    """Leave the cluster; all actors that this process has made end."""
    import ray

    with _signals_kept():
        ray.shutdown()


def nodes() -> list[Node]:
    """Those that are alive. Raises Unreachable."""
    import ray

    with _kinds_of_errors():
        found = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(
            node["NodeID"],
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            node["Resources"],
        )
        for node in found
        if node["Alive"]
    ]


class Actor:
    """An object in a process of its own on a certain node."""

    def __init__(
        self, body: type, node: Node, *, gpus: float, cpus: int, memory_bytes: int, given: Any
    ) -> None:
        """body: its class. gpus: a share of one, or 0. given: to its constructor. Returns at once;
        the process needs some seconds to start."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.node = node
        self._handle: Any = (
            ray.remote(body)
            .options(
                num_gpus=gpus,
                num_cpus=cpus,
                memory=memory_bytes,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=3,  # it can be asked, and told to stop, while it works
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.number, soft=False),
            )
            .remote(given)
        )

    def ask(self, method: str, *given: Any) -> Answer:
        """Call a method; returns at once. Raises Unreachable."""
        with _kinds_of_errors():
            return Answer(getattr(self._handle, method).remote(*given))

    def stream(self, method: str, *given: Any) -> Stream:
        """Call a method that yields; returns at once. Raises Unreachable."""
        call = getattr(self._handle, method).options(num_returns="streaming")
        with _kinds_of_errors():
            return Stream(call.remote(*given))

    def kill(self) -> None:
        import ray

        with suppress(Exception):  # dead already, or the cluster is
            ray.kill(self._handle)


class Answer:
    """What a call of an actor returns, later."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    @property
    def is_there(self) -> bool:
        """Also if the call has failed; never once we have left the cluster."""
        import ray

        with suppress(Unreachable), _kinds_of_errors():
            return bool(ray.wait([self._reference], timeout=0)[0])
        return False

    def get(self, seconds: float = _ASK_SECONDS) -> Any:
        """Raises Gone, Unreachable, and what the method raises."""
        return _got(self._reference, seconds)


class Stream:
    """What a call of an actor yields."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def next(self, seconds: float) -> Any:
        """The next value, None if there is none yet. Raises Gone, Unreachable, and what the method
        raises."""
        import ray

        with _kinds_of_errors():
            if not ray.wait([self._generator], timeout=seconds, fetch_local=False)[0]:
                return None
            try:
                reference = next(self._generator)
            except StopIteration:
                raise Gone("ended in the middle of its work") from None
        return _got(reference, _ASK_SECONDS)


def _got(reference: Any, seconds: float) -> Any:
    import ray

    with _kinds_of_errors():
        return ray.get(reference, timeout=seconds)


@contextmanager
def _kinds_of_errors() -> Iterator[None]:
    """Raises Gone or Unreachable for what Ray raises: the latter also once another thread of this
    process has left the cluster."""
    from ray import exceptions

    try:
        yield
    except (exceptions.ActorUnavailableError, exceptions.GetTimeoutError) as error:
        raise Unreachable(_first_line(error)) from None
    except (exceptions.RayActorError, exceptions.ActorUnschedulableError) as error:
        raise Gone(_cause(error)) from None
    except exceptions.RayTaskError:  # what a method has raised itself
        raise
    except exceptions.RayError as error:
        raise Unreachable(_first_line(error)) from None


def _log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    """What Ray has to say of dead workers and nodes, in place of printing it to standard output."""
    del ignore_prefix
    log.debug("Ray: %s", " ".join(data["lines"]))


def _cause(error: Exception) -> str:
    """The part of Ray's long message that says why."""
    text = str(error)
    for sign in ("Worker exit detail:", "The actor is dead because", "died because"):
        if sign in text:
            return text.partition(sign)[2].strip().partition(". ")[0].split("\n")[0]
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise NoHead(f"{address} does not answer: {error.strerror or error}") from None


class _signals_kept:  # noqa: N801  (a context manager that reads like a function)
    """Keep how this process takes signals: Ray would have SIGTERM end it."""

    _NUMBERS: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> None:
        self._is_main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.getsignal(number) for number in self._NUMBERS}

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            for number, handler in self._before.items():
                signal.signal(number, handler)
