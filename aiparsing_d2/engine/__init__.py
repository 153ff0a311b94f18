from .batch_size import scale_to_batch_size
from .checkpointing import (
    PersistentBestCheckpointer,
    check_init_checkpoint,
    check_output_dir,
    has_checkpoint,
)
from .lazy_config import load_lazy_config

__all__ = [
    "PersistentBestCheckpointer",
    "check_init_checkpoint",
    "check_output_dir",
    "has_checkpoint",
    "load_lazy_config",
    "scale_to_batch_size",
]
