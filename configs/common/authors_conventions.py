"""How the code that the authors' published weights were trained with treats images and boxes.

For weights from ``python -m aiparsing_d2 convert-weights authors``; docs/WEIGHTS.md lists what
differs from Detectron2.
"""

from aiparsing_d2.checkpoint import AUTHORS_SETTINGS, apply_settings


def use_authors_conventions(model, dataloader, test_time_augmentation=None):
    """Sets the conventions of any of the AIParsing models, its test images and their evaluator.

    The body keeps its stride, which is in the 1x1 convolutions of the authors' ResNets.
    """
    config = dict(model=model, dataloader=dataloader)
    if test_time_augmentation is not None:
        config["test_time_augmentation"] = test_time_augmentation
    apply_settings(config, AUTHORS_SETTINGS)
