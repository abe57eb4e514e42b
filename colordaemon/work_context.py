"""What long work on one file tells while it goes on, and where it asks whether it should stop."""

from __future__ import annotations

from pathlib import Path


class WorkContext:
    """One that nobody listens to and that never asks for a stop; others override what they need."""

    def begin(self, source: Path, seconds: float | None) -> None:
        """A film begins; seconds: how long it plays, None if unknown."""

    def advance(self, seconds: float) -> None:
        """One more frame is done; seconds: how far into the film it is."""

    def end(self) -> None:
        """The film that has begun is done, or failed."""

    def segment_done(self, count: int) -> None:
        """So many segments of the film are finished and on the disk."""

    def heartbeat(self) -> None:
        """Work goes on that finishes no frame: pixels of a photo, packets of a join, a checksum."""

    def should_stop(self) -> bool:
        """Whether to leave the work; asked once a frame."""
        return False
