"""Seeks in a film so that a frame in the middle is decoded correctly.

After a search the time can be right and the picture wrong: frames of an open GOP want the one
before it, an intra refresh takes a whole period, and old x264 says in a film's first packet alone
how all others are to be decoded. So the decoder is fed that packet, and reading begins two
keyframes before the frame. In MPEG program streams the picture can be right and the time wrong,
by the same amount ever after. So what comes out is checked as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from colordaemon.media.damage import Damage
from colordaemon.media.probe import tick

S = TypeVar("S", bound=Stream)

_KEYFRAMES = 2  # before the frame that is wanted


@dataclass(frozen=True)
class Entry:
    """A place where a film that was read before is entered: a cut.

    first_pts: of the frame behind the cut, the first that is wanted. before_pts, before_crc: of the
    frame before it and its luma. The two differ so much that no picture can have the other's time.
    known_pts, damage: of some frame from there on, and what was counted when it came.
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
