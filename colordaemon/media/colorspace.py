"""A film's color tags: what they mean, what is assumed without them, and the tags of the result.

Numbers are those of ITU-T H.273, which FFmpeg uses too; range and siting are FFmpeg's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from av.video.frame import VideoFrame

from colordaemon.color import Matrix, PixelCode, Siting
from colordaemon.config import FilmSettings
from colordaemon.media.inventory import Entry, Inventory
from colordaemon.media.pixels import Layout
from colordaemon.transfer import Transfer

_UNSPECIFIED = 2
_LIMITED, _FULL = 1, 2
_BT709, _BT470BG, _SMPTE170M, _BT2020, _BT2020_CONSTANT, _ICTCP = 1, 5, 6, 9, 10, 14
_PQ, _HLG, _BT2020_10BIT = 16, 18, 14
_MATRICES = {
    _BT709: Matrix.BT709,
    4: Matrix.FCC,
    _BT470BG: Matrix.BT601,
    _SMPTE170M: Matrix.BT601,
    7: Matrix.SMPTE240M,
    _BT2020: Matrix.BT2020,
}
# Their chroma is none of a Y'CbCr matrix. Gray stands for the same light in all of them.
_OTHER_MATRICES = {
    8: "YCgCo",
    _BT2020_CONSTANT: "BT.2020 with constant luminance",
    11: "SMPTE 2085",
    12: "derived from primaries",
    13: "derived from primaries, with constant luminance",
    _ICTCP: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_TRANSFERS = {_PQ: Transfer.PQ, _HLG: Transfer.HLG}
_SITINGS = {1: Siting.LEFT, 2: Siting.CENTER, 3: Siting.TOP_LEFT, 4: Siting.TOP}
_SITING_TAGS = {siting: tag for tag, siting in _SITINGS.items()}
# Codecs whose standard fixes the siting, which FFmpeg's containers do not tell.
_SITINGS_BY_STANDARD = {"dvvideo": Siting.TOP_LEFT, "mpeg1video": Siting.CENTER}
# Which sitings of 4:2:0 a codec can state.
_SAID_SITINGS = {
    "h264": frozenset(Siting),
    "hevc": frozenset(Siting),
    "av1": frozenset((Siting.LEFT, Siting.TOP_LEFT)),
    "ffv1": frozenset(Siting),  # in Matroska
}
# Their standards say that an untagged film has limited range (H.264 and H.265, E.2.1).
_LIMITED_BY_STANDARD = frozenset(("h264", "hevc"))
# FFmpeg's decoders of these call gray limited, although the file does not say so.
_SILENT_ON_GRAY = frozenset(("magicyuv",))
_LINES_625, _LINES_525 = frozenset((288, 576, 608)), frozenset((240, 480, 486, 512))
_HD_LINES = 720

_ASSUMED_RANGES = {"limited": _LIMITED, "full": _FULL}
_ASSUMED_MATRICES = {"bt601": _SMPTE170M, "bt709": _BT709, "bt2020": _BT2020}
_ASSUMED_TRANSFERS = {"sdr": _BT709, "pq": _PQ, "hlg": _HLG}


@dataclass(frozen=True)
class ColorTags:
    """Range, matrix, primaries, transfer and siting. 0 is an unknown range or siting, 2 any other.

    range_is_assumed, transfer_is_assumed: the user says it, whatever the film's pictures say.
    """

    range: int
    matrix: int
    primaries: int
    transfer: int
    siting: int = 0
    range_is_assumed: bool = False
    transfer_is_assumed: bool = False

    def assumed(self, settings: FilmSettings) -> ColorTags:
        """The tags, with what the user's settings assume in place of the film's own."""
        tags = self
        if settings.assume_range:
            number = _ASSUMED_RANGES[settings.assume_range]
            tags = replace(tags, range=number, range_is_assumed=True)
        if settings.assume_matrix:
            number = _ASSUMED_MATRICES[settings.assume_matrix]
            tags = replace(tags, matrix=number, primaries=_UNSPECIFIED)
        if settings.assume_transfer:
            number = _ASSUMED_TRANSFERS[settings.assume_transfer]
            tags = replace(tags, transfer=number, transfer_is_assumed=True)
        return tags

    @property
    def strange_matrix(self) -> str | None:
        """The name of a matrix that is none of Y'CbCr."""
        return _OTHER_MATRICES.get(self.matrix)


def tags_of(frame: VideoFrame, siting: int) -> ColorTags:
    return ColorTags(
        int(frame.color_range),
        int(frame.colorspace),
        int(frame.color_primaries),
        int(frame.color_trc),
        siting,
    )


def untagged(picture: VideoFrame) -> VideoFrame:
    """The picture without what it says of its colors but range, for FFmpeg's scaler: that refuses
    pictures with tags that it does not know, even where none of them matters."""
    picture.colorspace = picture.color_primaries = picture.color_trc = _UNSPECIFIED
    return picture


