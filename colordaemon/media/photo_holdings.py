"""The inventory of a photo: everything that its file holds, and what happens to each part.

Made before any work, and compared with the result afterwards: what the list calls kept is really
found there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from mmap import mmap

from colordaemon.errors import MediaError
from colordaemon.logs import counted
from colordaemon.media import exif, jpeg, png, tiff, webp
from colordaemon.media.heif import items_of
from colordaemon.media.inventory import OLD, Entry, Fate, Inventory, Kind
from colordaemon.media.metadata import (
    SIGNATURE_LOST,
    iptc_of,
    is_old_picture,
    mapped,
    numbered_resources,
)
from colordaemon.media.photo_file import Page, PhotoFile
from colordaemon.media.stills import PhotoFormat

JPEG, PNG, TIFF, WEBP = PhotoFormat.JPEG, PhotoFormat.PNG, PhotoFormat.TIFF, PhotoFormat.WEBP
BMP, AVIF, HEIC, GIF = PhotoFormat.BMP, PhotoFormat.AVIF, PhotoFormat.HEIC, PhotoFormat.GIF
# Which formats have a place for what has a meaning of its own in several.
_PLACES = {
    "EXIF": frozenset((JPEG, PNG, TIFF, WEBP, AVIF, HEIC)),
    "XMP": frozenset((JPEG, PNG, TIFF, WEBP, AVIF, HEIC)),
    "IPTC": frozenset((JPEG, TIFF)),
    "Photoshop's resources": frozenset((JPEG, TIFF)),
    "resolution": frozenset((JPEG, PNG, TIFF, BMP)),
}
_TO_SRGB = "to sRGB"
_XMP, _RESOURCES, _ICC_CODE = 700, 34377, 34675
_MAKER_NOTE = 37500


@dataclass(frozen=True)
class Holding:
    """One part, as in `Entry`. names: of what is in it, by which it is looked for in the result.
    shown: what people are told that it is, if other than `what`, by which it is found again."""

    kind: Kind
    what: str
    fate: Fate = "kept"
    how: str = ""
    names: frozenset[str] = frozenset()
    page: int = 0
    shown: str = ""

    def entry(self, pages: int) -> Entry:
        where = f"page {self.page + 1}: " if pages > 1 else ""
        return Entry(self.kind, where + (self.shown or self.what), self.fate, self.how)


@dataclass(frozen=True)
class Stock:
    """All that a photo holds. pages: how many it has."""

    pages: int
    holdings: tuple[Holding, ...]

    @property
    def inventory(self) -> Inventory:
        return tuple(holding.entry(self.pages) for holding in self.holdings)

    def after(self, passed: Iterable[int], lost: dict[str, str]) -> Stock:
        """As it came out. passed: pages that stay as they are. lost: parts that turned out to have
        no room in the result, and why."""
        return replace(self, holdings=tuple(_after(h, {*passed}, lost) for h in self.holdings))

    def check(self, result: PhotoFile) -> None:
        """Raises MediaError if something that is listed as kept is not in the result."""
        for page in range(self.pages):
            found: dict[str, frozenset[str]] = {}
            for part in parts_of(result, page):
                found[part.what] = found.get(part.what, frozenset()) | part.names
            for each in self.holdings:
                if each.page != page or each.fate != "kept" or each.kind in ("photo", "planes"):
                    continue
                missing = each.names - found.get(each.what, frozenset())
                if each.what not in found or missing:
                    names = f" ({', '.join(sorted(missing))})" if missing else ""
                    raise MediaError(f"{each.what}{names} did not come out, expected it to be kept")


def take_stock(file: PhotoFile, target: PhotoFormat) -> Stock:
    """What happens to all that a photo holds, in a format. Raises MediaError, OSError."""
    count = file.pages
    holdings: list[Holding] = []
    for index in range(count):
        page = file.open_page(index)
        holdings += [replace(each, page=index) for each in _pictures(file, page, target, index)]
        for part in parts_of(file, index):
            holdings += [replace(each, page=index) for each in _fates(part, file.kind, target)]
    return Stock(count, tuple(holdings))


def _after(holding: Holding, passed: set[int], lost: dict[str, str]) -> Holding:
    if holding.page in passed:
        how = "has color already" if holding.kind == "photo" else ""
        return replace(holding, fate="kept", how=how, names=frozenset())
    if holding.fate == "kept" and holding.what in lost:
        return replace(holding, fate="left out", how=lost[holding.what])
    return holding


def _pictures(file: PhotoFile, page: Page, target: PhotoFormat, index: int) -> Iterator[Holding]:
    size = f"{page.image.width}x{page.image.height}, {page.depth} bit"
    if file.is_mask(index):
        yield Holding("planes", f"mask or infrared plane {size}")
    else:
        yield Holding("photo", f"picture {size}", "converted", "colored")
    for number, meaning in enumerate(page.extras, 1):
        if number == 1 and page.has_alpha:
            is_kept = target not in (JPEG,) and (target is TIFF or len(page.extras) == 1)
            yield Holding("planes", "transparency", "kept" if is_kept else "left out",
                          "" if is_kept else f"{target.name} does not hold it")  # fmt: skip
        else:
            is_kept = target is TIFF
            name = f"further plane {number} (infrared or the like, {meaning})"
            yield Holding("planes", name, "kept" if is_kept else "left out",
                          "" if is_kept else f"{target.name} does not hold it")  # fmt: skip


def _fates(part: Holding, source: PhotoFormat, target: PhotoFormat) -> Iterator[Holding]:
    """A part, or two where some of what is in it comes out and some does not."""
    if part.fate != "kept":
        yield part
        return
    if part.what in _PLACES:
        if target not in _PLACES[part.what]:
            yield replace(part, fate="left out", how=f"{target.name} does not hold it")
            return
        moves = target is not source and TIFF in (source, target)
        lost = frozenset(filter(_stays, part.names)) if moves and part.what == "EXIF" else None
        if lost:
            yield replace(part, names=part.names - lost)
            reason = "it only holds where it was written"
            what = f"{len(lost)} tags"
            yield replace(part, what=what, fate="left out", how=reason, names=lost, shown="")
        else:
            yield part
    elif target is source or (source is GIF and target is PNG):
        yield part
    else:
        yield replace(part, fate="left out", how=f"{target.name} has no place for it")


def _stays(name: str) -> bool:
    """Whether a tag does not move between TIFF and EXIF blocks."""
    numbers = [int(number) for number in name.split("/")]
    return numbers[-1] == _MAKER_NOTE or not tiff.is_descriptive(numbers[0])


# The parts of a file, in whatever format they end up; those that never come out unchanged say so.


def parts_of(file: PhotoFile, page: int) -> Iterator[Holding]:
    """Raises MediaError, OSError."""
    match file.kind:
        case PhotoFormat.TIFF:
            yield from _of_tiff(file.tags(page))
        case PhotoFormat.AVIF | PhotoFormat.HEIC:
            yield from _of_heif(file, page)
        case PhotoFormat.BMP:
            if file.metadata(page).density:
                yield Holding("tags", "resolution")
        case PhotoFormat.GIF:
            yield from (
                _chunk(each) for each in file.metadata(page).kept if isinstance(each, png.Chunk)
            )
            yield from _xmp(file.metadata(page).xmp)
        case _:
            with mapped(file.path) as data:
                yield from _OF[file.kind](data)


def _of_jpeg(data: mmap) -> Iterator[Holding]:
    parts = jpeg.take_apart(data)
    yield from _exif(jpeg.exif_of(parts))
    yield from _xmp(jpeg.xmp_of(parts))
    yield from _resources(jpeg.resources_of(parts))
    if jpeg.has_profile(parts):
        yield Holding("profile", "ICC profile", "converted", _TO_SRGB)
    density = jpeg.density_of(parts)
    if density and density[0]:
        yield Holding("tags", "resolution")
    for segment in jpeg.kept_segments(parts):
        yield Holding("tags", segment.name)
    if jpeg.holds_signature(parts):
        yield Holding("tags", "signature (C2PA)", "left out", SIGNATURE_LOST)
    if jpeg.holds_more_pictures(parts):
        yield Holding("pictures", "further pictures (MPF)", "left out", "only the first is colored")
    elif parts.end is not None and parts.end < len(data):
        what = f"{len(data) - parts.end} bytes behind the picture"
        yield Holding("pictures", what, "left out", "they are no part of it")


def _of_png(data: mmap) -> Iterator[Holding]:
    parts = png.take_apart(data)
    yield from _exif((parts.first(b"eXIf") or b"").removeprefix(jpeg.EXIF))
    yield from _xmp(png.xmp_of(parts))
    kept, lost = png.kept_chunks(parts)
    for chunk in kept:
        yield Holding("tags", "resolution") if chunk.name == b"pHYs" else _chunk(chunk)
    for name in lost:
        yield Holding("tags", f"chunk {name.decode('latin-1')}", "left out", OLD)
    if parts.first(b"iCCP") is not None:
        yield Holding("profile", "ICC profile", "converted", _TO_SRGB)
    for name in (b"gAMA", b"cHRM", b"sRGB", b"cICP"):
        if parts.first(name) is not None:
            yield Holding("profile", f"chunk {name.decode()}", "converted", _TO_SRGB)
    for name in (b"mDCV", b"cLLI", b"sBIT", b"bKGD", b"hIST", b"sPLT"):
        if parts.first(name) is not None:
            yield Holding("side data", f"chunk {name.decode()}", "left out", OLD)
    if parts.first(b"caBX") is not None:
        yield Holding("tags", "signature (C2PA)", "left out", SIGNATURE_LOST)
    if parts.trailing:
        what = f"{parts.trailing} bytes behind the picture"
        yield Holding("pictures", what, "left out", "they are no part of it")


def _chunk(chunk: png.Chunk) -> Holding:
    keyword = chunk.data.split(b"\0")[0][:79].decode("latin-1") if chunk.is_text else ""
    name = f"chunk {chunk.name.decode('latin-1')} {keyword}".strip()
    return Holding("tags", name)


def _of_webp(data: mmap) -> Iterator[Holding]:
    chunks = webp.take_apart(data)
    contents = dict(chunks)
    yield from _exif(contents.get(b"EXIF", b"").removeprefix(jpeg.EXIF))
    yield from _xmp(contents.get(b"XMP ", b""))
    if b"ICCP" in contents:
        yield Holding("profile", "ICC profile", "converted", _TO_SRGB)
    for name, _ in webp.kept_chunks(chunks):
        yield Holding("tags", f"chunk {name.decode('latin-1')}")
    if b"C2PA" in contents:
        yield Holding("tags", "signature (C2PA)", "left out", SIGNATURE_LOST)


def _of_tiff(tags: tiff.Tags) -> Iterator[Holding]:
    kept, _ = tiff.kept_tags(tags)
    beside = {_XMP, _RESOURCES, tiff.IPTC, *tiff.ELSEWHERE}
    if names := _names({code: tag for code, tag in kept.items() if code not in beside}):
        has_exif = any("/" in name for name in names)
        shown = "TIFF's own tags and EXIF" if has_exif else "TIFF's own tags"
        yield Holding("tags", "EXIF", names=names, shown=shown)
    yield from _xmp(tags[_XMP].data if _XMP in tags else b"")
    resources = tags[_RESOURCES].data if _RESOURCES in tags else b""
    yield from _resources(resources)
    if tiff.IPTC in kept and not iptc_of(resources):
        yield Holding("tags", "IPTC", names=_datasets(kept[tiff.IPTC].data))
    if _ICC_CODE in tags:
        yield Holding("profile", "ICC profile", "converted", _TO_SRGB)
    if tiff.density_of(tags):
        yield Holding("tags", "resolution")
    for code, what in tiff.LOST.items():
        if code in tags:
            kind: Kind = "pictures" if code in tiff.PICTURES_ELSEWHERE else "tags"
            yield Holding(kind, what, "left out", OLD)
    for code, tag in tags.items():
        if code not in kept and code not in tiff.LOST and tag.children == {}:
            yield Holding("tags", f"directory {code}", "left out", "it is damaged")


def _of_heif(file: PhotoFile, page: int) -> Iterator[Holding]:
    found = file.metadata(page)
    yield from _exif(found.exif)
    yield from _xmp(found.xmp)
    if file.open_image(page).get_typeof("icc-profile-data"):
        yield Holding("profile", "ICC profile", "converted", _TO_SRGB)
    items = items_of(file.path)
    planes = len(items.referring(b"auxl")) - (file.open_image(page).bands in (2, 4))
    if planes > 0:
        yield Holding("planes", f"{planes} further planes (gain map, mattes, depth)", "left out",
                      "they belong to the gray picture")  # fmt: skip
    if items.referring(b"thmb"):
        yield Holding("pictures", "thumbnail", "left out", OLD)
    if more := items.further_pictures():
        yield Holding("pictures", counted(len(more), "further picture"), "left out",
                      "only the one that is shown is colored")  # fmt: skip
    for number, kind in items.kinds.items():
        if kind in (b"uri ", b"mime") and not found.xmp:
            yield Holding("tags", f"item {number} ({kind.decode().strip()})", "left out",
                          "what it means is not known")  # fmt: skip


_OF = {JPEG: _of_jpeg, PNG: _of_png, WEBP: _of_webp}


def _exif(block: bytes) -> Iterator[Holding]:
    if not block:
        return
    try:
        names = _names(tiff.read_tags(block)) if exif.is_readable(block) else None
    except (struct.error, KeyError):
        names = None
    if names is None:
        yield Holding("tags", "EXIF", "left out", "it is damaged")
        return
    yield Holding("tags", "EXIF", names=names)
    if exif.has_thumbnail(block):
        yield Holding("pictures", "thumbnail", "converted", "made anew")


def _names(tags: tiff.Tags, above: str = "") -> frozenset[str]:
    """Numbers of tags, those of a directory within behind its own."""
    names: set[str] = set()
    for code, tag in tags.items():
        if tag.children:
            names |= _names(tag.children, f"{above}{code}/")
        elif tag.children is None:
            names.add(f"{above}{code}")
    return frozenset(names)


def _xmp(packet: bytes) -> Iterator[Holding]:
    if packet:
        yield Holding("tags", "XMP")


def _resources(data: bytes) -> Iterator[Holding]:
    """IPTC and the rest of Photoshop's image resources."""
    if iptc := iptc_of(data):
        yield Holding("tags", "IPTC", names=_datasets(iptc))
    numbers = numbered_resources(data)
    if others := frozenset(str(code) for code in numbers if not is_old_picture(code)):
        yield Holding("tags", "Photoshop's resources", names=others)
    if any(map(is_old_picture, numbers)):
        yield Holding("pictures", "Photoshop's thumbnail or profile", "left out", OLD)


def _datasets(data: bytes) -> frozenset[str]:
    """Record and number of each field of IPTC."""
    names, position = set(), 0
    while position + 5 <= len(data) and data[position] == 0x1C:
        record, number, size = struct.unpack_from(">BBH", data, position + 1)
        names.add(f"{record}:{number}")
        position += 5 + size
    return frozenset(names)
