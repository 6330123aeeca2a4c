"""The bundled checkpoint's model card and sample problems, made from an evaluation and never by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from irl_core.types import Trace
from irl_core.word_problems import MistakeKind, WordProblem

EXAMPLES = 12

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
  {code_version}.
- **Controls**: `control` is the same start trained on the expert traces of those rounds, in the same order, for as many
  steps, by likelihood alone (`irl-lens train demo-control`). `expert` is the policy of `demo-expert`: what the
  demonstrations that the discriminator was told are worth as plain likelihood training. The rows that begin with
  `anchor` show how far the discriminator's start gets without any adversarial training.
- **Figures**: `irl-lens evaluate --checkpoint {name} --out DIR --compare NAME=CHECKPOINT ...`, on
  {problems} held-out problems x {samples} samples at temperature 1, top-p 0.95. The rule that names a step, its
  threshold and the rule of the weighted vote were chosen on calibration problems, never on these.
- **Limits**: an English of {vocabulary:,} tokens; problems of two to five steps; the first wrong step is known from the
  generator's own checker, which takes any order of valid steps. One seed: the intervals say how far other *problems*
  would move a figure, not how far another training would.

"""


def model_card(figures: str, facts: dict[str, Any]) -> str:
    """The card in Markdown: what the models are, how they were made, the figures of the evaluation."""
    return HEAD.format(**facts) + figures


def example_rows(problems: Sequence[WordProblem], groups: Sequence[Sequence[Trace]]) -> list[dict[str, str]]:
    """Sample problems for the Inspect page, chosen by a rule: the first held-out problem of each family that the policy
    got wrong by a mistake of meaning, with the first such sample; at most ``EXAMPLES``, in the problems' order."""
    rows: dict[str, dict[str, str]] = {}
    for problem, traces in zip(problems, groups, strict=True):
        wrong = next((trace for trace in traces if _mistake_of_meaning(trace)), None)
        if wrong is not None and problem.family not in rows and len(rows) < EXAMPLES:
            rows[problem.family] = {
                "id": problem.problem_id,
                "problem": problem.text,
                "solution": problem.solution,
                "wrong_solution": wrong.text,
                "answer": problem.answer,
            }
    return list(rows.values())


def _mistake_of_meaning(trace: Trace) -> bool:
    meaning = (MistakeKind.OPERAND, MistakeKind.OPERATION, MistakeKind.SKIPPED, MistakeKind.QUANTITY)
    return trace.truth is not None and trace.truth.kind in meaning and not trace.correct


def jsonl(rows: Sequence[dict[str, str]]) -> str:
    """The rows, a JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
