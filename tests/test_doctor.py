"""`colordaemon doctor`: what it finds wrong, and that it changes nothing."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest
import torch
from conftest import Start
from typer.testing import CliRunner

from colordaemon import install
from colordaemon.cli.common import app
from colordaemon.config import AfterSettings, Config, JobSettings, ModelSettings
from colordaemon.config_file import load_config
from colordaemon.doctor import folders, machine, service
from colordaemon.doctor.command import examine
from colordaemon.doctor.finding import Finding, Level, findings_of
from colordaemon.inbox.folders import find_folders
from colordaemon.network import quantized
from colordaemon.network.checkpoint import BUILT_IN, BUILT_IN_SHA256
from colordaemon.network.device import cpu_multiplies_bytes
from colordaemon.service.journal import Journal

FILE = Path("/srv/it.yaml")  # the configuration, where a check only names it


def levels(findings: Iterable[Finding]) -> dict[str, Level]:
    """The worst level of each subject."""
    order = [*Level]
    worst = dict[str, Level]()
    for each in findings:
        worst[each.about] = max(worst.get(each.about, Level.OK), each.level, key=order.index)
    return worst


def one(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def configured(root: Path, **more: object) -> Config:
    (root / "in").mkdir()
    return Config(
        inbox=root / "in",
        outbox=root / "out",
        state_dir=root / "state",
        jobs=JobSettings(free_mib=0),
        **more,  # type: ignore[arg-type]
    )


def written(root: Path, more: str = "") -> Path:
    path = root / "config.yaml"
    path.write_text(f"inbox: in\noutbox: out\nstate_dir: state\njobs: {{free_mib: 0}}\n{more}")
    (root / "in").mkdir(exist_ok=True)
    return path


def test_a_healthy_machine_has_no_fault_and_nothing_is_changed(tmp_path: Path) -> None:
    config = written(tmp_path)
    findings = [*examine(config)]
    assert Level.FAULT not in levels(findings).values(), findings
    assert {"libraries", "device", "codecs", "model", "memory", "inbox", "outbox"} <= {
        each.about for each in findings
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "in"]


def test_the_program_ends_with_1_for_a_fault_and_prints_json(tmp_path: Path) -> None:
    config = written(tmp_path, "after: {hook: /no/such/program}\n")
    result = CliRunner().invoke(app, ["doctor", "--json", "--config", str(config)])
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["version"] == 1
    found = {each["about"]: each for each in told["findings"]}
    assert found["after.hook"]["level"] == "fault"
    assert "/no/such/program is not there" in found["after.hook"]["found"]


def test_every_mistake_of_the_configuration_is_a_line(tmp_path: Path) -> None:
    config = written(tmp_path, "watch: {setle_seconds: 3}\nfilm: {codec: h265}\n")
    faults = [each for each in examine(config) if each.about == "configuration"]
    assert [each.level for each in faults] == [Level.FAULT, Level.FAULT]
    assert "did you mean 'settle_seconds'?" in faults[0].found
    assert all(each.mend == f"edit {config}" for each in faults)


def test_a_missing_library_is_named_with_the_command_that_installs_it() -> None:
    finding = one(machine.libraries({"no_such_library": "no-such-library"}))
    assert finding.level is Level.FAULT
    assert finding.mend == "pip install --force-reinstall 'no-such-library'"


def test_a_desktop_library_that_opencv_lacks_is_one_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", fail)
    assert "libgl1" in one(machine.libraries({"cv2": "opencv-python-headless"})).mend


def test_a_gpu_that_is_asked_for_and_missing_is_a_fault() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    finding = one(machine.device(ModelSettings(device="cuda")))
    assert finding.level is Level.FAULT
    assert "no CUDA GPU" in finding.found


@pytest.mark.parametrize(
    "precision",
    [
        "fp32",
        pytest.param(
            "int8", marks=pytest.mark.skipif(not cpu_multiplies_bytes(), reason="needs VNNI")
        ),
    ],
)
def test_a_device_that_computes_nonsense_is_found(
    monkeypatch: pytest.MonkeyPatch, precision: Literal["fp32", "int8"]
) -> None:
    right = torch.conv2d
    monkeypatch.setattr(
        torch, "conv2d", lambda x, w: right(x, w) * (1 if x.dtype is torch.float64 else 0)
    )
    monkeypatch.setattr(quantized, "convolved", lambda x, w: 0 * right(x, w))
    finding = one(machine.device(ModelSettings(device="cpu", precision=precision)))
    assert finding.level is Level.FAULT
    assert "off by 100.0%" in finding.found


def test_a_codec_that_does_not_work_is_a_fault_only_if_it_is_the_chosen_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = machine._encodes
    monkeypatch.setattr(
        machine, "_encodes", lambda name, options: name != "libsvtav1" and works(name, options)
    )
    assert levels(machine.codecs("av1"))["codec av1"] is Level.FAULT
    assert levels(machine.codecs("h264"))["codec av1"] is Level.WARNING


def test_an_encoder_that_ffmpeg_does_not_have_cannot_encode() -> None:
    assert not machine._encodes("no_such_encoder", {})
    assert machine._encodes("libx264", {})


def test_the_checksum_of_the_built_in_model_is_that_of_its_file() -> None:
    finding = one(machine.models([None]))
    assert finding.level is Level.OK, f"{BUILT_IN} is not {BUILT_IN_SHA256}"


def test_a_damaged_model_file_is_a_fault_with_its_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(BUILT_IN.read_bytes()[:1000])
    finding = one(machine.models([broken]))
    assert finding.level is Level.FAULT
    assert str(broken) in finding.found


def test_little_memory_is_a_warning() -> None:
    assert one(machine.memory(1024)).level is Level.WARNING
    assert one(machine.memory(8192)).level is Level.OK


def test_an_inbox_that_is_missing_is_a_fault_that_says_how_to_make_it(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "in").rmdir()
    found = [*folders.folders(config, find_folders(config))]
    assert found[0].mend == f"mkdir -p {tmp_path / 'in'}"
    assert levels(found)["inbox"] is Level.FAULT


def test_a_file_in_place_of_the_outbox_is_a_fault(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "out").write_text("")
    assert levels(folders.folders(config, find_folders(config)))["outbox"] is Level.FAULT


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_outbox_that_may_not_be_written_is_a_fault(tmp_path: Path) -> None:
    config = configured(tmp_path)
    (tmp_path / "out").mkdir(mode=0o555)
    assert levels(folders.folders(config, find_folders(config)))["outbox"] is Level.FAULT


def test_too_little_free_space_is_a_fault(tmp_path: Path) -> None:
    config = configured(tmp_path).model_copy(update={"jobs": JobSettings(free_mib=1 << 40)})
    found = levels(folders.folders(config, find_folders(config)))
    assert found["outbox"] is Level.FAULT
    assert found["state_dir"] is Level.OK


def test_more_folders_than_watches_is_a_warning_with_the_command(tmp_path: Path) -> None:
    config = configured(tmp_path)
    for number in range(5):
        (tmp_path / "in" / str(number)).mkdir()
    (tmp_path / "max_user_watches").write_text("6\n")
    found = one(folders.inotify(find_folders(config), tmp_path))
    assert found.level is Level.WARNING
    assert found.found.startswith("6 folders to watch, 6 watches")
    assert found.mend == "sysctl -w fs.inotify.max_user_watches=524288"
    (tmp_path / "max_user_watches").write_text("7\n")
    assert one(folders.inotify(find_folders(config), tmp_path)).level is Level.OK


def test_a_damaged_journal_is_a_fault_and_a_sound_one_is_not(tmp_path: Path) -> None:
    config = configured(tmp_path)
    all_folders = find_folders(config)
    (tmp_path / "state").mkdir()
    path = all_folders[0].journal
    with Journal(path):
        pass
    assert one(service.journal(config, all_folders[0], FILE)).level is Level.OK
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 4000)
    found = one(service.journal(config, all_folders[0], FILE))
    assert found.level is Level.FAULT
    assert "colordaemon journal rebuild --config /srv/it.yaml" in found.mend


def test_a_journal_of_an_older_version_is_a_warning(tmp_path: Path) -> None:
    config = configured(tmp_path)
    all_folders = find_folders(config)
    (tmp_path / "state").mkdir()
    with Journal(all_folders[0].journal):
        pass
    with sqlite3.connect(all_folders[0].journal) as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    assert one(service.journal(config, all_folders[0], FILE)).level is Level.WARNING


def test_a_running_daemon_is_asked_and_a_paused_one_is_a_warning(start: Start) -> None:
    running = start()
    running.start()
    all_folders = find_folders(load_config(running.config))[0]
    running.wait_ready()
    assert levels(service.daemon(all_folders, FILE)) == {"daemon": Level.OK}
    running.ask("pause")
    assert levels(service.daemon(all_folders, FILE)) == {"daemon": Level.WARNING}
    running.stop()
    found = one(service.daemon(all_folders, FILE))
    assert found.found == "not running"
    assert found.mend.endswith("colordaemon watch --config /srv/it.yaml")


def test_a_unit_of_other_settings_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, file = configured(tmp_path), tmp_path / "config.yaml"
    real = install.system_units

    def below_tmp(*values: object) -> list[install.Unit]:
        units = real(*values)  # type: ignore[arg-type]
        return [install.Unit(tmp_path / unit.path.name, unit.text) for unit in units]

    monkeypatch.setattr(install, "system_units", below_tmp)
    monkeypatch.setattr(service, "_SYSTEMD", tmp_path / "none")
    assert "none installed" in one(service.unit(config, file)).found
    unit = tmp_path / "colordaemon.service"
    unit.write_text(below_tmp(config, file, install.this_program())[0].text)
    assert levels(service.unit(config, file)) == {"unit": Level.OK}
    unit.write_text("[Service]\n")
    assert levels(service.unit(config, file)) == {"unit": Level.WARNING}


def test_a_hook_that_is_not_executable_is_a_fault(tmp_path: Path) -> None:
    hook = tmp_path / "hook.sh"
    hook.write_text("#!/bin/sh\n")
    config = Config(after=AfterSettings(hook=str(hook)))
    assert one(service.hook(config)).mend == f"chmod +x {hook}"
    hook.chmod(0o755)
    assert one(service.hook(config)).level is Level.OK


def test_a_check_that_fails_itself_is_a_fault_and_no_traceback() -> None:
    def broken() -> Iterable[Finding]:
        raise RuntimeError("one\ntwo")

    finding = one(findings_of("something", broken))
    assert (finding.level, finding.found) == (Level.FAULT, "RuntimeError: one; two")
