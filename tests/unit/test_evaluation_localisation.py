"""Where the first error is: the figures by hand on eight traces, and against plain loops on the bundled run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import matthews_corrcoef

from irl_core.errors import StoreError
from irl_core.evaluation import first_error
from irl_core.evaluation.calibration import calibration_error
from irl_core.evaluation.evaluated_run import EvaluatedRun, load
from irl_core.evaluation.first_error import Labels, Localisation
from irl_core.evaluation.localisation import paragraph
from irl_core.evaluation.located_traces import Located, Locator, located, locator_of, parse_rule
from irl_core.reward.localisation import Rule
from irl_core.statistics.bootstrap import to_json
from irl_core.storage.scored_run import read_run
from tests.evaluated import check_figures, evaluated, frame

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "scored_run" / "run.parquet"
#         problem, true, kind, least likely, checker, reward's step, suspicion, decision, steps that may be named
TRACES = [
    ("a", -1, None, 0, -1, 2, -1.0, "no_error", 3),
    ("a", -1, None, 0, -1, 2, -9.0, "error", 3),
    ("a", 1, "slip", 1, 1, 1, -9.0, "error", 3),
    ("a", 3, "operand", 0, -1, 3, -9.0, "error", 4),
    ("b", -1, None, 0, 0, 1, -4.0, "uncertain", 2),
    ("b", 0, "operand", 1, -1, 0, -4.0, "uncertain", 2),
    ("b", 1, "operand", 0, 0, 0, -9.0, "error", 2),
]


def by_hand() -> pd.DataFrame:
    rows = []
    for number, (problem, true, kind, least, checker, named, low, said, steps) in enumerate(TRACES):
        rows.append(
            {
                "trace_id": str(number), "problem_id": problem, "true": true, "kind": kind, "right_answer": true < 0,
                "reward": named, "reward_suspicion": low, "decision": said, "confidence": 0.9, "arithmetic": checker,
                "least_likely": least, "first": 0, "middle": (steps - 1) // 2, "last": steps - 1,
                "chance": 1 / steps if true >= 0 else 0.0,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Localisation:
    locator = Locator(Rule("raw", "min", "argmin"), -5.0, answer_lines=True)
    scores = [np.full(1, low) for low in by_hand()["reward_suspicion"]]
    monkeypatch.setattr(first_error, "locator_of", lambda run, answer_lines: locator)
    monkeypatch.setattr(first_error, "located", lambda *arguments: Located(by_hand(), scores))
    return first_error.figures(evaluated([]))


class TestByHand:
    def test_exact_of_every_method(self, found: Localisation) -> None:
        # four wrong traces: true 1 of 3, 3 of 4, 0 of 2, 1 of 2
        exact = {name: row["exact"].value for name, row in found.methods.items()}
        assert exact["reward"] == 3 / 4  # 1, 3, 0 right; 0 wrong
        assert exact["least_likely"] == 1 / 4 and exact["arithmetic"] == 1 / 4 and exact["first"] == 1 / 4
        assert exact["middle"] == 2 / 4 and exact["last"] == 2 / 4  # 1, 1, 0, 0 and 2, 3, 1, 1
        assert exact["random"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2 + 1 / 2) / 4)
        assert exact["checker_then_reward"] == 3 / 4  # the checker names 1 (right) and 0 (wrong) itself
        less = found.methods["middle"]["reward_minus_this"]
        assert less.value == 1 / 4 and less.n == 4

    def test_processbench(self, found: Localisation) -> None:
        row = found.methods["reward"]
        assert row["error_acc"].value == 2 / 4  # 1 and 3; the third is undecided, the fourth says 0
        assert row["correct_acc"].value == pytest.approx(1 / 3)
        assert row["f1"].value == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
        # undecided counted as 'no error': the correct one gains, the wrong one loses nothing
        assert found.on_labels.forced.correct_acc.value == pytest.approx(2 / 3)
        assert found.on_labels.forced.error_acc.value == 2 / 4

    def test_the_oracle_threshold_is_at_least_as_good(self, found: Localisation) -> None:
        # below -5 is flagged: 1 and 3 right, 0 wrong, one of three correct flagged; below infinity: 3 of 4, none spared
        assert found.on_labels.oracle.f1.value == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))

    def test_decisions_and_distance(self, found: Localisation) -> None:
        shares = {key: figure.value for key, figure in found.on_labels.decisions.items()}
        third = pytest.approx(1 / 3)
        assert (shares["correct_error"], shares["correct_uncertain"], shares["correct_no_error"]) == (third,) * 3
        assert (shares["wrong_error"], shares["wrong_uncertain"], shares["wrong_no_error"]) == (3 / 4, 1 / 4, 0.0)
        assert found.on_labels.distance.distribution == {-1: 1, 0: 3}
        assert (
            found.on_labels.distance.mean_absolute.value == 1 / 4 and found.on_labels.distance.too_early.value == 1 / 4
        )

    def test_kinds_and_counts(self, found: Localisation) -> None:
        assert list(found.on_labels.kinds) == ["operand", "slip"]
        assert found.on_labels.kinds["operand"]["share"].value == 3 / 4
        assert found.on_labels.kinds["operand"]["reward"].value == pytest.approx(2 / 3)
        assert found.on_labels.kinds["slip"]["reward"].reason == "fewer than two problems"
        assert found.labels == Labels(traces=7, wrong=4, correct=3, problems=2, right_answer_but_wrong=0)

    def test_confidence(self, found: Localisation) -> None:
        # five decisions at 0.9: no_error right, error on a correct one wrong, two steps right, one wrong: |3/5 - 0.9|
        assert found.on_labels.reliability.ece.value == pytest.approx(0.3)
        assert found.on_labels.reliability.left_out == 2
        assert found.on_labels.conformal.levels[0].flagged.value == pytest.approx(1 / 3)  # -9 of -1, -9, -4
        assert "holds no calibration" in found.on_labels.conformal.reason

    def test_it_is_json_and_every_figure_is_whole(self, found: Localisation) -> None:
        json.dumps(to_json(found), allow_nan=False)
        check_figures(found)
        assert "names the first wrong step in 0.750" in paragraph(found)


def test_the_calibration_error_against_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    confidence, right = rng.random(200), rng.random(200) < 0.6
    expected = 0.0
    for low in np.arange(10) / 10:
        mine = (confidence >= low) & (confidence < low + 0.1)
        if mine.any():
            expected += abs(right[mine].mean() - confidence[mine].mean()) * mine.sum() / 200
    figure = calibration_error(confidence, right, np.arange(200) % 20)
    assert figure.value == pytest.approx(expected) and figure.low <= figure.value <= figure.high
    few = calibration_error(confidence, right, np.arange(200) % 4)
    assert few.value == pytest.approx(expected) and few.interval is None
    assert "fewer than 5 problems (4)" in few.method


@pytest.fixture(scope="module")
def bundled() -> tuple[EvaluatedRun, Localisation, pd.DataFrame]:
    run = load(BUNDLED)
    locator = locator_of(run)
    assert locator is not None
    return run, first_error.figures(run), located(BUNDLED, locator).frame


def test_against_plain_loops_on_the_bundled_run(bundled: Any) -> None:
    _, found, _ = bundled
    columns = ["true_first_error_step", "decision", "predicted_step", "arithmetic_first_false_step"]
    rows = read_run(BUNDLED, columns).to_pylist()
    wrong = [row for row in rows if row["true_first_error_step"] >= 0]
    correct = [row for row in rows if row["true_first_error_step"] == -1]
    row = found.methods["reward"]
    hit = sum(one["decision"] == "error" and one["predicted_step"] == one["true_first_error_step"] for one in wrong)
    spared = sum(one["decision"] == "no_error" for one in correct)
    assert row["error_acc"].value == pytest.approx(hit / len(wrong))
    assert row["correct_acc"].value == pytest.approx(spared / len(correct))
    checked = sum(one["arithmetic_first_false_step"] == one["true_first_error_step"] for one in wrong)
    assert found.methods["arithmetic"]["exact"].value == pytest.approx(checked / len(wrong))


def test_mcc_against_scikit_learn(bundled: Any) -> None:
    _, found, table = bundled
    flagged = table["decision"] == "error"
    checker = table["arithmetic"] >= 0
    wrong = table["true"] >= 0
    assert found.methods["arithmetic"]["mcc"].value == pytest.approx(matthews_corrcoef(wrong, checker))
    assert found.methods["reward"]["mcc"].n == len(table) and flagged.any()


class TestJudge:
    def test_no_rule_is_no_judge(self) -> None:
        found = first_error.figures(evaluated([{"problem_id": "a", "correct": True}]))
        assert found.reason == "no solution was read by a discriminator"
        assert paragraph(found).startswith("Where the first error is cannot be judged")

    def test_outside_labels_bar_closing_lines_unless_asked(self) -> None:
        row = {"problem_id": "a", "rule": "raw/min/argmin+answer", "threshold": -1.0, "true_first_error_step": 0}
        ours = evaluated([{**row, "source": "policy"}])
        theirs = evaluated([{**row, "source": "external"}])
        cases = ((ours, None, True), (theirs, None, False), (theirs, True, True), (ours, False, False))
        for run, asked, expected in cases:
            locator = locator_of(run, asked)
            assert locator is not None and locator.answer_lines is expected and locator.rule.include_answer is expected

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"rule": "raw/min/argmin", "threshold": -1.0}, {"rule": "credit/min/argmin", "threshold": -1.0}],
             r"holds the rules credit/min/argmin, raw/min/argmin; score it with one checkpoint"),
            ([{"rule": "raw/min/argmin", "threshold": -1.0}, {"rule": "raw/min/argmin", "threshold": -2.0}],
             r"was scored with 2 thresholds"),
            ([{"rule": "nonsense", "threshold": -1.0}], r"'nonsense' is no rule"),
        ],
    )  # fmt: skip
    def test_a_run_of_several_judges_is_refused(self, rows: list[dict[str, Any]], message: str) -> None:
        with pytest.raises(StoreError, match=message):
            locator_of(evaluated([{"problem_id": "a", **row} for row in rows]))

    def test_a_calibration_that_cannot_be_read_is_refused(self) -> None:
        run = evaluated([{"problem_id": "a", "rule": "raw/min/argmin", "threshold": -1.0}])
        with pytest.raises(StoreError, match=r"its provenance's calibration cannot be read"):
            locator_of(replace(run, provenance={"calibration": {"rule": 3}}))

    def test_a_null_threshold_flags_nothing(self) -> None:
        locator = locator_of(evaluated([{"problem_id": "a", "rule": "raw/min/argmin", "threshold": None}]))
        assert locator is not None and locator.threshold == -math.inf

    @pytest.mark.parametrize("name", ["raw/min/argmin", "credit/min/first_below+answer"])
    def test_rules_have_names(self, name: str) -> None:
        assert parse_rule(name).name == name


def test_frames_are_those_of_the_store() -> None:
    assert list(frame([]).columns) == list(load(BUNDLED).frame.columns)
