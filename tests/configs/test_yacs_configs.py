"""The YAML configs: each gives the model and the training run of its LazyConfig counterpart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from built_configs import built_model
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

import aiparsing_d2.data.datasets  # noqa: F401  registers the splits
from aiparsing_d2.config import add_aiparsing_config
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.modeling import AIParsingWithTTA
from aiparsing_d2.structures.part_labels import get_part_labels

CONFIGS = Path(__file__).parents[2] / "configs"
YAML = CONFIGS / "yaml"
# Each is a file below configs/yaml and, with the other ending, below configs.
LEAVES = sorted(path.relative_to(YAML).with_suffix("").as_posix() for path in YAML.glob("*/*.yaml"))
CIHP_75EP = "cihp/aiparsing_R_50_FPN_cihp_75ep"
LIGHT = "cihp/aiparsing_light_R_50_FPN_cihp_75ep"
PARSING_RCNN = "cihp/parsing_rcnn_R_50_FPN_cihp_75ep"


def load_lazy(name):
    return LazyConfig.load(str(CONFIGS / f"{name}.py"))


def load_yacs(name):
    cfg = get_cfg()
    add_aiparsing_config(cfg)
    cfg.merge_from_file(str(YAML / f"{name}.yaml"))
    return cfg


def settings_of(model):
    """Numbers, strings and collections of them that steer the model's parts, by attribute path."""

    def plain(value):
        if isinstance(value, Mapping):
            value = tuple(value.items())
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = tuple(map(plain, value))
            return None if None in value else value
        return value if isinstance(value, (bool, int, float, str)) else None

    return {
        f"{path}.{name}": plain(value)
        for path, part in model.named_modules()
        for name, value in vars(part).items()
        if not name.startswith("_") and plain(value) is not None
    }


def test_the_main_models_are_there():
    assert {
        CIHP_75EP,
        "cihp/aiparsing_R_101_FPN_cihp_75ep",
        "cihp/aiparsing_X_101_32x8d_FPN_cihp_75ep",
        LIGHT,
        PARSING_RCNN,
        "lv_mhp_v2/aiparsing_R_50_FPN_lv_mhp_v2_75ep",
        "vip/aiparsing_R_50_FPN_vip_75ep",
    } <= set(LEAVES)


def test_the_parsing_branch_trains_on_as_many_people_as_its_key_says():
    cfg = load_yacs(CIHP_75EP)
    cfg.MODEL.ROI_PARSING_HEAD.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        roi_heads = build_model(cfg).roi_heads
    boxes = Boxes(torch.tensor([[2.0 * i, 5, 60 + 2 * i, 80] for i in range(40)]))
    proposals = Instances((200, 200), proposal_boxes=boxes, objectness_logits=torch.zeros(40))
    people = Instances((200, 200), gt_boxes=boxes, gt_classes=torch.zeros(40, dtype=torch.int64))
    with EventStorage():
        (sampled,) = roi_heads.label_and_sample_proposals([proposals], [people])
    assert len(roi_heads._subsample(sampled)) == 32


@pytest.mark.parametrize("name", LEAVES)
def test_the_model_is_the_lazy_configs(name):
    cfg, config = load_yacs(name), load_lazy(name)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        from_yacs, from_lazy = build_model(cfg), instantiate(config.model)
    assert {k: v.shape for k, v in from_yacs.state_dict().items()} == {
        k: v.shape for k, v in from_lazy.state_dict().items()
    }
    trainable = [
        {key for key, parameter in model.named_parameters() if parameter.requires_grad}
        for model in (from_yacs, from_lazy)
    ]
    assert trainable[0] == trainable[1]
    assert str(from_yacs) == str(from_lazy)  # kernels, strides, dilations, norms, poolers
    settings = settings_of(from_yacs), settings_of(from_lazy)
    for x in settings:  # holds 1.0 for both losses, or for one, which means the same
        x.pop("roi_heads.box_predictor.loss_weight", None)
    assert settings[0] == settings[1] and len(settings[0]) > 1000
    assert cfg.MODEL.PIXEL_MEAN == config.model.pixel_mean
    assert cfg.MODEL.PIXEL_STD == config.model.pixel_std
    assert cfg.MODEL.WEIGHTS == config.train.init_checkpoint


