"""The configuration file: what is read from it, and how mistakes in it are told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from colordaemon.cli.common import override
from colordaemon.config import (
    Config,
    InboxSettings,
    OutputSettings,
    Settings,
    TrainSettings,
)
from colordaemon.config_file import OPEN, load_config
from colordaemon.errors import ConfigError

EXAMPLE = Path(__file__).parents[1] / "config.yaml"
SECTIONS: dict[str, type[Settings]] = {
    name: type(section) for name, section in Config() if isinstance(section, Settings)
}
PLACES = ("inbox", "outbox", "state_dir")  # with `inboxes`, the only settings outside sections


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "colors.yaml"


def mistakes(path: Path, text: str) -> list[str]:
    """What load_config complains about, as LINE:COLUMN: … where it knows the place."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def commented_keys(text: str) -> dict[str, str]:
    """Every key of a YAML file, as section.key, and the comment that stands directly above it."""
    found: dict[str, str] = {}
    section = ""
    comment: list[str] = []
    for line in text.splitlines():
        if match := re.match(r"( *)(\w+):", line):
            section = section if match[1] else match[2]
            found[f"{section}.{match[2]}" if match[1] else section] = " ".join(comment)
        comment = [*comment, line.strip(" #")] if line.strip().startswith("#") else []
    return found


# The example file


def test_the_example_file_equals_the_defaults() -> None:
    assert load_config(EXAMPLE) == Config()


def test_the_example_file_names_every_setting_and_nothing_else() -> None:
    written = yaml.safe_load(EXAMPLE.read_text())
    assert [written.pop(name) for name in OPEN] == [{}] * len(OPEN)
    assert written.pop("inboxes") == []
    assert [written.pop(place) for place in PLACES] == [None] * 3
    assert {name: list(section) for name, section in written.items()} == {
        name: list(section.model_fields) for name, section in SECTIONS.items()
    }


def test_every_key_of_the_example_file_has_a_comment_sentence_above_it() -> None:
    comments = commented_keys(EXAMPLE.read_text())
    settings = sum(1 + len(section.model_fields) for section in SECTIONS.values())
    assert len(comments) == settings + len(["inboxes", *OPEN, *PLACES])
    for key, comment in comments.items():
        assert re.fullmatch(r"[A-Z].+\.", comment), f"{key}: {comment!r}"


def test_the_example_files_comments_tell_every_bound_choice_unit_and_null() -> None:
    comments = commented_keys(EXAMPLE.read_text())
    for section, settings in SECTIONS.items():
        for key, schema in settings.model_json_schema()["properties"].items():
            words = re.findall(r"[\w.]*\w", comments[f"{section}.{key}"].lower())
            for expected in facts(key, schema):
                assert expected in words, f"{section}.{key} does not say {expected!r}"


def test_the_example_files_comments_tell_what_an_inbox_may_have() -> None:
    comments = commented_keys(EXAMPLE.read_text())
    words = re.findall(r"[\w.-]*\w", comments["inboxes"].lower())
    for key, schema in InboxSettings.model_json_schema()["properties"].items():
        for expected in (key, *facts(key, schema)):
            assert expected in words or expected == "null", f"inboxes does not say {expected!r}"


def facts(key: str, schema: dict[str, Any]) -> list[str]:
    """The words that a comment about a setting has to contain."""
    bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    units = ("seconds", "percent", "minutes")
    words = [unit for unit in units if key.endswith(unit)]
    for choice in schema.get("anyOf", [schema]):
        words += [f"{choice[bound]:g}" for bound in bounds if bound in choice]
        words += choice.get("enum", [])
        words += ["null"] if choice.get("type") == "null" else []
    return words


# What is read


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "film:\n", "{}"])
def test_an_empty_file_or_section_means_all_defaults(config_file: Path, text: str) -> None:
    config_file.write_text(text)
    assert load_config(config_file) == Config()


def test_what_is_written_wins_and_the_rest_keeps_its_default(config_file: Path) -> None:
    config_file.write_text("film:\n  crf: 20\nphoto: {format: png}\n")
    config = load_config(config_file)
    assert (config.film.crf, config.photo.format) == (20, "png")
    assert config.film.segment_seconds == Config().film.segment_seconds


