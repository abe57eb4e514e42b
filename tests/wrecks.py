"""What a power failure may leave of a disk, from what was done to it.

A disk keeps for certain only what was flushed: data by an fsync of the file, names by an fsync of
the folder that holds them. Whatever else was done may be there afterwards or not, each step for
itself and in no order; data may be there in part. SQLite is taken at its word (WAL with
synchronous=FULL): what it has committed stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

MOST_TOGETHER = 6  # unflushed changes of names; of more than these not every mixture is tried


@dataclass(frozen=True)
class Written:
    """A file has other contents."""

    file: int
    data: bytes
    mtime_ns: int


@dataclass(frozen=True)
class Named:
    """Names have changed, all of them in one step. names: (folder, name, what it stands for)."""

    names: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True)
class Flushed:
    """An fsync of a file or folder."""

    number: int


@dataclass(frozen=True)
class Committed:
    """The journal as it is now, and which file had which inode number when it was written."""

    journal: bytes
    inodes: dict[int, int] = field(hash=False, compare=False)


Step = Written | Named | Flushed | Committed


@dataclass(frozen=True)
class Wreck:
    """A disk after a power failure. files: by their path under the root; None: a folder."""

    files: dict[str, tuple[int, Written | None]]
    journal: Committed | None

    @property
    def key(self) -> object:
        return frozenset(self.files.items()), self.journal

    def contents(self) -> dict[str, bytes]:
        return {
            path: b"" if written is None else written.data
            for path, (number, written) in self.files.items()
            if number > 0
        }


def wrecks_after(steps: list[Step], before: int) -> Iterator[Wreck]:
    """What may be left if the power fails after these steps; the first ones are safe."""
    flushed: dict[int, int] = {}  # when last
    for when, step in enumerate(steps):
        if isinstance(step, Flushed):
            flushed[step.number] = when

    def is_safe(when: int, *numbers: int) -> bool:
        return when < before or any(flushed.get(number, -1) > when for number in numbers)

    names = [(when, step) for when, step in enumerate(steps) if isinstance(step, Named)]
    open_names = [
        when for when, step in names if not is_safe(when, *(each[0] for each in step.names))
    ]
    data = [(when, step) for when, step in enumerate(steps) if isinstance(step, Written)]
    journals = [step for step in steps if isinstance(step, Committed)]
    for lost in _mixtures(open_names):
        kept = [step for when, step in names if when not in lost]
        for share in (0.0, 0.5, 1.0):
            written: dict[int, Written] = {}
            for when, step in data:
                if is_safe(when, step.file) or share == 1.0:
                    written[step.file] = step
                elif share:
                    torn = step.data[: int(len(step.data) * share)]
                    written[step.file] = Written(step.file, torn, step.mtime_ns)
            yield Wreck(dict(_walk(kept, written)), journals[-1] if journals else None)


def _mixtures(numbers: list[int]) -> Iterator[set[int]]:
    """All subsets; of very many only none, all, each one and all but each one."""
    if len(numbers) <= MOST_TOGETHER:
        for chosen in product((False, True), repeat=len(numbers)):
            yield {number for number, taken in zip(numbers, chosen, strict=True) if taken}
        return
    yield from (set(), set(numbers))
    for number in numbers:
        yield from ({number}, set(numbers) - {number})


def _walk(
    steps: list[Named], written: dict[int, Written]
) -> Iterator[tuple[str, tuple[int, Written | None]]]:
    """The files and folders that have a name, from the root on."""
    folders: dict[int, dict[str, int]] = {}
    for step in steps:
        for folder, name, number in step.names:
            if number is None:
                folders.get(folder, {}).pop(name, None)
            else:
                folders.setdefault(folder, {})[name] = number
    waiting = [("", -1)]
    while waiting:
        path, folder = waiting.pop()
        for name, number in folders.get(folder, {}).items():
            below = f"{path}{name}"
            yield below, (number, written.get(number))
            if number < 0:
                waiting.append((f"{below}/", number))
