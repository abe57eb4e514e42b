"""Files that several machines share: what they are called there, and whether they have arrived.

A network file system may show a new file late, or its beginning only: NFS remembers for up to a
minute what it has seen in a folder. So whoever writes a file says how large it is and what its CRC
is, and whoever reads it waits until both fit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from colordaemon.errors import GuideChanged
from colordaemon.film.manifest import crc_of
from colordaemon.guide.guide import Guide
from colordaemon.guide.pictures import check_unchanged
from colordaemon.inbox.safe_open import OpenedSource


class SharedPaths:
    """What shared folders are called on this machine and on the others."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """folders: their paths on the other machines by those here; all others are the same."""
        pairs = [(Path(here), there) for here, there in folders.items()]
        self._folders = sorted(pairs, key=lambda pair: len(pair[0].parts), reverse=True)

    def there(self, path: Path) -> Path:
        """An open file, a path beneath an anchored folder or any other of ours, for the others."""
        real = Path(os.path.realpath(path))
        for here, there in self._folders:
            if real.is_relative_to(here):
                return there / real.relative_to(here)
        return real

    def guide_there(self, guide: Guide) -> Guide:
        """The same pictures, for the others."""
        return Guide(
            tuple(
                replace(each, path=self.there(each.path), top=each.top and self.there(each.top))
                for each in guide.pictures
            )
        )


@dataclass(frozen=True)
class Mark:
    """By what a file is known when it arrives. size: in bytes. crc: CRC-32 of all of it."""

    size: int
    crc: int

    @classmethod
    def of(cls, path: Path) -> Mark:
        return cls(path.stat().st_size, crc_of(path))

    def is_of(self, path: Path) -> bool:
        """Whether the file is there and whole. It is read only once its size is right."""
        try:
            return path.stat().st_size == self.size and crc_of(path) == self.crc
        except OSError:
            return False


@dataclass(frozen=True)
class Version:
    """By what a source is known on other machines. size: in bytes. seconds: when it was changed;
    whole ones, since some file systems know no parts of them."""

    size: int
    seconds: int

    @classmethod
    def of(cls, path: Path) -> Version:
        found = path.stat()
        return cls(found.st_size, int(found.st_mtime))

    def __str__(self) -> str:
        return f"{self.size} bytes, changed at {self.seconds}"


def of_the_share(failure: Exception, guide: Guide, node: str) -> Exception:
    """What went wrong on a machine, as it is to be judged here. Work begins anew with a guide that
    has changed; one that is the same here and another there would have it begin anew for ever, and
    it is the share that does not work.

    guide: with the paths of this machine. node: its name. Returns OSError for such a guide.
    """
    if not isinstance(failure, GuideChanged):
        return failure
    try:
        check_unchanged(guide)
    except (GuideChanged, OSError):
        return failure
    text = f"{node} does not see the pictures that guide the colors as they are here"
    return OSError(5, f"{text} ({failure}); see cluster.paths")


def top_of(source: Path) -> Path | None:
    """The folder above an open source below which there are no symbolic links, if there must be
    none. Real, as the path of the source will be."""
    top = source.top if isinstance(source, OpenedSource) else None
    return None if top is None else Path(os.path.realpath(top))


def look_again(path: Path) -> None:
    """Make a network file system ask its server for what is in the folder of a file."""
    try:
        os.scandir(path.parent).close()
    except OSError:
        return
