"""This build beside an older commit of this repository, on the rounds of one training of a small pretrained model.

    python -m benchmarks.older_build [--commit 592351f] [--model smollm2-135m] [--rounds 2] [--repeats 2]

The commit is checked out beside the repository, into a folder that is removed again. Both builds train the same
configuration, adapters on the same bfloat16 base, each as its documents would have it for a CPU; the two take turns, a
process each, with one thread. The first round of a process warms up and is not counted; after the last one the process
is ended. ``metrics.jsonl`` tells the seconds of sampling, of the discriminator's update, of scoring and of the policy's
update. These are seconds of the clock: nothing else should run. A ratio is the geometric mean over the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from irl_core.models.hub import locate

ROOT: Final = Path(__file__).resolve().parents[1]
PARTS: Final = {
    "time/generate_s": "sampling", "time/discriminator_s": "the discriminator's update", "time/score_s": "scoring",
    "time/policy_s": "the policy's update", "time/step_s": "a round",
}  # fmt: skip
NEW_ALONE: Final = ("model.shared_prompts=true",)  # what the older build does not have
PATIENCE: Final = 1800  # seconds for the rounds of a process


def configuration(model: Path, rounds: int) -> dict[str, Any]:
    """A training that both builds read."""
    return {
        "run": {"steps": rounds + 50, "save_every": 0, "calibration_problems": 20, "batch_tokens": 2048, "seed": 3},
        "data": {"source": "demo", "train_problems": 200, "max_prompt_tokens": 256, "max_completion_tokens": 64},
        "model": {
            "backend": "transformers", "policy": str(model), "discriminator": str(model), "dtype": "bfloat16",
            "lora": {"rank": 16, "alpha": 32},
        },
        "policy": {"prompts_per_round": 4, "num_generations": 4, "learning_rate": 1e-4},
        "discriminator": {"head": "linear", "learning_rate": 1e-4},
    }  # fmt: skip


def rounds_of(tree: Path, config: Path, run: Path, rounds: int, settings: Sequence[str]) -> list[dict[str, float]]:
    """The metrics of the rounds after the first of a training by the build in ``tree``, which is then ended."""
    entry = "train.cli.main" if (tree / "train" / "cli" / "main.py").is_file() else "train.cli"
    command = [sys.executable, "-m", entry, "train", str(config), "--run-dir", str(run)]
    command += [part for one in settings for part in ("--set", one)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree), "CUDA_VISIBLE_DEVICES": ""}
    until = time.monotonic() + PATIENCE
    with (run.with_suffix(".log")).open("w") as log:
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while len(found := metrics_of(run)) <= rounds:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(
                        f"no {rounds} rounds of {tree.name}:\n{run.with_suffix('.log').read_text()[-2000:]}"
                    )
                time.sleep(0.5)
        finally:
            process.kill()
            process.wait()
    return found[1 : rounds + 1]


def metrics_of(run: Path) -> list[dict[str, float]]:
    """The whole lines of a run's metrics, none before there is any."""
    path = run / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [
        row
        for line in text.splitlines(keepends=True)
        if line.endswith("\n") and "time/step_s" in (row := json.loads(line))
    ]


def told(seconds: Mapping[str, Sequence[Mapping[str, float]]], older: str) -> list[str]:
    """A line for each part of a round: both medians, and how many times as fast this build is."""
    lines = []
    for key, name in PARTS.items():
        new, old = (statistics.median(row[key] for row in seconds[build]) for build in ("this build", older))
        pairs = zip(seconds[older], seconds["this build"], strict=True)
        ratios = sorted(before[key] / now[key] for before, now in pairs)
        lines.append(
            f"{name}: {old:.1f} s before, {new:.1f} s now: {statistics.geometric_mean(ratios):.2f} times as fast "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f} over {len(ratios)} rounds)"
        )
    return lines


def main() -> None:
    """Train by both builds in turns, and print what each part of a round took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="592351f")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        config, tree = folder / "round.yaml", folder / asked.commit
        config.write_text(yaml.safe_dump(configuration(locate(asked.model, None), asked.rounds)))
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), asked.commit], cwd=ROOT, check=True)
        try:
            seconds: dict[str, list[dict[str, float]]] = {asked.commit: [], "this build": []}
            for repeat in range(asked.repeats):
                for name, place, more in ((asked.commit, tree, ()), ("this build", ROOT, NEW_ALONE)):
                    run = folder / f"{name.replace(' ', '-')}-{repeat}"
                    seconds[name] += rounds_of(place, config, run, asked.rounds, more)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)
    print(f"{asked.model}, 4 problems x 4 samples of at most 64 tokens; {asked.commit} and this build in turns")
    print(*told(seconds, asked.commit), sep="\n")


if __name__ == "__main__":
    main()
