"""Detectron2's checkpointer for the files that this project starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from aiparsing_d2.whole_files import whole_file

from .timm_weights import convert_timm, find_timm_backbone
from .unpickling import loading_weights_only
from .weight_file import (
    WeightFileError,
    check_weights,
    read_detectron_pickle,
    read_weights,
    telling_what_is_wrong,
)


class ParsingCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` that reads safetensors and weights of timm's classifiers too.

    What it writes is never seen half written: a checkpoint takes its name when all of it is on the
    disk, and ``last_checkpoint`` names it after that.

    A file that holds nothing under the name of the model's :class:`TimmBackbone` is taken as
    weights of the classifier it is made from, see :func:`convert_timm`. "pip://" names weights that
    a package carries, see :class:`PackagePathHandler`.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """See ``DetectionCheckpointer``.

        Raises:
            OSError: the file cannot be written, as when the disk is full.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        content = {"model": self.model.state_dict()}
        content.update((key, part.state_dict()) for key, part in self.checkpointables.items())
        content.update(kwargs)
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        try:
            with whole_file(path, "wb", durable=True) as file:
                torch.save(content, file)
        except (OSError, RuntimeError) as error:  # torch hides the first behind the second
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            raise OSError(f"{path} cannot be written: {cause}") from error
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with whole_file(Path(self.save_dir, "last_checkpoint"), durable=True) as file:
            file.write(last_filename_basename)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file, as ``DetectionCheckpointer`` does; after an error, another can be loaded."""
        try:
            return super().load(path, *args, **kwargs)
        finally:
            # Detectron2 after v0.6 keeps this until a file has been loaded.
            if hasattr(self, "_parsed_url_during_load"):
                self._parsed_url_during_load = None

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a checkpoint, or weights of the body alone. No file can run code.

        Raises:
            ConversionError: the file is neither the model's nor its backbone's.
            WeightFileError: it cannot be read, or holds what might run code.
        """
        path = Path(filename)
        if path.suffix == ".safetensors":
            checkpoint = {"model": read_weights(path).tensors}
        elif path.suffix == ".pkl":
            checkpoint = read_detectron_pickle(path)
        else:
            with telling_what_is_wrong(path), loading_weights_only():
                checkpoint = super()._load_file(filename)
        if not isinstance(checkpoint["model"], Mapping):
            raise WeightFileError(f"{path} holds no dict of tensors")
        body = find_timm_backbone(self.model)
        if body is not None and not any(f"{body[0]}." in str(n) for n in checkpoint["model"]):
            checkpoint = {"model": convert_timm(read_weights(path), self.model).weights}
        check_weights(path, checkpoint["model"])
        return checkpoint
