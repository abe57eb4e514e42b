"""The daemon: watch, journal, worker, control and systemd joined in one loop.

One thread does everything but gathering events, so that there is nothing to lock; whatever may take
long is a process of its own. The loop waits for whichever comes first: something said by the worker
or a caller, an event, a signal, or the next thing that is due.
"""

from __future__ import annotations

import logging
import selectors
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.service.commands import Commands, Reply
from colordaemon.service.control import Control
from colordaemon.service.dispatch import Dispatcher
from colordaemon.service.drain import Drain
from colordaemon.service.hooks import Hooks, commands_of
from colordaemon.service.intake import Intake
from colordaemon.service.job import State
from colordaemon.service.journal import Journal
from colordaemon.service.lock import locked
from colordaemon.service.notify import Notifier
from colordaemon.service.places import Places, find_places, make_places
from colordaemon.service.presets import Presets
from colordaemon.service.printable import printable
from colordaemon.service.signals import Signals, Wake
from colordaemon.service.supervise import WorkerProcess
from colordaemon.service.watch import Identity, Watch
from colordaemon.service.workfiles import sweep

log = logging.getLogger(__name__)

LONGEST_TURN = 5.0  # seconds that the loop waits at the most
JOURNAL_SECONDS = 10.0  # between two tries when the journal cannot be written
_PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
STATUS_SECONDS = 1.0  # between two lines for systemd
OPEN = (State.QUEUED, State.RUNNING, State.PUBLISHING)


def watch_forever(
    load: Callable[[], Config], make_worker: Callable[[Config], WorkerProcess] = WorkerProcess
) -> None:
    """Run until SIGTERM or SIGINT. load: reads the configuration, now and at every SIGHUP.

    A journal that cannot be written, for want of space, is waited for: everything is taken down as
    if the power had failed, which loses nothing, and begins again later.
    Raises ConfigError, ModelError and WorkerLost.
    """
    while True:
        try:
            return _watch(load, make_worker)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _PASSING:
                raise
            log.error("the journal: %s; again in %g s", error, JOURNAL_SECONDS)
            time.sleep(JOURNAL_SECONDS)


def _watch(load: Callable[[], Config], make_worker: Callable[[Config], WorkerProcess]) -> None:
    config = load()
    places = find_places(config)
    make_places(places)
    with ExitStack() as stack:
        stack.enter_context(locked(places.state, "state_dir"))
        stack.enter_context(locked(places.inbox, "inbox"))
        journal = stack.enter_context(Journal(places.journal))
        wake = Wake()
        stack.callback(wake.close)
        signals = stack.enter_context(Signals(wake))
        daemon = Daemon(load, config, places, journal, wake, make_worker)
        stack.callback(daemon.close)
        daemon.run(signals)


