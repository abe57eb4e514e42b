"""Folders and globs that files are told apart by, in `models` and `presets`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePath


def fits(source: PurePath, pattern: str) -> bool:
    """Whether a file lies in a folder of that name ("faces", "scans/faces"), or matches a glob.

    A glob ("portrait-*", "faces/*.tif") is compared with the name, or with as many of the last
    folders as it has; * does not reach across folders.
    """
    wanted, parts = PurePath(pattern).parts, source.parts
    if any(letter in pattern for letter in "*?["):
        last = parts[-len(wanted) :]
        return len(last) == len(wanted) and all(map(fnmatchcase, last, wanted))
    folders = parts[:-1]
    starts = range(len(folders) - len(wanted) + 1)
    return any(folders[start : start + len(wanted)] == wanted for start in starts)
