"""Whether head, data sets, evaluator and metric of a config fit together, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from aiparsing_d2.evaluation import ParsingEvaluator, ParsingMetrics

from .config_error import ConfigError, nearest_known
from .data_set_registration import data_set_names

__all__ = ["check_consistency"]


def check_consistency(config: DictConfig, evaluation_only: bool = False) -> None:
    """Refuse a config whose parts contradict each other. No image or model is touched.

    * The data sets are registered, and their parts are the same.
    * The parsing head has as many classes as the data sets have part labels.
    * Evaluators are of the data set that the test loader reads, and there is one.
    * ``train.best_checkpointer.val_metric`` is a figure that is computed.

    Args:
        config: of a run.
        evaluation_only: whether nothing is trained, so that training settings do not count.

    Raises:
        ConfigError: naming the keys and both values.
    """
    loaders = ["test"] if evaluation_only else ["train", "test"]
    loaders = [loader for loader in loaders if config.dataloader.get(loader) is not None]
    if "test" not in loaders and evaluator_nodes(config):
        raise ConfigError(
            "dataloader.evaluator has no dataloader.test to evaluate on; a run without evaluation "
            "has neither: dataloader.test=null dataloader.evaluator=null"
        )
    for loader in loaders:
        for name in data_set_names(config, loader):
            _check_registered(name, f"dataloader.{loader}.dataset.names")
    _check_part_names(config, loaders)
    _check_num_classes(config, loaders)
    if "test" in loaders:
        _check_evaluators(config)
        if not evaluation_only:
            _check_val_metric(config)


def _check_registered(name: str, key: str) -> None:
    if name not in DatasetCatalog:
        raise ConfigError(
            f"{key}: no data set {name!r} is registered; {nearest_known(name, DatasetCatalog)}"
        )


def _part_names(config: DictConfig, loader: str) -> Iterator[tuple[str, list[str]]]:
    """Return the loader's data sets that have part labels, and their names."""
    for name in data_set_names(config, loader):
        part_names = MetadataCatalog.get(name).get("part_names")
        if part_names is not None:
            yield name, list(part_names)


def _check_part_names(config: DictConfig, loaders: list[str]) -> None:
    data_sets = [
        (f"dataloader.{loader}.dataset.names={name}", parts)
        for loader in loaders
        for name, parts in _part_names(config, loader)
    ]
    for key, parts in data_sets[1:]:
        first_key, first = data_sets[0]
        # Other numbers of them are told by the head's.
        if len(parts) == len(first) and parts != first:
            label = next(i for i, pair in enumerate(zip(first, parts)) if pair[0] != pair[1])
            raise ConfigError(
                f"label {label} is {first[label]!r} in {first_key} and {parts[label]!r} in {key}"
            )


def _check_num_classes(config: DictConfig, loaders: list[str]) -> None:
    for key, num_classes in _parsing_heads(config.model, "model"):
        for loader in loaders:
            for name, parts in _part_names(config, loader):
                if num_classes != len(parts):
                    raise ConfigError(
                        f"{key}.num_classes={num_classes}, but "
                        f"dataloader.{loader}.dataset.names={name} has {len(parts)} part labels, "
                        f"the background included: set {key}.num_classes={len(parts)}"
                    )


def _parsing_heads(node: DictConfig | ListConfig, key: str) -> Iterator[tuple[str, int]]:
    """Keys of all nodes called parsing_head, and their numbers of classes."""
    items: Iterable[tuple[Any, Any]] = (
        node.items() if isinstance(node, DictConfig) else enumerate(node)
    )
    for name, child in items:
        if name == "parsing_head" and isinstance(child, DictConfig) and "num_classes" in child:
            yield f"{key}.{name}", child.num_classes
        elif isinstance(child, (DictConfig, ListConfig)):
            yield from _parsing_heads(child, f"{key}.{name}")


def evaluator_nodes(config: DictConfig) -> list[tuple[str, DictConfig]]:
    """Return the keys and nodes of ``dataloader.evaluator``: of one, of a list, or of none."""
    evaluator = config.dataloader.get("evaluator")
    if isinstance(evaluator, ListConfig):
        return [(f"dataloader.evaluator.{i}", node) for i, node in enumerate(evaluator)]
    return [] if evaluator is None else [("dataloader.evaluator", evaluator)]


def _check_evaluators(config: DictConfig) -> None:
    tested = data_set_names(config, "test")
    for key, evaluator in evaluator_nodes(config):
        name = evaluator.get("dataset_name")
        if name is not None and tested != [name]:
            raise ConfigError(
                f"{key}.dataset_name={name}, but dataloader.test.dataset.names="
                f"{OmegaConf.select(config, 'dataloader.test.dataset.names')}: an evaluator is of "
                "the one data set that the test loader reads"
            )


def _check_val_metric(config: DictConfig) -> None:
    val_metric = (config.train.get("best_checkpointer") or {}).get("val_metric")
    are_parsing = [_is_parsing_evaluator(node) for _, node in evaluator_nodes(config)]
    # What other evaluators compute is not known before, but it is not in the group "parsing".
    if val_metric is None or not any(are_parsing):
        return
    if not all(are_parsing) and not val_metric.startswith("parsing/"):
        return
    part_names = MetadataCatalog.get(data_set_names(config, "test")[0]).part_names
    groups = ParsingMetrics(len(part_names), part_names).summarize()
    known = [f"{group}/{name}" for group, values in groups.items() for name in values]
    if val_metric not in known:
        raise ConfigError(
            f"train.best_checkpointer.val_metric={val_metric} is not among the figures that "
            f"dataloader.evaluator computes: {nearest_known(val_metric, known)}"
        )


def _is_parsing_evaluator(node: DictConfig) -> bool:
    target = node.get("_target_")
    target = locate(target) if isinstance(target, str) else target
    return isinstance(target, type) and issubclass(target, ParsingEvaluator)