def test_the_setting_and_not_yaml_decides_what_a_value_means(config_file: Path) -> None:
    config_file.write_text(
        "film: {preset: 8, encoder_options: {g: 250, tune: no}}\n"
        "train: {subset: 1999-12-31, learning_rate: 1e-3, seed: 010}\n"
        "output: {overwrite: yes}\n"
    )
    config = load_config(config_file)
    assert config.film.preset == "8"
    assert config.film.encoder_options == {"g": "250", "tune": "no"}
    assert config.train.subset == "1999-12-31"
    assert config.train.learning_rate == 0.001
    assert config.train.seed == 10
    assert config.output.overwrite is True


def test_paths_start_at_the_folder_of_the_config_file(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file.write_text("model: {file: models/face}\noutput: {folder: /srv/done}\n")
    monkeypatch.chdir(config_file.parent.parent)
    config = load_config(Path(config_file.parent.name) / config_file.name)
    assert config.model.file == config_file.parent / "models" / "face"
    assert config.output.folder == Path("/srv/done")
    assert config.train.vgg is None


def test_the_daemons_three_folders_stand_outside_sections(config_file: Path) -> None:
    config_file.write_text("inbox: in\noutbox: ~/out\nstate_dir: /var/lib/colors\n")
    config = load_config(config_file)
    assert config.inbox == config_file.parent / "in"
    assert config.outbox == Path("~/out").expanduser()
    assert config.state_dir == Path("/var/lib/colors")
    assert mistakes(config_file, "inbox: [a, b]\n") == [
        "1:8: inbox: found a list, expected a path or null"
    ]


def test_several_inboxes_are_a_list(config_file: Path) -> None:
    config_file.write_text(
        "inboxes:\n  - {inbox: a, outbox: out/a, preset: a.yaml, priority: 5}\n"
        "  - inbox: /b\n    outbox: ~/b\n    archive: old\n"
    )
    folder = config_file.parent
    config = load_config(config_file)
    assert (
        config.all_inboxes
        == config.inboxes
        == (
            InboxSettings(
                inbox=folder / "a", outbox=folder / "out/a", preset=folder / "a.yaml", priority=5
            ),
            InboxSettings(
                inbox=Path("/b"), outbox=Path("~/b").expanduser(), archive=folder / "old"
            ),
        )
    )


def test_the_short_form_is_a_list_of_one(config_file: Path) -> None:
    config_file.write_text("inbox: /in\noutbox: /out\n")
    short = load_config(config_file).all_inboxes
    config_file.write_text("inboxes: [{inbox: /in, outbox: /out}]\n")
    assert short == load_config(config_file).all_inboxes
    assert Config().all_inboxes == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("inboxes: 3", "1:10: inboxes: found 3, expected a list of mappings"),
        ("inboxes: {a: b}", "1:10: inboxes: found a mapping, expected a list of mappings"),
        ("inboxes: [x]", "1:11: inboxes.1: found 'x', expected a mapping of settings"),
        ("inboxes: [[x]]", "1:11: inboxes.1: found a list, expected a mapping of settings"),
        ("inboxes:\n  - {inbox: a}", "2:5: inboxes.1: found no outbox, expected one"),
        (
            "inboxes:\n  - {inbox: a, outbox: b}\n  - {inbox: c, outbox: d, priority: 1001}",
            "3:37: inboxes.2.priority: found 1001, expected an integer from -1000 to 1000",
        ),
        (
            "inboxes: [{inbox: a, outbox: b, presets: c}]",
            "1:33: inboxes.1.presets: unknown key, did you mean 'preset'?",
        ),
        (
            "inboxes: [{inbox: a, inbox: b, outbox: c}]",
            "1:22: inboxes.1.inbox: found a second time, it stands on line 1 already",
        ),
        (
            "inbox: a\ninboxes: [{inbox: b, outbox: c}]",
            "2:10: inboxes: found a list, expected none beside inbox and outbox",
        ),
        ("priorities: {a: x}", "priorities.a: found 'x', expected an integer from -1000 to 1000"),
    ],
)
def test_mistakes_in_inboxes_are_told(config_file: Path, text: str, told: str) -> None:
    (line,) = mistakes(config_file, text)
    assert told in line


def test_models_start_at_the_folder_of_the_config_file_too(config_file: Path) -> None:
    config_file.write_text('models:\n  faces: face.st\n  "scan-*": /models/scan.st\n')
    assert load_config(config_file).models == {
        "faces": config_file.parent / "face.st",
        "scan-*": Path("/models/scan.st"),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: face.st", "models: found 'face.st', expected a mapping of settings"),
        ("models:\n  faces: [a, b]", "models.faces: found a list, expected a path"),
    ],
)
def test_mistakes_in_models_are_told(config_file: Path, text: str, told: str) -> None:
    (line,) = mistakes(config_file, text)
    assert told in line


