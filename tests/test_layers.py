"""Imports go one way, as the house is drawn: every module knows only the layers below its own."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "colordaemon"
# From the ground up; what stands in one layer does not know the others there.
LAYERS = (
    ("choices",),
    (
        "clock",
        "errors",
        "child",
        "config",
        "suffixes",
        "memory",
        "transfer",
        "durable",
        "logs",
        "__init__",
    ),
    ("color", "work_context", "sidecar_names"),
    ("config_file", "network", "media", "inbox"),
    ("guide",),
    ("pictures", "film"),
    ("cluster",),
    ("convert", "evaluation"),
    ("bench", "install", "service", "training"),
    ("doctor", "web"),
    ("cli",),
    ("__main__",),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


def room_of(path: Path) -> str:
    """The folder of a module below the package, or a module right there."""
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
    return {p[1] for p in parts if p[0] == "colordaemon" and len(p) > 1 and p[1] in LAYER}


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    here = ("colordaemon", *path.relative_to(PACKAGE).parent.parts)
    base = here[: len(here) - node.level + 1]
    return ".".join((*base, *([node.module] if node.module else [])))


def test_every_module_imports_only_from_layers_below_its_own() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        assert room in LAYER, f"{path}: a room that the house does not have"
        for other in imported_rooms(path, path.read_text(encoding="utf-8")) - {room}:
            if LAYER[other] >= LAYER[room]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {other}")
    assert not wrong


def test_the_check_sees_imports_within_functions_and_relative_ones() -> None:
    module = PACKAGE / "film" / "imaginary.py"
    source = "def f():\n    from ..media import probe\n    import colordaemon.network.model\n"
    assert imported_rooms(module, source) == {"media", "network"}
