"""Operator commands, sent to a running daemon over a unix socket in its state folder, or carried
out on the journal if no daemon runs.

A request is a line of JSON, and so is the reply.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import sqlite3
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from grp import getgrgid
from pathlib import Path

from colordaemon.clock import Clock, Monotonic, UnixTime
from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import find_folders, locked_state
from colordaemon.service.job import ENDS, State
from colordaemon.service.journal import Journal
from colordaemon.service.records import Records
from colordaemon.service.status import Reply, queue, status

_LONGEST = 1 << 20  # bytes of a request
_MOST_CALLERS = 32  # callers at once
_CALL_SECONDS = 10.0  # that a caller has to send its request, and again to read the reply
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: process, user, group
BATCH = 1000  # jobs in one turn; updating them takes 20 ms
_RETRIED = "retried up to"  # a fact in the journal: how far a `retry` of all jobs has come
MOST_JOBS = 10_000  # jobs in one request: looking them up takes half a second
_FITTING = {  # states of jobs that each verb does something for
    "cancel": (State.QUEUED, State.RUNNING),
    "first": (State.QUEUED,),
    "forget": ENDS,
    "retry": (State.QUEUED, *ENDS),
}
_READ_ONLY = {"status": status, "queue": queue}
log = logging.getLogger(__name__)


class NoAnswer(Exception):
    """A daemon is running, but it cannot be reached or does not answer."""


@dataclass
class _Caller:
    """An open connection. until: when it is closed, by time.monotonic()."""

    user: int
    until: float
    heard: bytearray = field(default_factory=bytearray)
    reply: memoryview = field(default_factory=lambda: memoryview(b""))


class Control:
    """Serves the control socket from the daemon's main loop, without blocking it.

    Every user who may drop files may connect, so nothing that a caller sends or fails to send may
    end or block the daemon. answer: makes the reply to a request; may raise BadRequest.
    """

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        answer: Callable[[Reply], Reply],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._selector, self._answer, self._clock = path, selector, answer, clock
        self._callers: dict[socket.socket, _Caller] = {}
        try:  # left by a daemon that was killed; the lock shows that none runs
            path.unlink(missing_ok=True)
        except IsADirectoryError:
            raise ConfigError(f"{path}: found a folder, expected a socket; move it away") from None
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(path) as short:
            self._server.bind(short)
        path.chmod(0o660)  # the group may connect
        self._server.listen()
        self._server.setblocking(False)
        selector.register(self._server, selectors.EVENT_READ, self._accept)

    def turn(self, now: Monotonic) -> None:
        """Close connections that have timed out."""
        for connection in [each for each, caller in self._callers.items() if caller.until <= now]:
            self._drop(connection)

    def close(self) -> None:
        for connection in [*self._callers]:
            self._drop(connection)
        self._selector.unregister(self._server)
        self._server.close()
        with suppress(OSError):  # the disk may be read-only by now; the next start removes it
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        if len(self._callers) >= _MOST_CALLERS:
            self._drop(self._caller_to_drop())
        connection.setblocking(False)
        _, user, _ = _peer(connection)
        self._callers[connection] = _Caller(user, self._clock() + _CALL_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(connection))

    def _caller_to_drop(self) -> socket.socket:
        """The oldest connection of the user who has most of them: no user can shut out the
        others."""
        ((user, _),) = Counter(caller.user for caller in self._callers.values()).most_common(1)
        return next(each for each, caller in self._callers.items() if caller.user == user)

    def _read(self, connection: socket.socket) -> None:
        if (caller := self._callers.get(connection)) is None:
            return  # closed since it was found to be readable
        try:
            data = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        caller.heard += data
        if b"\n" in caller.heard:
            self._reply(connection, caller, self._answer_to(bytes(caller.heard)))
        elif len(caller.heard) > _LONGEST:
            said = {"error": f"expected a line of at most {_LONGEST} bytes"}
            self._reply(connection, caller, said)
        elif not data:
            self._drop(connection)

    def _answer_to(self, line: bytes) -> Reply:
        """The reply to a line, whatever it holds."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "expected a line of JSON"}
        if not isinstance(request, dict):
            return {"error": "expected an object"}
        try:
            return self._answer(request)
        except BadRequest as error:
            return {"error": str(error)}
        except sqlite3.Error as error:  # a full disk, for instance: the main loop notices it too
            return {"error": f"the journal: {error}"}
        except Exception as error:
            log.exception("unexpected error in a request")
            return {"error": f"unexpected: {error!r}"}

    def _reply(self, connection: socket.socket, caller: _Caller, reply: Reply) -> None:
        caller.reply = memoryview(json.dumps(reply).encode() + b"\n")
        caller.until = self._clock() + _CALL_SECONDS
        self._selector.modify(connection, selectors.EVENT_WRITE, lambda: self._write(connection))
        self._write(connection)

    def _write(self, connection: socket.socket) -> None:
        """Send as much of the reply as the caller takes now; the rest follows later."""
        if (caller := self._callers.get(connection)) is None:
            return
        try:
            sent = connection.send(caller.reply)
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("a caller has hung up: %s", error)
            sent = len(caller.reply)
        caller.reply = caller.reply[sent:]
        if not caller.reply:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._callers.pop(connection)
        self._selector.unregister(connection)
        connection.close()


