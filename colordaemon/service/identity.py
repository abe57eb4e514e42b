"""Which folder an inbox was when it was last seen, by device and inode.

A share that is not mounted leaves an empty folder of the same name in its place, and that all files
of it are gone means nothing.
"""

from __future__ import annotations

from pathlib import Path

from colordaemon.inbox.watcher import Identity
from colordaemon.service.journal import Journal


def remembered(journal: Journal, inbox: Path) -> Identity | None:
    """None for an inbox that has never been seen."""
    device, _, inode = journal.fact(_name(inbox)).partition(" ")
    return (int(device), int(inode)) if inode else None


def remember(journal: Journal, inbox: Path, identity: Identity) -> None:
    journal.note(_name(inbox), " ".join(map(str, identity)))


def is_there(journal: Journal, inbox: Path) -> bool:
    """Whether an inbox is there, and still the folder that it was."""
    try:
        found = inbox.stat()
    except OSError:
        return False
    return remembered(journal, inbox) in (None, (found.st_dev, found.st_ino))


def _name(inbox: Path) -> str:
    """Of a fact. A path need not be text; its address is."""
    return f"inbox {inbox.as_uri()}"
