"""``irl-lens serve``: a checkpoint behind HTTP; ``irl-lens engine``: a server that samples a policy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from irl_core.errors import InputError
from train.cli.options import DEFAULT_CHECKPOINT, Checkpoint, Device, load_lens
from train.cli.say import say
from train.serving.ports import bound

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def serve(
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    device: Device = "auto",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="The port. (default: the first free one from 8501)")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Who may ask: a line 'NAME TOKEN' each. Needed for other hosts than this.")
    ] = None,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens, padding included, in one batch.")] = 8192,
    queue: Annotated[int, typer.Option(min=1, help="Most solutions that wait; beyond them the answer is 503.")] = 256,
) -> None:
    """Answer POST /score and POST /pooling (vLLM's token_classify), GET /health and GET /metrics (docs/plug-in.md)."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'{missing[0]} is not installed; pip install -e ".[serve]" in the clone installs it.')
    from train.serving.guard import Tokens
    from train.serving.server import ServerSettings, check_place
    from train.serving.server import serve as run

    tokens = Tokens() if token_file is None else Tokens.read(token_file)
    check_place(host, tokens)
    listener = bound(host, port)
    lens = load_lens(checkpoint, device)
    names = len(set(tokens.names.values()))
    who = f"{names} name{'s' * (names > 1)} may ask" if names else "anyone on this machine may ask"
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    say(f"{lens.name} is served at {address} on {lens.computes_on}; {who} (Ctrl+C stops it)")
    with listener:
        run(lens, listener, ServerSettings(tokens, batch_tokens, queue))


engine = typer.Typer(no_args_is_help=True, help="Start a server to sample a policy from (docs/plug-in.md).")


@engine.callback()
def engines() -> None:
    """Start a server to sample a policy from (docs/plug-in.md)."""


@engine.command("start")
def start_engine(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="See 'irl-lens presets'; or a YAML file.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that differ.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.")] = 8000,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that the model is divided over.")] = 1,
    option: Annotated[
        list[str] | None, typer.Option(help="A further option of 'vllm serve', again and again: --option=--seed=1.")
    ] = None,
    executable: Annotated[
        Path | None, typer.Option(help="vLLM's command of another environment: engine/bin/vllm. (default: on PATH)")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command, and stop.")] = False,
) -> None:
    """Start vLLM for the model that a preset's policy starts from; for presets with adapters, so that a training can
    give it new ones."""
    from irl_core.presets import load_config
    from train.planning.plan import PRESETS
    from train.serving.engine_command import check_vllm, engine_command, replace_process

    config = load_config(preset, settings or [], PRESETS)
    command = engine_command(config, host=host, port=port, gpus=gpus, more=option or [], executable=executable)
    say(str(command))
    if dry_run:
        return
    check_vllm(command)
    replace_process(command)
