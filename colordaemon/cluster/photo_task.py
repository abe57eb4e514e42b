"""A photo as another machine is told to color it, and a batch of them: the work of one actor."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from pathlib import Path

from colordaemon.cluster.actor import Seat
from colordaemon.cluster.shared import Mark, Version, top_of
from colordaemon.config import PhotoSettings
from colordaemon.durable import flush_file
from colordaemon.errors import SourceChanged
from colordaemon.film.helper import Failed, Load, portable
from colordaemon.guide.guide import Guide
from colordaemon.guide.photo import color_guided
from colordaemon.guide.references import check_axes
from colordaemon.inbox.safe_open import errors_by_name, opened_for_another
from colordaemon.media.photo import PhotoReport, color_photo
from colordaemon.media.provenance import Maker
from colordaemon.network.colorizer import Colorizer


@dataclass(frozen=True)
class PhotoTask:
    """A photo for another machine. name: of the source here, for messages. source, partial: there.
    top: as `OpenedSource.top`, there. maker: for the metadata."""

    name: Path
    source: Path
    top: Path | None
    version: Version
    partial: Path
    settings: PhotoSettings
    guide: Guide
    force: bool
    maker: Maker

    @classmethod
    def of(
        cls,
        source: Path,
        partial: Path,
        settings: PhotoSettings,
        guide: Guide,
        *,
        force: bool,
        maker: Maker,
    ) -> PhotoTask:
        """source, partial: as opened here."""
        name, version = Path(str(source)), Version.of(source)
        real, top = Path(os.path.realpath(source)), top_of(source)
        return cls(name, real, top, version, partial, settings, guide, force, maker)

    def run(self, colorizer: Colorizer, seat: Seat) -> tuple[PhotoReport, Mark]:
        """Raises SourceChanged for another file than was meant, and what `color_photo` and
        `color_guided` do."""
        force, maker, heartbeat = self.force, self.maker, seat.heartbeat
        with opened_for_another(self.name, self.source, self.top) as file, errors_by_name():
            if (found := Version.of(file)) != self.version:
                raise SourceChanged(f"{self.name}: found {found}, expected {self.version}")
            if self.guide:
                check_axes(self.guide, colorizer, maker.model)
                report = color_guided(
                    file, self.partial, self.guide, colorizer, self.settings, force=force,
                    maker=maker, heartbeat=heartbeat,
                )  # fmt: skip
            else:
                report = color_photo(
                    file, self.partial, colorizer.predict_ab, self.settings, force=force,
                    maker=maker, heartbeat=heartbeat,
                )  # fmt: skip
        flush_file(self.partial)
        return report, Mark.of(self.partial)


@dataclass(frozen=True)
class ColorPhotos:
    """Colors photos one after the other; hands over a result for each, or Failed. Returns how many,
    which is fewer after a stop."""

    load: Load
    tasks: tuple[PhotoTask, ...]

    def __call__(self, seat: Seat) -> int:
        colorizer = seat.colorizer(self.load)
        for count, task in enumerate(self.tasks):
            if seat.should_stop():
                return count
            seat.hand_over(self._done(task, colorizer, seat))
        return len(self.tasks)

    def _done(self, task: PhotoTask, colorizer: Colorizer, seat: Seat) -> object:
        try:
            return task.run(colorizer, seat)
        except Exception as error:
            return Failed(portable(error), traceback.format_exc())
