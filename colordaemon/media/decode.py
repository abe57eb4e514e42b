"""Decodes a film: frames in the order they are shown, each with its own luma and time.

Time is `pts × time_base`, never a frame counter times a rate.
"""

from __future__ import annotations

import errno
import heapq
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import av
import av.error
import numpy as np
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from colordaemon.errors import MediaError
from colordaemon.media.captions import Messages
from colordaemon.media.colorspace import matrix_tag, transfer_of, untagged
from colordaemon.media.demux import (
    JUMPING_CLOCKS,
    Damage,
    DamageMarks,
    EntryPoint,
    SteadyClock,
    all_packets,
    begin_before,
    from_keyframe,
    open_film,
    tick,
)
from colordaemon.media.ending import ends_whole, lacks_bytes
from colordaemon.media.fields import FieldOrder, FieldReader
from colordaemon.media.nvdec import UNPACKED, opened_on_gpu
from colordaemon.media.pixels import alpha_of, decoder_of, plane_array
from colordaemon.media.probe import FilmInfo
from colordaemon.media.side_data import messages_of, names_beside
from colordaemon.media.stretch import SEARCHABLE, Stretch

MAX_CONSECUTIVE_ERRORS = 64  # packets; a damaged start of a long GOP takes this many
_MOST_EMPTY_BYTES = 8  # of a length field that says zero
_DECODING_BYTES = 80 << 20  # pictures that are decoded at once
_MOST_THREADS = 16  # the bound of FFmpeg
MATRIX_709, RANGE_FULL = 1, 2  # FFmpeg's numbers
REORDER_FRAMES = 4  # pts may come this many frames early; more B-frames than AVI files ever have


@dataclass(frozen=True)
class Frame:
    """One frame: the decoder's picture in a planar format, first plane luma, and when it is shown.

    pts and duration count in the film's time base; duration is 0 where the container knows none.
    messages: captions and the like that come with the picture. fields: of this one picture. beside:
    FFmpeg's names of all that comes with it.
    alpha: how opaque it is, of the depth of the luma, if the source says.
    """

    picture: VideoFrame
    depth: int
    pts: int
    duration: int
    messages: Messages = ()
    fields: FieldOrder = "progressive"
    alpha: np.ndarray | None = None
    beside: frozenset[str] = frozenset()

    @property
    def luma(self) -> np.ndarray:
        """A view (H, W) of the source's own luma codes, uint8 or uint16; not to be written into."""
        return plane_array(self.picture.planes[0], self.depth)

    def luma_crc(self) -> int:
        """CRC-32 of the luma codes."""
        return zlib.crc32(self.luma.tobytes())

    def __repr__(self) -> str:
        return f"Frame({self.picture.width}x{self.picture.height}, pts={self.pts})"