def test_the_authors_conventions_have_keys_too():
    config = load_lazy("cihp/aiparsing_R_50_FPN_cihp_authors")
    cfg = load_yacs("cihp/aiparsing_R_50_FPN_cihp_75ep")
    overrides = {
        "MODEL.DEVICE": "meta",
        "MODEL.PIXEL_MEAN": list(config.model.pixel_mean),
        "MODEL.PIXEL_STD": list(config.model.pixel_std),
        "MODEL.FPN.BILINEAR_TOP_DOWN": True,
        "MODEL.FCOS_PROPOSALS.INCLUSIVE_BOXES": True,
        "MODEL.ROI_PARSING_HEAD.POOLER_TYPE": "ROIAlign",
        "MODEL.ROI_PARSING_HEAD.UPSAMPLE_FACTOR": 4,
        "MODEL.ROI_PARSING_HEAD.CLAMP_MIOUS": False,
    }
    cfg.merge_from_list([x for pair in overrides.items() for x in pair])
    with torch.device("meta"):
        from_yacs, from_lazy = build_model(cfg), instantiate(config.model)
    assert str(from_yacs) == str(from_lazy)
    settings = settings_of(from_yacs)
    assert settings == settings_of(from_lazy)
    assert settings["proposal_generator.inclusive_boxes"]
    assert not settings["roi_heads.parsing_head.clamp_mious"]


# The full body, and few channels, people and cells after it; alike in both systems.
FEWER = {
    CIHP_75EP: (
        "MODEL.FPN.OUT_CHANNELS 64 MODEL.FCOS_PROPOSALS.NUM_CONVS 1"
        " MODEL.FCOS_PROPOSALS.SCORE_THRESH 0.0 MODEL.FCOS_PROPOSALS.POST_NMS_TOPK_TEST 3"
        " MODEL.ROI_PARSING_HEAD.SCORE_CONV_DIM 8 MODEL.ROI_PARSING_HEAD.SCORE_FC_DIM 8",
        [
            "model.backbone.out_channels=64",
            "model.proposal_generator.head.num_convs=1",
            "model.proposal_generator.score_thresh=0.0",
            "model.proposal_generator.post_nms_topk=[100,3]",
            "model.roi_heads.parsing_head.score_head.in_channels=32",
            "model.roi_heads.parsing_head.score_head.conv_dim=8",
            "model.roi_heads.parsing_head.score_head.fc_dim=8",
        ],
    ),
    PARSING_RCNN: (
        "MODEL.FPN.OUT_CHANNELS 64 MODEL.ROI_BOX_HEAD.FC_DIM 8"
        " MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 TEST.DETECTIONS_PER_IMAGE 3",
        [
            "model.backbone.out_channels=64",
            "model.roi_heads.box_head.fc_dims=[8,8]",
            "model.roi_heads.box_predictor.test_score_thresh=0.0",
            "model.roi_heads.box_predictor.test_topk_per_image=3",
        ],
    ),
}
FEWER_IN_THE_PARSING_HEAD = (
    "MODEL.ROI_PARSING_HEAD.CONV_DIM 32 MODEL.ROI_PARSING_HEAD.NUM_CONV 1"
    " MODEL.ROI_PARSING_HEAD.POOLER_RESOLUTION 8",
    [
        "model.roi_heads.parsing_head.context.out_channels=32",
        "model.roi_heads.parsing_head.conv_dims=[32]",
        "model.roi_heads.parsing_pooler.output_size=8",
    ],
)


@pytest.mark.parametrize("name", FEWER)
def test_the_outputs_are_the_lazy_configs(name):
    cfg, config = load_yacs(name), load_lazy(name)
    for yacs_overrides, lazy_overrides in (FEWER[name], FEWER_IN_THE_PARSING_HEAD):
        cfg.merge_from_list(yacs_overrides.split())
        config = LazyConfig.apply_overrides(config, lazy_overrides)
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    from_yacs, from_lazy = build_model(cfg).eval(), instantiate(config.model).eval()
    from_yacs.load_state_dict(from_lazy.state_dict())
    inputs = [{"image": torch.randint(0, 256, (3, 64, 96)).byte(), "height": 96, "width": 144}]
    with torch.no_grad():
        ours, theirs = (model(inputs)[0]["instances"] for model in (from_yacs, from_lazy))
    assert len(ours) == len(theirs) == 3
    assert set(ours.get_fields()) == set(theirs.get_fields())
    for field in set(ours.get_fields()) - {"pred_boxes", "pred_part_maps", "pred_masks"}:
        assert torch.equal(ours.get(field), theirs.get(field)), field
    assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.pred_part_maps.to_full(), theirs.pred_part_maps.to_full())


