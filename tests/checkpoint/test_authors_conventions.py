"""The authors' conventions of boxes and maps, against loops over single numbers."""

import re
import shutil

import numpy as np
import pytest
import torch
from authors_layout import AUTHORS_CONFIG, CONFIGS
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances
from naive_conventions import detections, paste, resize_image
from omegaconf import OmegaConf
from torch import nn

from aiparsing_d2.checkpoint import AUTHORS_SETTINGS
from aiparsing_d2.checkpoint.settings import apply_settings, differing_settings, differing_stride
from aiparsing_d2.data.transforms import FloatDatasetMapperTTA
from aiparsing_d2.modeling import parsing_postprocess
from aiparsing_d2.structures import ROIPartLogits

HEIGHT, WIDTH = 75, 109
STRIDES = (8, 16, 32, 64, 128)


@pytest.fixture(scope="module")
def config():
    return LazyConfig.load(str(AUTHORS_CONFIG))


class FixedHead(nn.Module):
    def __init__(self, predictions):
        super().__init__()
        self.predictions = predictions

    def forward(self, features):
        return self.predictions


@pytest.mark.parametrize("seed, pre_nms_topk", [(0, 1000), (1, 1000), (2, 20)])
def test_detections(config, seed, pre_nms_topk):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]
    predictions = tuple(
        [make(n, *shape) for shape in shapes]
        for n, make in (
            (1, lambda *s: 1.5 * torch.randn(1, *s, generator=generator) - 3),
            # Up to 150 pixels: many boxes leave the image.
            (4, lambda *s: 150 ** torch.rand(1, *s, generator=generator)),
            (1, lambda *s: torch.randn(1, *s, generator=generator)),
        )
    )
    with torch.device("meta"):
        detector = instantiate(config.model.proposal_generator).eval()
    detector.head = FixedHead(predictions)
    detector.pre_nms_topk = pre_nms_topk
    features = {f"p{i + 3}": torch.zeros(1, 1, *shape) for i, shape in enumerate(shapes)}
    images = ImageList(torch.zeros(1, 3, HEIGHT, WIDTH), [(HEIGHT, WIDTH)])
    (proposals,), _ = detector(images, features)

    levels = [[x[0].squeeze(0).numpy() for x in level] for level in zip(*predictions)]
    boxes, scores = detections(levels, STRIDES, HEIGHT, WIDTH, per_level=pre_nms_topk)
    assert 10 < len(boxes) <= 50
    np.testing.assert_allclose(proposals.proposal_boxes.tensor, boxes, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(proposals.objectness_logits.sigmoid(), scores, rtol=1e-4)
    assert proposals.proposal_boxes.tensor[:, 2].max() == WIDTH - 1
    assert proposals.proposal_boxes.tensor[:, 3].max() == HEIGHT - 1


BOXES = torch.tensor(
    [
        [20.0, 10.0, 51.0, 62.0],
        [0.0, 0.0, 108.0, 74.0],  # the whole image
        [-9.3, -4.6, 25.2, 90.9],  # beyond it on three sides: corners cut toward zero
        [0.4, 0.3, 40.7, 30.2],  # grows across zero
        [60.2, 20.1, 63.9, 23.3],  # smaller than the map
        [70.0, 30.0, 70.0, 41.5],  # one pixel wide
        [30.0, 20.0, 37.2, 27.2],  # with its border, 10 pixels for 10 cells
        [30.0, 20.0, 61.1, 51.1],  # 34 pixels for 34 cells
    ]
)


@pytest.mark.parametrize("upsample_factor", [1, 4])
def test_pasting(upsample_factor):
    logits = 2 * torch.randn(len(BOXES), 5, 8, 8, generator=torch.Generator().manual_seed(0))
    part_logits = ROIPartLogits(logits, upsample_factor)
    maps, scores = part_logits.to_part_maps(BOXES, (HEIGHT, WIDTH), inclusive_boxes=True)
    for pasted, probabilities, box in zip(
        maps.to_full().numpy(), part_logits.probabilities().numpy(), BOXES.tolist()
    ):
        labels, leads = paste(probabilities, box, HEIGHT, WIDTH)
        clear = leads > 1e-4
        assert clear.mean() > 0.999
        np.testing.assert_array_equal(pasted[clear], labels[clear])
        assert labels.any()
    assert scores.isfinite().all()


def test_pasted_boxes_are_scaled_and_never_dropped():
    logits = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[5.0, 5.0, 30.0, 36.0], [36.0, 10.0, 36.0, 20.0]])
    results = Instances((38, 55), pred_boxes=Boxes(boxes), pred_part_logits=ROIPartLogits(logits))
    results.pred_edge_logits = ROIPartLogits(logits[:, :2])
    output = parsing_postprocess(results, HEIGHT, WIDTH, inclusive_boxes=True)
    assert output.image_size == (HEIGHT, WIDTH)
    scaled = boxes.double().numpy() * np.array([WIDTH / 55, HEIGHT / 38] * 2)
    # The boxes that come out end where their last pixels do.
    np.testing.assert_allclose(output.pred_boxes.tensor, scaled + [0, 0, 1, 1], rtol=1e-6)
    assert torch.equal(results.pred_boxes.tensor, boxes)
    for field, channels in (("pred_part_maps", 5), ("pred_edges", 2)):
        for pasted, probabilities, box in zip(
            output.get(field).to_full().numpy(), logits[:, :channels].softmax(1).numpy(), scaled
        ):
            labels, leads = paste(probabilities, box.tolist(), HEIGHT, WIDTH)
            np.testing.assert_array_equal(pasted[leads > 1e-4], labels[leads > 1e-4])
    assert len(parsing_postprocess(results, HEIGHT, WIDTH)) == 1