class Daemon:
    """All parts of one running daemon. `now` is of a clock that never jumps, `wall` Unix time."""

    def __init__(
        self,
        load: Callable[[], Config],
        config: Config,
        places: Places,
        journal: Journal,
        wake: Wake,
        make_worker: Callable[[Config], WorkerProcess],
    ) -> None:
        self._load, self._config, self._places, self._journal = load, config, places, journal
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake, selectors.EVENT_READ, wake.clear)
        self._listened_to: WorkerProcess | None = None
        self._listened_fd = -1
        self._notifier = Notifier()
        self._dispatcher = Dispatcher(journal, places, config, make_worker)
        self._intake = Intake(journal)
        self._watch = Watch(
            places.inbox, config.watch, self._intake.knows, wake, identity=self._last_identity()
        )
        self._hooks = self._hooks_of(config)
        self._commands = Commands(journal, time.time, cancel_running=self._dispatcher.cancel)
        self._control = Control(places.control, self._selector, self._answer)
        self._is_ready = False
        self._status_at = 0.0
        self._drain = Drain()

    def run(self, signals: Signals) -> None:
        """Until all is quiet after SIGTERM."""
        now, wall = time.monotonic(), time.time()
        self._dispatcher.recover(wall)
        needed = {job.id for job in self._journal.jobs(*OPEN)}
        if count := sweep(self._places.outbox, self._journal.token, needed):
            log.info("removed %d work files that nobody needs any more", count)
        self._watch.start(now)
        while not self._is_over(signals):
            if signals.reload:
                signals.reload = False
                self._reload()
            self._turn()
            self._wait()

    def close(self) -> None:
        self._watch.stop()
        self._dispatcher.close()
        with suppress(sqlite3.OperationalError):  # a full disk; the next start sees to it
            for job in self._dispatcher.active:
                self._journal.give_back(job, time.time(), code="stopped", reason="", counted=False)
        self._control.close()
        self._hooks.close()
        self._selector.close()

    # One turn

    def _turn(self) -> None:
        now, wall = time.monotonic(), time.time()
        self._take_in(now, wall)
        self._pause_or_go_on()
        self._dispatcher.turn(now, wall)
        self._announce(now)
        self._tell_systemd(now)

    def _take_in(self, now: float, wall: float) -> None:
        settled = self._watch.turn(now)
        if added := self._intake.take(settled, self._dispatcher.ends, wall):
            log.info("%d new in the queue", added)
        if self._watch.is_gone:
            self._dispatcher.holds.hold("inbox", f"{self._places.inbox} is gone")
        else:
            self._dispatcher.holds.release("inbox")
        if self._watch.identity != self._last_identity() and self._watch.identity is not None:
            self._journal.note("inbox", " ".join(map(str, self._watch.identity)))

    def _pause_or_go_on(self) -> None:
        if self._journal.fact("paused") == "yes":
            self._dispatcher.holds.hold("paused", "paused by command")
        else:
            self._dispatcher.holds.release("paused")

    def _announce(self, now: float) -> None:
        if not self._hooks:
            return
        if (job := self._hooks.ended(now)) is not None:
            self._journal.announced(job)
        if not self._hooks.is_busy:
            for job in self._journal.to_announce(1):
                self._hooks.start(job, now)

    def _tell_systemd(self, now: float) -> None:
        if not self._is_ready and self._dispatcher.ready_on:
            self._is_ready = True  # and the first look at the inbox is behind us
            self._notifier.ready()
        elif not self._is_ready:
            self._notifier.more_time(60)
        if now >= self._status_at:
            self._status_at = now + STATUS_SECONDS
            self._notifier.status(self._status_line(now))
        # Written to the journal as well: a daemon that cannot write is not well.
        if self._notifier.is_ping_due(now) and not self._dispatcher.is_lost:
            self._journal.note("alive", f"{time.time():.0f}")
            self._notifier.ping(now)

    def _status_line(self, now: float) -> str:
        queued = self._journal.counts()[State.QUEUED]
        parts = [f"{queued} queued", f"{self._watch.settling} settling"]
        for job in self._dispatcher.active:
            pace = str(self._dispatcher.paces.get(job.id, ""))
            parts.append(printable(job.source.name) + (f" {pace}" if pace else ""))
        parts.append(self._dispatcher.ready_on or "loading the model")
        if reason := self._dispatcher.holds.reason(now):
            parts.append(f"waiting: {printable(reason)}")
        return ", ".join(parts)

    # Waiting

    def _wait(self) -> None:
        self._follow_worker()
        now, wall = time.monotonic(), time.time()
        due = min(self._watch.next_due, self._dispatcher.next_due(now, wall), self._drain.next_due)
        seconds = min(max(0.0, due - now), self._longest_turn())
        for key, _ in self._selector.select(seconds):
            key.data()

    def _longest_turn(self) -> float:
        if self._hooks.is_busy:
            return 0.2
        if self._notifier.ping_seconds is not None:
            return min(LONGEST_TURN, self._notifier.ping_seconds)
        return LONGEST_TURN

    def _follow_worker(self) -> None:
        """Listen to the worker of this moment."""
        worker = self._dispatcher.worker
        if worker is self._listened_to:
            return
        if self._listened_to is not None:
            self._selector.unregister(self._listened_fd)  # closed by now, perhaps
        if worker is not None:
            self._listened_fd = worker.fileno()
            self._selector.register(self._listened_fd, selectors.EVENT_READ, lambda: None)
        self._listened_to = worker

    # Being asked

    def _answer(self, request: Reply) -> Reply:
        reply = self._commands.run(request)
        if request["verb"] == "status":
            now = time.monotonic()
            reply["daemon"] = {
                "ready": self._is_ready,
                "on": self._dispatcher.ready_on,
                "settling": self._watch.settling,
                "waiting": self._dispatcher.holds.reason(now),
                "status": self._status_line(now),
            }
        elif request["verb"] == "pause":
            self._dispatcher.stop_work()
        elif request["verb"] == "resume":
            self._dispatcher.holds.release()
        return reply

    def _is_over(self, signals: Signals) -> bool:
        """Whether to leave the loop. Once asked to end, nothing new is begun."""
        if not signals.ends:
            return False
        now, drain = time.monotonic(), self._drain
        if not drain.has_begun:
            self._notifier.stopping()
            self._dispatcher.close_down()
            limit = self._config.jobs.drain_seconds
            drain.begin(now, limit, self._dispatcher.seconds_left())
            log.info("stopping; %d file(s) being worked on", len(self._dispatcher.active))
        if drain.should_ask(now):
            self._dispatcher.stop_work()
        return not self._dispatcher.active or signals.ends > 1 or drain.is_over(now)

    def _reload(self) -> None:
        """Take a new configuration, or none of it."""
        self._notifier.reloading()
        now = time.monotonic()
        try:
            config = self._load()
            Presets(config)
            if find_places(config) != self._places:
                raise ConfigError("inbox, outbox, state_dir and archive change only with a restart")
        except ConfigError as error:
            for mistake in str(error).split("\n"):
                log.error("the old configuration stays: %s", mistake)
        else:
            self._take(config, now)
            log.info("took the new configuration")
        self._watch.rescan(now)
        self._notifier.ready()

    def _take(self, config: Config, now: float) -> None:
        self._dispatcher.reload(config)
        self._watch.reload(config.watch)
        self._hooks.close()
        self._hooks = self._hooks_of(config)
        self._config = config

    def _hooks_of(self, config: Config) -> Hooks:
        """Hooks that are new are not told of all that was done before them."""
        hooks = Hooks(commands_of(config.after), config.after.hook_seconds)
        if hooks and not self._journal.fact("hook"):
            self._journal.announce_nothing()
        self._journal.note("hook", "yes" if hooks else "")
        return hooks

    def _last_identity(self) -> Identity | None:
        device, _, inode = self._journal.fact("inbox").partition(" ")
        return (int(device), int(inode)) if inode else None
