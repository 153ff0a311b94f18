"""The parsing branch beside mask and keypoint heads, in Detectron2's GeneralizedRCNN and ours."""

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import DatasetMapperTTA, build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from tiny_models import make_input, set_tiny_parsing_head, tiny_yacs_config

from aiparsing_d2.data.annotations import read_person_annotations
from aiparsing_d2.data.datasets.cihp import register_cihp
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.modeling import AIParsingWithTTA, parsing_postprocess
from aiparsing_d2.structures import PartMaps, paste_part_maps
from aiparsing_d2.structures.part_labels import PartLabels, distinct_colors
from aiparsing_d2.submissions import SubmissionWriter

PEOPLE = [[10.0, 10.0, 60.0, 90.0], [50.0, 20.0, 110.0, 95.0]]
META_ARCHITECTURES = ("GeneralizedRCNN", "AIParsing")
DATASET = "stock_meta_arch_test"


def make_config(meta_architecture="GeneralizedRCNN"):
    cfg = tiny_yacs_config()
    cfg.MODEL.META_ARCHITECTURE = meta_architecture
    cfg.MODEL.FCOS_PROPOSALS.SCORE_THRESH = 0.0
    cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = True
    cfg.MODEL.ROI_HEADS.NAME = "ParsingROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 1, 8
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 1, 8
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [8]
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 3
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    set_tiny_parsing_head(cfg)
    return cfg


def build(meta_architecture, seed=0):
    torch.manual_seed(seed)
    return build_model(make_config(meta_architecture)).eval()


@pytest.fixture(scope="module")
def models():
    return {name: build(name) for name in META_ARCHITECTURES}


@pytest.fixture
def data_set(two_people):
    """One image with the five classes of the tiny models; CIHP's others are ignored."""
    labels = PartLabels(["Background", "a", "b", "c", "d"], distinct_colors(5))
    register_cihp(DATASET, two_people.root, "train", labels)
    (record,) = DatasetCatalog.get(DATASET)
    yield record
    DatasetCatalog.remove(DATASET)
    MetadataCatalog.remove(DATASET)


def make_training_input(people):
    sample = make_input(96, 128, people)
    instances = sample["instances"]
    instances.gt_masks = BitMasks(instances.gt_part_maps.to_full() > 0)
    centers = instances.gt_boxes.get_centers()[:, None].repeat(1, 3, 1)
    instances.gt_keypoints = Keypoints(
        torch.cat([centers, torch.full_like(centers, 2)[..., :1]], 2)
    )
    return sample


@pytest.mark.parametrize("name", META_ARCHITECTURES)
def test_people_without_labels_are_neither_positives_nor_negatives(models, name, monkeypatch):
    batch = [make_training_input(PEOPLE)]
    batch[0]["instances"].gt_classes[1] = -1
    model = models[name].train()
    roi_heads = model.roi_heads
    proposals = Instances(
        (96, 128), proposal_boxes=Boxes(torch.tensor([PEOPLE[0], PEOPLE[1], [0.0, 0, 20, 20]]))
    )
    proposals.objectness_logits = torch.zeros(3)
    with EventStorage():
        (sampled,) = roi_heads.label_and_sample_proposals([proposals], [batch[0]["instances"]])
    boxes = sampled.proposal_boxes.tensor.tolist()
    assert PEOPLE[1] not in boxes
    assert {tuple(b): c for b, c in zip(boxes, sampled.gt_classes.tolist())} == {
        tuple(PEOPLE[0]): 0,
        (0, 0, 20, 20): 1,  # background
    }

    seen = []
    monkeypatch.setattr(
        roi_heads.parsing_head,
        "forward",
        lambda x, instances: seen.extend(instances) or {"loss_parsing": x.sum()},
    )
    with EventStorage():
        model(batch)
    model.eval()
    (trained,) = seen
    assert len(trained) and set(trained.gt_classes.tolist()) == {0}
    parts = PartMaps.from_full(batch[0]["instances"].gt_part_maps.to_full()[:1])
    for part_map in trained.gt_part_maps.maps:
        assert torch.equal(part_map, parts.maps[0])


@pytest.mark.parametrize("name", META_ARCHITECTURES)
@pytest.mark.parametrize("people", [PEOPLE, []], ids=["two people", "nobody"])
def test_training(models, name, people):
    batch = [make_training_input(people)]
    model = models[name].train()
    with EventStorage():
        losses = model(batch)
    model.eval()
    assert {"loss_mask", "loss_keypoint", "loss_parsing", "loss_fcos_cls"} <= set(losses)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()


