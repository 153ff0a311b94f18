import json

import pytest
import torch

from aiparsing_d2.analysis import export_speed
from aiparsing_d2.analysis.measured_pipeline import build_seeded
from aiparsing_d2.cli import benchmark, main
from aiparsing_d2.export import FORMATS

CONFIG = "demo/aiparsing_tiny_FPN_drawn_cihp"
TINY = "--repeats 2 --warm-up 0 --max-seconds 600 --image-size 96 128".split()


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Those of a small model with random weights."""
    file = tmp_path_factory.mktemp("weights") / "random.pth"
    state = build_seeded(CONFIG)[0].state_dict()
    state["proposal_generator.head.cls_logits.bias"].fill_(0.0)  # so that there are people
    state["roi_heads.parsing_head.score_head.predictor.bias"].fill_(0.5)
    torch.save({"model": state}, file)
    return ["benchmark", "export", "--config", CONFIG, "--weights", str(file), *TINY]


def test_export(tmp_path, monkeypatch, arguments):
    def without(predictor, folder, format_name, **kwargs):
        if format_name == "onnx":
            raise ImportError("packages of the extra export are missing")
        return export(predictor, folder, format_name, **kwargs)

    export = export_speed.export_predictor
    monkeypatch.setattr(export_speed, "export_predictor", without)
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "benchmark_export.json").read_text())
    eager, exported = result["rows"]
    assert (eager["way"], exported["way"]) == ("eager", "torchscript")
    assert eager["ratio"] is None and exported["ratio"]["low"] > 0
    assert eager["people"] == exported["people"] > 0 and eager["image_size"] == [96, 128]
    assert result["left_out"] == ["onnx: packages of the extra export are missing"]


def test_a_graph_that_gives_something_else_is_not_timed(monkeypatch, capsys, arguments):
    right = FORMATS["torchscript"]

    def broken(file):
        graph = right.load(file)
        return lambda pixels, threshold: [output + 1 for output in graph(pixels, threshold)]

    monkeypatch.setitem(FORMATS, "torchscript", right._replace(load=broken))
    assert main([*arguments, "--formats", "torchscript"]) == 1
    assert "differ by 1" in capsys.readouterr().err


def test_the_command_line_names_all_formats():
    assert set(benchmark.EXPORT_FORMATS) == set(FORMATS)
