"""Collects file system events of an inbox as hints which paths to check.

The kernel drops events when there are too many, and they are not precise: a file renamed into the
inbox, a hard link and a folder moved in are only "created", and rsync's last step is only "moved".
So an event only means that its path should be checked.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyEvent
from watchdog.observers.inotify_move_event_grouper import GroupedInotifyEvent

from colordaemon.inbox.scan import DEEPEST

# Without this filter there would be events for every file that we read, and for every block that is
# copied. Changes are found anyway, by the check before a file is taken.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileMovedEvent,
    FileClosedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
_IN_DELETE_SELF = 0x400
_MOST = 50_000  # paths that are kept; with more, a scan is cheaper


class Hints:
    """Paths with events, added by watchdog's threads and taken by the main loop."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._lock, self._wake = Lock(), wake
        self._paths: dict[Path, bool] = {}
        self._lost = False

    def add(self, path: Path, *, is_folder: bool = False) -> None:
        with self._lock:
            if len(self._paths) >= _MOST:
                self._lost = True
                self._paths.clear()
            self._paths[path] = is_folder
        self._wake()

    def lose(self) -> None:
        """Record that events were lost, without knowing which."""
        with self._lock:
            self._lost = True
        self._wake()

    def take(self) -> tuple[dict[Path, bool], bool]:
        """The paths so far, each with whether it is a folder, and whether events were lost."""
        with self._lock:
            paths, lost = self._paths, self._lost
            self._paths, self._lost = {}, False
        return paths, lost


class _Handler(FileSystemEventHandler):
    def __init__(self, inbox: Path, hints: Hints) -> None:
        self._inbox, self._hints = inbox, hints

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, DirDeletedEvent):
            if Path(os.fsdecode(event.src_path)) == self._inbox:
                self._hints.lose()  # the inbox itself: its watch has ended
            return
        path = event.dest_path if isinstance(event, (FileMovedEvent, DirMovedEvent)) else ""
        self._hints.add(Path(os.fsdecode(path or event.src_path)), is_folder=event.is_directory)


class _Overflow(logging.Handler):
    """Notices lost events by watchdog's log messages, since watchdog 7 has no other sign of
    them."""

    def __init__(self, hints: Hints) -> None:
        super().__init__(logging.WARNING)
        self._hints = hints

    def emit(self, record: logging.LogRecord) -> None:
        self._hints.lose()


class _Folders(InotifyWatchGroup):
    """The watches of an inbox, as deep as scans go.

    watchdog's own class goes through all folders within each new one, recursively: in a chain of a
    thousand folders that makes half a million events, and then its thread ends with an error. If it
    finds a folder twice, which is usual, it warns with a list of all folders.
    """

    def _add_all_callbacks(self, path: bytes) -> None:
        folders = [path]
        while folders:
            folder = folders.pop()
            self._add_callback(folder)
            if folder.count(b"/") - self.path.count(b"/") < DEEPEST - 1:
                with suppress(OSError), os.scandir(folder) as entries:
                    folders += [each.path for each in entries if each.is_dir(follow_symlinks=False)]

    def _add_callback(self, path: bytes) -> None:
        if path not in self._active_callbacks_by_path:
            super()._add_callback(path)

    def _recursive_simulate(self, src_path: bytes) -> list[InotifyEvent]:
        return []  # a new folder is scanned anyway


class _Emitter(InotifyEmitter):
    def on_thread_start(self) -> None:
        self._inotify = _Folders(
            self._inotify_fd,
            os.fsencode(self.watch.path),
            is_recursive=True,
            event_mask=self.get_event_mask_from_filter(),
        )

    def build_and_queue_event(
        self, event: GroupedInotifyEvent, *, full_events: bool = False
    ) -> None:
        """For a new folder the base class makes events of the folder and then of all that is in
        it."""
        with suppress(RecursionError):
            super().build_and_queue_event(event, full_events=full_events)


class EventSource:
    """Watches an inbox with watchdog for as long as it is open."""

    def __init__(self, inbox: Path, hints: Hints) -> None:
        self._inbox, self._hints = inbox, hints
        self._observer: BaseObserver | None = None
        self._overflow = _Overflow(hints)

    def start(self) -> None:
        """Raises OSError if the inbox cannot be watched, for instance because no watches are
        left."""
        # For a folder that is renamed watchdog warns with a list of all folders.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        observer = InotifyObserver()
        observer._emitter_class = _Emitter
        handler = _Handler(self._inbox, self._hints)
        observer.schedule(handler, str(self._inbox), recursive=True, event_filter=_EVENTS)
        logging.getLogger("watchdog.observers").addHandler(self._overflow)
        try:
            observer.start()
        except BaseException:
            observer.stop()  # its reader thread runs already
            self.stop()
            raise
        self._observer = observer

    @property
    def is_alive(self) -> bool:
        """Whether events still arrive: a watch ends when its inbox is deleted."""
        if self._observer is None or not self._observer.is_alive():
            return False
        # An exception in the reader thread ends all events.
        reader: Thread | None = getattr(self._observer, "_inotify_fd", None)
        if reader is not None and not reader.is_alive():
            return False
        return all(emitter.is_alive() for emitter in self._observer.emitters)

    def stop(self) -> None:
        logging.getLogger("watchdog.observers").removeHandler(self._overflow)
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None


def is_short_of_watches() -> bool:
    """Whether this user has no inotify watches left. watchdog does not report folders that it could
    not watch for that reason."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_CLOEXEC)
    if handle < 0:
        return False  # no instances are left, which is another limit
    try:
        watch = libc.inotify_add_watch(handle, b"/", _IN_DELETE_SELF)
        return watch < 0 and ctypes.get_errno() == errno.ENOSPC
    finally:
        os.close(handle)
