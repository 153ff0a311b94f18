"""Test-time augmentation of tiny models, against the model run view by view."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import DatasetMapperTTA, build_model
from detectron2.modeling.backbone import Backbone
from detectron2.structures import Boxes, Instances
from live_bytes import LiveBytes
from tiny_models import NUM_CLASSES, make_input, tiny_lazy_model, tiny_yacs_config
from torch import nn

from aiparsing_d2.data.datasets import register_cihp, register_parsing_dataset
from aiparsing_d2.data.transforms import FloatDatasetMapperTTA
from aiparsing_d2.engine import training
from aiparsing_d2.modeling import AIParsingWithTTA, soft_nms
from aiparsing_d2.structures import PartMaps, PersonMasks, ROIPartLogits
from aiparsing_d2.structures.part_labels import CIHP_PART_LABELS, PartLabels, distinct_colors

CONFIGS = Path(__file__).parents[2] / "configs"
LEFT, RIGHT = 2, 3
PART_LABELS = PartLabels(
    names=("Background", "Hat", "Left-arm", "Right-arm", "Coat"),
    colors=distinct_colors(NUM_CLASSES),
    flip_pairs=((LEFT, RIGHT),),
)
FIELDS = {
    "pred_boxes",
    "pred_classes",
    "box_scores",
    "scores",
    "pred_mious",
    "pred_part_maps",
    "pred_part_scores",
    "pred_masks",
}


class AveragingBackbone(Backbone):
    """p3 to p7 by averaging over disjoint blocks.

    That commutes with mirroring; a convolution with stride 2 does not, whatever its weights.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.conv = Conv2d(3, channels, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=0.02)

    def forward(self, x):
        x = self.conv(F.avg_pool2d(x, 8)).relu()
        return {f"p{level}": F.avg_pool2d(x, 2 ** (level - 3)) for level in range(3, 8)}

    def output_shape(self):
        return {
            f"p{level}": ShapeSpec(channels=self.channels, stride=2**level) for level in range(3, 8)
        }

    @property
    def size_divisibility(self):
        return 128


def build(score_head=True, edges_at_test=False):
    """Untrained, but with a few clearly different people and parts."""
    config = tiny_lazy_model()
    # The score head's convolution of stride 2 is symmetric on an odd number of cells only.
    config.roi_heads.parsing_pooler.output_size = 9
    head = config.roi_heads.parsing_head
    head.context = head.non_local = None
    head.edges_at_test = edges_at_test
    if not score_head:
        head.score_head = None
    channels = config.backbone.out_channels
    config.proposal_generator.head.input_shape = [ShapeSpec(channels=channels)] * 5
    head.in_channels = channels
    config.backbone = None
    config.proposal_generator.post_nms_topk = (100, 12)
    torch.manual_seed(0)
    backbone = AveragingBackbone(channels)
    config.backbone = backbone
    model = instantiate(config).eval()
    fcos = model.proposal_generator.head
    for conv, std in ((fcos.cls_logits, 0.1), (fcos.centerness, 0.1), (fcos.box_pred, 0.02)):
        nn.init.normal_(conv.weight, std=std)
    nn.init.constant_(fcos.cls_logits.bias, -1.0)
    nn.init.constant_(fcos.box_pred.bias, 3.4)  # distances around 30 px
    parsing_head = model.roi_heads.parsing_head
    nn.init.normal_(parsing_head.parsing_predictor.weight, std=0.2)
    nn.init.normal_(parsing_head.edge_predictor.weight, std=0.2)
    if score_head:
        nn.init.normal_(parsing_head.score_head.predictor.weight, std=0.1)
        nn.init.constant_(parsing_head.score_head.predictor.bias, 0.5)
    return model


