from .batch_size import scale_to_batch_size
from .checkpointing import (
    FittingCheckpointer,
    PersistentBestCheckpointer,
    check_init_checkpoint,
    check_output_dir,
    has_checkpoint,
)
from .config_error import ConfigError
from .consistency import check_consistency, evaluator_nodes
from .data_set_registration import keep_registrations, register_by_config_file
from .ema import ExponentialMovingAverage
from .gradient_clipping import clip_gradients
from .launch import launch
from .lazy_config import load_lazy_config
from .mixed_precision import build_trainer
from .overrides import apply_overrides, parse_arguments

__all__ = [
    "ConfigError",
    "ExponentialMovingAverage",
    "FittingCheckpointer",
    "PersistentBestCheckpointer",
    "apply_overrides",
    "build_trainer",
    "check_consistency",
    "evaluator_nodes",
    "check_init_checkpoint",
    "check_output_dir",
    "clip_gradients",
    "has_checkpoint",
    "keep_registrations",
    "launch",
    "load_lazy_config",
    "parse_arguments",
    "register_by_config_file",
    "scale_to_batch_size",
]
