"""ParsingEvaluator: through files and Detectron2's structures, in one process and in two."""

from __future__ import annotations

import json
import logging
import math
from datetime import timedelta

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.structures import Boxes, Instances
from PIL import Image
from reference_cases import CASE_NAMES, Case, CaseImage, load_case

from aiparsing_d2.data.annotations import PersonAnnotations
from aiparsing_d2.data.datasets.cihp import register_cihp
from aiparsing_d2.data.datasets.lv_mhp_v2 import register_lv_mhp_v2
from aiparsing_d2.data.datasets.registration import register_parsing_dataset
from aiparsing_d2.data.datasets.vip import register_vip
from aiparsing_d2.engine.launch import leave_process_group
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.structures.part_labels import PartLabels
from aiparsing_d2.structures.part_maps import PartMaps

DATASET = "parsing_evaluator_test"


@pytest.fixture(autouse=True)
def unregister():
    yield
    if DATASET in DatasetCatalog:
        DatasetCatalog.remove(DATASET)
        MetadataCatalog.remove(DATASET)


def write_cihp_folder(root, case: Case):
    """Writes a case whose people do not overlap in CIHP's layout."""
    folder = root / "Validation"
    for image in case.images:
        blank = np.zeros((*image.category_map.shape, 3), dtype=np.uint8)
        for subfolder, pixels in (
            ("Images", blank),
            ("Category_ids", image.category_map),
            ("Human_ids", image.human_map),
        ):
            (folder / subfolder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / subfolder / f"{image.name}.png")
    (root / "val_id.txt").write_text("".join(f"{image.name}\n" for image in case.images))
    return root


def write_lv_mhp_v2_folder(root, case: Case):
    """Writes a case in LV-MHP-v2's layout, in which people may overlap."""
    for folder in ("list", "val/images", "val/parsing_annos"):
        (root / folder).mkdir(parents=True)
    for image in case.images:
        blank = np.zeros((*image.category_map.shape, 3), dtype=np.uint8)
        Image.fromarray(blank).save(root / "val" / "images" / f"{image.name}.jpg")
        for k, person_map in enumerate(image.gt_maps, start=1):
            name = f"{image.name}_{len(image.gt_maps):02d}_{k:02d}.png"
            red = blank.copy()
            red[..., 0] = person_map
            Image.fromarray(red).save(root / "val" / "parsing_annos" / name)
    names = "".join(f"{image.name}\n" for image in case.images)
    (root / "list" / "val.txt").write_text(names)
    return root


def write_vip_folder(root, frames: dict[str, CaseImage]):
    """Writes images as frames of videos; ``frames`` has their ids."""
    for image_id, image in frames.items():
        blank = np.zeros((*image.category_map.shape, 3), dtype=np.uint8)
        for subfolder, pixels, suffix in (
            ("Images", blank, "jpg"),
            ("Annotations/Category_ids", image.category_map, "png"),
            ("Annotations/Human_ids", image.human_map, "png"),
        ):
            path = root / subfolder / f"{image_id}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (root / "lists").mkdir()
    (root / "lists" / "val_id.txt").write_text("".join(f"{image_id}\n" for image_id in frames))
    return root


def make_evaluator(name: str, case: Case, tmp_path, **kwargs) -> ParsingEvaluator:
    """Registers a case and builds its evaluator."""
    if "cihp" in name:
        register_cihp(DATASET, write_cihp_folder(tmp_path, case), "val")
    else:
        register_lv_mhp_v2(DATASET, write_lv_mhp_v2_folder(tmp_path, case), "val")
    return ParsingEvaluator(DATASET, **case.settings, **kwargs)


def to_output(image: CaseImage) -> dict:
    """A case's predictions as a model gives them."""
    instances = Instances(image.category_map.shape)
    instances.pred_boxes = Boxes(torch.from_numpy(image.boxes))
    instances.scores = torch.from_numpy(image.scores)
    instances.pred_classes = torch.zeros(len(image.scores), dtype=torch.int64)
    instances.pred_part_maps = PartMaps.from_full(image.maps)
    # The model gives mean probabilities of all classes, the case their products with the score.
    probabilities = np.insert(image.part_scores / image.scores[:, None], 0, 1.0, axis=1)
    instances.pred_part_scores = torch.from_numpy(probabilities)
    return {"instances": instances}


def to_input(image: CaseImage) -> dict:
    return {"image_id": image.name, "file_name": f"{image.name}.jpg"}


def process(evaluator, images):
    evaluator.reset()
    for image in images:
        evaluator.process([to_input(image)], [to_output(image)])
    return evaluator.evaluate()


