"""What the kernel tells of the folders of an inbox: hints about which files are worth a look.

A look at the inbox (see `scan`) asks for events of every folder that it comes to, before it reads
what lies in it, so that nothing falls between the two. Events are dropped when there are too many,
and a folder whose name has changed is told of by its old one until the next look; nothing is
concluded from them but that a path is worth a look. Layout: inotify(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import selectors
import struct
from pathlib import Path

# Neither opening nor each block that is copied: a second look before a file is taken sees changes
# anyway. IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE, IN_DELETE_SELF, IN_MOVE_SELF, IN_ONLYDIR.
_MASK = 0x8 | 0x80 | 0x100 | 0x400 | 0x800 | 0x0100_0000
_IS_FOLDER, _OVERFLOW, _IGNORED, _UNMOUNT = 0x4000_0000, 0x4000, 0x8000, 0x2000
_SELF = 0x400 | 0x800
_EVENT = struct.Struct("iIII")  # watch, what happened, cookie, length of the name
_MOST_BYTES, _READS = 1 << 16, 16  # of one read, and how many of them
_MOST = 50_000  # paths that wait; with more of them, a look at the whole inbox is cheaper

_libc = ctypes.CDLL(None, use_errno=True)


class Events:
    """Of one inbox, for as long as it is open; the selector wakes whoever waits for them.

    Raises OSError where the kernel gives this user no more of them.
    """

    def __init__(self, inbox: Path, selector: selectors.BaseSelector) -> None:
        self._inbox, self._selector = inbox, selector
        self._handle = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        selector.register(self._handle, selectors.EVENT_READ, lambda: None)
        self._folders: dict[int, Path] = {}
        self._hints: dict[Path, bool] = {}
        self._lost = False
        self.is_alive = True  # until the inbox itself is gone

    def __len__(self) -> int:
        """Folders that are listened to."""
        return len(self._folders)

    def listen_to(self, folder: Path, anchor: Path) -> None:
        """From now on tell of what happens in a folder; again and again does no harm.

        anchor: a way to it that no link can lead astray. Raises OSError, above all ENOSPC.
        """
        watch = _libc.inotify_add_watch(self._handle, os.fsencode(anchor), _MASK)
        self._folders[_check(watch)] = folder

    def take(self) -> tuple[dict[Path, bool], bool]:
        """The paths since this was asked last, each with whether it is a folder, and whether some
        were lost; nobody knows which."""
        self._read()
        hints, lost = self._hints, self._lost
        self._hints, self._lost = {}, False
        return hints, lost

    def close(self) -> None:
        self._selector.unregister(self._handle)
        os.close(self._handle)

    def _read(self) -> None:
        """As many as wait now, and not what is added meanwhile: that could go on for ever."""
        for _ in range(_READS):
            try:
                data = os.read(self._handle, _MOST_BYTES)
            except BlockingIOError:
                return
            position = 0
            while position < len(data):
                watch, happened, _, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size + length
                name = data[position - length : position].rstrip(b"\0")
                self._heed(watch, happened, os.fsdecode(name))

    def _heed(self, watch: int, happened: int, name: str) -> None:
        folder = self._folders.get(watch)
        if happened & _IGNORED:  # the folder is gone, and its watch with it
            self._folders.pop(watch, None)
        elif happened & _OVERFLOW:
            self._lost = True
        elif folder == self._inbox and happened & (_SELF | _UNMOUNT):
            self._lost, self.is_alive = True, False
        elif folder is not None and name:
            self._hints[folder / name] = bool(happened & _IS_FOLDER)
            if len(self._hints) > _MOST:
                self._lost = True
                self._hints.clear()


def _check(result: int) -> int:
    """Raises OSError for what the kernel has refused."""
    if result < 0:
        number = ctypes.get_errno()
        reason = os.strerror(number)
        if number == errno.ENOSPC:
            reason = "the limit fs.inotify.max_user_watches is reached"
        elif number == errno.EMFILE:
            reason = "the limit fs.inotify.max_user_instances, or that of open files, is reached"
        raise OSError(number, reason)
    return result
