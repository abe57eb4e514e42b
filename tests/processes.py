"""Real processes that begin at once: forks of one that has loaded torch and colordaemon already.

A fresh interpreter takes two to three seconds of a processor to get that far, and tests start more
than a hundred. A fork differs in nothing that they ask about: it has a number, an environment, and
streams of its own, obeys signals, and ends with a status. That the program starts from nothing as
well is for a few tests to say, those that start `python -m colordaemon`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path

from colordaemon.cli import main as colordaemon

# Not forks of the tests: a fork beside the threads of torch and libvips now and then waits for ever
# for a lock that one of those held. The server that forks instead has imported, and done nothing.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "hypothesis",
        "pytest",
        "colordaemon.cli",
        "colordaemon.convert.once",
        "colordaemon.evaluation.command",
        "colordaemon.pictures.survey",
        "colordaemon.service.daemon",
        "colordaemon.service.worker",
        "colordaemon.training.train",
    ]
)


class Process:
    """What tests need of subprocess.Popen, for a function in place of a program."""

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: object,
        words: tuple[object, ...] = (),
        stdout: Path | None = None,
        stderr: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """words: of its command line; stdout, stderr: files that its output is added to."""
        streams = {1: stdout or Path(os.devnull), 2: stderr or Path(os.devnull)}
        environment = dict(os.environ if environment is None else environment)
        whole = (function, arguments, [str(word) for word in words], streams, environment)
        self._process = FORKS.Process(target=_run, args=whole)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        self._process.join(seconds)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("a fork", seconds or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    *words: object, program: Callable[[], object] = colordaemon, seconds: float = 100.0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with these words on its command line."""
    with tempfile.TemporaryDirectory() as name:
        stdout, stderr = Path(name, "stdout"), Path(name, "stderr")
        process = Process(program, words=words, stdout=stdout, stderr=stderr)
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        said = (path.read_text(errors="backslashreplace") for path in (stdout, stderr))
        return subprocess.CompletedProcess([*map(str, words)], code, *said)


def _run(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    words: list[str],
    streams: dict[int, Path],
    environment: dict[str, str],
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for number, path in streams.items():
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["colordaemon", *words]
    function(*arguments)
