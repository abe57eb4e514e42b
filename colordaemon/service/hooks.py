"""Commands that are told of every file that came to an end.

They run beside the work, one at a time, without a shell, and are killed when they take too long.
The journal notes what has been announced only after they have ended: after a crash a file may be
announced twice, and never not at all.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from colordaemon.config import AfterSettings
from colordaemon.service.job import Job
from colordaemon.service.printable import printable

log = logging.getLogger(__name__)


def announcement(job: Job) -> dict[str, Any]:
    """What a hook reads, as JSON. Bytes of names that are no text are written as \\udcXX."""
    return {
        "version": 1,
        "id": job.id,
        "state": str(job.state),
        "code": job.code,
        "reason": job.reason,
        "source": os.fspath(job.source),
        "target": os.fspath(job.target) if job.target and job.state == "done" else None,
        "attempts": job.attempts,
        "time": job.changed,
        "inventory": json.loads(job.inventory),
    }


def commands_of(settings: AfterSettings) -> list[list[str]]:
    """What to run for each file: the operator's command, and ours that sends to a web address."""
    commands = []
    if settings.hook is not None:
        commands.append(shlex.split(settings.hook))
    if settings.webhook is not None:
        commands.append([sys.executable, "-m", "colordaemon.service.webhook", settings.webhook])
    return commands


class Hooks:
    """Runs commands, one after the other. `now` is of a clock that never jumps."""

    def __init__(self, commands: Sequence[Sequence[str]], seconds: float) -> None:
        self._commands, self._seconds = commands, seconds
        self._left: list[Sequence[str]] = []
        self._running: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None
        self._until = 0.0

    def __bool__(self) -> bool:
        return bool(self._commands)

    @property
    def is_busy(self) -> bool:
        return self._job is not None

    def start(self, job: Job, now: float) -> None:
        self._job, self._left = job, [*self._commands]
        self._next(now)

    def ended(self, now: float) -> Job | None:
        """The job for which all commands have come to an end since."""
        if self._running is not None and not self._has_ended(now):
            return None
        self._next(now)
        if self._running is not None:
            return None
        job, self._job = self._job, None
        return job

    def close(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()
        self._running = self._job = None

    def _next(self, now: float) -> None:
        """Begin with the next command that can be run at all."""
        self._running = None
        while self._left and self._running is None:
            line = self._left.pop(0)
            assert self._job is not None
            # A file, since a pipe would block us if the command does not read.
            with tempfile.TemporaryFile() as file:
                file.write(json.dumps(announcement(self._job)).encode() + b"\n")
                file.seek(0)
                try:
                    self._running = subprocess.Popen(line, stdin=file)  # noqa: S603
                except OSError as error:
                    log.warning("hook: cannot run %s: %s", line[0], error.strerror)
            self._until = now + self._seconds

    def _has_ended(self, now: float) -> bool:
        assert self._running is not None and self._job is not None
        if self._running.poll() is None:
            if now < self._until:
                return False
            self._running.kill()
            self._running.wait()
            log.warning("hook: killed after %g s", self._seconds)
        elif self._running.returncode:
            name = printable(self._job.source.name)
            log.warning("hook: ended with status %d for %s", self._running.returncode, name)
        return True
