#!/usr/bin/env python3
"""Run or check every command and snippet of the documents.

Each fenced block says what it is by its language:

* ``python`` is run: a document's blocks one after the other, in one process, in a folder with the
  repository's files, ``datasets/drawn_cihp`` (a few scenes) and nothing else;
* ``bash`` is checked command by command: scripts and files of configs exist, arguments are taken by
  the script's own parser, overridden keys are in the config, make has the target;
* ``yaml`` and ``json`` are parsed; ``text`` and ``mermaid`` are left alone.

Commands, config keys and names of this package between single backticks are checked likewise. An
HTML comment on the line before a block changes what is done with it:

* ``<!-- docs-check: run -->`` runs a ``bash`` block, in the same folder;
* ``<!-- docs-check: config configs/NAME.py -->`` saves a ``python`` block there and loads it;
* ``<!-- docs-check: save NAME.py -->`` saves a ``python`` block there, for the commands after it;
* ``<!-- docs-check: skip, REASON -->`` does nothing but count it.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import os
import pydoc
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from aiparsing_d2 import model_zoo
from aiparsing_d2.engine import load_lazy_config

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "MODEL_ZOO.md", "CONTRIBUTING.md", "datasets/README.md", "docs/*.md")

_FENCE = re.compile(r"^( *)```(\w*)$")
_MARK = re.compile(r"<!-- docs-check: (\w+),? ?(.*?) -->")
_FILE_SUFFIXES = (".json", ".onnx", ".pt2", ".torchscript")  # model.onnx is a file, not a key
_CONFIG_KEY = re.compile(
    r"(?:dataloader|lr_multiplier|model|optimizer|test_time_augmentation|train)(?:\.\w+)+"
)
_SHELL_COMMANDS = {"cd", "deactivate", "export", "git", "ls", "mkdir", "pip", "source", "tail"}
_RUN_LIMIT = 300  # seconds


class DocumentError(Exception):
    """Says in a line or two what is wrong with a snippet."""


class ArgumentError(DocumentError):
    """Says what a script's parser says."""


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        line: number of its first line of code in the document, from 1.
        language: what its fence says.
        code: its lines, without the fence's indentation.
        action: what the comment before it asks for, or "".
        argument: the rest of that comment.
    """

    line: int
    language: str
    code: str
    action: str
    argument: str


def read_blocks(text: str) -> list[Block]:
    """Read the fenced blocks of a document, in order."""
    blocks = []
    lines = text.splitlines()
    numbers = iter(range(len(lines)))
    for start in numbers:
        if not (fence := _FENCE.match(lines[start])):
            continue
        indent, language = fence.groups()
        end = next((n for n in numbers if lines[n].strip() == "```"), None)
        if end is None:
            raise DocumentError(f"line {start + 1}: the block does not end")
        code = "".join(line.removeprefix(indent) + "\n" for line in lines[start + 1 : end])
        mark = _MARK.fullmatch(lines[start - 1].strip()) if start else None
        blocks.append(Block(start + 2, language, code, *(mark.groups() if mark else ("", ""))))
    return blocks


def read_inline_code(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each code span outside the fenced blocks."""
    in_block = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip().startswith("```"):
            in_block = not in_block
        elif not in_block:
            for span in re.findall(r"`([^`]+)`", line):
                yield number, span


# Commands


