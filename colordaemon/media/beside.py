"""Side data of a film's packets and frames, and what happens to it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from av.video.frame import VideoFrame

from colordaemon.media.captions import CARRIED_IN
from colordaemon.media.inventory import Entry, Inventory, Kind
from colordaemon.media.light import LEVEL, LIGHT_CODECS, MASTERING, light_of
from colordaemon.media.probe import FilmInfo
from colordaemon.media.shape import KNOWN

_SIDE_DATA: dict[str, tuple[Kind, str]] = {
    "A53_CC": ("captions", "closed captions in the pictures (EIA-608/708)"),
    "AFD": ("shape", "active format description"),
    "PANSCAN": ("shape", "pan and scan"),
    "SPHERICAL": ("shape", "marks of spherical pictures"),
    "GOP_TIMECODE": ("timecode", "timecode of groups of pictures"),
    "S12M_TIMECODE": ("timecode", "timecode of each picture (SMPTE 12M)"),
    "MASTERING_DISPLAY_METADATA": ("side data", "HDR10 mastering display"),
    "CONTENT_LIGHT_LEVEL": ("side data", "HDR10 content light level"),
    "DYNAMIC_HDR_PLUS": ("side data", "HDR10+ dynamic metadata"),
    "DOVI_METADATA": ("side data", "Dolby Vision metadata"),
    "DOVI_RPU_BUFFER": ("side data", "Dolby Vision metadata of each picture"),
    "FILM_GRAIN_PARAMS": ("side data", "parameters of film grain, which is in the pictures now"),
    "ICC_PROFILE": ("side data", "ICC profile"),
}
_REASONS = {
    "DOVI_METADATA": "it describes the colors of the old pictures",
    "DOVI_RPU_BUFFER": "it describes the colors of the old pictures",
    "FILM_GRAIN_PARAMS": "another grain would come on top of it",
}
_TIMECODES = frozenset(("GOP_TIMECODE", "S12M_TIMECODE"))


def side_data(info: FilmInfo, codec: str, container: str, covered: Collection[str]) -> Inventory:
    """What becomes of what comes with packets and pictures, as far as samples tell.

    codec, container: those that the film is going to be in. covered: names of what is accounted for
    elsewhere.
    """
    entries = side_entries({*info.beside} - {*covered}, info, codec, container)
    if info.needs_dolby:
        reason = "without its metadata grays and colors are not those that were meant"
        return (*entries, Entry("color", "color space of Dolby Vision's own", "left out", reason))
    return entries


def side_entries(names: Collection[str], info: FilmInfo, codec: str, container: str) -> Inventory:
    """What becomes of side data with these names of FFmpeg."""
    if not info.start_timecode:  # they count from zero, as where there are none
        names = {*names} - _TIMECODES
    return tuple(_entry(name, info, codec, container) for name in sorted(names))


def name_of(name: str) -> str:
    """A description of side data, for messages."""
    return _SIDE_DATA[name][1] if name in _SIDE_DATA else name.lower().replace("_", " ")


def light_found(inventory: Inventory, result: VideoFrame) -> Inventory:
    """The list, with the light of HDR10 as left out where a picture of the result says none."""
    found = {name_of(name) for name in light_of(result).names}
    expected = {name_of(name) for name in (MASTERING, LEVEL)}
    reason = "it is not found in the finished film"
    return tuple(
        replace(entry, fate="left out", how=reason)
        if entry.fate == "kept" and entry.what in expected - found
        else entry
        for entry in inventory
    )


def _entry(name: str, info: FilmInfo, codec: str, container: str) -> Entry:
    kind, what = _SIDE_DATA.get(name, ("side data", name_of(name)))
    says_light = codec in LIGHT_CODECS or container in KNOWN
    if name in CARRIED_IN.get(codec, ()) or (says_light and name in info.light.names):
        return Entry(kind, what)
    if name in _TIMECODES:
        return Entry(kind, what, "converted", "the first one is the container's")
    return Entry(kind, what, "left out", _REASONS.get(name, f"it cannot be put into {codec}"))
