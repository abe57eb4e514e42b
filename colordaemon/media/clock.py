"""Makes the times of a film rise steadily where its own clock restarts or jumps.

Program and transport streams that are joined end to end, as the titles of a DVD or the parts of a
recording, begin again at some other time. All streams move together there, so that sound stays with
its pictures. At a join, packets of the part before may come late, so every stream changes over by
itself.
"""

from __future__ import annotations

from fractions import Fraction

from av.packet import Packet
from av.stream import Stream

BACK_SECONDS = Fraction(1, 5)  # within a stream, times of decoding never fall
AHEAD_SECONDS = 10  # what is shorter may be a gap in the recording


class Clock:
    """Fed every packet of a film in the order of the file, and moves its times.

    jumps: how many were found.
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
