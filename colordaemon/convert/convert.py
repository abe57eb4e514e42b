"""Colors one source file, photo or film: prepare it, run the work, publish the result."""

from __future__ import annotations

import errno
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from colordaemon.config import Config, PhotoSettings
from colordaemon.convert.beside import make_beside
from colordaemon.convert.models import Model
from colordaemon.convert.publish import (
    RESULT,
    digest_of,
    publish,
    publish_beside,
    refuse_taken,
    seal,
    target_for,
    write_checksum,
)
from colordaemon.convert.routing import first_fitting
from colordaemon.durable import partial_for
from colordaemon.errors import AlreadyColor, MediaError, OwnResult, TargetExists
from colordaemon.film.colorize import FilmJob, color_film, plan_film
from colordaemon.guide.guide import NO_GUIDE, Guide
from colordaemon.guide.sidecars import Sidecar, find_guide
from colordaemon.inbox.safe_open import (
    PRIVATE,
    OpenedSource,
    errors_by_name,
    opened,
    umask,
    umask_for_folders,
)
from colordaemon.logs import counted
from colordaemon.media.demux import open_film
from colordaemon.media.inventory import Inventory, Note, remarks
from colordaemon.media.photo import PhotoReport, color_photo, is_photo, output_suffix, plan_photo
from colordaemon.media.photo import refuse_our_own as refuse_our_photo
from colordaemon.media.photo_file import PhotoFile, picture_name
from colordaemon.media.probe import FilmInfo
from colordaemon.media.stills import READ
from colordaemon.media.stretch import Stretch
from colordaemon.media.tags import is_result
from colordaemon.memory import limit_bytes
from colordaemon.network.colorizer import Colorizer
from colordaemon.work_context import WorkContext

_LONGEST_STEM = 60  # letters of the source's name in the name of the work folder


class NoRoom(OSError):
    """A film needs more space than is free, and nothing was written yet; smaller films may fit."""


