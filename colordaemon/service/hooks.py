"""A command of the operator's that is told of every file that came to an end.

It runs beside the work, one at a time, without a shell, and is killed when it takes too long. The
journal notes what has been announced only after the command has ended: after a crash a file may be
announced twice, and never not at all.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import tempfile
from typing import Any

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
    }


class Hook:
    """Runs the command, one job after the other. `now` is of a clock that never jumps."""

    def __init__(self, command: str, seconds: float) -> None:
        self._line, self._seconds = shlex.split(command), seconds
        self._running: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None
        self._until = 0.0

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def start(self, job: Job, now: float) -> bool:
        """False when the command cannot be run at all."""
        # A file, since a pipe would block us if the command does not read.
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(announcement(job)).encode() + b"\n")
            file.seek(0)
            try:
                self._running = subprocess.Popen(self._line, stdin=file)  # noqa: S603
            except OSError as error:
                log.warning("hook: cannot run %s: %s", self._line[0], error.strerror)
                return False
        self._job, self._until = job, now + self._seconds
        return True

    def ended(self, now: float) -> Job | None:
        """The job whose announcement has come to an end since."""
        if self._running is None:
            return None
        if self._running.poll() is None:
            if now < self._until:
                return None
            self._running.kill()
            self._running.wait()
            log.warning("hook: killed after %g s", self._seconds)
        elif self._running.returncode:
            assert self._job is not None
            name = printable(self._job.source.name)
            log.warning("hook: ended with status %d for %s", self._running.returncode, name)
        self._running, job = None, self._job
        return job

    def close(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None