def test_the_papers_run():
    """Sec. IV: 75 epochs of 28,280 images, batch 8, the rate divided by 10 after 50 and 65."""
    node = load_yacs(CIHP_75EP).SOLVER
    assert (node.IMS_PER_BATCH, node.BASE_LR, node.MAX_ITER) == (8, 0.005, 265_125)
    assert node.STEPS == (176_750, 229_775)


@pytest.mark.parametrize("name", LEAVES)
def test_the_run_is_the_lazy_configs(name):
    cfg, config = load_yacs(name), load_lazy(name)
    assert cfg.OUTPUT_DIR == config.train.output_dir
    assert cfg.SOLVER.MAX_ITER == config.train.max_iter
    assert cfg.SOLVER.CHECKPOINT_PERIOD == config.train.checkpointer.period
    assert cfg.TEST.EVAL_PERIOD == config.train.eval_period
    assert cfg.SOLVER.IMS_PER_BATCH == config.dataloader.train.total_batch_size
    assert cfg.DATASETS.TRAIN == (config.dataloader.train.dataset.names,)
    assert cfg.DATASETS.TEST == (config.dataloader.test.dataset.names,)
    assert not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    assert not config.dataloader.train.dataset.filter_empty
    num_classes = cfg.MODEL.ROI_PARSING_HEAD.NUM_CLASSES
    assert get_part_labels(cfg.DATASETS.TRAIN).num_classes == num_classes

    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
    config.optimizer.params.model = module
    optimizers = build_optimizer(cfg, module), instantiate(config.optimizer)
    yacs_groups, lazy_groups = (
        {
            id(parameter): (group["lr"], group["weight_decay"], group["momentum"])
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for optimizer in optimizers
    )
    assert yacs_groups == lazy_groups and len(yacs_groups) == 4

    schedule = instantiate(config.lr_multiplier)
    scheduler = build_lr_scheduler(cfg, optimizers[0])
    changes = (500, *cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER)
    for iteration in (0, *(i for change in changes for i in (change - 1, change))):
        scheduler.last_epoch = iteration
        weight_rate = 0.005 * schedule(iteration / config.train.max_iter)
        assert min(scheduler.get_lr()) == pytest.approx(weight_rate, rel=1e-6)


@pytest.mark.parametrize("name", [CIHP_75EP, LIGHT])
def test_the_images_are_the_lazy_configs(name):
    cfg, config = load_yacs(name), load_lazy(name)
    for is_train, lazy_mapper in (
        (True, config.dataloader.train.mapper),
        (False, config.dataloader.test.mapper),
    ):
        yacs_mapper, lazy_mapper = ParsingDatasetMapper(cfg, is_train), instantiate(lazy_mapper)
        yacs_resize, *yacs_flips = yacs_mapper.augmentations.augs
        lazy_resize, *lazy_flips = lazy_mapper.augmentations.augs
        assert set(yacs_resize.short_edge_length) == set(lazy_resize.short_edge_length)
        assert yacs_resize.max_size == lazy_resize.max_size
        if is_train:
            assert yacs_resize.is_range and lazy_resize.is_range
        assert str(yacs_flips) == str(lazy_flips) and len(yacs_flips) == is_train
        assert yacs_mapper.image_format == lazy_mapper.image_format
        assert yacs_mapper.part_labels == lazy_mapper.part_labels


def test_light_trains_and_tests_on_small_images():
    """Table IX: short side 580 to 600 while training, 600 at test, long side at most 1000."""
    node = load_yacs(LIGHT).INPUT
    assert (node.MIN_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING) == ((580, 600), "range")
    assert (node.MIN_SIZE_TEST, node.MAX_SIZE_TRAIN, node.MAX_SIZE_TEST) == (600, 1000, 1000)


@pytest.mark.parametrize("name", LEAVES)
def test_the_augmentation_at_test_is_the_lazy_configs(name):
    node = load_lazy(name).test_time_augmentation.wrapper
    node.model = built_model(name)
    wrappers = AIParsingWithTTA(load_yacs(name), node.model), instantiate(node)
    from_yacs, from_lazy = (
        {
            "mapper": type(wrapper.mapper),
            "min_sizes": tuple(wrapper.mapper.min_sizes),
            "max_size": wrapper.mapper.max_size,
            "flip": wrapper.mapper.flip,
            "part_labels": wrapper.part_labels,
            "score_thresh": wrapper.score_thresh,
            "nms_thresh": wrapper.nms_thresh,
            "max_people": wrapper.max_people,
            "people_at_once": wrapper.people_at_once,
        }
        for wrapper in wrappers
    )
    assert from_yacs == from_lazy
