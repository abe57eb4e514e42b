"""Which model colors which file, each loaded when the first file needs it."""

from __future__ import annotations

import logging
from functools import lru_cache, partial
from pathlib import Path

from colordaemon.config import Config, ModelSettings
from colordaemon.convert.convert import Model
from colordaemon.convert.publish import sha256
from colordaemon.convert.routing import first_fitting
from colordaemon.errors import ModelError
from colordaemon.media.provenance import Maker
from colordaemon.network.checkpoint import BUNDLED
from colordaemon.network.colorizer import Colorizer, open_colorizer

log = logging.getLogger(__name__)

# In memory at once: that of a film, and that of the photos which are done between its segments.
LOADED = 2


class Shelf:
    """The loaded models, whatever configuration they were loaded for."""

    def __init__(self) -> None:
        self.colorizer = lru_cache(maxsize=LOADED)(_load)


class Models:
    """The models of a configuration. shelf: where loaded ones stand, also those of others.

    Raises ModelError at once when a file that `models` names is missing, rather than hours later
    when the first picture for it arrives.
    """

    def __init__(self, config: Config, shelf: Shelf | None = None) -> None:
        self._shelf = shelf or Shelf()
        self._settings, self._routes = config.model, config.models
        for pattern, file in config.models.items():
            if not file.is_file():
                raise ModelError(f"models: {pattern}: no model file {file}")

    def model_for(self, source: Path) -> Model:
        """The model for a photo or film. Loading it raises ModelError."""
        file = self.file_for(source)
        name = _name(file)
        return Model(partial(self.colorizer_for, source), name, partial(_maker, file, name))

    def colorizer_for(self, source: Path) -> Colorizer:
        """The loaded model for a photo or film. Raises ModelError."""
        settings = self._settings.model_copy(update={"file": self.file_for(source)})
        return self._shelf.colorizer(settings)

    def file_for(self, source: Path) -> Path | None:
        """The first of `models` whose folder or pattern fits, else `model.file`; None: bundled."""
        return first_fitting(source, self._routes, self._settings.file)


def _load(settings: ModelSettings) -> Colorizer:
    """The model that `file` names."""
    colorizer = open_colorizer(
        settings.file,
        settings.device,
        settings.precision,
        settings.quality,
        settings.batch_size,
        settings.saturation,
    )
    log.info("coloring on %s, with %s", colorizer, settings.file or "the built-in model")
    return colorizer


@lru_cache(maxsize=16)
def _maker(file: Path | None, name: str) -> Maker:
    """What metadata say of a model. name: tells apart the files of one path."""
    del name
    try:
        digest = sha256(file or BUNDLED)
    except OSError:
        digest = ""  # loading it will tell more
    return Maker(file.name if file else "built-in", digest)


def _name(file: Path | None) -> str:
    """A file that is replaced by a better one has another name, although it is called the same."""
    if file is None:
        return "built-in"
    try:
        found = file.stat()
    except OSError:
        return str(file)  # loading it will tell more
    return f"{file}, {found.st_size} bytes, {found.st_mtime_ns}"
