"""The tool that trains the rows of Table VI: what each row is, its runs and its tables."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "run_ablation.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("run_ablation", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


# The check marks of Table VI: PGEC, non-local, edges, GN, mIoU loss, mIoU score.
CHECK_MARKS = {
    "baseline": "......",
    "pgec": "x.....",
    "non_local": ".x....",
    "pgec_non_local": "xx....",
    "pgec_non_local_edge": "xxx...",
    "pgec_non_local_edge_gn": "xxxx..",
    "pgec_non_local_edge_gn_miou_loss": "xxxxx.",
    "pgec_non_local_edge_gn_miou_score": "xxxx.x",
    "all": "xxxxxx",
}


@pytest.mark.parametrize("name", CHECK_MARKS)
def test_the_small_models_have_the_components_of_table_vi(tool, name, tmp_path):
    row = {row.name: row for row in tool.TABLE_VI}[name]
    cfg = tool.run_config(LazyConfig.load(str(tool.SMALL_CONFIG)), row, 3, tmp_path)
    with torch.device("meta"):
        head = instantiate(cfg.model).roi_heads.parsing_head
    kinds = [type(module).__name__ for module in head.modules()]
    # The non-local block has GN of its own; the paper's GN is after the shared convolutions.
    convs = [module for module in head.convs.modules() if isinstance(module, nn.GroupNorm)]
    marks = [
        "PGEC" in kinds,
        "NonLocalBlock" in kinds,
        head.edge_predictor is not None,
        bool(convs),
        head.miou_loss_weight > 0,
        "ParsingScoreHead" in kinds,
    ]
    assert "".join(".x"[mark] for mark in marks) == CHECK_MARKS[name]
    assert head.min_part_probability == 0
    assert cfg.train.seed == 3 and cfg.train.output_dir == str(tmp_path)


def test_the_papers_figures_are_those_of_the_model_zoos_document(tool):
    text = (ROOT / "MODEL_ZOO.md").read_text(encoding="utf-8")
    lines = re.findall(r"\[`ablations/table_vi/(\w+)`\]\([^)]*\) \|([^\n]*)\|[^|\n]*\|\n", text)
    stated = {name: tuple(float(cell) for cell in cells.split("|")) for name, cells in lines}
    stated.pop("all_3x")
    assert {row.name: row.paper for row in tool.TABLE_VI} == stated


def test_differences_name_what_was_changed_and_added(tool):
    whole = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": {"f": 1}}
    part = {"a": 1, "b": {"c": [1, 3], "d": None, "new": 0}, "e": None}
    assert dict(tool.differences(whole, part)) == {"b.c": [1, 3], "b.new": 0, "e": None}
    with pytest.raises(ValueError, match="b lacks d"):
        list(tool.differences(whole, {"a": 1, "b": {"c": 0}, "e": 1}))


# Stands for train_net.py: the figures depend on the row and the seed alone, those of --eval-only on
# the data set too.
TRAINER = """
import json, pathlib, sys, time
run = pathlib.Path(sys.argv[sys.argv.index("--config-file") + 1]).parent
with open(run.parent / "calls.txt", "a") as file:
    print(run.name, file=file)
if (run.parent / f"break_{run.name}").exists():
    sys.exit("out of cheese")
wait_for = run.parent / f"wait_{run.name}"
end = time.monotonic() + 60
for other in wait_for.read_text().split() if wait_for.exists() else ():
    while not (run.parent / other / "model_final.pth").exists():
        assert time.monotonic() < end, other
        time.sleep(0.01)
row, seed = run.name.split("_seed_")
miou = {"baseline": 40.0, "pgec": 43.0, "non_local": 39.0}.get(row, 50.0) + int(seed)
if row == "non_local" and seed == "1":
    miou += 2.0
