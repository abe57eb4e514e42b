"""The segment task: decode, color and encode one stretch of a film.

Run by the workers of a `concurrent.futures` executor: `start_worker` is its initializer,
`run_segment` the function that tasks are submitted to. Decoding, the network and the encoder
overlap in three threads. A worker keeps its decoder open from one segment to the next, so on one
machine nothing is decoded twice.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from colordaemon.color import PixelCode, chroma_planes
from colordaemon.errors import Interrupted, MediaError
from colordaemon.film.plan import SHORTEST_SECONDS, SegmentResult, SegmentTask
from colordaemon.film.prefetch import prefetch
from colordaemon.film.shots import CutDetector
from colordaemon.media.decode import FilmReader, Frame
from colordaemon.media.encode import SegmentWriter
from colordaemon.media.probe import FilmInfo
from colordaemon.network.colorizer import Colorizer

AHEAD_BYTES = 256 << 20  # full frames that may wait between two threads


@dataclass(frozen=True)
class SmallFrame:
    """A frame and what the network sees of it: (h, w) float32 gray in 0..1, upright."""

    frame: Frame
    gray: np.ndarray
    cut: bool


class Playback:
    """A film being read from its beginning, one segment after the other."""

    def __init__(self, task: SegmentTask, colorizer: Colorizer) -> None:
        self.source = task.source
        self.reader = FilmReader(task.source, damaged_percent=task.damaged_percent)
        self._frames = prefetch(
            small_frames(self.reader, colorizer), frames_ahead(task.source), "decode"
        )
        self.next: SmallFrame | None = next(self._frames, None)

    def close(self) -> None:
        self._frames.close()  # type: ignore[attr-defined]  # joins the thread that reads
        self.reader.close()

    def may_reach(self, pts: int | None) -> bool:
        """Whether a frame (None: the first one) lies ahead."""
        return pts is not None and self.next is not None and self.next.frame.pts <= pts

    def skip_to(self, task: SegmentTask) -> None:
        """Go to the task's first frame and make sure that it is the right picture."""
        start = task.start_pts
        while start is not None and self.next and self.next.frame.pts < start:
            self.next = next(self._frames, None)
        if self.next is None or start not in (None, self.next.frame.pts):
            raise MediaError(f"{self.source.path}: no frame at pts {start}")
        found = luma_crc(self.next.frame)
        if task.start_crc is not None and found != task.start_crc:
            raise MediaError(
                f"{self.source.path}: the frame at pts {self.next.frame.pts} has changed "
                f"(luma CRC {found:08x}, expected {task.start_crc:08x})"
            )

    def segment(self, task: SegmentTask) -> Iterator[SmallFrame]:
        """The frames of a task; the one after them stays in `next`."""
        assert self.next is not None
        start = self.next.frame.pts
        while self.next is not None and not self._ends(task, start):
            yield self.next
            self.next = next(self._frames, None)

    def _ends(self, task: SegmentTask, start: int) -> bool:
        assert self.next is not None
        pts = self.next.frame.pts
        if task.end_pts is not None:
            return pts >= task.end_pts
        seconds = float((pts - start) * self.source.time_base)
        return seconds >= (SHORTEST_SECONDS if self.next.cut else task.longest_seconds)


