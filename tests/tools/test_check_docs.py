"""The check of the documents: what is right passes, what is wrong is named with its line."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = "configs/cihp/aiparsing_R_50_FPN_cihp_75ep.py"


@pytest.fixture(scope="module")
def check_docs():
    spec = importlib.util.spec_from_file_location(
        "check_docs", REPOSITORY / "tools" / "check_docs.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def check(check_docs, tmp_path):
    """A function which checks a document's text in an empty folder."""

    def check(text: str) -> tuple[Counter[str], list[str]]:
        document = tmp_path / "page.md"
        document.write_text(text)
        return check_docs.check_document(document, tmp_path)

    return check


def test_blocks_have_lines_languages_and_marks(check_docs):
    text = (
        "# Title\n\n```bash\nmake test\n```\n\n"
        "<!-- docs-check: skip, wants 8 GPUs -->\n   ```python\n   x = 1\n     y\n   ```\n"
    )
    assert check_docs.read_blocks(text) == [
        (4, "bash", "make test\n", "", ""),
        (9, "python", "x = 1\n  y\n", "skip", "wants 8 GPUs"),
    ]


RIGHT_COMMANDS = [
    "make test VENV=/opt/environment",
    "make install && source .venv/bin/activate",
    "git clone <this repository>",
    "python tools/show_results.py output/train_demo --edges  # draws",
    f"python train_net.py --config-file {CONFIG} \\\n    --num-gpus 8 train.output_dir=out",
    f"python train_net.py --config-file {CONFIG} train.scale_to_batch_size=2",
    f"torchrun --nproc_per_node 2 train_net.py --config-file {CONFIG} train.max_iter=2",
    "OMP_NUM_THREADS=1 python tools/install_detectron2.py --force; make lint",
    "python -m aiparsing_d2 prepare cihp $DATA/cihp --output prepared/cihp > log.txt",
    "aiparsing evaluate --dataset cihp_val --predictions results/ --output scores/",
    "python -m aiparsing_d2.drawn_scenes --output drawn | tail -1",
    "python tools/visualize_data.py --source annotation --dataset cihp_train",
    "python -c 'print(1)'",
]
WRONG_COMMANDS = [
    ("make tests", "no target tests"),
    ("make PYTHN=python3.12 test", "no variable PYTHN"),
    ("python tools/none.py", "no script tools/none.py"),
    (
        "python tools/show_results.py output/train_demo --edge-maps",
        "unrecognized arguments: --edge-maps",
    ),
    ("python train_net.py --config-file configs/none.py", "no config configs/none.py"),
    (f"python train_net.py --config-file {CONFIG} train.otput_dir=x", "no key train.otput_dir"),
    ("torchrun --nproc_per_node 2 train_nt.py", "no script train_nt.py"),
    ("torchrun --nproc train_net.py", "unknown command torchrun"),
    ("python -m aiparsing_d2 prepare cihp2 folder", "invalid choice: 'cihp2'"),
    ("python -m aiparsing_d2.drawn", "no module aiparsing_d2.drawn"),
    ("python tools/visualize_data.py --source anotation --dataset x", "invalid choice"),
    ("python -c 'print(1'", "SyntaxError"),
    ("pythn tools/show_results.py", "unknown command pythn"),
]


@pytest.mark.parametrize("command", RIGHT_COMMANDS)
def test_right_command_passes(check, command):
    assert check(f"```bash\n{command}\n```\n") == ({"checked": 1}, [])


@pytest.mark.parametrize(("command", "message"), WRONG_COMMANDS)
def test_wrong_command_is_named_with_its_line(check, command, message):
    done, errors = check(f"Text\n```bash\n{command}\n```\n")
    assert not done
    (error,) = errors
    assert error.startswith("page.md:3: ")
    assert message in error


def test_python_blocks_run_as_one_script(check):
    text = "```python\nx = 1\n```\nthen\n```python\nassert x == 1\n```\n"
    assert check(text) == ({"run": 2}, [])


