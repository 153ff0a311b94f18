"""From one code base's tensors to a model's: every tensor and every parameter accounted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .weight_file import WeightFile

# More of a kind say nothing new: usually the file is of another architecture.
_MAX_NAMES_PER_PROBLEM = 10


class ConversionError(ValueError):
    """The tensors of a file do not fit the model."""


@dataclass(frozen=True)
class Conversion:
    """Weights under a model's names.

    Attributes:
        weights: float tensors by the model's names, one for each that was asked for.
        sources: the model's name -> the name in the file.
        dropped: what the file holds besides, none of it a parameter.
    """

    weights: dict[str, Tensor]
    sources: dict[str, str]
    dropped: tuple[str, ...]


def rename_tensors(
    file: WeightFile,
    rename: Callable[[str], str | None],
    is_dropped: Callable[[str], bool],
) -> tuple[dict[str, str], list[str], list[str]]:
    """Sorts a file's tensors.

    Args:
        file: what was read.
        rename: gives the model's name of a tensor, or None for a name it does not know.
        is_dropped: whether a tensor is known not to be a parameter.

    Returns:
        Names in the file by the model's name; names of dropped tensors; and a line for each tensor
        that is not known or has the same target as another one.
    """
    sources: dict[str, str] = {}
    dropped, problems = [], []
    for name in file.tensors:
        if is_dropped(name):
            dropped.append(name)
            continue
        target = rename(name)
        if target is None:
            problems.append(f"{name}: not known; it would be lost")
        elif target in sources:
            problems.append(f"{name}: is for {target}, as is {sources[target]}")
        else:
            sources[target] = name
    return sources, dropped, problems


def match_tensors(
    file: WeightFile,
    sources: Mapping[str, str],
    expected: Mapping[str, Tensor],
    problems: list[str],
) -> dict[str, Tensor]:
    """Check renamed tensors against the model's.

    Args:
        file: what was read.
        sources: names in the file by the model's name.
        expected: the model's tensors, of which names, shapes and types count. Norms' counters of
            batches are left out.
        problems: those found before, in the form that :func:`rename_tensors` gives them.

    Returns:
        The file's tensors by the model's names, in the model's order and types. A single number
        takes the model's shape, be it () or (1,).

    Raises:
        ConversionError: there are problems, or tensors are missing, left over or of other shapes.
    """
    unused = [
        f"{source}: the model of the config has no {target}"
        for target, source in sources.items()
        if target not in expected
    ]
    missing, shapes = [], []
    weights: dict[str, Tensor] = {}
    for target, parameter in expected.items():
        if target.endswith(".num_batches_tracked"):
            continue
        source = sources.get(target)
        if source is None:
            missing.append(f"{target}: shape {tuple(parameter.shape)}")
            continue
        tensor = file.tensors[source]
        if tensor.shape != parameter.shape and not tensor.numel() == parameter.numel() == 1:
            shapes.append(
                f"{source}: shape {tuple(tensor.shape)}, expected {tuple(parameter.shape)} for "
                f"{target}"
            )
            continue
        weights[target] = tensor.reshape(parameter.shape).to(parameter.dtype)

    message = [
        _listed("Tensors without a place", problems + unused),
        _listed("Parameters that nothing in the file fills", missing),
        _listed("Tensors of another shape", shapes),
    ]
    if any(message):
        raise ConversionError(
            f"{file.path} does not fit the model of the config. Give the config of the "
            "architecture that the file was trained with.\n" + "\n".join(filter(None, message))
        )
    return weights


def _listed(title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    shown = lines[:_MAX_NAMES_PER_PROBLEM]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    return "\n  ".join([f"{title} ({len(lines)}):", *shown])
