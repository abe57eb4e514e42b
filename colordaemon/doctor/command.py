"""Runs all checks, those of the machine and those of one daemon, and shows what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from colordaemon.config import Config
from colordaemon.config_file import load_config
from colordaemon.convert.routing import Routing
from colordaemon.doctor import folders, machine, service
from colordaemon.doctor.finding import Finding, Level, fault, findings_of, ok
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import Folders, find_folders
from colordaemon.logs import counted, printable

VERSION = 1  # of the JSON; new keys may come without another number
_COLORS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "bold red"}


def examine(config_file: Path | None) -> Iterator[Finding]:
    """Findings, as they are made. config_file: None checks the machine with default settings."""
    config, all_folders, routed = Config(), tuple[Folders, ...](), [Config()]
    if config_file is None:
        yield ok("configuration", "none: default settings, no daemon")
    else:
        try:
            config = load_config(config_file)
            routed = [*Routing(config).configs]
            all_folders = find_folders(config)
            yield ok("configuration", str(config_file))
        except ConfigError as error:
            for mistake in str(error).split("\n"):
                yield fault("configuration", mistake, f"edit {config_file}")
    for about, check in _checks(config_file, config, routed, all_folders):
        yield from findings_of(about, check)


def _checks(
    config_file: Path | None,
    config: Config,
    routed: Sequence[Config],
    all_folders: Sequence[Folders],
) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    """Each check and what to call it should it fail itself. routed: with each preset as well."""
    files = [file for each in routed for file in (each.model.file, *each.models.values())]
    yield "libraries", machine.libraries
    yield "device", partial(machine.device, config.model)
    yield "NVENC, NVDEC", machine.hardware_codecs
    yield "codecs", partial(machine.codecs, config.film.codec)
    yield "model", partial(machine.models, files)
    yield "memory", partial(machine.memory, config.jobs.memory_mib)
    yield "after.hook", partial(service.hook, config)
    if not all_folders or config_file is None:
        return
    yield "folders", partial(folders.folders, config, all_folders)
    yield "inotify", partial(folders.inotify, all_folders)
    yield "journal", partial(service.journal, config, all_folders[0], config_file)
    yield "daemon", partial(service.daemon, all_folders[0], config_file)
    yield "unit", partial(service.unit, config, config_file)


def show(finding: Finding, console: Console) -> None:
    """A line for people."""
    line = Text(f"{finding.level:<8}", style=_COLORS[finding.level])
    line.append(printable(f"{finding.about}: {finding.found}"), style="default")
    if finding.mend:
        line.append(printable(f"; mend: {finding.mend}"), style="bold default")
    console.print(line, soft_wrap=True)


def summary(findings: Sequence[Finding]) -> str:
    """How many of each level there are."""
    levels = [finding.level for finding in findings]
    faults, warnings = levels.count(Level.FAULT), levels.count(Level.WARNING)
    return f"{counted(faults, 'fault')}, {counted(warnings, 'warning')}"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    return {"version": VERSION, "findings": [asdict(finding) for finding in findings]}
