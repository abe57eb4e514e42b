"""What the page knows of one moment: from the daemon, from its journal, and from the disks.

The daemon is asked once a second at most, however many browsers look on, and only while one does.
It never waits for the page: requests go through its control socket.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import Folders
from colordaemon.service.control import BadRequest, NoAnswer, ask
from colordaemon.service.forecast import Forecast, forecast
from colordaemon.service.records import Records
from colordaemon.service.status import Reply, status

LOOK_SECONDS = 1.0  # between two looks
DISK_SECONDS = 10.0  # between two looks at the disks
ANSWER_SECONDS = 5.0  # that the daemon has to answer
TROUBLES = (BadRequest, NoAnswer, ConfigError, sqlite3.Error, OSError)


@dataclass(frozen=True)
class Disk:
    """A disk that a folder is on. free, total: in bytes; None if it does not say."""

    name: str
    folder: Path
    free: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class Look:
    """counts: of jobs by state. running: each as in `status`, with its progress. daemon: the
    daemon's part of the status; None if it does not run. trouble: why the daemon or the journal
    cannot be asked. revision: another one whenever a job has changed its state."""

    daemon: Reply | None
    trouble: str
    counts: dict[str, int]
    paused: bool
    running: Sequence[Reply]
    left: Forecast
    disks: Sequence[Disk] = ()
    revision: str = ""


NOTHING = Look(None, "", {}, False, (), Forecast())


class Looks:
    """Looks once a second while anybody asks, and shows everybody the same."""

    def __init__(
        self, all_folders: Sequence[Folders], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folders, self._clock = all_folders[0], clock
        self._disks = Disks(all_folders, clock)
        self._lock = anyio.Lock()
        self._look, self._at = NOTHING, float("-inf")

    async def latest(self) -> Look:
        async with self._lock:
            if self._clock() - self._at >= LOOK_SECONDS:
                self._look = await to_thread.run_sync(self._take)
                self._at = self._clock()
        return self._look

    def forget(self) -> None:
        """Look again at the next request: something was commanded."""
        self._at = float("-inf")

    def _take(self) -> Look:
        disks = self._disks.latest()
        reply, trouble = self._ask()
        try:
            with Records(self._folders.journal) as records:
                reply = reply or status(records) | {"daemon": None}
                left = forecast(records)
                revision = f"{records.last_change} {records.last_id} {reply['counts']}"
        except TROUBLES as error:
            there = self._folders.journal.exists()
            said = str(error) if there else "There is no journal yet; the daemon makes it."
            return replace(NOTHING, trouble=trouble or said, disks=disks)
        daemon = reply["daemon"]
        progress = {each["id"]: each for each in daemon["running"]} if daemon else {}
        running = [job | progress.get(job["id"], {}) for job in reply["running"]]
        left = left.plus(running)
        return Look(
            daemon, trouble, reply["counts"], reply["paused"], running, left, disks, revision
        )

    def _ask(self) -> tuple[Reply | None, str]:
        """The daemon's status, and why there is none, if that is not because no daemon runs."""
        try:
            return ask(self._folders.control, {"verb": "status"}, ANSWER_SECONDS), ""
        except TROUBLES as error:
            return None, str(error)


class Disks:
    """The disks of all folders, looked at now and then."""

    def __init__(self, all_folders: Sequence[Folders], clock: Callable[[], float]) -> None:
        self._clock, self._at = clock, float("-inf")
        self._folders = {folders.outbox: "results" for folders in all_folders}
        self._folders |= {folders.inbox: "inbox" for folders in all_folders}
        self._folders[all_folders[0].state] = "journal"
        self._found: tuple[Disk, ...] = ()

    def latest(self) -> Sequence[Disk]:
        """Each disk once, by the first folder on it."""
        if self._clock() - self._at >= DISK_SECONDS:
            self._found = tuple(self._each())
            self._at = self._clock()
        return self._found

    def _each(self) -> list[Disk]:
        found = dict[Any, Disk]()
        for folder, name in self._folders.items():
            try:
                usage, device = shutil.disk_usage(folder), folder.stat().st_dev
            except OSError:
                found[folder] = Disk(name, folder)
            else:
                same = found.get(device)
                names = f"{same.name}, {name}" if same and name not in same.name else name
                where = same.folder if same else folder
                found[device] = Disk(
                    same.name if same and names == name else names, where, usage.free, usage.total
                )
        return [*found.values()]
