"""The bundled checkpoint's model card and sample problems, made from its evaluation and never by hand:

irl-lens model-card runs/demo-evaluation runs/demo-irl/final assets
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from safetensors import safe_open

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import verify
from irl_core.data.word_problems.check import MistakeKind
from irl_core.data.word_problems.families.registry import FAMILIES
from irl_core.evaluation.evaluated_run import RUN
from irl_core.evaluation.report import Report
from irl_core.files import write_whole
from irl_core.report.files import draw
from irl_core.report.markdown import summary
from irl_core.storage.provenance import ScoredRunProvenance, machine_in_words
from irl_core.storage.schema import SUMMARY_COLUMNS
from irl_core.storage.scored_run import read_run

EXAMPLES = 12
CARD, PROBLEMS = "MODEL_CARD.md", "problems.jsonl"
MEANING = (MistakeKind.OPERAND, MistakeKind.OPERATION, MistakeKind.SKIPPED, MistakeKind.QUANTITY)
HEAD = """# Model card: the embedded default

A policy of {policy_parameters:,} parameters and a discriminator of {discriminator_parameters:,}, Llama architecture,
trained from nothing on a CPU. They show on any laptop what irl-lens does. They know the word problems of the generator
in `irl_core/data/word_problems`, and nothing else: do not read anything into what they say about other problems.

- **Data**: problems and solutions written by that generator: {families} families, English, easy whole-number
  arithmetic, distractor numbers, quantities that are easy to confuse. Training, calibration and held-out problems share
  no text. No outside data.
- **Training**: `irl-lens train demo-irl`, which trains in turn `demo-sft` ({sft_steps} steps of likelihood: the start
  of the policy), `demo-expert` ({expert_steps} further ones on other problems: the start of the discriminator) and
  {steps} rounds of the adversarial loop, the first {warmup} with the policy frozen. Seed {seed}, {date}, code
  {code_version}. Every setting: `train_config` in its `config.json`; the preset may have changed since.
- **Controls**: `control` is the same start trained on the expert solutions of those rounds, in the same order, for as
  many steps, by likelihood alone (`irl-lens train demo-control`). `expert` is the policy of `demo-expert`: what the
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


@dataclass(frozen=True, slots=True)
class CardFacts:
    """The facts of the card that are not figures of the evaluation.

    ``steps`` and ``warmup``: rounds of the adversarial training, and those with the policy frozen. ``sft_steps`` and
    ``expert_steps``: of the trainings that the policy and the discriminator start from. ``date`` and ``code_version``:
    of the training; ``created`` and ``machine``: of the evaluation.
    """

    name: str
    policy_parameters: int
    discriminator_parameters: int
    families: int
    vocabulary: int
    sft_steps: int
    expert_steps: int
    steps: int
    warmup: int
    seed: int
    date: str
    code_version: str
    problems: int
    samples: int
    created: str
    machine: str


class SampleProblem(TypedDict):
    """A line of ``problems.jsonl``: a sample problem for the Inspect page."""

    id: str
    problem: str
    solution: str
    wrong_solution: str
    answer: str


def model_card(report: Report, facts: CardFacts) -> str:
    """The card in Markdown: what the models are, how they were made, the answers and tables of the evaluation."""
    return f"{HEAD.format(**asdict(facts))}\n{summary(report)}"


def facts_of(checkpoint: Path, provenance: ScoredRunProvenance, *, sft_steps: int, expert_steps: int) -> CardFacts:
    """The facts of a checkpoint and its training.

    Args:
        checkpoint: its folder.
        provenance: that of its evaluation.
        sft_steps: steps of the training that the policy starts from.
        expert_steps: steps of the training that the discriminator starts from.

    Raises:
        CheckpointError: the checkpoint cannot be trusted.
    """
    verify(checkpoint)
    config = load_json(checkpoint / "config.json")
    trained = config["provenance"]
    return CardFacts(
        name=config["name"],
        policy_parameters=parameters(checkpoint / "policy"),
        discriminator_parameters=parameters(checkpoint / "discriminator"),
        families=len(FAMILIES),
        vocabulary=len(load_json(checkpoint / "tokenizer.json")["model"]["vocab"]),
        sft_steps=sft_steps,
        expert_steps=expert_steps,
        steps=trained["steps"],
        warmup=config["train_config"]["discriminator"]["warmup_rounds"],
        seed=trained["seed"],
        date=trained["date"],
        code_version=trained["code_version"],
        problems=provenance["problems"],
        samples=int(provenance["samples"]),
        created=provenance["created"],
        machine=machine_in_words(provenance["machine"]),
    )


def parameters(folder: Path) -> int:
    """The number of parameters in a folder's safetensors files, read from their headers."""
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def example_rows(rows: Sequence[Mapping[str, Any]]) -> list[SampleProblem]:
    """Sample problems for the Inspect page, chosen by a rule: the first held-out problem of each family that the policy
    got wrong by a mistake of meaning, with the first such sample; at most ``EXAMPLES``, in the problems' order."""
    chosen: dict[str, SampleProblem] = {}
    for row in rows:
        wrong = row["kind"] in MEANING and row["correct"] is False
        if wrong and row["family"] not in chosen and len(chosen) < EXAMPLES:
            chosen[row["family"]] = {
                "id": row["problem_id"],
                "problem": row["problem"],
                "solution": row["reference_solution"],
                "wrong_solution": row["text"],
                "answer": row["reference_answer"],
            }
    return list(chosen.values())


def write(evaluation: Path, checkpoint: Path, out: Path, *, sft_steps: int, expert_steps: int) -> Iterator[Path]:
    """Write the card and the sample problems into a folder; yields each file. Raises StoreError, CheckpointError.

    Args:
        evaluation: the folder of the checkpoint's evaluation.
        checkpoint: its own folder.
        out: the folder to write into.
        sft_steps, expert_steps: see `facts_of`.
    """
    report = draw(evaluation).report
    rows = read_run(evaluation / RUN, SUMMARY_COLUMNS).to_pylist()
    provenance: Any = report.provenance
    facts = facts_of(checkpoint, provenance, sft_steps=sft_steps, expert_steps=expert_steps)
    problems = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in example_rows(rows))
    for name, text in ((CARD, model_card(report, facts)), (PROBLEMS, problems)):
        write_whole(out / name, text)
        yield out / name
