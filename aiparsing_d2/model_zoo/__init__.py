"""The configs of the paper's experiments, by name, also outside the repository.

>>> from aiparsing_d2 import model_zoo
>>> cfg = model_zoo.get_config("cihp/aiparsing_R_50_FPN_cihp_75ep")
"""

from .model_zoo import (
    find_config_file,
    get,
    get_checkpoint,
    get_config,
    get_config_file,
    list_configs,
)

__all__ = [
    "find_config_file",
    "get",
    "get_checkpoint",
    "get_config",
    "get_config_file",
    "list_configs",
]