@pytest.mark.parametrize("size", [(300, 451), (40, 31), (20, 70)])
def test_test_images(config, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    (resize,) = instantiate(config.dataloader.test.mapper).augmentations.augs
    assert (resize.short_edge_length, resize.max_size) == (800, 1333)
    resize.short_edge_length, resize.max_size = 53, 95
    resized = resize.get_transform(image).apply_image(image)
    factor = 95 / 70 if size == (20, 70) else 53 / min(size)
    expected = resize_image(image, factor)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, atol=0.02)


def test_pooling_has_no_half_pixel_shift(config):
    pooler = instantiate(config.model.roi_heads.parsing_pooler)
    # Channels hold a cell's column and row: pooling them gives the sampled positions.
    columns, rows = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="xy")
    box = Boxes(torch.tensor([[16.0, 24, 80, 88]]))
    pooled = pooler([torch.stack([columns, rows])[None]], [box])
    # Bins of 64 / 8 / 32 cells from column 2 and row 3 on; a bin is worth its centre.
    centers = (torch.arange(32) + 0.5) * 8 / 32
    torch.testing.assert_close(pooled[0, 0, 0], 2 + centers)
    torch.testing.assert_close(pooled[0, 1, :, 0], 3 + centers)


def test_the_config_has_every_setting_and_the_ordinary_one_lacks_them(config):
    assert differing_settings(config, AUTHORS_SETTINGS) == []
    with torch.device("meta"):
        model = instantiate(config.model)
    assert differing_stride(model, in_1x1=True) == []
    assert model.backbone.output_shape()["p3"] == ShapeSpec(channels=256, stride=8)
    ordinary = LazyConfig.load(str(AUTHORS_CONFIG.with_name("aiparsing_R_50_FPN_cihp_75ep.py")))
    keys = {line.partition("=")[0] for line in differing_settings(ordinary, AUTHORS_SETTINGS)}
    assert keys == set(AUTHORS_SETTINGS) - {
        "model.input_format",
        "model.pixel_std",
        "model.proposal_generator.nms_thresh",
        "model.proposal_generator.score_thresh",
        "model.roi_heads.parsing_head.upsample_factor",
        "model.roi_heads.parsing_pooler.sampling_ratio",
        "dataloader.test.mapper.image_format",
    }


@pytest.mark.parametrize(
    "key, value",
    [
        ("model.proposal_generator.nms_thresh", 0.5),
        ("model.proposal_generator.score_thresh", 0.05),
        ("model.roi_heads.parsing_pooler.sampling_ratio", 0),
        ("dataloader.test.mapper.image_format", "RGB"),
        ("model.proposal_generator.inclusive_boxes", False),
    ],
)
def test_a_setting_that_differs_is_named_with_the_override_that_mends_it(key, value):
    config = LazyConfig.load(str(AUTHORS_CONFIG))
    assert OmegaConf.select(config, key) != value
    OmegaConf.update(config, key, value)
    (line,) = differing_settings(config, AUTHORS_SETTINGS)
    override, _, now = line.partition(" ")
    assert override.partition("=")[0] == key and now == f"(is {value})"
    assert (
        differing_settings(LazyConfig.apply_overrides(config, [override]), AUTHORS_SETTINGS) == []
    )


