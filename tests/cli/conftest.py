"""The command parse with a small model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from aiparsing_d2 import model_zoo
from aiparsing_d2.cli import main
from aiparsing_d2.inference import ParsingPredictor


@pytest.fixture(scope="session")
def model_files(tmp_path_factory) -> tuple[Path, Path]:
    """A config and random weights, with which the model finds people everywhere."""
    folder = tmp_path_factory.mktemp("model")
    cfg = model_zoo.get_config("demo/aiparsing_tiny_FPN_drawn_cihp")
    cfg.model.proposal_generator.score_thresh = 0.0
    cfg.model.proposal_generator.post_nms_topk = (10, 3)
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    torch.nn.init.constant_(model.proposal_generator.head.box_pred.bias, 3)
    torch.save({"model": model.state_dict()}, folder / "weights.pth")
    return folder / "config.yaml", folder / "weights.pth"


@pytest.fixture(scope="session")
def predictor(model_files) -> ParsingPredictor:
    return ParsingPredictor(*model_files, device="cpu", score_threshold=0)


@pytest.fixture
def parse_anew(model_files, tmp_path):
    """The command, which builds its model."""

    def run(*arguments: object) -> int:
        config, weights = model_files
        model = ["--config-file", config, "--weights", weights, "--device", "cpu"]
        options = ["--output", tmp_path / "out", "--threshold", 0, *model]
        return main(["parse", *map(str, [*options, *arguments])])

    return run


@pytest.fixture
def parse(parse_anew, predictor, monkeypatch):
    """The command with a model that is there already."""
    monkeypatch.setattr("aiparsing_d2.cli.parse._make_predictor", lambda args: predictor)
    return parse_anew
