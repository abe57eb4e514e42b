"""A cache of decoded pictures on disk, so that each is decoded once.

A cache is a folder with `pixels.XXXX`, the pictures' pixels one after the other, and `index`, which
says where each is and begins with its own checksum. Pixels are only ever appended and reach
the disk before the index that names them; the index is replaced in one step. So after a kill or a
power cut:

    while pixels are written    the index ends before them; the next writer cuts them off
    while the index is written  the old one is valid, and what was appended since is lost
    before the first index      pixels that no index names are deleted by the next writer

One process writes at a time, the others wait; reading needs no lock, since what an index has named
never changes.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from colordaemon.durable import replace_file
from colordaemon.errors import DataError, Interrupted
from colordaemon.pictures.statistics import Statistics

log = logging.getLogger(__name__)

VERSION = 1  # raise it when pixels or figures change: old caches are rebuilt then
FREE_BYTES = 10**9  # left on the disk: the run itself has to be saved too


@dataclass(frozen=True)
class CachedPixels:
    """Where the pixels of a picture are, (height, width, 3) uint8."""

    path: Path
    offset: int
    height: int
    width: int

    @property
    def end(self) -> int:
        return self.offset + self.height * self.width * 3

    def read(self) -> np.ndarray:
        # Not a memory map: a file cut short would kill the process instead of raising an error,
        # and one map would not see what was appended since.
        data = os.pread(_open(self.path), self.end - self.offset, self.offset)
        if len(data) < self.end - self.offset:
            raise DataError(f"{self.path}: cut short while it was in use; start again")
        return np.frombuffer(data, np.uint8).reshape(self.height, self.width, 3)


@cache
def _open(path: Path) -> int:
    """Open a file once for a process and its forks: pread needs no position of its own."""
    return os.open(path, os.O_RDONLY)


@dataclass(frozen=True)
class CachedPicture:
    """What is known of a picture while its file has this stamp; its pixels may not be cached."""

    stamp: str
    statistics: Statistics
    place: CachedPixels | None


class Cache:
    """The cache in a folder, for the one process that holds its lock. Writing raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, CachedPicture] = {}  # by the picture's address
        self.length = 0  # bytes of pixels
        self.saved_length = 0
        self._pixels = folder / f"pixels.{secrets.token_hex(4)}"
        self._load()
        for path in folder.glob("pixels.*"):
            if path != self._pixels:
                path.unlink()
        self._file = self._pixels.open("r+b" if self.length else "wb")
        self._file.truncate(self.length)
        self._file.seek(self.length)

    def add(
        self, address: str, stamp: str, statistics: Statistics, pixels: np.ndarray
    ) -> CachedPicture:
        """Add a picture: pixels (H, W, 3) uint8. Raises OSError when the disk is full."""
        if shutil.disk_usage(self.folder).free < FREE_BYTES + pixels.nbytes:
            raise OSError(errno.ENOSPC, f"less than {FREE_BYTES / 1e9:.1f} GB are free")
        place = CachedPixels(self._pixels, self.length, *pixels.shape[:2])
        self._file.write(np.ascontiguousarray(pixels).data)
        self.length = place.end
        self.entries[address] = CachedPicture(stamp, statistics, place)
        return self.entries[address]

    def save(self) -> None:
        """Flush what was added since the last call to the disk."""
        if self.length == self.saved_length:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        body = json.dumps(
            {
                "version": VERSION,
                "pixels": self._pixels.name,
                "length": self.length,
                "pictures": [_row(address, entry) for address, entry in self.entries.items()],
            }
        ).encode()
        replace_file(self.folder / "index", _checksum(body) + b"\n" + body)
        self.saved_length = self.length

    def close(self) -> None:
        with suppress(OSError):  # a full disk has been spoken of before
            self._file.close()
        _open(self._pixels)  # for readers: the next writer may make the cache anew and delete this

    def _load(self) -> None:
        """Load the existing cache if it is intact; otherwise start empty, and log why."""
        try:
            index = json.loads(_verified((self.folder / "index").read_bytes()))
            if index["version"] != VERSION:
                raise ValueError(f"made by another version of colordaemon ({index['version']})")
            pixels, length = self.folder / index["pixels"], index["length"]
            size = pixels.stat().st_size
            if size < length:
                raise ValueError(f"{pixels.name} has {size} bytes of {length}")
            entries = {row[0]: _entry(row, pixels) for row in index["pictures"]}
        except FileNotFoundError as error:
            if error.filename and Path(error.filename).name == "index":
                return  # a new cache
            log.warning("%s: rebuilding the cache: its pixels are missing", self.folder)
            return
        except ValueError as error:
            log.warning("%s: rebuilding the cache: %s", self.folder, error)
            return
        if length > 2 * sum(_bytes(entry) for entry in entries.values()):
            log.info("%s: rebuilding the cache: most of its pictures have changed", self.folder)
            return
        self._pixels, self.entries = pixels, entries
        self.length = self.saved_length = length


@contextmanager
def locked(folder: Path, stop: Event) -> Iterator[None]:
    """Lock a cache for writing; makes it if missing. Raises OSError, and Interrupted.

    The right ends with the process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        said = False
        while not _try_lock(lock):
            if not said:
                log.info("%s: waiting for another process to read the pictures", folder)
            said = True
            if stop.wait(0.2):
                raise Interrupted("stopped while another process looked at the pictures")
        yield
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def cache_folder_of(pictures_folder: Path, side: int, caches: Path) -> Path:
    """The cache of a folder of pictures with a short side of `side` pixels."""
    path = pictures_folder.resolve()
    digest = hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()
    return caches / f"{path.name}-{side}px-{digest}"


def _bytes(entry: CachedPicture) -> int:
    return entry.place.end - entry.place.offset if entry.place else 0


def _row(address: str, entry: CachedPicture) -> list[Any]:
    statistics, place = entry.statistics, entry.place
    assert place is not None
    return [
        address,
        entry.stamp,
        place.offset,
        place.height,
        place.width,
        statistics.colorfulness,
        statistics.chroma,
        statistics.difference_hash,
        base64.b64encode(statistics.thumbnail).decode(),
        statistics.content,
    ]


def _entry(row: list[Any], pixels: Path) -> CachedPicture:
    _, stamp, offset, height, width, colorfulness, chroma, difference_hash, thumbnail, content = row
    statistics = Statistics(
        "", colorfulness, chroma, difference_hash, base64.b64decode(thumbnail), content
    )
    return CachedPicture(stamp, statistics, CachedPixels(pixels, offset, height, width))


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).hexdigest().encode()


def _verified(data: bytes) -> bytes:
    """An index without its checksum. Raises ValueError when they do not agree."""
    checksum, _, body = data.partition(b"\n")
    if checksum != _checksum(body):
        raise ValueError("its index is damaged")
    return body
