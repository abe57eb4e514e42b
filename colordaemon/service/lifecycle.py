"""Finish, retry, fail, skip, cancel or recover a job: in the journal, on disk and in the log."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from colordaemon import __version__
from colordaemon.clock import Monotonic, UnixTime
from colordaemon.convert.publish import (
    digest_of,
    is_digest,
    numbered,
    publish_beside,
    stands_under_another_name,
    write_checksum,
)
from colordaemon.convert.routing import Routing
from colordaemon.durable import LONGEST_NAME, replace_file
from colordaemon.errors import MediaError
from colordaemon.guide.sidecars import find_sidecars
from colordaemon.inbox.folders import Folders
from colordaemon.inbox.safe_open import (
    Obstructed,
    anchored,
    folder_beneath,
    is_written_beneath,
    look_beneath,
)
from colordaemon.inbox.stability import quiet_seconds, signature_from
from colordaemon.inbox.watcher import settle_seconds
from colordaemon.logs import printable
from colordaemon.media.inventory import Inventory, level_of
from colordaemon.service.job import Job, Partial, Reason, State
from colordaemon.service.journal import Journal
from colordaemon.service.messages import Finished
from colordaemon.service.pauses import OutboxSpace
from colordaemon.service.publisher import Tell, deliver, remove_work, resume_delivery, tag_of
from colordaemon.service.source_action import retire

LONGEST_WAIT = 3600.0  # seconds between two tries
QUIET_SECONDS = 5.0  # since a file was last touched, before it is opened
_MOST_NUMBERS = 100  # of results of one name, among which an earlier one is looked for
_LEAST_WAIT = 1.0  # seconds for a picture that a program has open for writing
GONE_SECONDS = 10.0  # between two checks of a file whose inbox is gone
_SUFFIX = ".error.txt"
log = logging.getLogger(__name__)


class JobLifecycle:
    """State changes of the jobs of one inbox."""

    def __init__(self, journal: Journal, folders: Folders, routing: Routing) -> None:
        self._journal, self.folders, self._routing = journal, folders, routing
        self._config = routing.config

    def is_still_there(self, job: Job, wall: UnixTime) -> bool:
        """Whether a job's source is what was queued; if not, the job is cancelled.

        If the whole inbox is gone, like a share that is not mounted, the job waits instead.
        """
        found = look_beneath(self.folders.inbox, job.source)
        if found is None and not self.inbox_is_there():
            self.requeue(job, Reason.INBOX, "the inbox is gone", wall, wait_seconds=GONE_SECONDS)
        elif found is None:
            self.set_aside(job, State.CANCELLED, Reason.GONE, "the file is gone", wall)
        elif not found.is_same(job.queued):
            self.set_aside(job, State.CANCELLED, Reason.CHANGED, "the file has changed since", wall)
        else:
            return True
        return False

    def is_quiet(self, job: Job, wall: UnixTime) -> bool:
        """Whether nobody is changing a job's source. If for instance its mode was changed after it
        was queued, it has to be unchanged for QUIET_SECONDS again, like a new file."""
        found = look_beneath(self.folders.inbox, job.source)
        if found is None:  # removed since the check before
            self.requeue(job, Reason.TOUCHED, "", wall, wait_seconds=QUIET_SECONDS)
            return False
        if not found.is_untouched(job.queued):
            wait = QUIET_SECONDS - (wall - found.ctime_ns / 1e9)
            if 0 < wait <= QUIET_SECONDS:
                reason = "the file was touched; waiting until it is left alone"
                self.requeue(job, Reason.TOUCHED, reason, wall, wait_seconds=wait)
                return False
            self._journal.touched(job, found.ctime_ns)
        return True

    def guide_is_quiet(self, job: Job, wall: UnixTime) -> bool:
        """Whether nobody is changing the pictures beside a source that guide its colors. They have
        to settle like any file, and the job waits for them."""
        settle = settle_seconds(
            self._routing.config_of(self.folders.inbox).watch, self.folders.inbox
        )
        for path in self._sidecars(job):
            quiet = quiet_seconds(path, wall)
            if quiet < settle or is_written_beneath(self.folders.inbox, path):
                reason = f"{path.name} may still be copied; waiting until it is left alone"
                wait = max(settle - quiet, _LEAST_WAIT)
                self.requeue(job, Reason.GUIDE, reason, wall, wait_seconds=wait)
                return False
        return True

    def _sidecars(self, job: Job) -> list[Path]:
        """The pictures beside a source that guide its colors; none if they cannot be listed, which
        the worker will say."""
        try:
            found = find_sidecars(job.source, top=self.folders.inbox)
        except (OSError, MediaError):
            return []
        return [each.path for each in found]

    def may_be_incomplete(self, job: Job, reason: str, wall: UnixTime) -> bool:
        """Whether a file that looks damaged, or a picture beside it that guides its colors, may
        still be copied. It is tried again after they have not changed for longer; if the copy goes
        on meanwhile, the file settles again as a new one."""
        quiet = min(quiet_seconds(path, wall) for path in (job.source, *self._sidecars(job)))
        wait = self._config.jobs.retry_seconds - quiet
        if wait <= 0:
            return False
        log.info(
            "%s: %s; is it still being copied? trying again in %.0f s", job.source, reason, wait
        )
        self.requeue(job, Reason.HALF, reason, wall, wait_seconds=wait)
        return True

    def inbox_is_there(self) -> bool:
        return self._journal.is_there(self.folders.inbox)

    def finished(self, job: Job, said: Finished, seconds: float, wall: UnixTime) -> None:
        """Publish a result, unless its source is no longer what it was made from."""
        if not self.is_still_there(job, wall):
            return
        wanted, overwrite = said.target, self._may_replace(said.target, job.source)
        if (earlier := self._earlier_result(job, wanted)) is not None:
            wanted, overwrite = earlier, True
        partial = Partial.of(said.partial, said.digest)
        tell = self._tell(job, wall, said.is_whole)
        top = self.folders.outbox
        target = deliver(partial, wanted, tell, overwrite=overwrite, top=top)
        for remark in said.remarks:
            log.log(level_of(remark), "%s: %s", job.source, remark)
        figures = f"{said.summary}; {seconds:.1f} s, attempt {job.attempts}"
        self._done(job, target, partial, figures, wall, said.inventory, is_whole=said.is_whole)

    def recover(self, job: Job, wall: UnixTime) -> None:
        """Go on with a job that was being published when the daemon ended."""
        assert job.target is not None and job.partial is not None
        overwrite = self._may_replace(job.target, job.source)
        is_whole = job.retire != "keep"
        tell, top = self._tell(job, wall, is_whole), self.folders.outbox
        target = resume_delivery(job, tell, overwrite=overwrite, top=top)
        if target is None:
            log.warning(
                "%s: its result was lost before it was published; coloring it again", job.source
            )
            self.requeue(job, Reason.LOST, "the result was lost before it was published", wall)
        else:
            figures = "published after a restart"
            self._done(job, target, job.partial, figures, wall, is_whole=is_whole)

    def retire_all(self) -> Iterator[None]:
        """Move or remove sources that an earlier daemon left, or where that failed before. Yields
        after each, so that the caller can stop in between."""
        behind = 0
        while jobs := self._journal.to_retire(behind):
            for job in jobs:
                if job.source.is_relative_to(self.folders.inbox):
                    self._retire(job, job.retire)
                    yield
            behind = jobs[-1].id

    def set_aside(self, job: Job, state: State, code: Reason, reason: str, wall: UnixTime) -> None:
        """Failed, skipped or cancelled."""
        self._journal.set_aside(job, state, wall, code=code, reason=reason)
        self.clean(job)
        level = logging.INFO if state in (State.SKIPPED, State.CANCELLED) else logging.ERROR
        log.log(level, "%s: %s: %s", state, job.source, reason)
        if state is State.FAILED:
            write_reason(self._reason_path(job), self.folders.outbox, job, reason, wall)

    def crashed(self, job: Job, reason: str, wall: UnixTime) -> None:
        """The worker died while it worked on a job: try again, or fail it the second time."""
        if self._journal.crashed(job, wall, reason) is State.FAILED:
            job = self._journal.job(job.id)
            self.clean(job)
            log.error("failed: %s: %s", job.source, job.reason)
            write_reason(self._reason_path(job), self.folders.outbox, job, job.reason, wall)
        else:
            log.warning("%s: the worker died over it (%s); trying once more", job.source, reason)

    def failed_unexpectedly(self, job: Job, reason: str, wall: UnixTime) -> None:
        """An unexpected error that comes from the file: try again, or fail it the second time."""
        what = "something unforeseen happened"
        self._journal.crashed(job, wall, reason, code=Reason.UNFORESEEN, what=what)
        job = self._journal.job(job.id)
        if job.state is not State.FAILED:
            log.warning("%s: unexpected error: %s; trying once more", job.source, reason)
            return
        self.clean(job)
        log.error("failed: %s: %s", job.source, job.reason)
        write_reason(self._reason_path(job), self.folders.outbox, job, job.reason, wall)

    def retry_later(self, job: Job, reason: str, wall: UnixTime) -> None:
        """The machine is at fault: try again later, `jobs.tries` times in all."""
        settings = self._config.jobs
        attempts = self._journal.job(job.id).attempts
        if attempts >= settings.tries:
            reason = f"{attempts} attempts failed, the last one: {reason}"
            self.set_aside(job, State.FAILED, Reason.MACHINE, reason, wall)
            return
        wait = min(LONGEST_WAIT, settings.retry_seconds * 5.0 ** (attempts - 1))
        self._journal.requeue(job, wall, code=Reason.MACHINE, reason=reason, not_before=wall + wait)
        log.warning("%s: %s; trying again in %g s", job.source, reason, wait)

    def requeue(
        self, job: Job, code: Reason, reason: str, wall: UnixTime, *, wait_seconds: float = 0.0
    ) -> None:
        """Queue a job again without counting an attempt; others go first while it waits."""
        self._journal.requeue(
            job, wall, code=code, reason=reason, not_before=wall + wait_seconds, counted=False
        )

    def clean(self, job: Job) -> None:
        """Remove the unfinished work of a job."""
        relative = self.folders.relative(job.source)
        outbox, tag = self.folders.outbox, tag_of(self._journal.token, job.id)
        remove_work(outbox, (outbox / relative).parent, tag)

    def needs(self, job: Job) -> bool:
        """Whether the row of a finished job still has a purpose: without it its source would be
        colored again, or its result replaced by that of another source."""
        if job.state is State.DONE and self._routing.config_for(job.source).output.overwrite:
            return True
        try:
            with folder_beneath(self.folders.inbox, job.source.parent) as folder:
                found = os.stat(job.source.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return not self._has_the_disk_of(job)
        except OSError:
            return True
        there = signature_from(found)
        return (there.size, there.mtime_ns) == (job.size, job.mtime_ns)

    def _has_the_disk_of(self, job: Job) -> bool:
        """Whether the disk of a missing source is mounted: the inbox itself, or another disk that
        is mounted in a folder of the inbox."""
        try:
            return self.inbox_is_there() and self.folders.inbox.stat().st_dev == job.device
        except OSError:
            return False

    def _done(
        self,
        job: Job,
        target: Path,
        partial: Partial,
        figures: str,
        wall: UnixTime,
        inventory: Inventory = (),
        *,
        is_whole: bool,
    ) -> None:
        with anchored(self.folders.outbox, target.parent) as here:
            named = here / target.name
            publish_beside(here / partial.path.parent.name, named)
            if algorithm := self._config.after.algorithm:
                digest = partial.digest
                if not is_digest(digest, algorithm):
                    digest = digest_of(named, algorithm)
                write_checksum(named, digest, algorithm)
        action = self._config.after.source
        if action != "keep" and not is_whole:
            log.warning("%s: kept, since its result does not hold all of its pictures", job.source)
            action = "keep"
        retires = "" if action == "keep" else action
        self._journal.finish(job, wall, reason=figures, retire=retires, inventory=inventory)
        log.info("done: %s (%s)", target, figures)
        self.clean(job)
        remove_reason(self._reason_path(job), self.folders.outbox)
        if action != "keep":
            self._retire(job, action)

    def _retire(self, job: Job, action: str) -> None:
        if not self.inbox_is_there():
            return  # done when the inbox is back
        if retire(job.source, job.queued, action, self.folders.inbox, self.folders.archive):
            self._journal.retired(job)

    def _may_replace(self, target: Path, source: Path) -> bool:
        """Two sources never share a result, even where older results are replaced."""
        overwrite = self._routing.config_for(source).output.overwrite
        if not overwrite or self._journal.made_by_another(target, source):
            return False
        try:
            with anchored(self.folders.outbox, target.parent) as here:
                return not stands_under_another_name(here / target.name)
        except FileNotFoundError:  # a folder that a power failure has taken away
            return True

    def _earlier_result(self, job: Job, wanted: Path) -> Path | None:
        """Where the result of an earlier run of this job is, if it has the name that is wanted now,
        or that with a number, and is as we left it: a job that was done and is retried replaces it,
        and nothing that others have put or changed there."""
        target, partial = job.target, job.partial
        names = (wanted, *(numbered(wanted, number) for number in range(2, _MOST_NUMBERS)))
        if target not in names or target is None or partial is None:
            return None
        try:
            with anchored(self.folders.outbox, target.parent) as here:
                return target if partial.is_at(here / target.name) else None
        except OSError:
            return None

    def _tell(self, job: Job, wall: UnixTime, is_whole: bool) -> Tell:
        return lambda target, partial: self._journal.publishing(
            job, target, partial, wall, is_whole=is_whole
        )

    def _reason_path(self, job: Job) -> Path:
        return reason_path(self.folders.failed, self.folders.relative(job.source))


class Unpublished:
    """Finished files that could not be published yet, because of a crash or a full or missing disk;
    each is tried again until it has its name.
    """

    def __init__(self, space: OutboxSpace) -> None:
        self._space = space
        self._jobs: dict[int, Job] = {}
        self._refusals: dict[int, int] = {}
        self._due: dict[int, float] = {}  # of those whose folder in the outbox is obstructed

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._jobs.setdefault(job.id, job)

    def publish(
        self,
        lifecycle_of: Callable[[Path], JobLifecycle | None],
        tries: int,
        now: Monotonic,
        wall: UnixTime,
    ) -> None:
        """Publish those whose outboxes can be written. lifecycle_of: None for a file that waits."""
        for job in [*self._jobs.values()]:
            lifecycle = lifecycle_of(job.source) if now >= self._due.get(job.id, now) else None
            if lifecycle is not None and self._space.can_write(lifecycle.folders.outbox, now):
                self._publish(job, lifecycle, tries, now, wall)

    def _publish(
        self, job: Job, lifecycle: JobLifecycle, tries: int, now: Monotonic, wall: UnixTime
    ) -> None:
        try:
            lifecycle.recover(job, wall)
        except Obstructed as error:  # something stands in the way of this file only
            if job.id not in self._due:
                log.warning("cannot publish %s: %s: %s", job.target, error.filename, error.strerror)
            self._due[job.id] = now + self._space.wait_seconds
            return
        except OSError as error:
            reason = f"cannot publish {job.target}: {error.strerror}"
            refusals = self._refusals[job.id] = self._refusals.get(job.id, 0) + 1
            if refusals < tries:
                self._space.wait(lifecycle.folders.outbox, reason, now)
                return
            lifecycle.set_aside(job, State.FAILED, Reason.PUBLISH, reason, wall)
        self._refusals.pop(job.id, None)
        self._due.pop(job.id, None)
        del self._jobs[job.id]


def reason_path(failed: Path, relative: Path) -> Path:
    """The file that says why a source failed: in the folder `failed`, in the source's subfolder."""
    name = os.fsencode(relative.name)
    if len(name) > LONGEST_NAME - len(_SUFFIX):
        name = name[: LONGEST_NAME - len(_SUFFIX)]
    return failed / relative.with_name(os.fsdecode(name) + _SUFFIX)


def write_reason(path: Path, top: Path, job: Job, reason: str, now: UnixTime) -> None:
    """Write why a source failed. An error here is only logged.

    top: the outbox.
    """
    when = datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds")
    text = (
        f"{printable(str(job.source))}\n"
        f"could not be colored: {printable(reason)}\n\n"
        f"The file itself was left in place. After {job.attempts} attempt(s), the last at {when}.\n"
        f"To try again, repair or replace it, or run: colordaemon retry {job.id}\n"
        f"(colordaemon {__version__})\n"
    )
    try:
        with anchored(top, path.parent, make=True) as here:
            replace_file(here / path.name, text.encode(errors="backslashreplace"))
    except OSError as error:
        log.warning("cannot write %s: %s", path, error.strerror)


def remove_reason(path: Path, top: Path) -> None:
    """Remove what an earlier failure wrote: the file is done now. top: the outbox."""
    try:
        # Never through a link or a file: we write nothing there.
        with suppress(FileNotFoundError, Obstructed), anchored(top, path.parent) as here:
            (here / path.name).unlink()
    except OSError as error:
        log.warning("cannot remove %s: %s", path, error.strerror)