def code_of(tags: ColorTags, layout: Layout, codec: str, height: int) -> PixelCode:
    """How the luma codes of a film are to be read."""
    return PixelCode(
        matrix=_matrix(tags, layout, height),
        depth=layout.depth,
        full_range=_is_full_range(tags, layout, codec),
        subsampling=layout.subsampling,
        siting=_siting(tags, codec),
        transfer=transfer_of(tags.transfer),
    )


def transfer_of(tag: int) -> Transfer:
    return _TRANSFERS.get(tag, Transfer.SDR)


def written_code(code: PixelCode, layout: Layout, codec: str) -> PixelCode:
    """How a film is written in a codec and layout: as its source, as far as they can say so."""
    siting = code.siting
    if layout.subsampling != (2, 2):
        siting = Siting.LEFT  # no standard has another one for them
    elif siting not in _SAID_SITINGS.get(codec, frozenset((Siting.LEFT,))):
        siting = Siting.LEFT
    return replace(code, depth=layout.depth, subsampling=layout.subsampling, siting=siting)


def written_tags(tags: ColorTags, code: PixelCode, height: int, rate: Fraction) -> ColorTags:
    """The source's own tags; those that it leaves open are set, since colors depend on them now."""
    matrix, primaries, transfer = {
        Matrix.BT709: (_BT709, _BT709, _BT709),
        Matrix.BT2020: (_BT2020, _BT2020, _BT2020_10BIT),
    }.get(code.matrix, (_SMPTE170M, _SMPTE170M, _SMPTE170M))
    if code.matrix is Matrix.BT601 and (tags.matrix == _BT470BG or _has_625_lines(height, rate)):
        matrix = primaries = _BT470BG
    own = _MATRICES.get(tags.matrix) is code.matrix

    def known(tag: int, otherwise: int) -> int:
        return tag if tag not in (0, _UNSPECIFIED) else otherwise

    return ColorTags(
        range=_FULL if code.full_range else _LIMITED,
        matrix=tags.matrix if own else matrix,
        primaries=known(tags.primaries, primaries),
        transfer=known(tags.transfer, transfer),
        siting=_SITING_TAGS[code.siting] if code.subsampling == (2, 2) else 0,
    )


def color_holdings(
    tags: ColorTags, source: PixelCode, written: PixelCode, codec: str, container: str
) -> Inventory:
    """What happens to the color tags of a film that are not simply kept."""
    entries = []
    if tags.strange_matrix:
        what = f"color matrix {tags.strange_matrix}"
        standard = written.matrix.name.replace("BT", "BT.")
        how = f"to that of {standard}, in which grays have the same codes"
        entries.append(Entry("color", what, "converted", how))
    is_said = source.siting is written.siting and (codec != "ffv1" or container == "matroska")
    usual = source.siting is Siting.LEFT or written.subsampling != (2, 2)
    if not (is_said or usual or source.subsampling != (2, 2)):
        what = f"siting of chroma samples ({source.siting.name.lower().replace('_', ' ')})"
        how = f"{codec} in {container} cannot say it"
        entries.append(Entry("color", what, "left out", how))
    return tuple(entries)


def matrix_tag(matrix: Matrix) -> int:
    """FFmpeg's number of a matrix that RGB is converted to."""
    return _BT2020 if matrix is Matrix.BT2020 else _BT709


def _matrix(tags: ColorTags, layout: Layout, height: int) -> Matrix:
    if tags.matrix in _MATRICES and not layout.is_rgb:
        return _MATRICES[tags.matrix]
    is_wide = tags.matrix in (_BT2020_CONSTANT, _ICTCP) or tags.primaries == _BT2020
    if is_wide or tags.transfer in _TRANSFERS:
        return Matrix.BT2020
    return Matrix.BT709 if height >= _HD_LINES or layout.is_rgb else Matrix.BT601


def _is_full_range(tags: ColorTags, layout: Layout, codec: str) -> bool:
    if layout.is_rgb:
        return True
    if tags.range_is_assumed or (tags.range and not (layout.is_gray and codec in _SILENT_ON_GRAY)):
        return tags.range == _FULL
    # Everyone, FFmpeg included, takes gray for full range where nothing says otherwise.
    return layout.full_range or (layout.is_gray and codec not in _LIMITED_BY_STANDARD)


def _siting(tags: ColorTags, codec: str) -> Siting:
    usual = Siting.TOP_LEFT if tags.matrix in (_BT2020, _BT2020_CONSTANT) else Siting.LEFT
    return _SITINGS.get(tags.siting, _SITINGS_BY_STANDARD.get(codec, usual))


def _has_625_lines(height: int, rate: Fraction) -> bool:
    """Whether a film comes from a 625-line system, and not from one of 525 lines."""
    if height in _LINES_625 or height in _LINES_525:
        return height in _LINES_625
    return rate in (25, 50)
