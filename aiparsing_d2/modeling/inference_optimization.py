"""Models made fast for inference: precision, memory layout, norms folded into convolutions."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["PRECISIONS", "best_precision", "optimize_for_inference"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# By place in the model: what does nearly all of the arithmetic. Decoding, suppression, RoI pooling
# and scores stay in float32. First those whose work is the same for all pictures of a size, and
# whose outputs do not outlive the picture.
_PARTS_OF_THE_PICTURE = (
    "backbone",
    "proposal_generator.head",  # FCOS
    "proposal_generator.rpn_head",
)
_DENSE_PARTS = (*_PARTS_OF_THE_PICTURE, "roi_heads.box_head", "roi_heads.parsing_head")


def best_precision(device: torch.device | str) -> str:
    """Choose a precision by what the device computes fast.

    Returns:
        "bf16" on a CPU with instructions for products of bfloat16 (avx512_bf16 or amx_bf16), where
        it is faster; else "fp32". Other CPUs emulate bfloat16. GPUs keep float32, with TF32 where
        PyTorch's settings allow it.
    """
    if torch.device(device).type != "cpu":
        return "fp32"
    # Torch has no public question for these; without an answer float32 is right everywhere.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    has_bf16 = any(getattr(torch.cpu, name, lambda: False)() for name in questions)
    return "bf16" if has_bf16 else "fp32"


@torch.no_grad()
def optimize_for_inference(
    model: GeneralizedRCNN,
    precision: str = "auto",
    *,
    channels_last: bool | None = None,
    compile: bool = False,
    cuda_graphs: bool = False,
) -> GeneralizedRCNN:
    """Copy a model for inference, so that it is faster.

    Norms with fixed statistics are folded into the convolutions before them. In half precision,
    backbone and heads compute in it, but for the last layers that a module names in its
    ``layers_in_float32``; boxes are decoded and pooled, and scores computed, in float32.

    Args:
        model: any ``GeneralizedRCNN``; it is left as it is.
        precision: "fp32", "bf16", "fp16", or "auto" for :func:`best_precision` of its device. With
            "fp32" outputs are the same but for rounding.
        channels_last: memory layout of weights and feature maps; None: where it is faster, on CPUs.
        compile: whether backbone and heads are compiled by ``torch.compile`` at their first use,
            for each size of image, which takes minutes.
        cuda_graphs: whether a GPU is handed the compiled backbone and detection head as CUDA
            graphs, one for each size of image, which spares it the wait for Python. The other heads
            do without: their inputs change with the number of people, and people keep their
            outputs.

    Returns:
        A copy in evaluation mode, which cannot be trained; its ``inference_precision`` is the
        precision.

    Raises:
        ValueError: there is no such precision, "fp16" or CUDA graphs are asked of a CPU, or graphs
            of what is not compiled.
    """
    device = model.device
    if cuda_graphs and not compile:
        raise ValueError("CUDA graphs are made of what is compiled: give compile too")
    if cuda_graphs and device.type != "cuda":
        raise ValueError(f"CUDA graphs are for GPUs of NVIDIA, and the model is on {device}")
    if precision == "auto":
        precision = best_precision(device)
    if precision not in PRECISIONS:
        raise ValueError(
            f"the precision is {precision!r}; it must be one of auto, {', '.join(PRECISIONS)}"
        )
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("the precision fp16 is for GPUs; on a CPU take bf16 or fp32")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if channels_last is None:
        channels_last = device.type == "cpu"
    _fold_norms(model.backbone, len(model.pixel_mean))
    for name in _DENSE_PARTS[1:]:
        _fold_own_norms(_part(model, name))
    if channels_last:
        model.to(memory_format=torch.channels_last)
        model.backbone.register_forward_pre_hook(_to_channels_last)
    dtype = PRECISIONS[precision]
    if dtype != torch.float32:
        _lower(model, dtype)
    if compile:
        for name in _DENSE_PARTS:
            as_graph = cuda_graphs and name in _PARTS_OF_THE_PICTURE
            _part(model, name).compile(mode="reduce-overhead" if as_graph else None)
    model.inference_precision = precision
    return model


def _part(model: nn.Module, name: str) -> nn.Module:
    """Give a part of a model, or an empty one where it has none of the name."""
    part: Any = model
    for step in name.split("."):
        part = getattr(part, step, None)
    return part if isinstance(part, nn.Module) else nn.Identity()


def _fold_norms(backbone: nn.Module, num_channels: int) -> None:
    """Fold norms of Detectron2's convolutions, and those that are modules beside a convolution."""
    _fold_own_norms(backbone)
    if not any(isinstance(module, _BatchNorm) for module in backbone.modules()):
        return
    parameter = next(backbone.parameters())
    side = 4 * max(getattr(backbone, "size_divisibility", 0), 32)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, num_channels, side, side, generator=generator).to(parameter.device)
    folded = copy.deepcopy(backbone)
    for convolution, norm in _pairs(folded, image):
        _fold(folded.get_submodule(convolution), folded.get_submodule(norm))
        # timm's norms do the activation too.
        norm_module: Any = folded.get_submodule(norm)
        rest = [getattr(norm_module, name, nn.Identity()) for name in ("drop", "act")]
        parent, _, name = norm.rpartition(".")
        setattr(folded.get_submodule(parent), name, nn.Sequential(*rest))
    # Whether something else read the convolution's output, hooks cannot tell, but the result can.
    expected, got = backbone(image), folded(image)
    if all(
        torch.allclose(got[k], v, rtol=1e-3, atol=1e-4 * float(v.std()))
        for k, v in expected.items()
    ):
        backbone.__dict__.update(folded.__dict__)


