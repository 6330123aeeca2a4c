"""The contents of the Inspect page, from an inspection. Knows no streamlit and runs no model."""

from __future__ import annotations

import math
from typing import Final

from app.inspect.request import Inspection, Request
from irl_core.report.heatmap.payload import Description, answer_words, describe, ranked_words, score_name
from irl_core.report.inspection_json import InspectedTrace, InspectionResult, to_json, with_ids
from irl_core.reward.token_scores import majority_answer, rank
from irl_core.reward.verdict import Judge, Ruling, Verdict, cell_of, verdict_on
from irl_core.reward.wording import signed
from irl_core.storage.rows import familiarity_of, judge_of, localisation_of, scored_of
from irl_core.storage.schema import ScoredRow
from irl_core.text.answers import answers_agree
from irl_core.text.equations import find_equations
from irl_core.text.segmentation import make_trace
from irl_core.types import Layout, ScoredTrace

LAYOUTS = {
    Layout.THINK_ANSWER: "think/answer tags",
    Layout.GSM8K: "GSM8K, closed by a #### line",
    Layout.NUMBERED: "numbered steps",
    Layout.PLAIN: "plain lines",
}
STORED_SCORE: Final = "mean_discounted"  # the trace score that a trace of a scored run is shown with


def stored_inspection(row: ScoredRow, run: str) -> Inspection | None:
    """The inspection of a row of the scored run that is listed as ``run``; None where no discriminator has read it."""
    if row["prompt_reward"] is None:
        return None
    return Inspection(
        request=Request(row["problem"], row["text"], row["reference_answer"] or ""),
        checkpoint=row["checkpoint"],
        device="",
        score_kind=STORED_SCORE,
        scored=(scored_of(row),),
        localisations=(localisation_of(row),),
        familiarity=(familiarity_of(row),),
        run=run,
    )


def known_without_a_model(request: Request) -> list[str]:
    """What is found of a pasted solution without a model, a line each; empty where that is nothing."""
    trace = make_trace(request.problem, request.solution, reference_answer=request.answer or None)
    verdict = verdict_on(trace, None, Judge())
    return [one.says for one in verdict.findings if one.by not in ("reward", "familiarity")]


def to_result(inspection: Inspection, gamma: float) -> InspectionResult:
    """The inspection in the form of ``irl-lens inspect --json``, with token ids added."""
    result = to_json(
        inspection.scored,
        inspection.localisations,
        problem=inspection.request.problem,
        checkpoint=inspection.name,
        familiarity=inspection.familiarity,
        gamma=gamma,
        kind=inspection.score_kind,
    )
    return with_ids(result, inspection.scored)


def is_judged(inspection: Inspection, index: int) -> bool:
    """Whether nothing is known that keeps the model from judging a trace."""
    return judge_of(inspection.scored[index], inspection.familiarity[index]).can is not False


def ranking(inspection: Inspection, gamma: float) -> list[int]:
    """Indices of the traces, best trace score first; behind them those that the model cannot judge, which have no rank,
    in the order in which they were sampled."""
    judged = [is_judged(inspection, index) for index in range(len(inspection.scored))]
    return rank(inspection.scored, inspection.score_kind, gamma, judged)


def ranking_table(inspection: Inspection, result: InspectionResult, order: list[int]) -> list[dict[str, object]]:
    """One row a trace in the order given: answer, whether it is the majority's, score, first error. One that the model
    cannot judge has no rank and no score; where it can judge none, there are no such columns."""
    majority = majority_answer([one.trace for one in inspection.scored])
    rows: list[dict[str, object]] = []
    ranked = any(is_judged(inspection, index) for index in order)
    for place, index in enumerate(order, start=1):
        trace, judged = result["traces"][index], is_judged(inspection, index)
        votes = majority and trace["answer"] is not None and answers_agree(trace["answer"], majority[0])
        rows.append(
            {
                **({"rank": place if judged else None} if ranked else {}),
                "solution": index + 1,
                "answer": trace["answer"] if trace["answer"] is not None else "none found",
                "majority": f"yes, {majority[1]} of {len(order)}" if votes and majority else "",
                "correct": {True: "yes", False: "no", None: "not known"}[trace["correct"]],
                **({score_column(inspection): trace["trace_score"] if judged else None} if ranked else {}),
                "first error": cell_of(ruling_of(trace), trace["correct"], inspection.scored[index].trace.steps),
                "tokens": len(trace["tokens"]),
                "ended": "yes" if inspection.scored[index].trace.finished else "cut at the limit",
            }
        )
    return rows


