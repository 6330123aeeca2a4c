"""Rules that an evaluation chooses on calibration problems: the vote, and the steps of the likelihood baselines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from irl_core.evaluation.reranking import choose_vote
from irl_core.reward.calibration import HeldOut, calibrate, candidate_rules
from irl_core.scorer import Lens
from irl_core.storage.provenance import ScoredRunProvenance
from irl_core.storage.rows import scored_of
from irl_core.storage.schema import SUMMARY_COLUMNS, ScoredRow
from irl_core.types import Source


def chosen_rules(lens: Lens, calibration: Sequence[ScoredRow]) -> ScoredRunProvenance:
    """The rules for a scored run's provenance: the reward's own, the vote, and the rule by which the policy's
    log-probabilities alone name a step; the last two from the rows of the calibration problems."""
    rules: ScoredRunProvenance = {"calibration": lens.calibration.to_json()}
    samples = [row for row in calibration if row["source"] == Source.POLICY.value]
    if samples:
        frame = pd.DataFrame(samples)[SUMMARY_COLUMNS]
        vote = choose_vote(frame)
        rules["vote"] = {"score": vote.score, "temperature": vote.temperature}
        rules["calibration_problems"] = int(frame["problem_id"].nunique())
    return {**rules, **likelihood_rule(lens, calibration, calibration)}


def likelihood_rule(lens: Lens, calibration: Sequence[ScoredRow], read: Sequence[ScoredRow]) -> ScoredRunProvenance:
    """The calibrated rule over log-probabilities, under its key in a provenance; empty where there is too little to
    choose it on.

    Args:
        lens: the loaded checkpoint.
        calibration: scored rows of the calibration problems.
        read: the same rows with the log-probabilities of the model that the rule is for.
    """
    held_out = []
    for row, other in zip(calibration, read, strict=True):
        error = row["true_first_error_step"]
        if error is None and not row["correct"]:
            continue  # its first error is not known; a trace with the right answer counts as having none
        scored = scored_of(row)
        signals = {"logprob": np.array([token["logprob"] for token in other["tokens"]], dtype=np.float32)}
        first = None if error is None or error < 0 else error
        held_out.append(HeldOut(signals, scored.encoded.spans, scored.trace.steps, first, row["problem_id"]))
    if len({one.problem_id for one in held_out}) < 2:
        return {}
    rules = candidate_rules(("logprob",), include_answer=(lens.calibration.rule.include_answer,))
    return {"likelihood_calibration": calibrate(held_out, rules).to_json()}