@pytest.mark.parametrize("name", CASE_NAMES)
def test_numbers_of_the_reference_evaluators(name, tmp_path):
    case = load_case(name)
    evaluator = make_evaluator(name, case, tmp_path, output_dir=str(tmp_path / "output"))
    results = process(evaluator, case.images)
    written = json.loads((tmp_path / "output" / "parsing_results.json").read_text())
    part_names = list(MetadataCatalog.get(DATASET).part_names)

    expected = case.expected
    parsing = results["parsing"]

    def check(percent, reference):
        percent, reference = np.array(percent, np.float64), np.array(reference, np.float64)
        np.testing.assert_allclose(percent / 100, reference, rtol=0, atol=1e-6)  # None is NaN

    check(parsing["mIoU"], expected["mIoU"])
    check([parsing[f"IoU-{part}"] for part in part_names], expected["IoU"])
    check(parsing["pACC"], expected["pixel_acc"])
    check(parsing["mACC"], expected["mean_acc"])
    for metric, key in (("APp", "APp"), ("PCP", "PCP"), ("APr", "APr")):
        check([parsing[f"{metric}-{t}"] for t in range(10, 100, 10)], expected[key])
    check(parsing["APp50"], expected["APp_50"])
    check(parsing["APpvol"], expected["APp_vol"])
    check(parsing["PCP50"], expected["PCP_50"])
    check(parsing["APrvol"], expected["APr_vol"])
    for c, part in enumerate(part_names):
        reference = expected["APr_per_class"].get(str(c), [None] * 9)
        check(written["per_class"][part]["APr"], reference)
    check([results["bbox"][key] for key in ("AP", "AP50", "AP75")],
          [expected["bbox"][key] for key in ("AP", "AP50", "AP75")])  # fmt: skip

    assert results.keys() == {"parsing", "bbox"}
    assert all(type(value) is float for group in results.values() for value in group.values())
    for group, values in results.items():
        for metric, value in values.items():
            stored = written["results"][group][metric]
            assert stored is None if math.isnan(value) else stored == value
    assert written["num_images"] == len(case.images)
    assert written["settings"]["semseg_thresh"] == case.settings["semseg_thresh"]


def evaluate_share(rank, world_size, root, folder):
    """One of several processes; each evaluates its share, last image first."""
    # A file as meeting point needs no free port. The timeout leaves room for a busy machine, but a
    # process that waits for one that failed does not wait for half an hour.
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(minutes=5),
    )
    register_cihp(DATASET, root, "val")
    case = load_case("02_cihp_noisy")
    # Shares of different sizes: 6, 2 and no images.
    shares = (case.images[2::-1] + case.images[:4:-1], case.images[4:2:-1], [])
    results = process(ParsingEvaluator(DATASET, **case.settings), shares[rank])
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.barrier()  # nobody leaves while another may still be receiving
    leave_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_same_bits_as_one(tmp_path, processes):
    case = load_case("02_cihp_noisy")
    alone = process(make_evaluator("02_cihp_noisy", case, tmp_path / "data"), case.images)
    arguments = (processes, tmp_path / "data", tmp_path)
    torch.multiprocessing.spawn(evaluate_share, arguments, nprocs=processes)
    assert json.loads((tmp_path / "0.json").read_text()) == alone
    for rank in range(1, processes):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {}


