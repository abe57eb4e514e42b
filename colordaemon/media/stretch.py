"""A stretch of a film: the frames, packets, chapters and timecode that belong to it.

Frames are cut exactly, since they are encoded anew. All other streams are copied, so they are cut
between packets: sound begins with the first packet in the stretch (at most a tenth of a second
after it, never before), other videos with a key frame, and nothing is moved against the picture. A
subtitle that is on when the stretch begins is shown from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from colordaemon.sidecar_names import parse_range

_BEFORE_SECONDS = 30  # that packets are read from: a subtitle may begin so much earlier
_BEHIND_SECONDS = 10  # by which packets may come late
# Containers with an index that can be trusted, on whose times all later ones can be counted.
SEARCHABLE = frozenset({"mov", "matroska"})
_DROPPED = {30: 2, 60: 4}  # numbers that a drop-frame timecode leaves out in nine of ten minutes


@dataclass(frozen=True)
class Stretch:
    """The frames whose time in whole milliseconds is at or after `start` and before `end`; seconds
    from the film's beginning."""

    start: float = 0.0
    end: float = math.inf

    def __str__(self) -> str:
        end = "its end" if self.end == math.inf else f"{self.end:g} s"
        return f"{self.start:g} s to {end}"


def parse_stretch(text: str) -> Stretch:
    """The stretch of START:END, in seconds or as two times of the same form (90:125.4, or
    1:30:2:05.4), or of START..END with any two times; an end that is left out is the film's.
    Raises ValueError."""
    parts = text.split(":")
    if ".." not in text and len(parts) % 2 == 0:
        middle = len(parts) // 2
        text = "..".join((":".join(parts[:middle]), ":".join(parts[middle:])))
    elif ".." not in text:
        raise ValueError(f"found {text!r}, expected START:END, as 90:125.4 or 1:30..2:05.4")
    start, end = parse_range(text)
    return Stretch(start or 0.0, math.inf if end is None else end)


@dataclass(frozen=True)
class Cut:
    """A stretch on the clock of the film's file: when its first frame is shown, and when its last
    frame stops showing; in seconds."""

    start: Fraction
    end: Fraction

    def go_to(self, source: InputContainer) -> None:
        """Where the container has an index, spare reading all that is far before."""
        begin = self.start - _BEFORE_SECONDS
        if source.format.name.split(",")[0] in SEARCHABLE and begin > 0:
            source.seek(int(begin * av.time_base))

    def is_over(self, packet: Packet[Stream]) -> bool:
        """Whether this packet, and all that come after it, are behind the cut."""
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None or not packet.time_base or _is_cover(packet):
            return False
        return bool(time * packet.time_base > self.end + _BEHIND_SECONDS)


class PacketCut:
    """Fed the packets of all streams but the film's own, says which belong to a cut."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._begun: set[int] = set()

    def keeps(self, packet: Packet[Stream]) -> bool:
        """Shortens a subtitle that begins before the cut or ends behind it."""
        if _is_cover(packet):
            return True
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or not packet.time_base:
            return False
        tick, cut, kind = packet.time_base, self._cut, packet.stream.type
        start = time * tick
        if start >= cut.end:
            return False
        if kind == "subtitle" and packet.duration:
            end = start + packet.duration * tick
            if end <= cut.start:
                return False
            shown = math.ceil(max(start, cut.start) / tick)
            packet.duration = max(1, math.floor(min(end, cut.end) / tick) - shown)
            packet.pts = packet.dts = shown
            return True
        if start < cut.start:
            return False
        if kind == "video" and packet.stream.index not in self._begun:
            if not packet.is_keyframe:
                return False
            self._begun.add(packet.stream.index)
        return True


def _is_cover(packet: Packet[Stream]) -> bool:
    return bool(packet.stream.disposition & av.stream.Disposition.attached_pic)


def chapters_in(chapters: Iterable[Any], start: Fraction, end: Fraction) -> list[Any]:
    """The chapters that are at least partly in a stretch, with the times that they have there."""
    kept = []
    for chapter in chapters:
        tick = Fraction(chapter["time_base"])
        first, behind = max(start, chapter["start"] * tick), min(end, chapter["end"] * tick)
        if first < behind:
            times = {"start": round((first - start) / tick), "end": round((behind - start) / tick)}
            kept.append({**chapter, **times})
    return kept


def timecode_at(timecode: str, frames: int, rate: Fraction) -> str:
    """The timecode HH:MM:SS:FF so many frames after another; with ; or . before the frames it
    leaves out numbers, as NTSC does (SMPTE ST 12-1). What is no timecode stays as it is."""
    digits = [*timecode[:8].split(":"), timecode[9:]]
    if len(digits) != 4 or not all(part.isdecimal() for part in digits):
        return timecode
    hours, minutes, seconds, number = map(int, digits)
    mark, nominal = timecode[8], math.ceil(rate)
    dropped = _DROPPED.get(nominal, 0) if mark in ";." else 0
    minute = 60 * hours + minutes
    count = (minute * 60 + seconds) * nominal + number - dropped * (minute - minute // 10)
    count += frames
    ten_minutes = 600 * nominal - 9 * dropped
    tens, rest = divmod(count, ten_minutes)
    within = max(0, (rest - dropped) // (60 * nominal - dropped)) if dropped else 0
    count += dropped * (9 * tens + within)
    seconds, number = divmod(count, nominal)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours % 24:02}:{minutes:02}:{seconds:02}{mark}{number:02}"
