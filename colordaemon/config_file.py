"""Reads the settings from a YAML file, and explains each mistake with its line and column."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from colordaemon.config import Config, InboxSettings, Settings
from colordaemon.errors import ConfigError


def load_config(path: Path) -> Config:
    """Read a YAML file; what it leaves out keeps its default.

    Relative paths in it start at the file's own folder. Raises ConfigError, which lists every
    mistake as FILE:LINE:COLUMN: section.key: what was found and what was expected.
    """
    root = _compose(path)
    if root is None:
        return Config()
    places: _Places = {(): (root, root)}
    mistakes: list[_Mistake] = []
    data = _plain(root, (), places, mistakes)
    if isinstance(data, dict):  # a section whose options are all commented out reads as null
        data = {name: section for name, section in data.items() if section is not None}
    try:
        context = {"folder": path.absolute().parent}
        config = Config.model_validate({} if data is None else data, context=context)
    except ValidationError as error:
        # There is one error for each type that the setting accepts.
        mistakes += dict.fromkeys(_explain(detail, places) for detail in error.errors())
    if mistakes:
        mistakes.sort(key=lambda mistake: (mistake[0].line, mistake[0].column))
        raise ConfigError("\n".join(f"{_at(path, mark)}: {what}" for mark, what in mistakes))
    return config


def json_schema() -> dict[str, Any]:
    """What a configuration file may say, as a JSON Schema with a description of each setting.
    Sections may also be empty."""
    schema = Config.model_json_schema()
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "colordaemon"}
    described = _descriptions(EXAMPLE.read_text(encoding="utf-8"))
    for name, section in schema["properties"].items():
        if "$ref" in section:
            settings = schema["$defs"][section["$ref"].rpartition("/")[2]]
            for key, setting in settings["properties"].items():
                setting["description"] = described[name, key]
        if "$ref" in section or section.get("type") == "object":
            schema["properties"][name] = {"anyOf": [section, {"type": "null"}]}
        schema["properties"][name]["description"] = described[(name,)]
    return schema


def _descriptions(example: str) -> dict[tuple[str, ...], str]:
    """The comment above each key of a configuration, by section and key."""
    found, comment, section = dict[tuple[str, ...], str](), list[str](), ""
    for line in example.splitlines():
        if match := _COMMENT.fullmatch(line):
            comment.append(match[1])
            continue
        if match := _KEY.match(line):
            section = section if match[1] else match[2]
            found[(section, match[2]) if match[1] else (section,)] = " ".join(comment)
        comment = []
    return found


EXAMPLE = Path(__file__).with_name("config.yaml")  # every setting, and a sentence on each
_COMMENT, _KEY = re.compile(r" *# (.*)"), re.compile(r"(  )?([a-z0-9_]+):")
# Sections whose keys are the user's own: folders and patterns.
OPEN = ("models", "references", "candidates", "presets", "priorities")
_Places = dict[tuple[str, ...], tuple[yaml.Node, yaml.Node]]  # (section, key): key and value
_Mistake = tuple[yaml.Mark, str]
_NULL, *_OTHER_TAGS = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "map", "seq", "str"))


class _TextLoader(yaml.SafeLoader):
    """YAML in which every scalar but null is text; the type of the setting decides what it means.

    YAML 1.1 would read `preset: 8` as a number, `subset: no` as false, `minutes: 1:30` as 90 and
    `learning_rate: 4e-4` as text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  (declared by PyYAML)
        first: [(tag, pattern) for tag, pattern in resolvers if tag == _NULL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _compose(path: Path) -> yaml.Node | None:
    """The file as YAML nodes, which know their lines and columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return yaml.compose(text, _TextLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8 text: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        assert mark is not None
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{_at(path, mark)}: not valid YAML: {what}") from error
    except yaml.reader.ReaderError as error:
        line, column = text.count("\n", 0, error.position), text.rfind("\n", 0, error.position)
        place = f"{path}:{line + 1}:{error.position - column}"
        raise ConfigError(f"{place}: found control character {error.character:#04x}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: found hundreds of brackets inside brackets") from error


def _plain(
    node: yaml.Node, place: tuple[str, ...], places: _Places, mistakes: list[_Mistake]
) -> object:
    """A node as dicts and text; fills in `places`, and the `mistakes` that a dict cannot show."""
    label = _label(place)
    if node.tag not in (_NULL, *_OTHER_TAGS):
        mistakes.append((node.start_mark, f"{label}: found the tag {node.tag}, expected none"))
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == _NULL else node.value
    if isinstance(node, yaml.SequenceNode) and place == ("inboxes",):
        entries = [((*place, str(number)), entry) for number, entry in enumerate(node.value)]
        places.update({inner: (entry, entry) for inner, entry in entries})
        return [_plain(entry, inner, places, mistakes) for inner, entry in entries]
    if isinstance(node, yaml.SequenceNode) and _is_list_of_text(node):
        return [entry.value for entry in node.value]
    if isinstance(node, yaml.SequenceNode) or len(place) == 3:
        return node  # fits no setting: none is such a list or so deep, and an alias may hold itself
    result = {}
    for key, value in node.value:
        inner = (*place, key.value if isinstance(key, yaml.ScalarNode) else _shown(key))
        if inner in places:
            first = places[inner][0].start_mark.line + 1
            what = f"{_label(inner)}: found a second time, it stands on line {first} already"
            mistakes.append((key.start_mark, what))
        places[inner] = key, value
        result[inner[-1]] = _plain(value, inner, places, mistakes)
    return result


def _is_list_of_text(node: yaml.SequenceNode) -> bool:
    return all(isinstance(entry, yaml.ScalarNode) and entry.tag != _NULL for entry in node.value)


def _explain(detail: ErrorDetails, places: _Places) -> _Mistake:
    """Where a mistake stands, and what it is in plain words."""
    place = tuple(str(step) for step in detail["loc"])
    while place not in places:  # the last step names one of several kinds of value that would do
        place = place[:-1]
    label, (key, value) = _label(place), places[place]
    section = _section_of(place)
    if detail["type"] == "missing":
        return value.start_mark, f"{label}: found no {detail['loc'][-1]}, expected one"
    if detail["type"] == "extra_forbidden":
        known = list(section.model_fields)
        close = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
        return key.start_mark, f"{label}: unknown key, {hint}"
    found, expected = _shown(value), _expected(detail, place, section)
    return value.start_mark, f"{label}: found {found}, expected {expected}"


def explain_values(error: ValidationError) -> list[str]:
    """Mistakes in settings of no file, as SECTION.KEY: what was found and what was expected."""
    mistakes = []
    for detail in error.errors():
        place = tuple(str(step) for step in detail["loc"][:2])  # a third one names a kind of value
        expected = _expected(detail, place, _section_of(place))
        mistakes.append(f"{_label(place)}: found {detail['input']}, expected {expected}")
    return [*dict.fromkeys(mistakes)]


def _expected(detail: ErrorDetails, place: tuple[str, ...], section: type[Settings]) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if len(place) < 2:
        return _expected_at_the_top(place[0]) if place else "a mapping of sections"
    if place[0] == "inboxes" and len(place) == 2:
        return "a mapping of settings"
    return _in_words(_schema_of(place, section))


def _label(place: tuple[str, ...]) -> str:
    """The name of a setting. People count inboxes from 1."""
    if place[:1] == ("inboxes",) and place[1:2] and place[1].isdecimal():
        place = ("inboxes", str(int(place[1]) + 1), *place[2:])
    return ".".join(place) or "the file"


def _section_of(place: tuple[str, ...]) -> type[Settings]:
    """Whose settings the last step of a place is one of."""
    if len(place) < 2:
        return Config
    return InboxSettings if place[0] == "inboxes" else type(getattr(Config(), place[0]))


def _schema_of(place: tuple[str, ...], section: type[Settings]) -> dict[str, Any]:
    """What is allowed at a place inside a section."""
    if place[0] in OPEN:
        section, steps = Config, place
    else:
        steps = place[2:] if place[0] == "inboxes" else place[1:]
    schema: dict[str, Any] = section.model_json_schema()["properties"][steps[0]]
    inner: dict[str, Any] = schema.get("additionalProperties", {})
    return schema if len(steps) == 1 else inner


def _expected_at_the_top(key: str) -> str:
    schema = Config.model_json_schema()["properties"][key]
    if schema.get("type") == "array":
        return "a list of mappings"
    return _in_words(schema) if "anyOf" in schema else "a mapping of settings"


def _in_words(schema: dict[str, Any]) -> str:
    """What a JSON schema allows, as in "an integer from 0 to 63 or null"."""
    if "anyOf" in schema:
        return " or ".join(_in_words(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    words = _KINDS[schema.get("format", schema["type"])]
    if "minimum" in schema and "maximum" in schema:
        return f"{words} from {schema['minimum']:g} to {schema['maximum']:g}"
    bounds = [f"{word} {schema[key]:g}" for key, word in _BOUNDS.items() if key in schema]
    return " ".join([words, " and ".join(bounds)]).rstrip()


_KINDS = {
    "array": "a list of text",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "a mapping of names to text",
    "path": "a path",
    "string": "text",
}
_BOUNDS = {
    "minimum": "of at least",
    "exclusiveMinimum": "above",
    "maximum": "of at most",
    "exclusiveMaximum": "below",
    "multipleOf": "divisible by",
}


def _shown(node: yaml.Node) -> str:
    """What stands in the file, short, on one line."""
    if not isinstance(node, yaml.ScalarNode):
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    if node.tag == _NULL:
        return "nothing"
    text = node.value if len(node.value) <= 60 else node.value[:57] + "..."
    return text if text and not text.strip("-.0123456789") else repr(text)


def _at(path: Path, mark: yaml.Mark) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}"