class Replay(torch.nn.Module):
    """A model that gives stored outputs."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs):
        return [self.outputs[model_input["image_id"]] for model_input in inputs]


def test_runs_in_detectron2s_inference_loop_and_log(tmp_path, caplog):
    case = load_case("02_cihp_noisy")
    evaluator = make_evaluator("02_cihp_noisy", case, tmp_path)
    model = Replay({image.name: to_output(image) for image in case.images})
    batches = [[to_input(image) for image in case.images[i : i + 3]] for i in (0, 3, 6)]
    with caplog.at_level(logging.INFO):
        results = inference_on_dataset(model, batches, evaluator)
        print_csv_format(results)
    assert results["parsing"]["APp50"] == pytest.approx(100 * case.expected["APp_50"])
    assert "mIoU,pACC,mACC,APp50,APpvol,PCP50,APr50,APrvol" in caplog.text
    assert "AP,AP50,AP75" in caplog.text
    tables = [record.getMessage() for record in caplog.records if "aiparsing_d2" in record.name]
    assert any("Human parsing on 8 images" in table and "67.606" in table for table in tables)
    assert any("UpperClothes" in table for table in tables)


def test_person_and_box_scores_may_differ_or_be_all_there_is(tmp_path):
    case = load_case("02_cihp_noisy")
    evaluator = make_evaluator("02_cihp_noisy", case, tmp_path)
    usual = process(evaluator, case.images)

    def evaluate_changed(change):
        evaluator.reset()
        for image in case.images:
            output = to_output(image)
            change(output["instances"])
            evaluator.process([to_input(image)], [output])
        return evaluator.evaluate()

    def box_scores_reversed(instances):
        instances.box_scores = 1 - instances.scores

    def no_part_scores(instances):
        instances.remove("pred_part_scores")

    other_boxes = evaluate_changed(box_scores_reversed)
    assert other_boxes["parsing"] == usual["parsing"]
    assert other_boxes["bbox"]["AP"] != usual["bbox"]["AP"]
    person_scores_only = evaluate_changed(no_part_scores)
    assert person_scores_only["parsing"]["APp50"] == usual["parsing"]["APp50"]
    assert person_scores_only["parsing"]["APr50"] != usual["parsing"]["APr50"]


def test_semseg_thresh_comes_from_the_metadata(tmp_path):
    case = load_case("02_cihp_noisy")
    register_cihp(DATASET, write_cihp_folder(tmp_path, case), "val", semseg_thresh=1.0)
    by_metadata = process(ParsingEvaluator(DATASET), case.images)["parsing"]
    # No score reaches 1: everything counts as background.
    assert by_metadata["IoU-Background"] > 0
    assert by_metadata["IoU-Hair"] == 0
    given = process(ParsingEvaluator(DATASET, semseg_thresh=0.3), case.images)["parsing"]
    assert given["mIoU"] == pytest.approx(100 * case.expected["mIoU"])


def test_empty_instances(tmp_path):
    case = load_case("09_cihp_exact_threshold")
    evaluator = make_evaluator("09_cihp_exact_threshold", case, tmp_path)
    for image in case.images:
        evaluator.process([to_input(image)], [{"instances": Instances(image.category_map.shape)}])
    bare = evaluator.evaluate()
    evaluator.reset()
    for image in case.images:
        output = {"instances": to_output(image)["instances"][[]]}
        evaluator.process([to_input(image)], [output])
    with_fields = evaluator.evaluate()
    for results in (bare, with_fields):
        assert results["parsing"]["APpvol"] == results["parsing"]["PCP50"] == 0
        assert results["bbox"] == {"AP": 0, "AP50": 0, "AP75": 0}
        assert 0 < results["parsing"]["IoU-Background"] < 100


def test_image_without_people(tmp_path):
    case = load_case("09_cihp_exact_threshold")
    blank = np.zeros_like(case.images[0].category_map)
    images = [image.__class__(**{**vars(image), "category_map": blank, "human_map": blank})
              for image in case.images]  # fmt: skip
    evaluator = make_evaluator("09_cihp", Case(20, case.settings, images, {}), tmp_path)
    results = process(evaluator, images)
    assert math.isnan(results["parsing"]["APp50"])
    assert math.isnan(results["bbox"]["AP"])
    assert results["parsing"]["IoU-UpperClothes"] == 0


def test_frames_of_the_same_name_are_different_images(tmp_path):
    case = load_case("09_cihp_exact_threshold")
    ids = ["videos1/000000000001", "videos2/000000000001", "videos10/000000000001"]
    frames = dict(zip(ids, case.images, strict=True))
    register_vip(DATASET, write_vip_folder(tmp_path, frames), "val")
    evaluator = ParsingEvaluator(DATASET, **case.settings)
    for image_id, image in frames.items():
        evaluator.process([{"image_id": image_id}], [to_output(image)])
    results = evaluator.evaluate()
    assert results["parsing"]["APp50"] == pytest.approx(100 * case.expected["APp_50"])


def test_annotations_read_in_a_way_of_ones_own(tmp_path):
    case = load_case("10_mhp_noisy_overlapping_gt")
    names = ["Background", *(f"Part {c}" for c in range(1, case.num_classes))]
    labels = PartLabels(names, [(c, c, c) for c in range(case.num_classes)])
    images = {image.name: image for image in case.images}
    records = [{"file_name": f"{name}.jpg", "image_id": name} for name in images]
    register_parsing_dataset(DATASET, lambda: records, labels)

    def read_annotations(record, num_classes):
        assert num_classes == case.num_classes
        image = images[record["image_id"]]
        return PersonAnnotations(image.gt_maps, image.gt_boxes, image.category_map)

    evaluator = ParsingEvaluator(DATASET, **case.settings, read_annotations=read_annotations)
    results = process(evaluator, case.images)
    assert results["parsing"]["APp50"] == pytest.approx(100 * case.expected["APp_50"])
    assert "IoU-Part 58" in results["parsing"]


def test_nothing_or_not_all_processed(tmp_path, caplog):
    case = load_case("02_cihp_noisy")
    evaluator = make_evaluator("02_cihp_noisy", case, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert evaluator.evaluate() == {}
        assert "No image of parsing_evaluator_test" in caplog.text
        process(evaluator, case.images[:3])
    assert "Only 3 of the 8 images" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        process(evaluator, case.images)
    assert caplog.text == ""


def remove(field):
    return lambda instances: instances.remove(field)


def replace(field, change):
    return lambda instances: instances.set(field, change(instances.get(field)))


def label_20(part_maps):
    part_maps.maps[1][0] = 20
    return part_maps


def as_int64(part_maps):
    part_maps.maps = [part_map.long() for part_map in part_maps.maps]
    return part_maps


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            replace("pred_part_maps", label_20),
            "predicted person map 1 has the label 20.*20 classes",
        ),
        (replace("pred_part_maps", as_int64), "map 0 must be uint8.*got torch.int64"),
        (replace("scores", lambda scores: scores * math.nan), "person scores must be finite.*nan"),
        (replace("pred_part_scores", lambda scores: scores * math.inf), "part scores must be fin"),
        (replace("pred_part_scores", lambda scores: scores[:, 1:]), "part scores must have shape"),
        (replace("pred_boxes", lambda boxes: Boxes(boxes.tensor / 0)), "boxes must be finite"),
        (remove("pred_part_maps"), "the model's instances have no pred_part_maps"),
        (remove("scores"), "the model's instances have no scores"),
        (remove("pred_boxes"), "the model's instances have no pred_boxes"),
    ],
)
def test_errors_in_predictions_name_the_image_and_count_nothing(tmp_path, spoil, message):
    case = load_case("02_cihp_noisy")
    evaluator = make_evaluator("02_cihp_noisy", case, tmp_path)
    image = case.images[0]
    output = to_output(image)
    spoil(output["instances"])
    with pytest.raises(ValueError, match=f"image '0000001': .*{message}"):
        evaluator.process([to_input(image)], [output])
    assert evaluator.evaluate() == {}
    evaluator.process([to_input(image)], [to_output(image)])


def test_wrong_images_are_named(tmp_path):
    case = load_case("02_cihp_noisy")
    evaluator = make_evaluator("02_cihp_noisy", case, tmp_path)
    image = case.images[0]
    with pytest.raises(ValueError, match="'9999999' is not in the data set"):
        evaluator.process([{"image_id": "9999999"}], [to_output(image)])
    with pytest.raises(ValueError, match="'0000001'.*have the size.*100, 100.*130, 170"):
        evaluator.process([to_input(image)], [{"instances": Instances((100, 100))}])
    evaluator.process([to_input(image)], [to_output(image)])
    with pytest.raises(ValueError, match="'0000001' was scored already"):
        evaluator.process([to_input(image)], [to_output(image)])


def test_wrong_annotations_are_named(tmp_path):
    case = load_case("02_cihp_noisy")
    evaluator = make_evaluator("02_cihp_noisy", case, tmp_path)
    image = case.images[1]
    categories = tmp_path / "Validation" / "Category_ids" / "0000002.png"

    def fails(error, message):
        with pytest.raises(error, match=message):
            evaluator.process([to_input(image)], [to_output(image)])

    # A label of the ground truth that does not exist is an error, not a pixel to ignore.
    wrong = image.category_map.copy()
    wrong[image.human_map > 0] = 30
    Image.fromarray(wrong).save(categories)
    fails(ValueError, r"Category_ids.0000002\.png.*30")
    Image.fromarray(image.category_map[:-1]).save(categories)
    fails(ValueError, r"Category_ids.0000002\.png is 170x129.*170x130")
    Image.fromarray(image.category_map).save(categories)
    categories.write_bytes(categories.read_bytes()[:200])
    fails(ValueError, r"Category_ids.0000002\.png is not a readable image")
    categories.unlink()
    fails(FileNotFoundError, r"Category_ids.0000002\.png")
    assert evaluator.evaluate() == {}


def test_records_without_annotations_are_named():
    labels = PartLabels(["Background", "Hat"], [(0, 0, 0), (1, 1, 1)])
    records = [{"file_name": "test/7.jpg", "image_id": "7", "height": 4, "width": 4}]
    register_parsing_dataset(DATASET, lambda: records, labels)
    with pytest.raises(KeyError, match="test/7.jpg names no annotation files"):
        ParsingEvaluator(DATASET).process([{"image_id": "7"}], [{"instances": Instances((4, 4))}])


def test_ids_of_a_data_set_must_differ():
    labels = PartLabels(["Background", "Hat"], [(0, 0, 0), (1, 1, 1)])
    records = [{"file_name": name, "image_id": "1"} for name in ("a/1.jpg", "b/1.jpg")]
    register_parsing_dataset(DATASET, lambda: records, labels)
    with pytest.raises(ValueError, match="image_id '1': a/1.jpg and b/1.jpg"):
        ParsingEvaluator(DATASET)
