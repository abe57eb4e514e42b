"""Adds to a finished mp4, mov or Matroska file what FFmpeg does not write.

FFmpeg copies neither the source's own description of streams that it does not know, nor languages
in full, nor user data and keys of mp4, nor chapters of Matroska that are nested, ordered, or in
several editions; and PyAV gives it no shape of the pictures.

It writes the table of contents of mp4 at the end, and there it stays until all else is put in. For
a film that shall play while it downloads, the media are then moved within the file, which takes no
further room on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from colordaemon.errors import MediaError
from colordaemon.media import boxes, ebml, userdata
from colordaemon.media.boxes import Box, Contents, check_ends_file, top_level
from colordaemon.media.copies import Descriptions, Way
from colordaemon.media.ebml import Element
from colordaemon.media.originals import Original
from colordaemon.media.provenance import Maker, packet
from colordaemon.media.tags import is_stale
from colordaemon.media.target import MATROSKA, Target

_TIMECODE, _LONGEST_NAME = b"tmcd", 255
_SPARE = 4096  # bytes, for lengths that are written longer than FFmpeg does
_BLOCK = 1 << 24  # bytes that are moved at once


def finish_mp4(
    path: Path,
    source: Path,
    target: Target,
    original: Original,
    described: Descriptions,
    tags: Mapping[str, str],
    maker: Maker,
    heartbeat: Callable[[], None],
) -> None:
    """tags: those that the file should have. heartbeat: called while the file is rewritten.

    Raises MediaError, OSError.
    """
    contents = boxes.read_contents(path)
    if contents is None:
        raise MediaError(f"{path}: no table of contents")
    languages = original.languages()
    for track, (index, way) in zip(contents.tracks, target.ways, strict=False):
        if way is None:
            target.shape.in_mp4(track, target.format)
        theirs = described.tracks.get(index) if way is Way.DESCRIBED else None
        if isinstance(theirs, Box):
            boxes.describe_as(track, theirs)
        if index in languages:
            boxes.set_language(track, languages[index])
        theirs = original.tracks.get(index)
        if isinstance(theirs, Box):
            _keep_words(track, theirs, {}, target)
    _name_timecodes(contents.tracks[len(target.ways) :], original, target)
    missing = _missing(path, tags)
    if original.moov:
        _keep_words(contents.moov, original.moov, missing, target)
    else:
        _add_items(contents.moov, userdata.text_items(missing), target)
    xmp = userdata.xmp_box(packet(maker, original.xmp))
    if original.moov and plays_early(source):
        write_contents_first(path, contents, xmp, heartbeat)
    else:
        boxes.write_contents(path, contents, xmp)


def _name_timecodes(made: list[Box], original: Original, target: Target) -> None:
    """FFmpeg gives tracks of timecode, which it makes behind all others, the name of the film's."""
    tracks = [t for _, t in sorted(original.tracks.items()) if isinstance(t, Box)]
    named = [name for kind, name in map(boxes.handler, tracks) if kind == _TIMECODE and name]
    own = [track for track in made if boxes.handler(track)[0] == _TIMECODE]
    for track, name in zip(own, named, strict=False):
        boxes.set_handler_name(track, name[:_LONGEST_NAME], is_mov=target.format == "mov")


def _keep_words(holder: Box, source: Box, missing: Mapping[str, str], target: Target) -> None:
    """The source's keys and user data of a file or track, and as further keys what is missing."""
    items = [
        (key, value)
        for key, value in userdata.items_of(source)
        if not is_stale(name := key[4:].decode("utf-8", "replace")) and name.lower() != "comment"
    ]
    names = {key[4:].decode("utf-8", "replace") for key, _ in items}
    further = {name: value for name, value in missing.items() if name not in names}
    _add_items(holder, items + userdata.text_items(further), target)
    userdata.keep_user_data(holder, source)


def _add_items(holder: Box, items: userdata.Items, target: Target) -> None:
    if items:
        is_mov = target.format == "mov"
        holder.children = [*holder.children, userdata.with_items(items, is_mov=is_mov)]


def _missing(path: Path, tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that FFmpeg left out of a file; it reads some twice, the second time with a
    language."""
    with av.open(str(path)) as container:
        written = {key.lower() for key in container.metadata}
        written |= {key.lower() for s in container.streams for key in s.metadata}
    return {
        key: value
        for key, value in tags.items()
        if key.lower() not in written and key.rpartition("-")[0] not in tags
    }


class MatroskaFinish:
    """To be made before the header is written, which has to leave room for it."""

    def __init__(
        self,
        target: Target,
        original: Original,
        described: Descriptions,
        *,
        has_chapters: bool = True,
    ) -> None:
        """has_chapters: whether those of the source are put in as they are."""
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
        self._chapters = original.chapters if has_chapters and target.format == MATROSKA else None
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


def plays_early(path: Path) -> bool:
    """Whether the table of contents stands ahead of the media. Raises OSError."""
    with path.open("rb") as file:
        kinds = [kind for kind, *_ in top_level(file) if kind in (b"moov", b"mdat")]
    return kinds[:1] == [b"moov"]


def write_contents_first(
    path: Path, contents: Contents, behind: bytes, heartbeat: Callable[[], None]
) -> None:
    """As `boxes.write_contents`, but ahead of the media. heartbeat: called now and then."""
    with path.open("r+b") as file:
        check_ends_file(file, path, contents)
        place = next(offset for kind, offset, _, _ in top_level(file) if kind != b"ftyp")
        room = move_samples(contents.moov, len(behind))
        for _ in _move_up(file, place, contents.offset, room):
            heartbeat()
        file.seek(place)
        file.write(bytes(contents.moov) + behind)
        file.truncate(contents.offset + room)


def move_samples(moov: Box, more: int) -> int:
    """Say that all samples stand further behind, by a table of contents and `more` bytes; returns
    how many that are."""
    tables = [box for box in moov.all("trak mdia minf stbl stco") if len(box.data) > 8]
    highest = max((int(_offsets(box).max(initial=0)) for box in tables), default=0)
    room = len(bytes(moov)) + more
    if highest + room + 4 * sum(len(box.data) for box in tables) >> 32:
        for box in tables:
            box.kind, box.data = b"co64", box.data[:8] + _offsets(box).astype(">u8").tobytes()
        room = len(bytes(moov)) + more
    for box in (*moov.all("trak mdia minf stbl stco"), *moov.all("trak mdia minf stbl co64")):
        moved = _offsets(box) + room
        box.data = box.data[:8] + moved.astype(_offset_type(box)).tobytes()
    return room


def _offsets(box: Box) -> np.ndarray:
    return np.frombuffer(box.data, _offset_type(box), offset=8).astype(np.int64)


def _offset_type(box: Box) -> str:
    return ">u8" if box.kind == b"co64" else ">u4"


def _move_up(file: BinaryIO, start: int, end: int, by: int) -> Iterator[None]:
    """Move bytes of a file towards its end, the last ones first, in steps."""
    while end > start:
        size = min(_BLOCK, end - start)
        end -= size
        file.seek(end)
        data = file.read(size)
        file.seek(end + by)
        file.write(data)
        yield
