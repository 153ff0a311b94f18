"""SubmissionWriter: a model's outputs on disk score what ParsingEvaluator says."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import Boxes, Instances
from submission_scenes import NUM_CLASSES, SIZE, random_scene, write_png

from aiparsing_d2.data.datasets.registration import register_parsing_dataset
from aiparsing_d2.engine.launch import leave_process_group
from aiparsing_d2.evaluation import ParsingEvaluator
from aiparsing_d2.evaluation.image_statistics import ScoreThresholds
from aiparsing_d2.evaluation.parsing_metrics import percentages
from aiparsing_d2.structures.part_labels import PartLabels
from aiparsing_d2.structures.part_maps import PartMaps
from aiparsing_d2.submissions import (
    SubmissionWriter,
    open_submission,
    score_submission,
)

DATASET = "submission_writer_test"
LABELS = PartLabels(["Background", "Hat", "Hair", "Face", "Coat"], [(9 * c,) * 3 for c in range(5)])
SEMSEG_THRESH = 0.4  # not the default, so that it must come from the metadata


@pytest.fixture(autouse=True)
def unregister():
    yield
    if DATASET in DatasetCatalog:
        DatasetCatalog.remove(DATASET)
        MetadataCatalog.remove(DATASET)


def make_data_set(folder, num_images=6):
    """Registers images with annotation files; gives the model's inputs and outputs for them."""
    rng = np.random.default_rng(3)
    records, inputs, outputs = [], [], []
    for n in range(num_images):
        truth, prediction = random_scene(rng, overlapping=True)
        humans = np.zeros(SIZE, dtype=np.uint8)
        for k, person_map in enumerate(truth.person_maps, start=1):
            humans[person_map > 0] = k
        paths = {
            key: folder / f"{n}_{key}.png" for key in ("category_file_name", "human_file_name")
        }
        write_png(paths["category_file_name"], truth.category_map)
        write_png(paths["human_file_name"], humans)
        record = {"file_name": f"{n}.jpg", "image_id": f"{n}", "height": SIZE[0], "width": SIZE[1]}
        records.append(record | {key: str(path) for key, path in paths.items()})
        instances = Instances(SIZE)
        instances.pred_boxes = Boxes(torch.from_numpy(prediction.boxes))
        instances.scores = torch.from_numpy(prediction.scores).float()
        instances.pred_part_maps = PartMaps.from_full(prediction.person_maps)
        probabilities = np.insert(prediction.part_scores, 0, 1, axis=1)
        instances.pred_part_scores = torch.from_numpy(probabilities).float()
        inputs.append({"image_id": f"{n}"})
        outputs.append({"instances": instances})
    register_parsing_dataset(DATASET, lambda: records, LABELS, semseg_thresh=SEMSEG_THRESH)
    return records, inputs, outputs


def score_folder(folder, records):
    thresholds = ScoreThresholds(semantic=SEMSEG_THRESH)
    submission = open_submission(folder, NUM_CLASSES)
    result = score_submission(
        submission, records, LABELS.names, thresholds=thresholds, show_progress=False
    )
    return percentages(result.scores, LABELS.names)


@pytest.mark.parametrize("format_name", ["person_maps", "cihp", "lv_mhp_v2"])
def test_the_folder_scores_what_the_evaluator_says(format_name, tmp_path):
    records, inputs, outputs = make_data_set(tmp_path)
    evaluators = DatasetEvaluators(
        [ParsingEvaluator(DATASET), SubmissionWriter(DATASET, tmp_path / "out", format_name)]
    )
    evaluators.reset()
    evaluators.process(inputs[:4], outputs[:4])
    evaluators.process(inputs[4:], outputs[4:])
    evaluated = evaluators.evaluate()
    scored = score_folder(tmp_path / "out", records)
    names = {"person_maps": list(evaluated["parsing"]), "cihp": ["mIoU", "APr50", "APrvol"]}
    for name in names.get(format_name, ["mIoU", "pACC"]):
        np.testing.assert_equal(scored["parsing"][name], evaluated["parsing"][name])
    if format_name == "person_maps":
        assert scored["bbox"] == evaluated["bbox"]


