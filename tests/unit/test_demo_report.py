"""The model card's figures from a run small enough to count by hand, and from a simulated one."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from train.demo_report import Vote, choose_vote, located_hits, markdown, report

#           problem, text, answer, correct, steps, true, kind, least, arithmetic, reward, decision, min score
TRACES = [
    ("a", "right", "7", True, 3, -1, None, 0, -1, 2, "no_error", 2.0),
    ("a", "right", "7", True, 3, -1, None, 0, -1, 2, "error", 2.0),
    ("a", "slip", "8", False, 3, 1, "slip", 1, 1, 1, "error", 1.0),
    ("a", "other", "8", False, 4, 3, "operand", 0, -1, 3, "error", 0.0),
    ("b", "yes", "5", True, 2, -1, None, 0, 0, 1, "uncertain", 0.5),
    ("b", "no", "6", False, 2, 0, "operand", 1, -1, 0, "uncertain", 1.5),
    ("b", "mute", None, False, 2, 1, "operand", 0, 0, 0, "error", -1.0),
    ("b", "cut", "6", False, 1, -1, None, 0, -1, 0, "no_error", -2.0),
]
COLUMNS = ["problem_id", "text", "answer", "correct", "n_steps", "first_error_step", "kind", "predicted_logprob",
           "arithmetic_first_false_step", "predicted_reward", "decision", "min"]  # fmt: skip


def small() -> pd.DataFrame:
    frame = pd.DataFrame(TRACES, columns=COLUMNS)
    return frame.assign(log_prob_mean=[-0.1 * i for i in range(8)], log_prob_min=-1.0, length=10)


def simulated(problems: int = 60, samples: int = 16, seed: int = 0) -> pd.DataFrame:
    """Half of the samples are right; the right answer is one, the wrong ones three; ``min`` tells them apart."""
    rng = np.random.default_rng(seed)
    n = problems * samples
    correct = rng.random(n) < 0.4
    true = np.where(correct, -1, rng.integers(4, size=n))
    found = rng.random(n) < 0.8
    frame = pd.DataFrame({"problem_id": np.repeat([f"p{i}" for i in range(problems)], samples), "correct": correct})
    return frame.assign(
        text=[f"{c}{rng.integers(4)}" for c in correct],
        answer=["0" if c else str(rng.integers(1, 3)) for c in correct],
        n_steps=4,
        first_error_step=true,
        kind=np.where(correct, None, "operand"),
        log_prob_mean=rng.normal(size=n),
        log_prob_min=rng.normal(size=n),
        length=rng.integers(5, 50, size=n),
        arithmetic_first_false_step=np.where(rng.random(n) < 0.1, true, -1),
        predicted_reward=np.where(found, true, (true + 1) % 4),
        predicted_logprob=rng.integers(4, size=n),
        decision=np.where(correct, "no_error", "error"),
        min=rng.normal(size=n) + 2 * correct,
        mean=rng.normal(size=n),
    )


class TestByHand:
    found: dict[str, Any] = report(small(), vote=Vote("min", 0.1))

    def test_run(self) -> None:
        assert self.found["run"] == {
            "problems": 2,
            "traces": 8,
            "samples_per_problem": [4, 4],
            "correct": 3,
            "wrong": 5,
            "wrong_without_known_step": 1,
            "correct_with_wrong_step": 0,
        }

    def test_sampling(self) -> None:
        assert list(self.found["sampling"]) == ["pass@1", "pass@3", "pass@4"]
        assert self.found["sampling"]["pass@1"]["value"] == pytest.approx((2 / 4 + 1 / 4) / 2)

    def test_ranking(self) -> None:
        rows = self.found["ranking"]
        assert list(rows) == ["min", "log_prob_mean", "log_prob_min", "shortness", "random"]
        # min: a: right 2, 2 beat 1, 0: 4 of 4; b: 0.5 against 1.5, -1, -2: 2 of 3
        assert rows["min"]["pair_accuracy"]["value"] == pytest.approx(6 / 7)
        assert rows["log_prob_min"]["pair_accuracy"]["value"] == 0.5  # all the same
        assert rows["min"]["best_of_n"]["value"] == 0.5  # a right, b picks the wrong 1.5
        assert rows["shortness"]["best_of_n"]["value"] == pytest.approx(3 / 8)  # all tie: pass@1
        # a: 1 of 3 distinct texts is right; b: 1 of 4
        assert rows["random"]["best_of_n"]["value"] == pytest.approx((1 / 3 + 1 / 4) / 2)

    def test_choosing(self) -> None:
        rows = self.found["choosing"]
        # majority: a: 7 and 8 tie: 1/2; b: '6' has two votes: 0. Weighted by exp(10 min): a: 7 wins; b: 6 wins
        assert rows["majority"]["value"] == 0.25
        assert rows["weighted_vote"]["value"] == 0.5
        assert rows["weighted_vote_minus_majority"]["value"] == 0.25
        assert rows["oracle"]["value"] == 1.0
        assert self.found["vote"] == {"score": "min", "temperature": 0.1, "chosen_on_calibration": True}

    def test_first_step(self) -> None:
        # four wrong traces with a known step: true 1 of 3, 3 of 4, 0 of 2, 1 of 2
        rows = self.found["first_step"]
        assert rows["reward"]["value"] == 3 / 4  # 1, 3, 0 right; 0 wrong
        assert rows["log_prob"]["value"] == 1 / 4  # 1 right; 0, 1, 0 wrong
        assert rows["arithmetic"]["value"] == 1 / 4  # speaks twice, right once
        assert rows["first_step"]["value"] == 1 / 4
        assert rows["last_step"]["value"] == 2 / 4  # steps 2, 3, 1, 1
        assert rows["middle_step"]["value"] == 2 / 4  # steps 1, 1, 0, 0
        assert rows["random_step"]["value"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2 + 1 / 2) / 4)
        assert rows["best_baseline"] in {"middle_step", "last_step"}
        assert rows["reward_minus_best_baseline"]["value"] == 1 / 4
        assert rows["reward"]["n"] == 4

    def test_arithmetic(self) -> None:
        rows = self.found["arithmetic"]
        assert rows["coverage"]["value"] == 2 / 4
        assert rows["right_when_it_speaks"]["value"] == 1 / 2
        assert rows["correct_flagged"]["value"] == pytest.approx(1 / 3)

    def test_decisions(self) -> None:
        rows = self.found["decisions"]
        assert rows["correct_error"]["value"] == pytest.approx(1 / 3)
        assert rows["correct_uncertain"]["value"] == pytest.approx(1 / 3)
        assert rows["error_acc"]["value"] == 2 / 4  # flagged and exact: slip, other; uncertain: no; wrong step: mute
        assert rows["correct_acc"]["value"] == pytest.approx(1 / 3)
        assert rows["wrong_error"]["value"] == 3 / 4
        assert rows["f1"]["n"] == 7  # the cut-off trace, wrong without a known step, is left out

    def test_kinds(self) -> None:
        rows = self.found["kinds"]
        assert list(rows) == ["operand", "slip"]
        assert rows["operand"]["share"]["value"] == 3 / 4
        assert rows["operand"]["reward"]["value"] == pytest.approx(2 / 3)
        assert rows["slip"]["reward"]["reason"] == "fewer than two problems"

    def test_every_figure_is_json_with_n_and_interval(self) -> None:
        def figures(value: Any) -> list[dict[str, Any]]:
            if not isinstance(value, dict):
                return []
            return [value] if "method" in value else [f for item in value.values() for f in figures(item)]

        json.dumps(self.found, allow_nan=False)
        seen = figures(self.found)
        assert len(seen) > 50
        for figure in seen:
            assert figure["reason"] or figure["interval"][0] <= figure["value"] <= figure["interval"][1]

    def test_markdown(self) -> None:
        text = markdown(self.found)
        assert text.startswith("2 problems x 4 samples: 8 traces, 3 with a right and 5 with a wrong answer.")
        assert "| reward, calibrated rule | 0.750 [" in text
        assert "exp(min / 0.1), chosen on calibration problems" in text
        assert "| slip | 0.250 [" in text and "undefined: fewer than two problems" in text
        for table in text.split("\n\n")[1:]:
            assert len({line.count(" | ") for line in table.strip().splitlines()}) == 1, table


def test_the_reward_beats_its_baselines_in_a_simulated_run() -> None:
    found = report(simulated(), vote=choose_vote(simulated(seed=1)))
    assert found["first_step"]["reward"]["value"] == pytest.approx(0.8, abs=0.05)
    assert found["first_step"]["reward_minus_best_baseline"]["interval"][0] > 0.3
    assert found["first_step"]["random_step"]["value"] == pytest.approx(0.25)
    # two normals 2 apart: P = Phi(2 / sqrt 2) = 0.921
    assert found["ranking"]["min"]["pair_accuracy"]["value"] == pytest.approx(0.921, abs=0.02)
    assert found["ranking"]["random"]["pair_accuracy"]["value"] == pytest.approx(0.5, abs=0.06)
    assert found["choosing"]["weighted_vote_minus_majority"]["interval"][0] > 0
    assert found["decisions"]["correct_error"]["value"] == 0.0


def test_the_vote_is_chosen_by_what_it_elects() -> None:
    chosen = choose_vote(simulated(seed=1))
    assert chosen.score == "min" and math.isfinite(chosen.temperature)
    # one answer a problem: every rule elects the same, so the first score at the highest temperature stays
    frame = simulated(problems=5).assign(answer="0", correct=True)
    spread = float(frame["min"].std(ddof=0))
    assert choose_vote(frame) == ("min", pytest.approx(5.0 * spread))
    with pytest.raises(ValueError, match="no trace score to vote with"):
        choose_vote(frame.drop(columns=["min", "mean"]))


def test_without_a_chosen_vote_the_report_says_so() -> None:
    found = report(small())
    assert found["vote"]["chosen_on_calibration"] is False
    assert "not chosen on calibration problems" in markdown(found)


def test_the_same_seed_gives_the_same_report() -> None:
    assert report(small(), seed=3) == report(small(), seed=3)


def test_missing_labels_are_no_step() -> None:
    frame = small().assign(predicted_reward=[None, 2, np.nan, 3, 1, 0, 0, 0])
    assert located_hits(frame)["reward"].tolist() == [1, 0, 0, 1, 0, 1, 0, 0]


def test_one_class_is_undefined_and_not_an_exception() -> None:
    everything_right = small()[lambda f: f["correct"]]
    found = report(everything_right)
    assert found["first_step"]["reward"]["value"] is None
    assert found["ranking"]["min"]["auc"]["reason"] == "one class: 3 positive, 0 negative"
    assert "undefined" in markdown(found)


def test_faults_in_the_frame_are_named() -> None:
    with pytest.raises(ValueError, match="lacks the columns n_steps, kind"):
        report(small().drop(columns=["n_steps", "kind"]))
    with pytest.raises(ValueError, match="has no trace score"):
        report(small().drop(columns="min"))
    with pytest.raises(ValueError, match="decision is 'maybe'"):
        report(small().assign(decision="maybe"))
    with pytest.raises(ValueError, match="is empty"):
        report(small().iloc[:0])
    with pytest.raises(ValueError, match="vote's score 'last'"):
        report(small(), vote=Vote("last", 1.0))
