"""Chooses the container of a finished film, and the streams of the source that it holds.

Found out by writing headers to memory, before any work is spent.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.stream import Stream

from colordaemon.errors import MediaError
from colordaemon.media.codec import EncoderSettings
from colordaemon.media.copies import (
    Descriptions,
    Way,
    declare,
    descriptions_of,
    stream_name,
    ways_of,
)
from colordaemon.media.demux import open_film
from colordaemon.media.holdings import is_timecode, take_stock
from colordaemon.media.inventory import Inventory, Note, grave_losses
from colordaemon.media.originals import original_of
from colordaemon.media.probe import FilmInfo
from colordaemon.media.shape import Shape, changes_of, shape_of
from colordaemon.media.side_data import LIGHT_CODECS, NO_LIGHT
from colordaemon.media.stretch import Cut
from colordaemon.media.tags import find_tag, is_stale

MATROSKA, TRANSPORT, MXF = "matroska", "mpegts", "mxf"
_SUFFIXES = {MATROSKA: ".mkv", "webm": ".webm", "mov": ".mov", "mp4": ".mp4", TRANSPORT: ".ts",
             MXF: ".mxf"}  # fmt: skip
_OTHER_SUFFIXES = {"mp4": (".m4v",), TRANSPORT: (".m2ts", ".mts", ".m2t", ".trp")}
# RFC 9043 lets FFV1 into MP4 too, but archives and their tools expect it in Matroska, as those of
# editing systems expect ProRes and DNxHR in QuickTime.
_USUAL = {"ffv1": MATROSKA, "prores": "mov", "dnxhr": "mov"}
_IN_MXF = frozenset(("h264", "prores", "dnxhr"))
_TITLES = {
    MATROSKA: "Matroska",
    "webm": "WebM",
    "mov": "QuickTime",
    "mp4": "MP4",
    TRANSPORT: "an MPEG transport stream",
    MXF: "MXF (OP1a)",
}


@dataclass(frozen=True)
class Target:
    """The container to write.

    ways: of the source's streams in it, by index and in order; None for the film itself.
    shape: in which its pictures are shown. inventory: what happens to all that stands in the
    source's headers. remarks: what else is to be said.
    """

    format: str
    suffix: str
    ways: tuple[tuple[int, Way | None], ...]
    shape: Shape
    inventory: Inventory
    remarks: tuple[str, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Indexes of the source's streams in it, in order."""
        return tuple(index for index, _ in self.ways)

    def origin(self, info: FilmInfo, cut: Cut | None = None) -> Fraction:
        """By how much times are moved; a transport stream keeps its own clock."""
        if self.format == TRANSPORT:
            return Fraction(0)
        return cut.start if cut else info.origin_seconds


def choose_target(info: FilmInfo, encoder: EncoderSettings) -> Target:
    """The source's own container if it can hold everything, else the one that holds the most.

    Found out by writing headers to memory, before any work is spent. Raises MediaError when
    none can hold the film stream itself.
    """
    native = _native_format(info, encoder)
    candidates = [*dict.fromkeys((native, MATROSKA, "mov"))]
    if info.container == TRANSPORT and encoder.codec in ("h264", "hevc"):
        candidates.append(TRANSPORT)  # holds what only broadcasts have, as teletext
    with open_film(info.path) as source:
        original = original_of(source, info.path)
        described = descriptions_of(source, info.path, original)
        fits = {name: _fitting(name, source, info, encoder, described) for name in candidates}
        lists = {
            name: take_stock(source, info, name, ways, described, original)
            for name, ways in fits.items()
        }
        names = {s.index: stream_name(s, described.names) for s in source.streams}
        shape = shape_of(info, original)
        if encoder.codec in LIGHT_CODECS:  # their pictures say it
            shape = replace(shape, light=NO_LIGHT)
    names[info.stream_index] = encoder.codec

    def badness(name: str) -> tuple[bool, int, int]:
        is_usual = name in (MXF, _USUAL.get(encoder.codec))
        lost = 0 if is_usual else len(_lost(lists[name]))
        return info.stream_index not in fits[name], len(grave_losses(lists[name])), lost

    choice = min(candidates, key=badness)
    if info.stream_index not in fits[choice]:
        raise MediaError(f"{info.path}: none of {', '.join(candidates)} can hold {encoder.codec}")
    suffix = info.path.suffix.lower()
    keeps_suffix = suffix in _OTHER_SUFFIXES.get(choice, ())
    remarks = []
    if choice != native:
        lost = [index for index in fits[choice] if index not in fits[native]]
        blamed = [info.stream_index] if info.stream_index in lost else lost
        kept = {entry.what for entry in lists[choice] if entry.fate != "left out"}
        others = [what for what in _lost(lists[native]) if what in kept]
        reason = ", ".join([names[index] for index in blamed] or others)
        remarks.append(Note(f"writing {_TITLES[choice]}, because {native} cannot hold {reason}"))
    elif not keeps_suffix and suffix != _SUFFIXES[choice]:
        remarks.append(Note(f"writing {_TITLES[choice]} instead of {suffix or info.container}"))
    return Target(
        choice,
        suffix if keeps_suffix else _SUFFIXES[choice],
        tuple(sorted(fits[choice].items())),
        shape,
        (*lists[choice], *shape.entries(choice), *changes_of(info)),
        tuple(remarks),
    )


