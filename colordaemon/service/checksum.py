"""Files with checksums, as `sha256sum --check` reads them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksum(target: Path, digest: str) -> None:
    """NAME.sha256 beside a file, whole or not at all."""
    name = os.fsencode(target.name)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""  # sha256sum's sign that a name is escaped
    path = checksum_path(target)
    partial = path.with_name(f".{path.name}.partial"[-200:])
    partial.write_bytes(mark + digest.encode() + b"  " + escaped + b"\n")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def checksum_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")
