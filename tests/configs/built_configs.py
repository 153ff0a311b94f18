"""The experiments, each loaded and built without memory once for all tests."""

import functools

import torch
from detectron2.config import instantiate

from aiparsing_d2 import model_zoo

EXPERIMENTS = [name for name in model_zoo.list_configs() if not name.endswith(".yaml")]


def build_without_memory(model_config):
    with torch.device("meta"):
        return instantiate(model_config)


@functools.cache
def loaded_config(name):
    """Not to be changed by a test."""
    return model_zoo.get_config(name)


@functools.cache
def built_model(name):
    """Not to be changed by a test."""
    return build_without_memory(loaded_config(name).model)
