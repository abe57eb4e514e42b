"""What a call of `once` says of each file: log lines, and lines of JSON for programs.

docs/command-line.md describes the JSON. VERSION rises when something there changes or is gone, and
not for what is added.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colordaemon.errors import ColordaemonError
from colordaemon.logs import clock_time
from colordaemon.media.inventory import as_plain, level_of

if TYPE_CHECKING:
    from colordaemon.convert.convert import Colored, Planned
    from colordaemon.convert.estimate import Estimate

log = logging.getLogger(__name__)

VERSION = 1


class Report:
    """For people: log lines, and what was asked for through `say`."""

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self._say = say
        self._estimates: list[Estimate] = []

    def found(self, sources: Sequence[Path]) -> None:
        """The files of the call, before work on the first of them."""

    def passed_over(self, path: str, reason: str) -> None:
        """A file in a folder was not taken for a photo or film."""
        log.debug("not taken: %s: %s", path, reason)

    def begun(self, source: Path) -> None:
        """The file is opened."""

    def begins_anew(self, source: Path, reason: object) -> None:
        log.warning("%s: begins anew: %s", source, reason)

    def planned(self, source: Path, planned: Planned, estimate: Estimate | None) -> None:
        self._estimates += [estimate] if estimate else []
        self._say(f"{source} -> {planned.target}{' with --force' if planned.skipped else ''}")
        for entry in planned.inventory:
            how = f" ({entry.how})" if entry.how else ""
            self._say(f"  {entry.fate:<9}  {entry.what}{how}")
        for remark in planned.remarks:
            self._say(f"  remark     {remark}")
        if estimate:
            like = "" if estimate.was_tried else ", if it is like the others"
            self._say(f"  estimate   {_told(estimate.seconds, estimate.bytes)}{like}")

    def planned_all(self) -> None:
        """All files were planned."""
        if len(self._estimates) > 1:
            seconds = sum(each.seconds for each in self._estimates)
            size = sum(each.bytes for each in self._estimates)
            self._say(f"in all     {_told(seconds, size)}")

    def previewed(self, source: Path, picture: Path) -> None:
        self._say(str(picture))

    def done(self, source: Path, target: Path, colored: Colored) -> None:
        for remark in colored.remarks:
            log.log(level_of(remark), "%s: %s", source, remark)
        log.info("done: %s (%s)", target, colored.summary)

    def skipped(self, source: Path, reason: object, *, is_expected: bool = False) -> None:
        """is_expected: nobody has asked for it by its name."""
        log.log(logging.INFO if is_expected else logging.WARNING, "skipped: %s", reason)

    def interrupted(self, source: Path, reason: object) -> None:
        log.warning("interrupted: %s", reason)

    def failed(self, source: Path, error: Exception) -> None:
        """One line that names the source, with a traceback only for unexpected errors."""
        if isinstance(error, ColordaemonError):
            log.error("failed: %s", error)
        elif isinstance(error, OSError):
            log.error("failed: %s: %s", source, _in_words(source, error))
        else:
            log.error("failed: %s: %s", source, _in_words(source, error), exc_info=error)

    def finished(self, exit_code: int, reason: str = "") -> None:
        """The call ends. reason: why before all files were tried, if so."""


class JsonReport(Report):
    """For programs: one JSON object a line through `say`, and the log lines as well."""

    def found(self, sources: Sequence[Path]) -> None:
        self.emit("found", files=len(sources))

    def passed_over(self, path: str, reason: str) -> None:
        self.emit("passed over", Path(path), reason=reason)

    def begun(self, source: Path) -> None:
        self.emit("begun", source)

    def begins_anew(self, source: Path, reason: object) -> None:
        super().begins_anew(source, reason)
        self.emit("begun", source, reason=str(reason))

    def planned(self, source: Path, planned: Planned, estimate: Estimate | None) -> None:
        self.emit(
            "planned",
            source,
            target=str(planned.target),
            inventory=as_plain(planned.inventory),
            remarks=_plain_remarks(planned.remarks),
            estimate=_plain_estimate(estimate),
        )

    def planned_all(self) -> None:
        """Programs can add."""

    def previewed(self, source: Path, picture: Path) -> None:
        self.emit("previewed", source, target=str(picture))

    def done(self, source: Path, target: Path, colored: Colored) -> None:
        super().done(source, target, colored)
        self.emit(
            "done",
            source,
            target=str(target),
            summary=colored.summary,
            bytes=target.stat().st_size,
            inventory=as_plain(colored.inventory),
            remarks=_plain_remarks(colored.remarks),
        )

    def skipped(self, source: Path, reason: object, *, is_expected: bool = False) -> None:
        super().skipped(source, reason, is_expected=is_expected)
        self.emit("skipped", source, reason=str(reason))

    def interrupted(self, source: Path, reason: object) -> None:
        super().interrupted(source, reason)
        self.emit("interrupted", source, reason=str(reason))

    def failed(self, source: Path, error: Exception) -> None:
        super().failed(source, error)
        self.emit("failed", source, reason=_in_words(source, error))

    def finished(self, exit_code: int, reason: str = "") -> None:
        self.emit("finished", exit_code=exit_code, reason=reason)

    def emit(self, stage: str, source: Path | None = None, **facts: Any) -> None:
        """Say one event."""
        about = {} if source is None else {"file": str(source)}
        self._say(json.dumps({"version": VERSION, "stage": stage, **about, **facts}))


def _in_words(source: Path, error: Exception) -> str:
    if isinstance(error, ColordaemonError):
        return str(error)
    if not isinstance(error, OSError):
        return f"unexpected {error!r}"
    reason, name = error.strerror or error, error.filename
    where = "" if name in (None, str(source), os.path.abspath(source)) else f" ({name})"  # noqa: PTH100
    return f"{reason}{where}"


def _told(seconds: float, size: float) -> str:
    return f"about {clock_time(seconds)} on this machine, {size / 1e6:,.1f} MB"


def _plain_estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "seconds": round(estimate.seconds, 1),
        "bytes": round(estimate.bytes),
        "was_tried": estimate.was_tried,
    }


def _plain_remarks(remarks: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"level": logging.getLevelName(level_of(each)).lower(), "text": each} for each in remarks
    ]
