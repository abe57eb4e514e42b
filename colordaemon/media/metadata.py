"""The metadata of a photo, read from any format and prepared for any other.

Within a format everything passes but what is listed as having to go. Between formats EXIF, XMP,
IPTC and resolution pass; what the new format cannot hold is said.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from colordaemon.media import exif, gif, jpeg, png, tiff, webp
from colordaemon.media.provenance import is_ours, without_property
from colordaemon.media.stills import PhotoFormat

Density = tuple[int, float, float]  # unit (0: none, 1: per inch, 2: per cm), across, down

# Properties that point behind the picture or into it, where nothing stands any more.
_POINTERS = (
    "GCamera:MotionPhoto", "GCamera:MotionPhotoVersion",
    "GCamera:MotionPhotoPresentationTimestampUs", "GCamera:MicroVideo",
    "GCamera:MicroVideoVersion", "GCamera:MicroVideoOffset",
    "GCamera:MicroVideoPresentationTimestampUs", "Container:Directory",
    "GContainer:Directory", "hdrgm:Version", "HDRGainMap:HDRGainMapVersion",
    "HDRGainMap:HDRGainMapHeadroom", "xmp:Thumbnails", "dcterms:provenance",
)  # fmt: skip
_OLD_PIXELS = (1033, 1036, 1039, 1041)  # Photoshop resources: thumbnails, color profile
_IPTC = 1028
_MAKER_NOTE, _USER_COMMENT, _COLOR_SPACE = 37500, 37510, 40961


@dataclass(frozen=True)
class Metadata:
    """What one picture says about itself.

    exif: an EXIF block from its byte order mark on. tags: those of a TIFF page. resources:
    Photoshop's, with IPTC among them. kept: segments or chunks of its own format that pass as they
    stand. density: None where the source says none. remarks: what is left out, and why.
    is_whole: whether it is the only picture in its file. is_ours: whether it is a result of ours.
    """

    exif: bytes = b""
    tags: tiff.Tags = field(default_factory=dict)
    xmp: bytes = b""
    resources: bytes = b""
    density: Density | None = None
    kept: tuple[object, ...] = ()
    orientation: int = 1
    remarks: tuple[str, ...] = ()
    is_whole: bool = True
    is_ours: bool = False

    @property
    def all_tags(self) -> tiff.Tags:
        """The tags of the TIFF page or of the EXIF block; none where that is damaged."""
        if self.tags or not self.exif:
            return self.tags
        try:
            return tiff.read_tags(self.exif)
        except (struct.error, KeyError):
            return {}

    @property
    def software(self) -> str:
        tag = self.all_tags.get(tiff.SOFTWARE)
        return tag.data.rstrip(b"\0 ").decode("utf-8", "replace") if tag else ""


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file, which are read as they are looked at."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def read_metadata(path: Path, kind: PhotoFormat, tags: tiff.Tags) -> Metadata:
    """What a JPEG, PNG, TIFF, WebP, BMP or GIF says. HEIF's comes from its decoder.

    tags: those of the TIFF page.
    """
    match kind:
        case PhotoFormat.TIFF:
            found = _of_tiff(tags)
        case PhotoFormat.JPEG:
            with mapped(path) as data:
                found = _of_jpeg(jpeg.take_apart(data), len(data))
        case PhotoFormat.PNG:
            with mapped(path) as data:
                found = _of_png(png.take_apart(data))
        case PhotoFormat.WEBP:
            with mapped(path) as data:
                found = _of_webp(webp.take_apart(data))
        case PhotoFormat.GIF:
            with mapped(path) as data:
                found = _of_gif(data)
        case PhotoFormat.BMP:
            with mapped(path) as data:
                found = Metadata(is_ours=is_ours(data[-64:]))
        case _:
            found = Metadata()
    return finished(found)


def finished(found: Metadata) -> Metadata:
    """Completed by what follows from EXIF and XMP, in every format alike."""
    is_lost = bool(found.exif) and not exif.is_readable(found.exif)
    return replace(
        found,
        remarks=(*found.remarks, _EXIF_LOST) if is_lost else found.remarks,
        xmp=_without_pointers(found.xmp),
        orientation=_orientation(found.all_tags) if found.exif else found.orientation,
        is_ours=found.is_ours or is_ours(found.software, found.xmp),
    )


def _orientation(tags: tiff.Tags) -> int:
    tag = tags.get(tiff.ORIENTATION)
    number = tag.numbers[0] if tag and tag.numbers else 1
    return number if number in range(1, 9) else 1


def _of_jpeg(parts: jpeg.Parts, size: int) -> Metadata:
    remarks = []
    if jpeg.holds_signature(parts):
        remarks.append(_SIGNED)
    more = jpeg.holds_more_pictures(parts)
    if more:
        remarks.append("holds further pictures behind the first; only the first is kept")
    trailing = size - parts.end if parts.end is not None else 0
    if trailing > 0 and not more:
        remarks.append(
            f"{trailing} bytes behind the picture (the film of a motion photo, a gain map or the"
            " like) are left out"
        )
    return Metadata(
        exif=jpeg.exif_of(parts),
        xmp=jpeg.xmp_of(parts),
        resources=_without_old_pixels(jpeg.resources_of(parts)),
        density=jpeg.density_of(parts),
        kept=jpeg.kept_segments(parts),
        remarks=tuple(remarks),
        is_whole=not more and trailing <= _PADDING,
    )


_EXIF_LOST = "its EXIF is damaged, or leads in circles, and is left out"
_PADDING = 4096  # bytes; some programs fill up blocks, and a picture is larger
SIGNATURE_LOST = "it holds only for the source"
_SIGNED = "its signature (C2PA) holds only for the source and is left out"


def _of_png(parts: png.Parts) -> Metadata:
    kept, lost = png.kept_chunks(parts)
    names = ", ".join(name.decode("latin-1") for name in lost)
    remarks = [f"chunks that hold only for the old pixels are left out: {names}"] if lost else []
    if parts.first(b"caBX") is not None:
        remarks.append(_SIGNED)
    if parts.trailing:
        remarks.append(f"{parts.trailing} bytes behind the picture are left out")
    density = parts.first(b"pHYs")
    found: Density | None = None
    if density and len(density) == 9:
        across, down, unit = struct.unpack(">IIB", density)
        scale = 0.01 if unit else 1.0
        found = (2 if unit else 0), across * scale, down * scale
    return Metadata(
        exif=(parts.first(b"eXIf") or b"").removeprefix(jpeg.EXIF),
        xmp=png.xmp_of(parts),
        density=found,
        kept=kept,
        remarks=tuple(remarks),
        is_whole=parts.trailing <= _PADDING,
    )


def _of_gif(data: mmap.mmap) -> Metadata:
    """Its comments as chunks of a PNG, since that is what it becomes."""
    kept = (png.Chunk(b"tEXt", b"Comment\0" + comment) for comment in gif.comments_of(data))
    return Metadata(xmp=gif.xmp_of(data), kept=tuple(kept))


def _of_webp(chunks: list[tuple[bytes, bytes]]) -> Metadata:
    contents = dict(chunks)
    return Metadata(
        exif=contents.get(b"EXIF", b"").removeprefix(jpeg.EXIF),
        xmp=contents.get(b"XMP ", b""),
        kept=webp.kept_chunks(chunks),
        remarks=(_SIGNED,) if b"C2PA" in contents else (),
    )


def _of_tiff(tags: tiff.Tags) -> Metadata:
    kept, lost = tiff.kept_tags(tags)
    remarks = [f"left out, since it shows or describes the old pixels: {name}" for name in lost]
    xmp, resources = (tags[code].data if code in tags else b"" for code in (700, 34377))
    if resources:
        clean = _without_old_pixels(resources)
        kept[34377] = tiff.Tag(kept[34377].type, clean)
    resources = _without_old_pixels(resources)
    if tiff.IPTC in kept and not iptc_of(resources):
        resources += _resource(_IPTC, kept[tiff.IPTC].data)
    return Metadata(
        tags=kept,
        xmp=xmp,
        resources=resources,
        density=tiff.density_of(tags),
        is_whole=not tags.keys() & tiff.PICTURES_ELSEWHERE,
        orientation=_orientation(tags),
        remarks=tuple(remarks),
    )


def _without_pointers(xmp: bytes) -> bytes:
    if not any(name.encode() in xmp for name in _POINTERS):
        return xmp
    text = xmp.decode("utf-8", "surrogateescape")
    for name in _POINTERS:
        text = without_property(text, name)
    return text.encode("utf-8", "surrogateescape")


def _without_old_pixels(resources: bytes) -> bytes:
    """Photoshop's resources without those about the gray picture; as they are if damaged."""
    kept = bytearray()
    for code, raw in _resources(resources):
        if code < 0:
            return resources
        if code not in _OLD_PIXELS:
            kept += raw
    return bytes(kept)


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and whole bytes of image resources; -1 where they cannot be followed."""
    position = 0
    while position + 12 <= len(data):
        name = 1 + data[position + 6]
        start = position + 6 + name + name % 2
        if data[position : position + 4] != b"8BIM" or start + 4 > len(data):
            yield -1, b""
            return
        (code,) = struct.unpack_from(">H", data, position + 4)
        (size,) = struct.unpack_from(">I", data, start)
        end = start + 4 + size + size % 2
        yield code, data[position:end].ljust(end - position, b"\0")
        position = end


def numbered_resources(data: bytes) -> list[int]:
    """The numbers of all image resources."""
    return [code for code, _ in _resources(data) if code >= 0]


def is_old_picture(code: int) -> bool:
    """Whether an image resource shows the gray picture or describes its pixels."""
    return code in _OLD_PIXELS


def _resource(code: int, data: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", code, 0, len(data)) + data + bytes(len(data) % 2)


def iptc_of(resources: bytes) -> bytes:
    """The IPTC record within Photoshop's resources."""
    for code, raw in _resources(resources):
        if code == _IPTC:
            name = 1 + raw[6]
            start = 6 + name + name % 2
            (size,) = struct.unpack_from(">I", raw, start)
            return raw[start + 4 : start + 4 + size]
    return b""