figures = {"mIoU": miou, "APpvol": 10.0, "APp50": 2 * miou, "PCP50": 20.0}
if "--eval-only" in sys.argv:
    overrides = dict(word.split("=", 1) for word in sys.argv if "=" in word)
    assert (run / "model_final.pth").samefile(overrides["train.init_checkpoint"])
    figures["mIoU"] += 100 * len(overrides["dataloader.test.dataset.names"])
    run = pathlib.Path(overrides["train.output_dir"]) / "eval"
    run.mkdir(parents=True)
results = {"parsing": figures, "bbox": {"AP50": 90.0}}
(run / "parsing_results.json").write_text(json.dumps({"results": results}))
(run / "model_final.pth").touch()
"""


@pytest.fixture
def ablation(tool, monkeypatch, tmp_path):
    """Calls the tool with a stand-in for the training; returns its exit status."""
    trainer = tmp_path / "trainer.py"
    trainer.write_text(TRAINER)
    monkeypatch.setattr(tool, "TRAIN_NET", trainer)
    output = tmp_path / "out"

    def call(*arguments: str) -> int:
        rows = ["--rows", "baseline", "pgec", "non_local"]
        return tool.main([*rows, "--output", str(output), *arguments])

    call.output = output
    call.calls = lambda: (output / "calls.txt").read_text().split()
    return call


def cells(table: str, first: str) -> list[str]:
    """Of the table's only row whose first cell is ``first``."""
    (line,) = [line for line in table.splitlines() if re.match(rf"\| {re.escape(first)} +\|", line)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables_beside_the_paper(ablation, capsys):
    assert ablation() == 0
    figures, gains = (ablation.output / "ablation.md").read_text().split("Gains over")
    # Seeds 1 and 2: 41 and 42, 44 and 45, 42 and 41; their deviation is 1 / sqrt(2).
    assert cells(figures, "baseline")[1:3] == ["41.5 ± 0.7", "49.6"]
    assert cells(figures, "PGEC")[1:7] == [
        *("44.5 ± 0.7", "52.5", "10.0 ± 0.0", "50.8", "89.0 ± 1.4", "55.6")
    ]
    steps = [[cell.strip() for cell in line.strip("|").split("|")] for line in gains.splitlines()]
    by_step = {tuple(cells[:3]): cells[3:] for cells in steps if len(cells) == 6}
    assert by_step["PGEC", "baseline", "mIoU"] == ["+3.0 ± 0.0", "+2.9", "agrees"]
    # +1 and -1.
    assert by_step["non-local", "baseline", "mIoU"] == ["+0.0 ± 1.4", "+3.1", "within the spread"]
    record = json.loads((ablation.output / "ablation.json").read_text())
    assert [run["mIoU"] for run in record["figures"]["non_local"]] == [42.0, 41.0]
    assert "[6/6] non_local, seed 2: mIoU 41.0" in capsys.readouterr().out


def test_a_step_against_the_papers_direction_is_shown(tool):
    assert tool.direction([-3.0, -2.0], paper=0.8) == "DISAGREES"
    assert tool.direction([-3.0], paper=-0.8) == "agrees"
    assert tool.direction([3.0, 3.1], paper=54.4 - 54.4) == "none in the paper"


def test_what_is_finished_is_kept(ablation):
    ablation("--seeds", "1")
    ablation("--seeds", "1", "2")
    assert ablation.calls() == [
        *("baseline_seed_1", "pgec_seed_1", "non_local_seed_1"),
        *("baseline_seed_2", "pgec_seed_2", "non_local_seed_2"),
    ]


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_failing_run_stops_no_other_and_is_tried_again(ablation, jobs, capsys):
    ablation.output.mkdir()
    cause = ablation.output / "break_pgec_seed_1"
    cause.touch()
    assert ablation("--seeds", "1", "--jobs", jobs) == 1
    captured = capsys.readouterr()
    assert re.search(r"^\[./3\] pgec, seed 1: failed: [^[]*out of cheese$", captured.out, re.M)
    assert captured.err == "No tables: pgec, seed 1 failed. The same call tries again.\n"
    assert sorted(ablation.calls()) == ["baseline_seed_1", "non_local_seed_1", "pgec_seed_1"]
    cause.unlink()
    assert ablation("--seeds", "1") == 0
    assert ablation.calls()[3:] == ["pgec_seed_1"]


def test_runs_with_other_settings_are_not_mixed(ablation):
    ablation("--seeds", "1")
    before = (ablation.output / "baseline_seed_1" / "ablation_run.yaml").read_bytes()
    with pytest.raises(SystemExit, match="baseline_seed_1 holds a run with other settings"):
        ablation("--seeds", "1", "train.max_iter=7")
    assert (ablation.output / "baseline_seed_1" / "ablation_run.yaml").read_bytes() == before


def test_tables_do_not_depend_on_which_run_ends_first(ablation, capsys):
    more = ["--more-sets", "ccp_crops_val", "cihp_val"]
    assert ablation(*more) == 0
    tables = [(ablation.output / f"ablation.{kind}").read_text() for kind in ("md", "json")]
    capsys.readouterr()
    shutil.rmtree(ablation.output)
    ablation.output.mkdir()
    # Ends only if others go on beside it.
    (ablation.output / "wait_baseline_seed_1").write_text("non_local_seed_1 pgec_seed_2")
    assert ablation("--jobs", "2", *more) == 0
    assert tables == [(ablation.output / f"ablation.{kind}").read_text() for kind in ("md", "json")]
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    told = [re.match(r"\[(\d)/6\] (\w+, seed \d): mIoU [^\[]* min left$", line) for line in lines]
    assert [line[1] for line in told] == [*"123456"]
    assert [line[2] for line in told[:2]] == ["pgec, seed 1", "non_local, seed 1"]
    assert len({line[2] for line in told}) == 6


def test_other_sets_than_the_tables_own(ablation):
    def sets(*arguments):
        row = ["--table", "photographs", "--rows", "without_crops", "--seeds", "1"]
        assert ablation(*row, *arguments, "train.max_iter=2400") == 0
        figures = json.loads((ablation.output / "ablation.json").read_text())["more_figures"]
        return {name: of_rows["without_crops"][0]["mIoU"] for name, of_rows in figures.items()}

    assert sets("--more-sets") == {}
    assert sets("--more-sets", "cihp_val") == {"cihp_val": 51.0 + 800}
    assert list(sets()) == ["ccp_crowd_val", "ccp_crops_val"]
    assert ablation.calls() == ["without_crops_seed_1"] * (1 + 1 + 2)


# Stands for train_net.py: what it finds in the weights becomes its figures.
AVERAGING_TRAINER = """
import json, pathlib, sys, torch
folder = pathlib.Path(sys.argv[sys.argv.index("--config-file") + 1]).parent
overrides = dict(word.split("=", 1) for word in sys.argv if "=" in word)
if "--eval-only" in sys.argv:
    model = torch.load(overrides["train.init_checkpoint"], weights_only=True)["model"]
    folder = pathlib.Path(overrides.get("train.output_dir", folder)) / "eval"
    if "test_time_augmentation.enabled" in overrides:
        folder = folder / "tta"
else:
    assert "without_ema" not in folder.name, "trained a second time"
    seed = float(folder.name[-1])
    model = {"w": torch.tensor(50 + seed)}
    hooks = {"ExponentialMovingAverage": {"w": torch.tensor(30 + seed)}, "LRScheduler": {}}
    if (folder.parent / "no_average").exists():
        del hooks["ExponentialMovingAverage"]
    torch.save({"model": model, "trainer": {"hooks": hooks}}, folder / "model_final.pth")
folder.mkdir(parents=True, exist_ok=True)
figures = dict.fromkeys(("mIoU", "APpvol", "APp50", "PCP50"), model["w"].item())
results = {"parsing": figures, "bbox": {"AP50": 90.0}}
(folder / "parsing_results.json").write_text(json.dumps({"results": results}))
"""


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_without_the_average_are_the_weights_in_training_of_the_same_runs(tool, ablation, jobs):
    tool.TRAIN_NET.write_text(AVERAGING_TRAINER)
    rows = ["--table", "photographs", "--rows", "whole", "without_ema"]
    assert ablation(*rows, "--jobs", jobs) == 0
    record = json.loads((ablation.output / "ablation.json").read_text())
    figures = {"whole": [51.0, 52.0], "without_ema": [31.0, 32.0]}
    more = [record["more_figures"][name] for name in ("ccp_crowd_val", "ccp_crops_val")]
    for of_rows in (record["figures"], *more):
        assert {row: [run["mIoU"] for run in runs] for row, runs in of_rows.items()} == figures
    config = ablation.output / "without_ema_seed_2" / "ablation_run.yaml"
    assert LazyConfig.load(str(config)).train.ema.enabled is False


def test_a_run_whose_weights_are_missing_is_told(tool, ablation, capsys):
    tool.TRAIN_NET.write_text(AVERAGING_TRAINER)
    rows = ["--table", "photographs", "--seeds", "1", "--rows", "without_ema", "whole"]
    ablation.output.mkdir()
    (ablation.output / "no_average").touch()
    assert ablation(*rows) == 1
    assert "without_ema, seed 1: failed: " in (out := capsys.readouterr().out)
    assert "holds no average: train.ema.enabled was False" in out
    tool.TRAIN_NET.write_text("import sys; sys.exit('out of cheese')")
    shutil.rmtree(ablation.output)
    assert ablation(*rows) == 1
    captured = capsys.readouterr()
    assert "without_ema, seed 1: failed: whole_seed_1 failed, whose weights" in captured.out
    assert captured.err.startswith("No tables: whole, seed 1; without_ema, seed 1 failed.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nope.py"], "nope.py"),
        (["--start-from", "nope.pth"], "--start-from: .*nope.pth"),
        (["train.nope=3"], "nope"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(ablation, arguments, message):
    with pytest.raises(SystemExit, match=message):
        ablation(*arguments)
    assert not ablation.output.exists()


def test_an_unknown_set_is_told_before_anything_runs(ablation):
    with pytest.raises(SystemExit, match="--more-sets: .* no data set 'cihp_vla' is registered"):
        ablation("--more-sets", "cihp_vla")
    assert not ablation.output.exists()


# Stands for a training that goes on and on; those of seed 1 do not heed SIGTERM.
ENDLESS = """
import os, pathlib, signal, sys, time
run = pathlib.Path(sys.argv[sys.argv.index("--config-file") + 1]).parent
if run.name.endswith("seed_1"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(run / "pid.part").write_text(str(os.getpid()))
(run / "pid.part").rename(run / "pid")
time.sleep(300)
"""


def pids(output: Path, number: int) -> list[int]:
    """Of the stand-ins, as soon as there are so many."""
    end = time.monotonic() + 60
    while len(files := list(output.glob("*/pid"))) < number:
        assert time.monotonic() < end
        time.sleep(0.01)
    return [int(file.read_text()) for file in files]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_ends_all_runs(tool, ablation, monkeypatch):
    tool.TRAIN_NET.write_text(ENDLESS)
    monkeypatch.setattr(tool, "GRACE_SECONDS", 0.1)
    seen = []

    def interrupt():
        seen.extend(pids(ablation.output, 2))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        ablation("--jobs", "2", "--rows", "baseline", "--seeds", "1", "2", "3")
    thread.join()
    assert len(seen) == 2 and not any(map(is_running, seen))
    # None was begun afterwards.
    assert not (ablation.output / "baseline_seed_3").exists()


def test_sigterm_ends_all_runs(tmp_path):
    (tmp_path / "tools").mkdir()
    copy = shutil.copy(TOOL, tmp_path / "tools")
    (tmp_path / "train_net.py").write_text(ENDLESS)
    config = ROOT / "configs/demo/aiparsing_tiny_FPN_drawn_cihp.py"
    arguments = ["--config-file", config, "--output", tmp_path / "out", "--jobs", "2"]
    with subprocess.Popen([sys.executable, copy, *arguments, "--seeds", "2"]) as process:
        seen = pids(tmp_path / "out", 2)
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not any(map(is_running, seen))


# What each row of the photographs' table lacks: an element of the config, and its value there.
LACKING = {
    "whole": lambda cfg: cfg.train.seed == 3 and cfg.train.ema.enabled,
    "without_imagenet": lambda cfg: cfg.train.init_checkpoint == "",
    "without_copy_paste": lambda cfg: cfg.dataloader.train.mapper.copy_paste is None,
    "without_crops": lambda cfg: (
        cfg.dataloader.train.mapper.augmentations[0].prob == 0.0
        and cfg.dataloader.train.mapper.augmentations[1].max_scale == 1.0
    ),
    "without_ema": lambda cfg: not cfg.train.ema.enabled,
    "without_edges": lambda cfg: not cfg.model.roi_heads.parsing_head.edge_on,
    "without_miou_loss": lambda cfg: (
        cfg.model.roi_heads.parsing_head.get("miou_loss_weight", 2.0) == 0
    ),
    "without_miou_score": lambda cfg: cfg.model.roi_heads.parsing_head.score_head is None,
}


def test_the_photographs_rows_lack_one_thing_each(tool, tmp_path):
    table = tool.TABLES["photographs"]
    assert {row.name for row in table.rows} == set(LACKING)
    whole = LazyConfig.load(str(table.config_file))
    for row in table.rows:
        cfg = tool.run_config(whole, row, 3, tmp_path)
        lacking = {name for name, lacks in LACKING.items() if lacks(cfg)}
        assert lacking - {"whole"} == {row.name} - {"whole"}
        with torch.device("meta"):
            instantiate(cfg.model)


def test_steps_without_a_component_are_the_papers_steps_reversed(tool):
    rows = tool.TABLES["photographs"].rows
    figures = {row.name: [{"mIoU": 50.0}] for row in rows}
    steps = {row.name: paper for row, _, paper in tool.steps(rows, figures, "mIoU")}
    assert steps["without_copy_paste"] is None
    # Table VI: rows 4 and 5, 8 and 9, 7 and 9.
    assert steps["without_edges"] == pytest.approx(54.0 - 54.8)
    assert steps["without_miou_loss"] == pytest.approx(55.8 - 57.3)
    assert steps["without_miou_score"] == pytest.approx(57.6 - 57.3)


# Stands for train_net.py --eval-only: counts its calls, and figures depend on the data set.
EVALUATOR = """
import json, pathlib, sys
arguments = dict(word.split("=", 1) for word in sys.argv if "=" in word)
config = sys.argv[sys.argv.index("--config-file") + 1]
assert "--eval-only" in sys.argv and pathlib.Path(arguments["train.init_checkpoint"]).is_file()
folder = pathlib.Path(arguments.get("train.output_dir", pathlib.Path(config).parent)) / "eval"
with_tta = "test_time_augmentation.enabled" in arguments
miou = {"crowds": 31.0, "crops": 42.0}.get(arguments.get("dataloader.test.dataset.names"), 53.0)
figures = {"mIoU": miou, "APpvol": 1.0, "APp50": 2.0, "PCP50": 3.0}
folder = folder / "tta" if with_tta else folder
folder.mkdir(parents=True)
results = {"parsing": figures, "bbox": {"AP50": 90.0}}
(folder / "parsing_results.json").write_text(json.dumps({"results": results}))
"""


def test_finished_runs_are_evaluated_on_more_sets_once(tool, monkeypatch, tmp_path):
    trainer = tmp_path / "trainer.py"
    trainer.write_text(EVALUATOR)
    monkeypatch.setattr(tool, "TRAIN_NET", trainer)
    (tmp_path / "model_final.pth").touch()
    table = tool.Table((), Path(), tmp_path, more_sets=("crowds", "crops"), with_tta=True)
    for _ in range(2):  # the stand-in fails where a folder exists
        figures = tool.evaluate_more(tmp_path, table, True, threading.Event())
    assert {name: run["mIoU"] for name, run in figures.items()} == {
        "crowds": 31.0,
        "crops": 42.0,
        "TTA": 53.0,
    }
    assert "TTA" not in tool.evaluate_more(tmp_path, table, False, threading.Event())
    text = tool.more_figures_table({"whole": "whole model"}, {"whole": [figures["crowds"]] * 2})
    assert cells(text, "whole model")[1:] == [
        *("31.0 ± 0.0", "1.0 ± 0.0", "2.0 ± 0.0", "3.0 ± 0.0", "90.0 ± 0.0")
    ]


def test_overrides_may_follow_lists(tool):
    args = tool.parse_args(["--rows", "pgec", "all", "train.max_iter=9", "--seeds", "4", "a.b=[1]"])
    assert (args.rows, args.seeds) == (["pgec", "all"], [4])
    assert args.opts == ["train.max_iter=9", "a.b=[1]"]


def test_the_start_is_the_checkpoint_without_its_parsing_branch(tool, tmp_path):
    tensors = {
        "backbone.fpn_output3.bias": torch.arange(3.0),
        "proposal_generator.head.cls_logits.bias": torch.ones(1),
        "roi_heads.parsing_head.predictor.weight": torch.zeros(2),
    }
    torch.save({"model": tensors, "iteration": 5}, tmp_path / "model_final.pth")
    file = tool.write_start(tmp_path / "model_final.pth", tmp_path)
    start = torch.load(file, weights_only=True)
    assert list(start["model"]) == list(tensors)[:2]
    assert start["model"]["backbone.fpn_output3.bias"].tolist() == [0, 1, 2]

    # The parsing branch does not matter, the rest does.
    tensors["roi_heads.parsing_head.predictor.weight"] += 1
    torch.save(tensors, tmp_path / "model_final.pth")
    assert tool.write_start(tmp_path / "model_final.pth", tmp_path) == file
    tensors["backbone.fpn_output3.bias"][1] = 7
    torch.save(tensors, tmp_path / "model_final.pth")
    assert tool.write_start(tmp_path / "model_final.pth", tmp_path) != file


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--rows", "psp"], "no psp in table_vi"),
        (["--seeds", "1", "1"], "every seed once"),
        (["--jobs", "0"], "--jobs: at least 1"),
        (
            ["--table", "photographs", "--rows", "without_ema"],
            "without_ema evaluates weights of the runs of whole; name that too",
        ),
        (["--rows", "pgec", "train.max_iter", "100"], "no 100, train.max_iter in table_vi"),
    ],
    ids=["unknown row", "seed twice", "no jobs", "no weights", "no override"],
)
def test_wrong_arguments(tool, arguments, message, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(arguments)
    assert message in capsys.readouterr().err


def test_a_row_is_trained_for_real(tool, cihp_folder, monkeypatch):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        cihp_folder.split = split
        human_map = np.zeros((64, 96), np.uint8)
        human_map[8:60, 20:60] = 1
        image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        cihp_folder.add(f"{split}0", human_map * np.uint8(5), human_map, image)
    folder = cihp_folder.root.rename(cihp_folder.root.with_name("drawn_cihp"))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder.parent))
    output = folder.parent / "ablation"
    small = [
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "dataloader.train.total_batch_size=1",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[64,64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "model.roi_heads.parsing_pooler.output_size=8",
        "train.max_iter=2",
        "train.device=cpu",
    ]
    status = tool.main(["--rows", "non_local", "--seeds", "5", "--output", str(output), *small])
    assert status == 0
    assert "non-local" in (output / "ablation.md").read_text()
