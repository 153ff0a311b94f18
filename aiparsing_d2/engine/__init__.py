from .batch_size import scale_to_batch_size
from .checkpointing import PersistentBestCheckpointer, check_output_dir

__all__ = ["PersistentBestCheckpointer", "check_output_dir", "scale_to_batch_size"]