class _Parsed(BaseException):
    """Ends a script as soon as its arguments are read."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments


def parse_arguments(start: Callable[[], object], argv: list[str]) -> argparse.Namespace:
    """Have a script's own parser read arguments, and stop the script there.

    Args:
        start: runs the script, which reads ``sys.argv``.
        argv: the script's name and its arguments.

    Raises:
        DocumentError: the parser refuses them, or the script reads none.
    """
    methods = ("parse_args", "parse_intermixed_args")
    originals = {name: getattr(argparse.ArgumentParser, name) for name in methods}

    def stop_after(parse):
        def parse_and_stop(self, args=None, namespace=None):
            raise _Parsed(parse(self, args, namespace))

        return parse_and_stop

    before = sys.argv, sys.path[:]
    printed = io.StringIO()
    try:
        sys.argv = argv
        for name, method in originals.items():
            setattr(argparse.ArgumentParser, name, stop_after(method))
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            start()
    except _Parsed as parsed:
        return parsed.arguments
    except SystemExit as end:
        if not end.code and "--help" in argv:
            return argparse.Namespace()
        raise ArgumentError(printed.getvalue().strip().splitlines()[-1]) from None
    finally:
        for name, method in originals.items():
            setattr(argparse.ArgumentParser, name, method)
        sys.argv, sys.path[:] = before
    raise DocumentError(f"{argv[0]} reads no arguments")


def check_python(arguments: list[str]) -> None:
    """Check a command line of Python."""
    match arguments:
        case ["-c", code, *_]:
            compile(code, "-c", "exec")
        case ["-m", "pip", *_]:
            pass
        case ["-m", module, *rest]:
            if pydoc.locate(module) is None:
                raise DocumentError(f"there is no module {module}")
            if module.split(".")[0] == "aiparsing_d2":
                check_parsed(
                    parse_arguments(
                        lambda: runpy.run_module(module, run_name="__main__"), [module, *rest]
                    )
                )
        case [script, *rest] if script.endswith(".py"):
            file = REPOSITORY / script
            if not file.is_file():
                raise DocumentError(f"there is no script {script}")
            check_parsed(
                parse_arguments(
                    lambda: runpy.run_path(str(file), run_name="__main__"), [script, *rest]
                )
            )
        case _:
            raise DocumentError(f"neither a script nor a module: python {shlex.join(arguments)}")


def check_parsed(arguments: argparse.Namespace) -> None:
    """Check the config and the overridden keys that a command line names."""
    file = getattr(arguments, "config_file", None)
    if not file or file.isupper():  # a name that stands for any
        return
    try:
        file = model_zoo.find_config_file(file)
    except ValueError:
        raise DocumentError(f"there is no config {file}") from None
    values = [v for v in vars(arguments).values() if isinstance(v, list)]
    overrides = [
        text for texts in values for text in texts if isinstance(text, str) and "=" in text
    ]
    if file.endswith(".py"):
        config = load_lazy_config(file)
        for override in overrides:
            if not has_key(config, override.split("=")[0].lstrip("+")):
                raise DocumentError(f"{file} has no key {override.split('=')[0]}")
        LazyConfig.apply_overrides(config, overrides)


def has_key(config: DictConfig, key: str) -> bool:
    """Tell whether a config has a key, or a callable in it has an argument of that name."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not OmegaConf.is_config(node):
        return False
    if name in node or (OmegaConf.is_list(node) and name.isdigit()):
        return True
    if "_target_" not in node:
        return False
    target = node["_target_"]
    target = pydoc.locate(target) if isinstance(target, str) else target
    return name in inspect.signature(target).parameters


@cache
def read_makefile() -> tuple[frozenset[str], frozenset[str]]:
    """Return the Makefile's targets and its variables."""
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE)
    return frozenset(targets), frozenset(re.findall(r"^(\w+) \?=", text, re.MULTILINE))


def check_make(arguments: list[str]) -> None:
    """Check make's targets and variables."""
    targets, variables = read_makefile()
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if name not in (variables if equals else targets):
            raise DocumentError(f"the Makefile has no {'variable' if equals else 'target'} {name}")


def check_command(words: list[str]) -> None:
    """Check one command, given as words."""
    while words and re.match(r"\w+=", words[0]):  # variables of its environment
        words = words[1:]
    match words:
        case []:
            pass
        case ["make", *arguments]:
            check_make(arguments)
        case ["aiparsing", *arguments]:
            check_python(["-m", "aiparsing_d2", *arguments])
        case ["python" | ".venv/bin/python", *arguments]:
            check_python(arguments)
        case ["torchrun", "--nproc_per_node", number, *arguments] if number.isdigit():
            check_python(arguments)
        case [name, *_] if name not in _SHELL_COMMANDS:
            raise DocumentError(f"unknown command {name}: mend it, or mark the block as skipped")


def check_shell(code: str) -> int:
    """Check each command of a shell block and return their number."""
    number = 0
    for line in code.replace("\\\n", " ").splitlines():
        # An argument such as <this repository> is no redirection; what is one is left out.
        line = re.sub(r"\d?>+ *\S+", "", re.sub(r"<([^>]*)>", r"\1", line))
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;"):
                check_command(command)
                number += bool(command)
                command = []
            else:
                command.append(word)
    return number


# Names between backticks


@cache
def zoo_config(name: str) -> DictConfig:
    """Load a config of the model zoo, once."""
    return model_zoo.get_config(name)


def check_inline(span: str) -> str | None:
    """Check a code span; return the kind of thing it is, or None if it is none to check."""
    words = span.split()
    if span.startswith(("make ", "python ", "aiparsing ")):
        whole = [word for word in words if not (word.isupper() or "..." in word or "…" in word)]
        try:
            check_shell(" ".join(whole))
        except ArgumentError as error:  # prose may leave out what is said around it
            if whole == words and "arguments are required" not in str(error):
                raise
        return "inline command"
    key = span.split("=")[0]
    if len(words) == 1 and _CONFIG_KEY.fullmatch(key) and not key.endswith(_FILE_SUFFIXES):
        names = (name for name in model_zoo.list_configs() if not name.endswith(".yaml"))
        if not any(has_key(zoo_config(name), key) for name in names):
            raise DocumentError(f"no config of the model zoo has a key {key}")
        return "config key"
    name = span.split("(")[0]
    if len(words) == 1 and re.fullmatch(r"aiparsing_d2(\.\w+)+", name):
        if pydoc.locate(name) is None:
            raise DocumentError(f"there is no {name}")
        return "name of the package"
    if re.fullmatch(r"(configs|tools|tests|docs|aiparsing_d2)/[\w./-]+", span):
        if not (REPOSITORY / span).exists():
            raise DocumentError(f"there is no {span}")
        return "path"
    return None


# Running


