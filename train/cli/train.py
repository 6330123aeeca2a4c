"""``irl-lens train``: its arguments. What it does is in ``train.cli.training``, which ``--help`` does not load."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


def train(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="See 'irl-lens presets'; or a YAML file.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that differ, such as run.steps=100.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="The same, as an option.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="The data, in place of the preset's (data.source).")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where the run is written. (default: runs/PRESET)")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last whole checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings, memory, time and downloads, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print the plan as JSON alone.")] = False,
    memory_gb: Annotated[
        float | None, typer.Option(min=0.1, help="Plan for a device of so many GB, not for this machine's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Train although the estimate says it will not fit.")] = False,
    engine: Annotated[
        str | None, typer.Option(help="Sample from this server, which is given every round's adapters (vLLM).")
    ] = None,
) -> None:
    """Train a policy and a discriminator from a preset or a YAML file, and first the presets that it starts from."""
    from train.cli.training import TrainRequest, train_preset

    changes = [*(settings or []), *(overrides or []), *([f"data.source={json.dumps(data)}"] if data else [])]
    if engine is not None:
        from irl_core.policy.engine_requests import Engine
        from irl_core.policy.engine_training import URL_VARIABLE

        os.environ[URL_VARIABLE] = Engine(engine).url
        changes.append("policy.sampler=engine")
    train_preset(TrainRequest(preset, changes, run_dir, resume, dry_run, as_json, memory_gb, force))
