"""Reads a film segment by segment and gives each frame its color.

Smoothing needs the frames before a segment and after it. So predictions run ahead of the frames
that are taken, and the last ones taken are kept, both within the shot. Frames that the network does
not see get their color from their neighbors. Full frames are kept meanwhile, up to a fixed number
of bytes; if the frames of a film are too large for that, it is decoded a second time instead.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from colordaemon.color import WHOLE_PIXELS
from colordaemon.errors import MediaError, TooLarge
from colordaemon.film.analysis import JUDGED, AnalyzedFrame, analyzed_frames, shots_in_color
from colordaemon.film.gpu_smoothing import SmoothingMath
from colordaemon.film.plan import SHORTEST_SECONDS, ResumePoint, SegmentTask, Shot
from colordaemon.film.prediction import Prediction, Predictions
from colordaemon.film.prefetch import prefetch
from colordaemon.film.propagation import ColorPropagator
from colordaemon.film.shots import LONGEST_STILL, Stride, StrideSetting
from colordaemon.film.smoothing import LOOK_AHEAD, TOGETHER, Sample
from colordaemon.guide.guide import Guide
from colordaemon.media.decode import REORDER_FRAMES, FilmReader, Frame, decoder_threads
from colordaemon.media.demux import Damage
from colordaemon.media.probe import FilmInfo
from colordaemon.network.colorizer import Colorizer

if TYPE_CHECKING:
    from colordaemon.film.guide import FilmPainter

log = logging.getLogger(__name__)

AHEAD_BYTES = 160 << 20  # full frames that may wait between two threads
HELD_BYTES = 640 << 20  # full frames that may be kept until their color is known
_HELD_SAMPLES = 2 * LOOK_AHEAD + TOGETHER  # kept at most, with the frames between them
_GROUND_BYTES = 808 << 20  # libraries, the network at work, small pictures of the frames that wait
# Pictures that a decoder refers to, and that come late: as many as the levels of H.264 and HEVC
# allow in 4K and 8K. Those of codecs that are not listed are whole in themselves.
_REFERRED = {"h264": 5, "hevc": 6, "av1": 9, "vp9": 9, "mpeg2video": 3, "mpeg4": 3, "vc1": 3}
_LEAST_BYTES = 1148 << 20  # with small pictures, whose gaps in the heap the network cannot use
_KEPT = 1.06  # gaps in the heap, for each byte of pictures (benchmarks/memory.py, at 8K)
# Of float planes and the gaps that they leave, for each pixel of a picture that is painted whole.
_PAINTING_BYTES = 80
_DECODED = 2  # pictures that are held between decoder and queue
_PASSING = 3  # and on both sides of the queue of colored ones
_MATCHING_BYTES = 96 << 20  # to compare a frame with pictures that guide its colors
_PICTURE_BYTES = 2 << 20  # for each of these, whatever its size


class FilmPipeline:
    """A film's frames in order, segment after segment.

    painter: the colorizer with the task's guide, if that has one. seeks: whether to seek to the
    task's start. `sought` says whether that was done; if so, an error before the start may come
    from the seek and not from the film. holds: whether full frames are kept until their color is
    known; None: if there is room for them.
    """

    def __init__(
        self,
        task: SegmentTask,
        colorizer: Colorizer,
        painter: FilmPainter | None = None,
        *,
        seeks: bool = True,
        holds: bool | None = None,
    ) -> None:
        self.source, self._guide = task.source, task.guide
        self.likenesses: list[float] = []  # of the segment's frames to reference pictures
        self._start = task.start
        entry = task.start.entry(task.damage) if task.start and seeks else None
        percent = task.damaged_percent
        self._reader = FilmReader(task.source, damaged_percent=percent, entry=entry)
        if holds is None:
            holds = held_bytes(task.source, task.stride) <= HELD_BYTES
        self._second = None
        if not holds:
            self._second = FilmReader(task.source, damaged_percent=100.0, entry=entry)
        self._second_frames = iter(self._second) if self._second else None
        frames = analyzed_frames(
            self._reader, colorizer, Stride(task.stride), holds, judges=task.keep_color
        )
        self._frames = prefetch(shots_in_color(frames), frames_ahead(task.source), "decode")
        self._predictions = Predictions(self._frames, colorizer, painter)
        self._smoothing = SmoothingMath(colorizer.device)
        self._behind: deque[tuple[int, Sample]] = deque(maxlen=LOOK_AHEAD)  # taken, of this shot
        self._shot = Shot(entry if self._reader.sought else None)  # as far as it was taken
        self._full: Frame | None = None

    def close(self) -> None:
        self._frames.close()  # type: ignore[attr-defined]  # joins the thread that reads
        self._reader.close()
        if self._second:
            self._second.close()

    @property
    def next(self) -> AnalyzedFrame | None:
        """The frame that is taken next; None at the film's end."""
        return self._predictions.next

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where another pipeline can go on from here; None at the film's end."""
        if self.next is None:
            return None
        warm_pts = self._behind[0][0] if self._behind else self.next.pts
        return self._shot.resume_point(self.next, self.full(self.next).luma_crc(), warm_pts)

    @property
    def damage(self) -> Damage:
        """Counted from the film's beginning to the next frame; in full at its end."""
        return self.next.damage if self.next else replace(self._reader.damage)

    @property
    def sought(self) -> bool:
        return self._reader.sought or bool(self._second and self._second.sought)

    def stands_at(self, task: SegmentTask) -> bool:
        """Whether the task's first frame is next, and the frames that smoothing needs are kept."""
        return task.start is not None and (self.source, self._guide, self.resume_point) == (
            task.source,
            task.guide,
            task.start,
        )

    def go_to_start(self) -> Iterator[None]:
        """Go to the first frame of the task, frame by frame, and check that it is the same picture
        as the first time."""
        start, path = self._start, self.source.path
        while start and self.next and self.next.pts < start.warm_pts:
            self._shot.add(self._predictions.skip())
            yield
        while start and self.next and self.next.pts < start.pts:
            self._take()
            yield
        if self.next is None or (start and self.next.pts != start.pts):
            raise MediaError(f"{path}: no frame at pts {start and start.pts}")
        found = self.resume_point if start else None
        if start and found and found.crc != start.crc:
            raise MediaError(
                f"{path}: the frame at pts {start.pts} has changed "
                f"(luma CRC {found.crc:08x}, expected {start.crc:08x})"
            )
        if self.sought and found != start:
            raise MediaError(f"{path}: the shot before pts {found and found.pts} has changed")

    def pass_over(self, task: SegmentTask) -> Iterator[None]:
        """Go to the end of a task, frame by frame, without coloring it."""
        for _ in self._segment(task):
            yield

    def colored(self, task: SegmentTask) -> Iterator[tuple[AnalyzedFrame, np.ndarray | None]]:
        """The frames of a task with their final ab (2, h, w), upright; None for those of shots that
        have color of their own; a segment has either kind only."""
        if self.next is not None and self.next.in_color:
            yield from ((prediction.frame, None) for prediction in self._segment(task))
            return
        propagator = ColorPropagator()
        waiting: deque[AnalyzedFrame] = deque()

        def segment() -> Iterator[Prediction]:
            for prediction in self._segment(task):
                analyzed = prediction.frame
                waiting.append(replace(analyzed, gray=None))  # no longer needed, and many wait
                propagator.feed(analyzed.pts, analyzed.luma, prediction.sample is not None)
                yield prediction

        beyond = None
        for analyzed, ab in self._smoothed(segment(), task):
            ours = bool(waiting) and analyzed.pts <= waiting[-1].pts
            if not ours:  # it begins the next segment
                beyond = analyzed.pts, analyzed.luma, ab
                break
            for final in propagator.arrive(ab, analyzed.cut):
                yield waiting.popleft(), final
        yield from zip(waiting, propagator.finish(beyond), strict=True)

    def _smoothed(
        self, predictions: Iterator[Prediction], task: SegmentTask
    ) -> Iterator[tuple[AnalyzedFrame, np.ndarray]]:
        """The samples of a segment with their smoothed ab, and one more if the shot goes on."""
        smoother = self._smoothing.smoother(task.smoothing, task.smooth_on)
        if self.next is not None and not self.next.cut:
            for _, sample in self._behind:
                smoother.remember(sample)
        waiting: deque[AnalyzedFrame] = deque()
        for prediction in predictions:
            if prediction.sample is not None:
                waiting.append(prediction.frame)
                for ab in smoother.feed(prediction.sample, prediction.frame.cut):
                    yield waiting.popleft(), ab
        ahead = LOOK_AHEAD if task.smoothing == "motion" else 1
        following = list(islice(self._predictions.ahead(), ahead))
        for prediction in following:
            assert prediction.sample is not None
            smoother.follow(prediction.sample)
        waiting.extend(prediction.frame for prediction in following[:1])
        yield from zip(waiting, smoother.finish(beyond=bool(following)), strict=True)

    def full(self, analyzed: AnalyzedFrame) -> Frame:
        """The full frame; call it in the order of time."""
        if analyzed.full is not None:
            return analyzed.full
        assert self._second_frames is not None
        while self._full is None or self._full.pts < analyzed.pts:
            self._full = next(self._second_frames, None)
            if self._full is None or self._full.pts > analyzed.pts:
                raise MediaError(f"{self.source.path}: no frame at pts {analyzed.pts} any more")
        return self._full

    def _segment(self, task: SegmentTask) -> Iterator[Prediction]:
        """The frames of a task; the one after them is `next`."""
        assert self.next is not None
        first, self.likenesses = self.next, []
        while self.next is not None and not self._ends(task, first):
            prediction = self._take()
            if prediction.likeness is not None:
                self.likenesses.append(prediction.likeness)
            yield prediction

    def _ends(self, task: SegmentTask, first: AnalyzedFrame) -> bool:
        assert self.next is not None
        if task.end_pts is not None:
            return self.next.pts >= task.end_pts
        if self.next.in_color != first.in_color:
            return True
        if self.next.gray is None:  # a segment begins with a frame that the network sees
            return False
        seconds = float((self.next.pts - first.pts) * self.source.time_base)
        return seconds >= (SHORTEST_SECONDS if self.next.cut else task.longest_seconds)

    def _take(self) -> Prediction:
        prediction = self._predictions.take()
        if prediction.frame.cut:
            self._behind.clear()
        if prediction.sample is not None:
            self._behind.append((prediction.frame.pts, prediction.sample))
        self._shot.add(prediction.frame)
        return prediction


