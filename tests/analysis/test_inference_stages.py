import json

import pytest
import torch

from aiparsing_d2.analysis import device_peak, inference_stages, measured_pipeline
from aiparsing_d2.analysis.measuring import Settings
from aiparsing_d2.cli import benchmark, main

CONFIG = "demo/aiparsing_tiny_FPN_drawn_cihp"
TINY = "--device cpu --repeats 2 --warm-up 0 --max-seconds 600".split()


@pytest.fixture(scope="module", autouse=True)
def small_peak():
    """Of a rate that is measured fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_peak, "_CHANNELS", 8)
        patch.setattr(device_peak, "_PRODUCT_SIDE", 16)
        patch.setattr(device_peak, "_COPIED_BYTES", 1024)
        yield


@pytest.fixture(scope="module")
def result(small_peak, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    arguments = f"infer --config {CONFIG} --people 1 3 --image-size 96 128".split()
    arguments += ["--precisions", "none", "fp32", "bf16", "tf32", "--output", str(folder)]
    assert main(["benchmark", *arguments, *TINY]) == 0
    return json.loads((folder / "benchmark_infer.json").read_text()), folder


STAGES = (
    "reading",
    "mapping",
    "backbone body",
    "FPN",
    "detection head",
    "decoding and suppression",
    "RoI pooling",
    "shared convolutions",
    "parsing predictor",
    "score head",
    "pasting",
    "composing",
    "writing",
)


def test_stages_of_every_setting(result):
    result, folder = result
    rows = result["rows"]
    assert [(row["people"], row["precision"]) for row in rows] == [
        (people, precision) for people in (1, 3) for precision in ("none", "fp32", "bf16")
    ]
    assert result["left_out"] == ["tf32: only GPUs have TF32"]
    for row in rows:
        assert set(STAGES) <= set(row["stages_ms"]) and row["rois"] == row["people"]
        assert row["image_size"] == [96, 128] and row["repeats"] == len(row["all_ms"]) == 2
        assert all(time >= 0 for time in row["stages_ms"].values())
        assert set(row["share_of_limit"]) <= {*row["multiply_adds"], "all"}
    table = (folder / "benchmark_infer.md").read_text()
    for stage in (*STAGES, "all", "difference"):
        assert table.count(f"| {stage} ") == 2, stage
    assert "| bf16 ms " in table


def test_outputs_differ_by_rounding_only(result):
    by_precision = {row["precision"]: row.get("difference") for row in result[0]["rows"]}
    assert by_precision["none"] is None
    assert by_precision["fp32"] < 1e-3
    assert 1e-4 < by_precision["bf16"] < 0.2


def test_the_head_costs_as_many_times_as_there_are_people(result):
    one, *_, three = (row["multiply_adds"] for row in result[0]["rows"])
    for stage, cost in one.items():
        in_head = stage not in ("backbone body", "FPN", "detection head")
        assert three[stage] == cost * (3 if in_head else 1)


def test_the_share_is_of_the_rate_that_was_measured():
    row = {"stages_ms": {"FPN": 2.0, "pasting": 1.0}, "ms": 3.0, "error": None}
    # 3e6 in 2 ms are 1.5e9 a second.
    shares = inference_stages._shares(row, {"FPN": 3_000_000, "score head": 0}, 6e9)
    assert shares == {"FPN": 0.25, "all": pytest.approx(1 / 6)}


def test_stages_end_where_their_modules_do():
    """Time that a module spends beside those inside it is its own; all of it is somebody's."""
    model, _ = measured_pipeline.build_seeded(CONFIG)
    stages = measured_pipeline._Stages(model, compiled=False)
    marks = []

    class Clock:
        def mark(self, stage):
            marks.append(stage)

    with stages.timed(Clock()), torch.no_grad():
        model.inference([{"image": torch.zeros(3, 96, 128)}], do_postprocess=False)
    assert marks[:4] == ["the rest of the model", "FPN", "backbone body", "FPN"]
    # Levels share the head.
    assert marks[4:7] == ["the rest of the model", "decoding and suppression", "detection head"]
    assert marks[-1] == "the rest of the model"
    model.inference([{"image": torch.zeros(3, 96, 128)}], do_postprocess=False)  # nobody's clock


def test_peak(capsys):
    assert main(["benchmark", "peak", *TINY, "--precisions", "fp32", "bf16", "fp16"]) == 0
    table = capsys.readouterr().out
    assert table.count("convolution ") == table.count("convolution, channels-last") == 2
    assert table.count("| product ") == 2 and table.count("| copy ") == 1
    assert "fp16: measured on GPUs only" in table


def test_a_rate_is_operations_by_the_fastest_time(monkeypatch):
    monkeypatch.setattr(device_peak, "_PRODUCT_SIDE", 4)
    report = device_peak.measure_peak(Settings(torch.device("cpu"), 3, 0, float("inf")), ["fp32"])
    (row,) = (row for row in report.rows if row["work"] == "product")
    assert row["per_second"] == pytest.approx(2 * 4 * 4 * 4 / (min(row["all_ms"]) / 1000))


def test_without_a_precision_or_time_all_is_left_out(capsys):
    arguments = ["benchmark", "infer", "--config", CONFIG, *TINY, "--image-size", "96", "128"]
    assert main([*arguments, "--precisions", "fp16"]) == 0
    assert "fp16: measured on GPUs only" in capsys.readouterr().out
    assert main([*arguments, "--precisions", "fp32", "--max-seconds", "0"]) == 0
    assert (
        "fp32, people 5, image_size [96, 128]: --max-seconds were over" in capsys.readouterr().out
    )


def test_graphs_without_a_gpu_are_refused(capsys):
    arguments = ["benchmark", "infer", "--config", CONFIG, *TINY, "--device", "cpu"]
    assert main([*arguments, "--compile", "--cuda-graphs"]) == 1
    assert "CUDA graphs are for GPUs" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--compile", "--cuda-graphs", "--channels-last"])
def test_versions_are_compared_as_they_come(option, tmp_path, capsys):
    arguments = ["benchmark", "infer", "--config", CONFIG, *TINY, "--against", str(tmp_path)]
    assert main([*arguments, option]) == 1
    assert "versions are compared with --precisions only" in capsys.readouterr().err


def test_an_unknown_config_is_told(capsys):
    assert main(["benchmark", "infer", "--config", "cihp/no_such", *TINY]) == 1
    assert "no config 'cihp/no_such'" in capsys.readouterr().err


def test_the_command_line_names_all_precisions():
    assert benchmark.INFERENCE_PRECISIONS == measured_pipeline.PRECISIONS
