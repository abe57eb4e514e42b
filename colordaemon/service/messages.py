"""What the daemon and its worker say to each other over a pipe: plain values that pickle."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from colordaemon.inbox.stability import Signature
from colordaemon.media.inventory import Inventory

# To the worker


@dataclass(frozen=True)
class Order:
    """Color a file. folder: where its result goes; tag: the beginning of all work files' names.

    inbox, outbox: the folders that the source and the result lie in, or below. queued: which file
    the source was.
    """

    job: int
    source: Path
    folder: Path
    tag: str
    inbox: Path
    outbox: Path
    queued: Signature


@dataclass(frozen=True)
class Stop:
    """Leave the file that is being worked on; a film keeps its finished segments."""


# From the worker


@dataclass(frozen=True)
class Ready:
    """The model is loaded and has seen a picture. on: device and precision, for people."""

    on: str


@dataclass(frozen=True)
class StartFailed:
    """No file can be colored with this configuration or model."""

    reason: str


@dataclass(frozen=True)
class Started:
    """An order is being obeyed; until then it waits for the one before it."""

    job: int


@dataclass(frozen=True)
class Progress:
    """A film goes on. done, total: seconds of the film; frames: since it was begun or resumed."""

    job: int
    done: float
    total: float | None
    frames: int


@dataclass(frozen=True)
class Heartbeat:
    """Work goes on that finishes no frame: on a photo, a join, a checksum."""

    job: int


@dataclass(frozen=True)
class Segment:
    """So many segments of a film are finished and on the disk."""

    job: int
    count: int


@dataclass(frozen=True)
class Finished:
    """A complete, checked and flushed file lies at `partial`, meant to become `target`.

    sha256: of its bytes, or "" where nobody wants it. inventory: all that the source holds.
    is_whole: whether every picture of the source is in it.
    """

    job: int
    partial: Path
    target: Path
    sha256: str
    summary: str
    remarks: tuple[str, ...]
    inventory: Inventory = ()
    is_whole: bool = True


class Fault(StrEnum):
    """Why a file was not finished, sorted by what follows."""

    MEDIA = "media"  # never again
    COLOR = "color"  # skipped
    SPACE = "space"  # all work waits
    ROOM = "room"  # this film needs more than there is, and waits alone
    WAY = "way"  # its folder in the outbox is obstructed, and it waits alone
    SETTINGS = "settings"  # all work waits for the operator
    CHANGED = "changed"  # it is not what was queued
    MACHINE = "machine"  # once more, later; many of them in a row, and all work waits
    FILE = "file"  # once more, later; the machine is well
    UNFORESEEN = "unforeseen"  # once more at once, then never again
    STOPPED = "stopped"  # once more, at any time


@dataclass(frozen=True)
class Failed:
    """A file was not finished."""

    job: int
    fault: Fault
    reason: str


ToWorker = Order | Stop
FromWorker = Ready | StartFailed | Started | Progress | Heartbeat | Segment | Finished | Failed
