"""The daemon's ear: requests over a unix socket in its state folder, a line of JSON each way."""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colordaemon.service.commands import BadRequest, Reply

log = logging.getLogger(__name__)

_LONGEST = 1 << 20  # bytes of a request
_MOST = 32  # callers at once
_REPLY_SECONDS = 2.0  # for a caller that does not read


class Control:
    """Serves callers from within the daemon's own loop: nobody is waited for.

    answer: what to say to a request; may raise BadRequest.
    """

    def __init__(
        self, path: Path, selector: selectors.BaseSelector, answer: Callable[[Reply], Reply]
    ) -> None:
        self._path, self._selector, self._answer = path, selector, answer
        self._callers: dict[socket.socket, bytearray] = {}
        path.unlink(missing_ok=True)  # of a daemon that was killed; the lock says there is no other
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(path) as short:
            self._server.bind(short)
        path.chmod(0o660)  # the group may ask
        self._server.listen()
        self._server.setblocking(False)
        selector.register(self._server, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        for caller in [*self._callers]:
            self._drop(caller)
        self._selector.unregister(self._server)
        self._server.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            caller, _ = self._server.accept()
        except OSError:
            return
        if len(self._callers) >= _MOST:
            self._drop(next(iter(self._callers)))
        caller.setblocking(False)
        self._callers[caller] = bytearray()
        self._selector.register(caller, selectors.EVENT_READ, lambda: self._read(caller))

    def _read(self, caller: socket.socket) -> None:
        try:
            data = caller.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        heard = self._callers[caller]
        heard += data
        if b"\n" in heard:
            self._reply(caller, bytes(heard))
        if not data or b"\n" in heard or len(heard) > _LONGEST:
            self._drop(caller)

    def _reply(self, caller: socket.socket, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise BadRequest("expected an object")
            reply = self._answer(request)
        except (BadRequest, ValueError) as error:
            reply = {"error": str(error)}
        caller.settimeout(_REPLY_SECONDS)
        try:
            caller.sendall(json.dumps(reply).encode() + b"\n")
        except OSError as error:
            log.debug("a caller has hung up: %s", error)

    def _drop(self, caller: socket.socket) -> None:
        self._callers.pop(caller)
        self._selector.unregister(caller)
        caller.close()


def ask(path: Path, request: Reply, seconds: float = 10.0) -> Reply | None:
    """What a running daemon says to a request; None if there is no daemon. Raises BadRequest."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller, _short(path) as short:
        caller.settimeout(seconds)
        try:
            caller.connect(short)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        caller.sendall(json.dumps(request).encode() + b"\n")
        with caller.makefile("rb") as file:
            reply: dict[str, Any] = json.loads(file.readline())
    if "error" in reply:
        raise BadRequest(reply["error"])
    return reply


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
