"""Results appear complete or not at all.

| the power fails …                 | on disk afterwards                     |
|-----------------------------------|----------------------------------------|
| while the partial file is written | a hidden folder, never the target      |
| after it is flushed               | the same, complete                     |
| after it got its name             | the target, complete; maybe two names  |
| after the folder is flushed       | the target alone                       |
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from colordaemon.config import Algorithm, Config
from colordaemon.convert.routing import first_fitting
from colordaemon.durable import LONGEST_NAME, flush_file, flush_folder, rename_new, replace_file
from colordaemon.errors import TargetExists, TargetTaken

log = logging.getLogger(__name__)

PREVIEW, RESULT_MD5, SOURCE_MD5 = ".preview.jpg", ".framemd5", ".source.framemd5"
BESIDE = (PREVIEW, RESULT_MD5, SOURCE_MD5)  # what files beside a result end in; see `beside`
RESULT = "result.partial"  # in a folder of unfinished work
# Errors of FAT and of shares that cannot store modes or times.
_NOT_KEPT = {errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_READ_BYTES = 1 << 20


def target_for(source: Path, suffix: str, config: Config, made: Mapping[Path, Path]) -> Path:
    """The path of the result of a source.

    made: results that are not replaced even if `overwrite` is set, by their resolved paths, with
    their sources. Raises TargetTaken, and TargetExists also if it would be the source itself.
    """
    folder = config.output.folder or source.parent
    target = folder / result_name(source, suffix, config)
    refuse_taken(source, target, made)
    if target.exists() and target.samefile(source):
        raise TargetExists(f"{source}: the result would replace its own source")
    if stands_under_another_name(target):
        raise TargetExists(f"{source}: {target} exists with other letter case; not replaced")
    if target.exists() and not config.output.overwrite:
        raise TargetExists(f"{source}: {target} exists already; --overwrite replaces it")
    return target


def refuse_taken(source: Path, target: Path, made: Mapping[Path, Path]) -> None:
    """Raises TargetTaken if the result of another source was given this name; see `target_for`."""
    if other := made.get(target.resolve()):
        raise TargetTaken(f"{source}: its result would replace {target}, just made from {other}")


def result_name(source: Path, suffix: str, config: Config) -> str:
    """The name of the result of a source, by the pattern of the settings; a stem that is too long
    for a name is shortened.

    The date is that of the source, so that the name is the same whenever the work is done.
    """
    model = first_fitting(source, config.models, config.model.file)
    fields = {
        "suffix": suffix,
        "model": model.stem if model else "built-in",
        "quality": config.model.quality,
        "folder": source.parent.resolve().name,
    }
    if "{date}" in config.output.name:
        fields["date"] = _day_of(source)
    stem = source.stem
    while True:
        name = config.output.name.format(stem=stem, **fields)
        if len(os.fsencode(name)) <= LONGEST_NAME or len(stem) <= 1:
            return name
        stem = stem[:-1]


def _day_of(source: Path) -> str:
    try:
        return f"{datetime.fromtimestamp(source.stat().st_mtime):%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):  # some file systems store years that Python lacks
        return "undated"


def numbered(target: Path, number: int) -> Path:
    """NAME (2).mp4 for a NAME.mp4 that is taken."""
    stem, mark = target.stem, f" ({number}){target.suffix}"
    while stem and len(os.fsencode(stem + mark)) > LONGEST_NAME:
        stem = stem[:-1]
    return target.with_name(stem + mark)


def seal(partial: Path, source: Path) -> None:
    """Give a finished file the mode and times of its source, and flush data and name to the disk.

    The group is that of the folder, by its setgid bit, since changing it needs a privilege. If the
    file system cannot store modes or times, that is logged and is no error.
    """
    found = source.stat()
    try:
        partial.chmod(stat.S_IMODE(found.st_mode) & 0o777)
        os.utime(partial, ns=(found.st_atime_ns, found.st_mtime_ns))
    except OSError as error:
        if error.errno not in _NOT_KEPT:
            raise
        _tell_not_kept(found.st_dev, error.strerror or str(error))
    flush_file(partial)
    flush_folder(partial.parent)


@lru_cache(maxsize=64)  # logs it once for each device
def _tell_not_kept(device: int, reason: str) -> None:
    del device
    log.warning("results do not get the modes and times of their sources here: %s", reason)


def publish(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a finished file to its target.

    Raises TargetExists if the name was taken meanwhile.
    """
    flush_file(partial)
    if overwrite:
        partial.replace(target)
    else:
        try:
            rename_new(partial, target)
        except FileExistsError:
            said = f"{target} appeared while it was being made; not replaced"
            raise TargetExists(said) from None
    flush_folder(target.parent)


def stands_under_another_name(path: Path) -> bool:
    """Whether a file exists whose name differs in letter case only: some file systems find "A.png"
    for "a.png"."""
    return os.path.lexists(path) and path.name not in os.listdir(path.parent)  # noqa: PTH208


def sha256(path: Path, tell: Callable[[float], None] = lambda share: None) -> str:
    """The SHA-256 of a file, in hexadecimal; see `digest_of`."""
    return digest_of(path, "sha256", tell)


def digest_of(
    path: Path, algorithm: Algorithm, tell: Callable[[float], None] = lambda share: None
) -> str:
    """A checksum of a file, in hexadecimal. tell: called for every MiB with the share that is done,
    0..1."""
    digest, done = hashlib.new(algorithm, usedforsecurity=False), 0
    with path.open("rb") as file:
        size = max(1, os.fstat(file.fileno()).st_size)
        while part := file.read(_READ_BYTES):
            digest.update(part)
            done += len(part)
            tell(min(1.0, done / size))
    return digest.hexdigest()


def is_digest(text: str, algorithm: Algorithm) -> bool:
    """Whether a checksum may be one of this kind, by its length."""
    return len(text) == 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size


def write_checksum(target: Path, digest: str, algorithm: Algorithm = "sha256") -> None:
    """Write NAME.sha256 or NAME.md5 beside a file, complete or not at all."""
    name = os.fsencode(target.name)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""  # sha256sum's sign that a name is escaped
    # Flushed to the disk, since it is not made again once the journal says done.
    replace_file(beside(target, f".{algorithm}"), mark + digest.encode() + b"  " + escaped + b"\n")


def publish_beside(folder: Path, target: Path) -> None:
    """Give the files that were made for a result in its folder of unfinished work their names
    beside it; older ones of these names are replaced. Does nothing where that is done already."""
    made = [(path, kind) for kind in BESIDE if (path := held(folder, kind)).exists()]
    for path, kind in made:
        path.replace(beside(target, kind))
    if made:
        flush_folder(target.parent)


def held(folder: Path, kind: str) -> Path:
    """What a file of BESIDE is called until its result has a name."""
    return folder / f"beside{kind}"


def beside(target: Path, suffix: str) -> Path:
    """The path of a file that belongs to a result; a name that is too long is shortened."""
    name = target.name
    while len(os.fsencode(name)) > LONGEST_NAME - len(suffix):
        name = name[:-1]
    return target.with_name(name + suffix)
