"""Every stage of a dry run, once well and once failing."""

from __future__ import annotations

import errno
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from small_runs import DEMO, SMALL_OVERRIDES, draw_data_set, iterations, run, train_net

from aiparsing_d2.cli import main
from aiparsing_d2.data.dataset_mapper import ParsingDatasetMapper
from aiparsing_d2.data.datasets import datasets_root, register_all_cihp
from aiparsing_d2.engine import FittingCheckpointer, dry_run

STAGES = ["config", "folder", "data sets", "model", "samples", "training", "checkpoint"]
STAGES += ["evaluation", "resumption", "disk"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    draw_data_set(folder)
    return folder


@pytest.fixture
def datasets(drawn, tmp_path):
    """A copy, which a test may damage."""
    folder = shutil.copytree(drawn, tmp_path / "datasets")
    register_all_cihp(folder)
    yield folder
    register_all_cihp(datasets_root())


@pytest.fixture
def trial(datasets, tmp_path, capsys):
    """Make a dry run; return its exit status, the stages that it told, and all it printed."""

    def call(*overrides: str) -> tuple[int, list[str], str]:
        before = sorted(tmp_path.rglob("*"))
        command = ["train", "--config-file", str(DEMO), *SMALL_OVERRIDES]
        command.append(f"train.output_dir={tmp_path / 'run'}")
        status = main([*command, *overrides, "--dry-run"])
        assert sorted(tmp_path.rglob("*")) == before  # it leaves nothing
        printed = capsys.readouterr()
        stages = re.findall(r"^  (\w+(?: \w+)?) +(?:failed after|[\d.]+ s)", printed.out, re.M)
        return status, stages, printed.out + printed.err

    return call


def test_all_stages(trial):
    status, stages, printed = trial()
    assert status == 0, printed
    assert stages == STAGES
    for fact in (
        "4 images of drawn_cihp_train; 3 images of drawn_cihp_val",
        "from random weights",
        "batches of 2 images",
        "4 steps in float32, ",
        "3 images, ",
        "goes on at iteration 4",
        "1,800 steps of ",
        "1 x ",
        "resident",
        # two periodic ones, the one that replaces them, the last and the best
        "for 5 checkpoints",
    ):
        assert fact in printed, fact
    assert printed.rstrip().splitlines()[-1].startswith("Nothing failed, in ")


def test_an_average_and_a_seed_go_through(trial):
    status, stages, printed = trial("train.ema.enabled=True", "train.seed=-1", "train.max_iter=4")
    assert status == 0, printed
    assert stages == STAGES


def test_a_run_of_one_step_and_no_evaluation(trial):
    status, _, printed = trial("train.max_iter=1", "train.best_checkpointer=null")
    assert status == 0, printed
    assert "1 step in float32, " in printed and "goes on at iteration 1" in printed


def break_label_maps(datasets: Path, split: str) -> None:
    for file in (datasets / "drawn_cihp" / split / "Category_ids").iterdir():
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])


def no_evaluation(datasets, monkeypatch):
    break_label_maps(datasets, "Validation")


def no_samples(datasets, monkeypatch):
    break_label_maps(datasets, "Training")


def no_list(datasets, monkeypatch):
    (datasets / "drawn_cihp" / "val_id.txt").unlink()


def no_finite_losses(datasets, monkeypatch):
    def call(mapper, record):
        data = mapped(mapper, record)
        if mapper.is_train:
            data["image"] = torch.full(data["image"].shape, float("nan"))
        return data

    mapped = ParsingDatasetMapper.__call__
    monkeypatch.setattr(ParsingDatasetMapper, "__call__", call)