@torch.no_grad()
def test_both_architectures_give_the_same(models):
    """Also where the output is larger than the network's input."""
    image = {**make_input(96, 128), "height": 192, "width": 256}
    stock, ours = (models[name]([image])[0]["instances"] for name in META_ARCHITECTURES)
    assert stock.has("pred_part_logits") and not stock.has("pred_part_maps")
    pasted = paste_part_maps(stock)
    assert stock.has("pred_part_logits")  # left as it is
    assert paste_part_maps(pasted) is pasted and paste_part_maps(ours) is ours
    assert set(pasted.get_fields()) == set(ours.get_fields())
    assert len(ours) == len(pasted) > 0
    for field in ("scores", "pred_masks", "pred_keypoints", "pred_part_scores"):
        assert torch.equal(pasted.get(field), ours.get(field)), field
    assert torch.equal(pasted.pred_boxes.tensor, ours.pred_boxes.tensor)
    assert torch.equal(pasted.pred_part_maps.to_full(), ours.pred_part_maps.to_full())
    assert ours.pred_masks.shape == (len(ours), 192, 256)
    assert ours.pred_masks.dtype == torch.bool and ours.pred_keypoints.shape[1:] == (3, 3)


@torch.no_grad()
def test_with_augmentation_people_are_parsed_without_the_other_heads(models):
    """Even where the parsing branch's feature maps, which are kept, are not all that these read."""
    model = models["AIParsing"]
    assert set(model.roi_heads.mask_in_features) - set(model.roi_heads.parsing_in_features)
    labels = PartLabels(["Background", "a", "b", "c", "d"], distinct_colors(5))
    mapper = DatasetMapperTTA(min_sizes=[96], max_size=200, flip=False)
    augmented = AIParsingWithTTA(model, mapper=mapper, part_labels=labels, score_thresh=0.0)
    image = make_input(96, 128)
    (found,) = augmented([image])
    instances = found["instances"]
    assert len(instances) > 0
    assert instances.has("pred_part_maps") and not instances.has("pred_keypoints")


@torch.no_grad()
def test_inclusive_boxes_leave_no_head_raw(models):
    model = models["AIParsing"]
    raw = model.inference([make_input(96, 128)], do_postprocess=False)[0]
    keypoints = raw.pred_keypoints.clone()
    exclusive = parsing_postprocess(raw, 192, 256)
    inclusive = parsing_postprocess(raw, 192, 256, inclusive_boxes=True)
    assert torch.equal(raw.pred_keypoints, keypoints)
    assert inclusive.pred_masks.shape == (len(inclusive), 192, 256)
    expected = keypoints * keypoints.new_tensor([2, 2, 1])
    torch.testing.assert_close(inclusive.pred_keypoints, expected)
    torch.testing.assert_close(exclusive.pred_keypoints, expected)
    shift = raw.pred_boxes.tensor * 2 + raw.pred_boxes.tensor.new_tensor([0, 0, 1, 1])
    torch.testing.assert_close(inclusive.pred_boxes.tensor, shift)


def test_postprocessing_twice_is_told():
    model = build("GeneralizedRCNN")
    with torch.no_grad():
        stock = model([make_input(96, 128)])[0]["instances"]
    with pytest.raises(ValueError, match="paste_part_maps"):
        parsing_postprocess(stock, 96, 128)


def test_evaluator_and_writer_take_the_stock_output(models, data_set, tmp_path):
    image = torch.zeros(3, 32, 48, dtype=torch.uint8)
    loader = [[{**data_set, "image": image}]]
    results, written = [], []
    for name in META_ARCHITECTURES:
        evaluator = ParsingEvaluator(DATASET, read_annotations=read_ignoring_unknown)
        folder = tmp_path / name
        results.append(
            inference_on_dataset(
                models[name], loader, [evaluator, SubmissionWriter(DATASET, folder)]
            )
        )
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        written.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert results[0]["parsing"] == pytest.approx(results[1]["parsing"], nan_ok=True)
    assert written[0] == written[1] and len(written[0]) > 1


def read_ignoring_unknown(record, num_classes):
    return read_person_annotations({**record, "ignore_unknown_labels": True}, num_classes)


@pytest.mark.parametrize("name", META_ARCHITECTURES)
def test_default_predictor(name):
    torch.manual_seed(
        0
    )  # with some random weights Detectron2's keypoints fail an assertion of theirs
    cfg = make_config(name)
    cfg.MODEL.WEIGHTS = ""
    cfg.INPUT.MIN_SIZE_TEST = 64
    instances = DefaultPredictor(cfg)(torch.zeros(96, 128, 3, dtype=torch.uint8).numpy())[
        "instances"
    ]
    part_maps = paste_part_maps(instances).pred_part_maps
    assert part_maps.image_size == (96, 128) and len(part_maps) == len(instances) > 0
