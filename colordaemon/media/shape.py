"""How a container says that pictures are to be shown, besides the display matrix:
display size, a crop, and marks of stereoscopic and spherical pictures; and the light of HDR10.

FFmpeg writes none of it from what PyAV can set, so it is put into the finished file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

from colordaemon.errors import MediaError
from colordaemon.media.boxes import Box, add_to_entry, entry_boxes
from colordaemon.media.ebml import (
    COLOR,
    DISPLAY_HEIGHT,
    DISPLAY_UNIT,
    DISPLAY_WIDTH,
    PIXEL_CROP,
    PROJECTION,
    PROJECTION_TYPE,
    STEREO_MODE,
    VIDEO,
    Element,
)
from colordaemon.media.fields import FieldOrder
from colordaemon.media.inventory import Entry, Inventory
from colordaemon.media.originals import Original
from colordaemon.media.probe import FilmInfo
from colordaemon.media.side_data import NO_LIGHT, Light, Orientation

Crop = tuple[Fraction, Fraction, Fraction, Fraction]  # pixels at left, top, right and bottom
NO_CROP: Crop = (Fraction(0),) * 4
_DISPLAY = (DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT)
_CLAP = struct.Struct(">iIiIiIiI")  # four fractions
MP4, MATROSKA = frozenset(("mov", "mp4")), frozenset(("matroska", "webm"))
KNOWN = MP4 | MATROSKA
_BY_ASPECT = 3  # of Matroska's display units
# Views in a picture of those modes across and down; Matroska's display size is that of one.
_VIEWS = {1: (2, 1), 11: (2, 1), 2: (1, 2), 3: (1, 2)}
_ST3D = {3: 1, 1: 2}  # of Matroska's modes, what mp4 knows: views above or beside each other
_MODES = range(1, 15)  # of Matroska
_SPHERICAL_BOX = b"sv3d"
_VIEWS_BOX = b"vexu"  # of Apple: two views, mostly in one stream, of which FFmpeg decodes one
# Of the fiel box: two fields, and which is first; as FFmpeg writes it.
_FIEL: dict[FieldOrder, bytes] = {"top first": b"\x02\x01", "bottom first": b"\x02\x06"}


@dataclass(frozen=True)
class Shape:
    """How a container says that a film's pictures are shown.

    order: of fields. stereo: Matroska's mode, 0 for none. display: elements of Matroska, in its own
    units. spherical: boxes of mp4 or elements of Matroska, which only the like can hold.
    is_spatial: of Apple's kind. aperture: QuickTime's sizes of what is shown, which follow from the
    crop. problem: why the header could not be read.
    """

    width: int
    height: int
    sample_aspect: Fraction
    order: FieldOrder
    orientation: Orientation
    stereo: int = 0
    crop: Crop = NO_CROP
    display: tuple[Element, ...] = ()
    spherical: tuple[Box | Element, ...] = ()
    is_spatial: bool = False
    aperture: Box | None = None
    light: Light = NO_LIGHT
    problem: str = ""

    @property
    def covered(self) -> frozenset[str]:
        """FFmpeg's names of side data that `entries` accounts for."""
        return frozenset(("DISPLAYMATRIX", "STEREO3D", *(["SPHERICAL"] if self.spherical else [])))

    def as_in_mp4(self, boxes: Iterable[Box]) -> Self:
        """With what the boxes of a sample description say."""
        found = {box.kind: box for box in boxes}
        crop = (
            _crop_of(found[b"clap"].data, self.width, self.height) if b"clap" in found else NO_CROP
        )
        spherical = tuple(box for kind, box in found.items() if kind == _SPHERICAL_BOX)
        return replace(self, crop=crop, spherical=spherical, is_spatial=_VIEWS_BOX in found)

    def as_in_matroska(self, elements: Iterable[Element]) -> Self:
        """With what the elements of a track's video settings say."""
        found = {element.id: element for element in elements}
        left, top, right, bottom = (
            Fraction(int.from_bytes(found[name].data, "big")) if name in found else Fraction(0)
            for name in PIXEL_CROP
        )
        unit = found[DISPLAY_UNIT].data if DISPLAY_UNIT in found else b""
        is_known = DISPLAY_WIDTH in found and int.from_bytes(unit, "big") <= _BY_ASPECT
        display = tuple(found[name] for name in _DISPLAY if is_known and name in found)
        projection = found.get(PROJECTION)
        is_flat = projection is None or not any(projection.child(PROJECTION_TYPE))
        spherical = () if projection is None or is_flat else (projection,)
        return replace(self, crop=(left, top, right, bottom), display=display, spherical=spherical)

    def entries(self, container: str) -> Inventory:
        """What happens to each part in a container."""
        sides = ", ".join(f"{float(pixels):g}" for pixels in self.crop)
        holds_stereo = self.stereo in (_ST3D if container in MP4 else _MODES)

        def unless(is_held: bool) -> str:
            return "" if is_held else f"{container} cannot hold it"

        parts = (
            ("display matrix", bool(self.orientation), unless(container in KNOWN)),
            (f"crop ({sides} pixels at left, top, right, bottom)", self.crop != NO_CROP,
             unless(bool(self._crop_in(container)))),
            ("marks of stereoscopic pictures", bool(self.stereo),
             unless(container in KNOWN and holds_stereo)),
            ("marks of spherical pictures", bool(self.spherical),
             unless(bool(self._spherical_in(container)))),
            ("second views of spatial video", self.is_spatial, "FFmpeg decodes the first alone"),
            ("crop and marks of the container", bool(self.problem), self.problem),
        )  # fmt: skip
        return tuple(
            Entry("shape", what, "left out" if reason else "kept", reason)
            for what, is_there, reason in parts
            if is_there
        )

    def is_incomplete_in(self, container: str) -> bool:
        """Whether FFmpeg alone does not write all of it."""
        if container in MP4:
            return bool(self._boxes(container) or self.aperture)
        return container in MATROSKA and bool(self._elements() or self.light.names)

    def in_matroska(self, track: Element) -> Element:
        """A track that says this shape, in place of what FFmpeg says."""
        ours = self._elements()
        replaced = {element.id for element in ours}
        replaced |= {*_DISPLAY} if DISPLAY_WIDTH in replaced else set()
        video = Element(VIDEO, track.child(VIDEO))
        if self.light.names:
            ours.append(self.light.in_color(Element(COLOR, video.child(COLOR))))
            replaced.add(COLOR)
        kept = [child for child in video.children if child.id not in replaced]
        return track.with_child(VIDEO, [*kept, *ours])

    def in_mp4(self, track: Box, container: str) -> None:
        """Let a track say what FFmpeg has not said."""
        if parts := self._boxes(container):
            add_to_entry(track, parts)
        if self.aperture and container == "mov":
            header, *others = [c for c in track.children if c.kind != self.aperture.kind]
            track.children = [header, self.aperture, *others]

    def _elements(self) -> list[Element]:
        mode = [_number(STEREO_MODE, self.stereo)] if self.stereo > 0 else []
        parts = [*self._display(), *self._crop_in("matroska"), *self._spherical_in("matroska")]
        return [*mode, *(part for part in parts if isinstance(part, Element))]

    def _boxes(self, container: str) -> list[Box]:
        parts = [*self._crop_in("mp4"), *self._spherical_in("mp4"), *self.light.boxes()]
        if self.stereo in _ST3D:
            parts.append(Box(b"st3d", struct.pack(">IB", 0, _ST3D[self.stereo])))
        if self.order in _FIEL and container == "mov":
            parts.append(Box(b"fiel", _FIEL[self.order]))
        return [part for part in parts if isinstance(part, Box)]

    def _display(self) -> list[Element]:
        if self.display or self.sample_aspect == 1:
            return list(self.display)
        left, top, right, bottom = self.crop
        across, down = _VIEWS.get(self.stereo, (1, 1))
        height = (self.height - top - bottom) / down
        width = (self.width - left - right) * self.sample_aspect / across
        if width.denominator == height.denominator == 1:
            return [_number(DISPLAY_WIDTH, int(width)), _number(DISPLAY_HEIGHT, int(height))]
        aspect = width / height
        return [
            _number(DISPLAY_WIDTH, aspect.numerator),
            _number(DISPLAY_HEIGHT, aspect.denominator),
            _number(DISPLAY_UNIT, _BY_ASPECT),
        ]

    def _crop_in(self, container: str) -> list[Box | Element]:
        if self.crop == NO_CROP:
            return []
        if container in MP4:
            return _clap(self.width, self.height, self.crop)
        is_plain = all(side >= 0 and side.denominator == 1 for side in self.crop)
        if container in MATROSKA and is_plain:
            return [_number(n, int(side)) for n, side in zip(PIXEL_CROP, self.crop, strict=True)]
        return []

    def _spherical_in(self, container: str) -> list[Box | Element]:
        kind = Box if container in MP4 else Element
        return [p for p in self.spherical if container in KNOWN and isinstance(p, kind)]


