"""What comes behind the network: pasting and composing."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aiparsing_d2.analysis import composing_speed, pasting_speed
from aiparsing_d2.analysis.drawn_inputs import people_boxes, people_logits
from aiparsing_d2.cli import benchmark, main, make_parser
from aiparsing_d2.evaluation import CroppedMaps, Prediction
from aiparsing_d2.structures import ROIPartLogits

TINY = "--device cpu --repeats 2 --warm-up 0 --max-seconds 600".split()


def run(folder, *arguments):
    assert main(["benchmark", *arguments, *TINY, "--output", str(folder)]) == 0
    return json.loads((folder / f"benchmark_{arguments[0]}.json").read_text())["rows"]


def test_paste(tmp_path):
    sizes = "--image-size 60 80 --image-size 40 50".split()
    rows = run(tmp_path, "paste", "--people", "1", "3", *sizes, "--classes", "5", "20")
    assert len(rows) == 2 * 2 * 2 * 2
    assert [row["way"] for row in rows[:2]] == ["plain loop", "to_part_maps"]
    assert {(row["people"], *row["image_size"], row["classes"]) for row in rows} == {
        (n, *size, c) for n in (1, 3) for size in ((60, 80), (40, 50)) for c in (5, 20)
    }
    for plain, package in zip(rows[::2], rows[1::2]):
        assert plain["ratio"] is None and package["ratio"]["low"] <= package["ratio"]["high"]
        assert plain["near_ties"] == package["near_ties"] < 3
        assert plain["repeats"] == package["repeats"] == 2
    assert "| to_part_maps " in (tmp_path / "benchmark_paste.md").read_text()


def test_the_plain_loop_enlarges_four_cells_to_whole_pixels():
    """A box of 4 x 2 pixels for 4 x 4 cells: its border is a pixel wide and half a pixel high."""
    tensor = torch.zeros(1, 3, 4, 4)
    tensor[0, 1, :, :2] = tensor[0, 2, :, 2:] = 20
    boxes = torch.tensor([[2.0, 3, 6, 5]])  # -> 1..7, 2.5..5.5
    maps, margins = pasting_speed.paste_plainly(ROIPartLogits(tensor), boxes, (8, 9), True)
    assert maps.shape == (1, 8, 9)
    expected = np.zeros((8, 9), np.uint8)
    # Pixels 1 to 7: the border at either end is nobody's.
    expected[2:6, 2:5], expected[2:6, 5:7] = 1, 2
    assert set(np.flatnonzero(maps[0].any(axis=1))) == {2, 3, 4, 5}
    assert np.array_equal(maps[0] > 0, expected > 0)
    assert set(maps[0][3, 2:4]) == {1} and set(maps[0][3, 5:7]) == {2}
    # The centre of the second of seven pixels is that of the first cell but for 3/14 of a cell.
    assert margins.min() >= 0 and margins[0, 3, 2] == pytest.approx(11 / 14, abs=1e-6)


def test_other_labels_are_no_near_ties(monkeypatch):
    logits = ROIPartLogits(people_logits(2, 20, 16))
    boxes, size = people_boxes(2, (60, 80)), (60, 80)
    assert pasting_speed.check_labels(logits, boxes, size) < 3
    paste = ROIPartLogits.to_part_maps

    def shifted(self, boxes, *args, **kwargs):
        return paste(self, boxes + 1, *args, **kwargs)

    monkeypatch.setattr(ROIPartLogits, "to_part_maps", shifted)
    with pytest.raises(AssertionError, match="pixels differ"):
        pasting_speed.check_labels(logits, boxes, size)


def test_people_have_all_classes_and_some_are_drawn():
    logits = people_logits(7, 59, 32)
    assert logits.shape == (7, 59, 32, 32)
    assert torch.equal(people_logits(3, 59, 32), logits[:3])
    labels = logits.argmax(dim=1)
    assert all(4 < len(person.unique()) < 30 for person in labels)
    assert 30 < labels.max() < 59
    # Others of the same drawing have other logits.
    assert not torch.equal(logits[0], logits[6]) and (labels[0] == labels[6]).float().mean() > 0.9


def test_compose(tmp_path):
    rows = run(tmp_path, "compose", "--people", "1", "4", "--image-size", "60", "80")
    assert [(row["people"], row["way"]) for row in rows] == [
        (n, way) for n in (1, 4) for way in ("plain loop", "compose")
    ]
    assert all(row["repeats"] == 2 for row in rows)
    assert [row["ratio"] is None for row in rows] == [True, False] * 2


def test_more_people_than_eight_bits_can_number(tmp_path):
    rows = run(tmp_path, "compose", "--people", "300", "--image-size", "60", "80")
    assert {row["people"] for row in rows} == {300}


@pytest.mark.parametrize("what", ["compose", "export"])
def test_what_is_measured_on_the_cpu_is_not_told_of_a_gpu(what, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    arguments = make_parser().parse_args(["benchmark", what])
    assert benchmark._read_settings(arguments)["device"] == torch.device("cpu")
    with pytest.raises(SystemExit):
        main(["benchmark", what, "--device", "cuda"])


def test_figures_are_kept_where_nothing_can_be_plotted(tmp_path, capsys):
    arguments = ["--people", "1", "--image-size", "60", "80", "--max-seconds", "0"]
    arguments += ["--plot", str(tmp_path / "plot.png"), "--output", str(tmp_path)]
    assert main(["benchmark", "compose", *arguments]) == 1
    assert "nothing was measured that could be plotted" in capsys.readouterr().err
    assert json.loads((tmp_path / "benchmark_compose.json").read_text())["left_out"]
    assert not (tmp_path / "plot.png").exists()


def test_the_plain_loop_paints_the_best_on_top():
    maps = CroppedMaps(
        [np.full((1, 2), 3, np.uint8), np.array([[0, 7]], np.uint8)],
        np.array([[0, 0, 2, 1], [0, 0, 2, 1]]),
    )
    parts, numbers = composing_speed.compose_plainly(Prediction(maps, np.array([0.5, 0.9])), (2, 3))
    assert parts.tolist() == [[3, 7, 0], [0, 0, 0]]
    assert numbers.tolist() == [[1, 2, 0], [0, 0, 0]]
    parts, _ = composing_speed.compose_plainly(Prediction(maps, np.array([0.9, 0.5])), (2, 3))
    assert parts.tolist() == [[3, 3, 0], [0, 0, 0]]


@pytest.mark.parametrize("attribute", ["category_map", "person_map"])
def test_other_pictures_end_the_measurement(monkeypatch, attribute):
    prediction = composing_speed.pasted_people(2, (40, 60), 20)
    composing_speed._check_pictures(prediction, (40, 60), 20)
    right = composing_speed.composition

    def wrong(*args):
        composed = right(*args)
        maps = {name: getattr(composed, name) for name in ("category_map", "person_map", "visible")}
        return SimpleNamespace(**{**maps, attribute: 0 * maps[attribute]})

    monkeypatch.setattr(composing_speed, "composition", wrong)
    with pytest.raises(AssertionError, match="differ"):
        composing_speed._check_pictures(prediction, (40, 60), 20)
