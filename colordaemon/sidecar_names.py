"""The names under which pictures that guide the colors of a file stand beside it.

Beside film.mp4:

    film.reference.jpg                          a picture in color, for the whole film
    film.reference.2.png                        another one
    film.reference@00-10-00..00-12-30.jpg       one for a part of the film
    film.references/                            a folder of them
    references/                                 a folder of them for every file beside it
    film.hints.png                              dabs of color on the first frame
    film.hints@00-01-23.400.png                 dabs on the frame at this time

film.mp4.reference.jpg and so on mean the same, and leave out film.avi. Files of these names are
never colored themselves, whether the film is there or not: it may still be on its way.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from colordaemon.suffixes import PHOTO_SUFFIXES

Role = Literal["reference", "hints", "candidate"]

SHARED_FOLDER = "references"  # beside the files that it serves
_FILE = re.compile(
    r"(?P<base>.+)\.(?P<role>reference|hints)(\.(?P<number>\d+))?(@(?P<when>[^@]*))?",
    re.IGNORECASE | re.DOTALL,
)
_NEARLY = re.compile(
    r"(?P<base>.+)[._ -](ref|refs|references?|hints?)([._ @-].*)?", re.IGNORECASE | re.DOTALL
)
_FOLDER = re.compile(r"(?P<base>.+)\.references", re.IGNORECASE | re.DOTALL)
_RANGE = re.compile(r".+@(?P<when>[\d:.-]*\.\.[\d:.-]*)", re.DOTALL)
_TIME = re.compile(
    r"((?P<hours>\d{1,6})[-:])??((?P<minutes>\d{1,6})[-:])?(?P<seconds>\d{1,9}(\.\d{1,9})?)"
)


@dataclass(frozen=True)
class SidecarName:
    """What a name says. base: the name of the file that it serves, or that name without its suffix;
    empty for the shared folder. when: what stands behind an @, if anything does."""

    base: str
    role: Role
    when: str | None = None

    def serves(self, source: PurePath) -> bool:
        """Whether it is for this file in the same folder."""
        return self.base in ("", source.name, source.stem)


def may_be_sidecar(name: str) -> bool:
    """Whether it is worth a closer look; cheap, since most names in a folder are others."""
    low = name.lower()
    return "ref" in low or "hint" in low


def sidecar_file(name: str) -> SidecarName | None:
    """What the name of a file says; None if it is not that of a sidecar."""
    if not may_be_sidecar(name):
        return None
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a scan asks for every file)
    found = _FILE.fullmatch(stem) if suffix.lower() in PHOTO_SUFFIXES else None
    if found is None:
        return None
    role: Role = "hints" if found["role"].lower() == "hints" else "reference"
    return SidecarName(found["base"], role, found["when"])


def misnamed_base(name: str) -> str | None:
    """The base of a picture whose name is nearly that of a sidecar, as of film.hint.png; None of
    any other."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    if suffix.lower() not in PHOTO_SUFFIXES or sidecar_file(name) is not None:
        return None
    found = _NEARLY.fullmatch(stem)
    return found["base"] if found else None


def sidecar_folder(name: str) -> SidecarName | None:
    """What the name of a folder says; None if it is not that of a folder of references."""
    if name.lower() == SHARED_FOLDER:
        return SidecarName("", "reference")
    found = _FOLDER.fullmatch(name)
    return SidecarName(found["base"], "reference") if found else None


def range_in(name: str) -> str | None:
    """The range in the name of any picture, as in coat@00-10-00..00-12-30.jpg, or behind a path."""
    path = PurePath(name)
    known = path.suffix.lower() in PHOTO_SUFFIXES
    found = _RANGE.fullmatch(path.stem if known else name)
    return found["when"] if found else None


def parse_time(text: str) -> float:
    """Seconds of a time such as 00-01-23.400, 00:01:23.400, 1-23 or 83.4. Raises ValueError."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"found {text!r}, expected a time as 00-01-23.400")
    hours, minutes, seconds = found["hours"], found["minutes"], float(found["seconds"])
    if (hours and int(minutes) > 59) or (minutes and seconds >= 60):
        raise ValueError(f"found {text!r}, expected minutes and seconds below 60")
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds


def parse_range(text: str) -> tuple[float | None, float | None]:
    """Both ends of START..END in seconds; an end that is left out is None. Raises ValueError."""
    first, dots, last = text.partition("..")
    if not dots or not (first or last):
        raise ValueError(f"found {text!r}, expected START..END, as 00-10-00..00-12-30")
    start, end = (parse_time(each) if each else None for each in (first, last))
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"found {text!r}, expected an end that comes after the start")
    return start, end


def time_text(seconds: float) -> str:
    """A time as names have it, to the millisecond: 00-01-23.400."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}-{minutes:02}-{rest // 1000:02}.{rest % 1000:03}"