def ask(path: Path, request: Reply, seconds: float = 10.0) -> Reply | None:
    """Send a request to a running daemon and return its reply; None if no daemon runs.

    Raises BadRequest, and NoAnswer if a daemon runs and does not answer.
    """
    who = "the daemon"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller, _short(path) as short:
        caller.settimeout(seconds)
        try:
            caller.connect(short)
            process, _, _ = _peer(caller)
            who = f"the daemon (process {process})"
            caller.sendall(json.dumps(request).encode() + b"\n")
            with caller.makefile("rb") as file:
                line = file.readline()
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except PermissionError:
            raise NoAnswer(f"not allowed to ask the daemon through {path}{_group(path)}") from None
        except TimeoutError:
            raise NoAnswer(f"{who} does not answer within {seconds:g} s") from None
        except OSError as error:
            raise NoAnswer(f"{who} cannot be asked through {path}: {error.strerror}") from None
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise NoAnswer(f"{who} has hung up without an answer")
    if "error" in reply:
        raise BadRequest(reply["error"])
    return reply


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end of a connection."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, group = _CREDENTIALS.unpack(found)
    return process, user, group


def _group(path: Path) -> str:
    """The group that may connect, if it is known."""
    try:
        return f": you are not in the group {getgrgid(path.stat().st_gid).gr_name}"
    except (OSError, KeyError):
        return ""


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Another path of the same socket that is always short enough: the kernel takes 107 bytes."""
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        yield str(path)
        return
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class BadRequest(Exception):
    """A request that is not understood, or names a job that does not exist."""


class Commands:
    """Carries out the verbs on the journal, in the daemon or without one.

    cancel_running: stops a running job; False if it is not running.
    """

    def __init__(
        self,
        journal: Journal,
        wall: Callable[[], UnixTime],
        *,
        cancel_running: Callable[[int], bool] = lambda number: False,
    ) -> None:
        self._journal, self._wall, self._cancel_running = journal, wall, cancel_running

    def run(self, request: Reply) -> Reply:
        """Raises BadRequest."""
        if unknown := sorted({*request} - {"verb", "jobs"}):
            raise BadRequest(f"expected verb and jobs, found {_shown(', '.join(unknown))} too")
        verb, which = request.get("verb"), request.get("jobs", [])
        if verb == "status":
            return status(self._journal)
        if verb == "queue":
            return queue(self._journal)
        if verb in ("pause", "resume"):
            self._journal.note("paused", "yes" if verb == "pause" else "")
            return {"paused": verb == "pause"}
        actions = {
            "retry": self._retry,
            "forget": self._journal.forget,
            "first": self._journal.put_first,
            "cancel": self._cancel,
        }
        if not isinstance(verb, str) or verb not in actions:
            raise BadRequest(f"unknown verb {_shown(repr(verb))}")
        ids = self._ids(which)
        unfit = self._unfit(verb, ids)
        return {"count": actions[verb](ids)} | ({"why": unfit} if unfit else {})

    def turn(self) -> None:
        """Go on with a `retry` of all failed jobs, a batch at a time."""
        if behind := self._journal.fact(_RETRIED):
            ids = self._journal.ids(State.FAILED, behind=int(behind), limit=BATCH)
            self._journal.retry(self._wall(), ids)
            self._journal.note(_RETRIED, str(ids[-1]) if len(ids) == BATCH else "")

    @property
    def is_busy(self) -> bool:
        """Whether such a `retry` is not finished; a restarted daemon goes on with it."""
        return self._journal.fact(_RETRIED) != ""

    def _retry(self, ids: Sequence[int]) -> int:
        """Retry these jobs, or without any all that failed. A job that is done is colored again if
        its source is still there."""
        if ids:
            jobs = (self._journal.job(number) for number in ids)
            ids = [job.id for job in jobs if job.state is not State.DONE or _is_there(job.source)]
            return self._journal.retry(self._wall(), ids)
        count = self._journal.counts()[State.FAILED]
        self._journal.note(_RETRIED, "0")
        self.turn()
        return count

    def _cancel(self, ids: Sequence[int]) -> int:
        running = sum(self._cancel_running(number) for number in ids)
        return running + self._journal.cancel(ids, self._wall())

    def _unfit(self, verb: str, ids: Sequence[int]) -> str:
        """Of the first job that this verb does nothing for: why, for people."""
        for job in map(self._journal.job, ids):
            if job.state not in _FITTING[verb]:
                expected = " or ".join(_FITTING[verb])
                return f"job {job.id} is {job.state}, and `{verb}` is for jobs that are {expected}"
            if verb == "retry" and job.state is State.DONE and not _is_there(job.source):
                return f"job {job.id} is done, and its source is no longer there"
        return ""

    def _ids(self, which: object) -> list[int]:
        """Job numbers; a path stands for the latest job of that file."""
        if not isinstance(which, list):
            raise BadRequest(f"jobs: expected a list, found {_shown(which)}")
        if len(which) > MOST_JOBS:
            raise BadRequest(
                f"jobs: found {len(which)}, expected at most {MOST_JOBS} in one request"
            )
        return [self._id(one) for one in which]

    def _id(self, one: object) -> int:
        if isinstance(one, bool) or not isinstance(one, int | str):
            raise BadRequest(f"jobs: expected numbers and paths, found {_shown(one)}")
        try:
            if isinstance(one, int) or one.isdecimal():
                return self._journal.job(int(one)).id
            # Not resolved here: a caller may name any path, also one on a disk that hangs. Our own
            # commands resolve theirs before they ask.
            return self._journal.of_source(Path(os.path.abspath(one)))[0].id  # noqa: PTH100
        except (KeyError, OverflowError):
            raise BadRequest(f"no job {_shown(one)}") from None
        except (IndexError, ValueError):  # ValueError: no file can have this name
            raise BadRequest(f"no job for {_shown(one)}") from None


def _is_there(source: Path) -> bool:
    return os.path.lexists(source)


def _shown(value: object) -> str:
    """A value from a request, shortened for the reply."""
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def run_command(config: Config, request: Reply) -> Reply:
    """Send a request to the daemon, or carry it out here if none runs.

    Raises BadRequest, NoAnswer, and ConfigError if there is neither a daemon nor a journal.
    """
    folders = find_folders(config)[0]  # control and journal are the same for all inboxes
    if (reply := ask(folders.control, request)) is not None:
        return reply
    if not folders.journal.exists():
        raise ConfigError(
            f"state_dir: there is no journal in {folders.state} yet; `colordaemon watch` begins it"
        )
    if request["verb"] in _READ_ONLY:
        with Records(folders.journal) as records:
            return _READ_ONLY[request["verb"]](records) | {"daemon": None}
    with locked_state(folders.state), Journal(folders.journal) as journal:
        commands = Commands(journal, Clock().time)
        reply = commands.run(request)
        while commands.is_busy:
            commands.turn()
        return reply
