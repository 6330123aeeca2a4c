"""What the columns of a scored run are called on the Failures page, and what they hold. No streamlit."""

from __future__ import annotations

from typing import Final

from app.analysis.catalogue import ROW, VERDICT, VERDICT_STEP
from app.analysis.expression import NAMES, kind_of
from irl_core.report.terms import TERMS
from irl_core.reward.verdict import KINDS

ESCAPED: Final = r"\_"

TITLES: Final = {
    "trace_id": "id", "problem": "problem", "text": "solution", "answer": "answer", "correct": "correct",
    "n_steps": "steps", "length": "tokens", "kind": "kind of error", "true_first_error_step": "true first error",
    VERDICT: "verdict", "cannot_judge": "model cannot judge", "familiar": "familiarity",
    "familiarity": "log-probability of its problem",
    "confidence": "confidence of the reward", "copies": "equal texts",
    "score_mean_discounted": "mean discounted reward", "mine": "you said",
}  # fmt: skip
SORTS: Final = {
    ROW: "order in the file",
    "score_mean_discounted": "mean discounted reward",
    "score_credit_minimum": "lowest credit",
    "score_min": "lowest reward",
    "confidence": "confidence, the most uncertain first",
    "length": "length",
    "n_steps": "number of steps",
    VERDICT_STEP: "step that the verdict names",
    "true_first_error_step": "true first wrong step",
    "problem_id": "problem",
}
MEANINGS: Final = {
    "trace_id": "What the run calls the solution; by its row in the file where you have not judged it.",
    "mine": "The step that you named as the first wrong one, as the text numbers it; 'none' or 'unsure'.",
    "copies": "How many of the solutions that pass the filters have this very text.",
    "answer": "The final answer that was read from the solution.",
    "correct": "Whether the final answer is right; empty where that is not known.",
    "n_steps": "How many steps the solution has; the line of its final answer is none.",
    "length": TERMS["length"],
    "kind": "The kind of error that the run's label names.",
    "true_first_error_step": "The first wrong step by the run's label.",
    VERDICT: "What is found by the arithmetic check, the reward or the answer, in this order.",
    VERDICT_STEP: "The step that the verdict names.",
    "familiar": "Whether the problem is like those that the checkpoint was made for.",
    "familiarity": "How likely the checkpoint finds the problem, a token on average: the lower, the less it is like "
    "those that the checkpoint was made for.",
    "confidence": "How likely what the reward says is right, from 0 to 1; empty where the model cannot judge.",
    "score_mean_discounted": TERMS["discounted reward"],
    "score_min": TERMS["lowest reward"],
    "score_credit_minimum": "How much the reward changes at the token where it falls most.",
    "log_prob_mean": "How likely the policy itself finds the text, a token on average; it needs no reward.",
    "cannot_judge": "Whether the model has no say, as the text is unlike those that the checkpoint was made for.",
    "arithmetic_false": "How many equations of the solution are false.",
    "family": "The family of problems that it belongs to, where the run says so.",
    "source": "Where the solution comes from, where the run says so.",
    "finished": "Whether the solution was written to its end, not cut off.",
    "problem_id": "What the run calls the problem.",
}  # fmt: skip
IN_EXPRESSIONS: Final = {
    "true_step": " Its place from 1; 0 is known to have none.", "verdict_step": " Its place from 1.",
    "verdict": f" One of {', '.join(KINDS)}.",
}  # fmt: skip
KINDS_OF_VALUES: Final = {"text": "a text in quotes", "number": "a number", "yes-or-no": "True or False"}


def names_explained() -> str:
    """The names of an expression, a line each in Markdown: what they hold, and what they are compared with."""
    return "\n".join(
        f"- **{name.replace('_', ESCAPED)}**, {KINDS_OF_VALUES[kind_of(name)]}: "
        f"{MEANINGS[column]}{IN_EXPRESSIONS.get(name, '').replace('_', ESCAPED)}"
        for name, column in NAMES.items()
    )