class FilmReader:
    """Decodes a film once, in presentation order.

    One decoder for the whole film: a fresh one would drop the frames that it holds back for
    reordering. Iterating raises MediaError when more than `damaged_percent` of the packets do not
    decode, when the picture changes its size, and at the end when the file is truncated.

    entry: begin there; all frames come where that is not possible, which `sought` says. Raises
    MediaError if the frame before the entry is not found; those after it are to be checked too.
    near: begin at some frame before this pts, or at the first one; for a look at the film, since
    nothing is checked.
    """

    def __init__(
        self,
        info: FilmInfo,
        *,
        damaged_percent: float = 2.0,
        entry: EntryPoint | None = None,
        near: int | None = None,
    ) -> None:
        self.info = info
        self.damage = Damage()
        self._damaged_percent = damaged_percent
        self._layout = info.layout
        self._reformatter = VideoReformatter()  # one for all: PyAV would keep one per frame
        self._fields = FieldReader(info.codec)
        self._open()
        self._entry = entry
        begin = entry.before_pts if entry else near
        self.sought = begin is not None and begin_before(self._container, self._stream, begin)
        if begin is not None and not self.sought:
            self._entry = None
            self.close()
            self._open()
        self._skips = self.sought
        if begin is None and self._starts_late:
            first = round((info.start_seconds + float(info.origin_seconds)) / info.time_base)
            self._skips = begin_before(self._container, self._stream, first)
            if not self._skips:
                self.close()
                self._open()

    @property
    def _starts_late(self) -> bool:
        """Whether a stretch is wanted to whose beginning the container leads without a doubt."""
        return self.info.start_seconds > 0 and self.info.container in SEARCHABLE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        on_gpu = opened_on_gpu(self.info)
        self._container = on_gpu or open_film(self.info.path)
        stream = self._container.streams[self.info.stream_index]
        assert isinstance(stream, VideoStream)
        if on_gpu is None:
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = decoder_threads(self.info)
        self._stream, self._decoder = stream, decoder_of(stream)
        self._marks = DamageMarks()
        self._clock = SteadyClock() if self.info.container in JUMPING_CLOCKS else None

    def close(self) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        frames = self._frames()
        if self._entry:
            frames = self._from_entry(frames, self._entry)
        if self.info.stretch is None:
            yield from frames
            self._check_end()
        else:
            yield from self._within(frames, self.info.stretch)

    def _within(self, frames: Iterator[Frame], stretch: Stretch) -> Iterator[Frame]:
        begun = self._entry is not None
        for frame in frames:
            seconds = self.info.seconds_at(frame.pts)
            if seconds >= stretch.end:
                self._check_damage()
                break
            if seconds >= stretch.start:
                if not begun:  # what is wrong before it is no damage of it
                    begun, self.damage.damaged, self.damage.retimed = True, 0, 0
                yield frame
        else:
            self._check_end()
        if not begun:
            raise MediaError(f"{self.info.path}: found no frame from {stretch}, expected one")

    def _frames(self) -> Iterator[Frame]:
        step = max(1, round(1 / (self.info.rate * self.info.time_base)))
        first = round(self.info.origin_seconds / self.info.time_base)
        for picture, pts in in_order(self._pictures(), first, step, self._count_retimed):
            messages, duration = messages_of(picture), picture.duration or 0
            order, planar = self._order(picture), self._planar(picture)
            alpha = alpha_of(picture) if self._layout.has_alpha else None
            beside = names_beside(picture)
            yield Frame(planar, self._layout.depth, pts, duration, messages, order, alpha, beside)

    def _from_entry(self, frames: Iterator[Frame], entry: EntryPoint) -> Iterator[Frame]:
        before, frame = None, next(frames, None)
        while frame is not None and frame.pts < entry.first_pts:
            before, frame = frame, next(frames, None)
        if before is None or (before.pts, before.luma_crc()) != (
            entry.before_pts,
            entry.before_crc,
        ):
            raise MediaError(f"{self.info.path}: the frame at pts {entry.before_pts} has changed")
        while frame is not None and frame.pts < entry.known_pts:
            yield frame
            frame = next(frames, None)
        self.damage = replace(entry.damage)
        if frame is not None:
            yield frame
        yield from frames

    def _pictures(self) -> Iterator[VideoFrame]:
        """Decoded pictures; packets that do not decode are counted and passed over."""
        consecutive = 0
        for packet in self._packets():
            try:
                pictures = self._decoder.decode(packet)
                consecutive = 0
            except av.error.FFmpegError as error:
                if error.errno == errno.ENOMEM:  # no fault of the packet
                    raise
                pictures, consecutive = [], consecutive + 1
                self._count_damage(error, consecutive)
            self.damage.damaged += self._marks.feed(
                packet.is_corrupt, packet.pts, self.damage.jumps
            )
            for picture in pictures:
                assert isinstance(picture, VideoFrame)
                self.damage.damaged += picture.is_corrupt and picture.pts in self._marks.suspects
                self._check_range(picture)
                self._check_curve(picture)
                self._check_size(picture)
                yield picture
        self.damage.damaged += self._marks.end()

    def _packets(self) -> Iterator[Packet[Stream]]:
        """The film's packets, then the flushing one."""
        packets = all_packets(self._container, self.info.path, self._count_unreadable)
        for packet in from_keyframe(packets, self._stream) if self._skips else packets:
            if self._clock:
                self._clock.steady(packet)
                self.damage.jumps = self._clock.jumps
            self._count(packet)
            if packet.stream is self._stream and not _is_empty(packet):
                yield packet

    def _count(self, packet: Packet[Stream]) -> None:
        ours, damage = packet.stream is self._stream, self.damage
        if packet.size and ours:
            damage.packets += 1
        if packet.pts is not None and packet.time_base:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            damage.content_end = max(damage.content_end, end)
            if ours:
                damage.film_end = max(damage.film_end, end)

    def _count_unreadable(self, error: av.error.FFmpegError) -> None:
        self.damage.damaged += 1

    def _count_retimed(self) -> None:
        self.damage.retimed += 1

    def _count_damage(self, error: av.error.FFmpegError, consecutive: int) -> None:
        self.damage.damaged += 1
        if consecutive > MAX_CONSECUTIVE_ERRORS and self._damaged_percent < 100:
            raise MediaError(
                f"{self.info.path}: {consecutive} packets in a row do not decode ({error.strerror})"
            ) from error

    def _check_range(self, picture: VideoFrame) -> None:
        tags, found = self.info.tags, int(picture.color_range)
        if tags.range_is_assumed or found in (0, tags.range):
            return
        is_full = self.info.code.full_range
        if (found == RANGE_FULL) != is_full:
            before, now = ("full", "limited") if is_full else ("limited", "full")
            raise MediaError(
                f"{self.info.path}: luma changes from {before} to {now} range at "
                f"{picture.time or 0:.3f} s; split the film there, or say with --assume-range "
                "which one is true"
            )

    def _check_curve(self, picture: VideoFrame) -> None:
        found, expected = transfer_of(int(picture.color_trc)), self.info.code.transfer
        if found is not expected and not self.info.tags.transfer_is_assumed:
            raise MediaError(
                f"{self.info.path}: the transfer curve changes from {expected.value} to "
                f"{found.value} at {picture.time or 0:.3f} s; split the film there, or say with "
                "--assume-transfer which one is true"
            )

    def _check_size(self, picture: VideoFrame) -> None:
        found = (picture.width, picture.height, self._unpacked(picture))
        expected = (self.info.width, self.info.height, self.info.pix_fmt)
        if _without_range(*found) != _without_range(*expected):
            raise MediaError(
                f"{self.info.path}: the picture changes from {_describe(*expected)} to "
                f"{_describe(*found)} at {picture.time or 0:.3f} s; split the film there"
            )

    def _check_damage(self) -> None:
        damage, path = self.damage, self.info.path
        if damage.exceeds(self._damaged_percent):
            raise MediaError(
                f"{path}: {damage.damaged} of {damage.packets} video packets do not decode, more "
                f"than {self._damaged_percent:g} %; --accept-damaged colors what is left"
            )

    def _check_end(self) -> None:
        self._check_damage()
        damage, path = self.damage, self.info.path
        if self._damaged_percent >= 100:
            return
        if lacks_bytes(path, self.info.container):
            raise MediaError(
                f"{path}: truncated, its header declares more bytes than there are; "
                "--accept-damaged colors what is there"
            )
        film_start = float((self._stream.start_time or 0) * tick(self._stream))
        start = (self._container.start_time or 0) / av.time_base
        self._check_length("video", damage.film_end - film_start, self.info.duration_seconds)
        self._check_length("content", damage.content_end - start, self.info.container_seconds)

    def _check_length(self, what: str, found: float, declared: float | None) -> None:
        # Containers round, and some count the last frame's duration while others do not.
        if declared is None or found >= declared - max(0.5, 0.01 * declared):
            return
        if not ends_whole(self.info.path, self.info.container):
            raise MediaError(
                f"{self.info.path}: truncated, its {found:.2f} s of {what} end before the declared "
                f"{declared:.2f} s; --accept-damaged colors what is there"
            )
        # Some writers declare the time of a film's end, on a clock that starts before the film.
        self.damage.overdeclared = declared - self.damage.content_end

    def _order(self, picture: VideoFrame) -> FieldOrder:
        order = self._fields.order(picture)
        if order == "progressive" and not self.info.has_own_fields:
            return self.info.field_order
        return order

    def _unpacked(self, picture: VideoFrame) -> str:
        """The format of the picture as the processor would have decoded it."""
        name = picture.format.name
        return UNPACKED.get(name, name) if self.info.on_gpu else name

    def _planar(self, picture: VideoFrame) -> VideoFrame:
        layout = self._layout
        if layout.in_place:
            unpacked = self._unpacked(picture)
            if unpacked == picture.format.name:
                return picture
            return self._reformatter.reformat(untagged(picture), format=unpacked)
        if layout.is_rgb:
            return self._reformatter.reformat(
                untagged(picture),
                format=layout.planar,
                dst_colorspace=matrix_tag(self.info.code.matrix),
                dst_color_range=RANGE_FULL,
            )
        return self._reformatter.reformat(untagged(picture), format=layout.planar)


