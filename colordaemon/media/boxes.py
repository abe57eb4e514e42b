"""The boxes of mp4 and mov files, for what FFmpeg can neither read nor write.

FFmpeg leaves out the sample description of a track whose codec it does not know, and such a track
makes the whole file invalid. So the source's own boxes are put in once FFmpeg is done.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from colordaemon.errors import MediaError

_PARENTS = frozenset((b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl"))
_TOP = frozenset(
    ("ftyp", "moov", "mdat", "free", "skip", "wide", "pnot", "moof", "mfra", "sidx", "styp", "ssix",
     "prft", "emsg", "pdin", "meta", "uuid be7acfcb97a942e8", "uuid 6d1d9b0542d544e6")
)  # fmt: skip
_IN_MOOV = frozenset(("mvhd", "trak", "udta", "meta", "mvex", "iods", "free", "skip", "ctab"))
_IN_TRACK = frozenset(("tkhd", "edts", "mdia", "udta", "tref", "meta", "free", "skip", "tapt",
                       "load", "clip", "matt", "imap", "trgr"))  # fmt: skip
_VIDEO_ENTRY = 78  # bytes of a sample description of video before its boxes
_MOST_BYTES = 1 << 29  # of a table of contents; a film of 24 hours has about 1 << 26


@dataclass
class Box:
    """A box: either its bytes, or for those that hold others, those."""

    kind: bytes
    data: bytes = b""
    children: list[Box] = field(default_factory=list)

    @classmethod
    def parse(cls, kind: bytes, data: bytes) -> Self:
        """Raises MediaError for boxes that do not fit into each other."""
        if kind not in _PARENTS:
            return cls(kind, data)
        return cls(kind, children=[cls.parse(name, part) for name, part in split(data)])

    def __bytes__(self) -> bytes:
        data = b"".join(map(bytes, self.children)) if self.kind in _PARENTS else self.data
        return struct.pack(">I4s", 8 + len(data), self.kind) + data

    def all(self, path: str) -> list[Box]:
        """The boxes at a path of kinds, as in "mdia minf stbl"."""
        found = [self]
        for kind in path.split():
            found = [c for box in found for c in box.children if c.kind == kind.encode()]
        return found

    def only(self, path: str) -> Box:
        """The one box at a path. Raises MediaError if there is none."""
        found = self.all(path)
        if not found:
            raise MediaError(f"an mp4 file without {path} in its {self.kind.decode()}")
        return found[0]


@dataclass(frozen=True)
class Contents:
    """The table of contents of a file and where it stands."""

    moov: Box
    offset: int
    size: int

    @property
    def tracks(self) -> list[Box]:
        return self.moov.all("trak")


def read_contents(path: Path) -> Contents | None:
    """None for a file without one, as when it is all fragments. Raises MediaError, OSError."""
    with path.open("rb") as file:
        for kind, offset, header, size in top_level(file):
            if kind == b"moov":
                if size > _MOST_BYTES:
                    raise MediaError(f"{path}: a table of contents of {size >> 20} MiB")
                file.seek(offset + header)
                return Contents(Box.parse(kind, file.read(size - header)), offset, size)
    return None


def unknown_boxes(path: Path, moov: Box) -> list[str]:
    """Names of boxes that neither we nor FFmpeg read: beside the table of contents, in it, and in
    its tracks. Raises OSError."""
    with path.open("rb") as file:
        beside = [
            _named(kind, file, offset + header) for kind, offset, header, _ in top_level(file)
        ]
    found = [name for name in beside if name not in _TOP]
    for holder, known in ((moov, _IN_MOOV), *((track, _IN_TRACK) for track in moov.all("trak"))):
        place = holder.kind.decode()
        names = (child.kind.decode("latin-1") for child in holder.children)
        found += [f"{name} in {place}" for name in names if name not in known]
    return [*dict.fromkeys(found)]


def _named(kind: bytes, file: BinaryIO, content: int) -> str:
    """Its four letters; for a uuid box, also the first half of its number."""
    if kind != b"uuid":
        return kind.decode("latin-1")
    file.seek(content)
    return f"uuid {file.read(8).hex()}"


def holds_only_stills(path: Path) -> bool:
    """Whether this is a file of still pictures (HEIF), whatever it calls itself. Raises OSError."""
    with path.open("rb") as file:
        kinds = {kind for kind, *_ in top_level(file)}
    return b"meta" in kinds and not kinds & {b"moov", b"moof"}


def write_contents(path: Path, contents: Contents, behind: bytes = b"") -> None:
    """Put a changed table of contents in place of the old one, which ends the file, and other boxes
    behind it."""
    with path.open("r+b") as file:
        check_ends_file(file, path, contents)
        file.seek(contents.offset)
        file.write(bytes(contents.moov) + behind)
        file.truncate()


def check_ends_file(file: BinaryIO, path: Path, contents: Contents) -> None:
    """Raises MediaError if anything stands behind the table of contents."""
    if contents.offset + contents.size != file.seek(0, 2):
        raise MediaError(f"{path}: its table of contents does not end the file")


def track_number(track: Box) -> int:
    """The number by which a track is known; FFmpeg's `id` of a stream."""
    data = track.only("tkhd").data
    return int(struct.unpack_from(">I", data, 20 if data[0] else 12)[0])


