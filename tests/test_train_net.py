"""The training script on a tiny data set, on the CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventWriter, get_event_storage
from small_runs import DEMO, SMALL_OVERRIDES

from aiparsing_d2.cli import make_parser
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import register_cihp
from aiparsing_d2.engine import ConfigError, NonFiniteError, mixed_precision, training

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def datasets(cihp_folder):
    """Registered train and val splits with four 64x96 images each; every image has a person."""
    rng = np.random.default_rng(0)
    names = {}
    for split in ("train", "val"):
        cihp_folder.split = split
        for i in range(4):
            human_map = np.zeros((64, 96), np.uint8)
            human_map[8:60, 20 + 4 * i : 60 + 4 * i] = 1
            category_map = human_map * np.where(np.arange(64)[:, None] < 30, 13, 5).astype(np.uint8)
            image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            cihp_folder.add(f"{split}{i}", category_map, human_map, image)
        names[split] = f"tiny_{split}_{uuid.uuid4().hex}"
        register_cihp(names[split], cihp_folder.root, split)
    yield names
    for name in names.values():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def run(datasets, tmp_path):
    """Trains or evaluates with the demo's config, shrunk; returns the output folder."""
    output_dir = tmp_path / "run"

    def call(*arguments: str, max_iter: int = 4, config: Path = DEMO) -> Path:
        overrides = [
            f"dataloader.train.dataset.names={datasets['train']}",
            f"dataloader.test.dataset.names={datasets['val']}",
            *SMALL_OVERRIDES,
            f"train.max_iter={max_iter}",
            "train.eval_period=2",
            "train.checkpointer.period=2",
            f"train.output_dir={output_dir}",
        ]
        # Arguments stand behind these: flags and overrides in any order.
        command = ["train", "--config-file", str(config), *overrides, *arguments]
        training.main(make_parser().parse_args(command))
        return output_dir

    return call


def read_metrics(output_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (output_dir / "metrics.json").read_text().splitlines()]


@pytest.mark.parametrize(
    "command",
    [[str(REPOSITORY / "train_net.py"), "--help"], ["-c", "import aiparsing_d2.modeling"]],
)
def test_no_command_begins_with_warnings_of_other_packages(command):
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stderr == ""


def test_a_broken_test_set_is_told_before_the_training(run, cihp_folder, tmp_path):
    (cihp_folder.root / "val_id.txt").unlink()
    with pytest.raises(FileNotFoundError, match="val"):
        run()
    assert not list((tmp_path / "run").glob("*.pth"))
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_training_leaves_checkpoints_metrics_and_results(run):
    output_dir = run()
    for name in ("model_0000001.pth", "model_final.pth", "model_best.pth", "config.yaml"):
        assert (output_dir / name).is_file(), name
    assert list(output_dir.glob("events.out.tfevents.*"))
    results = json.loads((output_dir / "parsing_results.json").read_text())
    assert {"mIoU", "APp50", "APpvol", "PCP50"} <= set(results["results"]["parsing"])
    assert {"AP", "AP50"} <= set(results["results"]["bbox"])

    metrics = read_metrics(output_dir)
    # Later lines hold medians over several iterations, which do not add up.
    first = metrics[0]
    assert first["total_loss"] == pytest.approx(
        sum(
            first[f"loss_{name}"]
            for name in (
                "parsing",
                "edge",
                "miou",
                "miou_score",
                "fcos_cls",
                "fcos_box",
                "fcos_centerness",
            )
        ),
        rel=1e-5,
    )
    assert any("parsing/mIoU" in line for line in metrics)
    third = metrics[2]
    assert third["images_per_second"] == pytest.approx(2 / third["time"])
    assert 0 < third["data_share"] < 1
    # What torch.load accepts by default: tensors and plain Python values.
    state = torch.load(output_dir / "model_final.pth", weights_only=True)
    assert state["iteration"] == 3


class LastLosses(EventWriter):
    """A writer of a user's own."""

    def __init__(self, file):
        self.file = Path(file)
        self.seen = []

    def write(self):
        storage = get_event_storage()
        self.seen.append((storage.iter, storage.history("total_loss").latest()))

    def close(self):
        self.file.write_text(json.dumps(self.seen))


def test_writers_of_the_config_see_what_the_others_do(run, tmp_path):
    file = tmp_path / "seen.json"
    writer = "{_target_: test_train_net.LastLosses, file: " + str(file) + "}"
    output_dir = run(f"train.writers=[{writer}]", "train.eval_period=0", max_iter=2)
    first = read_metrics(output_dir)[0]
    assert json.loads(file.read_text())[0] == [0, first["total_loss"]]


