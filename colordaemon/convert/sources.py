"""Finds the files that a call of `once` is about: named ones, and those in folders and of patterns.

What is found in a folder goes by the rules of an inbox: hidden and unfinished files, symbolic links
and pictures that guide others are passed over, and so is everything without a suffix of photos and
films. A file that is named is always tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePath

from colordaemon.config import Config
from colordaemon.errors import MediaError
from colordaemon.inbox.scan import is_candidate, scan

PassOver = Callable[[str, str], None]


@dataclass(frozen=True)
class Source:
    """A file to color. top: the folder that it was found in or below; None: it was named itself."""

    path: Path
    top: Path | None = None

    def settings(self, config: Config) -> Config:
        """The configuration with the folder for its result: with `output.folder`, trees are
        mirrored there."""
        if self.top is None or config.output.folder is None:
            return config
        folder = config.output.folder / self.path.parent.relative_to(self.top)
        output = config.output.model_copy(update={"folder": folder})
        return config.model_copy(update={"output": output})


def find_sources(
    wanted: Sequence[Path],
    output: Path | None,
    pass_over: PassOver = lambda path, reason: None,
    on_failure: Callable[[Path, Exception], None] = lambda path, error: None,
) -> list[Source]:
    """All files, in the order of their names within each folder, each once.

    wanted: files, folders and patterns with * ? [ ] and ** for folders of any depth. output: the
    folder for results, which are no sources, if it lies in one of them. on_failure: told of each
    of `wanted` that nothing was found for, or that cannot be read.
    """
    found: dict[Path, Source] = {}
    for each in wanted:
        try:
            sources = [*_sources(each, pass_over)]
            if not sources:
                raise MediaError(f"{each}: found no photos or films there, expected some")
        except (MediaError, OSError) as error:
            on_failure(each, error)
            continue
        for source in sources:
            if source.top is not None and output is not None and _lies_in(source, output):
                continue
            found.setdefault(source.path, source)
    return [*found.values()]


def _sources(wanted: Path, pass_over: PassOver) -> Iterator[Source]:
    if wanted.is_dir():
        paths = (path for path, _ in scan(wanted, pass_over))
        yield from (Source(path, wanted) for path in sorted(paths))
    elif has_magic(str(wanted)) and not os.path.lexists(wanted):
        top = _plain_part(wanted)
        matches = map(Path, glob(str(wanted), recursive=True))  # noqa: PTH207  (needs no folder)
        files = (path for path in matches if path.is_file() and not path.is_symlink())
        yield from (Source(path, top) for path in sorted(files) if is_candidate(path, top))
    else:
        yield Source(wanted)


def _plain_part(pattern: PurePath) -> Path:
    """The folder that a pattern begins with, up to its first part with * or the like."""
    parts = [*pattern.parts]
    first = next(number for number, part in enumerate(parts) if has_magic(part))
    return Path(*parts[:first])


def _lies_in(source: Source, output: Path) -> bool:
    """Whether a source lies in the folder for results. If that is its top itself, results lie among
    the sources, and are known by what stands in them."""
    top, within = os.path.realpath(source.top or "."), os.path.realpath(output)
    if within == top:
        return False
    return Path(os.path.realpath(source.path)).is_relative_to(within)
