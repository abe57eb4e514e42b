"""The command line itself: help, completion, manual page, typing errors, what it imports."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import jsonschema
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from colordaemon import __version__
from colordaemon.cli import common
from colordaemon.cli.common import app, refuse_beside
from colordaemon.cli.help import HEADINGS
from colordaemon.cli.manual import page
from colordaemon.config import Config
from colordaemon.config_file import json_schema, load_config
from colordaemon.errors import ConfigError

HEAVY = {"torch", "av", "cv2", "pyvips", "numpy"}
EXAMPLE = Path(__file__).parents[1] / "config.yaml"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, the program itself and groups as well."""

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for word, inner in getattr(command, "commands", {}).items():
            yield from below(f"{name} {word}", inner)

    yield from below("colordaemon", typer.main.get_command(app))


COMMANDS = dict(commands())


def invoke(*words: object) -> tuple[int, str]:
    """Exit code and what is said, on a terminal wide enough for every line."""
    done = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "400", "TERM": "dumb"})
    return done.exit_code, done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_ends_with_two_examples_that_parse(name: str) -> None:
    code, said = invoke(*name.split()[1:], "--help")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    assert code == 0 and lines[-3] == "Examples:", lines[-4:]
    for example in lines[-2:]:
        words = shlex.split(example)
        assert example.startswith(name if name != "colordaemon" else "colordaemon ")
        command: Any = COMMANDS["colordaemon"]
        words = words[1:]
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        command.make_context(command.name, words)  # raises if it does not parse


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["once", "--help"], ["watch", "--help"], ["status"], ["queue"]]
)
def test_help_and_status_import_nothing_that_takes_long(tmp_path: Path, words: list[str]) -> None:
    if words[-1:] in (["status"], ["queue"]):
        for name in ("in", "out", "state"):
            (tmp_path / name).mkdir()
        config = tmp_path / "config.yaml"
        config.write_text("inbox: in\noutbox: out\nstate_dir: state\n")
        words = [*words, "--config", str(config)]
    assert not HEAVY & set(imported(words, {}))


