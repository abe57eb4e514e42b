"""Messages between the daemon and its worker: plain values, pickled and sent through a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from colordaemon.inbox.stability import Signature
from colordaemon.media.inventory import Inventory

Environment = Mapping[str, str]


# To the worker


@dataclass(frozen=True)
class Order:
    """Color a file. folder: where its result goes; tag: the beginning of all work files' names.

    inbox, outbox: the folders that the source and the result are in, or below. queued: what
    identified the source when it was queued. share: of the memory and of the processor's cores;
    less than 1 where other workers have files of their own. thumbnails: where small pictures of it
    are kept, if they are wanted. is_beside: a photo that is colored whatever else the worker is at.
    """

    job: int
    source: Path
    folder: Path
    tag: str
    inbox: Path
    outbox: Path
    queued: Signature
    share: float = 1.0
    thumbnails: Path | None = None
    is_beside: bool = False


@dataclass(frozen=True)
class Help:
    """Start helpers for a film that is being worked on. environments: one for each of them, in
    addition to that of the worker."""

    job: int
    environments: tuple[Environment, ...]


@dataclass(frozen=True)
class Stop:
    """Stop working on all files; a film keeps its finished segments. job: the one to stop, a photo
    beside others; None: all."""

    job: int | None = None


@dataclass(frozen=True)
class Share:
    """Which part of a cluster's workers this one's work may take, 0..1."""

    part: float


# From the worker


@dataclass(frozen=True)
class Ready:
    """The model is loaded and has colored a first picture. on: device and precision, for people.

    environments: for as many workers and helpers as there may be in all, what each has in its
    environment, in addition to that of the daemon. Only the first worker knows: others may see no
    more than their own GPU. beside: how many photos it takes beside its other work.
    """

    on: str
    environments: tuple[Environment, ...] = ({},)
    beside: int = 0


@dataclass(frozen=True)
class StartFailed:
    """No file can be colored with this configuration or model."""

    reason: str


@dataclass(frozen=True)
class Started:
    """The worker has started with an order; before that it waited for the one before it."""

    job: int


@dataclass(frozen=True)
class Progress:
    """Progress of a film. done, total: seconds of the film; frames: since it was begun or
    resumed."""

    job: int
    done: float
    total: float | None
    frames: int


@dataclass(frozen=True)
class Heartbeat:
    """The work goes on, but has no frames to count: a photo, a join, a checksum.

    stage: what is done with a film, and share, 0..1, how much of it; empty if that is not known.
    """

    job: int
    stage: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Machines:
    """Those of a cluster, what they do and what work waits for: `cluster.Cluster.as_json`."""

    found: Mapping[str, Any]


@dataclass(frozen=True)
class Segment:
    """count: how many segments of a film are finished and on the disk."""

    job: int
    count: int


@dataclass(frozen=True)
class Finished:
    """A complete, checked and flushed file lies at `partial`, meant to become `target`.

    digest: the checksum of its bytes, or "" if the settings ask for none. inventory: all that the
    source holds. is_whole: whether every picture of the source is in it.
    """

    job: int
    partial: Path
    target: Path
    digest: str
    summary: str
    remarks: tuple[str, ...]
    inventory: Inventory = ()
    is_whole: bool = True


class Fault(StrEnum):
    """Why a file was not finished. The comments say what the daemon does then."""

    MEDIA = "media"  # fails it
    COLOR = "color"  # skips it
    SPACE = "space"  # lets all work wait
    ROOM = "room"  # lets this film wait, which needs more space than there is; others go on
    MEMORY = "memory"  # lets it wait until no other file is worked on, and has all memory
    WAY = "way"  # lets it wait, since its folder in the outbox is obstructed; others go on
    SETTINGS = "settings"  # lets all work wait for the operator
    CHANGED = "changed"  # cancels it: it is not the file that was queued
    GUIDE = "guide"  # queues it again: its references or hints were changed or removed meanwhile
    MACHINE = "machine"  # tries it again later; after many in a row all work waits
    FILE = "file"  # tries it again later; the machine works
    CRASH = "crash"  # as if the worker had died of it
    UNFORESEEN = "unforeseen"  # tries it again at once, and fails it the second time
    STOPPED = "stopped"  # queues it again


@dataclass(frozen=True)
class Failed:
    """A file was not finished."""

    job: int
    fault: Fault
    reason: str


ToWorker = Order | Help | Stop | Share
FromWorker = (
    Ready | StartFailed | Started | Progress | Heartbeat | Machines | Segment | Finished | Failed
)
