"""Detectron2's checkpointer for the files that this project starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer

from .timm_weights import convert_timm, find_timm_backbone
from .weight_file import read_weights


class ParsingCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` that reads safetensors and weights of timm's classifiers too.

    A file that holds nothing under the name of the model's :class:`TimmBackbone` is taken as
    weights of the classifier it is made from, see :func:`convert_timm`. "pip://" names weights that
    a package carries, see :class:`PackagePathHandler`.
    """

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a file, as ``DetectionCheckpointer`` does; after an error, another can be loaded."""
        try:
            return super().load(path, *args, **kwargs)
        finally:
            # Detectron2 after v0.6 keeps this until a file has been loaded.
            if hasattr(self, "_parsed_url_during_load"):
                self._parsed_url_during_load = None

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a checkpoint, or weights of the body alone.

        Raises:
            ConversionError: the file is neither the model's nor its backbone's.
        """
        if filename.endswith(".safetensors"):
            checkpoint = {"model": read_weights(Path(filename)).tensors}
        else:
            checkpoint = super()._load_file(filename)
        body = find_timm_backbone(self.model)
        if body is not None and not any(f"{body[0]}." in name for name in checkpoint["model"]):
            file = read_weights(Path(filename))
            checkpoint = {"model": convert_timm(file, self.model).weights}
        return checkpoint
