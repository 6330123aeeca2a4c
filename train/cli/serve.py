"""``irl-lens serve``: a checkpoint behind HTTP."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from irl_core.errors import InputError
from train.cli.app import free_port
from train.cli.options import DEFAULT_CHECKPOINT, Checkpoint, Device, load_lens
from train.cli.say import say

NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def serve(
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    device: Device = "auto",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="The port. [default: the first free one from 8501]")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Who may ask: a line 'NAME TOKEN' each. Needed for other hosts than this.")
    ] = None,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens, padding included, in one batch.")] = 8192,
    queue: Annotated[int, typer.Option(min=1, help="Most traces that wait; beyond them the answer is 503.")] = 256,
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
    chosen = free_port(port)
    lens = load_lens(checkpoint, device)
    who = f"{len(set(tokens.names.values()))} names may ask" if tokens.names else "anyone on this machine may ask"
    say(f"{lens.name} is served at http://{host}:{chosen} on {lens.computes_on}; {who} (Ctrl+C stops it)")
    run(lens, ServerSettings(host, chosen, tokens, batch_tokens, queue))
