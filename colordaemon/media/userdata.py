"""Text metadata of mp4 and mov files that FFmpeg does not read or write completely.

Cameras and phones put place, make, model and local date under keys of their own (`mdta`), other
programs put boxes of their own into the user data, and XMP stands in a box with a known number.
https://developer.apple.com/documentation/quicktime-file-format/metadata_atoms_and_types
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from colordaemon.errors import MediaError
from colordaemon.media.boxes import Box, split, top_level

XMP_NUMBER = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_MOST_XMP_BYTES = 1 << 26
# What FFmpeg writes itself, or what describes how the old file was sent over a network.
_MADE_ANEW = frozenset((b"meta", b"chpl", b"hnti", b"hinf", b"XMP_", b"\xa9too", b"\xa9swr",
                        b"\xa9enc", b"\xa9cmt", b"tags"))  # fmt: skip
_READ = frozenset((b"loci", b"titl", b"auth", b"perf", b"dscp", b"cprt", b"albm", b"gnre", b"yrrc",
                   b"name", b"date", b"manu", b"modl", b"free", b"skip"))  # fmt: skip
_HANDLER = bytes(8) + b"mdta" + bytes(12) + b"\0"

Items = list[tuple[bytes, bytes]]  # key with the four letters of its namespace, and its values


def items_of(holder: Box) -> Items:
    """The keys of a file or track with their values, of whatever type."""
    found: Items = []
    for meta in holder.all("meta"):
        try:
            found += _items(meta.data)
        except (MediaError, struct.error):
            continue  # FFmpeg reads none of it either
    return found


def with_items(items: Items, *, is_mov: bool) -> Box:
    """A box of keys. is_mov: mp4 has a version in it, which QuickTime has not."""
    keys = b"".join(_box(key[:4], key[4:]) for key, _ in items)
    values = b"".join(
        _box(struct.pack(">I", number), value) for number, (_, value) in enumerate(items, 1)
    )
    head = b"" if is_mov else bytes(4)
    keys = struct.pack(">II", 0, len(items)) + keys
    body = _box(b"hdlr", _HANDLER) + _box(b"keys", keys) + _box(b"ilst", values)
    return Box(b"meta", head + body)


def text_items(tags: Mapping[str, str]) -> Items:
    """Tags as keys with a text of UTF-8."""
    return [
        (b"mdta" + key.encode(), _box(b"data", struct.pack(">II", 1, 0) + value.encode()))
        for key, value in tags.items()
    ]


def keep_user_data(holder: Box, source: Box) -> None:
    """Add to a file or track the user data of the source's that it lacks."""
    found = _parts(source)
    own = {kind for kind, _ in _parts(holder)}
    kept = [(kind, data) for kind, data in found if kind not in own | _MADE_ANEW]
    if kept:
        parts = b"".join(_box(kind, data) for kind, data in (*_parts(holder), *kept))
        rest = [child for child in holder.children if child.kind != b"udta"]
        holder.children = [*rest, Box(b"udta", parts)]


def unread_parts(holder: Box) -> list[str]:
    """Names of the user data that FFmpeg does not read as tags."""
    return [
        kind.decode("latin-1")
        for kind, _ in _parts(holder)
        if kind not in _MADE_ANEW | _READ and kind[:1] != b"\xa9"
    ]


def xmp_of(path: Path, moov: Box) -> bytes:
    """The XMP packet of a file, empty if it has none. Raises OSError."""
    with path.open("rb") as file:
        for kind, offset, header, size in top_level(file):
            if kind == b"uuid" and header + 16 < size < _MOST_XMP_BYTES:
                file.seek(offset + header)
                if file.read(16) == XMP_NUMBER:
                    return file.read(size - header - 16)
    return next((data for kind, data in _parts(moov) if kind == b"XMP_"), b"")


def xmp_box(packet: bytes) -> bytes:
    return _box(b"uuid", XMP_NUMBER + packet)


def _items(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    parts = dict(split(data if data[4:8] == b"hdlr" else data[4:]))
    if b"keys" not in parts or b"ilst" not in parts:
        return
    keys = [space + name for space, name in split(parts[b"keys"][8:])]
    for number, value in split(parts[b"ilst"]):
        index = int.from_bytes(number, "big") - 1
        if 0 <= index < len(keys):
            yield keys[index], value


def _parts(holder: Box) -> list[tuple[bytes, bytes]]:
    """The boxes in the user data; in old files these end with a zero of four bytes."""
    try:
        return [part for udta in holder.all("udta") for part in split(udta.data)]
    except MediaError:
        return []


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data
