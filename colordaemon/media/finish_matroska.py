"""Adds to the header of a Matroska file what FFmpeg does not write.

FFmpeg copies neither the source's own description of streams that it does not know, nor languages
in full, nor chapters that are nested, ordered, or in several editions; and PyAV gives it no shape
of the pictures.
"""

from __future__ import annotations

from pathlib import Path

from colordaemon.media import ebml
from colordaemon.media.copies import Descriptions, Way
from colordaemon.media.ebml import Element
from colordaemon.media.originals import Original
from colordaemon.media.target import MATROSKA, Target

_SPARE = 4096  # bytes, for lengths that are written longer than FFmpeg does


class MatroskaFinish:
    """To be made before the header is written, which has to leave room for it."""

    def __init__(self, target: Target, original: Original, described: Descriptions) -> None:
        numbers = {index: number for number, (index, _) in enumerate(target.ways)}
        self._tracks = {
            numbers[index]: track
            for index, way in target.ways
            if way is Way.DESCRIBED and isinstance(track := described.tracks[index], Element)
        }
        self._languages = {
            numbers[index]: language
            for index, language in original.languages().items()
            if index in numbers and numbers[index] not in self._tracks
        }
        self._chapters = original.chapters if target.format == MATROSKA else None
        self._film = next(numbers[index] for index, way in target.ways if way is None)
        self._shape = target.shape if target.shape.is_incomplete_in(target.format) else None
        parts = [*self._tracks.values(), *([self._chapters] if self._chapters else [])]
        self._room = sum(len(bytes(part)) for part in parts)
        if parts or self._languages or self._shape:
            self._room += _SPARE + 64 * len(self._languages)

    def tags(self) -> dict[str, str]:
        """What makes FFmpeg leave the room."""
        return {ebml.ROOM_TAG: " " * self._room} if self._room else {}

    def write(self, path: Path) -> None:
        """Raises MediaError, OSError."""
        if not self._room:
            return
        header = ebml.read_header(path)
        tracks = [self._finished(number, track) for number, track in enumerate(header.tracks)]
        parts = {ebml.TRACKS: Element(ebml.TRACKS, b"".join(map(bytes, tracks)))}
        if self._chapters:
            parts[ebml.CHAPTERS] = self._chapters
        ebml.write_header(path, header, ebml.with_parts(header, parts))

    def _finished(self, number: int, track: Element) -> Element:
        if number == self._film and self._shape:
            track = self._shape.in_matroska(track)
        if number in self._tracks:
            return ebml.describe_as(track, self._tracks[number])
        if number in self._languages:
            return ebml.with_language(track, self._languages[number])
        return track
