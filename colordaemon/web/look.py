"""What the page knows of one moment: from the daemon, from its journal, and from the disks.

The daemon is asked once a second at most, however many browsers look on, and only while one does.
It never waits for the page: requests go through its control socket.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
    """A disk. uses: what is on it. folder: the first that is on it. free, total: in bytes; None if
    that is not there."""

    uses: tuple[str, ...]
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

    @property
    def state(self) -> str:
        """In one word."""
        if self.daemon is None:
            return "down"
        if self.paused:
            return "paused"
        if self.running:
            return "coloring"
        if self.daemon["waiting"]:
            return "waiting"
        return "idle" if self.daemon["ready"] else "starting"


NO_PROGRESS: Reply = dict.fromkeys(  # of a photo
    ("share", "frames", "fps", "seconds_left", "stage", "stage_share")
)
NOTHING = Look(None, "", {}, False, (), Forecast())


def look_at(folders: Folders, disks: Sequence[Disk]) -> Look:
    """Ask the daemon, and the journal. folders: any of the configuration."""
    reply, trouble = _ask(folders)
    try:
        with Records(folders.journal) as records:
            reply = reply or status(records) | {"daemon": None}
            left = forecast(records)
            revision = f"{records.last_change} {records.last_id} {reply['counts']}"
    except TROUBLES as error:
        there = folders.journal.exists()
        said = str(error) if there else "There is no journal yet; the daemon makes it."
        return replace(NOTHING, trouble=trouble or said, disks=disks)
    daemon = reply["daemon"]
    progress = {each["id"]: each for each in daemon["running"]} if daemon else {}
    running = [NO_PROGRESS | job | progress.get(job["id"], {}) for job in reply["running"]]
    return Look(
        daemon=daemon,
        trouble=trouble,
        counts=reply["counts"],
        paused=reply["paused"],
        running=running,
        left=left.plus(running),
        disks=disks,
        revision=revision,
    )


def _ask(folders: Folders) -> tuple[Reply | None, str]:
    """The daemon's status, and why there is none, if that is not because no daemon runs."""
    try:
        return ask(folders.control, {"verb": "status"}, ANSWER_SECONDS), ""
    except TROUBLES as error:
        return None, str(error)


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
        return look_at(self._folders, self._disks.latest())


class Disks:
    """The disks of all folders, looked at now and then."""

    def __init__(
        self, all_folders: Sequence[Folders], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._at = clock, float("-inf")
        self._folders = [("results", folders.outbox) for folders in all_folders]
        self._folders += [("inbox", folders.inbox) for folders in all_folders]
        self._folders += [("journal", all_folders[0].state)]
        self._found: tuple[Disk, ...] = ()

    def latest(self) -> Sequence[Disk]:
        """Each disk once, by the first folder on it; folders that are not there by themselves."""
        if self._clock() - self._at >= DISK_SECONDS:
            self._found = tuple(self._each())
            self._at = self._clock()
        return self._found

    def _each(self) -> Iterable[Disk]:
        found = dict[int | Path, Disk]()
        for use, folder in self._folders:
            try:
                usage, device = shutil.disk_usage(folder), folder.stat().st_dev
            except OSError:
                found[folder] = Disk((use,), folder)
            else:
                first = found.get(device, Disk((), folder, usage.free, usage.total))
                found[device] = replace(first, uses=tuple(dict.fromkeys((*first.uses, use))))
        return found.values()
