"""Reads the packets of a film: past bad stretches, on a steady clock, from any cut on.

A film is opened by absolute path with the file protocol alone and a list of allowed containers:
text that calls itself .mp4 can otherwise be a playlist that reads any file of the machine.

After a seek the time can be right and the picture wrong: frames of an open GOP refer to the one
before it, an intra refresh takes a whole period, and old x264 says in a film's first packet alone
how all others are to be decoded. So the decoder is fed that packet, and reading begins two
keyframes before the frame. In MPEG program streams the picture can be right and the time wrong,
by the same amount ever after. So whoever seeks also checks the frame before the cut.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from colordaemon.errors import MediaError
from colordaemon.media.tags import FALLBACK

S = TypeVar("S", bound=Stream)

_KEYFRAMES = 2  # before the frame that is wanted
# Containers of films; nothing here opens another file or the network.
_CONTAINERS = (
    "3dostr,asf,av1,avi,dv,dvd,flic,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,"
    "m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,roq,swf,vc1,wtv,yuv4mpegpipe"
)
# Containers whose clock starts anywhere: the whole film is shifted to start at zero.
FLOATING_CLOCKS = frozenset({"mpeg", "mpegts", "wtv"})
# Containers that are joined end to end, so that the clock jumps.
JUMPING_CLOCKS = frozenset({"mpeg", "mpegts"})
UNREADABLE_IN_A_ROW = 64  # attempts; a demuxer that gets no further would be asked forever
BACK_SECONDS = Fraction(1, 5)  # within a stream, times of decoding never fall
AHEAD_SECONDS = 10  # what is shorter may be a gap in the recording
ALWAYS_TOLERATED = 8  # damaged packets, so that a short clip survives one scratch
_LATE = 2  # packets that a parser is behind the mark that it passes on


def open_film(path: Path, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open a film for reading. Raises MediaError, or OSError when the file cannot be reached."""
    if path.is_dir():
        raise MediaError(f"{path}: found a folder, expected a film or photo")
    with path.open("rb") as file:  # tells missing and unreadable apart from damaged
        if not file.read(1):
            raise MediaError(f"{path}: the file is empty")
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        name = os.path.abspath(path)  # noqa: PTH100  (may be a descriptor)
        return av.open(name, options=options, metadata_errors=FALLBACK, hwaccel=hwaccel)
    except av.error.FFmpegError as error:
        reason = "no film container that colordaemon opens"
        if not isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
            reason = str(error.strerror)
        raise MediaError(f"{path}: found {reason}, expected a film or photo") from error


def all_packets(
    container: InputContainer, path: Path, on_error: Callable[[av.error.FFmpegError], None]
) -> Iterator[Packet[Stream]]:
    """The packets of all streams, then a flushing one for each; goes on behind a bad stretch.

    on_error is told of every one of those. Raises MediaError where nothing can be read any more.
    """
    in_a_row = 0
    while True:
        try:
            for packet in container.demux():
                in_a_row = 0
                yield packet
            return
        except av.error.FFmpegError as error:
            in_a_row += 1
            if in_a_row > UNREADABLE_IN_A_ROW:
                raise MediaError(
                    f"{path}: nothing can be read behind a bad stretch ({error.strerror})"
                ) from error
            on_error(error)


def tick(stream: Stream) -> Fraction:
    """Seconds per count of a stream's clock."""
    assert stream.time_base is not None  # every stream that was opened for reading has one
    return fraction(stream.time_base)


def fraction(rational: Fraction | int) -> Fraction:
    """PyAV's own rationals (from version 19) and Python's become Python's."""
    return Fraction(rational.numerator, rational.denominator)


@dataclass(frozen=True)
class EntryPoint:
    """A place where a film that was read before is entered: a cut.

    first_pts: of the frame behind the cut, the first that is wanted. before_pts, before_crc: of the
    frame before it and its luma. The two differ so much that neither can be taken for the other.
    known_pts, damage: of some later frame, and what had been counted when it came.
    """

    first_pts: int
    before_pts: int
    before_crc: int
    known_pts: int
    damage: Damage


def begin_before(container: InputContainer, stream: VideoStream, pts: int) -> bool:
    """Go to where reading has to begin for the frame at `pts`; the film has just been opened.

    False where that is its beginning, or cannot be found: then the film is to be opened anew.
    Packets before the first keyframe that follows are of no use; see `from_keyframe`.
    """
    start, target, step = stream.start_time or 0, pts, round(1 / tick(stream))
    if target - step <= start:
        return False
    try:
        next(_packets(container, stream)).decode()
        while (target := target - step) > start:
            container.seek(target, stream=stream)
            first, keyframes = _look(container, stream, pts)
            if first is None or first <= start:
                return False
            if keyframes >= _KEYFRAMES:
                container.seek(target, stream=stream)  # what was read ahead is thrown away
                return True
            # GOPs are of any length, and not all containers have an index of them.
            target, step = min(target, first), 2 * step
    except (av.error.FFmpegError, StopIteration):
        pass
    return False