def test_a_tilde_is_the_home_folder(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config_file.write_text("output: {folder: ~/done}")
    assert load_config(config_file).output.folder == Path("/home/ada/done")


def test_anchors_and_aliases_are_harmless(config_file: Path) -> None:
    config_file.write_text("model: {device: &where cpu}\nfilm: {encoder_options: {x: *where}}\n")
    assert load_config(config_file).film.encoder_options == {"x": "cpu"}


def test_a_byte_order_mark_and_windows_line_ends_are_harmless(config_file: Path) -> None:
    config_file.write_bytes(b"\xef\xbb\xbffilm:\r\n  crf: 20\r\n")
    assert load_config(config_file).film.crf == 20


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().film.crf = 3


# How mistakes are told


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(config_file: Path) -> None:
    text = "film:\n  crf: 99\n  segment_secnds: 12\n\nmodel:\n    quality: blurry\n"
    assert mistakes(config_file, text) == [
        "2:8: film.crf: found 99, expected an integer from 0 to 63 or null",
        "3:3: film.segment_secnds: unknown key, did you mean 'segment_seconds'?",
        "6:14: model.quality: found 'blurry', expected one of draft, standard, best",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flim: {crf: 9}", "1:1: flim: unknown key, did you mean 'film'?"),
        (
            "photo: {zoom: 9}",
            "1:9: photo.zoom: unknown key, expected one of format, quality",
        ),
        ("~: 1", "1:1: ~: unknown key, expected one of inbox, outbox, inboxes, state_dir, model, "),
        ("photo: best", "1:8: photo: found 'best', expected a mapping of settings"),
        ("photo: [1]", "1:8: photo: found a list, expected a mapping of settings"),
        ("train: {side: 33}", "an integer of at least 32 and divisible by 32"),
        ("train: {held_out: 1}", "found 1, expected a number above 0 and below 1"),
        ("train: {minutes: 0}", "found 0, expected a number above 0 or null"),
        ("train: {minutes: inf}", "found 'inf', expected a number above 0 or null"),
        ("train: {minutes: 1:30}", "found '1:30', expected a number above 0 or null"),
        ("train: {epochs: }", "found nothing, expected an integer of at least 1"),
        ("train: {epochs: yes}", "found 'yes', expected an integer of at least 1"),
        ("train: {epochs: 2.5}", "found 2.5, expected an integer of at least 1"),
        ("output: {overwrite: maybe}", "found 'maybe', expected true or false"),
        ("model: {file: [a]}", "1:15: model.file: found a list, expected a path or null"),
        ("model: {file: ~nobody-here/x}", "expected a path in the home of a known user"),
        ("film: {encoder_options: 3}", "found 3, expected a mapping of names to text"),
        (
            "film:\n  encoder_options:\n    g: [1]",
            "3:8: film.encoder_options.g: found a list, expected text",
        ),
        ("film: {preset: !env X}", "1:16: film.preset: found the tag !env, expected none"),
        ("- film", "1:1: the file: found a list, expected a mapping of sections"),
        ("film", "1:1: the file: found 'film', expected a mapping of sections"),
        ("a: b: c", "1:5: not valid YAML: mapping values are not allowed here"),
        ("film: {crf: 3\n", "2:1: not valid YAML: while parsing a flow mapping"),
        ("film:\n\tcrf: 1", "2:1: not valid YAML"),
        ("film: {}\n---\nfilm: {}", "2:1: not valid YAML: expected a single document"),
        ("film: *here", "1:7: not valid YAML: found undefined alias"),
        ("film:\n  preset: \x01", "2:11: found control character 0x01"),
        ("[" * 5000, "found hundreds of brackets inside brackets"),
    ],
)
def test_a_mistake_is_told_in_plain_words(config_file: Path, text: str, told: str) -> None:
    (line,) = mistakes(config_file, text)
    assert told in line


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_can_say_what_it_expected(config_file: Path, section: str) -> None:
    keys = list(SECTIONS[section].model_fields)
    text = f"{section}:\n" + "".join(f"  {key}: [[1]]\n" for key in keys)
    for key, line in zip(keys, mistakes(config_file, text), strict=True):
        assert f" {section}.{key}: found a list, expected " in line


