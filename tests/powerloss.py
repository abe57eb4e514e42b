"""A record of what a program does to its files, for the power to fail at any step of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from wrecks import Committed, Flushed, Named, Step, Wreck, Written, wrecks_after

from colordaemon import durable

_STEPS = ("link", "unlink", "replace", "rename", "mkdir", "rmdir")


class Recorder:
    """Watches a root, whose journal lies elsewhere, while `recording`.

    Everything is found by looking at the disk before and after each operation on names, so that it
    does not matter by which function a file was written. Files and folders get numbers of our own,
    folders negative ones, because file systems give inode numbers again.
    """

    def __init__(self, root: Path, journal: Path) -> None:
        self._root, self._journal = root, journal
        self._numbers: dict[int, int] = {}  # by inode
        self._names: dict[tuple[int, str], int] = {}
        self._written: dict[int, Written] = {}
        self._count = 0
        self.steps: list[Step] = []
        self._look(together=False)
        if journal.exists():
            with closing(sqlite3.connect(journal)) as db:
                self.committed(db)
        self._before = len(self.steps)  # what was there before is safe

    def recording(self, patch: pytest.MonkeyPatch) -> None:
        """From here to the end of the patch."""
        for name in _STEPS:
            patch.setattr(os, name, self._watched(getattr(os, name)))
        patch.setattr(durable, "rename_noreplace", self._watched(durable.rename_noreplace))
        patch.setattr(os, "fsync", self._fsync(os.fsync))
        recorder, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            _changes = 0

            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                rows: Any = super().execute(*arguments)
                if not arguments[0].lstrip().upper().startswith(("SELECT", "PRAGMA")):
                    rows = _Fetched(rows)  # or it is committed only when its last row is read
                if self.total_changes != self._changes and not self.in_transaction:
                    self._changes = self.total_changes
                    recorder.committed(self)
                fetched: sqlite3.Cursor = rows  # or as much of one as is used
                return fetched

        patch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Connection, **k))

    def committed(self, journal: sqlite3.Connection) -> None:
        self._look(together=False)
        self.steps.append(Committed(journal.serialize(), dict(self._numbers)))

    def wrecks(self) -> Iterator[Wreck]:
        """Of a power failure after each step, all that differ."""
        seen = set()
        for count in range(self._before, len(self.steps) + 1):
            for wreck in wrecks_after(self.steps[:count], self._before):
                if wreck.key not in seen:
                    seen.add(wreck.key)
                    yield wreck

    def rebuild(self, wreck: Wreck) -> None:
        """Make the root, and the journal, what the power failure has left."""
        for path in self._root.iterdir():
            shutil.rmtree(path)
        inodes: dict[int, int] = {}
        paths: dict[int, Path] = {}
        for name, (number, written) in sorted(wreck.files.items()):
            path = self._root / name
            if number < 0:
                path.mkdir()
            elif number in paths:
                path.hardlink_to(paths[number])
            else:
                paths[number] = path
                path.write_bytes(b"" if written is None else written.data)
                if written is not None:
                    os.utime(path, ns=(written.mtime_ns, written.mtime_ns))
                inodes[number] = path.stat().st_ino
        shutil.rmtree(self._journal.parent)
        self._journal.parent.mkdir()
        if wreck.journal is not None:
            self._journal.write_bytes(wreck.journal.journal)
            self._renumber(wreck.journal, inodes)

    def _renumber(self, committed: Committed, inodes: dict[int, int]) -> None:
        """The journal knows files by their inodes, which are others now."""
        with closing(sqlite3.connect(self._journal, isolation_level=None)) as db:
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'jobs'").fetchone():
                return
            for column in ("inode", "partial_inode"):
                rows = db.execute(f"SELECT id, {column} FROM jobs WHERE {column}").fetchall()  # noqa: S608
                for job, old in rows:
                    inode = inodes.get(committed.inodes.get(old, 0), 0)
                    query = f"UPDATE jobs SET {column} = ? WHERE id = ?"  # noqa: S608
                    db.execute(query, (inode, job))

    def _watched(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            self._look(together=False)
            try:
                return operation(*arguments, **options)
            finally:
                self._look(together=True)

        return run

    def _fsync(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def run(descriptor: int) -> None:
            self._look(together=False)
            fsync(descriptor)
            number = self._numbers.get(os.fstat(descriptor).st_ino)
            if number is not None:
                self.steps.append(Flushed(number))

        return run

    def _look(self, *, together: bool) -> None:
        """Write down what has changed since the last look. together: in one step."""
        before = self._names
        numbers, self._numbers, self._names = self._numbers, {}, {}
        self._look_into(self._root, numbers)
        changed = tuple(
            (folder, name, self._names.get((folder, name)))
            for folder, name in {**before, **self._names}
            if before.get((folder, name)) != self._names.get((folder, name))
        )
        if together and changed:
            self.steps.append(Named(changed))
        else:
            self.steps += [Named((each,)) for each in changed]

    def _look_into(self, folder: Path, numbers: dict[int, int]) -> int:
        own = self._number(folder, numbers, sign=-1)
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                self._names[own, path.name] = self._look_into(path, numbers)
                continue
            number = self._names[own, path.name] = self._number(path, numbers, sign=1)
            written = Written(number, path.read_bytes(), path.stat().st_mtime_ns)
            if self._written.get(number, Written(number, b"", 0)).data != written.data:
                self.steps.append(written)
            self._written[number] = written
        return own

    def _number(self, path: Path, numbers: dict[int, int], sign: int) -> int:
        inode = path.stat().st_ino
        number = self._numbers.get(inode) or numbers.get(inode)
        if number is None or number * sign < 0:
            self._count += 1
            number = sign * self._count
        self._numbers[inode] = number
        return number


class _Fetched:
    """The rows of a statement that has run to its end."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.rowcount, self._rows = cursor.rowcount, cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def fetchone(self) -> Any:
        return self._rows.pop(0) if self._rows else None