def no_memory(datasets, monkeypatch):
    def step(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nmore lines")

    monkeypatch.setattr(dry_run, "_step", step)


def no_room_for_a_checkpoint(datasets, monkeypatch):
    def save(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", save)


def a_checkpoint_that_is_torn(datasets, monkeypatch):
    def save_and_tear(self, name, **kwargs):
        save(self, name, **kwargs)
        file = Path(self.save_dir, f"{name}.pth")
        file.write_bytes(file.read_bytes()[:-1000])

    save = FittingCheckpointer.save
    monkeypatch.setattr(FittingCheckpointer, "save", save_and_tear)


def a_checkpoint_of_other_values(datasets, monkeypatch):
    def save_and_change(self, name, **kwargs):
        save(self, name, **kwargs)
        file = Path(self.save_dir, f"{name}.pth")
        content = torch.load(file, weights_only=True)
        next(iter(content["model"].values())).add_(1)
        torch.save(content, file)

    save = FittingCheckpointer.save
    monkeypatch.setattr(FittingCheckpointer, "save", save_and_change)


def a_small_disk(datasets, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**30, 2**30, 2**20))


def nothing(datasets, monkeypatch):
    pass


@pytest.mark.parametrize(
    "stage, damage, override, message",
    [
        ("config", nothing, "train.max_iters=3", "no key train.max_iters: did you mean"),
        ("config", nothing, "train.init_checkpoint=nowhere.pth", "nowhere.pth, the weights to"),
        ("folder", nothing, "train.output_dir=/dev/null/run", "Not a directory"),
        ("data sets", no_list, "", "val_id.txt"),
        ("model", nothing, "model.backbone.out_channels=65", "divisible by num_groups"),
        ("samples", no_samples, "", "Training/Category_ids/"),
        ("training", no_finite_losses, "", "loss_fcos_cls is nan"),
        ("training", no_memory, "", "out of memory (CUDA out of memory.); a smaller batch"),
        ("checkpoint", no_room_for_a_checkpoint, "", "No space left on device"),
        ("evaluation", no_evaluation, "", "Validation/Category_ids/"),
        ("resumption", a_checkpoint_that_is_torn, "", "no whole checkpoint to resume from"),
        ("resumption", a_checkpoint_of_other_values, "", "is not read back as it was written"),
        ("disk", a_small_disk, "", "make room, name another train.output_dir, or keep fewer"),
    ],
)
def test_a_stage_that_fails(trial, datasets, monkeypatch, stage, damage, override, message):
    damage(datasets, monkeypatch)
    status, stages, printed = trial(*([override] if override else []))
    assert status == 1
    assert stages == STAGES[: STAGES.index(stage) + 1]
    error = printed[printed.rindex("error: ") :]
    assert error.startswith(f"error: the dry run failed in its stage '{stage}': ")
    assert message in error


def test_the_folder_of_another_run_is_refused(trial, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last_checkpoint").write_text("model_final.pth")
    status, stages, printed = trial()
    assert (status, stages) == (1, ["config"]) and "Add --resume" in printed


@pytest.mark.parametrize("flag", ["--resume", "--eval-only"])
def test_it_is_of_a_new_training(trial, flag):
    status, stages, printed = trial(flag)
    assert (status, stages) == (1, []) and "error: --dry-run is of a new training" in printed


def test_in_two_processes(drawn, tmp_path):
    """Through torchrun, as the run itself; and the run starts in the same folder."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = ["-m", "aiparsing_d2", "train", "--config-file", DEMO, *SMALL_OVERRIDES]
    output_dir = tmp_path / "run"
    done = run(drawn, *torchrun, *command, "--dry-run", f"train.output_dir={output_dir}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  training ") == 1 and "Nothing failed" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert train_net(drawn, output_dir, "train.max_iter=1").returncode == 0
    assert iterations(output_dir) == [0]


@pytest.mark.parametrize(
    "seconds, words",
    [(12.4, "12 s"), (119, "119 s"), (1800, "30 min"), (7500, "2 h 5 min"), (277_200, "3 d 5 h")],
)
def test_times_in_words(seconds, words):
    assert dry_run._in_words(seconds) == words


def test_the_estimate_by_hand(trial, monkeypatch, capsys):
    """Of 1,000 steps, an evaluation each 300, a checkpoint each 400."""
    measured = dry_run._Measured(
        num_test_images=50,
        batch_time=0.5,
        step_time=1.0,
        data_time=0.8,
        peak=3 * 2**30,
        test_time=2.0,
        save_time=4.0,
        checkpoint_size=2**30,
    )
    config = dry_run.read_config(
        dry_run.argparse.Namespace(
            config_file=str(DEMO),
            eval_only=False,
            opts=["train.max_iter=1000", "train.eval_period=300", "train.checkpointer.period=400"]
            + ["dataloader.train.num_workers=4", "train.device=cpu"],
        )
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("U", "free")(9 * 2**30))
    dry_run._estimate(config, measured, ".")
    printed = capsys.readouterr().out
    # 1000 x max(1 - 0.8, 0.5) + 4 x 100 + 2 x 4 = 908 s
    assert "about 15 min: 1,000 steps of 0.50 s, 4 x 100 s of evaluation" in printed
    assert "4.0 GiB for 4 checkpoints, 9.0 GiB free" in printed
    assert "peak 3.0 GiB resident" in printed
    assert "The data loader is slow: 0.50 s for a batch, 0.20 s for the rest" in printed
