import json
import time

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou

from aiparsing_d2.analysis import training_speed
from aiparsing_d2.analysis.drawn_inputs import people_boxes
from aiparsing_d2.analysis.measured_models import MODELS
from aiparsing_d2.analysis.measuring import PRECISIONS, Case, Settings, compare, measure
from aiparsing_d2.analysis.training_speed import ProposalsAroundPeople
from aiparsing_d2.cli import benchmark, main

CPU = torch.device("cpu")
TINY = "--device cpu --image-size 96 128 --repeats 1 --warm-up 0 --max-seconds 600".split()
NAMES = ["AIParsing", "AIParsing-light", "Parsing R-CNN", "Mask R-CNN"]


@pytest.fixture
def run(tmp_path):
    """Runs a command and reads what it wrote."""

    def run(command, *arguments):
        arguments = [*TINY, *arguments, "--output", str(tmp_path)]
        assert main(["benchmark", command, *arguments]) == 0
        return json.loads((tmp_path / f"benchmark_{command}.json").read_text())

    return run


def test_models(run, tmp_path, capsys):
    result = run("models", "--people", "2", "--precisions", "tf32", "fp32")
    rows = result["rows"]
    assert [row["model"] for row in rows] == NAMES
    assert [row["input_size"] for row in rows] == [[96, 128], [72, 96], [96, 128], [96, 128]]
    assert {row["rois"] for row in rows} == {row["people"] for row in rows} == {2}
    for row in rows:
        assert row["precision"] == "fp32"
        assert row["repeats"] == len(row["all_ms"]) == 1
        assert row["images_per_second"] == pytest.approx(1000 / row["ms"])
        assert row["error"] is None and row["peak_mib"] is None
    # Table IX: 8.9, 13.3 and 7.4 images a second.
    assert [row["paper_fps"] for row in rows] == [8.9, 13.3, 7.4, None]
    assert rows[2]["paper_ratio"] == pytest.approx(1.2027, abs=1e-4)
    assert rows[0]["ratio"] is None
    assert rows[1]["ratio"]["median"] == pytest.approx(rows[1]["ms"] / rows[0]["ms"])
    assert result["left_out"] == ["tf32: only GPUs have TF32"]
    table = (tmp_path / "benchmark_models.md").read_text()
    assert capsys.readouterr().out == table
    assert all(f"| {name} " in table for name in NAMES) and "only GPUs have TF32" in table


@pytest.mark.parametrize(
    "models",
    [
        ["aiparsing-light", "mask-rcnn"],
        pytest.param(["aiparsing", "parsing-rcnn"], marks=pytest.mark.slow),
    ],
)
def test_train(run, tmp_path, monkeypatch, models):
    # Few RoIs are fast: the person, and one box near by.
    monkeypatch.setattr(ProposalsAroundPeople, "COPIES", 1)
    build = training_speed.build

    def build_small(*args):
        model = build(*args)
        model.roi_heads.parsing_batch_size_per_image = 2
        return model

    monkeypatch.setattr(training_speed, "build", build_small)
    arguments = "--batch-sizes 2 --num-people 1 --precisions fp32 --models".split()
    rows = run("train", *arguments, *models)["rows"]
    assert [row["key"] for row in rows] == models
    for row in rows:
        assert row["batch_size"] == 2 and row["people"] == 1
        # Two in each image; random proposals may be positives of Mask R-CNN too.
        assert row["rois"] >= 4 if row["key"] == "mask-rcnn" else row["rois"] == 4
        assert list(row["stages_ms"]) == ["forward", "backward", "optimizer"]
        assert sum(row["stages_ms"].values()) == pytest.approx(row["ms"])
        assert row["images_per_second"] == pytest.approx(2000 / row["ms"])
    assert f"| {rows[0]['model']} " in (tmp_path / "benchmark_train.md").read_text()


def test_an_earlier_result_is_kept(tmp_path, capsys):
    (tmp_path / "benchmark_models.md").write_text("earlier")
    assert main(["benchmark", "models", *TINY, "--output", str(tmp_path)]) == 1
    assert "benchmark_models.md exists" in capsys.readouterr().err
    assert (tmp_path / "benchmark_models.md").read_text() == "earlier"


