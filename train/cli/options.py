"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irl_core.checkpoints import find
from irl_core.checkpoints.manifest import MANIFEST
from irl_core.errors import CheckpointError, InputError
from irl_core.home import runs_folder
from train.cli.say import say

if TYPE_CHECKING:
    from irl_core.policy.engine_requests import Engine
    from irl_core.scorer import Lens

DEFAULT_CHECKPOINT = "auto"
RUNS = runs_folder()  # where training runs and studies are written
NO_CHECKPOINT = (
    "The bundled checkpoints are not beside the installed packages. They are part of the repository, in assets: "
    "install with 'pip install -e' from a clone, or name a checkpoint with --checkpoint."
)

Checkpoint = Annotated[
    str,
    typer.Option(
        help="A checkpoint's name (see 'irl-lens checkpoints') or folder; auto: gsm8k where its pretrained model is "
        "here, else demo."
    ),
]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", help="FIELD=COLUMN, again and again: where columns have other names (question=prompt)."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


EngineUrl = Annotated[
    str | None,
    typer.Option("--engine", help="Sample from this server (OpenAI's completions: vLLM, SGLang, llama.cpp, ...)."),
]
EngineModel = Annotated[
    str | None, typer.Option(help="What the engine calls the model. [default: the only one it has]")
]


def engine_of(url: str | None, model: str | None) -> Engine | None:
    """The engine that is asked for, with the key of IRL_LENS_ENGINE_KEY. Raises InputError."""
    if url is None:
        if model is not None:
            raise InputError(f"--engine-model {model!r}: there is no engine; name its address with --engine.")
        return None
    from irl_core.policy.engine_requests import KEY_VARIABLE, Engine

    return Engine(url, model, key=os.environ.get(KEY_VARIABLE, ""))


def load_lens(checkpoint: str, device: str) -> Lens:
    """The checkpoint of that name or folder, loaded onto a device."""
    from irl_core.scorer import Lens

    return Lens.load(checkpoint_folder(checkpoint), device)


def checkpoint_folder(checkpoint: str) -> Path:
    """The folder of a checkpoint by name, or by path: who uses the shell may load from anywhere it can read.

    Raises:
        InputError, CheckpointError: there is no checkpoint of that name or path.
    """
    roots = find.default_roots()
    if checkpoint == DEFAULT_CHECKPOINT:
        from irl_core.models.bundled import default_checkpoint

        default = default_checkpoint(roots[0])
        if not (roots[0] / default.name).is_dir():
            raise InputError(NO_CHECKPOINT)
        if default.note:
            say(default.note, err=True)
        checkpoint = default.name
    folder = Path(checkpoint)
    is_checkpoint = (folder / MANIFEST).is_file()
    if folder.is_absolute() and not is_checkpoint:
        what = "holds no checkpoint" if folder.is_dir() else "is not there"
        raise InputError(f"{checkpoint[:200]!r} {what}; name a run's final, or one that 'irl-lens checkpoints' lists.")
    if is_checkpoint and (folder.is_absolute() or not (roots[0] / checkpoint).is_dir()):
        roots, checkpoint = (*roots, folder.resolve().parent), str(folder.resolve())
    try:
        return find.resolve_checkpoint(checkpoint, roots)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint[:200]!r}: {error}") from None
