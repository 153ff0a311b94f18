"""What a device computes and moves at most: the limit that shares of models are of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .measuring import AUTOCAST, Case, Clock, Settings, allow_tf32
from .report import Report, available, shown_number, shown_time

__all__ = ["convolution_peaks", "measure_peak"]

# A layer of the parsing head for nine people, of which convolutions have the highest rate.
_CHANNELS = 256
_MAP_SIZE = (96, 96)
_PRODUCT_SIDE = 2048
_COPIED_BYTES = 2**28


def measure_peak(settings: Settings, precisions: Sequence[str]) -> Report:
    """Measure convolutions, matrix products and copies.

    Args:
        settings: see there.
        precisions: of ``PRECISIONS``.
    """
    report = Report(
        notes=[
            f"Convolutions of 3x3, {_CHANNELS} to {_CHANNELS} channels, on maps of "
            "{}x{}; ".format(*_MAP_SIZE)
            + f"products of matrices of {_PRODUCT_SIDE} rows and "
            "columns; copies from memory to memory. A rate is of the fastest run: operations are "
            "multiplications and additions, bytes are read and written."
        ]
    )
    cases: dict[str, Case] = {}
    for precision in available(precisions, settings.device, report):
        dtype = AUTOCAST.get(precision, torch.float32)
        for layout in (torch.contiguous_format, torch.channels_last):
            name = f"convolution{', channels-last' if layout == torch.channels_last else ''}"
            cases[f"{name}, {precision}"] = _convolution(
                settings.device, dtype, layout, {"work": name, "precision": precision}
            )
        cases[f"product, {precision}"] = _product(
            settings.device, dtype, {"work": "product", "precision": precision}
        )
    cases["copy"] = _copy(settings.device)
    rows = report.add_group(settings, cases, {})
    for row in rows:
        row["per_second"] = row["amount"] / min(row["all_ms"]) * 1e3 if row["all_ms"] else None
    report.columns = {
        "work": lambda row: row["work"],
        "precision": lambda row: row["precision"] or "-",
        "ms": lambda row: shown_time(row, "ms", ".2f"),
        "10^9 operations/s": lambda row: _shown_rate(row, "operations"),
        "GB/s": lambda row: _shown_rate(row, "bytes"),
    }
    return report


def convolution_peaks(device: torch.device, precisions: Sequence[str]) -> dict[str, float]:
    """Multiply-adds of convolutions that a device does in a second at most, by precision."""
    rows = measure_peak(Settings(device, 5, 2, time.monotonic() + 60), precisions).rows
    peaks: dict[str, float] = {}
    for row in rows:
        if row["work"].startswith("convolution") and row["per_second"]:
            precision = row["precision"]
            peaks[precision] = max(peaks.get(precision, 0.0), row["per_second"] / 2)
    return peaks


def _shown_rate(row: dict[str, Any], unit: str) -> str:
    return shown_number(row["per_second"] if row["unit"] == unit else None, ".1f", 1e-9)


def _convolution(
    device: torch.device, dtype: torch.dtype, layout: torch.memory_format, facts: dict[str, Any]
) -> Case:
    x = torch.ones(1, _CHANNELS, *_MAP_SIZE, device=device, dtype=dtype).to(memory_format=layout)
    weight = torch.ones(_CHANNELS, _CHANNELS, 3, 3, device=device, dtype=dtype) / 2304
    weight = weight.to(memory_format=layout)
    amount = 2 * weight.numel() * _MAP_SIZE[0] * _MAP_SIZE[1]

    def run(clock: Clock) -> Tensor:
        allow_tf32(facts["precision"] == "tf32")
        result = F.conv2d(x, weight, padding=1)
        clock.mark("convolution")
        return result

    return Case(torch.inference_mode()(run), {**facts, "amount": amount, "unit": "operations"})


def _product(device: torch.device, dtype: torch.dtype, facts: dict[str, Any]) -> Case:
    x = torch.ones(_PRODUCT_SIDE, _PRODUCT_SIDE, device=device, dtype=dtype)

    def run(clock: Clock) -> Tensor:
        allow_tf32(facts["precision"] == "tf32")
        result = x @ x
        clock.mark("product")
        return result

    amount = 2 * _PRODUCT_SIDE**3
    return Case(torch.inference_mode()(run), {**facts, "amount": amount, "unit": "operations"})


def _copy(device: torch.device) -> Case:
    source = torch.ones(_COPIED_BYTES // 4, device=device)
    target = torch.zeros_like(source)

    def run(clock: Clock) -> None:
        target.copy_(source)
        clock.mark("copy")

    facts = {"work": "copy", "precision": None, "amount": 2 * _COPIED_BYTES, "unit": "bytes"}
    return Case(run, facts)