def score_column(inspection: Inspection) -> str:
    """The heading of the column that traces are ranked by."""
    return score_name(inspection.score_kind)


def verdict_of(inspection: Inspection, index: int = 0) -> Verdict:
    """The verdict on a trace of an inspection."""
    scored = inspection.scored[index]
    judge = judge_of(scored, inspection.familiarity[index])
    return verdict_on(scored.trace, inspection.localisations[index], judge)


def ruling_of(trace: InspectedTrace) -> Ruling:
    """What the verdict on a trace comes to."""
    said = trace["verdict"]
    return Ruling(said["kind"], said["by"], said["step"])


def majority_words(inspection: Inspection) -> str:
    """The majority answer with its votes, in words. The tie rule is stated where there is more than one trace."""
    majority = majority_answer([one.trace for one in inspection.scored])
    if majority is None:
        return "No solution has a final answer, so there is no majority answer."
    total = len(inspection.scored)
    return f"Majority answer: {majority[0]} ({majority[1]} of {total}; in a tie, the one sampled first)."


def samples_words(inspection: Inspection) -> str:
    """What holds of samples whoever can judge them: the majority answer, how many answers are right, how many have
    equations that all hold; and that those that the model cannot judge are not ranked."""
    said = [majority_words(inspection)]
    unjudged = sum(not is_judged(inspection, index) for index in range(len(inspection.scored)))
    if not unjudged:
        return said[0]
    traces = [one.trace for one in inspection.scored]
    total = len(traces)
    known = [one.correct for one in traces if one.correct is not None]
    if known:
        said.append(f"{sum(known)} of {total} answers {'is' if sum(known) == 1 else 'are'} right.")
    false = sum(any(not one.true for one in find_equations(trace.text)) for trace in traces)
    said.append(f"An equation does not hold in {false} of {total}." if false else "No equation in them is false.")
    whose = "these solutions" if unjudged == total else f"{unjudged} of {total} solutions"
    said.append(
        f"The model cannot judge {whose}, which have no rank and stand in the order in which they were sampled."
    )
    return " ".join(said)


def written_words(inspection: Inspection) -> str:
    """What was written in a way; where the model cannot judge it, that the reward's choices on the way say nothing."""
    if is_judged(inspection, 0):
        return inspection.written
    return f"{inspection.written} The model cannot judge this text, so what its reward chose on the way says nothing."


def heading(trace: InspectedTrace, index: int, inspection: Inspection) -> str:
    """The heading over one trace: which it is, and its answer."""
    asked = inspection.request
    if inspection.run:
        name = inspection.scored[index].trace.trace_id
    elif asked.solution:
        name = "Your solution"
    elif asked.way:
        name = "Its first draft" if index else f"By {asked.way}"
    else:
        name = f"Solution {index + 1} of {len(inspection.scored)}"
    return " \u00b7 ".join((name, answer_words(trace)))


def caption(scored: ScoredTrace, inspection: Inspection) -> str:
    """Where the numbers come from: checkpoint, device, unit of standardisation, recognised layout."""
    unit = scored.standardisation
    where = f"of the scored run {inspection.run}" if inspection.run else f"on {inspection.device}"
    return (
        f"Layout recognised: {LAYOUTS[scored.trace.layout]}. "
        f"Checkpoint {inspection.name} {where}. "
        f"Standardised with mean {signed(unit.mean)} and standard deviation {unit.std:.2f} of {unit.origin}."
    )


def description(inspection: Inspection, result: InspectionResult, index: int) -> Description:
    """Heading, verdict and caption of one trace, on the page and in its export."""
    trace = result["traces"][index]
    several = len(inspection.scored) > 1 and is_judged(inspection, index)
    ranked = ranked_words(trace, score_name(inspection.score_kind)) if several else ""
    return describe(
        trace,
        title=heading(trace, index, inspection),
        caption=" ".join(filter(None, (ranked, caption(inspection.scored[index], inspection)))),
        file=f"solution-{index + 1}",
        problem=inspection.request.problem,
    )


def choice_label(trace: InspectedTrace, index: int, place: int) -> str:
    """A trace in a list to choose from; ``place``: its rank, from 1, which one has not that the model cannot judge."""
    if trace["cannot_judge"]:
        return f"solution {index + 1} \u00b7 {answer_words(trace)}"
    score = trace["trace_score"]
    score_words = signed(score) if score is not None and math.isfinite(score) else "no score"
    return f"{place}. solution {index + 1} \u00b7 {answer_words(trace)} \u00b7 {score_words}"
