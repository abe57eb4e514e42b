"""Writes systemd units for the folders of a configuration.

systemd turns every path that the sandbox lists into a mount of its own, and files cannot be renamed
from one mount to another. So for folders between which files are moved, only a common parent is
listed.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from colordaemon.config import Config
from colordaemon.config_file import load_config
from colordaemon.convert.routing import Routing
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import Folders, find_folders

STOP_MARGIN = 30.0  # seconds added to jobs.drain_seconds, to stop a film and record everything
OWN_MIB = 1024  # added to jobs.memory_mib: the daemon, its hooks, files that are being written
NODE_RUNTIME = Path("/run/colordaemon-node")  # where a node has its sockets
STATE = Path("/var/lib/colordaemon")  # systemd makes this by itself
_CLOSED = "PrivateNetwork=true\nRestrictAddressFamilies=AF_UNIX\nIPAddressDeny=any"
_OPEN = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
_LOCAL = "IPAddressDeny=any\nIPAddressAllow=localhost"
_SHARED = "2775 colordaemon colordaemon -"  # new files get the group of the folder
_OWN = "0750 colordaemon colordaemon -"
_PLACEHOLDER = re.compile(r"@(\w+)@")


@dataclass(frozen=True)
class Unit:
    """A file to write."""

    path: Path
    text: str


def system_units(config: Config, config_file: Path, program: Path) -> list[Unit]:
    """The files for a daemon of the whole machine. Raises ConfigError."""
    values = _values([config], config_file, program)
    etc = Path("/etc")
    return [
        Unit(etc / folder / name, render(template, values))
        for folder, name, template in (
            ("systemd/system", "colordaemon.service", "colordaemon.service"),
            ("systemd/system", "colordaemon-web.service", "colordaemon-web.service"),
            ("systemd/system", "colordaemon-gpu.service", "colordaemon-gpu.service"),
            ("sysusers.d", "colordaemon.conf", "colordaemon.sysusers.conf"),
            ("tmpfiles.d", "colordaemon.conf", "colordaemon.tmpfiles.conf"),
            ("sysctl.d", "60-colordaemon.conf", "colordaemon.sysctl.conf"),
        )
    ]


def node_unit(config: Config, config_file: Path, program: Path, *, head: bool) -> Unit:
    """For a machine that colors for the daemon on another one, or on this one. head: it begins the
    cluster. Raises ConfigError."""
    values = _values([config], config_file, program) | {
        "address": config.cluster.address or "cluster.address",
        "head": " --head" if head else "",
    }
    path = Path("/etc/systemd/system/colordaemon-node.service")
    return Unit(path, render("colordaemon-node.service", values))


def gpu_unit(config: Config, config_file: Path, program: Path) -> Unit:
    """A template with one instance for each GPU: colordaemon@0 reads 0.yaml beside the file.

    It may write to the folders of all these configurations; if there is none yet, to the common
    parent of the folders of `config`. Raises ConfigError.
    """
    instances = [load_config(path) for path in sorted(config_file.parent.glob("[0-9]*.yaml"))]
    values = _values(instances or [config], config_file.with_name("%i.yaml"), program) | {
        "name": "colordaemon/%i",
        "inbox": "its inbox, on GPU %i",
        "gpu": "Environment=CUDA_VISIBLE_DEVICES=%i",
    }
    if not instances:
        root = _parent(_shared(find_folders(config)))
        if root is None:
            raise ConfigError(
                f"{config_file.parent}: found no 0.yaml, and no folder that holds the inbox and "
                "the outbox of all instances; write 0.yaml and so on first"
            )
        values |= {"needed": str(root), "folders": f"-{root}", "writable": f"-{root}"}
    text = render("colordaemon.service", values).replace(
        "SyslogIdentifier=colordaemon/%i", "SyslogIdentifier=colordaemon-%i"
    )
    return Unit(Path("/etc/systemd/system/colordaemon@.service"), text)


def user_units(config: Config, config_file: Path, program: Path, home: Path) -> list[Unit]:
    """For one user, without any privilege. Raises ConfigError."""
    values = _values([config], config_file, program)
    folder = home / ".config" / "systemd" / "user"
    return [
        Unit(folder / f"{name}.service", render(f"{name}-user.service", values))
        for name in ("colordaemon", "colordaemon-web")
    ]


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
    """The colordaemon that is running, by an absolute path; its interpreter if there is none."""
    for path in (Path(sys.executable).with_name("colordaemon"), Path(sys.argv[0]).absolute()):
        if path.name == "colordaemon" and os.access(path, os.X_OK):
            return path
    return Path(sys.executable)


def render(name: str, values: dict[str, str]) -> str:
    template = files("colordaemon").joinpath("units", name).read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def _values(configs: Sequence[Config], config_file: Path, program: Path) -> dict[str, str]:
    """What the templates leave open, for one daemon or for several of one template."""
    groups = [find_folders(config) for config in configs]
    all_folders = [folders for group in groups for folders in group]
    states = [*dict.fromkeys(group[0].state for group in groups)]
    states = [state for state in states if not state.is_relative_to(STATE)]
    written = [
        path
        for config, group in zip(configs, groups, strict=True)
        for folders in group
        for path in _written(folders, config)
    ]
    has_cluster = any(config.cluster.address for config in configs)
    runtime = [NODE_RUNTIME] if has_cluster else []
    writable, shared = _outermost([*written, *states, *runtime]), _shared(all_folders)
    archives = [folders.archive for folders in all_folders if folders.archive]
    hidden = [*shared, *archives, *states, *_read(configs, config_file, program)]
    for path in (*shared, *archives, *states, program, config_file):
        # % begins a specifier, of which that of the configuration may have some.
        if re.search(r"[\s\"'\\$@]" if path is config_file else r"[\s\"'\\$@%]", str(path)):
            raise ConfigError(f"{path!s}: expected a path without spaces and signs for a unit file")
    drain_seconds = max(config.jobs.drain_seconds for config in configs)
    has_webhook = any(config.after.webhook for config in configs)
    return {
        "name": "colordaemon",
        "program": f"{program} -m colordaemon" if program == Path(sys.executable) else str(program),
        "config": str(config_file),
        "inbox": ", ".join(str(folders.inbox) for folders in all_folders),
        "needed": " ".join(map(str, dict.fromkeys(folders.outbox for folders in all_folders))),
        "folders": " ".join(f"-{path}" for path in _outermost([*shared, *writable])),
        "made": "\n".join(
            [f"d {path} {_SHARED}" for path in dict.fromkeys([*shared, *archives])]
            + [f"d {path} {_OWN}" for path in states]
        ),
        "writable": " ".join(f"-{path}" for path in writable),
        "memory_max": _memory_max(configs),
        "stop_seconds": f"{drain_seconds + STOP_MARGIN:g}",
        "protect_home": "read-only" if _any_inside(hidden, "/home", "/root") else "true",
        "private_tmp": "false" if _any_inside(hidden, "/tmp", "/var/tmp") else "true",  # noqa: S108
        "gpu": "",
        "network": _OPEN if has_webhook or has_cluster else _CLOSED,
        "listen": configs[0].web.listen,
        "states": " ".join(f"-{path}" for path in states),
        "page_network": _LOCAL if configs[0].web.is_local else "",
    }


def _memory_max(configs: Sequence[Config]) -> str:
    """The memory limit of the unit: more than any file may use, with some for the daemon itself."""
    limits = [config.jobs.memory_mib for config in configs]
    known = [limit for limit in limits if limit is not None]
    return f"{max(known) + OWN_MIB}M" if len(known) == len(limits) else "90%"


def _shared(all_folders: Sequence[Folders]) -> list[Path]:
    """The folders of users: inboxes and outboxes."""
    found = [folder for folders in all_folders for folder in (folders.inbox, folders.outbox)]
    return [*dict.fromkeys(found)]


def _read(configs: Sequence[Config], config_file: Path, program: Path) -> Iterator[Path]:
    """The files that the daemon reads besides its folders: itself, settings, models, references,
    hooks."""
    yield from (program, *_interpreter(program), config_file)
    for config in configs:
        yield from config.presets.values()
        yield from (entry.preset for entry in config.all_inboxes if entry.preset)
        for each in Routing(config).configs:
            yield from (path for path in (each.model.file, *each.models.values()) if path)
            yield from (*each.references.values(), *each.candidates.values())
        if config.after.hook:
            yield Path(shlex.split(config.after.hook)[0])


def _interpreter(program: Path) -> Iterator[Path]:
    """The Python interpreter, which is often in another folder than the program, such as a home."""
    with suppress(OSError):
        line = program.read_bytes()[:256].split(b"\n")[0]
        yield program.resolve()
        if line.startswith(b"#!"):
            yield Path(os.fsdecode(line[2:].strip().split(b" ")[0])).resolve()


def _any_inside(paths: Iterable[Path], *folders: str) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths without those inside another of them."""
    found = [*dict.fromkeys(paths)]
    return [path for path in found if not any(other in path.parents for other in found)]


def _written(folders: Folders, config: Config) -> list[Path]:
    """The folders of an inbox that the daemon writes to; the inbox itself unless sources are
    kept."""
    if config.after.source == "move" and folders.archive is not None:
        common = _parent([folders.inbox, folders.archive])
        if common is None:
            raise ConfigError(
                f"after.archive: expected a folder with a parent in common with {folders.inbox}, "
                "because files cannot be moved between two parts of the service's sandbox"
            )
        return [folders.outbox, common]
    if config.after.source != "keep":
        return [folders.outbox, folders.inbox]
    return [folders.outbox]


def _parent(folders: Sequence[Path]) -> Path | None:
    """The common parent of all these, unless it is as wide as /srv or the whole system."""
    common = Path(os.path.commonpath(folders))
    return common if len(common.parts) >= 3 else None
