"""Color pictures in labeled folders or zip shards, and a split that never moves.

    DIR/landscape/…  DIR/animal/…     a label per subfolder
    DIR/*.zip                          shards with the same layout inside, read as they are

The split hashes a picture's own name (label/file), so that adding pictures, moving them between
shards or training on a subset leaves every other picture on its side. Files that are no pictures
are ignored, aloud.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np

from colordaemon.errors import DataError
from colordaemon.pictures.decode import decode_picture
from colordaemon.pictures.sources import UNKNOWN, is_table, read_sources
from colordaemon.suffixes import TRAINING_SUFFIXES

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 29  # of a picture; a zip of some KB may say that one unpacks to gigabytes


@dataclass(frozen=True)
class Picture:
    """One training picture: `name` is label/file, inside `archive` if there is one."""

    label: str
    name: str
    path: Path
    archive: bool

    def read(self) -> bytes:
        """Its bytes. Raises OSError, also if it is larger than MOST_BYTES, and what zipfile raises
        for a damaged shard."""
        shard = _open_shard(self.path, os.getpid()) if self.archive else None
        size = shard.getinfo(self.name).file_size if shard else self.path.stat().st_size
        if size > MOST_BYTES:
            reason = f"{size >> 20} MiB, expected at most {MOST_BYTES >> 20}"
            raise OSError(errno.EFBIG, reason, self.address)
        return shard.read(self.name) if shard else self.path.read_bytes()

    @property
    def address(self) -> str:
        """Its name and its shard: two shards may hold files of the same name."""
        return f"{self.path.name}:{self.name}" if self.archive else self.name

    def stamp(self) -> str:
        """Changes whenever the file changes: size and time, in a shard its checksum too."""
        status = self.path.stat()
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
        if not self.archive:
            return stamp
        return f"{stamp}-{_open_shard(self.path, os.getpid()).getinfo(self.name).CRC:08x}"

    def pixels(self, side: int | None = None) -> np.ndarray:
        """(H, W, 3) uint8 sRGB; the short side at most `side` pixels. Raises DataError."""
        pixels = decode_picture(self.read(), side)
        if pixels is None:
            raise DataError(f"{self.path}: {self.name} could be read before, now it cannot")
        return pixels


@cache
def _open_shard(path: Path, pid: int) -> zipfile.ZipFile:
    """One open shard per process: forked loaders that share a file would share its position."""
    return zipfile.ZipFile(path)


def find_pictures(folder: Path, subset: str | None = None) -> list[Picture]:
    """All pictures of a folder, sorted by name. Raises DataError when there are none.

    subset: one label to keep.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with a subfolder of pictures per label")
    files = list(_files(folder))
    pictures = [file for file in files if file.label and _is_picture(file.name)]
    labels = sorted({picture.label for picture in pictures})
    if not pictures:
        raise DataError(f"{folder}: no pictures found in its subfolders or zip shards")
    if subset is not None:
        if subset not in labels:
            raise DataError(f"{folder}: no label {subset!r}, it has {', '.join(labels)}")
        files = [file for file in files if file.label in ("", subset)]
        pictures = [picture for picture in pictures if picture.label == subset]
    _warn_of_others(folder, files)
    if subset is None:
        _warn_of_empty_labels(folder, labels)
    return sorted(pictures, key=lambda picture: picture.name)


def _files(folder: Path) -> Iterator[Picture]:
    """Every file of a folder and its shards, pictures or not; those of no label have label ""."""
    for entry in sorted(folder.iterdir()):
        if _is_hidden(entry.name):
            continue
        if entry.is_dir():
            for path in sorted(entry.rglob("*")):
                name = path.relative_to(folder).as_posix()
                if path.is_file() and not _is_hidden(name):
                    yield Picture(entry.name, name, path, False)
        elif entry.suffix.lower() == ".zip":
            yield from _shard_files(entry)
        else:
            yield Picture("", entry.name, entry, False)