def test_an_interrupted_run_is_continued(run):
    output_dir = run(max_iter=2)
    first = torch.load(output_dir / "model_final.pth", weights_only=True)
    best = json.loads((output_dir / "model_best.json").read_text())
    assert best["metric"] == "parsing/APp50"

    # As if it had been killed two iterations after the checkpoint, while it wrote.
    with open(output_dir / "metrics.json", "a") as file:
        for i in (2, 3):
            print(json.dumps({"iteration": i, "lr": 0.1, "total_loss": -1.0}), file=file)
        file.write('{"iteration": 4, "to')

    run("--resume", max_iter=4)
    assert all(line.get("total_loss", 0) >= 0 for line in read_metrics(output_dir))
    iterations = [line["iteration"] for line in read_metrics(output_dir) if "total_loss" in line]
    assert iterations == [0, 1, 2, 3]
    second = torch.load(output_dir / "model_final.pth", weights_only=True)
    assert second["iteration"] == 3
    # The optimiser went on where it was: AdamW counts its steps.
    steps = [s["trainer"]["optimizer"]["state"][0]["step"] for s in (first, second)]
    assert [int(step) for step in steps] == [2, 4]


@pytest.mark.parametrize(
    "options", [[], ["train.ema.enabled=True", "dataloader.train.num_workers=2"]]
)
def test_a_resumed_run_is_the_run_that_was_not_interrupted(run, options):
    def weights(file):
        checkpoint = torch.load(file, weights_only=True)
        return [checkpoint["model"], checkpoint["trainer"]["optimizer"]["state"][0]]

    options = ["train.seed=3", "train.eval_period=0", *options]
    whole = run(*options, max_iter=5)
    expected = weights(whole / "model_final.pth")
    shutil.move(whole, f"{whole}_whole")

    resumed = run(*options, "train.checkpointer.period=2", max_iter=5)
    for name in ("model_final.pth", "model_0000003.pth"):
        (resumed / name).unlink()
    before = weights(resumed / "model_0000001.pth")
    run(*options, "--resume", max_iter=5)
    for one, other, start in zip(expected, weights(resumed / "model_final.pth"), before):
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert not all(torch.equal(one[name], start[name]) for name in one)


def test_a_rate_given_when_resuming_is_used(run):
    rates = {}
    for arguments, max_iter in ((["optimizer.lr=1e-3"], 2), (["optimizer.lr=5e-4"], 4)):
        resume = ["--resume"] * (max_iter == 4)
        flat = ["lr_multiplier.warmup_length=0.0", "lr_multiplier.scheduler.end_value=1.0"]
        folder = run(*resume, *arguments, *flat, max_iter=max_iter)
        rates = {line["iteration"]: line["lr"] for line in read_metrics(folder) if "lr" in line}
    assert rates == pytest.approx({0: 1e-3, 1: 1e-3, 2: 5e-4, 3: 5e-4})


def test_a_finished_run_is_only_evaluated(run):
    output_dir = run(max_iter=2)
    results = (output_dir / "parsing_results.json").read_text()
    (output_dir / "parsing_results.json").unlink()
    run("--resume", max_iter=2)
    assert json.loads((output_dir / "parsing_results.json").read_text()) == json.loads(results)
    assert [line["iteration"] for line in read_metrics(output_dir) if "total_loss" in line] == [
        0,
        1,
    ]


@pytest.mark.fault("a new run into the folder of another")
def test_a_new_run_does_not_overwrite_an_old_one(run):
    run(max_iter=1)
    with pytest.raises(FileExistsError, match="--resume"):
        run(max_iter=1)


def test_eval_only_reproduces_the_figures_and_keeps_the_run(run):
    output_dir = run(max_iter=2)
    config = (output_dir / "config.yaml").read_text()
    run("--eval-only", f"train.init_checkpoint={output_dir / 'model_final.pth'}")
    assert (output_dir / "config.yaml").read_text() == config
    trained, evaluated = (
        json.loads((folder / "parsing_results.json").read_text())
        for folder in (output_dir, output_dir / "eval")
    )
    assert trained == evaluated


def test_eval_only_in_another_precision_says_so(run):
    output_dir = run()
    weights = f"train.init_checkpoint={output_dir / 'model_final.pth'}"
    results = output_dir / "eval" / "parsing_results.json"
    for setting, expected in (("null", None), ("fp32", "fp32"), ("bf16", "bf16")):
        run("--eval-only", weights, f"train.eval_precision={setting}")
        assert json.loads(results.read_text())["model_precision"] == expected