def from_keyframe(packets: Iterator[Packet[S]], stream: Stream) -> Iterator[Packet[S]]:
    """The same packets without those of `stream` that come before its first keyframe."""
    begun = False
    for packet in packets:
        begun = begun or (packet.stream is stream and packet.is_keyframe)
        if begun or packet.stream is not stream:
            yield packet


def _look(container: InputContainer, stream: VideoStream, pts: int) -> tuple[int | None, int]:
    """When the packet that comes now is decoded, and how many keyframes there are up to `pts`."""
    first, keyframes = None, 0
    for packet in _packets(container, stream):
        decoded = packet.pts if packet.dts is None else packet.dts
        shown = packet.dts if packet.pts is None else packet.pts
        if decoded is None or shown is None or decoded > pts:
            break
        first = decoded if first is None else first
        keyframes += packet.is_keyframe and shown <= pts
    return first, keyframes


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    return (packet for packet in container.demux(stream) if packet.size)


class SteadyClock:
    """Makes the times of a film rise steadily where its own clock restarts or jumps. Fed every
    packet of a film in the order of the file.

    Program and transport streams that are joined end to end, as the titles of a DVD or the parts of
    a recording, begin again at some other time. All streams move together there, so that sound
    stays with its pictures. At a join, packets of the part before may come late, so each stream
    goes over to the new times by itself. jumps: how many were found.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self._newest = Fraction(0)  # what is added to times behind the last jump
        self._added: dict[int, Fraction] = {}  # to the times of each stream
        self._next: dict[int, Fraction] = {}  # when the next packet of a stream is due
        self._position = Fraction(0)

    def steady(self, packet: Packet[Stream]) -> None:
        """Give a packet its time on the steady clock."""
        index, kind, time = packet.stream.index, packet.stream.type, packet.dts
        if time is None and kind != "video":  # pictures are not shown in the order of the file
            time = packet.pts
        if time is None or not packet.time_base:
            _move(packet, self._added.get(index, self._newest))
            return
        if packet.pts is not None and abs((packet.pts - time) * packet.time_base) > AHEAD_SECONDS:
            packet.pts = None  # a picture at a join has one time of each part
        seconds, continuous = time * packet.time_base, kind in ("audio", "video")
        due = self._next.get(index) if continuous else self._position
        added = self._added.get(index, self._newest)
        if due is not None and _jumps(seconds + added - due):
            added = self._newest
            if continuous and _jumps(seconds + added - due):
                added = self._newest = due - seconds
                self.jumps += 1
        self._added[index] = added
        if continuous:
            step = (packet.duration or 0) * packet.time_base
            self._next[index] = seconds + added + step
            self._position = max(self._position, seconds + added)
        _move(packet, added)


def _jumps(difference: Fraction) -> bool:
    return difference < -BACK_SECONDS or difference > AHEAD_SECONDS


def _move(packet: Packet[Stream], added: Fraction) -> None:
    if added and packet.time_base:
        ticks = round(added / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks


@dataclass
class Damage:
    """Counts of damage from the film's beginning to some frame, or to its end.

    jumps: of the film's clock, behind which all times are moved.
    overdeclared: seconds that a header promises beyond what is there, though nothing is missing.
    film_end, content_end: how far its packets, and those of all streams, reach in seconds.
    """

    packets: int = 0
    damaged: int = 0
    retimed: int = 0
    jumps: int = 0
    overdeclared: float = 0.0
    film_end: float = 0.0
    content_end: float = 0.0

    def exceeds(self, percent: float) -> bool:
        return self.damaged > max(ALWAYS_TOLERATED, self.packets * percent / 100)


class DamageMarks:
    """Counts the packets that a demuxer marks as damaged, because there is a gap in the numbers of
    the parts that they came in. At a jump of the clock these numbers start anew as well, so a mark
    next to a jump counts only if the picture itself turns out to be damaged.

    suspects: times of the pictures in question.
    """

    def __init__(self) -> None:
        self.suspects: set[int | None] = set()
        self._jumps = [0] * (_LATE + 2)  # up to the last packets, the oldest first
        self._marks: list[tuple[bool, int | None]] = [(False, None)] * (_LATE + 1)

    def feed(self, is_marked: bool, pts: int | None, jumps: int) -> int:
        """Take in the next packet of the film; returns how many more are now known to be damaged.

        jumps: of the clock, counted up to this packet.
        """
        self._jumps = [*self._jumps[1:], jumps]
        self._marks = [*self._marks[1:], (is_marked, pts)]
        if not self._marks[0][0]:
            return 0
        if self._jumps[0] == jumps:
            return 1
        self.suspects |= {time for _, time in self._marks}
        return 0

    def end(self) -> int:
        """As `feed`, behind the last packet."""
        return sum(self.feed(False, None, self._jumps[-1]) for _ in range(_LATE))
