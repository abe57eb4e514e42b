"""The inboxes of a running daemon, and the queueing of their settled files.

Each inbox is locked and watched while it exists. If one is missing, the daemon waits for it and
goes on with the others.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from colordaemon.clock import Monotonic, UnixTime
from colordaemon.config import WatchSettings
from colordaemon.convert.routing import Routing
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import (
    Folders,
    check_folders,
    expect_inbox,
    locked_inbox,
    make_folders,
)
from colordaemon.inbox.scan import rank_of
from colordaemon.inbox.stability import Signature
from colordaemon.inbox.watcher import Known, Watch, settle_seconds
from colordaemon.service.job import Found, Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.late_sidecars import LateSidecars
from colordaemon.service.lifecycle import JobLifecycle

log = logging.getLogger(__name__)

BATCH = 1000  # jobs in one turn, which take 30 ms
LOCK_SECONDS = 60.0  # after which another user's lock on an inbox is ignored


class Inbox:
    """One inbox. all_folders: the folders of all inboxes, itself included."""

    def __init__(
        self,
        folders: Folders,
        routing: Routing,
        journal: Journal,
        known: Known,
        wake: Callable[[], None],
    ) -> None:
        self.folders, self._journal = folders, journal
        self.all_folders: Sequence[Folders] = (folders,)
        self._lock = ExitStack()
        self._refused_at: float | None = None  # since when another program holds the lock
        self._has_opened = False
        settings = routing.config_of(folders.inbox).watch
        settle = settle_seconds(settings, folders.inbox)
        self._late = LateSidecars(journal, folders.inbox, settle)
        self.watch = Watch(
            folders.inbox,
            settings,
            known,
            wake,
            identity=journal.identity_of(folders.inbox),
            enter=self._enter,
            leave=self._lock.close,
            guides=self._late.notice,
        )

    def start(self, now: Monotonic) -> None:
        """Start to watch it. Raises ConfigError, but not for an inbox that may be mounted later."""
        expect_inbox(self.folders)
        self.watch.start(now)

    def turn(self, now: Monotonic, wall: UnixTime) -> dict[Path, Signature]:
        """The files that have settled since the last call."""
        settled = self.watch.turn(now)
        self._late.turn(wall)
        identity = self.watch.identity
        if identity is not None and identity != self._journal.identity_of(self.folders.inbox):
            self._journal.remember(self.folders.inbox, identity)
        return settled

    def reload(self, settings: WatchSettings, now: Monotonic) -> None:
        """Use other settings, and scan it again."""
        self._late.settle_seconds = settle_seconds(settings, self.folders.inbox)
        self.watch.reload(settings)
        self.watch.rescan(now)

    def has_opened(self) -> bool:
        """Whether it has appeared, or reappeared, since the last call."""
        opened, self._has_opened = self._has_opened, False
        return opened

    def as_json(self) -> dict[str, Any]:
        """Its entry in the status."""
        return {
            "inbox": os.fspath(self.folders.inbox),
            "outbox": os.fspath(self.folders.outbox),
            "state": "gone" if self.watch.is_gone else "watched",
            "why": self.watch.trouble,
            "settling": self.watch.settling,
            "late": self._late.as_json(),
            "queued": self._journal.queued([self.folders.inbox]),
        }

    def _enter(self) -> None:
        inbox, name = self.folders.inbox, f"{self.folders.label}inbox"
        if (leads := os.path.realpath(inbox)) != str(inbox):
            # The journal would know the files by other paths after the next start.
            raise ConfigError(f"{name}: {inbox} leads to {leads} now; restart to use that")
        check_folders(self.all_folders)
        make_folders(self.folders)
        self._take_lock()
        self._has_opened = True

    def _take_lock(self) -> None:
        """Raises BlockingIOError while another program holds the lock, see LOCK_SECONDS."""
        now = time.monotonic()
        insists = self._refused_at is not None and now - self._refused_at > LOCK_SECONDS
        try:
            self._lock.enter_context(locked_inbox(self.folders.inbox, insists=insists))
        except BlockingIOError:
            self._refused_at = now if self._refused_at is None else self._refused_at
            raise
        self._refused_at = None


class Inboxes:
    """All inboxes of a daemon.

    known: see `Watch`. wake: called when there is something to do.
    """

    def __init__(self, journal: Journal, known: Known, wake: Callable[[], None]) -> None:
        self._journal, self._known, self._wake = journal, known, wake
        self._all: list[Inbox] = []

    def __iter__(self) -> Iterator[Inbox]:
        return iter(self._all)

    def take(self, all_folders: Sequence[Folders], routing: Routing, now: Monotonic) -> None:
        """Start new inboxes, stop those that are no longer configured, and scan all the others
        again.

        Raises ConfigError with all that is wrong with new ones; then nothing has changed.
        """
        before = {inbox.folders: inbox for inbox in self._all}
        added = [
            Inbox(folders, routing, self._journal, self._known, self._wake)
            for folders in all_folders
            if folders not in before
        ]
        for inbox in added:
            inbox.all_folders = all_folders
        _start(added, now)
        for folders, inbox in before.items():
            if folders not in all_folders:
                inbox.watch.stop()
        kept = {inbox.folders: inbox for inbox in added} | before
        self._all = [kept[folders] for folders in all_folders]
        for inbox, folders in zip(self._all, all_folders, strict=True):
            if folders in before:
                inbox.folders, inbox.all_folders = folders, all_folders  # labels may have changed
                inbox.reload(routing.config_of(folders.inbox).watch, now)

    def rescan(self, now: Monotonic, *which: Path) -> None:
        """Scan these inboxes, or all, at the next turn."""
        for inbox in self._all:
            if not which or inbox.folders.inbox in which:
                inbox.watch.rescan(now)

    def stop(self) -> None:
        for inbox in self._all:
            inbox.watch.stop()

    @property
    def present(self) -> list[Path]:
        return [inbox.folders.inbox for inbox in self._all if not inbox.watch.is_gone]

    @property
    def trouble(self) -> str:
        """Which inboxes are missing, for people; empty if none is."""
        gone = [str(inbox.folders.inbox) for inbox in self._all if inbox.watch.is_gone]
        return f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone" if gone else ""

    @property
    def settling(self) -> int:
        return sum(inbox.watch.settling for inbox in self._all)

    @property
    def is_busy(self) -> bool:
        """Whether a scan goes on or events are still to be handled."""
        return any(inbox.watch.is_busy for inbox in self._all)


def _start(inboxes: Sequence[Inbox], now: Monotonic) -> None:
    """Start all of them, or none."""
    mistakes = []
    for inbox in inboxes:
        try:
            inbox.start(now)
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        for inbox in inboxes:
            inbox.watch.stop()
        raise ConfigError("\n".join(mistakes))


class Intake:
    """Puts settled files into the journal. priority_of: the priority of a source."""

    def __init__(
        self, journal: Journal, priority_of: Callable[[Path], int] = lambda source: 0
    ) -> None:
        self._journal, self._priority_of = journal, priority_of
        self._to_prioritize: list[int] = []

    def knows(self, path: Path, signature: Signature) -> bool:
        """Whether the journal has a job for exactly this file, in any state."""
        found = Found(path, signature.size, signature.mtime_ns)
        return not [*self._journal.unknown([found])]

    def take(
        self, settled: Mapping[Path, Signature], lifecycle: JobLifecycle, wall: UnixTime
    ) -> int:
        """Queue the settled files of one inbox; returns how many are new."""
        if not settled:
            return 0
        found = []
        for path, signature in settled.items():
            try:
                found.append(self._found(path, signature, lifecycle, wall))
            except (OSError, ValueError, OverflowError) as error:
                log.warning("not taken: %s: %s", path, error)
        added = self._journal.add(found, wall)
        for each in found:
            if not each.size:
                (job, *_) = self._journal.of_source(each.path)
                lifecycle.set_aside(
                    job, State.FAILED, Reason.EMPTY, "the file is empty and stays so", wall
                )
        return added

    def prioritize(self, priority_of: Callable[[Path], int]) -> None:
        """Use other priorities. Queued jobs get theirs in batches, see `turn`."""
        self._priority_of = priority_of
        self._to_prioritize = self._journal.ids(State.QUEUED)

    def turn(self) -> None:
        """Give a batch of queued jobs their new priorities."""
        few, self._to_prioritize = self._to_prioritize[:BATCH], self._to_prioritize[BATCH:]
        if few:
            self._journal.prioritize(few, self._priority_of)

    @property
    def is_busy(self) -> bool:
        """Whether queued jobs are left that need their new priorities."""
        return bool(self._to_prioritize)

    def _found(
        self, path: Path, signature: Signature, lifecycle: JobLifecycle, wall: UnixTime
    ) -> Found:
        """What to queue for a file. Jobs that wait for an older version of it are cancelled."""
        for job in self._journal.supersede(path, signature.size, signature.mtime_ns, wall):
            lifecycle.clean(job)
        priority = self._priority_of(path)
        return Found(
            path,
            signature.size,
            signature.mtime_ns,
            rank_of(path),
            priority,
            signature.device,
            signature.inode,
            signature.ctime_ns,
        )
