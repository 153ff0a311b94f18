"""Tables of what was measured."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from tabulate import tabulate

from .measured_models import MODELS
from .measuring import Case, Settings, allow_tf32, compare, measure, why_not

_MIB = 2**20


@dataclass
class Report:
    """Rows of figures, how to show them, and what was left out.

    Attributes:
        notes: what the figures are of.
        rows: as written to the JSON file.
        columns: of the table; each shows a row.
        left_out: a line each.
    """

    notes: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add_group(
        self,
        settings: Settings,
        cases: Mapping[str, Case],
        shared: Mapping[str, Any],
        images_per_run: int,
    ) -> None:
        """Measure models beside each other, and add a row for each.

        Args:
            settings: see there.
            cases: by key of the model.
            shared: what they have in common, "precision" among it; it becomes part of the rows.
            images_per_run: of a case.
        """
        allow_tf32(shared["precision"] == "tf32")
        results = measure(
            cases, settings.device, settings.warm_up, settings.repeats, settings.deadline
        )
        for key, result in results.items():
            name = MODELS[key].name
            if not result.times and not result.error:
                shown = ", ".join(f"{k} {v}" for k, v in shared.items())
                self.left_out.append(f"{name}, {shown}: --max-seconds were over")
                continue
            ms = statistics.median(result.totals) if result.times else None
            stages = result.times[0] if result.times else {}
            row = {
                "key": key,
                "model": name,
                "input_size": MODELS[key].input_size(settings.image_size),
                **shared,
                "rois": result.rois,
                "ms": ms,
                "stages_ms": {s: statistics.median(t[s] for t in result.times) for s in stages},
                "images_per_second": ms and 1000 * images_per_run / ms,
                "ratio": compare(results, key),
                "peak_mib": result.peak and result.peak / _MIB,
                "repeats": len(result.times),
                "all_ms": result.totals,
                "error": result.error,
            }
            self.rows.append(row)
            print(f"{name}, {shared}: {shown_time(row, 'ms', '.1f')} ms", file=sys.stderr)

    def markdown(self, machine: Mapping[str, Any]) -> str:
        """Return the table, under the machine and the notes."""
        table = [[show(row) for show in self.columns.values()] for row in self.rows]
        lines = [", ".join(f"{k} {v}" for k, v in machine.items()), *self.notes]
        lines.append(tabulate(table, list(self.columns), tablefmt="github", disable_numparse=True))
        if self.left_out:
            lines.append("Left out:\n\n" + "\n".join(f"* {line}" for line in self.left_out))
        return "\n\n".join(lines) + "\n"


def groups(
    numbers: Sequence[int], precisions: Sequence[str], device: torch.device, report: Report
) -> list[tuple[int, str]]:
    """Pair numbers with the precisions of the device; why it lacks others goes to the report."""
    reasons = {precision: why_not(precision, device) for precision in precisions}
    report.left_out += [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    return list(product(numbers, [name for name in precisions if not reasons[name]]))


def shown_size(row: Mapping[str, Any]) -> str:
    """Return a row's input size as HxW."""
    return "{}x{}".format(*row["input_size"])


def shown_number(value: float | None, form: str, scale: float = 1.0) -> str:
    """Return a scaled number, or "-" for None."""
    return "-" if value is None else format(scale * value, form)


def shown_time(row: Mapping[str, Any], key: str, form: str, scale: float = 1.0) -> str:
    """Return a row's time, or why there is none."""
    return row["error"] or shown_number(row[key], form, scale)


def shown_ratio(row: Mapping[str, Any]) -> str:
    """Return a row's ratio to the reference, with least and greatest."""
    ratio = row["ratio"]
    if ratio is None:
        return "-"
    shown = "{median:.2f} ({low:.2f} to {high:.2f})".format(**ratio)
    return f"{shown}, tie" if ratio["tie"] else shown


def describe_machine(settings: Settings) -> dict[str, Any]:
    """Return what figures depend on: device, versions, threads."""
    on_gpu = settings.device.type == "cuda"
    facts = {
        "device": torch.cuda.get_device_name(settings.device)
        if on_gpu
        else platform.machine() + " CPU",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "image": "{}x{}".format(*settings.image_size),
        "channels_last": settings.channels_last,
    }
    if on_gpu:
        cudnn = torch.backends.cudnn
        facts.update(cuda=torch.version.cuda, cudnn=cudnn.version(), autotuned=cudnn.benchmark)
    return facts
