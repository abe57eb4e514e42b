"""Files with checksums, as `sha256sum --check` reads them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from colordaemon.durable import LONGEST_NAME, replace_file

_SUFFIX = ".sha256"
_READ_BYTES = 1 << 20


def sha256(path: Path, on_work: Callable[[], None] = lambda: None) -> str:
    """Of a file's bytes, in hexadecimal. on_work: called for every MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
            on_work()
    return digest.hexdigest()


def write_checksum(target: Path, digest: str) -> None:
    """NAME.sha256 beside a file, whole or not at all."""
    name = os.fsencode(target.name)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""  # sha256sum's sign that a name is escaped
    # On the disk after this: once the journal says done, nobody makes it again.
    replace_file(checksum_path(target), mark + digest.encode() + b"  " + escaped + b"\n")


def checksum_path(target: Path) -> Path:
    """Where the checksum of a file is; as much of the name as there is room for."""
    name = target.name
    while len(os.fsencode(name)) > LONGEST_NAME - len(_SUFFIX):
        name = name[:-1]
    return target.with_name(name + _SUFFIX)
