"""Static metadata of HDR10: the display that a film was mastered on, and how bright it gets.

Encoders of H.264, HEVC and AV1 take them as text and put them in front of every key frame; of other
codecs mp4, mov and Matroska say them.
Sources: SMPTE ST 2086, CTA-861.3; units as in H.265, D.2.28 and D.2.35; the boxes mdcv and clli of
ISO/IEC 14496-12; Matroska, RFC 9559.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from av.video.frame import VideoFrame

from colordaemon.media import ebml
from colordaemon.media.boxes import Box
from colordaemon.media.ebml import Element
from colordaemon.media.frames import all_side_data

MASTERING, LEVEL = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
LIGHT_CODECS = frozenset(("h264", "hevc", "av1"))

_CHROMATICITY, _LUMINANCE = 50000, 10000  # units in 1, and in 1 cd/m²
# AVMasteringDisplayMetadata: fractions of x and y of red, green, blue and white, of the least and
# the greatest luminance; then whether it has primaries and luminance.
_DISPLAY = struct.Struct("=20i2i")
_CONTENT = struct.Struct("=2I")
_PARAMETERS = {"h264": "x264-params", "hevc": "x265-params", "av1": "svtav1-params"}


@dataclass(frozen=True)
class Light:
    """display: x and y of red, green, blue and white in 1/50000, the least and the greatest
    luminance in 1/10000 cd/m². content: the greatest light level and the greatest mean of a
    picture, in cd/m². Empty where the film does not say it in full."""

    display: tuple[int, ...] = ()
    content: tuple[int, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """FFmpeg's names of what is there."""
        parts = ((MASTERING, self.display), (LEVEL, self.content))
        return frozenset(name for name, values in parts if values)

    def option(self, codec: str) -> dict[str, str]:
        """What an encoder of this codec has to be told."""
        if codec not in LIGHT_CODECS:
            return {}
        display, content = {
            "h264": ("mastering-display", "cll"),
            "hevc": ("master-display", "max-cll"),
            "av1": ("mastering-display", "content-light"),
        }[codec]
        parts = []
        if self.display:
            parts.append(f"{display}={self._display_as_text(codec == 'av1')}")
        if self.content:
            parts.append(f"{content}={self.content[0]},{self.content[1]}")
        return {_PARAMETERS[codec]: ":".join(parts)} if parts else {}

    def boxes(self) -> list[Box]:
        """For the sample description of mp4 and mov."""
        found = []
        if self.display:
            red, green, blue, white = (self.display[i : i + 2] for i in range(0, 8, 2))
            least, most = self.display[8:]
            numbers = struct.pack(">8H2I", *green, *blue, *red, *white, most, least)
            found.append(Box(b"mdcv", numbers))
        if self.content:
            found.append(Box(b"clli", struct.pack(">2H", *self.content)))
        return found

    def in_color(self, color: Element) -> Element:
        """Matroska's description of the colors of a film, with this in it."""
        ours = []
        if self.display:
            units = [_CHROMATICITY] * 8 + [_LUMINANCE] * 2
            least, most = (8, 9)
            numbers = [value / unit for value, unit in zip(self.display, units, strict=True)]
            # Red, green, blue, white; then the greatest luminance goes before the least.
            order = (*range(8), most, least)
            parts = [
                Element(bytes([0x55, 0xD1 + place]), struct.pack(">d", numbers[index]))
                for place, index in enumerate(order)
            ]
            ours.append(Element(ebml.MASTERING, b"".join(map(bytes, parts))))
        if self.content:
            levels = zip((ebml.MOST_LIGHT, ebml.MEAN_LIGHT), self.content, strict=True)
            ours += [Element(name, level.to_bytes(4, "big")) for name, level in levels]
        names = {element.id for element in ours}
        kept = [child for child in color.children if child.id not in names]
        return Element(ebml.COLOR, b"".join(map(bytes, [*kept, *ours])))

    def _display_as_text(self, in_units: bool) -> str:
        def number(value: int, unit: int) -> str:
            return f"{value / unit:.5f}" if in_units else str(value)

        numbers = [number(value, _CHROMATICITY) for value in self.display[:8]]
        least, most = (number(value, _LUMINANCE) for value in self.display[8:])
        red, green, blue, white = (",".join(numbers[i : i + 2]) for i in range(0, 8, 2))
        return f"G({green})B({blue})R({red})WP({white})L({most},{least})"


NO_LIGHT = Light()


def light_of(picture: VideoFrame) -> Light:
    found = {side.type.name: bytes(side) for side in all_side_data(picture)}
    display: tuple[int, ...] = ()
    if MASTERING in found:
        *numbers, has_primaries, has_luminance = _DISPLAY.unpack_from(found[MASTERING])
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if has_primaries and has_luminance and all(below for _, below in pairs):
            units = [_CHROMATICITY] * 8 + [_LUMINANCE] * 2
            display = tuple(
                round(above * unit / below)
                for (above, below), unit in zip(pairs, units, strict=True)
            )
    content = _CONTENT.unpack_from(found[LEVEL]) if LEVEL in found else ()
    return Light(display, content)
