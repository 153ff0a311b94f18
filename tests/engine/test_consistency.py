"""Parts of a config that contradict each other are told before anything runs."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from aiparsing_d2 import model_zoo
from aiparsing_d2.data.datasets import register_parsing_dataset
from aiparsing_d2.engine import (
    ConfigError,
    apply_overrides,
    check_consistency,
    keep_registrations,
)
from aiparsing_d2.structures.part_labels import PartLabels, distinct_colors

DEMO = "demo/aiparsing_tiny_FPN_drawn_cihp"
EXPERIMENTS = [name for name in model_zoo.list_configs() if not name.endswith(".yaml")]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_zoo_fits_together(name):
    check_consistency(model_zoo.get_config(name))


@pytest.mark.parametrize(
    "overrides, message, in_evaluation",
    [
        (
            ["model.roi_heads.parsing_head.num_classes=59"],
            r"model.roi_heads.parsing_head.num_classes=59, but dataloader.\w+.dataset.names="
            r"drawn_cihp_\w+ has 20 part labels",
            True,
        ),
        (["dataloader.test.dataset.names=drawn_lv_mhp_v2_val"], "num_classes=20, but .* 59", True),
        (["dataloader.train.dataset.names=drawn_lv_mhp_v2_train"], "=20, but .* 59", False),
        (["dataloader.test.dataset.names=cihp_vall"], "test.dataset.names: .*cihp_val?", True),
        (
            ["dataloader.evaluator.dataset_name=cihp_val"],
            "evaluator.dataset_name=cihp_val, but dataloader.test.dataset.names=drawn_cihp_val",
            True,
        ),
        (["dataloader.test.dataset.names=[cihp_val,vip_val]"], "evaluator.dataset_name=", True),
        (
            ["train.best_checkpointer.val_metric=parsing/mIOU"],
            "val_metric=parsing/mIOU .* did you mean parsing/mIoU?",
            False,
        ),
        (["train.best_checkpointer.val_metric=bbox/APp50"], "did you mean bbox/AP50?", False),
    ],
)
def test_contradictions(overrides, message, in_evaluation):
    config = apply_overrides(model_zoo.get_config(DEMO), overrides)
    with pytest.raises(ConfigError, match=message):
        check_consistency(config)
    if in_evaluation:
        with pytest.raises(ConfigError, match=message):
            check_consistency(config, evaluation_only=True)
    else:
        check_consistency(config, evaluation_only=True)


def test_equally_many_parts_of_other_names():
    names = [f"part {i}" for i in range(20)]
    register_parsing_dataset("other_parts", list, PartLabels(names, distinct_colors(20)))
    try:
        config = model_zoo.get_config(DEMO)
        config.dataloader.train.dataset.names = "other_parts"
        with pytest.raises(ConfigError, match="label 0 is 'part 0' in dataloader.train.*'Backgr"):
            check_consistency(config)
    finally:
        DatasetCatalog.remove("other_parts")
        MetadataCatalog.remove("other_parts")


def test_a_run_without_evaluation_is_asked_for_by_null():
    nothing = ["dataloader.evaluator=null", "dataloader.test=null"]
    config = apply_overrides(model_zoo.get_config(DEMO), nothing)
    check_consistency(config)
    keep_registrations(config)
    config = apply_overrides(model_zoo.get_config(DEMO), nothing[1:])
    with pytest.raises(ConfigError, match="dataloader.evaluator has no dataloader.test to "):
        check_consistency(config)


def test_figures_of_other_evaluators_are_not_known():
    config = model_zoo.get_config(DEMO)
    own = config.dataloader.evaluator
    own.dataset_name = "drawn_cihp_val"  # from a list the relative interpolation leads nowhere
    config.dataloader.evaluator = [own, L(COCOEvaluator)(dataset_name="drawn_cihp_val")]
    config.train.best_checkpointer.val_metric = "segm/AP"
    check_consistency(config)
    config.train.best_checkpointer.val_metric = "parsing/AP"
    with pytest.raises(ConfigError, match="parsing/AP "):
        check_consistency(config)
    del config.dataloader.evaluator
    check_consistency(config)