@dataclass(frozen=True)
class Colored:
    """What was done, as one line, and remarks for the user.

    inventory: all that the source holds, and what became of it. is_whole: whether every picture of
    the source is in the result. is_damaged: whether some of it could not be read.
    """

    summary: str
    remarks: tuple[str, ...]
    inventory: Inventory = ()
    is_whole: bool = True
    is_damaged: bool = False


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo that is ready to be colored. suffix: of the result. guide: of its colors. told:
    remarks on that."""

    source: Path
    settings: PhotoSettings
    force: bool
    suffix: str
    guide: Guide = NO_GUIDE
    told: tuple[str, ...] = ()

    @property
    def film(self) -> FilmInfo | None:
        """None, since it is none."""
        return None

    def plan(self) -> tuple[Inventory, tuple[str, ...]]:
        """What would happen to everything that it holds, and remarks. Raises MediaError,
        AlreadyColor."""
        inventory, told = plan_photo(self.source, self.settings, force=self.force)
        return inventory, (*told, *self.told)

    def run(self, partial: Path, model: Model, context: WorkContext, work: Path | None) -> Colored:
        """Color it into `partial`. Raises MediaError, AlreadyColor, GuideChanged, OSError."""
        report = model.photo_elsewhere(
            self.source, partial, self.settings, context, guide=self.guide, force=self.force
        )
        if report is None:
            report = self._color_here(partial, model, context)
        pages = f", {report.pages} pages" if report.pages > 1 else ""
        return Colored(
            f"{report.width}x{report.height}, {report.depth} bit{pages}{_following(self.guide)}",
            (*report.warnings, *self.told),
            report.inventory,
            report.is_whole,
            is_damaged=not report.is_whole,
        )

    def _color_here(self, partial: Path, model: Model, context: WorkContext) -> PhotoReport:
        """Without a guide the model is loaded when the first page needs it."""
        force, maker, heartbeat = self.force, model.maker(), context.heartbeat
        if not self.guide:
            return color_photo(
                self.source, partial, model.predict_ab, self.settings, force=force, maker=maker,
                heartbeat=heartbeat,
            )  # fmt: skip
        from colordaemon.guide.photo import color_guided  # only guides need any of it

        colorizer = loaded_for(self.guide, model)
        return color_guided(
            self.source, partial, self.guide, colorizer, self.settings, force=force, maker=maker,
            heartbeat=heartbeat,
        )  # fmt: skip


@dataclass(frozen=True)
class PreparedFilm:
    """A film that is ready to be colored; its encoder and container are chosen."""

    job: FilmJob

    @property
    def suffix(self) -> str:
        return self.job.target.suffix

    @property
    def film(self) -> FilmInfo | None:
        return self.job.source

    def plan(self) -> tuple[Inventory, tuple[str, ...]]:
        """What would happen to everything that it holds, and remarks."""
        return self.job.inventory, self.job.remarks

    def run(self, partial: Path, model: Model, context: WorkContext, work: Path | None) -> Colored:
        """Color it into `partial`.

        work: a folder for finished segments, kept after an interruption; None: they are lost.
        Raises MediaError, GuideChanged, OSError, NoRoom, and Interrupted on request.
        """
        info = self.job.source
        _check_space(info, partial.parent, work)
        colorizer = loaded_for(self.job.guide, model)
        context.begin(info.path, info.wanted_seconds)
        report = color_film(
            self.job,
            partial,
            colorizer,
            context,
            work=work,
            made_by=model.name,
            maker=model.maker(),
            helpers=lambda: model.helpers(self._most_helpers),
            elsewhere=model.elsewhere(context),
        )
        told = (*self.job.remarks, *remarks(report.inventory), *report.remarks())
        frames, shots = counted(report.frames, "frame"), counted(report.shots, "shot")
        summary = f"{frames}, {shots}, {info.width}x{info.height}"
        if report.resumed:
            summary += f", {report.resumed} of {counted(report.segments, 'segment')} from before"
        summary += _following(self.job.guide)
        is_damaged = bool(report.damaged or report.left_out)
        return Colored(summary, told, report.inventory, is_damaged=is_damaged)

    @property
    def _most_helpers(self) -> int:
        """None for a film of one segment: they would only be started."""
        info, settings = self.job.source, self.job.settings
        seconds = info.wanted_seconds
        is_short = seconds is not None and seconds <= settings.segment_seconds
        return 0 if is_short else self.job.most_workers - 1


Prepared = PreparedPhoto | PreparedFilm


def prepare(
    source: Path,
    config: Config,
    *,
    guide: Guide = NO_GUIDE,
    force: bool = False,
    share: float = 1.0,
    stretch: Stretch | None = None,
) -> Prepared:
    """Read what a file is, and decide everything that can be decided without the network.

    guide: the pictures that guide its colors. force: color files that have color already. share: of
    the memory, where others are worked on at the same time. stretch: all that is wanted of a film.
    Raises MediaError, TooLarge, AlreadyColor, OSError.
    """
    if is_photo(source):
        if stretch is not None:
            raise MediaError(f"{source}: found a photo, expected a film to take a range of")
        told: tuple[str, ...] = ()
        if guide:
            from colordaemon.guide.photo import check_guide  # only guides need any of it

            guide, told = check_guide(guide, source)
        suffix = output_suffix(source, config.photo)
        return PreparedPhoto(source, config.photo, force, suffix, guide, told)
    if name := picture_name(source):  # FFmpeg may open it as a film of one frame
        raise MediaError(f"{source}: found {name}, expected a {READ} picture or a film")
    if not force:
        _refuse_our_film(source)
    memory_bytes = limit_bytes(config.jobs.memory_mib)
    job = plan_film(
        source,
        config.film,
        guide=guide,
        force=force,
        memory_bytes=memory_bytes,
        share=share,
        stretch=stretch,
    )
    return PreparedFilm(job)


@dataclass(frozen=True)
class Planned:
    """Where the result of a file would go, what would happen to everything that it holds, and
    remarks. skipped: why the file would be skipped; the rest then says what --force would do."""

    target: Path
    inventory: Inventory
    remarks: tuple[str, ...] = ()
    skipped: str = ""


def plan(
    source: Path,
    config: Config,
    *,
    named: Sequence[Sidecar] = (),
    force: bool = False,
    stretch: Stretch | None = None,
) -> Planned:
    """What `convert` would do with a file, without running the network.

    Raises MediaError, TargetExists, GuideChanged, OSError.
    """
    with opened(source) as file:
        guide = guide_for(file, config, named=named)
        try:
            return _plan(file, config, guide, force, stretch)
        except AlreadyColor as reason:
            return replace(_plan(file, config, guide, True, stretch), skipped=str(reason))


def _plan(
    file: Path, config: Config, guide: Guide, force: bool, stretch: Stretch | None
) -> Planned:
    prepared = prepare(file, config, guide=guide, force=force, stretch=stretch)
    inventory, told = prepared.plan()
    told += (Note(f"its colors follow {guide.names}"),) if guide else ()
    return Planned(target_for(file, prepared.suffix, config, {}), inventory, told)


def convert(
    source: Path,
    config: Config,
    model: Model,
    context: WorkContext,
    made: Mapping[Path, Path],
    *,
    named: Sequence[Sidecar] = (),
    force: bool = False,
    stretch: Stretch | None = None,
) -> tuple[Path, Colored]:
    """Color a file and publish it; returns where the result is, and what was done. See
    `converted`."""
    with (
        umask(PRIVATE) as folder_umask,
        converted(
            source, config, model, context, made, folder_umask, named=named, force=force,
            stretch=stretch,
        ) as publish_it,
    ):  # fmt: skip
        return publish_it()


@contextmanager
def converted(
    source: Path,
    config: Config,
    model: Model,
    context: WorkContext,
    made: Mapping[Path, Path],
    folder_umask: int,
    *,
    named: Sequence[Sidecar] = (),
    force: bool = False,
    stretch: Stretch | None = None,
    check: Callable[[Prepared, Path], None] = lambda prepared, target: None,
) -> Iterator[Callable[[], tuple[Path, Colored]]]:
    """Color a file into a private folder; yields what publishes it, and returns where the result is
    and what was done. Unpublished it is removed.

    folder_umask: for folders that are made, while that of the process keeps files private. check:
    called with where the result will be before the work begins; what it raises passes through.
    made: results of this call, which are never replaced, and their sources; see `target_for`.
    named: pictures that guide its colors, from the command line; see `find_guide`. stretch: all
    that is wanted of a film.
    Raises MediaError, AlreadyColor, TargetExists, TargetTaken, GuideChanged, OSError, and
    Interrupted on request.
    """
    with opened(source) as file, errors_by_name():
        guide = guide_for(file, config, named=named)
        prepared = prepare(file, config, guide=guide, force=force, stretch=stretch)
        target = target_for(file, prepared.suffix, config, made)
        check(prepared, target)
        with umask_for_folders(folder_umask):  # for folders; files are private until finished
            target.parent.mkdir(parents=True, exist_ok=True)
        hidden = partial_for(target).stem[:_LONGEST_STEM]
        with (
            TemporaryDirectory(
                ".work", f"{hidden}.", target.parent, ignore_cleanup_errors=True
            ) as folder,
            ExitStack() as stack,
        ):
            stack.callback(context.end)
            partial = Path(folder) / RESULT
            colored = prepared.run(partial, model, context, work=None)
            told = make_beside(prepared.film, file, partial, config.output, model.maker(), context)
            seal(partial, file)
            colored = replace(colored, remarks=(*colored.remarks, *told))

            def publish_it() -> tuple[Path, Colored]:
                refuse_taken(source, target, made)  # again: others were made at the same time
                try:
                    with umask_for_folders(folder_umask):  # for its checksum
                        _publish_all(partial, target, config, context)
                except TargetExists as reason:
                    raise TargetExists(f"{source}: {reason}") from None
                return target, colored

            yield publish_it


def _publish_all(partial: Path, target: Path, config: Config, context: WorkContext) -> None:
    """The result comes last: without it, whoever was killed in between begins anew."""
    algorithm = config.after.algorithm
    if target.exists() and not config.output.overwrite:
        raise TargetExists(f"{target} appeared while it was being made; not replaced")
    if algorithm is not None:
        tell = functools.partial(context.stage, "checksum")
        write_checksum(target, digest_of(partial, algorithm, tell), algorithm)
    publish_beside(partial.parent, target)
    publish(partial, target, overwrite=config.output.overwrite)


def guide_for(
    file: OpenedSource, config: Config, *, top: Path | None = None, named: Sequence[Sidecar] = ()
) -> Guide:
    """The pictures that guide the colors of a file, as they are now; see `find_guide`."""
    configured = first_fitting(file, config.references, None)
    candidates = first_fitting(file, config.candidates, None)
    if candidates is not None and not config.photo.candidates and is_photo(file):
        candidates = None
    return find_guide(file, top=top, configured=configured, candidates=candidates, named=named)


def _following(guide: Guide) -> str:
    """The end of a summary: what the colors follow, if that is anything but the model."""
    return f", colors after {guide.names}" if guide else ""


def refuse_our_own(source: Path) -> None:
    """Raises OwnResult for a photo or film whose metadata say that colordaemon made it."""
    with opened(source) as file:
        if is_photo(file):
            refuse_our_photo(PhotoFile(file))
        else:
            _refuse_our_film(file)


def _refuse_our_film(source: Path) -> None:
    with open_film(source) as container:
        if is_result(container, source):
            raise OwnResult(f"{source}: is a result of colordaemon; expected a source")


def loaded_for(guide: Guide, model: Model) -> Colorizer:
    """The model at work. Raises MediaError if there is a guide that it cannot use."""
    colorizer = model.load()
    if guide:
        from colordaemon.guide.references import check_axes  # only guides need any of it

        check_axes(guide, colorizer, model.maker().model)
    return colorizer


def _check_space(info: FilmInfo, folder: Path, work: Path | None) -> None:
    """Raises NoRoom if segments and joined film do not fit, each about as large as the source."""
    needed, free = 2 * info.path.stat().st_size, shutil.disk_usage(folder).free
    whole = info.duration_seconds or info.container_seconds
    if whole and info.wanted_seconds:
        needed = round(needed * info.wanted_seconds / whole)
    if work is not None and work.exists():
        needed -= sum(path.stat().st_size for path in work.iterdir())
    if free < needed:
        reason = f"{free >> 20} MiB free, about {needed >> 20} MiB needed"
        raise NoRoom(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({reason})", str(folder))
