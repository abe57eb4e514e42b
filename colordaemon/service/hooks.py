"""Runs the operator's commands after every file that is done, failed or skipped.

They run beside the work, one at a time, without a shell, and are killed when they take too long. A
command that fails is run again, see `HookRunner`. The journal is updated only after a command has
ended: after a crash it may run twice for a file, but it is never left out.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.config import AfterSettings
from colordaemon.logs import printable
from colordaemon.service.job import Job
from colordaemon.service.journal import Journal
from colordaemon.service.webhook import ADDRESS

log = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 3600.0  # seconds between two tries for one job
LONGEST_BACKOFF = 60.0  # seconds without any hook, at most, while every hook fails
END_SECONDS = 3 * 86400.0  # over a weekend; hooks of older jobs are given up


@dataclass(frozen=True)
class Command:
    """What to run. address: of a webhook. It may hold secrets, and every user can read command
    lines, so it is passed in the environment."""

    words: Sequence[str]
    address: str = ""


def commands_of(settings: AfterSettings) -> list[Command]:
    """What to run for each file: the operator's command, and ours that sends to a web address."""
    commands = []
    if settings.hook is not None:
        commands.append(Command(shlex.split(settings.hook)))
    if settings.webhook is not None:
        words = [sys.executable, "-m", "colordaemon.service.webhook"]
        commands.append(Command(words, settings.webhook))
    return commands


class Hooks:
    """Runs commands, one after the other."""

    def __init__(self, commands: Sequence[Command], seconds: float) -> None:
        self.commands, self._seconds = commands, seconds
        self._left: list[Command] = []
        self._current: Command | None = None
        self._running: subprocess.Popen[bytes] | None = None
        self._job: Job | None = None
        self._until = 0.0
        self.failed: list[Command] = []  # of the job that was started last

    def __bool__(self) -> bool:
        return bool(self.commands)

    @property
    def is_busy(self) -> bool:
        return self._job is not None

    def start(self, job: Job, now: Monotonic, commands: Sequence[Command] | None = None) -> None:
        """commands: those that are still to run for this job; None for all."""
        self._job, self._left = job, [*(self.commands if commands is None else commands)]
        self.failed = []
        self._next(now)

    def ended(self, now: Monotonic) -> Job | None:
        """The job whose commands have all ended; None while one runs. See `failed`."""
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

    def _next(self, now: Monotonic) -> None:
        """Start the next command; one that cannot be started counts as failed."""
        self._running = None
        while self._left and self._running is None:
            command = self._current = self._left.pop(0)
            assert self._job is not None
            environment = os.environ | {ADDRESS: command.address} if command.address else None
            try:
                # In memory, since a disk may be full, and no pipe, since it would block us if the
                # command does not read.
                with os.fdopen(os.memfd_create("announcement"), "wb") as file:
                    file.write(json.dumps(self._job.as_json()).encode() + b"\n")
                    file.seek(0)
                    self._running = subprocess.Popen(command.words, stdin=file, env=environment)  # noqa: S603
            except OSError as error:
                log.warning("hook: cannot run %s: %s", command.words[0], error.strerror)
                self.failed.append(command)
            self._until = now + self._seconds

    def _has_ended(self, now: Monotonic) -> bool:
        assert self._running is not None and self._job is not None and self._current is not None
        if self._running.poll() is None:
            if now < self._until:
                return False
            self._running.kill()
            self._running.wait()
            log.warning("hook: killed after %g s", self._seconds)
            self.failed.append(self._current)
        elif self._running.returncode:
            name = printable(self._job.source.name)
            log.warning("hook: ended with status %d for %s", self._running.returncode, name)
            self.failed.append(self._current)
        return True


@dataclass(frozen=True)
class _Retry:
    """The commands that failed for a job, and when to run them again."""

    commands: Sequence[Command]
    pause: float
    due: float


class HookRunner:
    """Runs the hooks for every job that ended, one job after the other, and again if a hook fails.

    The journal knows which jobs still need their hooks, so a restart loses none. It does not know
    how often they were tried, but how old the jobs are.
    """

    def __init__(self, journal: Journal, settings: AfterSettings) -> None:
        self._journal = journal
        self._take(settings)

    def _take(self, settings: AfterSettings) -> None:
        """Use these settings. A first hook does not run for jobs that ended before it."""
        self._hooks = Hooks(commands_of(settings), settings.hook_seconds)
        self._retries: dict[int, _Retry] = {}
        self._backoff = self._silent_until = 0.0
        if self._hooks and not self._journal.has_hook:
            self._journal.announce_nothing()
        self._journal.note("hook", "yes" if self._hooks else "")

    def reload(self, settings: AfterSettings) -> None:
        self._hooks.close()
        self._take(settings)

    @property
    def is_busy(self) -> bool:
        return self._hooks.is_busy

    def turn(self, now: Monotonic, wall: UnixTime) -> None:
        if not self._hooks:
            return
        if (job := self._hooks.ended(now)) is not None:
            self._ended(job, now, wall)
        if not self._hooks.is_busy and now >= self._silent_until:
            self._next(now)

    def close(self) -> None:
        self._hooks.close()

    def _ended(self, job: Job, now: Monotonic, wall: UnixTime) -> None:
        before = self._retries.pop(job.id, None)
        if not self._hooks.failed:
            self._backoff = 0.0
            self._journal.announced(job)
            return
        self._backoff = min(LONGEST_BACKOFF, 2 * self._backoff or 1.0)
        self._silent_until = now + self._backoff
        if wall - job.changed >= END_SECONDS:
            log.error("hook: gave up for %s", printable(str(job.source)))
            self._journal.announced(job)
            return
        pause = min(LONGEST_PAUSE, 4 * before.pause) if before else FIRST_PAUSE
        self._retries[job.id] = _Retry(self._hooks.failed, pause, now + pause)

    def _next(self, now: Monotonic) -> None:
        """Start the hooks of the job that has waited longest and whose pause is over."""
        for job in self._journal.to_announce(len(self._retries) + 1):
            again = self._retries.get(job.id)
            if again is None or now >= again.due:
                self._hooks.start(job, now, again.commands if again else None)
                return
