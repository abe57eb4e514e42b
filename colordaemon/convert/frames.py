"""Writes frames of a film as PNG, to be edited and put beside it, or to look at beforehand.

For film.mp4 there are, of each frame, the names under which an edited copy guides its colors:

    film.gray@00-01-23.400.png                          the frame itself, to paint over
    film.reference@00-01-20.000..00-01-31.160.png       as it is colored now, for its whole shot
    film.hints@00-01-23.400.png                         transparent, for dabs of color
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from colordaemon.config import AfterSettings, Config, OutputSettings
from colordaemon.convert.convert import convert, guide_for, loaded_for
from colordaemon.convert.models import Model
from colordaemon.convert.publish import beside
from colordaemon.convert.samples import samples
from colordaemon.errors import MediaError, TargetExists
from colordaemon.film.guide import FilmPainter, check_guide, frames_at, open_guide
from colordaemon.film.stills import Shot, Stills, find_shots, frames_near
from colordaemon.guide.sidecars import Sidecar
from colordaemon.inbox.safe_open import errors_by_name, opened
from colordaemon.media.decode import Frame
from colordaemon.media.drawing import write_marked, write_png, write_text
from colordaemon.media.photo import is_photo
from colordaemon.media.probe import FilmInfo, probe_film
from colordaemon.media.stretch import Stretch
from colordaemon.network.colorizer import Colorizer
from colordaemon.sidecar_names import time_text
from colordaemon.work_context import WorkContext

_CELL = 480  # pixels: width of a picture on a sheet
_HEADING = 28


@dataclass(frozen=True)
class _Film:
    """An open film, the model for it, and its guide at work, if it has one."""

    info: FilmInfo
    colorizer: Colorizer
    stills: Stills
    painter: FilmPainter | None


@contextmanager
def _opened(
    source: Path,
    config: Config,
    model: Model,
    named: Sequence[Sidecar] = (),
    stretch: Stretch | None = None,
) -> Iterator[_Film]:
    """Raises MediaError, ModelError, GuideChanged and OSError."""
    with opened(source) as file, errors_by_name():
        if is_photo(file):
            raise MediaError(f"{source}: found a photo, expected a film")
        info = probe_film(file, config.film, stretch)
        guide = guide_for(file, config, named=named)
        if guide:
            guide, _ = check_guide(guide, info)
        colorizer = loaded_for(guide, model)
        painter = None
        if guide:
            percent = config.film.damaged_percent
            painter = open_guide(guide, info, colorizer, damaged_percent=percent)
        yield _Film(info, colorizer, Stills(info, colorizer), painter)


def write_frames(
    source: Path,
    folder: Path,
    config: Config,
    model: Model,
    *,
    times: Sequence[float] | None = None,
    overwrite: bool = False,
    on_file: Callable[[Path], None] = lambda path: None,
) -> None:
    """Write the frames of a film that are shown at `times`, in seconds; None: the middle one of
    each shot.

    on_file: called with every file that was written. overwrite: replace files that exist, edited or
    not. Raises MediaError for a photo and for times at which the film has ended, TargetExists,
    ModelError and OSError.
    """
    percent = config.film.damaged_percent
    with _opened(source, config, model) as film:
        seconds = film.info.duration_seconds or film.info.container_seconds
        for time in times or ():
            if seconds is not None and time >= seconds:
                raise _beyond(source, time)
        wanted: list[tuple[float, str]]
        if times is None:
            shots = find_shots(film.info, film.colorizer, percent)
            wanted = [(each.middle, f"@{_range_of(each)}") for each in shots]
        else:
            rising = enumerate(sorted(set(times)), 1)
            wanted = [(time, f".{number}") for number, time in rising]
        frames = frames_at(film.info, [time for time, _ in wanted], damaged_percent=percent)
        folder.mkdir(parents=True, exist_ok=True)
        for (time, which), frame in zip(wanted, frames, strict=True):
            if frame is None:
                raise _beyond(source, time)
            for name, pixels in _edited_later(film, frame, which):
                path = folder / f"{source.stem}.{name}.png"
                if path.exists() and not overwrite:
                    raise TargetExists(f"{path} exists already; --overwrite replaces it")
                write_png(path, pixels)
                on_file(path)


def _beyond(source: Path, time: float) -> MediaError:
    return MediaError(f"{source}: found no frame at {time_text(time)}, since it has ended")


def _edited_later(film: _Film, frame: Frame, which: str) -> Iterator[tuple[str, np.ndarray]]:
    """The pictures of a frame, with the part of their names behind the film's."""
    shown, gray = time_text(film.info.seconds_at(frame.pts)), film.stills.gray(frame)
    yield f"gray@{shown}", gray
    yield f"reference{which}", film.stills.colored(frame, film.painter)
    yield f"hints@{shown}", np.zeros((*gray.shape[:2], 4), np.uint8)


