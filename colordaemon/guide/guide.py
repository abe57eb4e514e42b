"""The pictures that guide the colors of one film or photo, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from colordaemon.errors import MediaError
from colordaemon.sidecar_names import Role, time_text

STRANGE = 0.1  # mean weight of references, 0..1, below which they hardly change anything

_MOST_NAMED = 3  # pictures in a remark


@dataclass(frozen=True)
class GuidePicture:
    """A picture that guides colors.

    sha256: of the file's bytes. start, end: in seconds; a reference is used from start on and up to
    end, exclusive (None: from the beginning, to the end), and hints are for the frame that is shown
    at start (None: the first). top: a folder that other users can write to, below which the path
    leads through no symbolic link; None: the file was named by the user or the operator.
    """

    path: Path
    role: Role
    sha256: str
    start: float | None = None
    end: float | None = None
    top: Path | None = None


@dataclass(frozen=True)
class Guide:
    """All pictures that guide the colors of one film or photo; false if there are none."""

    pictures: tuple[GuidePicture, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pictures)

    @property
    def references(self) -> tuple[GuidePicture, ...]:
        return self._of("reference")

    @property
    def hints(self) -> tuple[GuidePicture, ...]:
        return self._of("hints")

    @property
    def candidates(self) -> tuple[GuidePicture, ...]:
        return self._of("candidate")

    @property
    def identity(self) -> str:
        """Everything about it that affects colors, and no paths; empty without pictures."""
        return "; ".join(
            f"{each.role} {each.sha256} {each.start}..{each.end}" for each in self.pictures
        )

    @property
    def names(self) -> str:
        """What its pictures are called, for people."""
        *others, last = (picture.path.name for picture in self.pictures)
        if len(others) >= _MOST_NAMED:
            return f"{others[0]} and {len(others)} more pictures"
        return f"{', '.join(others)} and {last}" if others else last

    def check_times(self, source: Path, seconds: float | None) -> None:
        """Raises MediaError for a picture whose time is at or beyond the end of a film.

        seconds: how long the film is; None: it is a photo, which has no times.
        """
        for picture in self.pictures:
            if seconds is None and (picture.start, picture.end) != (None, None):
                raise MediaError(
                    f"{picture.path}: found a time, expected none, since {source.name} is a photo"
                )
            if seconds is not None and picture.start is not None and picture.start >= seconds:
                raise MediaError(
                    f"{picture.path}: found the time {time_text(picture.start)}, expected one"
                    f" before the end of {source.name} at {time_text(seconds)}"
                )

    def remark(self, likeness: float | None, what: str) -> str:
        """Says that references have little in common with what they are for; else empty.

        likeness: their mean weight in its colors, 0..1; None: none was used.
        """
        if likeness is None and self.candidates:
            return (
                f"none of {len(self.candidates)} candidates has anything in common with the {what}"
            )
        if likeness is None or likeness >= STRANGE:
            return ""
        first, *others = (picture.path.name for picture in self.references or self.candidates)
        if not others:
            return f"{first} has little in common with the {what}"
        return f"{first} and {len(others)} more references have little in common with the {what}"

    def _of(self, role: Role) -> tuple[GuidePicture, ...]:
        return tuple(each for each in self.pictures if each.role == role)


NO_GUIDE = Guide()
