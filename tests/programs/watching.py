"""`colordaemon watch` with another worker; when a file is called hang, it says
hangs, and hangs until that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import cast

from colordaemon.clock import Monotonic
from colordaemon.config_file import load_config
from colordaemon.convert.routing import Routing
from colordaemon.inbox.stability import Signature
from colordaemon.inbox.watcher import Watch
from colordaemon.logs import set_up_logging
from colordaemon.service.daemon import watch_forever
from colordaemon.service.supervisor import WorkerProcess


def main(config: Path, work: Callable[[], None]) -> None:
    """work: the main function of the worker."""
    set_up_logging()
    turn = Watch.turn

    def hanging(self: Watch, now: Monotonic) -> dict[Path, Signature]:
        hang, hangs = self.inbox / "hang", self.inbox / "hangs"
        if hang.exists():
            hang.rename(hangs)
        while hangs.exists():
            time.sleep(0.01)
        return turn(self, now)

    Watch.turn = hanging  # type: ignore[method-assign]
    watch_forever(lambda: load_config(config), lambda routing, _: ForkedWorker(routing, work))


class ForkedWorker(WorkerProcess):
    """A worker that begins at once: a fork, which has loaded all that its parent has."""

    def __init__(self, routing: Routing, work: Callable[[], None]) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = cast("subprocess.Popen[bytes]", Fork(work, theirs.fileno()))
        self._connection.send(routing)


class Fork:
    """A child that has inherited one descriptor and hears no signals yet, as after Popen."""

    def __init__(self, work: Callable[[], None], descriptor: int) -> None:
        self.returncode: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            _work(work, descriptor, parent)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        until = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("fork", seconds)
            time.sleep(0.01)
        return code


def _work(work: Callable[[], None], descriptor: int, parent: int) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGIO):
            signal.signal(number, signal.SIG_DFL)
        # Locks, the journal and sockets are the daemon's: a worker must not keep them open.
        os.closerange(3, descriptor)
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        sys.argv = ["worker", str(descriptor), str(parent)]
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)
