"""docs/OWN_MODEL.md, block by block, as a reader would run it."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import aiparsing_d2.data.datasets as datasets
from aiparsing_d2.data.datasets.cihp import register_all_cihp
from aiparsing_d2.drawn_scenes.__main__ import main as draw
from aiparsing_d2.modeling import AIParsing, FCOSProposalGenerator, ParsingROIHeads

DOCUMENT = Path(__file__).parents[2] / "docs" / "OWN_MODEL.md"


@pytest.fixture(scope="module")
def namespace(tmp_path_factory):
    """What the blocks leave behind, run one after the other in an empty folder."""
    root = tmp_path_factory.mktemp("own_model")
    options = "--train 2 --val 2 --size 96 96 --workers 1".split()
    assert draw(["--output", str(root / "drawn_cihp"), *options]) == 0
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.DOTALL | re.M)
    assert len(blocks) == 10
    names = {"__name__": "own_model"}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        register_all_cihp(root)
        try:
            for block in blocks:
                exec(block, names)
            yield names
        finally:
            register_all_cihp(datasets.datasets_root())


def test_yacs_trains_and_evaluates(namespace):
    storage = namespace["trainer"].storage.histories()
    losses = {name for name in storage if name.startswith("loss_")}
    assert {"loss_fcos_cls", "loss_box_reg", "loss_mask", "loss_parsing", "loss_edge"} <= losses
    results = namespace["results"]
    assert set(results) == {"parsing", "bbox"} and 0 <= results["parsing"]["mIoU"] <= 100


def test_the_predictor_gives_part_maps(namespace):
    instances = namespace["instances"]
    assert instances.pred_part_maps.image_size == instances.image_size == (96, 96)
    assert instances.pred_masks.shape == (len(instances), 96, 96)
    assert isinstance(instances.pred_masks, torch.Tensor)  # the mask head's


def test_lazy_config_builds(namespace):
    model = namespace["lazy_model"]
    assert type(model) is AIParsing
    assert type(model.roi_heads) is ParsingROIHeads and model.roi_heads.mask_on
    assert type(model.proposal_generator) is FCOSProposalGenerator
    with torch.no_grad():
        (output,) = model.eval()([{"image": torch.zeros(3, 64, 64)}])
    assert output["instances"].image_size == (64, 64)


def test_both_evaluators(namespace):
    both = namespace["both"]
    assert set(both) == {"parsing", "bbox", "segm"}
    assert both["parsing"] == pytest.approx(namespace["results"]["parsing"], nan_ok=True)
    assert not math.isnan(both["segm"]["AP"])  # the people of the ground truth are there


def test_pictures(namespace):
    image, truth = namespace["image"], namespace["truth"]
    assert truth.shape == namespace["people"].shape == image.shape
    assert np.abs(truth.astype(int) - image).mean() > 10