def test_a_list_of_text_is_taken_where_one_is_expected_and_nowhere_else(config_file: Path) -> None:
    config_file.write_text("train: {held_out_sources: [one, 2]}\n")
    assert load_config(config_file).train.held_out_sources == ("one", "2")
    for text, expected in (
        ("train: {held_out_sources: one}", "found 'one', expected a list of text"),
        ("train: {held_out_sources: [one, null]}", "found a list, expected a list of text"),
        ("train: {most_per_source: 2}", "found 2, expected a number above 0 and of at most 1"),
        ("film: {crf: [20]}", "found a list, expected an integer from 0 to 63 or null"),
    ):
        (line,) = mistakes(config_file, text)
        assert line.endswith(expected)


def test_a_key_given_twice_is_a_mistake_even_if_both_agree(config_file: Path) -> None:
    text = "film:\n  crf: 20\n  preset: slow\n  crf: 20\nphoto: {}\nfilm: {}\n"
    assert mistakes(config_file, text) == [
        "4:3: film.crf: found a second time, it stands on line 2 already",
        "6:1: film: found a second time, it stands on line 1 already",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "inboxes: &i [*i]",
        "inboxes: [&i {inbox: *i}]",
        "model: &m {file: *m}",
        "film: {encoder_options: &o {x: *o}}",
        "&r {model: *r}",
    ],
)
def test_an_alias_that_holds_itself_is_told_like_any_mistake(config_file: Path, text: str) -> None:
    assert mistakes(config_file, text)


def test_aliases_that_multiply_a_billionfold_are_told_at_once(config_file: Path) -> None:
    rows = ["a0: &a0 [x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert len(mistakes(config_file, "\n".join(rows))) == 30


def test_a_long_value_is_told_on_one_short_line(config_file: Path) -> None:
    (line,) = mistakes(config_file, f'model: {{device: "{"gpu" * 1000}\\n"}}')
    assert len(line) < 150


@pytest.mark.parametrize(
    "name", ["color{suffix}", "{stem}/x", "..\\{stem}", "{stem}{frame}", "{stem:>9}", "{stem}}", ""]
)
def test_an_output_name_needs_the_stem_and_no_other_field_or_folder(name: str) -> None:
    with pytest.raises(ValidationError, match=r"text with \{stem\}"):
        OutputSettings(name=name)


@pytest.mark.parametrize("name", ["{stem}", "{stem}{suffix}", "color of {stem} ({stem}){suffix}"])
def test_an_output_name_may_use_stem_and_suffix_freely(name: str) -> None:
    assert OutputSettings(name=name).name == name


def test_a_bad_output_name_is_told_with_its_place(config_file: Path) -> None:
    (line,) = mistakes(config_file, "output:\n  name: 'x/{stem}'\n")
    assert line.startswith("2:9: output.name: found 'x/{stem}', expected text with {stem}")


@pytest.mark.parametrize("hook", ["say 'done", "'  '"])
def test_a_hook_is_a_command_line(config_file: Path, hook: str) -> None:
    (line,) = mistakes(config_file, f"after: {{hook: {hook}}}\n")
    assert "after.hook" in line and "expected a command line" in line


def test_a_webhook_is_a_web_address(config_file: Path) -> None:
    (line,) = mistakes(config_file, "after: {webhook: file:///etc/passwd}\n")
    assert line.endswith("expected an address that begins with http:// or https://, or null")


def test_a_file_that_is_not_utf_8_is_told(config_file: Path) -> None:
    config_file.write_bytes("model: {file: café}".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"colors\.yaml: expected UTF-8 text: .*0xe9"):
        load_config(config_file)


def test_a_missing_file_or_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: there is no such file"):
        load_config(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_settings_built_in_code_leave_paths_alone() -> None:
    assert TrainSettings(vgg=Path("vgg.safetensors")).vgg == Path("vgg.safetensors")


@pytest.mark.parametrize(
    ("section", "option", "value", "expected"),
    [
        ("model", "saturation", 3.0, "a number from 0 to 2"),
        ("train", "epochs", -1, "an integer of at least 1"),
        ("film", "stride", 99, "an integer from 1 to 16 or auto"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_like_one_in_the_file(
    section: str, option: str, value: object, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        override(Config(), **{section: {option: value}})
    said = f"command line: {section}.{option}: found {value}, expected {expected}"
    assert str(caught.value) == said
