"""Settings of their own for some subfolders of the inbox: `presets` in the configuration."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from colordaemon.config import Config, load_config
from colordaemon.errors import ConfigError
from colordaemon.service.patterns import fits

# What may differ from file to file; the rest belongs to the daemon as a whole.
_SECTIONS = ("model", "models", "film", "photo", "output")


class Presets:
    """A configuration, and what becomes of it for some files. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._presets = {
            pattern: _with(config, load_config(file), file)
            for pattern, file in config.presets.items()
        }
        self._inbox = Path(os.path.realpath(config.inbox)) if config.inbox else None

    @property
    def all(self) -> list[Config]:
        return [self._config, *self._presets.values()]

    def config_for(self, source: Path) -> Config:
        """Of the first preset whose folder or pattern fits, as seen from the inbox."""
        path = PurePath(source)
        if self._inbox is not None and source.is_relative_to(self._inbox):
            path = source.relative_to(self._inbox)
        for pattern, config in self._presets.items():
            if fits(path, pattern):
                return config
        return self._config


def _with(config: Config, preset: Config, file: Path) -> Config:
    """The configuration with all that a preset says; what it leaves open stays as it is."""
    if strange := sorted(preset.model_fields_set - {*_SECTIONS}):
        raise ConfigError(f"{file}: {', '.join(strange)}: expected only {', '.join(_SECTIONS)}")
    update: dict[str, object] = {}
    for name in preset.model_fields_set:
        section = getattr(preset, name)
        if isinstance(section, dict):
            update[name] = section
        else:
            said = {key: getattr(section, key) for key in section.model_fields_set}
            update[name] = getattr(config, name).model_copy(update=said)
    if "output" in update and preset.output.folder is not None:
        raise ConfigError(f"{file}: output.folder: watch writes to outbox; expected null")
    return config.model_copy(update=update)
