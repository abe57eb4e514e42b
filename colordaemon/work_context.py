"""Callbacks of long work on one file: progress, signs of life, and whether to stop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Stage = Literal["joining", "checking", "comparing", "checksum"]


class WorkContext:
    """Does nothing and never stops the work; subclasses override what they need."""

    def begin(self, source: Path, seconds: float | None) -> None:
        """A film begins; seconds: how long it plays, None if unknown."""

    def advance(self, seconds: float) -> None:
        """One more frame is done; seconds: how far into the film it is."""

    def end(self) -> None:
        """The film and all that belongs to it are finished, or it has failed; also for photos,
        which do not begin."""

    def segment_done(self, count: int) -> None:
        """count: how many segments of the film are finished and on the disk."""

    def heartbeat(self) -> None:
        """The work goes on without finishing frames: on a photo, a join, a checksum."""

    def stage(self, name: Stage, share: float) -> None:
        """Work on the file without frames that count: what is done, and the share of it, 0..1."""
        self.heartbeat()

    def machines(self, found: Mapping[str, object]) -> None:
        """Those of a cluster, as `cluster.Cluster.as_json` says; told every second."""

    def should_stop(self) -> bool:
        """Whether to stop the work; called for every frame."""
        return False