@pytest.mark.parametrize(
    "key",
    [
        "dataloader.test.mapper.augmentations.0._target_",
        "test_time_augmentation.wrapper.mapper._target_",
    ],
)
def test_another_resize_is_named_with_the_override_that_mends_it(config, key):
    ordinary = LazyConfig.load(str(AUTHORS_CONFIG.with_name("aiparsing_R_50_FPN_cihp_75ep.py")))
    (line,) = [x for x in differing_settings(ordinary, AUTHORS_SETTINGS) if x.startswith(key)]
    mended = LazyConfig.apply_overrides(ordinary, [line.partition(" ")[0]])
    assert not any(x.startswith(key) for x in differing_settings(mended, AUTHORS_SETTINGS))
    # The arguments of one fit the other.
    node = key.removesuffix("._target_")
    resize, expected = (instantiate(OmegaConf.select(c, node)) for c in (mended, config))
    assert type(resize) is type(expected)
    for name in ("short_edge_length", "min_sizes", "max_size", "flip"):
        assert getattr(resize, name, None) == getattr(expected, name, None)


def test_an_absent_key_is_at_its_default(config):
    wanted = {
        "detector.nms_thresh": 0.6,
        "detector.inclusive_boxes": True,
        "detector.no_such_key": 1,
        "pooler.sampling_ratio": 2,
        "plain.key": 3,
        "resizes.0._target_": "builtins.dict",
        "nothing.key": 4,
    }
    lines = differing_settings(
        OmegaConf.create(
            {
                "detector": {"_target_": "aiparsing_d2.modeling.FCOSProposalGenerator"},
                "pooler": {"_target_": "detectron2.modeling.poolers.ROIPooler"},
                "plain": {},
                "resizes": [],
            }
        ),
        wanted,
    )
    assert lines == [
        "detector.inclusive_boxes=True (is False)",
        "detector.no_such_key=1 (is not set)",
        "pooler.sampling_ratio=2 (is not set)",
        "plain.key=3 (is not set)",
    ]
    # The authors' config leaves the thresholds to the class.
    assert "nms_thresh" not in config.model.proposal_generator
    assert "score_thresh" not in config.model.proposal_generator


def test_settings_are_applied_where_they_differ():
    resize = {"_target_": "builtins.dict"}
    config = {
        "model": OmegaConf.create({"detector": {"_target_": "builtins.dict", "depth": 1}}),
        "data": OmegaConf.create({"resizes": [resize], "same": 4}),
    }
    wanted = {
        "model.detector.depth": 2,
        "model.neck.depth": 3,
        "data.same": 4,
        "data.resizes.0._target_": "builtins.list",
        "elsewhere.key": 5,
    }
    apply_settings(config, wanted)
    assert config == {
        "model": {"detector": {"_target_": "builtins.dict", "depth": 2}},
        "data": {"resizes": [{"_target_": "builtins.list"}], "same": 4},
    }
    assert differing_settings(config, wanted) == []


def test_views_of_the_config(config):
    mapper = instantiate(config.test_time_augmentation.wrapper.mapper)
    assert type(mapper) is FloatDatasetMapperTTA
    assert list(mapper.min_sizes) == [500, 600, 700, 800, 850]


def test_the_documents_config_of_another_published_model(tmp_path):
    text = (CONFIGS.parent / "docs/WEIGHTS.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for folder in ("common", "cihp"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CONFIGS / folder, tmp_path / folder, ignore=ignore)
    (tmp_path / "cihp/other.py").write_text(snippet)
    other = LazyConfig.load(str(tmp_path / "cihp/other.py"))

    assert other.model.backbone.bottom_up.stages.depth == 101
    assert other.train.init_checkpoint == "output/authors_R_101_cihp.pth"
    assert other.train.output_dir == "./output/aiparsing_R_101_FPN_cihp_authors"
    assert other.model.roi_heads.parsing_pooler.pooler_type == "ROIAlign"
    assert not differing_settings(other, AUTHORS_SETTINGS)
    assert {"lr_multiplier", "optimizer", "test_time_augmentation"} <= set(other)
