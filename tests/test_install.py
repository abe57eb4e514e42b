"""The files for systemd: what systemd says of them, and that those of the repository are current.

To write those anew: python tests/test_install.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from colordaemon.cli.common import app
from colordaemon.config import (
    AfterSettings,
    ClusterSettings,
    Config,
    InboxSettings,
    JobSettings,
    WebSettings,
)
from colordaemon.errors import ConfigError
from colordaemon.install import Unit, gpu_unit, node_unit, system_units, this_program, user_units

SHIPPED = Path(__file__).parents[1] / "systemd"
Analyze = Callable[..., str]
MOST_EXPOSED, WITH_NETWORK = 1.0, 1.6
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
    service, web, gpu, sysusers, tmpfiles, sysctl = system_units(DEFAULT, CONFIG_FILE, PROGRAM)
    user, user_web = user_units(
        DEFAULT, Path("%E/colordaemon.yaml"), PROGRAM, home=Path("/home/you")
    )
    return {
        "colordaemon.service": service,
        "colordaemon-web.service": web,
        "colordaemon-gpu.service": gpu,
        "colordaemon-node.service": node_unit(DEFAULT, CONFIG_FILE, PROGRAM, head=False),
        "colordaemon@.service": gpu_unit(DEFAULT, CONFIG_FILE, PROGRAM),
        "user/colordaemon.service": user,
        "user/colordaemon-web.service": user_web,
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
    assert exposure(analyze, unit) <= MOST_EXPOSED


def exposure(analyze: Analyze, unit: Unit) -> float:
    said = analyze(unit, "security", "--offline=yes", "--no-pager")
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert match is not None
    return float(match[1])


def test_a_webhook_opens_the_network_and_no_more(analyze: Analyze) -> None:
    config = configured(after=AfterSettings(webhook="https://example.org/done"))
    assert line_of(config, "RestrictAddressFamilies") == "AF_UNIX AF_INET AF_INET6"
    unit = system_units(config, CONFIG_FILE, PROGRAM)[0]
    assert exposure(analyze, unit) <= WITH_NETWORK


@pytest.mark.parametrize("name", ["user/colordaemon.service", "user/colordaemon-web.service"])
def test_systemd_finds_nothing_wrong_with_the_users_units(analyze: Analyze, name: str) -> None:
    assert analyze(shipped()[name], "--user", "verify", "--man=no") == ""


def web_unit(listen: str = "127.0.0.1:8765", **settings: object) -> Unit:
    config = configured(web=WebSettings(listen=listen), **settings)
    return system_units(config, CONFIG_FILE, PROGRAM)[1]


@pytest.mark.parametrize("listen", ["127.0.0.1:8765", "0.0.0.0:80"])
def test_the_page_is_locked_in_as_well_as_the_daemon(analyze: Analyze, listen: str) -> None:
    unit = web_unit(listen)
    assert analyze(unit, "verify", "--man=no") == ""
    assert exposure(analyze, unit) <= WITH_NETWORK


def test_the_page_of_this_machine_talks_to_nobody_else_and_writes_to_its_state_only() -> None:
    unit = web_unit(state_dir=Path("/srv/state"))
    assert value_of(unit, "IPAddressAllow") == "localhost"
    assert value_of(unit, "ReadWritePaths") == "-/srv/state"
    assert "IPAddressAllow" not in web_unit("0.0.0.0:8765").text
    assert "[Install]" in unit.text and "enable --now" in unit.text  # off until somebody wants it


def test_a_node_is_locked_in_as_well_as_the_daemon(analyze: Analyze) -> None:
    unit = shipped()["colordaemon-node.service"]
    assert analyze(unit, "verify", "--man=no") == ""
    assert exposure(analyze, unit) <= WITH_NETWORK
    assert " --head" in node_unit(DEFAULT, CONFIG_FILE, PROGRAM, head=True).text


def test_a_cluster_opens_the_network_and_the_sockets_of_the_node_of_this_machine() -> None:
    config = configured(cluster=ClusterSettings(address="head:6379"))
    assert line_of(config, "RestrictAddressFamilies") == "AF_UNIX AF_INET AF_INET6"
    sockets = value_of(shipped()["colordaemon-node.service"], "RuntimeDirectory")
    assert line_of(config, "ReadWritePaths") == f"-/srv/colordaemon/out -/run/{sockets}"


def configured(**settings: object) -> Config:
    return DEFAULT.model_copy(update=settings)


def line_of(config: Config, key: str, file: Path = CONFIG_FILE, program: Path = PROGRAM) -> str:
    return value_of(system_units(config, file, program)[0], key)


def value_of(unit: Unit, key: str) -> str:
    (line,) = [line for line in unit.text.splitlines() if line.startswith(f"{key}=")]
    return line.partition("=")[2]


def text_of(config: Config, path: str) -> str:
    units = system_units(config, CONFIG_FILE, PROGRAM)
    return next(unit.text for unit in units if unit.path == Path("/etc", path))


def test_only_what_has_to_be_written_to_is_writable() -> None:
    assert line_of(DEFAULT, "ReadWritePaths") == "-/srv/colordaemon/out"
    trash = configured(after=AfterSettings(source="trash"))
    assert line_of(trash, "ReadWritePaths") == "-/srv/colordaemon/out -/srv/colordaemon/in"
    after = AfterSettings(source="move", archive=Path("/srv/colordaemon/old"))
    move = configured(after=after, state_dir=Path("/srv/state"))
    assert line_of(move, "ReadWritePaths") == "-/srv/colordaemon -/srv/state"


def test_folders_between_which_files_are_moved_are_one_mount() -> None:
    after = AfterSettings(source="move", archive=Path("/srv/colordaemon/old"))
    for key in ("ReadWritePaths", "NoExecPaths"):
        assert line_of(configured(after=after), key) == "-/srv/colordaemon"
    entry = InboxSettings(
        inbox=Path("/srv/films/in"), outbox=Path("/mnt/out"), archive=Path("/srv/films/done/old")
    )
    config = several(inboxes=(entry,), after=AfterSettings(source="move"))
    for key in ("ReadWritePaths", "NoExecPaths"):
        assert line_of(config, key) == "-/mnt/out -/srv/films"


def test_every_folder_that_is_written_to_is_made_at_boot() -> None:
    after = AfterSettings(source="move", archive=Path("/srv/colordaemon/old"))
    made = text_of(
        configured(after=after, state_dir=Path("/srv/state")), "tmpfiles.d/colordaemon.conf"
    )
    assert "\nd /srv/colordaemon/old 2775 colordaemon" in made
    assert "\nd /srv/state 0750 colordaemon" in made
    assert "/var/lib" not in text_of(DEFAULT, "tmpfiles.d/colordaemon.conf")


def test_the_driver_is_loaded_before_the_service_and_its_list_of_devices() -> None:
    assert "colordaemon-gpu.service" in line_of(DEFAULT, "After").split()
    assert "colordaemon-gpu.service" in line_of(DEFAULT, "Wants").split()
    assert "nvidia-modprobe" not in text_of(DEFAULT, "systemd/system/colordaemon.service")
    assert "nvidia-modprobe" in text_of(DEFAULT, "systemd/system/colordaemon-gpu.service")


def test_a_template_opens_the_folders_of_its_instances(tmp_path: Path) -> None:
    for number, (inbox, outbox) in enumerate((("/mnt/a/in", "/srv/a"), ("/mnt/b/in", "/srv/b"))):
        text = f"inbox: {inbox}\noutbox: {outbox}\nstate_dir: /var/lib/colordaemon/{number}\n"
        (tmp_path / f"{number}.yaml").write_text(text)
    unit = gpu_unit(DEFAULT, tmp_path / "config.yaml", PROGRAM)
    assert value_of(unit, "NoExecPaths") == "-/mnt/a/in -/srv/a -/mnt/b/in -/srv/b"
    assert value_of(unit, "ReadWritePaths") == "-/srv/a -/srv/b"


def test_a_template_without_instances_does_not_open_the_whole_system() -> None:
    apart = configured(inbox=Path("/mnt/nas/in"), outbox=Path("/srv/out"))
    with pytest.raises(ConfigError, match=r"0\.yaml"):
        gpu_unit(apart, CONFIG_FILE, PROGRAM)


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
    tmpfiles = text_of(config, "tmpfiles.d/colordaemon.conf")
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


def test_what_the_daemon_reads_is_not_hidden_from_it(tmp_path: Path) -> None:
    home, temporary = Path("/home/you"), Path("/var/tmp")  # noqa: S108
    assert line_of(DEFAULT, "ProtectHome", program=home / "bin/colordaemon") == "read-only"
    assert line_of(DEFAULT, "ProtectHome", file=home / "config.yaml") == "read-only"
    assert line_of(configured(state_dir=home / "state"), "ProtectHome") == "read-only"
    assert line_of(configured(models={"faces": home / "m"}), "ProtectHome") == "read-only"
    script = tmp_path / "colordaemon"
    script.write_text("#!/home/you/venv/bin/python\n")
    assert line_of(DEFAULT, "ProtectHome", program=script) == "read-only"
    hook = configured(after=AfterSettings(hook="/home/you/tell --all"))
    assert line_of(hook, "ProtectHome") == "read-only"
    model = DEFAULT.model.model_copy(update={"file": temporary / "model.safetensors"})
    assert line_of(configured(model=model), "PrivateTmp") == "false"
    preset = tmp_path / "faces.yaml"
    preset.write_text(f"model:\n  file: {home}/faces.safetensors\n")
    assert line_of(configured(presets={"faces": preset}), "ProtectHome") == "read-only"


def test_without_a_program_of_that_name_its_interpreter_runs_it() -> None:
    interpreter = Path(sys.executable)
    started = line_of(DEFAULT, "ExecStart", program=interpreter)
    assert started.startswith(f"{interpreter} -m colordaemon watch")


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
    assert len(written) == 7
    assert all(f"wrote {path}" in result.output.replace("\n", "") for path in written)
    service = (root / "etc/systemd/system/colordaemon.service").read_text()
    assert f"watch --config {config}" in service and f"-{tmp_path}/out" in service
    assert value_of(Unit(Path(), service), "ExecStart").split()[0] == str(this_program())


def test_the_kernel_ends_work_only_beyond_what_a_file_may_take() -> None:
    def limit(memory_mib: int | None) -> str | None:
        config = DEFAULT.model_copy(update={"jobs": JobSettings(memory_mib=memory_mib)})
        found = re.search(
            r"^MemoryMax=(.*)$", system_units(config, CONFIG_FILE, PROGRAM)[0].text, re.M
        )
        return found and found[1]

    assert (limit(8000), limit(None)) == ("9024M", "90%")


if __name__ == "__main__":
    for name, unit in shipped().items():
        (SHIPPED / name).parent.mkdir(exist_ok=True)
        (SHIPPED / name).write_text(unit.text)
