"""Ten steps of the paper's pairs at their real shapes with random weights: peak memory and seconds by phase.

    python -m benchmarks.real_scale --qwen FOLDER --llama FOLDER --data TRAIN.jsonl --out runs/real-scale

FOLDERs hold the families' real tokenizers; the data is any JSONL of question, solution (or GSM8K's answer). Nothing is
downloaded. Every case is a run of its own process, so that its peak of memory is its own; a case that fails is said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.random_model import write_model

PHASES = ("time/generate_s", "time/discriminator_s", "time/score_s", "time/policy_s")


@dataclass(frozen=True)
class Case:
    """A preset and how its weights are held."""

    preset: str
    quantisation: str
    backend: str = "transformers"

    @property
    def name(self) -> str:
        return f"{self.preset} {'bf16' if self.quantisation == 'none' else self.quantisation} {self.backend}"


CASES = tuple(
    Case(preset, quantisation, backend)
    for preset in ("qwen-3b-05b", "qwen-7b-15b", "llama-8b-1b")
    for quantisation, backend in (("nf4", "transformers"), ("none", "transformers"), ("nf4", "unsloth"))
)


def models_of(preset: str, chosen: argparse.Namespace) -> dict[str, Path]:
    """The policy and the discriminator of a preset as folders of random weights, written where they are missing."""
    from irl_core.presets import load_config
    from train.planning.architectures import transformers_config
    from train.planning.plan import PRESETS

    model = load_config(preset, presets_dir=PRESETS).model
    folders = {}
    for role, name in (("policy", model.policy), ("discriminator", model.discriminator)):
        folder = chosen.out / "models" / str(name).replace("/", "--")
        if not (folder / "config.json").is_file():
            tokenizer = chosen.llama if "llama" in str(name).lower() else chosen.qwen
            write_model(transformers_config(str(name)), folder, tokenizer, device=chosen.device)
        folders[role] = folder
    return folders


def run_case(case: Case, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train for the steps asked for and read what the run logged."""
    folders = models_of(case.preset, chosen)
    settings = {
        "run.steps": chosen.steps, "run.save_every": 0, "run.eval_every": 0, "run.calibration_problems": 1,
        "data.source": chosen.data, "model.policy": folders["policy"], "model.discriminator": folders["discriminator"],
        "model.quantisation": case.quantisation, "model.backend": case.backend,
        "model.packing": str(case.backend == "transformers").lower(), "discriminator.warmup_rounds": 0,
    }  # fmt: skip
    run_dir = chosen.out / case.name.replace(" ", "-")
    command = [sys.executable, "-m", "train.cli.main", "train", case.preset, "--run-dir", str(run_dir), "--force"]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command += [part for override in chosen.set for part in ("--set", override)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    metrics = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
    if len(lines) < chosen.steps:
        return {"case": case.name, "failed": finished.stderr.strip().splitlines()[-1:] or ["no output"]}
    return {"case": case.name} | summary(lines)


def summary(lines: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Medians over all steps but the first, which warms up; the peak over all."""
    later = lines[1:] or lines
    found: dict[str, Any] = {
        key: statistics.median(line[key] for line in later) for key in PHASES if all(key in line for line in later)
    }
    found["steps"] = len(lines)
    found["rollout/length"] = statistics.mean(line["rollout/length"] for line in lines)
    found["logprob_mismatch"] = statistics.mean(line.get("rollout/logprob_mismatch", float("nan")) for line in later)
    found["peak_gb"] = max(line.get("memory/peak_gb", line["memory/rss_gb"]) for line in lines)
    return found


def main() -> None:
    """The command line; one JSON line a case, as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qwen", type=Path, required=True, help="folder of the Qwen2.5 tokenizer")
    parser.add_argument("--llama", type=Path, required=True, help="folder of the Llama 3 tokenizer")
    parser.add_argument("--data", type=Path, required=True, help="JSONL of training problems")
    parser.add_argument("--out", type=Path, required=True, help="models and runs are written here")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cuda", help="where random weights are drawn")
    parser.add_argument("--cases", default="", help="only cases whose name contains this")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for every run, again and again")
    chosen = parser.parse_args()
    for case in CASES:
        if chosen.cases in case.name:
            print(json.dumps(run_case(case, chosen)), flush=True)


if __name__ == "__main__":
    main()