def opened_at(
    task: SegmentTask,
    colorizer: Colorizer,
    painter: FilmPainter | None = None,
    *,
    holds: bool | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> FilmPipeline:
    """A film at a task's start. go_on: called for each frame before that, which may be hours of
    film; what it raises passes through. Raises MediaError."""
    for seeks in (True, False):
        pipeline = FilmPipeline(task, colorizer, painter, seeks=seeks, holds=holds)
        if task.start and seeks and not pipeline.sought:
            log.info(
                "%s: reading it from its beginning, since it cannot be searched", task.source.path
            )
        try:
            for _ in pipeline.go_to_start():
                go_on()
        except MediaError as error:
            pipeline.close()
            if not pipeline.sought:
                raise
            log.info("%s; reading it from its beginning", error)
        except BaseException:
            pipeline.close()
            raise
        else:
            return pipeline
    raise AssertionError("a film that is read from its beginning was not sought")


def held_bytes(info: FilmInfo, setting: StrideSetting) -> int:
    """Bytes of all full frames that would be kept until their color is known."""
    stride = LONGEST_STILL if setting == "auto" else setting
    return frame_bytes(info) * _HELD_SAMPLES * stride


def frame_bytes(info: FilmInfo) -> int:
    return info.width * info.height * 3 * (2 if info.layout.depth > 8 else 1)


def frames_ahead(info: FilmInfo) -> int:
    """How many frames may wait in a queue: bounded by bytes, and by count for tiny pictures."""
    return min(32, max(1, AHEAD_BYTES // frame_bytes(info)))


def reading_bytes(info: FilmInfo, stride: StrideSetting) -> int:
    """About how much memory it takes to read and color a film, without encoding it: frames in
    memory times their size, estimated from its header."""
    picture, decoding = info.layout.bytes_of(info.width, info.height), _decoding_bytes(info)
    colored = 2 * picture if info.layout.is_gray else picture
    waiting = (frames_ahead(info) + _PASSING) * colored
    pixels = info.width * info.height
    painting = _PAINTING_BYTES * pixels if pixels <= WHOLE_PIXELS else 0
    held = held_bytes(info, stride)
    if held > HELD_BYTES:  # read twice instead
        held, decoding = 0, 2 * decoding
    taken = _GROUND_BYTES + painting + int(_KEPT * (decoding + waiting)) + held
    return max(_LEAST_BYTES, taken)


def _decoding_bytes(info: FilmInfo) -> int:
    threads = decoder_threads(info) or min(16, (os.cpu_count() or 1) + 1)
    pictures = threads + _REFERRED.get(info.codec, 1) + REORDER_FRAMES + _DECODED
    return pictures * info.layout.bytes_of(info.width, info.height)


def scouting_bytes(info: FilmInfo) -> int:
    """About how much memory it takes to find the segments of a film ahead of its coloring."""
    pictures = frames_ahead(info) + max(JUDGED) + _PASSING
    return _decoding_bytes(info) + pictures * info.layout.bytes_of(info.width, info.height)


def guide_bytes(guide: Guide) -> int:
    """About how much memory pictures take that guide its colors."""
    return _MATCHING_BYTES + _PICTURE_BYTES * len(guide.pictures) if guide else 0


def check_memory(
    info: FilmInfo, wanted: int, allowed: int, setting: str = "jobs.memory_mib"
) -> None:
    """Raises TooLarge for a film that needs more memory than a setting allows."""
    if wanted > allowed:
        raise TooLarge(
            f"{info.path}: {info.width} x {info.height} pixels of {info.layout.depth} bits take "
            f"about {wanted >> 20} MiB of memory, {allowed >> 20} MiB is the limit "
            f"({setting})"
        )
