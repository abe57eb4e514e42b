"""Reads from the headers of a source what FFmpeg does not read, or PyAV does not show.

That is the description of each stream as mp4 or Matroska has it; the names of streams in the tables
of a transport stream (ISO/IEC 13818-1, 2.4.4; descriptors mostly of ETSI EN 300 468); and codec
parameters that FFmpeg knows: it writes all of them into the header of a Matroska file, so it is
asked for one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from colordaemon.errors import MediaError
from colordaemon.media import boxes, ebml, userdata
from colordaemon.media.boxes import Box, Contents
from colordaemon.media.ebml import Element, Header

_KINDS = {b"\x01": "video", b"\x02": "audio", b"\x11": "subtitle", b"\x21": "data"}
_SYNC, _PACKET = 0x47, 188
_READ_BYTES = 8 << 20  # tables come ten times a second
# Descriptors that name what FFmpeg has no decoder for.
_NAMES = {0x56: "dvb_teletext", 0x45: "vbi_data", 0x46: "vbi_teletext", 0xFD: "arib_caption"}
_EXTENSION = 0x7F
_EXTENDED_NAMES = {0x15: "ac4", 0x20: "ttml"}
TELETEXT = "dvb_teletext"
_SITING_ACROSS, _SITING_DOWN = b"\x55\xb7", b"\x55\xb8"
_MAPPING, _MAPPING_TYPE, _MAPPING_DATA = b"\x41\xe4", b"\x41\xe7", b"\x41\xed"
_DOLBY_VISION = frozenset((b"dvcC", b"dvvC", b"dvwC"))
# 1 is the first luma sample under a chroma sample, 2 the middle; to AVChromaLocation. Matroska has
# no word for the last one, nor does anybody use it.
_SITINGS = {(1, 2): 1, (2, 2): 2, (1, 1): 3, (2, 1): 4}


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
        """Languages of streams as BCP 47 writes them ("pt-BR"), where the source has more
        than three letters."""
        found = {index: _language(track) for index, track in self.tracks.items()}
        return {index: language for index, language in found.items() if language}

    def hidden_seconds(self) -> float:
        """Seconds that edit lists of mp4 cut away, of the stream that loses most."""
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


def transport_names(path: Path) -> dict[int, str]:
    """By number (PID, FFmpeg's `id` of a stream), names of streams that FFmpeg may not know."""
    with path.open("rb") as file:
        data = file.read(_READ_BYTES)
    names: dict[int, str] = {}
    for pid in _programs(data):
        for table in _sections(data, pid, 0x02):
            names |= dict(_streams(table))
    return names


def _programs(data: bytes) -> set[int]:
    """Numbers of the packets that hold programs' tables."""
    return {
        int.from_bytes(table[i + 2 : i + 4], "big") & 0x1FFF
        for table in _sections(data, 0, 0x00)
        for i in range(8, len(table) - 4, 4)
        if table[i : i + 2] != b"\0\0"
    }


def _streams(table: bytes) -> Iterator[tuple[int, str]]:
    """Number and name of the streams in a program's table that have one of our names."""
    position = 12 + (int.from_bytes(table[10:12], "big") & 0xFFF)
    while position + 5 <= len(table) - 4:
        pid = int.from_bytes(table[position + 1 : position + 3], "big") & 0x1FFF
        length = int.from_bytes(table[position + 3 : position + 5], "big") & 0xFFF
        for tag, body in _descriptors(table[position + 5 : position + 5 + length]):
            known = _EXTENDED_NAMES.get(body[0]) if tag == _EXTENSION and body else _NAMES.get(tag)
            if known:
                yield pid, known
        position += 5 + length


def _descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 2 <= len(data):
        end = position + 2 + data[position + 1]
        yield data[position], data[position + 2 : end]
        position = end


def _sections(data: bytes, pid: int, kind: int) -> Iterator[bytes]:
    """Different whole tables of one kind in the packets of one number."""
    seen: set[bytes] = set()
    table = b""
    for start, payload in _payloads(data, pid):
        if start and payload:
            table = payload[1 + payload[0] :]
        elif table:
            table += payload
        if len(table) < 3 or table[0] != kind:
            continue
        size = 3 + (int.from_bytes(table[1:3], "big") & 0xFFF)
        if len(table) >= size and table[:size] not in seen:
            seen.add(table[:size])
            yield table[:size]


def _payloads(data: bytes, pid: int) -> Iterator[tuple[bool, bytes]]:
    """Payloads of the packets of a number, and whether a table begins in them."""
    offset, size = _grid(data)
    for position in range(offset, len(data) - _PACKET + 1, size):
        packet = data[position : position + _PACKET]
        number = int.from_bytes(packet[1:3], "big")
        if packet[0] != _SYNC or number & 0x1FFF != pid or not packet[3] & 0x10:
            continue
        skipped = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        yield bool(number & 0x4000), packet[skipped:]


def _grid(data: bytes) -> tuple[int, int]:
    """Where the first packet begins, and from one to the next: 192 bytes on Blu-ray."""
    for size in (_PACKET, 192, 204):
        for offset in range(size):
            if data[offset : offset + 8 * size : size] == bytes([_SYNC]) * 8:
                return offset, size
    return 0, _PACKET


@dataclass(frozen=True)
class Parameters:
    """siting: FFmpeg's number for that of chroma samples, 0 where it is unknown. side_data: of the
    stream and not of its pictures, by the names that FFmpeg has for those of pictures. needs_dolby:
    whether the pictures are in a color space of Dolby Vision's own.
    """

    siting: int = 0
    side_data: frozenset[str] = frozenset()
    needs_dolby: bool = False


def parameters_of(stream: VideoStream) -> Parameters:
    """Read from a Matroska header of this stream alone; unknown where Matroska does not hold it."""
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="matroska") as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
        tracks = ebml.parse_header(buffer, stream.container.name).tracks
    except (av.error.FFmpegError, ValueError, MediaError):
        return Parameters()  # a codec that Matroska does not hold
    return _read(tracks[0]) if tracks else Parameters()


def _read(track: ebml.Element) -> Parameters:
    video = ebml.Element(ebml.VIDEO, track.child(ebml.VIDEO))
    color = ebml.Element(ebml.COLOR, video.child(ebml.COLOR))
    across, down = (_number(color.child(name)) for name in (_SITING_ACROSS, _SITING_DOWN))
    mappings = [part for part in track.children if part.id == _MAPPING]
    dolby = [m.child(_MAPPING_DATA) for m in mappings if m.child(_MAPPING_TYPE) in _DOLBY_VISION]
    # What other displays a film is made for, too: Dolby Vision Streams Within the ISO Base Media
    # File Format 2.1.2, section 3.2.
    needs_dolby = any(len(data) > 4 and not data[4] >> 4 for data in dolby)
    side_data = frozenset(("DOVI_METADATA",) if dolby else ())
    return Parameters(_SITINGS.get((across, down), 0), side_data, needs_dolby)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