class SegmentWorker:
    """Runs segment tasks one after the other and keeps the film open in between."""

    def __init__(
        self,
        colorizer: Colorizer,
        on_frame: Callable[[Frame], None] = lambda frame: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.colorizer, self.on_frame, self.should_stop = colorizer, on_frame, should_stop
        self._playback: Playback | None = None

    def run(self, task: SegmentTask) -> SegmentResult:
        """Raises MediaError, and Interrupted when a stop is asked for; leaves no file then."""
        try:
            return self._run(task)
        except BaseException:
            self.close()
            task.path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        if self._playback is not None:
            self._playback.close()
            self._playback = None

    def _run(self, task: SegmentTask) -> SegmentResult:
        playback = self._playback_for(task)
        playback.skip_to(task)
        cuts: list[int] = []
        last: Frame | None = None
        colored = prefetch(
            colored_frames(playback.segment(task), task, self.colorizer),
            frames_ahead(task.source),
            "color",
        )
        try:
            with SegmentWriter(task.path, task.encoder) as writer:
                for small, chroma in colored:
                    if self.should_stop():
                        raise Interrupted(f"{task.source.path}: stopped")
                    writer.write(small.frame, chroma)
                    self.on_frame(small.frame)
                    last = small.frame
                    if small.cut:
                        cuts.append(last.pts)
        finally:
            colored.close()  # type: ignore[attr-defined]
        assert last is not None
        following = playback.next.frame if playback.next else None
        if following is None:
            self.close()
        return SegmentResult(
            index=task.index,
            path=task.path,
            packet_pts=tuple(writer.packet_pts),
            end_pts=last.pts + last.duration,
            next_pts=following.pts if following else None,
            next_crc=luma_crc(following) if following else None,
            cuts=tuple(cuts),
            damage=replace(playback.reader.damage),
        )

    def _playback_for(self, task: SegmentTask) -> Playback:
        """The open film, if it stands at or before the task's start; else a new one."""
        playback, start = self._playback, task.start_pts
        if playback is not None and playback.source == task.source and playback.may_reach(start):
            return playback
        self.close()
        self._playback = Playback(task, self.colorizer)
        return self._playback


_this_thread = threading.local()


def start_worker(make_worker: Callable[[], SegmentWorker]) -> None:
    """Give the calling thread or process a worker; for an executor's `initializer`."""
    _this_thread.worker = make_worker()


def run_segment(task: SegmentTask) -> SegmentResult:
    """Run a task with the worker of the calling thread or process."""
    worker: SegmentWorker = _this_thread.worker
    return worker.run(task)


def small_frames(reader: FilmReader, colorizer: Colorizer) -> Iterator[SmallFrame]:
    """Frames with what the network and the cut detector see of them."""
    info, detector = reader.info, CutDetector()
    quarter_turns = info.rotation // 90 % 4
    shape = (info.height, info.width * float(info.sample_aspect))
    height, width = colorizer.network_size(*shape)
    for frame in reader:
        small = cv2.resize(frame.luma, (width, height), interpolation=cv2.INTER_AREA)
        gray = (small.astype(np.float32) - info.code.black) / info.code.luma_span
        gray = np.rot90(gray, quarter_turns).clip(0.0, 1.0)
        yield SmallFrame(frame, gray, detector.is_cut(gray * 255))


def colored_frames(
    frames: Iterator[SmallFrame], task: SegmentTask, colorizer: Colorizer
) -> Iterator[tuple[SmallFrame, np.ndarray]]:
    """Frames with their chroma planes (2, H', W') in the encoder's own code."""
    quarter_turns = task.source.rotation // 90 % 4
    for batch in batches(frames, colorizer.batch_size):
        gray = torch.from_numpy(np.stack([small.gray for small in batch])).unsqueeze(1)
        ab = torch.rot90(colorizer.predict_ab(gray), -quarter_turns, dims=(-2, -1))
        for small, one_ab in zip(batch, ab, strict=True):
            yield small, frame_chroma(small.frame, one_ab, task.encoder.code)


@torch.inference_mode()
def frame_chroma(frame: Frame, ab: Tensor, code: PixelCode) -> np.ndarray:
    """Chroma planes (2, H', W') for a frame from its ab (2, h, w); runs where ab is."""
    luma = frame.luma
    if code.depth > 8:
        luma = luma.astype(np.uint16) << (code.depth - frame.depth)
    planes = torch.from_numpy(luma)[None, None].to(ab.device)
    return chroma_planes(planes, ab[None], code)[0].cpu().numpy()  # the GPU has to wait here


def batches(frames: Iterator[SmallFrame], size: int) -> Iterator[list[SmallFrame]]:
    batch: list[SmallFrame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def luma_crc(frame: Frame) -> int:
    """CRC-32 of a frame's luma codes."""
    return zlib.crc32(np.ascontiguousarray(frame.luma).data)


def frames_ahead(info: FilmInfo) -> int:
    """How many frames may wait in a queue: bounded by bytes, and by count for tiny pictures."""
    frame_bytes = info.width * info.height * 3 * (2 if info.layout.depth > 8 else 1)
    return min(32, max(2, AHEAD_BYTES // frame_bytes))