def _is_hidden(name: str) -> bool:
    """Whether a file belongs to the system, such as the ._x.jpg that macOS puts into zips."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _warn_of_others(folder: Path, files: Sequence[Picture]) -> None:
    """Log the files that training ignores."""
    ignored = [f.name for f in files if not (_is_picture(f.name) or is_table(f.name))]
    outside = [file.name for file in files if not file.label and _is_picture(file.name)]
    for names, what in ((ignored, "not a picture"), (outside, "not in a label's folder")):
        if names:
            shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            log.warning("%s: %d ignored, %s: %s", folder, len(names), what, shown)


def _warn_of_empty_labels(folder: Path, labels: Sequence[str]) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not _is_hidden(entry.name) and entry.name not in labels:
            log.warning("%s: no picture in this folder", entry)


def _shard_files(path: Path) -> Iterator[Picture]:
    try:
        with zipfile.ZipFile(path) as shard:
            names = [entry.filename for entry in shard.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: expected a zip of label folders, found {error}") from error
    for name in names:
        if not _is_hidden(name):
            label = PurePosixPath(name).parts[0] if "/" in name else ""
            yield Picture(label, name, path, True)


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in TRAINING_SUFFIXES


def split(pictures: Sequence[Picture], held_out: float) -> tuple[list[Picture], list[Picture]]:
    """Training and validation pictures; the latter are a share `held_out` (0..1) of the names."""
    sides: tuple[list[Picture], list[Picture]] = ([], [])
    for picture in pictures:
        sides[is_held_out(picture.name, held_out)].append(picture)
    return sides


def sources_of(folder: Path, pictures: Sequence[Picture], wanted: Sequence[str]) -> list[str]:
    """The source of each picture. Raises DataError when the folder has none of those `wanted`."""
    table = read_sources(folder)
    missing = sorted(set(wanted) - set(table.values()))
    if missing:
        known = ", ".join(sorted(set(table.values()) - {UNKNOWN})) or "none: it has no sources.csv"
        raise DataError(f"{folder}: no picture of the source {missing[0]!r}; it names {known}")
    sources = [table.get(picture.name, UNKNOWN) for picture in pictures]
    unknown = sources.count(UNKNOWN)
    if table and unknown:
        log.warning("%s: %d of %d pictures have no source", folder, unknown, len(pictures))
    return sources


def is_held_out(name: str, share: float) -> bool:
    """Whether a picture is for validation, by its name alone; so is a `share` (0..1) of names."""
    return lot(name) < share


def lot(name: str) -> float:
    """A number in 0..1 that depends only on a picture's name."""
    digest = hashlib.blake2b(_bytes(name), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def fingerprint(pictures: Sequence[Picture]) -> str:
    """A hash of the pictures' names, to tell later what a model was trained on."""
    names = "\n".join(picture.name for picture in pictures)
    return hashlib.sha256(_bytes(names)).hexdigest()[:16]


def _bytes(name: str) -> bytes:
    """A name for hashing; file names that are no UTF-8 keep their own bytes."""
    return name.encode(errors="surrogateescape")


def readable(pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """Sort out pictures that cannot be read: the good ones, and the names of the others."""
    verdicts: list[bool] = []
    # One read at a time (shards are not thread-safe), decoding beside it; a few pictures at a time,
    # because map reads ahead without bound and would hold the whole collection in memory.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for first in range(0, len(pictures), 64):
            verdicts += pool.map(_can_decode, map(_data, pictures[first : first + 64]))
    judged = list(zip(pictures, verdicts, strict=True))
    return [p for p, good in judged if good], [p.name for p, good in judged if not good]


def _data(picture: Picture) -> bytes | None:
    """A picture's bytes; None where the file or its place in the shard is damaged."""
    try:
        return picture.read()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return None  # the last two: a compression that Python lacks, a password


def _can_decode(data: bytes | None) -> bool:
    return data is not None and decode_picture(data) is not None
