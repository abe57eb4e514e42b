"""Settings of their own: for an inbox by its `preset`, for some of its files by `presets`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath

from colordaemon.config import Config
from colordaemon.config_file import load_config
from colordaemon.convert.patterns import fits
from colordaemon.errors import ConfigError

# What may differ from file to file, and beyond that from inbox to inbox; the rest belongs to the
# daemon as a whole.
_OF_FILES = ("model", "models", "film", "photo", "output")
_OF_INBOXES = (*_OF_FILES, "watch")


@dataclass(frozen=True)
class _Desk:
    """An inbox and its settings. exceptions: by folder or pattern, those for some of its files."""

    inbox: Path
    config: Config
    exceptions: dict[str, Config]


class Presets:
    """A configuration, and what becomes of it for some inboxes and files. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        self._config = config
        presets = {pattern: (file, load_config(file)) for pattern, file in config.presets.items()}
        self._desks = []
        for entry in config.all_inboxes:
            base = config
            if entry.preset is not None:
                base = _with(config, load_config(entry.preset), entry.preset, _OF_INBOXES)
            exceptions = {
                pattern: _with(base, preset, file, _OF_FILES)
                for pattern, (file, preset) in presets.items()
            }
            self._desks.append(_Desk(Path(os.path.realpath(entry.inbox)), base, exceptions))

    @property
    def all(self) -> list[Config]:
        """Every configuration that a file may have; first that of the first inbox."""
        found = [each for desk in self._desks for each in (desk.config, *desk.exceptions.values())]
        return [*found, self._config]

    def config_for(self, source: Path) -> Config:
        """Of the first preset whose folder or pattern fits, as seen from the inbox."""
        for desk in self._desks:
            if source.is_relative_to(desk.inbox):
                path = PurePath(source.relative_to(desk.inbox))
                fitting = (own for pattern, own in desk.exceptions.items() if fits(path, pattern))
                return next(fitting, desk.config)
        return self._config

    def config_of(self, inbox: Path) -> Config:
        """Of an inbox as a whole."""
        return next((desk.config for desk in self._desks if desk.inbox == inbox), self._config)


def _with(config: Config, preset: Config, file: Path, sections: tuple[str, ...]) -> Config:
    """The configuration with all that a preset says; what it leaves open stays as it is."""
    if strange := sorted(preset.model_fields_set - {*sections}):
        raise ConfigError(f"{file}: {', '.join(strange)}: expected only {', '.join(sections)}")
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