def decoder_threads(info: FilmInfo) -> int:
    """How many pictures are decoded at once, 0 for as many as FFmpeg thinks best."""
    count = _DECODING_BYTES // info.layout.bytes_of(info.width, info.height)
    return 0 if count >= _MOST_THREADS else max(1, min(count, os.cpu_count() or 1))


def _is_empty(packet: Packet[Stream]) -> bool:
    """Whether a packet holds no picture: the one before is shown on, as zeros or no bytes say."""
    return 0 < packet.size <= _MOST_EMPTY_BYTES and not any(bytes(packet))


def _without_range(width: int, height: int, pix_fmt: str) -> tuple[int, int, str]:
    return width, height, pix_fmt.replace("yuvj", "yuv")


def _describe(width: int, height: int, pix_fmt: str) -> str:
    return f"{width}x{height} {pix_fmt}"


def in_order(
    pictures: Iterable[VideoFrame], first: int, step: int, on_retimed: Callable[[], None]
) -> Iterator[tuple[VideoFrame, int]]:
    """Pair pictures, which come in the order they are shown, with their pts in rising order.

    AVI with B-frames needs it: its pictures come in the order they are shown, but their times in
    the order in which they were decoded.

    first: when the film begins, if its first frame does not say. step: between frames whose time is
    missing. on_retimed: called for each that had none of its own or one out of order.
    """
    waiting: deque[VideoFrame] = deque()
    times: list[int] = []
    last: int | None = None
    newest: int | None = None
    for picture in pictures:
        pts = picture.pts if picture.pts is not None else picture.dts
        if pts is None:
            pts = first if newest is None else newest + step
        if picture.pts is None or (newest is not None and pts <= newest):
            on_retimed()
        newest = pts if newest is None else max(newest, pts)
        waiting.append(picture)
        heapq.heappush(times, pts)
        if len(waiting) > REORDER_FRAMES:
            last = _after(last, heapq.heappop(times))
            yield waiting.popleft(), last
    while waiting:
        last = _after(last, heapq.heappop(times))
        yield waiting.popleft(), last


def _after(last: int | None, pts: int) -> int:
    """pts, or the next tick where two frames claim the same time: encoders want it to rise."""
    return pts if last is None or pts > last else last + 1
