"""``irl-lens model-card``: the bundled checkpoint's card and sample problems, from its evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from train.cli.say import say


def model_card(
    evaluation: Annotated[Path, typer.Argument(metavar="EVALUATION", help="The folder of the evaluation.")],
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="The folder of the evaluated checkpoint.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write into.")],
) -> None:
    """Write the embedded default's model card and sample problems from its evaluation. Runs no model."""
    from irl_core.presets import load_config
    from irl_core.report.model_card import write
    from train.planning.plan import PRESETS

    sft, expert = (load_config(name, presets_dir=PRESETS).run.steps for name in ("demo-sft", "demo-expert"))
    for path in write(evaluation, checkpoint, out, sft_steps=sft, expert_steps=expert):
        say(f"Wrote {path}")
