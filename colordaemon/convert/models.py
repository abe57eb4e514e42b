"""Which model colors which file, each loaded when the first file needs it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from colordaemon.config import Config, ModelSettings
from colordaemon.convert.publish import sha256
from colordaemon.convert.routing import first_fitting
from colordaemon.errors import ModelError
from colordaemon.media.provenance import Maker
from colordaemon.network.checkpoint import BUNDLED
from colordaemon.network.colorizer import Colorizer, open_colorizer

log = logging.getLogger(__name__)

# In memory at once: that of a film, and that of the photos which are done between its segments.
LOADED = 2


class ModelCache:
    """The loaded models, whatever configuration they were loaded for."""

    def __init__(self) -> None:
        self.colorizer = lru_cache(maxsize=LOADED)(_load)


@dataclass(frozen=True)
class Model:
    """A network that is loaded when the first pixel needs it. settings: `file` names it, None: the
    bundled one."""

    settings: ModelSettings
    cache: ModelCache

    def load(self) -> Colorizer:
        """Raises ModelError."""
        return self.cache.colorizer(self.settings)

    @property
    def name(self) -> str:
        """Tells it from all others, also from a better one that has replaced its file."""
        file = self.settings.file
        if file is None:
            return "built-in"
        try:
            found = file.stat()
        except OSError:
            return str(file)  # loading it will tell more
        return f"{file}, {found.st_size} bytes, {found.st_mtime_ns}"

    def maker(self) -> Maker:
        """What metadata say of it."""
        return _maker(self.settings.file, self.name)


class Models:
    """The models of a configuration. cache: where loaded ones are, also those of others.

    Raises ModelError at once when a file that `models` names is missing, rather than hours later
    when the first picture for it arrives.
    """

    def __init__(self, config: Config, cache: ModelCache | None = None) -> None:
        self._cache = cache or ModelCache()
        self._settings, self._routes = config.model, config.models
        for pattern, file in config.models.items():
            if not file.is_file():
                raise ModelError(f"models: {pattern}: no model file {file}")

    def model_for(self, source: Path) -> Model:
        """The model for a photo or film: the first of `models` whose folder or pattern fits, else
        that of `model.file`."""
        file = first_fitting(source, self._routes, self._settings.file)
        return Model(self._settings.model_copy(update={"file": file}), self._cache)


def _load(settings: ModelSettings) -> Colorizer:
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
    """name: tells apart the files of one path."""
    del name
    try:
        digest = sha256(file or BUNDLED)
    except OSError:
        digest = ""  # loading it will tell more
    return Maker(file.name if file else "built-in", digest)
