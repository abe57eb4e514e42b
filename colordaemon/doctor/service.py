"""Checks of the daemon itself: its journal, whether it runs, its systemd unit, its hook."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from colordaemon import install
from colordaemon.config import Config
from colordaemon.doctor.finding import Finding, fault, ok, warning
from colordaemon.errors import ConfigError
from colordaemon.inbox.folders import Folders
from colordaemon.logs import counted
from colordaemon.service.control import BadRequest, NoAnswer, ask
from colordaemon.service.journal_upkeep import check
from colordaemon.service.records import Damaged, JournalVersion

_SYSTEMD = Path("/run/systemd/system")  # there while systemd is process 1
_SECONDS = 10.0  # that systemctl may take


def journal(config: Config, folders: Folders, config_file: Path) -> Iterator[Finding]:
    """Whether SQLite finds damage in the journal."""
    if not folders.journal.exists():
        yield ok("journal", f"none in {folders.state} yet")
        return
    try:
        yield ok("journal", check(config))
    except Damaged as error:
        yield fault(
            "journal", str(error), f"{_said('journal rebuild', config_file)}, while no daemon runs"
        )
    except JournalVersion as error:
        yield warning("journal", str(error), "start the daemon, which upgrades it")
    except ConfigError as error:
        yield fault("journal", str(error), "run as the daemon's user or as root")


def daemon(folders: Folders, config_file: Path) -> Iterator[Finding]:
    """What a running daemon says of itself, and how many files failed."""
    try:
        reply = ask(folders.control, {"verb": "status"})
    except (BadRequest, NoAnswer) as error:
        yield fault("daemon", str(error), "systemctl status colordaemon; systemctl restart it")
        return
    if reply is None:
        mend = f"systemctl start colordaemon, or {_said('watch', config_file)}"
        yield warning("daemon", "not running", mend)
        return
    if reply["paused"]:
        yield warning("daemon", "paused by command", _said("resume", config_file))
    else:
        yield ok("daemon", reply["daemon"]["status"])
    for inbox in reply["daemon"]["inboxes"]:
        if inbox["why"]:
            yield warning("daemon", f"{inbox['inbox']}: {inbox['why']}", "see the inbox above")
    if failed := reply["counts"].get("failed", 0):
        found = f"{counted(failed, 'file')} failed"
        status, retry = _said("status", config_file), _said("retry", config_file)
        yield warning("failures", found, f"{status} has the reasons; {retry}")


def unit(config: Config, config_file: Path) -> Iterator[Finding]:
    """Whether the unit is installed, as the configuration wants it, and active."""
    expected = install.system_units(config, config_file.absolute(), install.this_program())[0]
    install_service = _said("install-service", config_file)
    if not expected.path.exists():
        yield ok("unit", f"none installed ({expected.path}); {install_service} makes it")
        return
    if expected.path.read_text(encoding="utf-8") != expected.text:
        yield warning(
            "unit",
            f"{expected.path} is not what this version writes for {config_file}",
            f"{install_service} && systemctl daemon-reload",
        )
    if not _SYSTEMD.exists() or shutil.which("systemctl") is None:
        yield ok("unit", f"{expected.path}; systemd does not run here")
        return
    active, enabled = _systemctl("is-active"), _systemctl("is-enabled")
    if active == "failed":
        yield fault("unit", "failed", "journalctl -u colordaemon -n 50")
    elif active != "active":
        yield warning("unit", f"{active}, {enabled}", "systemctl enable --now colordaemon")
    elif enabled != "enabled":
        yield warning("unit", f"{active}, {enabled}", "systemctl enable colordaemon")
    else:
        yield ok("unit", f"{active}, {enabled}")


def _said(command: str, config_file: Path) -> str:
    """The command as it is to be typed: without --config it would speak of another daemon."""
    return f"colordaemon {command} --config {shlex.quote(str(config_file))}"


def _systemctl(verb: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(  # noqa: S603
            ["systemctl", verb, "colordaemon.service"],  # noqa: S607  (where root has put it)
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return asked.stdout.strip() or "unknown"
    return "unknown"


def hook(config: Config) -> Iterator[Finding]:
    """Whether the command of `after.hook` can be started."""
    if config.after.hook is None:
        return
    program = shlex.split(config.after.hook)[0]
    if shutil.which(program) is None:
        there = os.path.lexists(program)
        found = f"{program} is {'not executable' if there else 'not there'}"
        yield fault("after.hook", found, f"chmod +x {program}" if there else "name its path")
    else:
        yield ok("after.hook", program)
