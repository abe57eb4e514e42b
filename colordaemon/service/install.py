"""Files for systemd, made out for the folders of a configuration."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from colordaemon.config import Config
from colordaemon.errors import ConfigError
from colordaemon.service.places import Places, find_places

STOP_MARGIN = 30.0  # seconds beyond jobs.drain_seconds: to leave a film and write everything down
_CLOSED = "PrivateNetwork=true\nRestrictAddressFamilies=AF_UNIX\nIPAddressDeny=any"
_OPEN = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
_SHARED = "2775 colordaemon colordaemon -"  # new files get the group of the folder
_PLACEHOLDER = re.compile(r"@(\w+)@")


@dataclass(frozen=True)
class Unit:
    """A file to write: where, and what."""

    path: Path
    text: str


def system_units(config: Config, config_file: Path, program: Path) -> list[Unit]:
    """What a machine needs to run the daemon for everybody. Raises ConfigError."""
    values = _values(config, config_file, program)
    return [
        Unit(
            Path("/etc/systemd/system/colordaemon.service"), render("colordaemon.service", values)
        ),
        Unit(Path("/etc/sysusers.d/colordaemon.conf"), render("colordaemon.sysusers.conf", values)),
        Unit(Path("/etc/tmpfiles.d/colordaemon.conf"), render("colordaemon.tmpfiles.conf", values)),
        Unit(Path("/etc/sysctl.d/60-colordaemon.conf"), render("colordaemon.sysctl.conf", values)),
    ]


def gpu_unit(config: Config, config_file: Path, program: Path) -> Unit:
    """A template with one instance for each GPU: colordaemon@0 reads 0.yaml beside the file.

    Each configuration has folders of its own; all lie below the parent of this one's.
    """
    values = _values(config, config_file.with_name("%i.yaml"), program) | {
        "name": "colordaemon/%i",
        "inbox": "its inbox, on GPU %i",
        "gpu": "Environment=CUDA_VISIBLE_DEVICES=%i",
    }
    root = os.path.commonpath(_shared(find_places(config)))
    values |= {"needed": root, "folders": f"-{root}", "writable": f"-{root}"}
    text = render("colordaemon.service", values).replace(
        "SyslogIdentifier=colordaemon/%i", "SyslogIdentifier=colordaemon-%i"
    )
    return Unit(Path("/etc/systemd/system/colordaemon@.service"), text)


def user_unit(config: Config, config_file: Path, program: Path, home: Path) -> Unit:
    """For one user, without any privilege. Raises ConfigError."""
    values = _values(config, config_file, program)
    path = home / ".config" / "systemd" / "user" / "colordaemon.service"
    return Unit(path, render("colordaemon-user.service", values))


def write_units(units: list[Unit], root: Path = Path("/")) -> list[Path]:
    """Write files below a root; returns where they are."""
    written = []
    for unit in units:
        path = root / unit.path.relative_to("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit.text, encoding="utf-8")
        written.append(path)
    return written


def this_program() -> Path:
    """The colordaemon that is running, by an absolute path."""
    beside = Path(sys.executable).with_name("colordaemon")
    return beside if beside.exists() else Path(sys.argv[0]).resolve()


def render(name: str, values: dict[str, str]) -> str:
    template = files("colordaemon.service").joinpath("units", name).read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def _values(config: Config, config_file: Path, program: Path) -> dict[str, str]:
    all_places = find_places(config)
    state, outboxes = all_places[0].state, dict.fromkeys(each.outbox for each in all_places)
    archives = [places.archive for places in all_places if places.archive]
    folders = [*dict.fromkeys([*_shared(all_places), *archives])]
    for path in (*folders, state, program, config_file):
        # % begins a specifier, of which that of the configuration may have some.
        if re.search(r"[\s\"'\\$@]" if path is config_file else r"[\s\"'\\$@%]", str(path)):
            raise ConfigError(f"{path!s}: expected a path without spaces and signs for a unit file")
    at_home = any(path.is_relative_to(home) for path in folders for home in ("/home", "/root"))
    return {
        "name": "colordaemon",
        "program": str(program),
        "config": str(config_file),
        "inbox": ", ".join(str(places.inbox) for places in all_places),
        "needed": " ".join(map(str, outboxes)),
        "folders": " ".join(f"-{path}" for path in folders),
        "shared": "\n".join(f"d {path} {_SHARED}" for path in _shared(all_places)),
        "writable": " ".join(f"-{path}" for path in _writable(all_places, config)),
        "stop_seconds": f"{config.jobs.drain_seconds + STOP_MARGIN:g}",
        "protect_home": "read-only" if at_home else "true",
        "private_tmp": "false" if any(path.is_relative_to("/tmp") for path in folders) else "true",  # noqa: S108
        "gpu": "",
        "network": _OPEN if config.after.webhook else _CLOSED,
    }


def _shared(all_places: Sequence[Places]) -> list[Path]:
    """The folders that people put files into and fetch results from."""
    folders = [folder for places in all_places for folder in (places.inbox, places.outbox)]
    return [*dict.fromkeys(folders)]


def _writable(all_places: Sequence[Places], config: Config) -> list[Path]:
    """Inboxes only where sources are dealt with, and together with where they go."""
    paths = [path for places in all_places for path in _written(places, config)]
    state = all_places[0].state
    if state != Path("/var/lib/colordaemon"):  # StateDirectory sees to that one
        paths.append(state)
    paths = [*dict.fromkeys(paths)]
    return [path for path in paths if not any(other in path.parents for other in paths)]


def _written(places: Places, config: Config) -> list[Path]:
    if config.after.source == "move" and places.archive is not None:
        return [places.outbox, _common(places.inbox, places.archive)]
    if config.after.source != "keep":
        return [places.outbox, places.inbox]
    return [places.outbox]


def _common(one: Path, other: Path) -> Path:
    common = Path(os.path.commonpath([one, other]))
    if len(common.parts) < 3:
        raise ConfigError(
            f"after.archive: expected a folder that has a parent in common with {one}, because "
            "files cannot be moved between two parts of the service's sandbox"
        )
    return common
