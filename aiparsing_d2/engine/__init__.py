from .checkpointing import PersistentBestCheckpointer, check_output_dir

__all__ = ["PersistentBestCheckpointer", "check_output_dir"]