def test_without_time_all_is_left_out(run):
    arguments = "--max-seconds 0 --models aiparsing-light --people 1 5 --precisions fp32".split()
    result = run("models", *arguments)
    assert result["rows"] == []
    assert result["left_out"] == [
        f"AIParsing-light, people {n}, precision fp32: --max-seconds were over" for n in (1, 5)
    ]


def rounds(warm_up, repeats):
    return Settings(CPU, repeats, warm_up, deadline=time.monotonic() + 60)


def case_of(seconds, calls=None, name="", error=None, output=1.0):
    def run(clock):
        if calls is not None:
            calls.append(name)
        if error:
            raise error
        clock.marks = [("", 0.0), ("stage", next(seconds))]
        return torch.tensor(output)

    return Case(run)


def test_models_take_turns_and_are_compared_in_pairs():
    calls = []
    cases = {
        name: case_of(iter([9.0, *seconds]), calls, name)
        for name, seconds in {
            "aiparsing": [1.0, 2.0, 4.0],
            "mask-rcnn": [2.0, 3.0, 16.0],
            "parsing-rcnn": [2.0, 2.0, 2.0],
        }.items()
    }
    results = measure(cases, rounds(1, 3))
    assert calls == list(cases) * 4
    assert results["aiparsing"].totals == [1000, 2000, 4000]
    assert compare(results, "mask-rcnn", "aiparsing") == {
        "median": 2.0,
        "low": 1.5,
        "high": 4.0,
        "tie": False,
    }
    assert compare(results, "parsing-rcnn", "aiparsing") == {
        "median": 1.0,
        "low": 0.5,
        "high": 2.0,
        "tie": True,
    }


@pytest.mark.parametrize(
    "failure, shown",
    [
        ({"error": torch.cuda.OutOfMemoryError("CUDA out of memory")}, "out of memory"),
        ({"error": RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")}, "out of memory"),
        ({"error": FloatingPointError("diverged")}, "infinite or NaN values"),
        ({"output": float("inf")}, "infinite or NaN values"),
    ],
)
def test_a_failure_ends_only_that_model(failure, shown):
    cases = {
        "aiparsing": case_of(iter([1.0]), **failure),
        "mask-rcnn": case_of(iter([1.0, 1.0])),
    }
    results = measure(cases, rounds(0, 2))
    assert results["aiparsing"].error == shown and not results["aiparsing"].times
    assert len(results["mask-rcnn"].times) == 2
    assert compare(results, "mask-rcnn", "aiparsing") is None


def test_mistakes_end_the_run():
    case = case_of(iter([]), error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        measure({"x": case}, rounds(0, 1))


def test_proposals_around_people_are_positives():
    """Four people fill the 128 positives that Mask R-CNN trains on."""
    people = people_boxes(4, (800, 1216))
    target = Instances((800, 1216), gt_boxes=Boxes(people))
    generator = torch.nn.Identity()
    added = ProposalsAroundPeople(torch.nn.ModuleDict({"proposal_generator": generator}))
    added.set_people([{"instances": target}], CPU)
    (boxes,) = added.boxes
    assert boxes.shape == (128, 4)
    iou = pairwise_iou(Boxes(boxes), Boxes(people)).max(dim=1).values
    assert 0.65 < iou.min() < iou.max() < 1


def test_people_are_the_same_whatever_their_number():
    boxes = people_boxes(50, (800, 1216))
    assert torch.equal(people_boxes(5, (800, 1216)), boxes[:5])
    inside = Boxes(boxes.clone())
    inside.clip((800, 1216))
    assert torch.equal(inside.tensor, boxes) and inside.nonempty().all()


def test_the_command_line_names_all_models_and_precisions():
    assert benchmark.MODELS == tuple(MODELS)
    assert benchmark.PRECISIONS == PRECISIONS


@pytest.mark.parametrize("device", ["mps", "nonsense", "cuda:99"])
def test_a_device_that_cannot_be_measured_is_told(capsys, device):
    assert main(["benchmark", "models", "--device", device]) == 1
    assert f"error: --device {device}: " in capsys.readouterr().err
