"""Times and memory of works that take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = [
    "AUTOCAST",
    "NOT_FINITE",
    "OUT_OF_MEMORY",
    "PRECISIONS",
    "Case",
    "Clock",
    "Measurement",
    "Settings",
    "allow_tf32",
    "autocast",
    "compare",
    "measure",
    "size_in_bytes",
    "why_not",
]

OUT_OF_MEMORY = "out of memory"
NOT_FINITE = "infinite or NaN values"  # whose time means nothing

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", "tf32", *AUTOCAST)


@dataclass(frozen=True)
class Settings:
    """Where it is measured, and how long.

    Attributes:
        device: a CPU or a GPU.
        repeats: rounds of which the median is reported.
        warm_up: rounds before.
        deadline: of ``time.monotonic()``; no round is begun after it.
    """

    device: torch.device
    repeats: int
    warm_up: int
    deadline: float


def why_not(precision: str, device: torch.device) -> str | None:
    """Say why a device cannot compute in a precision, or None if it can."""
    if device.type == "cpu":
        return {"tf32": "only GPUs have TF32", "fp16": "measured on GPUs only"}.get(precision)
    needed = {"tf32": (8, 0), "bf16": (8, 0)}.get(precision)
    if needed and torch.cuda.get_device_capability(device) < needed:
        return f"{torch.cuda.get_device_name(device)} has none"
    return None


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in products and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed  # PyTorch's default allows it


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context of a precision; float32 and TF32 need none."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


class Clock:
    """Times stages of work that may run on a GPU, without waiting for it between stages."""

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[tuple[str, Any]] = []
        self._told: float | None = None

    def start(self) -> None:
        self._synchronize()
        self.marks = []
        self._told = None
        self.mark("")

    def mark(self, stage: str) -> None:
        """Note the end of a stage."""
        if self.device.type == "cuda":
            now = torch.cuda.Event(enable_timing=True)
            now.record(torch.cuda.current_stream(self.device))
        else:
            now = time.perf_counter()
        self.marks.append((stage, now))

    def set(self, milliseconds: float) -> None:
        """Take a time that was measured elsewhere, by another process for instance."""
        self._told = milliseconds

    def read(self) -> dict[str, float]:
        """Milliseconds by stage; those of a stage that was marked several times are summed."""
        if self._told is not None:
            return {"all": self._told}
        self._synchronize()
        times: dict[str, float] = {}
        for (_, before), (stage, now) in zip(self.marks, self.marks[1:]):
            on_gpu = self.device.type == "cuda"
            passed = before.elapsed_time(now) if on_gpu else 1000 * (now - before)
            times[stage] = times.get(stage, 0.0) + passed
        return times

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Counter(Protocol):
    """Counts the people that reached the RoI branch in the last run."""

    count: int


@dataclass
class Case:
    """Work that is measured.

    Attributes:
        run: does it once and marks its stages; returns a tensor that must be finite, or None.
        facts: what the table says of it.
        counter: of the people that reach the RoI branch, if there is one.
        resident: bytes that stay on the device between runs.
        after_failure: frees what a run that ran out of memory has left.
    """

    run: Callable[[Clock], Tensor | None]
    facts: Mapping[str, Any] = field(default_factory=dict)
    counter: Counter | None = None
    resident: int = 0
    after_failure: Callable[[], None] = lambda: None


@dataclass
class Measurement:
    """What was measured of a case.

    Attributes:
        times: milliseconds by stage, of each repeat.
        rois: people in the RoI branch.
        peak: bytes at most on the GPU, without what other cases keep there.
        error: why there is no measurement.
    """

    times: list[dict[str, float]] = field(default_factory=list)
    rois: int | None = None
    peak: int | None = None
    error: str | None = None

    @property
    def totals(self) -> list[float]:
        return [sum(stages.values()) for stages in self.times]


def measure(cases: Mapping[str, Case], settings: Settings) -> dict[str, Measurement]:
    """Run cases in turns, until they were repeated often enough or the time is up.

    Args:
        cases: by name.
        settings: see there; a round that began before the deadline is finished.

    Returns:
        By name. Without an error all have as many times, perhaps fewer than the repeats or none.
    """
    device = settings.device
    results = {name: Measurement() for name in cases}
    for number in range(-settings.warm_up, settings.repeats):
        if time.monotonic() > settings.deadline:
            break
        for name, case in cases.items():
            result = results[name]
            if result.error:
                continue
            try:
                times, peak = run_once(case, device)
            except FloatingPointError:
                results[name] = Measurement(error=NOT_FINITE)
            except RuntimeError as e:
                if not is_out_of_memory(e):
                    raise
                results[name] = Measurement(error=OUT_OF_MEMORY)
            else:
                result.rois = case.counter.count if case.counter else None
                # The first rounds allocate what stays, an optimiser's momentum for instance.
                if number >= 0:
                    result.times.append(times)
                    result.peak = peak and max(peak, result.peak or 0)
            # After the handler, which holds on to the frames of the failed run.
            if results[name].error:
                case.after_failure()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    return results


def run_once(case: Case, device: torch.device) -> tuple[dict[str, float], int | None]:
    """Run a case; return milliseconds by stage, and the peak in bytes."""
    clock = Clock(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    clock.start()
    output = case.run(clock)
    times = clock.read()
    peak = torch.cuda.max_memory_allocated(device) - before + case.resident if on_gpu else None
    if output is not None and not output.isfinite().all():
        raise FloatingPointError(NOT_FINITE)
    return times, peak


def is_out_of_memory(error: RuntimeError) -> bool:
    # cuDNN and cuBLAS have errors of their own.
    return isinstance(error, torch.cuda.OutOfMemoryError) or "ALLOC_FAILED" in str(error)


def size_in_bytes(tensors: Sequence[Any]) -> int:
    """Sum up the bytes of those that are tensors."""
    return sum(x.numel() * x.element_size() for x in tensors if isinstance(x, Tensor))


def compare(
    results: Mapping[str, Measurement], name: str, reference: str | None
) -> dict[str, Any] | None:
    """Time in units of the reference's, from runs side by side."""
    if reference is None or name == reference or reference not in results:
        return None
    pairs = list(zip(results[name].totals, results[reference].totals))
    if not pairs:
        return None
    ratios = [mine / other for mine, other in pairs]
    low, high = min(ratios), max(ratios)
    return {
        "median": statistics.median(ratios),
        "low": low,
        "high": high,
        "tie": low <= 1 <= high,
    }
