"""Colors one film: plans it, runs its segments, joins and verifies them, into a partial file."""

from __future__ import annotations

import functools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from colordaemon.config import FilmSettings
from colordaemon.errors import AlreadyColor, MediaError
from colordaemon.film.crew import Crew, Elsewhere, Helper, Helpers
from colordaemon.film.join import join, verify
from colordaemon.film.manifest import Manifest, identity_of
from colordaemon.film.pipeline import check_memory, guide_bytes, reading_bytes, scouting_bytes
from colordaemon.film.plan import FilmPlan, SegmentResult, SegmentTask, segment_name
from colordaemon.film.scout import LONGEST_STRETCH, Stretches, scouted
from colordaemon.film.segment import SegmentWorker, run_segment, start_worker
from colordaemon.film.shots import StrideSetting
from colordaemon.guide.guide import NO_GUIDE, Guide
from colordaemon.logs import counted
from colordaemon.media.codec import EncoderSettings, choose_encoder
from colordaemon.media.colorspace import color_holdings
from colordaemon.media.demux import open_film
from colordaemon.media.holdings import as_found, light_found, side_data, side_entries, transparency
from colordaemon.media.inventory import Inventory, Note, grave_losses
from colordaemon.media.mux import film_of
from colordaemon.media.probe import FilmInfo, probe_film
from colordaemon.media.provenance import Maker
from colordaemon.media.stretch import Stretch
from colordaemon.media.target import Target, choose_target
from colordaemon.media.tint import ExistingColor
from colordaemon.memory import limit_bytes, release_free_heaps
from colordaemon.network.colorizer import Colorizer
from colordaemon.work_context import WorkContext


@dataclass(frozen=True)
class FilmJob:
    """What will be done with a film, decided before the model runs.

    inventory: what the source holds, and what happens to it. remarks: other differences from the
    source or the settings, for people. keep_color: shots that have real color already are left
    unchanged. guide: pictures that guide its colors. most_workers: that there is memory for, if
    no other film is made at the same time. memory_bytes: that each of them needs.
    """

    source: FilmInfo
    encoder: EncoderSettings
    target: Target
    settings: FilmSettings
    inventory: Inventory
    remarks: tuple[str, ...]
    keep_color: bool = True
    guide: Guide = NO_GUIDE
    most_workers: int = 1
    memory_bytes: int = 0


@dataclass(frozen=True)
class FilmReport:
    """What was done with a film.

    resumed: segments that an earlier, interrupted call had made. kept: frames that kept their own
    color. damaged: video packets that did not decode. retimed: frames whose time was missing or out
    of order. jumps: of the film's clock, after which all times were shifted. overdeclared: seconds
    in its header beyond its real end. left_out: packets of other streams, too damaged to be copied.
    misshown: frames whose field order differs from what the result says. unlike: says that
    reference pictures have little in common with the film; empty if they have, or there are none.
    inventory: what the source holds, and what happened to it. Unlike that of the job it includes
    everything that came with frames, and marks as lost what is not found in the finished film.
    """

    frames: int
    segments: int
    resumed: int
    shots: int
    damaged: int
    retimed: int
    jumps: int
    overdeclared: float
    left_out: int
    kept: int
    misshown: int
    unlike: str
    inventory: Inventory

    def remarks(self) -> list[str]:
        """Remarks for the user."""
        told = {
            f"{self.kept} of {counted(self.frames, 'frame')} had color already and kept it":
                self.kept,
            f"{counted(self.misshown, 'frame')} had another field order than the film says":
                self.misshown,
            f"{counted(self.damaged, 'damaged video packet')}; the rest is done": self.damaged,
            f"{counted(self.retimed, 'frame')} had no time or one out of order; put in order":
                self.retimed,
            f"the clock starts anew or jumps {counted(self.jumps, 'time')}; all streams go on from"
            " there":
                self.jumps,
            Note(f"its header declares {self.overdeclared:.1f} s more than there are; nothing is"
                 " missing at its end"): round(self.overdeclared),
            f"left out: {counted(self.left_out, 'damaged packet')} of sound or subtitles":
                self.left_out,
            self.unlike: len(self.unlike),
        }  # fmt: skip
        return [words for words, count in told.items() if count]