def sample_entries(track: Box) -> list[tuple[bytes, bytes]]:
    """FourCC and bytes of each sample description."""
    return list(split(track.only("mdia minf stbl stsd").data[8:]))


def entry_boxes(track: Box) -> list[Box]:
    """The boxes in the first sample description of a video track."""
    entries = sample_entries(track)
    return [Box(*part) for part in split(entries[0][1][_VIDEO_ENTRY:])] if entries else []


def add_to_entry(track: Box, boxes: Iterable[Box]) -> None:
    """Put boxes into the first sample description of a video track, except kinds that it has."""
    table = track.only("mdia minf stbl stsd")
    (kind, data), *others = sample_entries(track)
    present = entry_boxes(track)
    end = _VIDEO_ENTRY + sum(len(bytes(box)) for box in present)
    new = [box for box in boxes if box.kind not in {old.kind for old in present}]
    data = data[:end] + b"".join(map(bytes, new)) + data[end:]  # QuickTime may end it with a zero
    entries = [Box(kind, data), *(Box(*other) for other in others)]
    table.data = table.data[:8] + b"".join(map(bytes, entries))


def describe_as(track: Box, source: Box) -> None:
    """Give a track the description of a source's track; its samples and times stay."""
    media, theirs = track.only("mdia"), source.only("mdia")
    table = media.only("minf stbl")
    descriptions = theirs.only("minf stbl stsd")
    table.children = [descriptions if c.kind == b"stsd" else c for c in table.children]
    minf = [table if c.kind == b"stbl" else c for c in theirs.only("minf").children]
    minf = [_own_data(c) if c.kind == b"dinf" else c for c in minf]
    for child in media.children:
        if child.kind == b"minf":
            child.children = minf
    media.children = [theirs.only("hdlr") if c.kind == b"hdlr" else c for c in media.children]
    _copy_volume(track.only("tkhd"), source.only("tkhd"))


def seconds_cut_away(track: Box, moov: Box) -> float:
    """How many seconds of a track its edit list does not show."""
    lists = track.all("edts elst")
    if not lists:
        return 0.0
    try:
        media, ticks = _duration(track.only("mdia mdhd").data)
        _, movie_ticks = _duration(moov.only("mvhd").data)
        data, wide = lists[0].data, lists[0].data[0] == 1
        edits = struct.iter_unpack(">QqI" if wide else ">IiI", data[8:])
        shown = sum(length for length, start, _ in edits if start >= 0)
        return max(0.0, media / ticks - shown / movie_ticks) if shown else 0.0
    except (struct.error, IndexError, ZeroDivisionError, MediaError):
        return 0.0


def _duration(header: bytes) -> tuple[int, int]:
    """Ticks that a film or track lasts, and how many a second has."""
    scale, length = struct.unpack_from(
        ">IQ" if header[0] else ">II", header, 20 if header[0] else 12
    )
    return length, scale


def language(track: Box) -> str:
    """What the box for languages of BCP 47 says, if a track has one."""
    found = track.all("mdia elng")
    return found[0].data[4:].rstrip(b"\0").decode("ascii", "replace") if found else ""


def handler(track: Box) -> tuple[bytes, bytes]:
    """The kind of a track, and what its writer calls it: counted in QuickTime, ended in mp4."""
    data = track.only("mdia hdlr").data
    name = data[24:]
    is_counted = bool(name) and name[0] == len(name) - 1
    return data[8:12], name[1:] if is_counted else name.split(b"\0")[0]


def set_handler_name(track: Box, name: bytes, *, is_mov: bool) -> None:
    box = track.only("mdia hdlr")
    box.data = box.data[:24] + (bytes([len(name)]) + name if is_mov else name + b"\0")


def set_language(track: Box, tag: str) -> None:
    media = track.only("mdia")
    rest = [child for child in media.children if child.kind != b"elng"]
    media.children = [*rest[:1], Box(b"elng", bytes(4) + tag.encode() + b"\0"), *rest[1:]]


def _copy_volume(header: Box, source: Box) -> None:
    """Layer, alternate group and volume: eight bytes behind the duration and two reserved words."""
    here, there = (44 if box.data[0] else 32 for box in (header, source))
    middle = source.data[there : there + 6]
    header.data = header.data[:here] + middle + header.data[here + 6 :]


def _own_data(box: Box) -> Box:
    """A data reference to this very file, since the source's may point elsewhere."""
    url = struct.pack(">I4sI", 12, b"url ", 1)
    dref = struct.pack(">II", 0, 1) + url
    return Box(box.kind, struct.pack(">I4s", 8 + len(dref), b"dref") + dref)


def split(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of boxes that stand one behind the other. Raises MediaError."""
    position = 0
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if size == 1 and position + 16 <= len(data):
            size, header = struct.unpack_from(">Q", data, position + 8)[0], 16
        size = size or len(data) - position
        if size < header or position + size > len(data):
            raise MediaError(f"an mp4 box ({kind!r}) of {size} bytes that does not fit")
        yield kind, data[position + header : position + size]
        position += size


def top_level(file: BinaryIO) -> Iterator[tuple[bytes, int, int, int]]:
    """Kind, offset, size of the header and size in all of the boxes of a file."""
    end = file.seek(0, 2)
    offset = 0
    while offset + 8 <= end:
        file.seek(offset)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))[0], 16
        size = size or end - offset
        if size < header:
            return
        yield kind, offset, header, size
        offset += size
