"""Tables of what was measured."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tabulate import tabulate

from .measuring import Case, Measurement, Settings, compare, measure, why_not

_MIB = 2**20


@dataclass
class Report:
    """Rows of figures, how to show them, and what was left out.

    Attributes:
        notes: what the figures are of.
        rows: as written to the JSON file.
        columns: of the table; each shows a row.
        table_rows: what the table shows, where it is not the rows themselves.
        left_out: a line each.
    """

    notes: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    table_rows: list[dict[str, Any]] | None = None
    left_out: list[str] = field(default_factory=list)

    def add_group(
        self,
        settings: Settings,
        cases: Mapping[str, Case],
        shared: Mapping[str, Any],
        reference: str | None = None,
    ) -> list[dict[str, Any]]:
        """Measure cases beside each other, and add a row for each.

        Args:
            settings: see there.
            cases: by the name they have in messages.
            shared: what they have in common; it becomes part of the rows, as their own facts do.
            reference: name of the case whose time the others' are compared with.

        Returns:
            The new rows.
        """
        facts = {name: case.facts for name, case in cases.items()}
        return self.add_results(measure(cases, settings), facts, shared, reference)

    def add_results(
        self,
        results: Mapping[str, Measurement],
        facts: Mapping[str, Mapping[str, Any]],
        shared: Mapping[str, Any],
        reference: str | None = None,
    ) -> list[dict[str, Any]]:
        """Add a row for each of some measurements; see :meth:`add_group`."""
        rows = []
        shown = ", ".join(f"{k} {v}" for k, v in shared.items())
        for name, result in results.items():
            if not result.times and not result.error:
                self.left_out.append(f"{name}, {shown}: --max-seconds were over")
                continue
            stages = result.times[0] if result.times else {}
            row = {
                **facts[name],
                **shared,
                "rois": result.rois,
                "ms": statistics.median(result.totals) if result.times else None,
                "stages_ms": {s: statistics.median(t[s] for t in result.times) for s in stages},
                "ratio": compare(results, name, reference),
                "peak_mib": result.peak and result.peak / _MIB,
                "repeats": len(result.times),
                "all_ms": result.totals,
                "error": result.error,
            }
            rows.append(row)
            told = row["error"] or f"{row['ms']:.1f} ms"
            print(": ".join([", ".join(filter(None, [name, shown])), told]), file=sys.stderr)
        self.rows += rows
        return rows

    def markdown(self, machine: Mapping[str, Any]) -> str:
        """Return the table, under the machine and the notes."""
        rows = self.rows if self.table_rows is None else self.table_rows
        table = [[show(row) for show in self.columns.values()] for row in rows]
        lines = [", ".join(f"{k} {v}" for k, v in machine.items()), *self.notes]
        lines.append(tabulate(table, list(self.columns), tablefmt="github", disable_numparse=True))
        if self.left_out:
            lines.append("Left out:\n\n" + "\n".join(f"* {line}" for line in self.left_out))
        return "\n\n".join(lines) + "\n"


def available(precisions: Sequence[str], device: torch.device, report: Report) -> list[str]:
    """Leave out the precisions that a device lacks; why it does goes to the report."""
    reasons = {precision: why_not(precision, device) for precision in precisions}
    report.left_out += [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    return [name for name in precisions if not reasons[name]]


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
    digits = 2 if ratio["median"] >= 0.1 else 3
    median, low, high = (f"{ratio[key]:.{digits}f}" for key in ("median", "low", "high"))
    shown = f"{median} ({low} to {high})"
    return f"{shown}, tie" if ratio["tie"] else shown


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what figures depend on: device, versions, threads."""
    on_gpu = device.type == "cuda"
    facts = {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine() + " CPU",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if on_gpu:
        cudnn = torch.backends.cudnn
        facts.update(cuda=torch.version.cuda, cudnn=cudnn.version(), autotuned=cudnn.benchmark)
    return facts
