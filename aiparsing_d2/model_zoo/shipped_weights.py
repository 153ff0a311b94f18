"""Trained weights that the package carries, in half precision, each with its checksum.

They lie in the folder weights/ beside this file under the names of their configs, and SHA256SUMS
there is what ``sha256sum --check`` reads. docs/MODEL_CARD.md says how they were made and what they
can do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from aiparsing_d2.whole_files import whole_file

FOLDER = Path(__file__).parent / "weights"
_CHECKSUMS = "SHA256SUMS"


def list_shipped_weights(folder: Path = FOLDER) -> list[str]:
    """Return the names of the configs that the package carries weights for, sorted."""
    return sorted(name.removesuffix(".safetensors") for name in _read_checksums(folder))


def find_shipped_weights(name: str, folder: Path = FOLDER) -> Path | None:
    """Find the weights that the package carries for a config.

    Args:
        name: of the config, without suffix.
        folder: where they are.

    Returns:
        The file, or None if there are none for it.

    Raises:
        ValueError: the file is missing or damaged.
    """
    file_name = f"{name}.safetensors"
    expected = _read_checksums(folder).get(file_name)
    if expected is None:
        return None
    file = folder / file_name
    if not file.is_file() or _checksum(file.read_bytes()) != expected:
        raise ValueError(
            f"{file} is missing or is not what {folder / _CHECKSUMS} says: a part of it is lost, "
            "or Git LFS or an editor changed it. Install aiparsing_d2 again."
        )
    return file


def write_shipped_weights(
    name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], folder: Path = FOLDER
) -> Path:
    """Write weights in half precision and note their checksum.

    Matrices and kernels become float16. Vectors (biases, norms and their statistics) keep their
    precision: they are a hundredth of the file, and small variances would lose their digits.

    Args:
        name: of the config, without suffix. Weights of the same name are replaced.
        tensors: by the model's names.
        metadata: what the file says about itself, such as its licence.
        folder: where to write.

    Returns:
        The file.

    Raises:
        ValueError: a value is not finite, or is beyond what float16 can hold.
    """
    from safetensors.torch import save

    smaller = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        smaller[key] = tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor
        if not smaller[key].isfinite().all():
            raise ValueError(f"{key} holds values that are not finite in half precision")
    content = save(smaller, dict(metadata))
    file = folder / f"{name}.safetensors"
    with whole_file(file, "wb") as stream:
        stream.write(content)
    checksums = _read_checksums(folder) | {f"{name}.safetensors": _checksum(content)}
    with whole_file(folder / _CHECKSUMS) as stream:
        stream.writelines(f"{digest}  {path}\n" for path, digest in sorted(checksums.items()))
    return file


def _read_checksums(folder: Path) -> dict[str, str]:
    """Return the checksums by file name, empty where there is no list of them."""
    file = folder / _CHECKSUMS
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split(maxsplit=1) for line in lines)}


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
