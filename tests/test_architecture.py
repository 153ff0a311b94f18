"""The rules of docs/ARCHITECTURE.md, held against the imports of the code."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aiparsing_d2"
DOCUMENT = ROOT / "docs" / "ARCHITECTURE.md"


def documented_rules() -> dict[str, set[str]]:
    """The table of rooms: room -> rooms that it may import."""
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]+ \| *(.*?) *\|$", DOCUMENT.read_text("utf-8"), re.MULTILINE
    )
    rules = {room: set(re.findall(r"`(\w+)`", rest)) for room, rest in rows}
    everything = {room for room, rest in rows if rest == "all"}
    return {room: set(rules) if room in everything else rest for room, rest in rules.items()}


def documented_single_modules() -> set[str]:
    (line,) = re.findall(r"^Single modules .+$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    return set(re.findall(r"`(\w+)` \(", line))


def imported_names(file: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in the file it does."""
    package = ["aiparsing_d2", *file.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            # "from aiparsing_d2 import data" names a room only behind the word import.
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def imported_rooms() -> dict[str, set[str]]:
    """Room or single module -> those that its files import, itself left out."""
    edges: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE).parts
        room = place[0].removesuffix(".py")
        names = imported_names(file)
        rooms = {name.split(".")[1] for name in names if re.match(r"aiparsing_d2\.\w", name)}
        edges.setdefault(room, set()).update(rooms - {room})
    return edges


RULES = documented_rules()
EDGES = imported_rooms()


def test_the_document_names_every_room_and_no_other():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(RULES) == rooms
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert documented_single_modules() == modules


@pytest.mark.parametrize("room", sorted(RULES))
def test_a_room_imports_only_what_it_may(room):
    allowed = RULES[room] | documented_single_modules()
    forbidden = EDGES[room] - allowed - {"__version__"}
    assert not forbidden, f"aiparsing_d2/{room} may not import {', '.join(sorted(forbidden))}"


@pytest.mark.parametrize("room, importing", [("drawn_scenes", ["analysis"]), ("analysis", ["cli"])])
def test_the_library_works_without(room, importing):
    assert [other for other, imported in EDGES.items() if room in imported] == importing


def test_the_rules_and_the_imports_have_no_circle():
    for graph in (RULES, EDGES):
        without_cli = {k: v - {"cli"} for k, v in graph.items() if k not in ("cli", "__main__")}
        graphlib.TopologicalSorter(without_cli).prepare()  # raises CycleError


def test_no_room_holds_more_than_a_quarter_of_the_library():
    lines = {
        room: sum(
            len(file.read_text("utf-8").splitlines()) for file in (PACKAGE / room).rglob("*.py")
        )
        for room in RULES
    }
    largest = max(lines, key=lines.get)
    assert lines[largest] <= 0.25 * sum(lines.values()), f"{largest}: {lines}"


def test_imports_are_found_in_every_form(tmp_path, monkeypatch):
    """So that the tests above can fail."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    file = tmp_path / "data" / "datasets" / "cihp.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import aiparsing_d2.modeling.fpn\n"
        "from aiparsing_d2 import evaluation\n"
        "from ..annotations import x\n"
        "from ... import engine\n"
        "def f():\n    from ...submissions.formats import y\n"
    )
    assert imported_rooms() == {"data": {"modeling", "evaluation", "engine", "submissions"}}