def make_workspace(folder: Path) -> Path:
    """Make and return a folder in which the documents' commands work, with a few drawn scenes."""
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    for name in ("aiparsing_d2", "docs", "tools", "train_net.py"):
        (folder / name).symlink_to(REPOSITORY / name)
    run_here(
        [sys.executable, "-m", "aiparsing_d2.drawn_scenes", "--output", "datasets/drawn_cihp"]
        + ["--train", "4", "--val", "2"],
        folder,
    )
    return folder


def run_here(command: list[str], folder: Path) -> None:
    """Run a command in a folder, with this Python first in the path.

    Raises:
        DocumentError: it fails or takes too long.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    python_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": python_path.rstrip(os.pathsep)}
    environment.update(DETECTRON2_DATASETS=str(folder / "datasets"), MPLBACKEND="agg")
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_RUN_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise DocumentError(f"not finished after {_RUN_LIMIT} s") from None
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        raise DocumentError("\n    ".join(output[-8:]))


def run_python_blocks(document: Path, blocks: list[Block], folder: Path) -> None:
    """Run a document's Python blocks as one script with the document's line numbers."""
    script: list[str] = []
    for block in blocks:
        script += [""] * (block.line - 1 - len(script)) + block.code.splitlines()
    file = folder / f"{document.stem}.py"
    file.write_text("\n".join(script) + "\n", encoding="utf-8")
    run_here([sys.executable, file.name], folder)


def check_block(block: Block, folder: Path) -> str:
    """Check or run one block, other than a Python block to run; return what was done."""
    if block.action == "skip":
        if not block.argument:
            raise DocumentError("say why the block is skipped: <!-- docs-check: skip, REASON -->")
        return "skipped"
    if (block.language, block.action) == ("bash", "run"):
        run_here(["bash", "-euo", "pipefail", "-c", block.code], folder)
        return "run"
    if block.language == "python" and block.action in ("config", "save"):
        file = folder / block.argument
        file.write_text(block.code, encoding="utf-8")
        if block.action == "config":
            load_lazy_config(str(file))
            return "run"
        compile(block.code, block.argument, "exec")
        return "checked"
    if block.action:
        raise DocumentError(f"no {block.action!r} for a block of {block.language!r}")
    if block.language == "bash":
        check_shell(block.code)
        return "checked"
    parsers = {"json": json.loads, "yaml": yaml.safe_load}
    if block.language in parsers:
        parsers[block.language](block.code)
        return "checked"
    if block.language in ("text", "mermaid"):
        return "text"
    raise DocumentError("say what the block is: ```bash, ```python, ```text ...")


def check_document(document: Path, folder: Path) -> tuple[Counter[str], list[str]]:
    """Check one document.

    Args:
        document: a Markdown file.
        folder: where its snippets run.

    Returns:
        How often what was done, and a message for each thing that is wrong.
    """
    done: Counter[str] = Counter()
    errors: list[str] = []
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(REPOSITORY) if REPOSITORY in document.parents else document.name

    @contextlib.contextmanager
    def noting(line: int | None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = str(error) if isinstance(error, DocumentError) else repr(error)
            errors.append(f"{name}{f':{line}' if line else ''}: {reason}")

    blocks: list[Block] = []
    with noting(None):
        blocks = read_blocks(text)
    scripts = [b for b in blocks if b.language == "python" and not b.action]
    for block in blocks:
        if block not in scripts:
            with noting(block.line):
                done[check_block(block, folder)] += 1
    if scripts:
        with noting(None):
            run_python_blocks(document, scripts, folder)
            done["run"] += len(scripts)
    for line, span in read_inline_code(text):
        with noting(line):
            if kind := check_inline(span):
                done[kind] += 1
    return done, errors


def main(argv: Sequence[str] | None = None) -> int:
    """Check documents; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", nargs="*", type=Path, help="default: all of the repository")
    args = parser.parse_args(argv)
    documents = args.documents or [
        path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        for pattern in DOCUMENTS
        for path in sorted(REPOSITORY.glob(pattern))
    ]
    total: Counter[str] = Counter()
    all_errors = []
    with tempfile.TemporaryDirectory(prefix="check_docs_") as temporary:
        made = make_workspace(Path(temporary, "made"))
        for number, document in enumerate(documents):
            folder = shutil.copytree(made, Path(temporary, str(number)), symlinks=True)
            done, errors = check_document(document.resolve(), folder)
            for error in errors:
                print(error, file=sys.stderr)
            total += done
            all_errors += errors
            print(f"{document}: {_in_words(done)}", flush=True)
    print(f"In {len(documents)} documents: {_in_words(total)}; {len(all_errors)} wrong")
    return 1 if all_errors else 0


def _in_words(done: Counter[str]) -> str:
    blocks = {name: done[name] for name in ("run", "checked", "text", "skipped")}
    parts = [f"{sum(blocks.values())} blocks ({', '.join(f'{n} {k}' for k, n in blocks.items())})"]
    parts += [f"{number} x {kind}" for kind, number in sorted(done.items()) if kind not in blocks]
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
