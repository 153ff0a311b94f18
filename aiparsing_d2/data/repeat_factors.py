"""How often training takes an image, so that data sets are mixed by weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.data import DatasetCatalog

from aiparsing_d2.structures.part_labels import get_part_labels

__all__ = ["repeat_factors_from_weights"]


def repeat_factors_from_weights(names: Sequence[str], weights: Sequence[float]) -> torch.Tensor:
    """Compute the repeat factors with which data set i gives ``weights[i] / sum(weights)`` of the
    images.

    They are for Detectron2's ``RepeatFactorTrainingSampler`` over the data sets one after the
    other, as ``get_detection_dataset_dicts(names, filter_empty=False)`` has them. Within a data set
    all images come equally often; an epoch has as many images as the data sets together, on
    average.

    Args:
        names: of registered data sets with the same part labels.
        weights: one of each, positive.

    Returns:
        float32 (number of images of all data sets,).

    Raises:
        KeyError: a name is not registered.
        ValueError: names and weights do not go together, a weight is not positive, a data set is
            empty, or their part labels differ.
    """
    if isinstance(names, str) or len(names) != len(weights):
        raise ValueError(f"one weight per data set is needed, got {weights} for {names}")
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"the weights of data sets must be positive, got {weights}")
    get_part_labels(names)
    counts = [len(DatasetCatalog.get(name)) for name in names]
    if not all(counts):
        raise ValueError(f"data set '{names[counts.index(0)]}' has no images to mix in")
    factors = [
        weight / sum(weights) * sum(counts) / count for weight, count in zip(weights, counts)
    ]
    return torch.tensor(factors).repeat_interleave(torch.tensor(counts))
