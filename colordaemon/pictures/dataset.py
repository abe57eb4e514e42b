"""Color pictures in labeled folders or zip shards, and a split that never moves.

    DIR/landscape/…  DIR/animal/…     a label per subfolder
    DIR/*.zip                          shards with the same layout inside, read as they are

The split hashes a picture's own name (label/file), so that adding pictures, moving them between
shards or training on a subset leaves every other picture on its side. Files that are no pictures
are ignored, aloud.

A table, `sources.csv` or `sources.csv.gz` beside the labels, may say where pictures come from, in
the columns `file` (label/name, as in the folder or its shards) and `source`. Pictures of one source
resemble each other in what the split by name cannot see (camera, light, taste), so a collection
that knows its sources can be balanced by them, and can be judged on sources that it has never
trained on.
"""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from colordaemon.errors import DataError
from colordaemon.suffixes import TRAINING_SUFFIXES

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 29  # of a picture; a zip of some KB may say that one unpacks to gigabytes
UNKNOWN = ""  # the source of every picture that the table does not name
_TABLES = ("sources.csv", "sources.csv.gz")
_MOST_TABLE_BYTES = 1 << 28  # a row of some 50 bytes for each of five million pictures


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
    ignored = [f.name for f in files if not (_is_picture(f.name) or _is_table(f.name))]
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


def decode_picture(data: bytes, side: int | None = None) -> np.ndarray | None:
    """An encoded picture to (H, W, 3) uint8 sRGB; None if it cannot be read.

    side: the short side shrinks to so many pixels, averaging; smaller pictures stay as they are.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _reading_mode(data, side))
    except cv2.error:  # an empty file, or more pixels than OpenCV allows
        return None
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    if side is not None and min(height, width) > side:
        scale = side / min(height, width)
        size = max(side, round(width * scale)), max(side, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _reading_mode(data: bytes, side: int | None) -> int:
    """Read a large JPEG at 1/2, 1/4 or 1/8, several times faster, where that leaves enough of it.

    JPEG alone: its decoder averages blocks. Of other formats OpenCV decodes everything and then
    skips pixels, which saves nothing and leaves moiré.
    """
    short = _jpeg_short_side(data) if side else 0
    for factor, mode in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if side and short >= factor * side:
            return mode
    return cv2.IMREAD_COLOR


def _jpeg_short_side(data: bytes) -> int:
    """The shorter side in pixels as a JPEG's frame header says; 0 for anything else."""
    place = 2
    while data[:2] == b"\xff\xd8" and place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # those are tables
            height, width = struct.unpack_from(">HH", data, place + 5)
            return int(min(height, width))
        place += 2 + length
    return 0


def read_sources(folder: Path) -> dict[str, str]:
    """The source of each picture by its name; empty without a table. Raises DataError."""
    path = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MOST_TABLE_BYTES + 1)
        if len(data) > _MOST_TABLE_BYTES:
            raise OSError(f"more than {_MOST_TABLE_BYTES >> 20} MiB")
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a table of file and source, found {error}") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
    try:
        if not {"file", "source"} <= set(rows.fieldnames or ()):
            found = ", ".join(rows.fieldnames or ()) or "nothing"
            raise DataError(f"{path}: expected the columns file and source, found {found}")
        return {row["file"].strip(): row["source"].strip() or UNKNOWN for row in rows}
    except csv.Error as error:
        line = rows.line_num
        raise DataError(f"{path}:{line}: expected a row of file and source ({error})") from error


def _is_table(name: str) -> bool:
    """Whether a file beside the labels is such a table."""
    return name in _TABLES
