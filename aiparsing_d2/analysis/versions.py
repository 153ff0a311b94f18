"""This version of the package beside another one: equal outputs first, then their times.

Each runs in a process of its own, with the same script; the two take turns.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import aiparsing_d2

from .measuring import Case, Clock, Measurement, Settings
from .report import Report, shown_ratio, shown_time

__all__ = ["THIS", "Worker", "against_columns", "compare_versions", "differences", "worker"]

THIS = "this"
_SCRIPTS = ("version_worker.py", "forced_people.py")
_ERRORS = "errors.txt"


def compare_versions(
    report: Report,
    settings: Settings,
    task: str,
    inputs: Mapping[str, Any],
    checkout: Path,
    tolerance: float,
    shared: Mapping[str, Any],
    other_precision: str | None = None,
) -> None:
    """Measure a task in both versions, and add a row for each.

    Where outputs differ by more than the tolerance, rows have no times.

    Args:
        report: for the rows.
        settings: see there.
        task: of ``version_worker``.
        inputs: what it takes there: tensors, numbers and texts.
        checkout: the folder that holds the other version's ``aiparsing_d2``.
        tolerance: see :func:`differences`.
        shared: facts of the rows.
        other_precision: of the other version, if it is not that of the inputs.

    Raises:
        ValueError: there is no such version, or its work fails.
    """
    inputs = {**inputs, "device": str(settings.device), "threads": torch.get_num_threads()}
    others = inputs if other_precision is None else {**inputs, "precision": other_precision}
    if not (checkout / "aiparsing_d2" / "__init__.py").is_file():
        raise ValueError(f"{checkout} holds no package aiparsing_d2; give the root of a checkout")
    with worker(task, inputs) as this, worker(task, others, checkout) as other:
        for started in (this, other):  # both are starting
            started.check()
        found = differences(this.outputs(), other.outputs())
        name = str(checkout)
        facts = {key: {"version": key, "differences": found} for key in (name, THIS)}
        worst = max(found, key=lambda key: found[key])
        if found[worst] > tolerance:
            failed = Measurement(error=f"outputs differ: {worst} by {found[worst]:.2g}")
            report.add_results(dict.fromkeys(facts, failed), facts, shared, reference=name)
            return
        cases = {name: Case(other.run, facts[name]), THIS: Case(this.run, facts[THIS])}
        report.add_group(settings, cases, shared, reference=name)


def differences(mine: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, float]:
    """Tell by how much outputs differ.

    Args:
        mine, others: by name.

    Returns:
        By name: of integers the share that is another among those that are not 0 in either; of
        floats the largest difference in units of the standard deviation, infinite where there
        are NaN.

    Raises:
        ValueError: names or shapes differ.
    """
    shapes = [{name: tuple(x.shape) for name, x in outputs.items()} for outputs in (mine, others)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"outputs have other shapes: {shapes[0]} and {shapes[1]}")
    return {name: _difference(x, others[name]) for name, x in mine.items()}


def _difference(mine: Tensor, other: Tensor) -> float:
    if not mine.is_floating_point():
        counted = int(((mine != 0) | (other != 0)).sum())
        return int((mine != other).sum()) / max(counted, 1)
    if mine.numel() == 0:
        return 0.0
    mine, other = mine.double(), other.double()
    largest = (mine - other).abs().max() / other.std(correction=0).clamp(min=1e-9)
    return math.inf if largest.isnan() else float(largest)


def against_columns() -> dict[str, Any]:
    """Return the columns of a table that says how both versions did."""
    return {
        "version": lambda row: row["version"],
        "ms": lambda row: shown_time(row, "ms", ".2f"),
        "time / the other's": shown_ratio,
        "largest difference": lambda row: f"{max(row['differences'].values()):.1e}",
    }


class Worker:
    """A process that does the work of a version."""

    def __init__(self, process: subprocess.Popen, folder: Path, checkout: Path):
        self._process = process
        self._folder = folder
        self._checkout = checkout

    def check(self) -> None:
        """Wait until it is ready.

        Raises:
            ValueError: it is not, or is another version.
        """
        imported = Path(self._hear()["package"]).resolve()
        if imported != (self._checkout / "aiparsing_d2").resolve():
            raise ValueError(f"{self._checkout}: Python imports {imported} instead")

    def outputs(self) -> dict[str, Tensor]:
        """Return what the work gives."""
        self._tell("outputs")
        self._hear()
        return torch.load(self._folder / "outputs.pt", weights_only=True)

    def begin(self) -> None:
        """Let it do the work, and go on meanwhile."""
        self._tell("run")

    def finish(self) -> float:
        """Wait for what was begun; return milliseconds."""
        return self._hear()["ms"]

    def run(self, clock: Clock) -> None:
        """Do the work once."""
        self.begin()
        clock.set(self.finish())

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout
        answer = self._process.stdout.readline()
        if not answer:
            errors = (self._folder / _ERRORS).read_text("utf-8", "replace")
            last = errors.strip().rpartition("\n")[2]
            raise ValueError(f"{self._checkout}: the work failed: {last}")
        return json.loads(answer)


@contextlib.contextmanager
def worker(task: str, inputs: Mapping[str, Any], checkout: Path | None = None) -> Iterator[Worker]:
    """Start a process at a task; it ends with the context.

    Args:
        task, inputs: see :func:`compare_versions`; with ``device`` and ``threads``.
        checkout: of the version that does it; None: this one.
    """
    checkout = checkout or Path(aiparsing_d2.__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="benchmark_version_") as name:
        folder = Path(name)
        # Beside this package's other modules, the script would be first to import them.
        for script in _SCRIPTS:
            shutil.copyfile(Path(__file__).with_name(script), folder / script)
        torch.save(dict(inputs), folder / "inputs.pt")
        with (folder / _ERRORS).open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, folder / _SCRIPTS[0], task, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
            )
        try:
            yield Worker(process, folder, checkout)
        finally:
            process.kill()
            process.communicate()
