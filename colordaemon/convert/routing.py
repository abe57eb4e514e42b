"""The settings and the priority of each file, by its inbox and by folders or patterns in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path, PurePath
from typing import TypeVar

from colordaemon.config import Config
from colordaemon.config_file import load_config
from colordaemon.errors import ConfigError

# Sections that may differ from file to file, and from inbox to inbox; the others are the same for
# the whole daemon.
_OF_FILES = ("model", "models", "references", "candidates", "film", "photo", "output")
_OF_INBOXES = (*_OF_FILES, "watch")

T = TypeVar("T")


@dataclass(frozen=True)
class _Inbox:
    """An inbox and its settings. presets: by folder or pattern, the settings of some files."""

    path: Path
    priority: int
    config: Config
    presets: dict[str, Config]


class Routing:
    """A configuration with all its presets, which are read only here: daemon and worker use the
    same settings until the next reload. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        self.config = config
        presets = {pattern: (file, load_config(file)) for pattern, file in config.presets.items()}
        self._inboxes = []
        for entry in config.all_inboxes:
            base = config
            if entry.preset is not None:
                base = _with(config, load_config(entry.preset), entry.preset, _OF_INBOXES)
            of_files = {
                pattern: _with(base, preset, file, _OF_FILES)
                for pattern, (file, preset) in presets.items()
            }
            path = Path(os.path.realpath(entry.inbox))
            self._inboxes.append(_Inbox(path, entry.priority, base, of_files))
        for each in self.configs:
            check_guides(each)

    @property
    def configs(self) -> list[Config]:
        """Every configuration that a file may have; first that of the first inbox."""
        found = [[inbox.config, *inbox.presets.values()] for inbox in self._inboxes]
        return [*chain.from_iterable(found), self.config]

    def config_for(self, source: Path) -> Config:
        """The settings of a file: of the first preset whose folder or pattern matches its path in
        the inbox, else of the inbox."""
        inbox = self._inbox_of(source)
        if inbox is None:
            return self.config
        return first_fitting(source.relative_to(inbox.path), inbox.presets, inbox.config)

    def config_of(self, inbox: Path) -> Config:
        """The settings of an inbox."""
        return next((each.config for each in self._inboxes if each.path == inbox), self.config)

    def priority_of(self, source: Path) -> int:
        """The priority of a file: of the first folder or pattern that matches, else of the inbox.

        0 for a file of an inbox that is no longer in the configuration.
        """
        inbox = self._inbox_of(source)
        if inbox is None:
            return 0
        return first_fitting(source.relative_to(inbox.path), self.config.priorities, inbox.priority)

    def _inbox_of(self, source: Path) -> _Inbox | None:
        return next((each for each in self._inboxes if source.is_relative_to(each.path)), None)


def first_fitting(source: PurePath, choices: Mapping[str, T], otherwise: T) -> T:
    """The value of the first folder or pattern that matches a file."""
    return next((own for pattern, own in choices.items() if fits(source, pattern)), otherwise)


def check_guides(config: Config) -> None:
    """Raises ConfigError at once if a picture or folder that `references` or `candidates` names is
    missing, not hours later when the first file for it arrives."""
    for pattern, path in config.references.items():
        if not path.exists():
            raise ConfigError(f"references: {pattern}: no picture or folder {path}")
    for pattern, path in config.candidates.items():
        if not path.is_dir():
            raise ConfigError(f"candidates: {pattern}: no folder {path}")


def fits(source: PurePath, pattern: str) -> bool:
    """Whether a file lies in a folder of that name ("faces", "scans/faces"), or matches a glob.

    A glob ("portrait-*", "faces/*.tif") is compared with the name, or with as many of the last
    folders as it has; * does not reach across folders.
    """
    wanted, parts = PurePath(pattern).parts, source.parts
    if any(letter in pattern for letter in "*?["):
        last = parts[-len(wanted) :]
        return len(last) == len(wanted) and all(map(fnmatchcase, last, wanted))
    folders = parts[:-1]
    starts = range(len(folders) - len(wanted) + 1)
    return any(folders[start : start + len(wanted)] == wanted for start in starts)


def _with(config: Config, preset: Config, file: Path, sections: tuple[str, ...]) -> Config:
    """The configuration with the settings of a preset, which may leave out any."""
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
