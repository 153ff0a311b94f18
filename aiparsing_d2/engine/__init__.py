from .batch_size import scale_to_batch_size
from .checkpointing import (
    BoundedCheckpoints,
    FittingCheckpointer,
    PersistentBestCheckpointer,
    check_init_checkpoint,
    check_output_dir,
    has_checkpoint,
    remove_unfinished,
)
from .config_error import ConfigError
from .config_file import check_targets, read_config_file, saving_whole_configs
from .consistency import check_consistency, evaluator_nodes
from .data_set_registration import keep_registrations, register_by_config_file
from .ema import ExponentialMovingAverage
from .finite_steps import FiniteStepTrainer, NonFiniteError
from .gradient_clipping import clip_gradients
from .launch import (
    check_device,
    create_ddp_model,
    launch,
    leave_process_group,
    share_buffers,
)
from .lazy_config import load_lazy_config
from .mixed_precision import build_trainer
from .overrides import apply_overrides
from .resumption import ContinuedWriter, RecordedEvaluation, RestOfIteration, open_writers
from .seeded_iterations import SeededIterations
from .step_statistics import StepStatistics
from .termination import SaveOnTermination, Terminated, resume_command

__all__ = [
    "BoundedCheckpoints",
    "ConfigError",
    "ContinuedWriter",
    "ExponentialMovingAverage",
    "FiniteStepTrainer",
    "FittingCheckpointer",
    "NonFiniteError",
    "PersistentBestCheckpointer",
    "RecordedEvaluation",
    "RestOfIteration",
    "SaveOnTermination",
    "SeededIterations",
    "StepStatistics",
    "Terminated",
    "apply_overrides",
    "build_trainer",
    "check_consistency",
    "check_device",
    "check_init_checkpoint",
    "check_output_dir",
    "check_targets",
    "clip_gradients",
    "create_ddp_model",
    "evaluator_nodes",
    "has_checkpoint",
    "keep_registrations",
    "launch",
    "leave_process_group",
    "load_lazy_config",
    "open_writers",
    "read_config_file",
    "register_by_config_file",
    "remove_unfinished",
    "resume_command",
    "saving_whole_configs",
    "scale_to_batch_size",
    "share_buffers",
]
