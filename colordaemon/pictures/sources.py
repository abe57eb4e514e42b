"""Where pictures come from: `sources.csv`, or `sources.csv.gz`, in a folder of labels.

A table with the columns `file` (label/name, as in the folder or its shards) and `source`. Pictures
of one source resemble each other in what the split by name cannot see (camera, light, taste), so a
collection that knows its sources can be balanced by them, and can be judged on sources that it has
never trained on.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from pathlib import Path

from colordaemon.errors import DataError

UNKNOWN = ""  # the source of every picture that the table does not name
_NAMES = ("sources.csv", "sources.csv.gz")
_MOST_BYTES = 1 << 28  # a row of some 50 bytes for each of five million pictures


def read_sources(folder: Path) -> dict[str, str]:
    """The source of each picture by its name; empty without a table. Raises DataError."""
    path = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise OSError(f"more than {_MOST_BYTES >> 20} MiB")
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


def is_table(name: str) -> bool:
    """Whether a file beside the labels is such a table."""
    return name in _NAMES
