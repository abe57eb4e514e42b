"""Watches an inbox, by events and scans, and returns the files that have settled."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR

from colordaemon.clock import Monotonic
from colordaemon.config import WatchSettings
from colordaemon.errors import ConfigError
from colordaemon.inbox.events import EventSource, Hints, is_short_of_watches
from colordaemon.inbox.folders import file_system_of, is_remote
from colordaemon.inbox.safe_open import is_written_beneath, look_beneath
from colordaemon.inbox.scan import (
    GUIDES,
    Ignored,
    is_candidate,
    is_looked_into,
    sidecar_of,
    walk,
)
from colordaemon.inbox.stability import (
    Identity,
    Signature,
    StabilityTracker,
    Verdict,
)

log = logging.getLogger(__name__)

SLICE_SECONDS = 0.1  # of a turn for scanning; on a share, checking a file takes a millisecond
LOCAL_SECONDS, REMOTE_SECONDS = 5.0, 15.0  # settle time; clients of a share write late
LOST_SECONDS = 60.0  # between two warnings that events were lost
MOST_WALKS = 1000  # of single folders that wait; with more, a scan of the whole inbox is cheaper
_NO_WATCHES = "no watches are left"
Known = Callable[[Path, Signature], bool]
Walk = Iterator[tuple[Path, Signature] | None]


def settle_seconds(settings: WatchSettings, inbox: Path) -> float:
    """For how long a file must not change before it is taken."""
    if settings.settle_seconds is not None:
        return settings.settle_seconds
    return REMOTE_SECONDS if is_remote(inbox) else LOCAL_SECONDS


class Watch:
    """Watches one inbox, or waits until it exists.

    known: whether a file with this signature is in the journal already. identity: which folder the
    inbox was. enter: called when the inbox exists, before it is read; may raise ConfigError. leave:
    called when it is gone. guides: called for every file or folder that guides the colors of
    others, whenever events or scans find it. clock: measures how long a turn takes.
    """

    def __init__(
        self,
        inbox: Path,
        settings: WatchSettings,
        known: Known,
        wake: Callable[[], None] = lambda: None,
        *,
        identity: Identity | None = None,
        enter: Callable[[], None] = lambda: None,
        leave: Callable[[], None] = lambda: None,
        guides: Callable[[Path], None] = lambda path: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inbox, self._known = inbox, known
        self.identity = identity
        self._enter, self._leave, self._clock = enter, leave, clock
        self._guides = guides
        self._hints = Hints(wake)
        self._ignored = Ignored(inbox)
        self._events: EventSource | None = None
        self._configure(settings)
        self._lost_at = -math.inf  # when lost events were logged last
        self._no_events_reason = ""  # why there are no events, or not for all folders
        self._scan_at = 0.0
        self._is_outdated = False  # another scan has to follow the running one
        # Each with whether it is a scan of the whole inbox.
        self._walks: deque[tuple[bool, Walk]] = deque()
        self._hinted: dict[Path, bool] = {}
        self.trouble = ""  # why the inbox cannot be watched now
        self._is_in = False

    def _configure(self, settings: WatchSettings) -> None:
        remote = is_remote(self.inbox)
        self._settings = settings
        self._polls = settings.poll == "always" or (settings.poll == "auto" and remote)
        self._tracker = StabilityTracker(
            settle_seconds(settings, self.inbox), settings.empty_seconds
        )
        self._leases = not remote

    def start(self, now: Monotonic) -> None:
        """Start events before the first scan, so that no file is missed between the two.

        A missing inbox is watched as soon as it exists. Raises ConfigError.
        """
        try:
            self._check_root()
        except OSError as error:
            self._inbox_gone(now, error.strerror or str(error))
            return
        if not self._polls:
            self._listen()
        kind = file_system_of(self.inbox) or "unknown"
        how = "by repeated scans" if self._events is None else "by events and scans"
        log.info("watching %s (%s) %s", self.inbox, kind, how)
        self.rescan(now)

    def stop(self) -> None:
        self._stop_listening()
        self._walks.clear()  # they have folders open, which would prevent unmounting
        if self._is_in:
            self._is_in = False
            self._leave()

    def _stop_listening(self) -> None:
        if self._events is not None:
            self._events.stop()
            self._events = None

    def reload(self, settings: WatchSettings) -> None:
        """Use other settings; settling files start to settle again at the next scan."""
        self._stop_listening()
        self._configure(settings)

    def rescan(self, now: Monotonic) -> None:
        """Scan the whole inbox at the next turn."""
        self._scan_at = now

    @property
    def is_gone(self) -> bool:
        return bool(self.trouble)

    @property
    def settling(self) -> int:
        return len(self._tracker)

    @property
    def is_busy(self) -> bool:
        """Whether a scan goes on or events are still to be handled."""
        return bool(self._walks or self._hinted)

    def turn(self, now: Monotonic) -> dict[Path, Signature]:
        """Handle events and scan, for SLICE_SECONDS at most; returns the files that are complete by
        now, each as it is; the size of one that has stayed empty for too long is 0."""
        hinted, lost = self._hints.take()
        if lost:
            self._lose_events(now)
        if now >= self._scan_at:
            self._begin_scan(now)
        if not self.is_gone:
            self._hinted |= hinted
        until = self._clock() + SLICE_SECONDS
        while self._hinted and self._clock() < until:
            path = next(iter(self._hinted))
            with self._of_one_file(path):
                self._follow(path, self._hinted.pop(path), now)
        self._walk(now, until)
        return {} if self.is_gone else dict(self._settled(now))

    def _lose_events(self, now: Monotonic) -> None:
        if now >= self._lost_at + LOST_SECONDS:
            self._lost_at = now
            log.warning("events were lost; scanning the whole inbox %s", self.inbox)
        self.rescan(now)

    def _follow(self, path: Path, is_folder: bool, now: Monotonic) -> None:
        """Handle an event: the file, or all files in the folder, begin to settle."""
        if not path.is_relative_to(self.inbox) or os.path.islink(path):  # noqa: PTH114  (never raises)
            return
        if is_folder and len(self._walks) > MOST_WALKS:
            self._walks = deque(each for each in self._walks if each[0])
            self.rescan(now)
        elif is_folder and is_looked_into(path, self.inbox):
            self._walks.append((False, walk(path, self._pass_over, self.inbox)))
        elif guiding := sidecar_of(path, self.inbox):
            self._guides(guiding)
        elif is_candidate(path, self.inbox):
            signature = look_beneath(self.inbox, path)
            if signature and not self._known(path, signature):
                self._tracker.touch(path, signature, now)

    def _pass_over(self, path: str, reason: str) -> None:
        if reason is GUIDES:
            self._guides(Path(path))
        self._ignored.notice(path, reason)

    def _notice(self, path: Path, signature: Signature, now: Monotonic) -> None:
        with self._of_one_file(path):
            if not self._known(path, signature):
                self._tracker.notice(path, signature, now)

    @contextmanager
    def _of_one_file(self, path: Path) -> Iterator[None]:
        """Log an error of one file once, so that it does not stop the work on other files."""
        try:
            yield
        except (OSError, ValueError, OverflowError) as error:
            self._ignored.notice(str(path), f"it cannot be read: {error}")

    def _begin_scan(self, now: Monotonic) -> None:
        """Listen first and look then, so that nothing falls between the two."""
        self._scan_at = math.inf
        if any(is_whole for is_whole, _ in self._walks):
            self._is_outdated = True
            return
        self._is_outdated = False
        try:
            self._check_root()
        except (ConfigError, OSError) as error:
            self._inbox_gone(now, getattr(error, "strerror", None) or str(error))
            return
        if not self._polls and not self._has_all_events():
            self._listen()
        self._walks.append((True, walk(self.inbox, self._pass_over)))

    def _walk(self, now: Monotonic, until: float) -> None:
        """Go on with scans until the time is over."""
        while self._walks:
            is_whole, steps = self._walks[0]
            try:
                found = next(steps, self)
            except OSError as error:  # a folder is gone; the next scan notices it
                self._walks.popleft()
                if is_whole:
                    self._inbox_gone(now, error.strerror or str(error))
                continue
            if is_whole and self.is_gone:
                log.info("%s is there; watching it", self.inbox)
                self.trouble = ""
            if isinstance(found, Watch):
                self._walks.popleft()
                if is_whole:
                    self._end_scan(now)
            elif found is not None and (is_whole or is_candidate(found[0], self.inbox)):
                self._notice(*found, now)
            if self._clock() >= until:
                return

    def _end_scan(self, now: Monotonic) -> None:
        if self._events is not None and not self._no_events_reason and is_short_of_watches():
            self._events_incomplete(_NO_WATCHES)
        often = self._polls or self._no_events_reason or self._events is None
        seconds = self._settings.poll_seconds if often else self._settings.scan_seconds
        self._scan_at = now if self._is_outdated else min(self._scan_at, now + seconds)

    def _check_root(self) -> None:
        """Check that the inbox exists and is the same folder. An empty folder in its place is the
        mount point of an unmounted share; its files are not gone then."""
        found = self.inbox.stat()
        if not S_ISDIR(found.st_mode):
            raise NotADirectoryError(0, "it is not a folder")
        identity = found.st_dev, found.st_ino
        if self.identity not in (None, identity) and not any(self.inbox.iterdir()):
            raise OSError(0, "another, empty folder is in its place; is the disk mounted?")
        if self._is_in and self.identity == identity:
            return
        self.stop()
        self._enter()
        self._is_in, self.identity = True, identity
        self._configure(self._settings)  # it may be on another kind of file system now

    def _inbox_gone(self, now: Monotonic, reason: str) -> None:
        self.stop()
        self._tracker.clear()
        self._hinted.clear()
        self._scan_at = now + self._settings.poll_seconds
        if reason != self.trouble:
            log.warning("%s cannot be watched: %s; waiting for it", self.inbox, reason)
        self.trouble = reason

    def _has_all_events(self) -> bool:
        """Whether events arrive for every folder, as far as we know."""
        if self._events is None or not self._events.is_alive:
            return False
        return not self._no_events_reason or is_short_of_watches()  # no more watches are available

    def _listen(self) -> None:
        """Start events. If that fails, because no watches are left for instance, scans find
        everything."""
        self._stop_listening()
        events = EventSource(self.inbox, self._hints)
        try:
            events.start()
        except OSError as error:
            self._events_incomplete(error.strerror or str(error))
            return
        self._events = events
        if is_short_of_watches():
            self._events_incomplete(_NO_WATCHES)
        else:
            self._no_events_reason = ""

    def _events_incomplete(self, reason: str) -> None:
        if reason != self._no_events_reason:
            log.warning(
                "no events of %s or of a part of it (%s); scanning every %g s instead (is "
                "fs.inotify.max_user_watches too low?)",
                self.inbox,
                reason,
                self._settings.poll_seconds,
            )
        self._no_events_reason = reason

    def _settled(self, now: Monotonic) -> Iterator[tuple[Path, Signature]]:
        for path in self._tracker.due(now):
            signature = look_beneath(self.inbox, path)
            written = (
                self._leases and signature is not None and is_written_beneath(self.inbox, path)
            )
            verdict = self._tracker.judge(path, signature, now, written=written)
            if verdict in (Verdict.SETTLED, Verdict.EMPTY):
                assert signature is not None
                yield path, signature