def _pairs(backbone: nn.Module, image: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and the batch norms that get what these give, in a forward pass."""
    pairs: list[tuple[str, str]] = []
    last: list[tuple[str, Tensor]] = []

    def note(name: str, module: nn.Module) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                last[:] = [(name, output)]
            elif last and last[0][1] is args[0]:
                pairs.append((last[0][0], name))

        return module.register_forward_hook(hook)

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [note(n, m) for n, m in backbone.named_modules() if isinstance(m, kinds)]
    backbone(image)
    for hook in hooks:
        hook.remove()
    # A module that is used twice cannot be folded with two others.
    names = [name for pair in pairs for name in pair]
    return [pair for pair in pairs if all(names.count(name) == 1 for name in pair)]


def _fold_own_norms(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, Conv2d) and isinstance(module.norm, (FrozenBatchNorm2d, _BatchNorm)):
            _fold(module, module.norm)
            module.norm = None


def _fold(convolution: Any, norm: Any) -> None:
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        *(convolution.weight, convolution.bias, norm.running_mean, norm.running_var),
        *(norm.eps, norm.weight, norm.bias),
    )


def _lower(model: GeneralizedRCNN, dtype: torch.dtype) -> None:
    for name in _DENSE_PARTS:
        part = _part(model, name)
        exact = [
            (module, layer, copy.deepcopy(getattr(module, layer)))
            for module in part.modules()
            for layer in getattr(module, "layers_in_float32", ())
        ]
        part.to(dtype)
        for module, layer, unrounded in exact:
            setattr(module, layer, unrounded)
        part.register_forward_pre_hook(_Cast(dtype))
    for module in model.modules():
        if isinstance(module, ROIPooler):
            module.register_forward_pre_hook(_Cast(torch.float32))
    # Detectron2's RPN decodes and suppresses in what its head gives.
    _part(model, "proposal_generator.rpn_head").register_forward_hook(_outputs_to_float32)
    box_predictor = _part(model, "roi_heads.box_predictor")
    box_predictor.register_forward_pre_hook(_Cast(torch.float32))


def _to_channels_last(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].contiguous(memory_format=torch.channels_last), *args[1:])


def _outputs_to_float32(
    module: nn.Module, args: tuple[Any, ...], outputs: tuple[list[Tensor], ...]
) -> tuple[list[Tensor], ...]:
    return tuple([x.float() for x in of_levels] for of_levels in outputs)


class _Cast:
    """Hook that gives a module its first argument, a tensor or a list of these, in a dtype."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        x = x.to(self.dtype) if isinstance(x, Tensor) else [y.to(self.dtype) for y in x]
        return (x, *args[1:])
