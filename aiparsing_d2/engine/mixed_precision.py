"""Training in half precision, on CPUs too."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
from detectron2.engine import AMPTrainer
from detectron2.utils import comm
from torch import nn

from aiparsing_d2.modeling.inference_optimization import best_precision

from .checkpointing import newest_whole_checkpoint
from .finite_steps import FiniteStepTrainer, without_ddp

logger = logging.getLogger(__name__)

PRECISIONS = ("float16", "bfloat16")


class BFloat16Trainer(FiniteStepTrainer):
    """``FiniteStepTrainer`` whose forward passes run under autocast to bfloat16, on CPU or GPU.

    bfloat16 has float32's range, so no gradient has to be scaled. The weights, the optimiser and
    this project's losses stay in float32.
    """

    precision_name = "bfloat16"

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any):
        """
        Args:
            model, args, kwargs: as for ``FiniteStepTrainer``.
        """
        super().__init__(_BFloat16Forward(model), *args, **kwargs)
        self._given_model = model

    def _plain_model(self) -> nn.Module:
        return without_ddp(self._given_model)


class FiniteStepAMPTrainer(FiniteStepTrainer, AMPTrainer):
    """``FiniteStepTrainer`` in float16, with scaled gradients."""

    precision_name = "float16"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A run that began in another precision has no scale yet.
        super().load_state_dict({"grad_scaler": self.grad_scaler.state_dict(), **state_dict})


class _BFloat16Forward(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.device_type = next(model.parameters()).device.type
        # Hooks rather than a patched forward: copies of the model keep working.
        if self.device_type == "cpu":
            for module in model.modules():
                if isinstance(module, nn.Conv2d) and module.kernel_size > (1, 1):
                    module.register_forward_pre_hook(_leave_autocast)
                    module.register_forward_hook(_return_to_autocast)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        with torch.autocast(self.device_type, torch.bfloat16):
            return self.model(batched_inputs)


def _leave_autocast(module: nn.Conv2d, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
    was_in_autocast = torch.is_autocast_enabled("cpu") and _is_better_in_float32(module, args[0])
    setattr(module, "was_in_autocast", was_in_autocast)  # noqa: B010 (known to no type)
    if was_in_autocast:
        torch.set_autocast_enabled("cpu", False)
        return (args[0].float(),)
    return None


def _is_better_in_float32(convolution: nn.Conv2d, x: torch.Tensor) -> bool:
    # On a CPU, bfloat16 gradients of depthwise convolutions take 3 to 17 times as long as
    # float32's: a quarter of EfficientNets' training time, 4 % of the paper's model's (torch 2.14,
    # AVX512 with BF16).
    if convolution.groups == convolution.in_channels > 1:
        return True
    # Those of kernels larger than the map, as where context modules halve a small RoI to one
    # position, can hold whatever was in memory: NaN, or what is worse, numbers.
    return any(side < kernel for side, kernel in zip(x.shape[-2:], convolution.kernel_size))


def _return_to_autocast(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
    if module.was_in_autocast:
        torch.set_autocast_enabled("cpu", True)


def precision_of_run(
    amp: Mapping[str, Any], device: torch.device | str, output_dir: str | None = None
) -> str | None:
    """Choose what a training computes in; the same in all processes.

    Args:
        amp: ``train.amp``: enabled, and precision. With ``enabled`` None, a run keeps what it began
            with, and a new one takes bfloat16 on a CPU that computes in it, else float32.
        device: of the model.
        output_dir: of a run that is resumed; None for a new run.

    Returns:
        As ``precision`` of :func:`build_trainer`; no float16 without a GPU, which a warning tells.
    """
    chosen = _find_precision(amp, device, output_dir) if comm.is_main_process() else None
    chosen = comm.all_gather(chosen)[0]
    return None if chosen == "float32" else chosen


def settle_precision(
    amp: MutableMapping[str, Any], device: torch.device | str, output_dir: str | None
) -> None:
    """Write into ``train.amp`` what ``enabled`` None stands for, which a run's config then tells.

    Args:
        amp, device, output_dir: as for :func:`precision_of_run`.
    """
    if amp["enabled"] is None:
        precision = precision_of_run(amp, device, output_dir)
        amp["enabled"] = precision is not None
        amp["precision"] = precision or amp.get("precision", "float16")


def tell_precision(precision: str | None, device: torch.device | str) -> None:
    """Log what a training computes in, and warn where that is slow.

    Args:
        precision: of :func:`precision_of_run`.
        device: of the model.
    """
    logger.info("Training in %s", precision or "float32")
    is_emulated = torch.device(device).type == "cpu" and best_precision(device) != "bf16"
    if precision == "bfloat16" and is_emulated:
        logger.warning(
            "This CPU has no instructions for bfloat16 and takes longer in it than in float32, "
            "which train.amp.enabled=False trains in"
        )


def _find_precision(
    amp: Mapping[str, Any], device: torch.device | str, output_dir: str | None
) -> str:
    checkpoint = newest_whole_checkpoint(output_dir) if output_dir is not None else None
    began = None
    if checkpoint is not None:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        began = content.get("trainer", {}).get("precision")  # earlier versions did not keep it
    if amp["enabled"] is None:
        fastest = "bfloat16" if best_precision(device) == "bf16" else "float32"
        return _possible(fastest if checkpoint is None else began or "float32", device)
    # Configs saved by earlier versions lack the precision.
    chosen = _possible(amp.get("precision", "float16") if amp["enabled"] else "float32", device)
    if began not in (None, chosen):
        logger.warning("The run began in %s and goes on in %s", began, chosen)
    return chosen


def _possible(precision: str, device: torch.device | str) -> str:
    """Return the precision, or, with a warning, float32 instead of float16 without a GPU."""
    if precision != "float16" or torch.device(device).type == "cuda":
        return precision
    logger.warning(
        "train.amp.enabled needs a GPU for float16; training on %s in float32. "
        "train.amp.precision=bfloat16 needs none.",
        device,
    )
    return "float32"


def build_trainer(
    model: nn.Module,
    data_loader: Iterable,
    optimizer: torch.optim.Optimizer,
    precision: str | None = None,
    nonfinite: str = "stop",
    output_dir: str = "",
) -> FiniteStepTrainer:
    """
    Args:
        model, data_loader, optimizer, nonfinite, output_dir: as for ``FiniteStepTrainer``.
        precision: of the forward passes, "float16" (with scaled gradients; on a GPU only, left off
            with a warning elsewhere), "bfloat16", or None for float32.

    Raises:
        ValueError: another precision.
    """
    arguments = (model, data_loader, optimizer, nonfinite, output_dir)
    if precision is None:
        return FiniteStepTrainer(*arguments)
    if precision == "bfloat16":
        return BFloat16Trainer(*arguments)
    if precision != "float16":
        raise ValueError(
            f"train.amp.precision is {precision!r}; choose one of {', '.join(PRECISIONS)}"
        )
    is_possible = _possible(precision, next(model.parameters()).device) == precision
    return (FiniteStepAMPTrainer if is_possible else FiniteStepTrainer)(*arguments)
