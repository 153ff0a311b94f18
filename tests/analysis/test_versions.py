"""This version beside itself, and beside ones that are broken."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import aiparsing_d2
from aiparsing_d2 import modeling
from aiparsing_d2.analysis.version_worker import optimized
from aiparsing_d2.analysis.versions import differences
from aiparsing_d2.cli import main

ROOT = Path(aiparsing_d2.__file__).parents[1]
TINY = "--device cpu --repeats 2 --warm-up 0 --max-seconds 600 --num-threads 1".split()
SMALL = "--people 2 --image-size 64 80".split()


@pytest.fixture(autouse=True)
def threads():
    """What the command sets for its process."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def run(folder, *arguments):
    assert main(["benchmark", *arguments, *TINY, "--output", str(folder)]) == 0
    return json.loads((folder / f"benchmark_{arguments[0]}.json").read_text())["rows"]


@pytest.mark.parametrize(
    "arguments, outputs",
    [
        (
            ["infer", "--config", "demo/aiparsing_tiny_FPN_drawn_cihp", "--precisions", "fp32"],
            {"logits", "part_maps"},
        ),
        pytest.param(["paste", "--classes", "20"], {"part_maps", "scores"}, marks=pytest.mark.slow),
        pytest.param(
            ["compose"],
            {"category_map", "person_map", "region_map", "region_scores"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_version_equals_itself(tmp_path, arguments, outputs):
    other, this = run(tmp_path, *arguments, *SMALL, "--against", str(ROOT))
    assert (this["version"], other["version"]) == ("this", str(ROOT))
    assert this["differences"] == dict.fromkeys(outputs, 0)
    assert this["repeats"] == other["repeats"] == 2 and this["ms"] > 0
    ratios = [mine / others for mine, others in zip(this["all_ms"], other["all_ms"])]
    assert (this["ratio"]["low"], this["ratio"]["high"]) == (min(ratios), max(ratios))
    assert other["ratio"] is None


@pytest.fixture
def flags():
    """What allows TF32 to products and convolutions."""
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [flag.allow_tf32 for flag in flags]
    yield flags
    for flag, allowed in zip(flags, before):
        flag.allow_tf32 = allowed


@pytest.mark.parametrize(
    "precision, allowed", [("tf32", True), ("fp32", False), ("none", False), ("default", None)]
)
def test_a_worker_takes_tf32_where_it_is_asked_to(monkeypatch, flags, precision, allowed):
    taken = []
    monkeypatch.setattr(modeling, "optimize_for_inference", lambda model, name: taken.append(name))
    for before in (True, False):
        for flag in flags:
            flag.allow_tf32 = before
        optimized(None, precision)
        expected = before if allowed is None else allowed
        assert [flag.allow_tf32 for flag in flags] == [expected] * 2
    assert taken == ([] if precision == "none" else ["fp32"] * 2)


@pytest.fixture
def other_version(tmp_path):
    """A copy of the package."""
    package = tmp_path / "other" / "aiparsing_d2"
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "aiparsing_d2", package, ignore=ignored)
    return package


def test_no_speed_without_equal_outputs(tmp_path, other_version, capsys):
    module = other_version / "submissions" / "composition.py"
    with module.open("a") as file:
        file.write(
            "\nclass Composition(Composition):\n"
            "    @property\n"
            "    def category_map(self):\n"
            "        right = super().category_map\n"
            "        return np.where(right == 2, np.uint8(3), right)\n"
        )
    rows = run(tmp_path, "compose", *SMALL, "--against", str(other_version.parent))
    assert [row["version"] for row in rows] == [str(other_version.parent), "this"]
    for row in rows:
        assert row["ms"] is None and row["all_ms"] == [] and row["ratio"] is None
        assert row["error"].startswith("outputs differ: category_map by 0.")
        assert row["differences"]["person_map"] == 0
    assert "outputs differ: category_map" in capsys.readouterr().out


def test_a_version_that_fails_is_told(other_version, capsys):
    (other_version / "structures" / "__init__.py").write_text("raise OSError('no such luck')")
    arguments = ["paste", *SMALL, *TINY, "--against", str(other_version.parent)]
    assert main(["benchmark", *arguments]) == 1
    error = capsys.readouterr().err
    assert f"error: {other_version.parent}: the work failed: OSError: no such luck" in error


def test_a_folder_without_the_package_is_told(tmp_path, capsys):
    assert main(["benchmark", "paste", *SMALL, *TINY, "--against", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no package aiparsing_d2" in capsys.readouterr().err


def test_differences():
    mine = {"labels": torch.tensor([0, 1, 2, 3, 0]), "scores": torch.tensor([0.0, 2.0])}
    other = {"labels": torch.tensor([0, 1, 2, 4, 5]), "scores": torch.tensor([0.5, 2.5])}
    # Two of the four labels that are somebody's; half of a standard deviation of 1.
    assert differences(mine, other) == {"labels": 0.5, "scores": 0.5}
    assert differences(mine, mine) == {"labels": 0, "scores": 0}
    # NaN equals nothing, itself neither.
    broken = {**mine, "scores": mine["scores"] * math.nan}
    assert differences(broken, broken)["scores"] == math.inf
    with pytest.raises(ValueError, match="other shapes"):
        differences(mine, {**other, "labels": torch.zeros(4, dtype=torch.int64)})
