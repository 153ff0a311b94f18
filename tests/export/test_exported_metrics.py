"""Exported files score what their model scores."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image
from small_runs import environment

from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import register_cihp
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.export import export_predictor
from aiparsing_d2.inference import ParsingPredictor
from aiparsing_d2.structures import PartMaps
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS

DATA_SET = "drawn_for_exported_metrics"
NUM_PICTURES = 8


@pytest.fixture
def drawn_val(tmp_path):
    command = [sys.executable, "-m", "aiparsing_d2.drawn_scenes", "--output", tmp_path / "drawn"]
    command += ["--train", "0", "--val", str(NUM_PICTURES)]
    subprocess.run(command, check=True, capture_output=True, env=environment(tmp_path))
    register_cihp(DATA_SET, tmp_path / "drawn", "val", part_labels=CIHP_PART_LABELS)
    yield DatasetCatalog.get(DATA_SET)
    DatasetCatalog.remove(DATA_SET)
    MetadataCatalog.remove(DATA_SET)


def as_instances(people: list[dict], image_size: tuple[int, int]) -> Instances:
    maps = [torch.from_numpy(person["map"]) for person in people]
    windows = torch.tensor([person["window"] for person in people]).reshape(-1, 4)

    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(np.array([person[name] for person in people]), dtype=torch.float32)

    return Instances(
        image_size,
        pred_boxes=Boxes(tensor("box").reshape(-1, 4)),
        scores=tensor("score"),
        box_scores=tensor("detection_score"),
        pred_part_maps=PartMaps(maps, windows, image_size),
        pred_part_scores=tensor("part_scores"),
    )


class TorchScriptSession:
    """A TorchScript file with the two calls of ONNX Runtime that the script makes."""

    def __init__(self, folder: Path):
        self._about = json.loads((folder / "model.torchscript.json").read_text("utf-8"))
        self._graph = torch.jit.load(folder / self._about["file"])

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self._about["outputs"]]

    @torch.no_grad()
    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs = self._graph(*(torch.as_tensor(value) for value in inputs.values()))
        return [output.numpy() for output in outputs]


@pytest.mark.slow
def test_metrics_of_the_shipped_weights_on_drawn_pictures(drawn_val, tmp_path, monkeypatch):
    """All metrics, from everybody down to a score of 0, through the script without this package."""
    predictor = ParsingPredictor(device="cpu", score_threshold=0.0, precision=None)
    for format_name in ("onnx", "torchscript"):
        export_predictor(predictor, tmp_path / "exported", format_name)
    monkeypatch.syspath_prepend(tmp_path / "exported")
    import parse_onnx

    onnx, torchscript = parse_onnx.Parser(), parse_onnx.Parser()
    torchscript.session = TorchScriptSession(tmp_path / "exported")
    mapper: ParsingDatasetMapper = predictor._mapper

    def by_the_model(record: dict) -> Instances:
        with torch.no_grad():
            return predictor.model([mapper(record)])[0]["instances"]

    def by_the_script(parser: parse_onnx.Parser, record: dict) -> Instances:
        picture = Image.open(record["file_name"])
        return as_instances(parser.all_people(picture), (picture.height, picture.width))

    scores = {}
    for name, parse in (
        ("model", by_the_model),
        ("onnx", partial(by_the_script, onnx)),
        ("torchscript", partial(by_the_script, torchscript)),
    ):
        evaluator = ParsingEvaluator(DATA_SET, distributed=False)
        for record in drawn_val:
            evaluator.process([record], [{"instances": parse(record)}])
        scores[name] = evaluator.evaluate()
    print(scores)
    assert scores["model"]["parsing"]["mIoU"] > 10  # percent: the weights find the people
    for group, figures in scores["model"].items():
        for name, figure in figures.items():
            # 1e-3 of a figure in 0..1
            expected = pytest.approx(figure, abs=0.1, nan_ok=True)
            assert scores["onnx"][group][name] == expected, name
            assert scores["torchscript"][group][name] == expected, name