def test_completion_imports_nothing_that_takes_long_and_knows_commands_and_options() -> None:
    for line, expected in (("colordaemon onc", "once"), ("colordaemon once --sat", "--saturation")):
        count = len(line.split()) - 1
        complete = {"COMP_WORDS": line, "COMP_CWORD": str(count)}
        found = {"_COLORDAEMON_COMPLETE": "complete_bash", **complete}
        modules = imported([], found)
        assert not HEAVY & set(modules)
        done = subprocess.run(
            [sys.executable, "-m", "colordaemon"],
            env=os.environ | found, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert expected in done.stdout.split()


def imported(words: list[str], environment: dict[str, str]) -> list[str]:
    """The modules that the program has imported when it ends."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        f"sys.argv = ['colordaemon', *{words!r}]\n"
        "from colordaemon.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    modules = done.stderr.splitlines()[-1].split()
    assert "colordaemon.cli" in modules
    return modules


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_completion_for_each_shell(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "colordaemon"],
        env=os.environ | {"_COLORDAEMON_COMPLETE": f"source_{shell}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "_COLORDAEMON_COMPLETE" in done.stdout
    program = shutil.which(shell)
    if program:  # whose own parser finds no mistake in it
        subprocess.run([program, "-n", "-c", done.stdout], check=True)  # noqa: S603


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_torch_wait_without_spinning_unless_that_is_asked_for(
    given: str | None, expected: str
) -> None:
    others = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = (
        "import atexit, os, sys; from colordaemon.cli import main;"
        "atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules));"
        "sys.argv = ['colordaemon', 'once', '--help']; main()"
    )
    environment = others | ({"OMP_WAIT_POLICY": given} if given else {})
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith(f"{expected} False\n")  # in time: torch reads it as it is loaded


def test_the_version_tells_those_of_ffmpeg_and_torch() -> None:
    code, said = invoke("--version")
    assert code == 0 and said.startswith(f"colordaemon {__version__} (")
    assert f"FFmpeg {av.ffmpeg_version_info}" in said and str(torch.__version__)[:4] in said


# The manual page


def test_the_manual_page_has_every_command_and_option() -> None:
    text = page().replace(r"\-", "-")
    for name, command in COMMANDS.items():
        if hasattr(command, "commands"):
            continue
        assert f'.SS "{name} ' in text
        context = command.make_context(name.split()[-1], [], resilient_parsing=True)
        for option in (name for each in command.get_params(context) for name in each.opts):
            assert option in text or not option.startswith("-")
    assert text.count("\n.SS ") == sum(not hasattr(each, "commands") for each in COMMANDS.values())


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_the_manual_page_is_one_that_man_reads_without_a_complaint() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Kutf8", "-Tutf8"],  # noqa: S607
        input=page(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr
    plain = re.sub("\x1b\\[[0-9;]*m", "", done.stdout)
    assert "colordaemon once film.mp4 portrait.tif" in plain


# Help on a narrow terminal


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_cuts_nothing_off(name: str) -> None:
    words = [*name.split()[1:], "--help"]
    said = CliRunner().invoke(app, words, env={"COLUMNS": "80", "TERM": "dumb"}).output
    assert max(map(len, said.splitlines())) <= 80 and "…" not in said.replace(",…", "")
    context = COMMANDS[name].make_context(name, [], resilient_parsing=True)
    for option in (each for parameter in context.command.params for each in parameter.opts):
        assert option in said.split("Options:")[1] or not option.startswith("-")
    for command in getattr(COMMANDS[name], "commands", {}).values():
        assert " ".join(command.help.split("\n\n")[0].split()) in " ".join(said.split())


def test_every_command_stands_below_a_heading_of_the_help() -> None:
    below = [name for names in HEADINGS.values() for name in names]
    assert sorted(below) == sorted(COMMANDS["colordaemon"].commands)
    assert invoke("--help")[1].index("once") < invoke("--help")[1].index("bench")


# Typing errors


def test_a_choice_that_does_not_exist_is_answered_with_those_that_do() -> None:
    code, said = invoke("once", "film.mp4", "--codec", "vp9")
    assert code == 2 and "'--codec': 'vp9' is not one of 'h264', 'hevc'," in said


def test_without_a_configuration_the_option_for_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "config.yaml"
    monkeypatch.setattr(common, "SYSTEM_CONFIG", nowhere)
    with pytest.raises(ConfigError, match=r"config\.yaml: there is no such file; --config FILE"):
        common.load(nowhere)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["onec", "film.mp4"], "'once'"),
        (["stauts"], "'status'"),
        (["once", "film.mp4", "--ouptut", "x"], "--output"),
        (["once", "film.mp4", "--saturaton", "1"], "--saturation"),
        (["journal", "chekc"], "'check'"),
        (["config", "shema"], "'schema'"),
    ],
)
def test_a_typing_error_is_answered_with_what_was_meant(words: list[str], meant: str) -> None:
    code, said = invoke(*words)
    assert code == 2 and f"Did you mean {meant}?" in said


# The configuration


def test_an_empty_word_is_refused_and_not_taken_for_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["once", ""])
    assert result.exit_code == 2
    assert "found an empty word" in result.output


def test_check_says_every_mistake_or_that_there_is_none(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("film:\n  crf: 17\n")
    assert invoke("config", "check", config) == (
        0,
        f"{config}: no mistakes (no inbox, 0 presets)\n",
    )
    config.write_text("inbox: in\noutbox: in/out\nstate_dir: state\npresets: {a: a.yaml}\n")
    assert invoke("config", "check", config)[0] == 78  # the preset is missing
    (tmp_path / "a.yaml").write_text("film: {crff: 3}\n")
    code, _ = invoke("config", "check", config)
    assert code == 78
    (tmp_path / "a.yaml").write_text("film: {crf: 3}\n")
    assert invoke("config", "check", config)[0] == 78  # the outbox lies in the inbox
    config.write_text("inbox: in\noutbox: out\nstate_dir: state\npresets: {a: a.yaml}\n")
    code, said = invoke("config", "check", config)
    assert (code, said) == (0, f"{config}: no mistakes (1 inbox, 1 preset)\n")


def test_what_show_prints_is_the_same_configuration(tmp_path: Path) -> None:
    config, again = tmp_path / "config.yaml", tmp_path / "again.yaml"
    config.write_text("inbox: in\nfilm:\n  crf: 17\nmodels: {faces: faces.safetensors}\n")
    code, said = invoke("config", "show", "--config", config)
    again.write_text(said)
    assert code == 0 and load_config(again) == load_config(config)
    assert yaml.safe_load(invoke("config", "show")[1])["film"]["crf"] is None


def test_the_schema_accepts_the_example_and_refuses_what_we_refuse(tmp_path: Path) -> None:
    code, said = invoke("config", "schema")
    schema = json.loads(said)
    assert code == 0 and schema == json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    # PyYAML takes this for text, as YAML 1.1 does; we and editors do not.
    example = yaml.safe_load(EXAMPLE.read_text().replace("4e-4", "0.0004"))
    assert not list(validator.iter_errors(example))
    assert not list(validator.iter_errors({"film": None, "inbox": "in"}))
    assert set(schema["properties"]) == set(Config.model_fields)
    mistakes: list[dict[str, Any]] = [
        {"modle": {}},
        {"film": {"crf": 64}},
        {"film": {"codec": "h265"}},
        {"film": 3},
    ]
    for wrong in mistakes:
        assert list(validator.iter_errors(wrong))
    file = tmp_path / "schema.json"
    assert invoke("config", "schema", "-o", file) == (0, "")
    assert json.loads(file.read_text()) == schema


def test_the_schema_says_what_each_setting_means() -> None:
    schema = json_schema()
    sections = [
        schema,
        *(schema["$defs"][name] for name in schema["$defs"] if name != "InboxSettings"),
    ]
    silent = [
        name
        for section in sections
        for name, setting in section.get("properties", {}).items()
        if not setting.get("description", "").endswith(".")
    ]
    assert not silent
    crf = schema["$defs"]["FilmSettings"]["properties"]["crf"]["description"]
    assert crf.startswith("Constant rate factor from 0 to 63")


def test_an_example_of_a_configuration_is_printed_or_written_to_a_new_file(tmp_path: Path) -> None:
    code, said = invoke("config", "example")
    assert code == 0 and said == EXAMPLE.read_text()
    file = tmp_path / "config.yaml"
    assert invoke("config", "example", "-o", file) == (0, "")
    assert load_config(file) == load_config(EXAMPLE)
    code, said = invoke("config", "example", "-o", file)
    assert code != 0 and "config.yaml" in said


@pytest.mark.parametrize(
    "words", [("status", "--watch", "--ignored"), ("install-service", "--per-gpu", "--user")]
)
def test_options_that_make_no_sense_together_are_refused_by_name(
    words: tuple[str, ...],
) -> None:
    with pytest.raises(ConfigError, match="--watch makes no sense beside --ignored"):
        refuse_beside("--ignored", {"--other": None, "--watch": True}, "that list is made once")
    code, _ = invoke(*words)
    assert code == 78
