"""What each setting of the discriminator does for locating, alone: short trainings that differ in one of them.

python -m benchmarks.levers FILE [--out runs/levers] [--rounds 4] [--lever balance ...] [SECTION.KEY=VALUE ...]

FILE holds labelled solutions in any form of docs/data.md. Every training is the preset gsm8k-irl (which begins with
gsm8k-sft, unless model.policy, model.discriminator and run.after say otherwise) with a frozen policy and the lever's
setting, a new reward head, and the same seed. It is judged by the share of wrong solutions whose first wrong step is
the one with the lowest reward of a token. What is in --out already is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from irl_core.data.formats import read
from irl_core.files import write_whole
from irl_core.models import pretrained
from irl_core.models.batching import Batching
from irl_core.reward.discriminator import load_discriminator
from irl_core.reward.localisation import Rule, named_step, scores_by_rule, token_steps
from irl_core.statistics.bootstrap import Estimate, share, share_difference
from irl_core.types import Trace

LEVERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "balance": ("discriminator.balance=steps",),
    "temperature": ("policy.temperature=0.7",),
    "head": ("discriminator.head=anchored",),
    "whole_traces": ("discriminator.policy_labels=whole_trace",),
    "equations": ("discriminator.policy_labels=from_departed_equation",),
    "tails": ("discriminator.tail=1.0",),
    "replay": ("discriminator.replay=1.0",),
    "one_perturbation": ("discriminator.perturbations=[offset_number]",),
    "more_samples": ("policy.prompts_per_round=18", "policy.num_generations=6"),
}
RULE = Rule("raw", "min")


def main() -> None:
    """Train and judge each lever; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--lever", action="append", choices=LEVERS)
    parser.add_argument("settings", nargs="*", metavar="SECTION.KEY=VALUE", help="of every training")
    asked = parser.parse_intermixed_args()
    wrong = [one for one in read(asked.labels) if isinstance(one, Trace) and is_wrong(one)]
    found: dict[str, list[bool]] = {}
    for lever in asked.lever or LEVERS:
        trained = trained_with(lever, asked.out, asked.rounds, asked.settings)
        kept = asked.out / f"{lever}.json"
        if not kept.exists():
            write_whole(kept, json.dumps(list(hits(trained, wrong))))
        found[lever] = json.loads(kept.read_text())
        print(*table(found, wrong), sep="\n", flush=True)


def is_wrong(trace: Trace) -> bool:
    """Whether its first wrong step is known."""
    return trace.truth is not None and trace.truth.first_error_step is not None


def trained_with(lever: str, out: Path, rounds: int, settings: list[str]) -> Path:
    """The checkpoint of a training with a lever's settings, begun or resumed where it is not there yet."""
    run = out / lever
    if not (run / "final" / "manifest.json").is_file():
        short = [f"run.steps={rounds}", f"discriminator.warmup_rounds={rounds}", "run.save_every=1"]
        short.append("discriminator.final_anchor=0")  # the head by itself
        calibration = ["run.calibration_problems=20", "run.calibration_samples=1"]
        command = ["gsm8k-irl", *short, *calibration, *settings, *LEVERS[lever], "--run-dir", str(run)]
        resume = ["--resume"] * run.is_dir()
        subprocess.run([sys.executable, "-m", "train.cli.main", "train", *command, *resume], check=True)
    return run / "final"


@torch.no_grad()
def hits(checkpoint: Path, wrong: list[Trace]) -> Iterator[bool]:
    """Whether the step with the lowest reward is the labelled one, trace by trace."""
    discriminator = load_discriminator(checkpoint / "discriminator", "cpu")
    encoder = pretrained.load_encoder(checkpoint, discriminator.backbone, "")
    encoded = [encoder.encode(trace) for trace in wrong]
    batching = Batching(encoder.pad_id, 4096)
    named: dict[int, bool] = {}
    for indices in batching.split(encoded):
        rewards = discriminator(batching.collate([encoded[i] for i in indices])).logits
        for row, index in enumerate(indices):
            trace, spans = wrong[index], encoded[index].spans
            raw = rewards[row, : len(spans)].float().numpy().astype(np.float64)
            _, eligible = scores_by_rule({"raw": raw}, token_steps(spans, trace.steps), trace.steps, RULE)
            truth = trace.truth
            named[index] = truth is not None and named_step(eligible, RULE, -np.inf) == truth.first_error_step
    return (named[index] for index in range(len(wrong)))


def table(found: dict[str, list[bool]], wrong: list[Trace]) -> Iterator[str]:
    """Rows in Markdown: the share of each lever, and what it gains over none of them."""
    problems = [trace.problem_id for trace in wrong]
    yield f"| lever | names the first wrong step (n {len(wrong)}) | less none |"
    yield "| --- | --- | --- |"
    for lever, flags in found.items():
        gain: Estimate | None = share_difference(flags, found["none"], problems) if "none" in found else None
        settings = ", ".join(LEVERS[lever]) or "the preset's"
        less = gain.words if gain and lever != "none" else ""
        yield f"| {settings} | {share(flags, problems).words} | {less} |"


if __name__ == "__main__":
    main()
