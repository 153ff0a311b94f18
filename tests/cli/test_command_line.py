"""What all commands have in common."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from small_runs import SMALL_OVERRIDES, draw_data_set

import aiparsing_d2
from aiparsing_d2.cli import evaluate, main, make_parser, train
from aiparsing_d2.data.datasets import datasets_root, register_all_cihp
from aiparsing_d2.engine import apply_overrides
from aiparsing_d2.submissions import SUBMISSION_FORMATS


def parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return a parser and all below it."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [below for child in action.choices.values() for below in parsers(child)]
    return found


PARSERS = {parser.prog: parser for parser in parsers(make_parser())}


def examples(program: str) -> list[list[str]]:
    """Return the commands of this program behind the word "example" of its help."""
    _, _, text = PARSERS[program].format_help().rpartition("example")
    text = text.replace("\\\n", " ")
    return [
        shlex.split(line.partition("<")[0], comments=True)
        for line in text.splitlines()
        if line.startswith("  aiparsing ")
    ]


def test_help_answers_at_once():
    code = """
import sys
from aiparsing_d2.cli import main
try:
    main(["--help"])
except SystemExit:
    assert not {"cv2", "detectron2", "numpy", "torch"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "parse " in done.stdout


@pytest.mark.parametrize("module", ["tqdm", "torch"])
def test_an_interrupt_while_modules_are_imported(tmp_path, module):
    """The first is imported with the commands, the second while arguments are read."""
    code = f"""
import runpy, signal, sys
class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupting)
sys.argv[1:] = ["parse", "1.jpg", "--output", {str(tmp_path / "out")!r}, "--save", "json"]
runpy.run_module("aiparsing_d2", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")
    assert not (tmp_path / "out").exists()


def test_the_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"aiparsing_d2 {aiparsing_d2.__version__}\n"


@pytest.mark.parametrize("program", PARSERS)
def test_every_help_has_an_example_that_the_command_takes(program):
    commands = examples(program)
    assert any(shlex.join(command).startswith(program) for command in commands)
    for command in commands:
        make_parser().parse_args(command[1:])


@pytest.mark.parametrize(
    "words",
    [
        "--resume a=1 --num-gpus 2 b=2 --config-file x c=-3",
        "a=1 b=2 c=-3 --num-gpus 2 --resume --config-file x",
    ],
)
def test_flags_before_between_and_behind_overrides(words):
    args = make_parser().parse_args(["train", *words.split()])
    assert (args.resume, args.num_gpus, args.config_file) == (True, 2, "x")
    assert args.opts == ["a=1", "b=2", "c=-3"]


@pytest.mark.parametrize("words", [["a=1", "--no-such-flag"], ["--resum", "a=1", "--no", "b=1"]])
def test_an_unknown_flag_is_no_override(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(["train", "--config-file", "x", *words])
    assert "unrecognized arguments: --no" in capsys.readouterr().err


def test_words_that_no_command_takes_are_refused():
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(["doctor", "a=1"])


@pytest.mark.parametrize(
    "command",
    [
        "compose crowds --dataset a --output b --num-images",
        "evaluate --predictions a --dataset b --workers",
        "prepare cihp a --output b --workers",
        "prepare ccp a --output b --last",
    ],
)
def test_numbers_of_things_begin_with_one(command, capsys):
    for number in ("0", "-2"):
        with pytest.raises(SystemExit, match="2"):
            make_parser().parse_args([*command.split(), number])
        assert f"{number} is not a positive integer" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run 1/model.pth", "it's=a,[b].pth", "größe{1}.pth", "a#b:c.pth"])
def test_weights_may_have_any_name(name):
    config = OmegaConf.create({"train": {"init_checkpoint": ""}})
    apply_overrides(config, [f"train.init_checkpoint={train._quoted(name)}"])
    assert config.train.init_checkpoint == name


def test_formats_named_for_the_help_are_all_there_are():
    assert evaluate.FORMATS == tuple(SUBMISSION_FORMATS)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    draw_data_set(folder)
    (folder / "CIHP").symlink_to("drawn_cihp")
    return folder


@pytest.fixture
def workplace(drawn, tmp_path, monkeypatch):
    """A folder with the files that the examples name, and a few drawn scenes."""
    (tmp_path / "datasets").symlink_to(drawn)
    (tmp_path / "holidays").symlink_to("datasets/drawn_cihp/Validation/Images")
    (tmp_path / "photo.jpg").symlink_to(next((tmp_path / "holidays").iterdir()))
    monkeypatch.chdir(tmp_path)
    register_all_cihp("datasets")
    num_threads = torch.get_num_threads()
    yield tmp_path
    register_all_cihp(datasets_root())
    torch.set_num_threads(num_threads)


TRAINING = [*SMALL_OVERRIDES, "train.max_iter=1", "train.eval_period=0"]


# Which example, and what makes it cheaper.
@pytest.mark.parametrize(
    "program, number, cheaper",
    [
        ("aiparsing analyze", 1, []),
        (
            "aiparsing benchmark",
            0,
            "--image-size 96 128 --repeats 1 --warm-up 0 --people 1".split(),
        ),
        ("aiparsing benchmark data", 0, "--images 9 --repeats 1 --mapped-images 1".split()),
        ("aiparsing benchmark evaluate", 0, []),
        ("aiparsing parse", 0, []),
        ("aiparsing prepare cihp", 0, ["--own-data", "--workers", "1"]),
        ("aiparsing train", 0, TRAINING),
    ],
)
def test_examples_run(workplace, capsys, program, number, cheaper):
    assert main([*examples(program)[number][1:], *cheaper]) == 0
    assert capsys.readouterr().out
    if program == "aiparsing train":  # the one of eval goes on from there
        assert main([*examples("aiparsing eval")[0][1:], *cheaper]) == 0
        assert Path("output/train_demo/eval/parsing_results.json").is_file()