def plan_film(
    path: Path,
    settings: FilmSettings,
    *,
    guide: Guide = NO_GUIDE,
    force: bool = False,
    memory_bytes: int | None = None,
    share: float = 1.0,
    stretch: Stretch | None = None,
) -> FilmJob:
    """Probe a film and choose encoder and container.

    guide: pictures that guide its colors.
    memory_bytes: how much all films may use that are made at the same time; None: the default of
    this machine. share: of that, for one worker with this film.
    stretch: all that is wanted of the film; None: the whole.
    Raises MediaError for a file that is no film or would lose its sound or subtitles, and for
    pictures that cannot guide it, TooLarge for a film that needs more memory than its share,
    AlreadyColor for a film with real color unless `force`, ConfigError for encoder options that do
    not exist.
    """
    if memory_bytes is None:
        memory_bytes = limit_bytes(None)
    allowed = int(memory_bytes * share)
    source = probe_film(path, settings, stretch)
    check_memory(source, reading_bytes(source, settings.stride), allowed)
    if not force and source.existing_color is ExistingColor.COLOR:
        raise AlreadyColor(
            f"{path}: has real color already; `colordaemon once --force` replaces it"
        )
    encoder, remarks = choose_encoder(source, settings)
    wanted = reading_bytes(source, settings.stride) + encoder.memory_bytes + guide_bytes(guide)
    check_memory(source, wanted, allowed)
    most_workers = max(1, (memory_bytes - scouting_bytes(source)) // wanted)
    target = choose_target(source, encoder)
    release_free_heaps()  # both have opened encoders
    told = (*remarks, *target.remarks)
    if stretch:
        told = (*told, Note(f"only what is shown from {stretch} is wanted of it"))
    inventory = (
        *target.inventory,
        *side_data(source, encoder.codec, target.format, target.shape.covered),
        *transparency(source, encoder.pix_fmt, encoder.codec),
        *color_holdings(source.tags, source.code, encoder.code, encoder.codec, target.format),
    )
    if not settings.accept_loss and (lost := grave_losses(inventory)):
        reasons = "; ".join(map(str, lost))
        raise MediaError(f"{path}: {reasons}; --accept-loss colors it without")
    if guide:
        from colordaemon.film.guide import check_guide  # only films with a guide need any of it

        guide, more = check_guide(guide, source)
        told = (*told, *more)
    return FilmJob(
        source, encoder, target, settings, inventory, told, not force, guide, most_workers, wanted
    )


def color_film(
    job: FilmJob,
    partial: Path,
    colorizer: Colorizer,
    context: WorkContext | None = None,
    *,
    work: Path | None = None,
    made_by: str = "",
    maker: Maker | None = None,
    helpers: Helpers = lambda: (),
    elsewhere: Elsewhere | None = None,
) -> FilmReport:
    """Color a film on this machine, into `partial`.

    work: a folder for finished segments. The caller removes it; until then another call with the
    same job and folder goes on after the last of them, if it is made by the same model as well.
    None: a folder beside `partial`, which is removed.
    maker: who made the colors, for the metadata; None: the built-in model. helpers: gives further
    workers with the same model, of which as many take part as there is memory for; asked again and
    again, since more may come. The result is the same. elsewhere: other machines that make the
    segments; then this one only looks for cuts and joins.
    Raises MediaError, GuideChanged, OSError, and Interrupted when a stop is asked for.
    """
    context = context or WorkContext()
    worker = SegmentWorker(colorizer, context)
    if elsewhere is not None:
        allowed = elsewhere.memory_bytes
        check_memory(job.source, job.memory_bytes, allowed, "cluster.memory_mib")
    stride = stride_for(job.settings, elsewhere.device if elsewhere else colorizer.device)
    # The guide counts by what its pictures hold, wherever these lie.
    identity = identity_of(
        replace(job, guide=NO_GUIDE, most_workers=1),
        job.guide.identity,
        stride,
        elsewhere.colors if elsewhere else str(colorizer),
        made_by,
    )
    try:
        # Whatever is wrong with a guide is said before anything is written.
        worker.painter_for(job.source, job.guide, job.settings.damaged_percent)
        with _work_folder(work, partial) as folder:
            manifest = Manifest(folder, identity)
            done = manifest.load(context.heartbeat)
            resumed = len(done)

            def keep(result: SegmentResult) -> None:
                _check_unchanged(job.guide)
                manifest.add(result)
                done[result.index] = result

            def keep_and_tell(result: SegmentResult) -> None:
                keep(result)
                context.segment_done(len(done))

            def hands() -> Sequence[Helper]:
                return elsewhere.helpers() if elsewhere else helpers()[: job.most_workers - 1]

            alone: Helper = worker
            if elsewhere is not None:
                elsewhere.open(job.source.path, folder)
                alone = elsewhere.alone()
                alone.context = context
            with ThreadPoolExecutor(1, "segment", start_worker, (lambda: alone,)) as executor:
                run = functools.partial(
                    run_segments, job, folder, executor, stride, done=done, on_result=keep_and_tell
                )
                plan = run(until=lambda: elsewhere or hands())
                if not plan.is_whole:
                    together = _Together(job, folder, stride, done, keep, worker, hands, elsewhere)
                    together.run(context)
                    plan = run()
            others = join(
                plan, job.target, partial, maker, functools.partial(context.stage, "joining")
            )
            if others.exceeds(job.settings.damaged_percent):
                raise MediaError(
                    f"{job.source.path}: {others.damaged} of {others.packets} packets of sound or "
                    "subtitles are too damaged to be copied, more than "
                    f"{job.settings.damaged_percent:g} %; --accept-damaged leaves them out"
                )
            verify(plan, job.target, partial, functools.partial(context.stage, "checking"))
            inventory = _as_found(job, plan, partial)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        worker.close()
        if elsewhere is not None:
            elsewhere.close()
    damage = plan.damage
    shots = sum(len(segment.cuts) for segment in plan.segments)
    return FilmReport(
        frames=plan.frame_count,
        segments=len(plan.segments),
        resumed=resumed,
        shots=shots,
        damaged=damage.damaged,
        retimed=damage.retimed,
        jumps=damage.jumps,
        overdeclared=max(0.0, damage.overdeclared),
        left_out=others.damaged,
        kept=sum(segment.kept for segment in plan.segments),
        misshown=sum(segment.misshown for segment in plan.segments),
        unlike=job.guide.remark(plan.likeness, "film"),
        inventory=inventory,
    )


def _check_unchanged(guide: Guide) -> None:
    """Raises GuideChanged if a picture is no longer what it was when work on the film began."""
    if guide:
        from colordaemon.guide.pictures import check_unchanged  # only guides need any of it

        check_unchanged(guide)


def _as_found(job: FilmJob, plan: FilmPlan, finished: Path) -> Inventory:
    inventory, target = (*job.inventory, *_found_later(job, plan)), job.target
    with open_film(job.source.path) as source, open_film(finished) as result:
        found = as_found(inventory, source, result, target.format, target.kept, job.source)
        if not job.source.light.names:
            return found
        film = film_of(result, target.kept.index(job.source.stream_index))
        return light_found(found, next(result.decode(film)))


def _found_later(job: FilmJob, plan: FilmPlan) -> Inventory:
    """Entries for what came with frames and was not in the samples that the job is based on."""
    names = {name for segment in plan.segments for name in segment.beside}
    entries = side_entries(
        names - job.target.shape.covered, job.source, job.encoder.codec, job.target.format
    )
    return tuple(entry for entry in entries if entry not in job.inventory)


def stride_for(settings: FilmSettings, device: torch.device) -> StrideSetting:
    """`auto` is for processors; a GPU colors every frame while the encoder is still busy."""
    return 1 if settings.stride == "auto" and device.type == "cuda" else settings.stride


def run_segments(
    job: FilmJob,
    work: Path,
    executor: Executor,
    stride: StrideSetting = 1,
    *,
    done: Mapping[int, SegmentResult] | None = None,
    on_result: Callable[[SegmentResult], None] = lambda result: None,
    until: Callable[[], object] = lambda: False,
) -> FilmPlan:
    """Make all segments that are not done yet; each begins where the one before it ended.

    until: asked before each; if it is true, the plan is left as it is.
    """
    plan = _plan_of(job, work, stride, done or {})
    while (task := _following(job, work, stride, plan)) is not None and not until():
        result = executor.submit(run_segment, task).result()
        on_result(result)
        plan.add(result)
        plan = _plan_of(job, work, stride, done or {}, plan)
    return plan


@dataclass(frozen=True)
class _Together:
    """Makes segments that are not done yet, in any order; some are left after an error that one
    worker alone may not meet."""

    job: FilmJob
    work: Path
    stride: StrideSetting
    done: dict[int, SegmentResult]
    keep: Callable[[SegmentResult], None]
    own: SegmentWorker
    helpers: Helpers
    elsewhere: Elsewhere | None

    def run(self, context: WorkContext) -> None:
        job, done = self.job, self.done
        plan = _plan_of(job, self.work, self.stride, done)
        first = _following(job, self.work, self.stride, plan)
        if first is None:
            return

        def scout(go_on: Callable[[], None]) -> Iterator[SegmentTask]:
            for task in scouted(first, self.own.colorizer, go_on):
                if not _is_result_of(task, done.get(task.index)):
                    yield task

        seconds_done = sum(
            float((result.end_pts - min(result.packet_pts)) * job.source.time_base)
            for result in done.values()
        )
        stretches = Stretches(max(self._stretch_seconds(), job.settings.segment_seconds))
        rest = context, stretches, self.keep, len(done), seconds_done
        if self.elsewhere is not None:
            tries = self.elsewhere.tries
            Crew(job.source.path, None, self.helpers, *rest, tries=tries).run(scout)
            return
        threads = torch.get_num_threads()

        def hands() -> Sequence[Helper]:
            torch.set_num_threads(threads)  # they share these with us
            found = self.helpers()
            torch.set_num_threads(max(1, threads // (1 + len(found))))  # which changes no digit
            return found

        try:
            Crew(job.source.path, self.own, hands, *rest).run(scout)
        finally:
            torch.set_num_threads(threads)

    def _stretch_seconds(self) -> float:
        if self.elsewhere is not None:
            return self.elsewhere.stretch_seconds
        seconds = self.job.source.wanted_seconds or math.inf
        return min(LONGEST_STRETCH, seconds / (2 * (1 + len(self.helpers()))))


def _plan_of(
    job: FilmJob,
    work: Path,
    stride: StrideSetting,
    done: Mapping[int, SegmentResult],
    plan: FilmPlan | None = None,
) -> FilmPlan:
    """The plan, and all that is done and follows on it without a gap."""
    plan = plan or FilmPlan(job.source, job.encoder)
    while (task := _following(job, work, stride, plan)) is not None:
        result = done.get(task.index)
        if result is None or result.start != task.start:
            break
        plan.add(result)
    return plan


def _is_result_of(task: SegmentTask, result: SegmentResult | None) -> bool:
    """Whether a segment that was made earlier is what the task asks for."""
    if result is None or result.start != task.start:
        return False
    return task.end_pts == (result.next.pts if result.next else None)


def _following(
    job: FilmJob, work: Path, stride: StrideSetting, plan: FilmPlan
) -> SegmentTask | None:
    """The task after the segments that are finished; None at the film's end."""
    first = SegmentTask(
        index=0,
        source=job.source,
        encoder=job.encoder,
        path=work / segment_name(0),
        longest_seconds=job.settings.segment_seconds,
        damaged_percent=job.settings.damaged_percent,
        smoothing=job.settings.smoothing,
        smooth_on=job.settings.smooth_on,
        stride=stride,
        accept_loss=job.settings.accept_loss,
        keep_color=job.keep_color and not job.source.layout.is_gray,
        guide=job.guide,
    )
    if not plan.segments:
        return first
    last = plan.segments[-1]
    if last.next is None:
        return None
    return replace(first, index=last.index).following(last.next, last.damage)


@contextmanager
def _work_folder(kept: Path | None, partial: Path) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(exist_ok=True)
        yield kept
        return
    made = tempfile.mkdtemp(prefix=f"{partial.stem}.", suffix=".work", dir=partial.parent)
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)