@pytest.mark.parametrize("mode", [[], ["--resume"], ["--eval-only"]])
def test_missing_initial_weights_are_reported_before_anything_is_written(run, mode, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth.*convert-weights"):
        run(*mode, "train.init_checkpoint=nowhere.pth")
    assert not (tmp_path / "run").exists()


def test_a_continued_run_does_without_its_initial_weights(run):
    run(max_iter=1)
    run("--resume", "train.init_checkpoint=nowhere.pth", max_iter=2)
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        run("--resume", "--eval-only", "train.init_checkpoint=nowhere.pth", max_iter=2)


def test_a_yacs_config_is_refused():
    config = REPOSITORY / "configs/yaml/cihp/aiparsing_R_50_FPN_cihp_75ep.yaml"
    args = make_parser().parse_args(["train", "--config-file", str(config)])
    with pytest.raises(ValueError, match="yacs config.*aiparsing_R_50_FPN_cihp_75ep.py"):
        training.main(args)


def test_mixed_precision_without_a_gpu_trains_in_full_precision(run, caplog):
    run("train.amp.enabled=True", max_iter=1)
    assert "train.amp.enabled needs a GPU" in caplog.text


def test_bfloat16_and_an_average_of_the_weights(run):
    """The average is what checkpoints hold, is scored, and goes on after an interruption."""
    options = ["train.amp.enabled=True", "train.amp.precision=bfloat16"]
    options += ["train.ema.enabled=True", "train.ema.decay=0.5"]
    output_dir = run(*options, max_iter=2)
    checkpoint = torch.load(output_dir / "model_final.pth", weights_only=True)
    average = checkpoint["model"]
    trained = checkpoint["trainer"]["hooks"]["ExponentialMovingAverage"]
    assert average.keys() == trained.keys()
    assert any(not average[name].equal(trained[name]) for name in average)
    assert all(t.dtype == torch.float32 for t in average.values() if t.is_floating_point())

    results = json.loads((output_dir / "parsing_results.json").read_text())
    run("--eval-only", f"train.init_checkpoint={output_dir / 'model_final.pth'}")
    assert json.loads((output_dir / "eval" / "parsing_results.json").read_text()) == results

    run("--resume", *options, max_iter=4)
    resumed = torch.load(output_dir / "model_final.pth", weights_only=True)
    assert resumed["iteration"] == 3
    assert any(not resumed["model"][name].equal(average[name]) for name in average)


def test_a_resumed_run_keeps_its_precision(run, monkeypatch, caplog):
    """Also on another CPU; and that a config changes it is told."""
    kept = {}
    for max_iter, fast, enabled in ((1, "bf16", "null"), (2, "fp32", "null"), (3, "bf16", "False")):
        monkeypatch.setattr(mixed_precision, "best_precision", lambda device, fast=fast: fast)
        caplog.clear()
        output_dir = run("--resume", f"train.amp.enabled={enabled}", max_iter=max_iter)
        told = LazyConfig.load(str(output_dir / "config.yaml")).train.amp
        in_bfloat16 = max_iter < 3
        assert (told.enabled, told.precision == "bfloat16") == (in_bfloat16, in_bfloat16)
        assert f"Training in {'bfloat16' if in_bfloat16 else 'float32'}" in caplog.text
        assert ("takes longer in it" in caplog.text) == (max_iter == 2)
        checkpoint = torch.load(output_dir / "model_final.pth", weights_only=True)
        kept[max_iter] = checkpoint["trainer"]["precision"], "The run began in" in caplog.text
    assert kept == {1: ("bfloat16", False), 2: ("bfloat16", False), 3: ("float32", True)}
    checkpoint["trainer"].pop("precision")  # as earlier versions left them
    torch.save(checkpoint, output_dir / "model_final.pth")
    caplog.clear()
    run("--resume", "train.amp.enabled=null", max_iter=4)
    assert "Training in float32" in caplog.text


def test_best_checkpoint_is_remembered_across_resumption(run):
    output_dir = run(max_iter=2)
    best = output_dir / "model_best.pth"
    unbeatable = {"metric": "parsing/APp50", "value": 1000.0, "iteration": 0}
    torch.save({**torch.load(best, weights_only=True), "best": unbeatable}, best)
    before = best.read_bytes()
    run("--resume", max_iter=4)
    assert json.loads((output_dir / "model_best.json").read_text()) == unbeatable
    assert best.read_bytes() == before


def test_the_splits_are_there_for_a_config_read_back_from_yaml():
    """Unlike a Python config, the saved one imports nothing: the scripts have to."""
    for script in ("train_net.py", "tools/show_results.py"):
        code = (
            "import runpy; from detectron2.data import DatasetCatalog; "
            f"runpy.run_path({str(REPOSITORY / script)!r}, run_name='imported'); "
            "assert 'drawn_cihp_val' in DatasetCatalog"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


NARROW = "model.backbone.out_channels=128"


@pytest.mark.fault("weights that are to be scored do not fit the model")
@pytest.mark.fault("`--resume` with another model")
def test_weights_of_another_width_are_refused_and_listed(run):
    output_dir = run(max_iter=1)
    weights = f"train.init_checkpoint={output_dir / 'model_final.pth'}"
    for arguments in (["--eval-only", weights], ["--resume"]):
        with pytest.raises(ConfigError, match="model_final.pth does not fit") as error:
            run(*arguments, NARROW, max_iter=2)
        line = "backbone.fpn_lateral3.weight: (64, 64, 1, 1) in the file, (128, 64, 1, 1) in the"
        assert line in str(error.value)
    assert not (output_dir / "eval" / "parsing_results.json").exists()
    run("--eval-only", weights, NARROW, "train.allow_unfitting_weights=True")
    assert (output_dir / "eval" / "parsing_results.json").is_file()


def test_evaluation_needs_weights(run, tmp_path):
    with pytest.raises(
        ConfigError, match="weights to evaluate are needed: give train.init_checkpoint="
    ):
        run("--eval-only")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.roi_heads.parsing_head.num_classes=5", "num_classes=5, but dataloader.train"),
        ("train.best_checkpointer.val_metric=parsing/AP50", r"did you mean .*parsing/APp50\b"),
        ("train.max_iters=5", "no key train.max_iters: did you mean train.max_iter"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(run, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        run(override)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def nan_in_third_image(monkeypatch):
    seen = []

    def call(mapper, record):
        data = mapped(mapper, record)
        seen.append(record["file_name"])
        if mapper.is_train and len(seen) == 3:
            data["image"] = torch.full(data["image"].shape, float("nan"))
        return data

    mapped = ParsingDatasetMapper.__call__
    monkeypatch.setattr(ParsingDatasetMapper, "__call__", call)
    return seen


@pytest.mark.fault("a loss or a gradient is infinite or NaN")
def test_a_nan_stops_the_run_before_the_step(run, tmp_path, nan_in_third_image):
    with pytest.raises(NonFiniteError, match="(?s)iteration 1.*loss_fcos_cls is nan") as e:
        run("train.checkpointer.period=1")
    assert f"image: {nan_in_third_image[2]}" in str(e.value)
    checkpoints = [file.name for file in (tmp_path / "run").glob("*.pth")]
    assert checkpoints == ["model_0000000.pth"]
    dump = torch.load(tmp_path / "run" / "nonfinite_0000001.pt", weights_only=False)
    assert dump["batch"][0]["image"].isnan().all() and "instances" in dump["batch"][0]


@pytest.mark.fault("a loss or a gradient is infinite or NaN")
def test_a_nan_is_skipped_by_a_key(run, nan_in_third_image):
    output_dir = run("train.nonfinite=skip", "train.ema.enabled=True")
    state = torch.load(output_dir / "model_final.pth", weights_only=True)
    assert state["iteration"] == 3
    assert all(value.isfinite().all() for value in state["model"].values())
    steps = state["trainer"]["optimizer"]["state"][0]["step"]
    assert int(steps) == 3  # of four iterations


def test_gradient_clipping_is_a_key(run):
    with pytest.raises(ValueError, match="clip_gradients.max_norm is 0.0; it must be more than 0"):
        run("train.clip_gradients.max_norm=0", max_iter=1)


def test_data_sets_that_a_config_registers_are_there_for_its_yaml(run, datasets, cihp_folder):
    """The file is run again: nothing but the YAML knows of the data set."""
    config = cihp_folder.root / "own.py"
    names = [f"own_{split}_{uuid.uuid4().hex}" for split in ("train", "val")]
    config.write_text(f"""
from aiparsing_d2.data.datasets import register_cihp
for name, split in zip({names}, ("train", "val")):
    register_cihp(name, {str(cihp_folder.root)!r}, split)
names = dict(train="{names[0]}", val="{names[1]}")
""")
    leaf = cihp_folder.root / "leaf.py"
    leaf.write_text(f"""
from detectron2.config import LazyConfig
from .own import names
config = LazyConfig.load({str(REPOSITORY / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py")!r})
model, dataloader, optimizer = config.model, config.dataloader, config.optimizer
lr_multiplier, train = config.lr_multiplier, config.train
""")
    own_names = [f"dataloader.{a}.dataset.names={b}" for a, b in zip(("train", "test"), names)]
    output_dir = run(*own_names, max_iter=1, config=leaf)
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    weights = f"train.init_checkpoint={output_dir / 'model_final.pth'}"
    run("--eval-only", *own_names, weights, config=output_dir / "config.yaml")
    trained, evaluated = (
        json.loads((folder / "parsing_results.json").read_text())
        for folder in (output_dir, output_dir / "eval")
    )
    assert trained == evaluated
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