def exif_block(found: Metadata, software: str, orientation: int, size: tuple[int, int],
               thumbnail: bytes) -> bytes:  # fmt: skip
    """The EXIF block of the colored picture. It is packed anew where the source has none."""
    if found.exif and exif.is_readable(found.exif):
        return exif.revised(found.exif, software, orientation, size, thumbnail)
    tags = {**tiff.descriptive(found.tags), tiff.SOFTWARE: tiff.text_tag(software)}
    tags[tiff.ORIENTATION] = tiff.short_tag(orientation)
    return tiff.exif_block(_in_srgb(tags))


def _in_srgb(tags: tiff.Tags) -> tiff.Tags:
    """Tags whose EXIF says that colors are sRGB, where it says anything of them."""
    shot = tags.get(tiff.EXIF)
    if shot is None or not shot.children or _COLOR_SPACE not in shot.children:
        return tags
    children = {**shot.children, _COLOR_SPACE: tiff.short_tag(1)}
    return {**tags, tiff.EXIF: tiff.Tag(shot.type, children=children)}


def page_tags(found: Metadata, software: str) -> tuple[tiff.Tags, tuple[str, ...]]:
    """The tags of the colored picture as a TIFF page, and what they cannot hold."""
    remarks: tuple[str, ...] = ()
    if found.tags:
        tags = dict(found.tags)
    else:
        tags = tiff.descriptive(found.all_tags)
        tags, remarks = _movable(tags, is_big_endian=found.exif[:2] == b"MM")
        if found.resources:
            tags[34377] = tiff.Tag(1, found.resources)
        if iptc := iptc_of(found.resources):
            tags[tiff.IPTC] = tiff.Tag(7, iptc)
        if found.density:
            tags |= tiff.density_tags(found.density)
    tags[tiff.SOFTWARE] = tiff.text_tag(software)
    return _in_srgb(tags), remarks


def _movable(tags: tiff.Tags, is_big_endian: bool) -> tuple[tiff.Tags, tuple[str, ...]]:
    """EXIF for another place: a maker's note points into the block that it was written for."""
    shot = tags.get(tiff.EXIF)
    if shot is None or not shot.children:
        return tags, ()
    children = dict(shot.children)
    remarks: tuple[str, ...] = ()
    if children.pop(_MAKER_NOTE, None):
        remarks = ("the camera's own note cannot move to another format and is left out",)
    comment = children.get(_USER_COMMENT)
    if comment and is_big_endian and comment.data.startswith(b"UNICODE\0"):
        text = comment.data[8:]
        turned = re.sub(rb"(.)(.)", rb"\2\1", text, flags=re.DOTALL)
        children[_USER_COMMENT] = tiff.Tag(comment.type, b"UNICODE\0" + turned)
    return {**tags, tiff.EXIF: tiff.Tag(shot.type, children=children)}, remarks
