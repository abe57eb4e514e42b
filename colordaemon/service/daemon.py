"""The daemon: watch, journal, worker, control and systemd joined in one loop.

One thread does everything except gathering events, so nothing has to be locked; what may take long
runs in a process of its own. The loop waits for a message of the worker, a request, an event in an
inbox, a signal, or the next tick of a clock, whichever comes first. Each part checks at its turn
whether anything of its own is due.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress

from colordaemon.clock import Clock, Monotonic, UnixTime
from colordaemon.config import Config
from colordaemon.convert.routing import Routing
from colordaemon.errors import NO_SPACE, OF_DISKS, ConfigError
from colordaemon.inbox.folders import Folders, find_folders, locked_state, make_state
from colordaemon.logs import counted, printable
from colordaemon.service.control import Commands, Control
from colordaemon.service.event_loop import EventLoop, Notifier, Signals, Wake
from colordaemon.service.hooks import HookRunner
from colordaemon.service.inboxes import Inboxes, Intake
from colordaemon.service.job import Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.journal_upkeep import Pruning
from colordaemon.service.lifecycle import JobLifecycle
from colordaemon.service.publisher import sweep
from colordaemon.service.records import may_pass
from colordaemon.service.scheduler import Scheduler
from colordaemon.service.status import DaemonStatus, Reply
from colordaemon.service.supervisor import MakeWorker, WorkerProcess

log = logging.getLogger(__name__)

# The longest wait between two turns. An idle daemon with 10,000 files in its inbox takes 0.33 % of
# a core at this (benchmarks/daemon.py).
TICK_SECONDS = 0.25
DISK_SECONDS = 10.0  # between two tries when the journal cannot be written
STATUS_SECONDS = 1.0  # between two lines for systemd
RETIRE_SECONDS = 600.0  # between two tries to move or remove sources where that failed
SLICE_SECONDS = 0.1  # of a turn for sources that are left over
OPEN = (State.QUEUED, State.RUNNING, State.PUBLISHING)
ABORT_SECONDS = 10.0  # that a worker has to leave a film after it was told to stop


def watch_forever(load: Callable[[], Config], make_worker: MakeWorker = WorkerProcess) -> None:
    """Run until SIGTERM or SIGINT. load: reads the configuration, at the start and at every SIGHUP.

    If a disk fails, or another program has locked the journal, the daemon stops as if the power had
    failed, which loses nothing, and starts again after some seconds.
    Raises ConfigError, ModelError and WorkerLost.
    """
    while True:
        try:
            return _watch(load, make_worker)
        except sqlite3.OperationalError as error:
            if not may_pass(error):
                raise
            _wait_after(f"the journal: {error}")
        except OSError as error:
            if error.errno not in NO_SPACE | OF_DISKS:
                raise
            where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
            _wait_after(f"{error.strerror}{where}")


def _wait_after(trouble: str) -> None:
    log.error("%s; trying again in %g s", trouble, DISK_SECONDS)
    notifier = Notifier()
    notifier.status(f"waiting: {printable(trouble)}")
    notifier.extend_timeout(60)
    notifier.ping(Clock().monotonic())
    time.sleep(DISK_SECONDS)


def _watch(load: Callable[[], Config], make_worker: MakeWorker) -> None:
    config = load()
    all_folders = find_folders(config)
    state = all_folders[0].state
    make_state(state)
    with ExitStack() as stack:
        stack.enter_context(locked_state(state))
        journal = stack.enter_context(Journal(all_folders[0].journal))
        wake = Wake()
        stack.callback(wake.close)
        signals = stack.enter_context(Signals(wake))
        daemon = Daemon(load, config, all_folders, journal, wake, make_worker)
        stack.callback(daemon.close)
        daemon.run(signals)


class Daemon:
    """All parts of one running daemon."""

    def __init__(
        self,
        load: Callable[[], Config],
        config: Config,
        all_folders: Sequence[Folders],
        journal: Journal,
        wake: Wake,
        make_worker: MakeWorker,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or Clock()
        self._load, self._config, self._folders, self._journal = load, config, all_folders, journal
        self._routing = Routing(config)
        self._event_loop = EventLoop(wake)
        self._notifier = Notifier()
        self._scheduler = Scheduler(journal, all_folders, self._routing, make_worker)
        self._intake = Intake(journal)
        self._inboxes = Inboxes(journal, self._intake.knows, wake)
        self._hooks = HookRunner(journal, config.after)
        self._pruning = Pruning(journal, config.journal, self._scheduler.lifecycle_of)
        self._commands = Commands(journal, self._clock.time, cancel_running=self._scheduler.cancel)
        self._control = Control(all_folders[0].control, self._event_loop.selector, self._answer)
        self._is_ready = False
        self._status_at, self._retire_at = 0.0, 0.0
        self._retiring = deque[Iterator[None]]()
        self._drain = Drain()

    def run(self, signals: Signals) -> None:
        """Run until SIGTERM, and until the work in progress is finished or left. Raises
        ConfigError, ModelError and WorkerLost."""
        self._inboxes.take(self._folders, self._routing, self._clock.monotonic())
        self._intake.prioritize(self._routing.priority_of)
        self._scheduler.recover(self._clock.time())
        while not self._is_over(signals):
            if signals.reload:
                signals.reload = False
                self._reload()
            self._turn()
            self._wait()

    def close(self) -> None:
        """Stop everything. Errors of disks are ignored: the next start repairs what was not
        written."""
        self._inboxes.stop()
        self._scheduler.close()
        with suppress(sqlite3.Error, OSError):
            for task in self._scheduler.running:
                task.lifecycle.requeue(task.job, Reason.STOPPED, "", self._clock.time())
        self._control.close()
        self._hooks.close()
        self._event_loop.close()

    # One turn

    def _turn(self) -> None:
        now, wall = self._clock.monotonic(), self._clock.time()
        self._queue_new_files(now, wall)
        self._retire_some()
        self._intake.turn()
        self._commands.turn()
        self._apply_pause()
        self._scheduler.turn(now, wall)
        self._hooks.turn(now, wall)
        self._pruning.turn(now, wall)
        self._control.turn(now)
        self._notify_systemd(now)

    def _queue_new_files(self, now: Monotonic, wall: UnixTime) -> None:
        if missing := self._scheduler.take_missing_inboxes():
            self._inboxes.rescan(now, *missing)
        added, is_due = 0, now >= self._retire_at and not self._retiring
        if is_due:
            self._retire_at = now + RETIRE_SECONDS
        for inbox in self._inboxes:
            settled = inbox.turn(now, wall)
            lifecycle = self._scheduler.lifecycle_of(inbox.folders.inbox)
            assert lifecycle is not None
            if inbox.has_opened():
                self._clean_up(lifecycle)
            elif is_due:
                self._retiring.append(lifecycle.retire_all())
            added += self._intake.take(settled, lifecycle, wall)
        if added:
            log.info("%s in the queue", counted(added, "new file"))
        self._scheduler.serve(self._inboxes.present)

    def _clean_up(self, lifecycle: JobLifecycle) -> None:
        """Remove old work files, and deal with sources that were left over, after an inbox
        appeared."""
        needed = {*self._journal.ids(*OPEN)}
        if count := sweep(lifecycle.folders.outbox, self._journal.token, needed):
            log.info("removed %s, no longer needed", counted(count, "work file"))
        self._retiring.append(lifecycle.retire_all())

    def _retire_some(self) -> None:
        until = self._clock.monotonic() + SLICE_SECONDS
        while self._retiring and self._clock.monotonic() < until:
            if next(self._retiring[0], self) is self:  # at its end
                self._retiring.popleft()

    def _apply_pause(self) -> None:
        if self._journal.fact("paused") == "yes":
            self._scheduler.pauses.add("paused", "paused by command")
        else:
            self._scheduler.pauses.remove("paused")

    def _notify_systemd(self, now: Monotonic) -> None:
        if not self._is_ready and self._scheduler.ready_on:
            self._is_ready = True  # the first scan of the inboxes was begun before
            self._notifier.ready()
        elif not self._is_ready:
            self._notifier.extend_timeout(60)
        if now >= self._status_at:
            self._status_at = now + STATUS_SECONDS
            self._notifier.status(self._status(now).line)
        # Only after a write to the journal: a daemon that cannot write is not healthy.
        if self._notifier.is_ping_due(now) and not self._scheduler.has_lost_worker:
            self._journal.note("alive", f"{self._clock.time():.0f}")
            self._notifier.ping(now)

    def _status(self, now: Monotonic) -> DaemonStatus:
        scheduler, inboxes = self._scheduler, self._inboxes
        reasons = (
            inboxes.trouble,
            scheduler.pauses.reason(now),
            scheduler.space.reason(now),
            scheduler.sharing.waits_for,
        )
        return DaemonStatus(
            device=scheduler.ready_on,
            queued=self._journal.queued(),
            settling=inboxes.settling,
            running=[(task.job.source.name, str(task.pace)) for task in scheduler.running],
            waiting="; ".join(filter(None, reasons)) or None,
        )

    # Waiting

    def _wait(self) -> None:
        self._event_loop.listen_to(self._scheduler.workers)
        parts = self._inboxes, self._intake, self._commands
        is_busy = bool(self._retiring) or any(part.is_busy for part in parts)
        self._event_loop.wait(0.0 if is_busy else TICK_SECONDS)

    # Requests

    def _answer(self, request: Reply) -> Reply:
        reply = self._commands.run(request)
        if request["verb"] == "status":
            status = self._status(self._clock.monotonic())
            inboxes = [inbox.as_json() for inbox in self._inboxes]
            running = [
                {"id": task.job.id} | task.pace.as_json() for task in self._scheduler.running
            ]
            reply["daemon"] = {"ready": self._is_ready} | status.as_json(
                inboxes, running, self._scheduler.sharing.machines
            )
        elif request["verb"] == "pause":
            self._scheduler.stop_work()
        elif request["verb"] == "resume":
            self._scheduler.resume()
        return reply

    def _is_over(self, signals: Signals) -> bool:
        """Whether to leave the loop. After the first signal no new work is started."""
        if not signals.ends:
            return False
        now, drain = self._clock.monotonic(), self._drain
        if not drain.has_begun:
            self._notifier.stopping()
            self._scheduler.close_down()
            limit = self._config.jobs.drain_seconds
            drain.begin(now, limit, self._scheduler.running.seconds_left)
            running = counted(len(self._scheduler.running), "file")
            log.info("stopping; %s being worked on", running)
        if drain.should_ask(now):
            self._scheduler.stop_work()
        return not self._scheduler.running or signals.ends > 1 or drain.is_over(now)

    def _reload(self) -> None:
        """Read the configuration again. If anything in it is wrong, all of the old one stays."""
        self._notifier.reloading()
        now = self._clock.monotonic()
        try:
            config = self._load()
            routing, all_folders = Routing(config), find_folders(config)
            self._check_that_folders_stay(all_folders)
            self._inboxes.take(all_folders, routing, now)
        except ConfigError as error:
            for mistake in str(error).split("\n"):
                log.error("the old configuration stays: %s", mistake)
            self._inboxes.rescan(now)
        else:
            self._config, self._folders = config, all_folders
            self._scheduler.reload(routing, all_folders)
            self._intake.prioritize(routing.priority_of)
            self._hooks.reload(config.after)
            self._pruning.reload(config.journal)
            log.info("the new configuration is in use")
        self._notifier.ready()

    def _check_that_folders_stay(self, all_folders: Sequence[Folders]) -> None:
        """Inboxes may be added and removed. Unfinished work must find its files where it left
        them."""
        before = {folders.inbox: folders for folders in self._folders}
        if all_folders[0].state != self._folders[0].state:
            raise ConfigError("state_dir changes only with a restart")
        for folders in all_folders:
            if before.get(folders.inbox, folders) != folders:
                raise ConfigError(
                    f"{folders.inbox}: its outbox and its archive change only with a restart"
                )


class Drain:
    """The end of a daemon: work in progress may be finished within a limit, or else it is left.

    The limit counts from `begin`.
    """

    def __init__(self) -> None:
        self._until = math.inf
        self._asked = False

    @property
    def has_begun(self) -> bool:
        return self._until < math.inf

    def begin(self, now: Monotonic, limit_seconds: float, seconds_left: float) -> None:
        """seconds_left: what the work still takes. If that is more than the limit, do not wait."""
        self._until = now if seconds_left > limit_seconds else now + limit_seconds

    def should_ask(self, now: Monotonic) -> bool:
        """Whether to tell the workers to stop now. True once, when the limit is over."""
        if self._asked or now < self._until:
            return False
        self._asked, self._until = True, now + ABORT_SECONDS
        return True

    def is_over(self, now: Monotonic) -> bool:
        """Whether the workers were told to stop and have had their time to do so."""
        return self._asked and now >= self._until
