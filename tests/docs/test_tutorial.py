"""docs/tutorial.ipynb, cell by cell, as Jupyter would run it."""

import ast
import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
CONTENT = json.loads(NOTEBOOK.read_text("utf-8"))


def run_cell(source: str, names: dict) -> object:
    """Run a cell; give the value of its last line, which Jupyter shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    return last and eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the code cells show, run one after the other in the notebook's folder."""
    names = {"__name__": "tutorial"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(NOTEBOOK.parent)
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tutorial")))
        patch.setattr("tempfile.tempdir", None)  # made anew from the environment
        try:
            cells = [cell for cell in CONTENT["cells"] if cell["cell_type"] == "code"]
            yield [run_cell("".join(cell["source"]), names) for cell in cells], names
        finally:
            for catalog in (DatasetCatalog, MetadataCatalog):
                if "tutorial_val" in catalog.list():
                    catalog.remove("tutorial_val")


def test_it_is_committed_without_outputs():
    for cell in CONTENT["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    assert len({cell["id"] for cell in CONTENT["cells"]}) == len(CONTENT["cells"])


def test_what_it_shows(shown):
    values, names = shown
    assert values[0]._repr_png_().startswith(b"\x89PNG")
    pictures = [value for value in values if isinstance(value, Image.Image)]
    assert [picture.mode for picture in pictures] == ["RGBA", "RGB", "RGB"]
    assert len(names["people"]) == 1 and len(names["records"]) == 4
    assert 0 <= values[-1]["mIoU"] <= 100


def test_it_leaves_the_folder_as_it_was(shown):
    _, names = shown
    assert names["folder"].is_dir() and NOTEBOOK.parent not in names["folder"].parents
