"""Every row of the fault table of docs/RUNS.md is a test.

A test says which row it stands for by ``@pytest.mark.fault``, with the row's first cell.
"""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "RUNS.md"


def faults_in_the_table() -> list[str]:
    section = DOCUMENT.read_text("utf-8").partition("## Faults\n")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("|")]
    # Heading and rule come first; each row has three cells.
    assert all(len(row) == 5 for row in rows)
    return [row[1].strip() for row in rows[2:]]


def faults_of(file: Path) -> set[str]:
    """The faults that a file's tests are marked with."""
    return {
        call.args[0].value
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for call in node.decorator_list
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.fault"
    }


def test_every_row_is_a_test_and_every_fault_tested_is_a_row():
    table = faults_in_the_table()
    tested = set().union(*map(faults_of, TESTS.rglob("test_*.py")))
    assert len(table) == len(set(table)) > 15
    assert tested == set(table)