def _lost(inventory: Inventory) -> list[str]:
    return [entry.what for entry in inventory if entry.fate == "left out"]


def _native_format(info: FilmInfo, encoder: EncoderSettings) -> str:
    if info.container == MXF and _goes_into_mxf(encoder):
        return MXF
    if encoder.codec in _USUAL:
        return _USUAL[encoder.codec]
    if info.container == MATROSKA:
        return "webm" if info.path.suffix.lower() == ".webm" else MATROSKA
    if info.container == "mov":
        return "mov" if info.path.suffix.lower() in (".mov", ".qt") else "mp4"
    return MATROSKA


def _goes_into_mxf(encoder: EncoderSettings) -> bool:
    """As FFmpeg writes it: without the order in which pictures are shown, and for DNxHR without
    fields."""
    has_fields = encoder.field_order != "progressive"
    is_silent = encoder.codec == "dnxhr" and has_fields
    return encoder.codec in _IN_MXF and not encoder.reorders and not is_silent


def _fitting(
    name: str,
    source: InputContainer,
    info: FilmInfo,
    encoder: EncoderSettings,
    described: Descriptions,
) -> dict[int, Way | None]:
    """The streams that a container takes into its header, each with the way it takes."""

    def takes(ways: Mapping[int, Way | None]) -> bool:
        trial = av.open(io.BytesIO(), "w", format=name)
        try:
            declare_streams(trial, source, info, encoder, ways)
            trial.start_encoding()
        except (av.error.FFmpegError, ValueError):
            return False
        finally:
            with suppress(av.error.UnknownError):  # of MXF, which wants one packet at least
                trial.close()
        return True

    film: dict[int, Way | None] = {info.stream_index: None}
    others = {
        stream.index: [*ways_of(stream, name, described)]
        for stream in source.streams
        if stream.index != info.stream_index and not is_timecode(stream)
    }
    first: dict[int, Way | None] = {index: ways[0] for index, ways in others.items() if ways}
    if takes(film | first):
        return film | first
    if not takes(film):
        return {}
    for index, ways in others.items():
        fitting = [way for way in ways if takes({info.stream_index: None, index: way})][:1]
        film |= dict.fromkeys([index], fitting[0]) if fitting else {}
    return film


def declare_streams(
    container: OutputContainer,
    source: InputContainer,
    info: FilmInfo,
    encoder: EncoderSettings,
    ways: Mapping[int, Way | None],
) -> dict[int, Stream]:
    """Declare the kept streams in their order; returns them by the source's index."""
    declared: dict[int, Stream] = {}
    for index, way in sorted(ways.items()):
        stream = source.streams[index]
        copy: Stream
        if way is None:
            film = encoder.add_to(container)
            if encoder.codec == "hevc" and container.format.name in ("mov", "mp4"):
                film.codec_context.codec_tag = "hvc1"  # players of Apple know no hev1
            if reel := find_tag(source, "reel_name"):
                film.metadata["reel_name"] = reel  # for the timecode track
            if info.orientation:
                film.set_display_matrix(info.orientation.matrix)  # lost in silence after the header
            copy = film
        else:
            copy = declare(container, stream, way)
        copy.metadata.update(
            {k: v for k, v in stream.metadata.items() if way is not None or not is_stale(k)}
        )
        copy.disposition = stream.disposition
        declared[stream.index] = copy
    return declared
