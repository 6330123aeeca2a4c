"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irl_core.errors import InputError
from irl_core.home import runs_folder
from train.cli.say import say

if TYPE_CHECKING:
    from irl_core.policy.engine_requests import Engine
    from irl_core.scorer import Lens
    from irl_core.strategies import Strategy

DEFAULT_CHECKPOINT = "auto"
RUNS = runs_folder()  # where training runs and studies are written
Checkpoint = Annotated[
    str,
    typer.Option(
        help="A checkpoint's name (see 'irl-lens checkpoints') or folder, or that of a process-reward model; auto: "
        "gsm8k where its pretrained model is here, else demo."
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
    str | None, typer.Option(help="What the engine calls the model. (default: the only one it has)")
]


def engine_of(url: str | None, model: str | None) -> Engine | None:
    """The engine that is asked for, with the key of IRL_LENS_ENGINE_KEY. Raises InputError."""
    if url is None:
        if model is not None:
            raise InputError(f"--engine-model {model!r}: there is no engine; name its address with --engine.")
        return None
    from irl_core.policy.engine_requests import KEY_VARIABLE, Engine

    return Engine(url, model, key=os.environ.get(KEY_VARIABLE, ""))


def ways() -> dict[str, Strategy]:
    """The ways to an answer that use the reward, by their names on the command line."""
    from irl_core.strategies import STRATEGIES

    return {name.replace(" ", "-"): way for name, way in STRATEGIES.items()}


def check_known(way: str) -> None:
    """Raise InputError for a way that there is not."""
    if way not in ways():
        raise InputError(f"Unknown way {way[:40]!r}; choose one of {', '.join(ways())}.")


def load_lens(checkpoint: str, device: str) -> Lens:
    """The checkpoint of that name or folder, loaded onto a device."""
    from irl_core.scorer import Lens

    return Lens.load(checkpoint_folder(checkpoint), device)


def checkpoint_folder(checkpoint: str) -> Path:
    """The folder of a checkpoint by name or path, as `bundled.checkpoint_folder` finds it; what it notes is said."""
    from irl_core.models import bundled

    return bundled.checkpoint_folder(checkpoint, on_note=lambda note: say(note, err=True))
