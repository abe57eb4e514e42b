"""Events of the inbox, gathered as hints about which files to look at.

Events are dropped by the kernel when there are too many, and not all that happens makes one: a
file renamed into the inbox, a hard link and a folder moved in are only "created", and rsync's last
step only "moved". Nothing is concluded from them but that a path is worth a look.
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

log = logging.getLogger(__name__)

# Without this filter every file that we read would tell of its own opening and closing, and every
# block that is copied of a change; a second look before a file is taken sees changes anyway.
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
_MOST = 50_000  # paths that wait; with more of them, a scan is cheaper


class Hints:
    """Paths that something happened to, filled by watchdog's threads and emptied by ours."""

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
        """Some events were dropped; nobody knows which."""
        with self._lock:
            self._lost = True
        self._wake()

    def take(self) -> tuple[dict[Path, bool], bool]:
        """The paths so far, each with whether it is a folder, and whether others were lost."""
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
                self._hints.lose()  # the root itself: this watch is dead
            return
        path = event.dest_path if isinstance(event, (FileMovedEvent, DirMovedEvent)) else ""
        self._hints.add(Path(os.fsdecode(path or event.src_path)), is_folder=event.is_directory)


class _Overflow(logging.Handler):
    """watchdog 7 tells nobody but its log when the kernel has dropped events."""

    def __init__(self, hints: Hints) -> None:
        super().__init__(logging.WARNING)
        self._hints = hints

    def emit(self, record: logging.LogRecord) -> None:
        self._hints.lose()


class _Folders(InotifyWatchGroup):
    """The watches of an inbox, as deep as scans go.

    watchdog's own goes through all folders within each new one, and calls itself for each level: in
    a chain of a thousand folders that is half a million events, and then the end of its thread. And
    where a folder is found twice, which is usual, it warns with a list of all there are.
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
        return []  # whoever hears of a folder looks at all that is in it


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
        """Of a folder that has come, it tells first of itself and then of all that is in it."""
        with suppress(RecursionError):
            super().build_and_queue_event(event, full_events=full_events)


class EventSource:
    """Watches an inbox with watchdog for as long as it is open."""

    def __init__(self, inbox: Path, hints: Hints) -> None:
        self._inbox, self._hints = inbox, hints
        self._observer: BaseObserver | None = None
        self._overflow = _Overflow(hints)

    def start(self) -> None:
        """Raises OSError when the inbox cannot be watched, for instance for want of watches."""
        # A folder that comes back under another name is warned of with a list of all there are.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        observer = InotifyObserver()
        observer._emitter_class = _Emitter
        handler = _Handler(self._inbox, self._hints)
        observer.schedule(handler, str(self._inbox), recursive=True, event_filter=_EVENTS)
        logging.getLogger("watchdog.observers").addHandler(self._overflow)
        try:
            observer.start()
        except BaseException:
            observer.stop()  # its reader has begun already
            self.stop()
            raise
        self._observer = observer

    @property
    def is_alive(self) -> bool:
        """Whether events still arrive: a watch whose root was deleted ends for good."""
        if self._observer is None or not self._observer.is_alive():
            return False
        # What raises in its reader ends all events.
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
    """Whether the kernel gives this user no watch more. watchdog says nothing of folders that it
    could not watch for that reason."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_CLOEXEC)
    if handle < 0:
        return False  # it is instances that are short, and that has nothing to do with folders
    try:
        watch = libc.inotify_add_watch(handle, b"/", _IN_DELETE_SELF)
        return watch < 0 and ctypes.get_errno() == errno.ENOSPC
    finally:
        os.close(handle)
