"""Errors that end a training, as the user should read them: what is full or diverged, and the fix."""

from __future__ import annotations

from pathlib import Path

import torch

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.files import DISK_ERRORS, not_written, one_line


def explained(error: BaseException, config: TrainConfig) -> BaseException:
    """The error as the user should read it, with the fix."""
    if isinstance(error, FloatingPointError):
        return FloatingPointError(diverged(error))
    full = full_memory(error)
    if full is not None:
        return ConfigError(
            f"{full} is full ({one_line(str(error)).partition('. ')[0][:200]}); in a new run lower run.batch_tokens "
            f"({config.run.batch_tokens}) or policy.sampling_tokens ({config.policy.sampling_tokens}), set "
            "model.gradient_checkpointing to true, or set model.quantisation to nf4 with model.lora.rank 16"
        )
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return not_written(Path(error.filename).name if error.filename else "the run's folder", error)
    return error


def full_memory(error: BaseException) -> str | None:
    """Name of the memory that the error says is full, also as a library's plain ``RuntimeError``; None for others."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU's memory"
    if isinstance(error, MemoryError):
        return "main memory"
    if not isinstance(error, RuntimeError):
        return None
    text = str(error).lower()
    signs = {"out of memory": "the GPU's memory", "cublas_status_alloc_failed": "the GPU's memory",
             "can't allocate memory": "main memory", "not enough memory": "main memory"}  # fmt: skip
    return next((memory for sign, memory in signs.items() if sign in text), None)


def diverged(error: FloatingPointError) -> str:
    """Why a training failed whose loss or gradient is not finite, with the fix."""
    reason = str(error).partition(";")[0]
    return (
        f"{reason}. The checkpoints are whole and from before it; start a new run with a lower policy.learning_rate "
        "and discriminator.learning_rate"
    )