def test_failing_python_is_named_with_the_line_of_the_document(check):
    done, errors = check("```python\nx = 1\n```\nthen\n```python\nx + none\n```\n")
    assert not done
    (error,) = errors
    assert 'page.py", line 6' in error and "name 'none' is not defined" in error


def test_marked_shell_block_is_run(check, tmp_path):
    mark = "<!-- docs-check: run -->\n"
    assert check(f"{mark}```bash\necho made > file\n```\n") == ({"run": 1}, [])
    assert (tmp_path / "file").read_text() == "made\n"
    _, errors = check(f"{mark}```bash\nls none\necho after\n```\n")
    assert len(errors) == 1 and "none" in errors[0]


def test_saved_python_is_there_for_the_commands_after_it(check):
    save = "<!-- docs-check: save made.py -->\n```python\n{}\n```\n"
    run = "<!-- docs-check: run -->\n```bash\npython made.py\n```\n"
    assert check(save.format("x = 1") + run) == ({"checked": 1, "run": 1}, [])
    assert "raise SystemExit(3)" not in check(save.format("raise SystemExit(3)"))[1]  # not run
    _, (error,) = check(save.format("x = 1 +"))
    assert "page.md:3: SyntaxError" in error


def test_block_to_skip_needs_a_reason(check):
    assert check("<!-- docs-check: skip, wants a GPU -->\n```bash\nx\n```\n") == (
        {"skipped": 1},
        [],
    )
    _, errors = check("<!-- docs-check: skip -->\n```bash\nx\n```\n")
    assert len(errors) == 1 and "say why" in errors[0]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```\nmake\n```", "say what the block is"),
        ("```json\n{\n```", "JSONDecodeError"),
        ("```bash\nmake", "does not end"),
        ("<!-- docs-check: rnu -->\n```bash\nmake\n```", "no 'rnu'"),
    ],
)
def test_unclear_block_is_an_error(check, block, message):
    _, errors = check(block + "\n")
    assert len(errors) == 1 and message in errors[0]


@pytest.mark.parametrize(
    ("span", "kind"),
    [
        ("make test", "inline command"),
        ("aiparsing analyze --config-file CONFIG", "inline command"),
        ("python -m aiparsing_d2 convert-weights authors", "inline command"),
        ("aiparsing COMMAND ...", "inline command"),
        ("model.roi_heads.parsing_head.num_classes=5", "config key"),
        ("aiparsing_d2.model_zoo.get_config", "name of the package"),
        ("configs/yaml/", "path"),
    ],
)
def test_code_in_the_text_is_checked(check, span, kind):
    assert check(f"Say `{span}` here.\n") == ({kind: 1}, [])


@pytest.mark.parametrize(
    "span",
    [
        "make tset",
        "python tools/show_results.py output/train_demo --edge-maps",
        "python tools/none.py --config-file CONFIG",
        "model.roi_heads.parsing_heads.num_classes",
        "aiparsing_d2.model_zoo.get_confg",
        "configs/yml/",
    ],
)
def test_wrong_code_in_the_text_is_named_with_its_line(check, check_docs, monkeypatch, span):
    names = ["cihp/aiparsing_R_50_FPN_cihp_75ep"]  # for time; else every config is looked into
    monkeypatch.setattr(check_docs.model_zoo, "list_configs", lambda: names)
    done, errors = check(f"\nSay `{span}` here.\n")
    assert not done
    assert len(errors) == 1 and errors[0].startswith("page.md:2: ")


def test_every_document_is_found_and_says_what_its_blocks_are(check_docs):
    documents = [path for name in check_docs.DOCUMENTS for path in REPOSITORY.glob(name)]
    assert len(documents) >= 6
    for document in documents:
        for block in check_docs.read_blocks(document.read_text(encoding="utf-8")):
            assert block.language, f"{document}:{block.line}"