def write_share(rank, world_size, folder):
    """One of several processes; each writes its share."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    records, inputs, outputs = make_data_set(folder / f"data{rank}")
    writer = SubmissionWriter(DATASET, folder / "out", "lv_mhp_v2")
    writer.reset()
    # Backwards: the index has the order of the data set all the same.
    for n in reversed(range(rank, len(records), world_size)):
        writer.process([inputs[n]], [outputs[n]])
    (folder / f"{rank}.json").write_text(json.dumps(writer.evaluate()))
    torch.distributed.barrier()  # nobody leaves while another may still be receiving
    leave_process_group()


def test_two_processes_write_the_same_files_as_one(tmp_path):
    _, inputs, outputs = make_data_set(tmp_path / "data")
    alone = SubmissionWriter(DATASET, tmp_path / "alone", "lv_mhp_v2")
    alone.reset()
    alone.process(inputs, outputs)
    assert alone.evaluate() == {}
    torch.multiprocessing.spawn(write_share, (2, tmp_path), nprocs=2)

    def files(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")}

    assert files(tmp_path / "out") == files(tmp_path / "alone")
    assert len(files(tmp_path / "alone")) == 13
    assert [(tmp_path / f"{rank}.json").read_text() for rank in (0, 1)] == ["{}", "{}"]


def test_results_are_not_mixed_with_earlier_ones(tmp_path):
    _, inputs, outputs = make_data_set(tmp_path / "data")
    writer = SubmissionWriter(DATASET, tmp_path / "out")
    writer.reset()
    writer.process(inputs, outputs)
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        writer.reset()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file is not an empty folder"):
        SubmissionWriter(DATASET, tmp_path / "file").reset()
    with pytest.raises(FileExistsError, match="comes a second time"):
        writer.process(inputs[:1], outputs[:1])


def test_errors_name_the_image(tmp_path):
    _, inputs, outputs = make_data_set(tmp_path / "data")
    writer = SubmissionWriter(DATASET, tmp_path / "out")
    writer.reset()
    with pytest.raises(ValueError, match="image 'x' is not in the data set"):
        writer.process([{"image_id": "x"}], outputs[:1])
    n = next(n for n, output in enumerate(outputs) if len(output["instances"]))
    outputs[n]["instances"].scores += 1
    with pytest.raises(ValueError, match=f"image '{n}': scores must be in 0..1"):
        writer.process([inputs[n]], [outputs[n]])
        writer.evaluate()  # by which time a thread has tried to write it
    with pytest.raises(ValueError, match="unknown format 'coco'"):
        SubmissionWriter(DATASET, tmp_path / "out", "coco")


@pytest.mark.parametrize("format_name", ["person_maps", "cihp", "lv_mhp_v2"])
def test_the_files_do_not_depend_on_the_number_of_threads(format_name, tmp_path):
    _, inputs, outputs = make_data_set(tmp_path / "data")
    files = []
    for num_threads in (1, 3):
        folder = tmp_path / f"{num_threads}"
        writer = SubmissionWriter(DATASET, folder, format_name, num_threads=num_threads)
        writer.reset()
        for model_input, output in zip(inputs, outputs):
            writer.process([model_input], [output])
        writer.evaluate()
        files.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")})
    assert files[0] == files[1]
    assert len(files[0]) >= len(inputs)


def test_few_images_wait_to_be_written(tmp_path, monkeypatch):
    _, inputs, outputs = make_data_set(tmp_path / "data")
    writer = SubmissionWriter(DATASET, tmp_path / "out", num_threads=1)
    writer.reset()
    write, started, go_on = writer._submission.write, threading.Semaphore(0), threading.Event()
    monkeypatch.setattr(
        writer._submission,
        "write",
        lambda *args: (started.release(), go_on.wait(10), write(*args))[-1],
    )
    # One is written and one more waits: the third would be too many, and is waited for.
    writer.process(inputs[:2], outputs[:2])
    assert started.acquire(timeout=10)
    late = threading.Thread(target=writer.process, args=(inputs[2:3], outputs[2:3]))
    late.start()
    late.join(0.2)
    assert late.is_alive()
    go_on.set()
    late.join(10)
    assert not late.is_alive()
    writer.evaluate()
    assert len(list((tmp_path / "out").glob("*.json"))) == 3


def test_an_error_in_a_thread_is_not_lost(tmp_path, monkeypatch):
    _, inputs, outputs = make_data_set(tmp_path / "data")
    writer = SubmissionWriter(DATASET, tmp_path / "out")
    writer.reset()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._submission, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        writer.process(inputs, outputs)
        writer.evaluate()
