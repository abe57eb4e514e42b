"""The files for systemd: what systemd says of them, and that those of the repository are current.

To write those anew: python tests/test_install.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from colordaemon.cli import app
from colordaemon.config import AfterSettings, Config, InboxSettings
from colordaemon.errors import ConfigError
from colordaemon.service.install import Unit, gpu_unit, system_units, user_unit

SHIPPED = Path(__file__).parents[1] / "systemd"
Analyze = Callable[..., str]
MOST_EXPOSED = 1.6
PROGRAM, CONFIG_FILE = (
    Path("/opt/colordaemon/bin/colordaemon"),
    Path("/etc/colordaemon/config.yaml"),
)
DEFAULT = Config(
    inbox=Path("/srv/colordaemon/in"),
    outbox=Path("/srv/colordaemon/out"),
    state_dir=Path("/var/lib/colordaemon"),
)


def shipped() -> dict[str, Unit]:
    """By name in the folder systemd of the repository."""
    service, sysusers, tmpfiles, sysctl = system_units(DEFAULT, CONFIG_FILE, PROGRAM)
    home = Path("/home/you")
    return {
        "colordaemon.service": service,
        "colordaemon@.service": gpu_unit(DEFAULT, CONFIG_FILE, PROGRAM),
        "user/colordaemon.service": user_unit(DEFAULT, Path("%E/colordaemon.yaml"), PROGRAM, home),
        "colordaemon.sysusers.conf": sysusers,
        "colordaemon.tmpfiles.conf": tmpfiles,
        "colordaemon.sysctl.conf": sysctl,
    }


@pytest.fixture
def analyze(tmp_path: Path) -> Analyze:
    """Runs systemd-analyze on the service of a configuration."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")

    def run(unit: Unit, *options: str) -> str:
        path = tmp_path / unit.path.name
        # It wants the program to be there, and it looks for devices of a GPU.
        path.write_text(unit.text.replace(str(PROGRAM), "/bin/true"))
        line = ["systemd-analyze", *options, str(path)]
        environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
        result = subprocess.run(  # noqa: S603
            line, capture_output=True, text=True, check=False, env=environment
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    return run


@pytest.mark.parametrize("name", shipped())
def test_the_files_of_the_repository_are_what_install_service_writes(name: str) -> None:
    assert (SHIPPED / name).read_text() == shipped()[name].text
    assert not re.search(r"@\w+@", shipped()[name].text)


@pytest.mark.parametrize("name", ["colordaemon.service", "colordaemon@.service"])
def test_systemd_finds_nothing_wrong_and_little_exposed(analyze: Analyze, name: str) -> None:
    unit = shipped()[name]
    assert analyze(unit, "verify", "--man=no") == ""
    said = analyze(unit, "security", "--offline=yes", "--no-pager")
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert match is not None and float(match[1]) <= MOST_EXPOSED


def test_a_webhook_opens_the_network_and_no_more(analyze: Analyze) -> None:
    config = configured(after=AfterSettings(webhook="https://example.org/done"))
    assert line_of(config, "RestrictAddressFamilies") == "AF_UNIX AF_INET AF_INET6"
    unit = system_units(config, CONFIG_FILE, PROGRAM)[0]
    said = analyze(unit, "security", "--offline=yes", "--no-pager")
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert match is not None and float(match[1]) <= MOST_EXPOSED


def test_systemd_finds_nothing_wrong_with_the_users_unit(analyze: Analyze) -> None:
    assert analyze(shipped()["user/colordaemon.service"], "--user", "verify", "--man=no") == ""


def configured(**settings: object) -> Config:
    return DEFAULT.model_copy(update=settings)


def line_of(config: Config, key: str) -> str:
    text = system_units(config, CONFIG_FILE, PROGRAM)[0].text
    (line,) = [line for line in text.splitlines() if line.startswith(f"{key}=")]
    return line.partition("=")[2]


def test_only_what_has_to_be_written_to_is_writable() -> None:
    assert line_of(DEFAULT, "ReadWritePaths") == "-/srv/colordaemon/out"
    trash = configured(after=AfterSettings(source="trash"))
    assert line_of(trash, "ReadWritePaths") == "-/srv/colordaemon/out -/srv/colordaemon/in"
    after = AfterSettings(source="move", archive=Path("/srv/colordaemon/old"))
    move = configured(after=after, state_dir=Path("/srv/state"))
    assert line_of(move, "ReadWritePaths") == "-/srv/colordaemon -/srv/state"
    assert line_of(move, "NoExecPaths").endswith("/srv/colordaemon/old")


def several(**settings: object) -> Config:
    entries = (
        InboxSettings(inbox=Path("/srv/in/home"), outbox=Path("/srv/out")),
        InboxSettings(inbox=Path("/mnt/disk/in"), outbox=Path("/srv/out")),
        InboxSettings(inbox=Path("/srv/in/old"), outbox=Path("/srv/old")),
    )
    state = Path("/var/lib/colordaemon")
    return Config(inboxes=entries, state_dir=state).model_copy(update=settings)


def test_the_folders_of_all_inboxes_are_let_in(analyze: Analyze) -> None:
    config = several()
    assert line_of(config, "ReadWritePaths") == "-/srv/out -/srv/old"
    trash = several(after=AfterSettings(source="trash"))
    writable = "-/srv/out -/srv/in/home -/mnt/disk/in -/srv/old -/srv/in/old"
    assert line_of(trash, "ReadWritePaths") == writable
    entries = (
        InboxSettings(
            inbox=Path("/mnt/disk/in"), outbox=Path("/srv/out"), archive=Path("/mnt/disk/done")
        ),
        InboxSettings(inbox=Path("/srv/films/in"), outbox=Path("/srv/out")),
    )
    after = AfterSettings(source="move", archive=Path("/srv/films/done"))
    moved = several(inboxes=entries, after=after)
    assert line_of(moved, "ReadWritePaths") == "-/srv/out -/mnt/disk -/srv/films"
    assert line_of(config, "Description").endswith("/srv/in/home, /mnt/disk/in, /srv/in/old")
    tmpfiles = system_units(config, CONFIG_FILE, PROGRAM)[2].text
    assert tmpfiles.count("\nd /srv/out 2775") == 1 and tmpfiles.count("\nd /") == 5
    assert analyze(system_units(trash, CONFIG_FILE, PROGRAM)[0], "verify", "--man=no") == ""


def test_a_disk_that_is_missing_does_not_keep_the_service_from_starting() -> None:
    assert line_of(several(), "RequiresMountsFor") == "/srv/out /srv/old"
    assert all(path.startswith("-") for path in line_of(several(), "NoExecPaths").split(" "))


def test_folders_that_the_sandbox_would_hide_are_let_in() -> None:
    assert (line_of(DEFAULT, "ProtectHome"), line_of(DEFAULT, "PrivateTmp")) == ("true", "true")
    home = configured(inbox=Path("/home/you/in"))
    assert line_of(home, "ProtectHome") == "read-only"
    temporary = configured(inbox=Path("/tmp/in"))  # noqa: S108
    assert line_of(temporary, "PrivateTmp") == "false"


def test_sources_that_could_not_be_moved_out_of_the_sandbox_are_told() -> None:
    after = AfterSettings(source="move", archive=Path("/mnt/old"))
    with pytest.raises(ConfigError, match="a parent in common"):
        system_units(configured(after=after), CONFIG_FILE, PROGRAM)


def test_paths_that_mean_something_to_systemd_are_refused() -> None:
    with pytest.raises(ConfigError, match="without spaces"):
        system_units(configured(inbox=Path("/srv/my films")), CONFIG_FILE, PROGRAM)


def test_install_service_writes_the_files_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text("inbox: in\noutbox: out\nstate_dir: state\n")
    root = tmp_path / "root"
    line = ["install-service", "--config", str(config), "--root", str(root), "--per-gpu"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    written = [path for path in root.rglob("*") if path.is_file()]
    assert len(written) == 5
    assert all(f"wrote {path}" in result.output.replace("\n", "") for path in written)
    service = (root / "etc/systemd/system/colordaemon.service").read_text()
    assert f"watch --config {config}" in service and f"-{tmp_path}/out" in service


if __name__ == "__main__":
    for name, unit in shipped().items():
        (SHIPPED / name).parent.mkdir(exist_ok=True)
        (SHIPPED / name).write_text(unit.text)
