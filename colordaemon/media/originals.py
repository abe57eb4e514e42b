"""Reads from the source's own headers what FFmpeg does not, for each of its streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from av.container import InputContainer

from colordaemon.errors import MediaError
from colordaemon.media import boxes, ebml, userdata
from colordaemon.media.boxes import Box, Contents
from colordaemon.media.ebml import Element, Header

_KINDS = {b"\x01": "video", b"\x02": "audio", b"\x11": "subtitle", b"\x21": "data"}


@dataclass(frozen=True)
class Original:
    """The header of a source, as mp4 or as Matroska; neither where it is in another container.

    tracks: what it says of each stream, by FFmpeg's index. chapters: of Matroska.
    xmp: of mp4, empty if there is none. problem: why the header cannot be read, though FFmpeg has.
    """

    header: Contents | Header | None = None
    tracks: Mapping[int, Box | Element] = field(default_factory=dict)
    chapters: Element | None = None
    xmp: bytes = b""
    problem: str = ""

    def languages(self) -> dict[int, str]:
        """Of streams, as BCP 47 writes them ("pt-BR"), where the source says more than a word of
        three letters."""
        found = {index: _language(track) for index, track in self.tracks.items()}
        return {index: language for index, language in found.items() if language}

    def hidden_seconds(self) -> float:
        """How much of its longest cut stream an edit list of mp4 cuts away."""
        moov, tracks = self.moov, [t for t in self.tracks.values() if isinstance(t, Box)]
        if moov is None:
            return 0.0
        return max((boxes.seconds_cut_away(track, moov) for track in tracks), default=0.0)

    def has_deep_chapters(self) -> bool:
        """Whether its chapters are more than one list with a name each."""
        editions = (
            [e for e in self.chapters.children if e.id == ebml.EDITION] if self.chapters else []
        )
        return len(editions) > 1 or any(map(_is_deep, editions))

    @property
    def moov(self) -> Box | None:
        """The table of contents of mp4."""
        return self.header.moov if isinstance(self.header, Contents) else None


def original_of(source: InputContainer, path: Path) -> Original:
    """Empty where it cannot be read, though FFmpeg has read it. Raises OSError."""
    family = source.format.name.split(",")[0]
    try:
        if family == "mov":
            return _in_mp4(source, path)
        if family == "matroska":
            return _in_matroska(source, path)
    except MediaError as error:
        return Original(problem=str(error))
    return Original()


def _in_mp4(source: InputContainer, path: Path) -> Original:
    contents = boxes.read_contents(path)
    if contents is None:
        return Original()
    tracks = {boxes.track_number(t): t for t in contents.tracks}
    found = {s.index: tracks[s.id] for s in source.streams if s.id in tracks}
    return Original(contents, found, xmp=userdata.xmp_of(path, contents.moov))


def _in_matroska(source: InputContainer, path: Path) -> Original:
    header = ebml.read_header(path)
    tracks = ebml.part_of(path, header, ebml.TRACKS)
    named = [
        (_KINDS[t.child(ebml.TRACK_TYPE)], t)
        for t in (tracks.children if tracks else ())
        if t.id == ebml.TRACK and t.child(ebml.TRACK_TYPE) in _KINDS
    ]
    found = {
        stream.index: track
        for stream, (kind, track) in zip(source.streams, named, strict=False)
        if stream.type == kind
    }
    return Original(header, found, ebml.part_of(path, header, ebml.CHAPTERS))


def _language(track: Box | Element) -> str:
    if isinstance(track, Element):
        return track.child(ebml.LANGUAGE_BCP47).rstrip(b"\0").decode("ascii", "replace")
    return boxes.language(track)


def _is_deep(edition: Element) -> bool:
    atoms = [atom.children for atom in edition.children if atom.id == ebml.ATOM]
    parts = [part.id for atom in atoms for part in atom]
    names = [sum(part.id == ebml.DISPLAY for part in atom) for atom in atoms]
    starts = [part.data.rjust(8, b"\0") for a in atoms for part in a if part.id == ebml.ATOM_START]
    is_ordered = bool(edition.child(ebml.EDITION_ORDERED).strip(b"\0"))
    return is_ordered or ebml.ATOM in parts or max(names, default=0) > 1 or starts != sorted(starts)
