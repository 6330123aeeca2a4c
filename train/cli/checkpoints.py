"""``irl-lens checkpoints``: what can be loaded."""

from __future__ import annotations

from irl_core.checkpoints.find import default_roots, list_checkpoints
from train.cli.say import say


def checkpoints() -> None:
    """List the checkpoints that can be loaded, each verified, with where it comes from."""
    from irl_core.models.bundled import NO_CHECKPOINT  # numpy, which no --help waits for

    listed = list_checkpoints(default_roots())
    for info in listed:
        origin = "; ".join(f"{name}: {words}" for name, words in info.origin.items())
        say(f"{info.name:<28} {'verified' if info.verified else 'REFUSED: ' + info.reason}  {origin}".rstrip())
    if not listed:
        say(NO_CHECKPOINT)