def shape_of(info: FilmInfo, original: Original) -> Shape:
    """What the container of a film says."""
    shape = Shape(
        info.width,
        info.height,
        info.sample_aspect,
        info.field_order,
        info.orientation,
        info.stereo_mode,
        light=info.light,
        problem=original.problem,
    )
    track = original.tracks.get(info.stream_index)
    try:
        if isinstance(track, Box):
            aperture = next(iter(track.all("tapt")), None)
            return replace(shape.as_in_mp4(entry_boxes(track)), aperture=aperture)
        if track is not None:
            return shape.as_in_matroska(Element(VIDEO, track.child(VIDEO)).children)
    except MediaError as error:  # FFmpeg has read it, and is less strict
        return replace(shape, problem=str(error))
    return shape


def changes_of(info: FilmInfo) -> Inventory:
    """What happens to a shape that changes within a film: the result has one for all of it."""
    found = []
    if info.other_aspects:
        others = ", ".join(map(_ratio, info.other_aspects))
        reason = f"all of it is said to have {_ratio(info.sample_aspect)}"
        found.append(Entry("shape", f"pixels of {others} in parts of the film", "left out", reason))
    if info.is_field_coded:
        reason = "each comes out as a whole picture"
        found.append(Entry("shape", "that each picture is a single field", "left out", reason))
    if not info.is_steady:
        reason = "all of it has that of the first picture"
        found.append(Entry("shape", "changes of the display matrix", "left out", reason))
    return tuple(found)


def _ratio(aspect: Fraction) -> str:
    return f"{aspect.numerator}:{aspect.denominator}"


def _clap(width: int, height: int, crop: Crop) -> list[Box | Element]:
    """Size of what is shown, and how far its middle lies from the picture's; nothing where that
    needs more digits than there are."""
    left, top, right, bottom = crop
    numbers = (width - left - right, height - top - bottom, (left - right) / 2, (top - bottom) / 2)
    pairs = [(number.numerator, number.denominator) for number in numbers]
    if max(max(abs(above), below) for above, below in pairs) >= 1 << 31:
        return []
    return [Box(b"clap", b"".join(struct.pack(">iI", *pair) for pair in pairs))]


def _crop_of(clap: bytes, width: int, height: int) -> Crop:
    if len(clap) < _CLAP.size:
        return NO_CROP
    pairs = _CLAP.unpack_from(clap)
    if 0 in pairs[1::2]:
        return NO_CROP
    across, down, right, low = (Fraction(pairs[i], pairs[i + 1]) for i in range(0, len(pairs), 2))
    left, top = (width - across) / 2 + right, (height - down) / 2 + low
    return left, top, width - across - left, height - down - top


def _number(name: bytes, value: int) -> Element:
    return Element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))
