"""The daemon's ear: requests over a unix socket in its state folder, a line of JSON each way."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from grp import getgrgid
from pathlib import Path

from colordaemon.errors import ConfigError
from colordaemon.service.commands import BadRequest, Reply

log = logging.getLogger(__name__)

_LONGEST = 1 << 20  # bytes of a request
_MOST = 32  # callers at once
_CALL_SECONDS = 10.0  # for a caller to say what it wants, and once more to read the reply
_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: process, user, group


class NoAnswer(Exception):
    """There is a daemon, or something in its place, that cannot be asked or says nothing."""


@dataclass
class _Caller:
    """Somebody who asks. until: when it is dropped, on a clock that never jumps."""

    user: int
    until: float
    heard: bytearray = field(default_factory=bytearray)
    reply: memoryview = field(default_factory=lambda: memoryview(b""))


class Control:
    """Serves callers from within the daemon's own loop: nobody is waited for.

    Whoever may drop files may ask, so nothing that a caller sends or leaves undone may end the
    daemon or hold it up. answer: what to say to a request; may raise BadRequest.
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
        try:  # it is of a daemon that was killed: the lock says there is no other
            path.unlink(missing_ok=True)
        except IsADirectoryError:
            raise ConfigError(f"{path}: found a folder, expected a socket; move it away") from None
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(path) as short:
            self._server.bind(short)
        path.chmod(0o660)  # the group may ask
        self._server.listen()
        self._server.setblocking(False)
        selector.register(self._server, selectors.EVENT_READ, self._accept)

    @property
    def next_due(self) -> float:
        """When the next caller has had its time."""
        return min((caller.until for caller in self._callers.values()), default=float("inf"))

    def turn(self, now: float) -> None:
        """Drop those who have had their time."""
        for connection in [each for each, caller in self._callers.items() if caller.until <= now]:
            self._drop(connection)

    def close(self) -> None:
        for connection in [*self._callers]:
            self._drop(connection)
        self._selector.unregister(self._server)
        self._server.close()
        with suppress(OSError):  # a disk that is read-only by now; the next start sees to it
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        if len(self._callers) >= _MOST:
            self._drop(self._least_missed())
        connection.setblocking(False)
        _, user, _ = _peer(connection)
        self._callers[connection] = _Caller(user, self._clock() + _CALL_SECONDS)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(connection))

    def _least_missed(self) -> socket.socket:
        """The first caller of whoever has most of them: nobody can shut out all others."""
        ((user, _),) = Counter(caller.user for caller in self._callers.values()).most_common(1)
        return next(each for each, caller in self._callers.items() if caller.user == user)

    def _read(self, connection: socket.socket) -> None:
        if (caller := self._callers.get(connection)) is None:
            return  # dropped since it was found to be readable
        try:
            data = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        caller.heard += data
        if b"\n" in caller.heard:
            self._reply(connection, caller, self._said_to(bytes(caller.heard)))
        elif len(caller.heard) > _LONGEST:
            said = {"error": f"expected a line of at most {_LONGEST} bytes"}
            self._reply(connection, caller, said)
        elif not data:
            self._drop(connection)

    def _said_to(self, line: bytes) -> Reply:
        """An answer to every line that there can be."""
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
        except sqlite3.Error as error:  # a full disk, for instance; the main loop will meet it too
            return {"error": f"the journal: {error}"}
        except Exception as error:
            log.exception("a request was answered with an error that nobody has foreseen")
            return {"error": f"unforeseen: {error!r}"}

    def _reply(self, connection: socket.socket, caller: _Caller, reply: Reply) -> None:
        caller.reply = memoryview(json.dumps(reply).encode() + b"\n")
        caller.until = self._clock() + _CALL_SECONDS
        self._selector.modify(connection, selectors.EVENT_WRITE, lambda: self._write(connection))
        self._write(connection)

    def _write(self, connection: socket.socket) -> None:
        """As much as the caller takes; the rest when it has read that."""
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
    """What a running daemon says to a request; None if there is no daemon.

    Raises BadRequest, and NoAnswer where there is one that does not answer.
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
    """Process, user and group at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, group = _CREDENTIALS.unpack(found)
    return process, user, group


def _group(path: Path) -> str:
    """Who may ask, as far as it can be seen."""
    try:
        return f": you are not in the group {getgrgid(path.stat().st_gid).gr_name}"
    except (OSError, KeyError):
        return ""


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The same socket under a path that is never too long: the system takes 107 bytes."""
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        yield str(path)
        return
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
