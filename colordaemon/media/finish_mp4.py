"""Adds to an mp4 or mov file what FFmpeg does not write.

FFmpeg copies neither the source's own description of streams that it does not know, nor user data,
keys and languages in full; PyAV gives it no shape of the pictures; and it puts the table of
contents at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import av

from colordaemon.errors import MediaError
from colordaemon.media import boxes, userdata
from colordaemon.media.boxes import Box
from colordaemon.media.copies import Descriptions, Way
from colordaemon.media.faststart import plays_early, write_contents_first
from colordaemon.media.originals import Original
from colordaemon.media.provenance import Maker, packet
from colordaemon.media.tags import is_stale
from colordaemon.media.target import Target

_TIMECODE, _LONGEST_NAME = b"tmcd", 255


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
