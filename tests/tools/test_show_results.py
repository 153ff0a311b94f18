"""A run's pictures and figures, from a folder made by hand: small, random weights."""

from __future__ import annotations

import importlib.util
import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from aiparsing_d2.data.datasets import register_cihp
from aiparsing_d2.data.image_files import read_image
from aiparsing_d2.evaluation import GroundTruth, ParsingMetrics, Prediction

REPOSITORY = Path(__file__).parents[2]
DEMO = str(REPOSITORY / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py")
BBOX = {"AP": 61.04, "AP50": 72.06}
PARSING = {"mIoU": 11.11, "APp50": 22.22, "APpvol": 33.33, "PCP50": 44.44}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(
        "show_results", REPOSITORY / "tools" / "show_results.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def dataset(cihp_folder):
    """A registered split of two 64x96 images of noise with a person each."""
    rng = np.random.default_rng(0)
    cihp_folder.split = "val"
    for i in range(2):
        human_map = np.zeros((64, 96), np.uint8)
        human_map[8:60, 20 + 10 * i : 60 + 10 * i] = 1
        image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        cihp_folder.add(f"val{i}", 13 * human_map, human_map, image)
    name = f"tiny_val_{uuid.uuid4().hex}"
    register_cihp(name, cihp_folder.root, "val")
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture
def cfg(dataset):
    return LazyConfig.apply_overrides(
        LazyConfig.load(DEMO),
        [
            f"dataloader.test.dataset.names={dataset}",
            "dataloader.test.num_workers=0",
            "dataloader.test.mapper.augmentations.0.short_edge_length=128",
            "model.proposal_generator.head.num_convs=1",
            # Untrained, the detector would not believe in anything, nor the score head in anybody.
            "+model.proposal_generator.head.prior_prob=0.4",
            "model.roi_heads.parsing_head.score_head=null",
            "model.proposal_generator.post_nms_topk=[4,4]",
            "model.roi_heads.parsing_pooler.output_size=8",
            "test_time_augmentation.wrapper.mapper.min_sizes=[48,64]",
            "test_time_augmentation.wrapper.max_people=4",
            "test_time_augmentation.wrapper.score_thresh=0",
            "train.device=cuda",
        ],
    )


@pytest.fixture
def run_dir(cfg, tmp_path, monkeypatch):
    """The folder of a run on a GPU, on a machine that has none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    folder = tmp_path / "run"
    folder.mkdir()
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    torch.manual_seed(0)
    weights = instantiate(cfg.model).state_dict()
    # Edges all over each box.
    weights["roi_heads.parsing_head.edge_predictor.bias"][1] = 10
    torch.save({"model": weights}, folder / "model_final.pth")
    results = {"results": {"parsing": PARSING, "bbox": BBOX}}
    (folder / "parsing_results.json").write_text(json.dumps(results))
    metrics = [{"iteration": i, "total_loss": 3.0 - i, "loss_parsing": 1.0} for i in range(3)]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, metrics)))
    return folder


@pytest.fixture
def drawn(tool, monkeypatch):
    """What is drawn: the examples of each sheet and its score threshold."""
    sheets = []
    draw = tool.result_sheet

    def record(examples, part_labels, *, score_threshold, **options):
        sheets.append((examples, score_threshold))
        return draw(examples, part_labels, score_threshold=score_threshold, **options)

    monkeypatch.setattr(tool, "result_sheet", record)
    return sheets


def read_image_of(image_id: str, run_dir: Path) -> np.ndarray:
    return read_image(str(next(run_dir.parent.rglob(f"Images/{image_id}.png"))), "RGB")


def test_draws_the_predictions_and_prints_the_figures(tool, run_dir, drawn, capsys):
    tool.main([str(run_dir), "--num-images", "1"])
    printed = capsys.readouterr().out
    assert "The run's device cuda is not available: using the CPU\n" in printed
    rows = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith("|")]
    table = dict(zip(map(str.strip, rows[0]), map(str.strip, rows[2]), strict=True))
    assert table == {
        "mIoU": "11.1",
        "APp50": "22.2",
        "APpvol": "33.3",
        "PCP50": "44.4",
        "box AP": "61.0",
        "box AP50": "72.1",
    }
    for name in ("parsing_results.json", "predictions.png", "training_curves.png"):
        assert f"{run_dir / name}\n" in printed
    for name in ("predictions.png", "training_curves.png"):
        with Image.open(run_dir / name) as picture:
            assert len(picture.getcolors(picture.width * picture.height)) > 10

    (((example,), score_threshold),) = drawn
    assert score_threshold == 0.3
    np.testing.assert_array_equal(example.image, read_image_of("val0", run_dir))
    assert len(example.ground_truth) == 1
    assert example.edges is None
    assert example.name == "val0"


def test_weights_of_another_model_are_refused(tool, run_dir):
    weights = torch.load(run_dir / "model_final.pth", weights_only=True)["model"]
    del weights["roi_heads.parsing_head.parsing_predictor.bias"]
    torch.save({"model": weights}, run_dir / "other.pth")
    with pytest.raises(SystemExit, match="not in the file: roi_heads.parsing_head.parsing_pred"):
        tool.main([str(run_dir), "--weights", str(run_dir / "other.pth")])
    assert not (run_dir / "predictions.png").exists()


@pytest.mark.parametrize("options", [[], ["--tta"]])
def test_edges_are_of_the_people_above_the_threshold(tool, run_dir, drawn, options):
    def draw(score_threshold):
        tool.main([str(run_dir), "--edges", *options, f"--score-threshold={score_threshold}"])
        examples, passed_on = drawn[-1]
        assert passed_on == pytest.approx(score_threshold)
        return examples

    everybody = draw(0)
    scores = torch.cat([example.prediction.scores for example in everybody])
    assert scores.min() < scores.max()
    threshold = float(scores.mean())
    for score_threshold, examples in (
        (0, everybody),
        (threshold, draw(threshold)),
        (1.01, draw(1.01)),
    ):
        for example in examples:
            expected = torch.zeros(64, 96)
            for score, edges in zip(
                example.prediction.scores, example.prediction.pred_edges.to_full()
            ):
                if score >= score_threshold:
                    expected[edges > 0] = 1
            assert torch.equal(example.edges, expected)
    assert any(example.edges.any() for example in everybody)


def test_tta_wraps_the_model_and_sees_original_images(tool, cfg, run_dir, drawn, capsys):
    options = [str(run_dir), "--score-threshold", "0"]
    tool.main(options)
    plain = (run_dir / "predictions.png").read_bytes()
    assert not (run_dir / "predictions_tta.png").exists()
    capsys.readouterr()
    tool.main([*options, "--tta"])
    printed = capsys.readouterr().out
    assert f"{run_dir / 'predictions_tta.png'}\n" in printed
    assert "parsing_results.json (without test-time augmentation)" in printed
    assert (run_dir / "predictions_tta.png").read_bytes() != plain
    assert (run_dir / "predictions.png").read_bytes() == plain

    model = instantiate(cfg.model).eval()
    model.load_state_dict(torch.load(run_dir / "model_final.pth", weights_only=True)["model"])
    cfg.test_time_augmentation.wrapper.model = model
    wrapper = instantiate(cfg.test_time_augmentation.wrapper)
    (examples, _) = drawn[-1]
    assert len(examples) == 2
    for example in examples:
        bgr = np.ascontiguousarray(read_image_of(example.name, run_dir)[:, :, ::-1])
        (expected,) = wrapper([{"image": torch.from_numpy(bgr).permute(2, 0, 1)}])
        expected = expected["instances"]
        assert len(expected) > 0
        torch.testing.assert_close(example.prediction.scores, expected.scores)
        torch.testing.assert_close(example.prediction.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_two_runs_side_by_side(tool, run_dir, drawn, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    for folder, label in ((run_dir, 2), (other, 13)):  # one sees Hair everywhere, one Face
        weights = torch.load(folder / "model_final.pth", weights_only=True)["model"]
        weights["roi_heads.parsing_head.parsing_predictor.bias"][label] = 100
        torch.save({"model": weights}, folder / "model_final.pth")
    options = ["--score-threshold", "0", "--num-images", "1"]
    tool.main([str(run_dir), "--against", str(other), *options])
    assert (run_dir / "predictions_against_other.png").exists()
    (((example,), _),) = drawn
    assert list(example.others) == ["other"]
    for prediction, label in ((example.prediction, 2), (example.others["other"], 13)):
        assert prediction.pred_part_maps.to_full().unique().tolist() == [0, label]

    # The same figures as the whole evaluation gives when the image is all there is.
    metrics = ParsingMetrics(20)
    human_map = np.zeros((64, 96), np.uint8)
    human_map[8:60, 20:60] = 1
    metrics.add_image(
        "val0",
        GroundTruth(13 * human_map[None], 13 * human_map),
        Prediction(
            example.others["other"].pred_part_maps.to_full().numpy(),
            example.others["other"].scores.numpy(),
        ),
    )
    figures = metrics.summarize()["parsing"]
    expected = [f"{name} {figures[name]:.1f}" for name in ("mIoU", "APp50", "PCP50")]
    assert example.figures["other"].startswith(", ".join(expected))
    assert set(example.figures) == {"run", "other"}

    (other / "config.yaml").unlink()
    with pytest.raises(SystemExit, match="other/config.yaml is missing"):
        tool.main([str(run_dir), "--against", str(other)])


def test_tta_needs_it_in_the_config(tool, cfg, run_dir):
    del cfg.test_time_augmentation
    LazyConfig.save(cfg, str(run_dir / "config.yaml"))
    with pytest.raises(SystemExit, match=r"config.yaml has no test_time_augmentation.wrapper"):
        tool.main([str(run_dir), "--tta"])
    assert not list(run_dir.glob("*.png"))


NEEDED = ["config.yaml", "metrics.json", "parsing_results.json", "model_final.pth"]


@pytest.mark.parametrize("name", NEEDED)
def test_tells_which_file_is_missing(tool, tmp_path, name):
    for other in set(NEEDED) - {name}:
        (tmp_path / other).touch()
    with pytest.raises(SystemExit, match=f"{name} is missing: .* not the folder of a finished run"):
        tool.main([str(tmp_path)])


def test_tells_that_the_given_weights_are_missing(tool, tmp_path):
    for name in NEEDED:
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match="model_0000009.pth is missing"):
        tool.main([str(tmp_path), "--weights", str(tmp_path / "model_0000009.pth")])