def _range_of(shot: Shot) -> str:
    return f"{time_text(shot.start)}..{time_text(shot.end)}"


def write_preview(
    source: Path,
    config: Config,
    model: Model,
    count: int,
    *,
    named: Sequence[Sidecar] = (),
    stretch: Stretch | None = None,
    name: str | None = None,
) -> Path:
    """Draw `count` places of a film, evenly spread, before and after, and with a guide a third
    time; or a photo before and after. Returns the path of NAME.preview.png, where the result would
    be; an old one is replaced. The picture says that its colors are synthetic.

    name: in its name; None: that of the source without its suffix.

    Raises MediaError, ModelError, GuideChanged and OSError; AlreadyColor for a photo.
    """
    with opened(source) as file:
        shows_photo = is_photo(file)
    if shows_photo and stretch is None:
        lines = [_heading(("before", "after")), _photo(source, config, model, named)]
    else:
        with _opened(source, config, model, named, stretch) as film:
            first, seconds = film.info.start_seconds, film.info.wanted_seconds or 0.0
            times = [first + seconds * (2 * number + 1) / (2 * count) for number in range(count)]
            guided = film.painter is not None
            lines = [_heading(("before", "automatic", "guided") if guided else ("before", "after"))]
            lines += [_line(film, frame) for frame in frames_near(film.info, times)]
    folder = config.output.folder or source.parent
    folder.mkdir(parents=True, exist_ok=True)
    path = beside(folder / (name or source.stem), ".preview.png")
    write_marked(path, np.vstack(lines), model.maker())
    return path


def _photo(source: Path, config: Config, model: Model, named: Sequence[Sidecar]) -> np.ndarray:
    """A photo and what becomes of it, which is made in a folder that is removed."""
    with TemporaryDirectory(prefix="colordaemon-") as folder:
        output = OutputSettings(folder=Path(folder))
        config = config.model_copy(update={"output": output, "after": AfterSettings()})
        result, _ = convert(source, config, model, WorkContext(), {}, named=named)
        (pair,) = samples(source, result, 1)
    return np.hstack([_cell(picture) for picture in pair])


def _heading(titles: Sequence[str]) -> np.ndarray:
    heading = np.full((_HEADING, len(titles) * _CELL, 3), 255, np.uint8)
    for number, title in enumerate(titles):
        write_text(heading, title, number * _CELL + 8, 19)
    return heading


def _line(film: _Film, frame: Frame) -> np.ndarray:
    cells = [_cell(picture) for picture in _pictures(film, frame)]
    line = np.hstack(cells)
    write_text(line, time_text(film.info.seconds_at(frame.pts)), 8, line.shape[0] - 9)
    return line


def _pictures(film: _Film, frame: Frame) -> Iterator[np.ndarray]:
    yield film.stills.gray(frame)
    yield film.stills.colored(frame)
    if film.painter is not None:
        yield film.stills.colored(frame, film.painter)


def _cell(picture: np.ndarray) -> np.ndarray:
    height = max(1, round(_CELL * picture.shape[0] / picture.shape[1]))
    return cv2.resize(picture, (_CELL, height), interpolation=cv2.INTER_AREA)
