"""The bundled checkpoint's model card and sample problems, made from its evaluation and never by hand:

python -m irl_core.report.model_card runs/demo-evaluation runs/demo-irl/final assets
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from irl_core.checkpoints.manifest import verify
from irl_core.checkpoints.save import load_json
from irl_core.config import load_config
from irl_core.data.word_problems.check import MistakeKind
from irl_core.data.word_problems.families.registry import FAMILIES
from irl_core.evaluation.evaluated_run import RUN
from irl_core.files import write_whole
from irl_core.report.files import JSON
from irl_core.report.markdown import summary
from irl_core.storage.provenance import machine_in_words
from irl_core.storage.schema import SUMMARY_COLUMNS
from irl_core.storage.scored_run import read_run

PRESETS = Path(__file__).resolve().parents[2] / "train" / "configs"
EXAMPLES = 12
CARD, PROBLEMS = "MODEL_CARD.md", "problems.jsonl"
MEANING = (MistakeKind.OPERAND, MistakeKind.OPERATION, MistakeKind.SKIPPED, MistakeKind.QUANTITY)
HEAD = """# Model card: the embedded default

A policy of {policy_parameters:,} parameters and a discriminator of {discriminator_parameters:,}, Llama architecture,
trained from nothing on a CPU. They show on any laptop what irl-lens does. They know the word problems of the generator
in `irl_core/word_problems`, and nothing else: do not read anything into what they say about other problems.

- **Data**: problems and solutions written by that generator: {families} families, English, easy whole-number
  arithmetic, distractor numbers, quantities that are easy to confuse. Training, calibration and held-out problems share
  no text. No outside data.
- **Training**: `irl-lens train demo-irl`, which trains in turn `demo-sft` ({sft_steps} steps of likelihood: the start
  of the policy), `demo-expert` ({expert_steps} further ones on other problems: the start of the discriminator) and
  {steps} rounds of the adversarial loop, the first {warmup} with the policy frozen. Seed {seed}, {date}, code
  {code_version}. Every setting: `train_config` in its `config.json`; the preset may have changed since.
- **Controls**: `control` is the same start trained on the expert traces of those rounds, in the same order, for as many
  steps, by likelihood alone (`irl-lens train demo-control`). `expert` is the policy of `demo-expert`: what the
  demonstrations that the discriminator was told are worth as plain likelihood training. The rows of the discriminator's
  start show how far that gets without any adversarial training.
- **Figures**: `irl-lens evaluate --checkpoint {name} --out DIR --compare NAME=CHECKPOINT ...`, on
  {problems} held-out problems x {samples} samples at temperature 1, top-p 0.95, {created}, {machine}. The rule that
  names a step, its threshold and the rule of the weighted vote were chosen on calibration problems, never on these.
- **Limits**: an English of {vocabulary:,} tokens; problems of two to five steps; the first wrong step is known from the
  generator's own checker, which takes any order of valid steps. One seed: the intervals say how far other *problems*
  would move a figure, not how far another training would.

Brackets hold 95 % intervals, over problems; n counts what a figure is of.
"""


def model_card(report: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The card in Markdown: what the models are, how they were made, the answers and tables of the evaluation."""
    return f"{HEAD.format(**facts)}\n{summary(report)}"


def facts_of(checkpoint: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of the models and of their training. Raises CheckpointError, ConfigError."""
    verify(checkpoint)
    described = load_json(checkpoint / "config.json")
    return {
        **described["provenance"],
        "name": described["name"],
        "policy_parameters": parameters(checkpoint / "policy"),
        "discriminator_parameters": parameters(checkpoint / "discriminator"),
        "families": len(FAMILIES),
        "vocabulary": len(load_json(checkpoint / "tokenizer.json")["model"]["vocab"]),
        "warmup": described["train_config"]["discriminator"]["warmup_rounds"],
        "sft_steps": load_config("demo-sft", presets_dir=PRESETS).run.steps,
        "expert_steps": load_config("demo-expert", presets_dir=PRESETS).run.steps,
        "problems": provenance["problems"],
        "samples": provenance["samples"],
        "created": provenance["created"],
        "machine": machine_in_words(provenance["machine"]),
    }


def parameters(folder: Path) -> int:
    """The number of parameters in a folder's safetensors files, read from their headers."""
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                count += size
    return count


def example_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Sample problems for the Inspect page, chosen by a rule: the first held-out problem of each family that the policy
    got wrong by a mistake of meaning, with the first such sample; at most ``EXAMPLES``, in the problems' order."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        wrong = row["kind"] in MEANING and row["correct"] is False
        if wrong and row["family"] not in found and len(found) < EXAMPLES:
            found[row["family"]] = {
                "id": row["problem_id"],
                "problem": row["problem"],
                "solution": row["reference_solution"],
                "wrong_solution": row["text"],
                "answer": row["reference_answer"],
            }
    return list(found.values())


def write(evaluation: Path, checkpoint: Path, out: Path) -> Iterator[Path]:
    """Write the card and the sample problems into a folder; yields each file. Raises StoreError, CheckpointError."""
    report = load_json(evaluation / JSON)
    rows = read_run(evaluation / RUN, [*SUMMARY_COLUMNS]).to_pylist()
    texts = {
        CARD: model_card(report, facts_of(checkpoint, report["provenance"])),
        PROBLEMS: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in example_rows(rows)),
    }
    for name, text in texts.items():
        write_whole(out / name, text)
        yield out / name


def main() -> None:
    """``python -m irl_core.report.model_card EVALUATION CHECKPOINT OUT``."""
    if len(sys.argv) != 4:
        sys.exit("usage: python -m irl_core.report.model_card EVALUATION CHECKPOINT OUT")
    for path in write(*map(Path, sys.argv[1:])):
        print(f"Wrote {path}")


if __name__ == "__main__":
    main()
