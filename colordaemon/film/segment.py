"""Runs segment tasks: decode, color and encode one stretch of a film.

Run by the workers of a `concurrent.futures` executor: `start_worker` is its initializer,
`run_segment` the function that tasks are submitted to. Decoding, the network and the encoder
overlap in three threads. A worker keeps its decoder open from one segment to the next, so on one
machine nothing is decoded twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from colordaemon.errors import Interrupted, MediaError
from colordaemon.film.gpu_chroma import ChromaPainter
from colordaemon.film.pipeline import FilmPipeline, frames_ahead, opened_at
from colordaemon.film.plan import SegmentResult, SegmentTask
from colordaemon.film.prefetch import prefetch
from colordaemon.guide.guide import Guide
from colordaemon.media.decode import Frame
from colordaemon.media.encode import own_chroma, segment_writer
from colordaemon.media.holdings import side_entries
from colordaemon.media.inventory import grave_losses
from colordaemon.media.probe import FilmInfo
from colordaemon.memory import release_free_heaps
from colordaemon.network.colorizer import Colorizer
from colordaemon.network.cuda import Traffic
from colordaemon.work_context import WorkContext

if TYPE_CHECKING:
    from colordaemon.film.guide import FilmPainter

_this_thread = threading.local()


class SegmentWorker:
    """Runs segment tasks one after the other and keeps the film open in between."""

    def __init__(
        self,
        colorizer: Colorizer,
        context: WorkContext | None = None,
    ) -> None:
        self.colorizer, self.context = colorizer, context or WorkContext()
        self._pipeline: FilmPipeline | None = None
        self._guided: tuple[FilmInfo, Guide, FilmPainter] | None = None

    def run(self, task: SegmentTask) -> SegmentResult:
        """Raises MediaError, and Interrupted when a stop is asked for; leaves no file then."""
        try:
            return self._run(task)
        except BaseException:
            self.close()
            task.path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    def _run(self, task: SegmentTask) -> SegmentResult:
        source, pipeline = task.source, self._pipeline_at(task)
        cuts: list[int] = []
        kept, misshown = 0, 0
        beside: set[str] = set()
        last: Frame | None = None
        waiting = prefetch(
            colored_frames(pipeline, task, self.colorizer.device),
            frames_ahead(source),
            "color",
        )
        try:
            with segment_writer(task.path, task.encoder) as writer:
                for colored in waiting:
                    if self.context.should_stop():
                        raise Interrupted(f"{source.path}: stopped")
                    last = colored.frame
                    if new := last.beside - beside:
                        beside |= new
                        _check_losses(task, new)
                    writer.write(last, colored.chroma)
                    seconds = float(last.pts * source.time_base - source.origin_seconds)
                    self.context.advance(seconds - source.start_seconds)
                    kept += colored.kept
                    misshown += last.fields != task.encoder.order_of(last.fields)
                    if colored.cut:
                        cuts.append(last.pts)
        finally:
            waiting.close()  # type: ignore[attr-defined]
            release_free_heaps()
        assert last is not None
        following, damage = pipeline.resume_point, pipeline.damage
        if following is None:
            self.close()
        return SegmentResult(
            index=task.index,
            path=task.path,
            start=task.start,
            packet_pts=tuple(writer.packet_pts),
            end_pts=last.pts + last.duration,
            next=following,
            cuts=tuple(cuts),
            damage=damage,
            kept=kept,
            misshown=misshown,
            beside=tuple(sorted(beside)),
            told=tuple(sorted(writer.told.items())),
            compared=len(pipeline.likenesses),
            likeness=sum(pipeline.likenesses),
        )

    def painter_for(
        self, source: FilmInfo, guide: Guide, damaged_percent: float
    ) -> FilmPainter | None:
        """The colorizer with a film's guide; None where the guide is empty. It is opened once.

        Raises MediaError for pictures that cannot guide this film, and Interrupted.
        """
        if not guide:
            return None
        from colordaemon.film.guide import open_guide  # only films with a guide need any of it

        if self._guided is None or self._guided[:2] != (source, guide):
            painter = open_guide(
                guide,
                source,
                self.colorizer,
                damaged_percent=damaged_percent,
                heartbeat=lambda: self._go_on(source),
            )
            self._guided = source, guide, painter
        return self._guided[2]

    def _pipeline_at(self, task: SegmentTask) -> FilmPipeline:
        """The open film if it is at the task's start; else a new one, moved there."""
        if self._pipeline is not None and self._pipeline.stands_at(task):
            return self._pipeline
        self.close()
        painter = self.painter_for(task.source, task.guide, task.damaged_percent)
        self._pipeline = opened_at(
            task, self.colorizer, painter, go_on=lambda: self._go_on(task.source)
        )
        return self._pipeline

    def _go_on(self, source: FilmInfo) -> None:
        """Raises Interrupted when a stop is asked for."""
        self.context.heartbeat()
        if self.context.should_stop():
            raise Interrupted(f"{source.path}: stopped")


class Runs(Protocol):
    """A `SegmentWorker`, or what stands in for it."""

    def run(self, task: SegmentTask) -> SegmentResult: ...


def start_worker(make_worker: Callable[[], Runs]) -> None:
    """Give the calling thread or process a worker; for an executor's `initializer`."""
    _this_thread.worker = make_worker()


def run_segment(task: SegmentTask) -> SegmentResult:
    """Run a task with the worker of the calling thread or process."""
    worker: Runs = _this_thread.worker
    return worker.run(task)


@dataclass(frozen=True)
class ColoredFrame:
    """A frame with its chroma planes (2, H', W') as the encoder takes them; kept: its own color."""

    frame: Frame
    chroma: np.ndarray
    cut: bool
    kept: bool


def colored_frames(
    pipeline: FilmPipeline, task: SegmentTask, device: torch.device
) -> Iterator[ColoredFrame]:
    """The frames of a task with their final colors."""
    painter = ChromaPainter[tuple[Frame, bool]](Traffic(device))
    for analyzed, ab in pipeline.colored(task):
        frame = pipeline.full(analyzed)
        if ab is None:
            _check_own_color(task.source)
            yield ColoredFrame(frame, own_chroma(frame, task.encoder), analyzed.cut, kept=True)
            continue
        stored = task.source.orientation.as_stored(ab).copy()
        code = task.encoder.code_of(frame.fields)
        for (done, cut), chroma in painter.feed((frame, analyzed.cut), frame, stored, code):
            yield ColoredFrame(done, chroma, cut, kept=False)
    for (done, cut), chroma in painter.finish():
        yield ColoredFrame(done, chroma, cut, kept=False)


def _check_own_color(source: FilmInfo) -> None:
    """Raises MediaError for shots in color whose matrix differs from that of the result: their
    chroma is copied unchanged and would be wrong."""
    if source.tags.strange_matrix:
        raise MediaError(
            f"{source.path}: has shots in color, and its color matrix is "
            f"{source.tags.strange_matrix}, expected one of Y'CbCr; "
            "`colordaemon once --force` colors them anew"
        )


def _check_losses(task: SegmentTask, names: set[str] | frozenset[str]) -> None:
    """Raises MediaError for captions that were not in the samples that the plan is based on."""
    lost = grave_losses(side_entries(names, task.source, task.encoder.codec, ""))
    if lost and not task.accept_loss:
        reasons = "; ".join(map(str, lost))
        raise MediaError(f"{task.source.path}: {reasons}; --accept-loss colors it without")
