"""Tensors and JSON of a checkpoint, read without running anything that the files hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irl_core.checkpoints.manifest import check_safetensors, read_json
from irl_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError for any other or a damaged file."""
    if path.suffix != ".safetensors" or path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path.name}: is not a plain safetensors file; only those are loaded")
    check_safetensors(path.name, path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path.name}: not readable as safetensors ({error})") from error


def load_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 100 MB. Raises CheckpointError where it is missing or something else."""
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path.name}: is missing or not a plain file")
    return read_json(path.name, path)