@torch.no_grad()
def make_symmetric(model):
    """Makes the model commute with mirroring, left and right parts trading places."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.copy_((module.weight + module.weight.flip(3)) / 2)
    box_pred = model.proposal_generator.head.box_pred  # left, top, right, bottom
    nn.init.normal_(box_pred.weight[0], std=0.05)
    box_pred.weight[2] = box_pred.weight[0].flip(2)
    head = model.roi_heads.parsing_head
    # The score head reads the parts' logits after the features.
    for weight in (head.parsing_predictor.weight, head.score_head.conv1.weight[:, -NUM_CLASSES:]):
        nn.init.normal_(weight[:, LEFT], std=0.2)
        weight[:, RIGHT] = weight[:, LEFT].flip(2)
    return model


def wrap(model, min_sizes=(96, 128), flip=True, mapper=None, **kwargs):
    mapper = mapper or DatasetMapperTTA(min_sizes=list(min_sizes), max_size=400, flip=flip)
    return AIParsingWithTTA(
        model, mapper=mapper, part_labels=PART_LABELS, **{"score_thresh": 0.2, **kwargs}
    )


@pytest.fixture(scope="module")
def model():
    return build()


def check_fields(instances, image_size, fields=FIELDS):
    assert set(instances.get_fields()) == fields
    assert instances.image_size == image_size
    assert isinstance(instances.pred_part_maps, PartMaps)
    assert instances.pred_part_maps.image_size == image_size


def assert_bit_same(actual, expected):
    assert len(actual) == len(expected) > 0
    for name, value in expected.get_fields().items():
        other = actual.get(name)
        if isinstance(value, PersonMasks):
            value, other = value.part_maps, other.part_maps
        if isinstance(value, PartMaps):
            value, other = value.to_full(), other.to_full()
        elif isinstance(value, Boxes):
            value, other = value.tensor, other.tensor
        assert torch.equal(other, value), name


def test_flips_alone_reproduce_a_symmetric_models_result():
    model = make_symmetric(build(edges_at_test=True))
    detector = model.proposal_generator
    detector.score_thresh, detector.nms_thresh, detector.post_nms_topk = 0.75, 0.3, (0, 50)
    image = make_input(128, 256, seed=3)
    with torch.no_grad():
        (plain,) = model([image])
    plain = plain["instances"]
    # The detector's own NMS left no IoU above 0.3: only copies of a box are suppressed.
    wrapper = wrap(model, min_sizes=[128], score_thresh=0.0, nms_thresh=0.3)
    (augmented,) = wrapper([image])
    augmented = augmented["instances"]
    check_fields(augmented, (128, 256), FIELDS | {"pred_edges"})
    assert 5 <= len(plain) < 50, "the detector's cut at 50 could fall into a tie"
    assert len(augmented) == len(plain)
    for name in ("box_scores", "scores", "pred_mious"):
        torch.testing.assert_close(augmented.get(name), plain.get(name), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        augmented.pred_part_scores, plain.pred_part_scores, rtol=1e-2, atol=1e-3
    )
    torch.testing.assert_close(
        augmented.pred_boxes.tensor, plain.pred_boxes.tensor, rtol=1e-5, atol=1e-3
    )
    for name in ("pred_part_maps", "pred_edges"):
        maps, expected = augmented.get(name).to_full(), plain.get(name).to_full()
        assert expected.unique().numel() >= 2
        assert (maps != expected).float().mean() < 1e-4  # rounding where two classes tie
    labels = plain.pred_part_maps.to_full().unique().tolist()
    assert LEFT in labels and RIGHT in labels


def to_output_frame(boxes, image_size, view_size, mirrored):
    """By hand: undo the mirroring in the view, then the scaling."""
    boxes = boxes.double().clone()
    if mirrored:
        boxes[:, [0, 2]] = view_size[1] - boxes[:, [2, 0]]
    scale_x, scale_y = image_size[1] / view_size[1], image_size[0] / view_size[0]
    return boxes * torch.tensor([scale_x, scale_y, scale_x, scale_y], dtype=torch.float64)


def to_view(boxes, image_size, view_size, mirrored):
    boxes = to_output_frame(boxes, view_size, image_size, mirrored=False)
    if mirrored:
        boxes[:, [0, 2]] = view_size[1] - boxes[:, [2, 0]]
    return boxes


@pytest.mark.parametrize("score_head", [True, False], ids=["score head", "no score head"])
@torch.no_grad()
def test_equals_the_views_parsed_one_by_one(score_head):
    """Through the model's public interface, every view with all people and its own features."""
    model = build(score_head=score_head, edges_at_test=True)
    image_input = make_input(90, 120, seed=1)
    image_size = (180, 200)  # the output's; differs from the input's in its aspect ratio too
    wrapper = wrap(model, min_sizes=[72, 90, 110], people_at_once=2, max_people=9)
    (output,) = wrapper([{**image_input, "height": image_size[0], "width": image_size[1]}])
    output = output["instances"]

    views = wrapper.mapper({**image_input, "height": image_size[0], "width": image_size[1]})
    sizes = [tuple(view["image"].shape[1:]) for view in views]
    assert sizes == [s for s in ((72, 96), (90, 120), (110, 147)) for _ in range(2)]
    mirrored = [False, True] * 3
    for view, other in zip(views[::2], views[1::2]):
        assert torch.equal(view["image"].flip(2), other["image"])
    raw = [model.inference([view], do_postprocess=False)[0] for view in views]
    boxes = torch.cat(
        [
            to_output_frame(x.pred_boxes.tensor, image_size, size, is_mirrored)
            for x, size, is_mirrored in zip(raw, sizes, mirrored)
        ]
    )
    scores = torch.cat([x.box_scores for x in raw])
    boxes, scores = boxes[scores > 0.2], scores[scores > 0.2]
    keep, scores = soft_nms(boxes, scores, 0.5, max_boxes=9)
    boxes = boxes[keep]
    assert len(keep) == 9
    torch.testing.assert_close(output.pred_boxes.tensor.double(), boxes, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(output.box_scores, scores, rtol=1e-4, atol=1e-5)

    probabilities, edges, person_scores, mious = [], [], [], []
    for view, size, is_mirrored in zip(views, sizes, mirrored):
        given = Instances(
            size,
            pred_boxes=Boxes(to_view(boxes, image_size, size, is_mirrored).float()),
            pred_classes=torch.zeros(len(boxes), dtype=torch.int64),
            scores=scores,
        )
        (parsed,) = model.inference([view], [given], do_postprocess=False)
        parts = parsed.pred_part_logits.probabilities().double().numpy()
        edge = parsed.pred_edge_logits.probabilities().double().numpy()
        if is_mirrored:
            parts = parts[:, [0, 1, 3, 2, 4], :, ::-1]
            edge = edge[:, :, :, ::-1]
        probabilities.append(parts)
        edges.append(edge)
        person_scores.append(parsed.scores.double().numpy())
        if score_head:
            mious.append(parsed.pred_mious.double().numpy())
    np.testing.assert_allclose(output.scores, np.mean(person_scores, axis=0), rtol=1e-4)
    assert output.has("pred_mious") == score_head
    if score_head:
        np.testing.assert_allclose(output.pred_mious, np.mean(mious, axis=0), rtol=1e-4)
        assert np.std(mious, axis=0).max() > 1e-3  # the views do differ
    else:
        torch.testing.assert_close(output.scores, output.box_scores)

    for name, maps in (("pred_part_maps", probabilities), ("pred_edges", edges)):
        logits = ROIPartLogits(torch.tensor(np.log(np.mean(maps, axis=0))).float())
        expected, part_scores = logits.to_part_maps(boxes.float(), image_size)
        expected, actual = expected.to_full(), output.get(name).to_full()
        assert expected.unique().numel() >= 2
        assert (actual != expected).float().mean() < 1e-3  # rounding where two classes tie
        if name == "pred_part_maps":
            torch.testing.assert_close(output.pred_part_scores, part_scores, rtol=1e-2, atol=1e-3)


class ReorderedMapper:
    def __init__(self, mapper, order):
        self.mapper, self.order = mapper, order

    def __call__(self, image_input):
        views = self.mapper(image_input)
        return [views[i] for i in self.order]


@pytest.mark.parametrize("order", [[5, 4, 3, 2, 1, 0], [2, 5, 0, 3, 1, 4]])
def test_does_not_depend_on_the_order_of_the_views(model, order):
    image = make_input(96, 128, seed=2)
    mapper = DatasetMapperTTA(min_sizes=[80, 96, 120], max_size=400, flip=True)
    (expected,) = wrap(model, mapper=mapper)([image])
    (reordered,) = wrap(model, mapper=ReorderedMapper(mapper, order))([image])
    assert_bit_same(reordered["instances"], expected["instances"])


def test_ties_do_not_depend_on_the_order_of_the_views(model):
    """Of overlapping boxes with equal scores the same one comes first, whoever found it."""
    wrapper = wrap(model, nms_thresh=0.3)
    boxes = torch.tensor([[0.0, 0, 50, 50], [10.0, 0, 60, 50], [5.0, 0, 50, 50]])
    scores = torch.tensor([0.9, 0.9, 0.9])
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        people = wrapper._merge_boxes(boxes[order].double(), scores[order], (64, 64), (64, 64))
        assert people.pred_boxes.tensor.tolist()[0] == [0.0, 0, 50, 50]


def test_images_of_a_batch_do_not_see_each_other(model):
    wrapper = wrap(model)
    images = [make_input(96, 128, seed=0), make_input(70, 90, seed=1), make_input(128, 96, seed=2)]
    images[1].update(height=140, width=180)
    outputs = wrapper(images)
    for image, output, size in zip(images, outputs, [(96, 128), (140, 180), (128, 96)]):
        check_fields(output["instances"], size)
        assert_bit_same(output["instances"], wrapper([image])[0]["instances"])
    assert wrapper([]) == []


def test_image_without_people(model):
    """Its result is of the same kind as any other."""
    (output,) = wrap(model, score_thresh=1.0)([make_input(96, 128)])
    check_fields(output["instances"], (96, 128))
    assert len(output["instances"]) == 0


def test_a_stock_two_stage_detector_with_a_parsing_branch():
    """Its boxes come from the box head; by itself it would not even paste the parts."""
    cfg = tiny_yacs_config()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.FCOS_PROPOSALS.SCORE_THRESH = 0.0
    cfg.MODEL.ROI_HEADS.NAME = "ParsingROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    wrapper = wrap(model, min_sizes=[80, 96], max_people=5)
    image = {**make_input(96, 128), "height": 192, "width": 256}
    (output,) = wrapper([image])
    check_fields(output["instances"], (192, 256))
    assert len(output["instances"]) == 5
    with torch.no_grad():
        views = model.inference(wrapper.mapper(image), do_postprocess=False)
    best = max(view.box_scores.max() for view in views)
    torch.testing.assert_close(output["instances"].box_scores[0], best, rtol=1e-3, atol=0)


def test_merged_boxes(model):
    """Low scores, boxes outside of the image and all but the best ``max_people`` are dropped."""
    boxes = torch.tensor(
        [
            [10.0, 10, 20, 30],  # at the threshold
            [-5.0, -5, 20, 30],
            [70.0, 10, 90, 30],  # outside
            [30.0, 10, 50, 30],
            [30.0, 10, 50, 28],  # IoU 0.9 with the one before
            [0.0, 40, 10, 47],
        ]
    ).double()
    scores = torch.tensor([0.25, 0.75, 0.9, 0.5, 0.625, 0.3])
    wrapper = wrap(model, score_thresh=0.25, nms_thresh=0.5, max_people=4)
    people = wrapper._merge_boxes(boxes, scores, (48, 64), (48, 64))
    assert people.pred_boxes.tensor.tolist() == [
        [0.0, 0, 20, 30],
        [30.0, 10, 50, 28],
        [0.0, 40, 10, 47],
        [30.0, 10, 50, 30],
    ]
    assert people.box_scores.tolist() == pytest.approx([0.75, 0.625, 0.3, 0.05])
    assert people.pred_classes.tolist() == [0, 0, 0, 0]
    wrapper.max_people = 2
    assert len(wrapper._merge_boxes(boxes, scores, (48, 64), (48, 64))) == 2


def test_boxes_of_pixel_indices():
    """In the authors' convention a box's sides are its first and last pixels."""
    model = build()
    model.proposal_generator.inclusive_boxes = True
    wrapper = wrap(model, min_sizes=[48], score_thresh=0.1, nms_thresh=0.5)
    image = {**make_input(48, 64), "height": 96, "width": 128}
    plain, mirrored = (wrapper._detect(x, (96, 128))[0] for x in wrapper.mapper(image))
    box, half = torch.tensor([[10.0, 20, 41, 61]]), torch.tensor([[5.0, 10, 20.5, 30.5]])
    assert plain.boxes_to_view(box).tolist() == half.tolist()
    assert plain.boxes_to_output(half).tolist() == box.tolist()
    # Of the view's 64 columns the first is 0, the last 63.
    assert mirrored.boxes_to_view(box).tolist() == [[42.5, 10, 58, 30.5]]
    assert mirrored.boxes_to_output(torch.tensor([[42.5, 10, 58, 30.5]])).tolist() == box.tolist()
    # A box of one pixel is a box; IoU of 4 x 1 and 3 x 1 pixels: 3 / 4.
    # One that ends between the last pixel of the image and its frame stays as it is.
    boxes = torch.tensor([[120, 9, 127.5, 9], [0, 0, 3, 0], [0, 0, 2, 0]])
    scores = torch.tensor([0.9, 0.8, 0.4])
    people = wrapper._merge_boxes(boxes, scores, (96, 128), (96, 128))
    assert people.pred_boxes.tensor.tolist() == [[120, 9, 127.5, 9], [0, 0, 3, 0], [0, 0, 2, 0]]
    assert people.box_scores.tolist() == pytest.approx([0.9, 0.8, 0.1])
    # In a first view of a third of the size, 2 x 1 and 5 / 3 x 1 pixels: 5 / 6.
    people = wrapper._merge_boxes(boxes, scores, (96, 128), (32, 42.0 + 2 / 3))
    assert people.box_scores.tolist() == pytest.approx([0.9, 0.8, 0.4 / 6])
    (output,) = wrapper([image])
    check_fields(output["instances"], (96, 128))


@pytest.mark.parametrize("inclusive", [False, True])
def test_float_views(inclusive):
    """Short sides 40 and 51, but no side above 80, of 33x61 pixels shown as 66x122."""
    pixels = np.random.default_rng(0).integers(0, 256, (33, 61, 3)).astype(np.uint8)
    image = {
        "image": torch.from_numpy(pixels.transpose(2, 0, 1).copy()),
        "height": 66,
        "width": 122,
        "image_id": 7,
    }
    model = build()
    model.proposal_generator.inclusive_boxes = inclusive
    mapper = FloatDatasetMapperTTA(min_sizes=[40, 51], max_size=80, flip=True)
    wrapper = wrap(model, mapper=mapper)
    views = mapper(image)
    assert len(views) == 4
    # The second factor is 80 / 61, as 51 / 33 would make the long side 94.
    for (plain, mirrored), factor, width in zip(
        (views[:2], views[2:]), (40 / 33, 80 / 61), (74, 80)
    ):
        resized = cv2.resize(pixels.astype(np.float32), None, fx=factor, fy=factor)
        assert resized.shape[1] == width
        assert (resized % 1 != 0).mean() > 0.5
        # Mirrored first: with 61 * 40 / 33 = 73.9 columns, not the mirror image of the other.
        turned = cv2.resize(pixels[:, ::-1].astype(np.float32), None, fx=factor, fy=factor)
        assert (np.abs(turned - resized[:, ::-1]).max() > 1) == (width == 74)
        for view, expected in ((plain, resized), (mirrored, turned)):
            assert view["image"].dtype == torch.float32 and view["image_id"] == 7
            np.testing.assert_array_equal(view["image"], expected.transpose(2, 0, 1))
        box = torch.tensor([[10.0, 20, 41, 61]]).double()
        ratios = np.array([width / 122, resized.shape[0] / 66] * 2)
        scaled = box[0].numpy() * ratios
        last = width - 1 if inclusive else width
        turned = [last - scaled[2], scaled[1], last - scaled[0], scaled[3]]
        for view, expected in ((plain, scaled), (mirrored, turned)):
            view, _ = wrapper._detect(view, (66, 122))
            in_view = view.boxes_to_view(box)
            np.testing.assert_allclose(in_view, [expected])
            torch.testing.assert_close(view.boxes_to_output(in_view), box)
    assert len(FloatDatasetMapperTTA(min_sizes=[40], max_size=80, flip=False)(image)) == 1
    (output,) = wrapper([image])
    check_fields(output["instances"], (66, 122))


def test_memory_does_not_grow_with_the_number_of_people(model, monkeypatch):
    """But for the part maps of the output."""
    monkeypatch.setattr(model.roi_heads.parsing_head, "upsample_factor", 10)
    peaks = {}
    for num_people in (4, 24):
        wrapper = wrap(
            model, score_thresh=0.0, nms_thresh=0.9, max_people=num_people, people_at_once=2
        )
        with LiveBytes() as memory:
            (output,) = wrapper([make_input(96, 128)])
        assert len(output["instances"]) == num_people
        peaks[num_people] = memory.peak
    probabilities_of_one_person = NUM_CLASSES * (9 * 2 * 10) ** 2 * 4  # bytes
    assert peaks[4] > 2 * probabilities_of_one_person
    assert peaks[24] - peaks[4] < probabilities_of_one_person


def test_follows_the_models_mode(model):
    wrapper = wrap(model)
    assert not wrapper.training
    wrapper.train()
    with pytest.raises(RuntimeError, match="eval"):
        wrapper([make_input(96, 128)])
    wrapper.eval()
    assert not model.training


def test_keeps_no_graph(model):
    (output,) = wrap(model)([make_input(96, 128)])
    assert not output["instances"].scores.requires_grad


def test_what_it_does_not_fit(model):
    with pytest.raises(TypeError, match="ParsingROIHeads"):
        wrap(nn.Linear(1, 1))
    labels = AIParsingWithTTA(
        model,
        mapper=DatasetMapperTTA(min_sizes=[96], max_size=400, flip=True),
        part_labels=CIHP_PART_LABELS,
    )
    with pytest.raises(ValueError, match="5 part classes, but part_labels has 20"):
        labels([make_input(96, 128)])
    many = build()
    many.roi_heads.num_classes = 80
    with pytest.raises(ValueError, match="80 classes"):
        wrap(many)


def test_from_yacs():
    name = "tta_test_five_parts"
    register_parsing_dataset(name, lambda: [], PART_LABELS)
    try:
        cfg = tiny_yacs_config()
        cfg.DATASETS.TEST = (name,)
        cfg.TEST.AUG.MIN_SIZES = (80, 96)
        cfg.TEST.AUG.SCORE_THRESH = 0.25
        cfg.TEST.DETECTIONS_PER_IMAGE = 7
        wrapper = AIParsingWithTTA(cfg, build(), nms_thresh=0.75)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert wrapper.part_labels == PART_LABELS
    assert wrapper.mapper.min_sizes == (80, 96) and wrapper.mapper.flip
    assert (wrapper.max_people, wrapper.nms_thresh, wrapper.score_thresh) == (7, 0.75, 0.25)


@pytest.mark.parametrize(
    "name, split, min_sizes, nms_thresh",
    [
        ("cihp", "cihp_val", [500, 600, 700, 800, 850], 0.5),
        ("vip", "vip_val", [500, 600, 700, 800, 850], 0.5),
        ("lv_mhp_v2", "lv_mhp_v2_val", [500, 600, 700, 800, 850, 1000], 0.75),
        ("demo", "drawn_cihp_val", [176, 192, 208], 0.5),
    ],
)
def test_configs(model, name, split, min_sizes, nms_thresh):
    config = LazyConfig.load(str(CONFIGS / "common/data/cihp.py"))
    config.dataloader.test.dataset.names = split
    config.test_time_augmentation = LazyConfig.load(str(CONFIGS / "common/tta.py"))[name]
    assert config.test_time_augmentation.enabled is False
    config.test_time_augmentation.wrapper.model = model
    wrapper = instantiate(config.test_time_augmentation.wrapper)
    assert wrapper.model is model
    assert list(wrapper.mapper.min_sizes) == min_sizes and wrapper.mapper.flip
    assert (wrapper.score_thresh, wrapper.nms_thresh, wrapper.max_people) == (0.05, nms_thresh, 100)
    assert wrapper.part_labels.num_classes == (59 if name == "lv_mhp_v2" else 20)


@pytest.fixture
def run_config(cihp_folder, tmp_path):
    """A saved config of a tiny run on one image of 64x96 pixels, tested at short side 48."""
    human_map = np.zeros((64, 96), np.uint8)
    human_map[8:60, 20:60] = 1
    cihp_folder.split = "val"
    cihp_folder.add("one", human_map * np.uint8(5), human_map)
    name = "tta_test_one_image"
    register_cihp(name, cihp_folder.root, "val")
    config = LazyConfig.load(str(CONFIGS / "demo/aiparsing_tiny_FPN_drawn_cihp.py"))
    config.dataloader.test.dataset.names = name
    config.dataloader.test.num_workers = 0
    config.dataloader.test.mapper.augmentations[0].short_edge_length = 48
    weights = tmp_path / "weights.pth"
    torch.save({"model": instantiate(config.model).state_dict()}, weights)
    config.train.init_checkpoint = str(weights)
    config.train.device = "cpu"
    config.train.output_dir = str(tmp_path / "run")
    config.test_time_augmentation = LazyConfig.load(str(CONFIGS / "common/tta.py")).demo
    config.test_time_augmentation.wrapper.mapper.min_sizes = [48, 64]
    path = tmp_path / "config.yaml"
    LazyConfig.save(config, str(path))
    yield path
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize("enabled", [True, False])
def test_train_net_evaluates_plain_and_augmented(run_config, enabled, monkeypatch):
    seen = []
    inference_on_dataset = training.inference_on_dataset

    def record(model, loader, evaluator):
        (inputs,) = next(iter(loader))
        seen.append((type(model).__name__, tuple(inputs["image"].shape[1:])))
        return inference_on_dataset(model, loader, evaluator)

    groups = []
    monkeypatch.setattr(training, "inference_on_dataset", record)
    monkeypatch.setattr(training, "print_csv_format", lambda results: groups.extend(results))
    override = f"test_time_augmentation.enabled={enabled}"
    arguments = ["--config-file", str(run_config), "--eval-only", override]
    training.main(default_argument_parser().parse_args(arguments))
    output_dir = run_config.parent / "run" / "eval"
    assert (output_dir / "parsing_results.json").is_file()
    assert (output_dir / "tta" / "parsing_results.json").is_file() == enabled
    plain, augmented = ("AIParsing", (48, 72)), ("AIParsingWithTTA", (64, 96))
    assert seen == ([plain, augmented] if enabled else [plain])
    assert groups == ["parsing", "bbox"] + (["parsing_TTA", "bbox_TTA"] if enabled else [])


def test_train_net_augments_for_a_list_of_evaluators(run_config, monkeypatch):
    config = LazyConfig.load(str(run_config))
    second = copy.deepcopy(config.dataloader.evaluator)
    second.box_group, second.output_dir = None, None
    config.dataloader.evaluator = [second]
    LazyConfig.save(config, str(run_config))
    groups = []
    monkeypatch.setattr(training, "print_csv_format", lambda results: groups.extend(results))
    override = "test_time_augmentation.enabled=True"
    arguments = ["--config-file", str(run_config), "--eval-only", override]
    training.main(default_argument_parser().parse_args(arguments))
    assert groups == ["parsing", "parsing_TTA"]


def test_train_net_says_that_there_is_nothing_to_enable(run_config):
    config = LazyConfig.load(str(run_config))
    del config.test_time_augmentation
    LazyConfig.save(config, str(run_config))
    arguments = ["--config-file", str(run_config), "--eval-only"]
    arguments.append("+test_time_augmentation.enabled=True")
    with pytest.raises(ValueError, match="common/tta.py"):
        training.main(default_argument_parser().parse_args(arguments))
