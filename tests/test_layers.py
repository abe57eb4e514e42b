"""Imports go one way, as the house is drawn: each room knows only the rooms below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "colordaemon"
COMMON = {"errors", "config", "color", "transfer", "suffixes", "memory", "durable"}
MAY_IMPORT = {
    "errors": set[str](),
    "config": set[str](),
    "config_file": {"errors", "config"},
    "transfer": set[str](),
    "color": {"transfer"},
    "suffixes": set[str](),
    "memory": set[str](),
    "durable": set[str](),
    "network": COMMON,
    "media": COMMON,
    "film": COMMON | {"network", "media"},
    "service": COMMON | {"config_file", "network", "media", "film"},
    "pictures": COMMON | {"network"},
    "judging": COMMON | {"network", "pictures"},
    "screening": COMMON | {"network", "media", "film", "judging"},
    "training": COMMON | {"network", "pictures", "judging"},
    "cli": COMMON
    | {"config_file", "network", "media", "film", "service", "judging", "screening", "training"},
    "__main__": {"cli"},
    "__init__": set[str](),
}


def room_of(path: Path) -> str:
    """cli may be a module or a folder; the same goes for every other room."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path, source: str) -> set[str]:
    """Rooms that a module imports, at its top or anywhere inside."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node)
            names += [f"{base}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    known = {entry.stem for entry in PACKAGE.iterdir()}
    return {p[1] for p in parts if p[0] == "colordaemon" and len(p) > 1 and p[1] in known}


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    here = ("colordaemon", *path.relative_to(PACKAGE).parent.parts)
    base = here[: len(here) - node.level + 1]
    return ".".join((*base, *([node.module] if node.module else [])))


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{path}: a room that the house does not have"
    strangers = imported_rooms(path, path.read_text(encoding="utf-8")) - MAY_IMPORT[room] - {room}
    assert not strangers, f"{path} imports {sorted(strangers)}"


def test_the_check_sees_imports_within_functions_and_relative_ones() -> None:
    module = PACKAGE / "film" / "imaginary.py"
    source = "def f():\n    from ..media import probe\n    import colordaemon.network.model\n"
    assert imported_rooms(module, source) == {"media", "network"}
