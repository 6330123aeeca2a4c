"""Runs beside each other: named apart, paired by problem, in words that the intervals bear out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irl_core.errors import ConfigError, StoreError
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.per_problem import difference, estimate, measured
from irl_core.evaluation.section import Cell, Difference
from irl_core.report.tables import markdown, shown
from irl_core.statistics.bootstrap import Estimate, point, to_json, undefined
from tests.evaluated import check_figures, evaluated, simulated
from train.evaluate.compare import comparison, open_runs, tables, to_html

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "scored_run.parquet"


def of(data: list[dict[str, Any]]) -> EvaluatedRun:
    """A run whose problems' texts are their ids: what is the same problem in two runs."""
    return evaluated([{**row, "problem": row["problem_id"]} for row in data])


def solved(data: list[dict[str, Any]]) -> dict[str, float]:
    by_problem: dict[str, list[bool]] = {}
    for row in data:
        by_problem.setdefault(row["problem_id"], []).append(row["correct"])
    return {name: sum(rows) / len(rows) for name, rows in by_problem.items()}


def test_a_difference_is_that_of_the_means_over_shared_problems() -> None:
    ours, theirs = simulated(problems=30, samples=4), simulated(problems=20, samples=4, seed=1)
    found = comparison({"one": of(theirs), "two": of(ours)})
    mine, others = solved(ours), solved(theirs)
    expected = np.mean([mine[name] - others[name] for name in others])
    figure_ = found.differences["two"]["pass@1"]
    assert figure_.value == pytest.approx(expected) and figure_.n == 20
    assert found.shared == {"two": 20} and found.problems == {"one": 20, "two": 30}
    assert found.figures["two"]["pass@1"].value == pytest.approx(np.mean(list(mine.values())))
    assert "pass@5" not in found.titles  # no problem has five samples
    json.dumps(to_json(found), allow_nan=False)
    check_figures(found)


def test_what_each_model_could_judge_is_counted_with_n() -> None:
    data = simulated(problems=2, samples=3)
    flags = [(True, False), (True, None), (False, True), (False, True), (None, None), (None, None)]
    told = [
        {**row, "cannot_judge": barred, "familiar": known} for row, (barred, known) in zip(data, flags, strict=True)
    ]
    unread = [{**row, "cannot_judge": None, "familiar": None} for row in data]
    found = comparison({"a": of(told), "b": of(unread)})
    assert to_json(found)["judged"] == {
        "a": {"traces": 6, "cannot": 2, "not_measured": 3, "unfamiliar": 1},
        "b": {"traces": 6, "cannot": 0, "not_measured": 6, "unfamiliar": 0},
    }
    assert tables(found)[-1].rows == [
        ["solutions that it cannot judge", "2 of 6 (1 unfamiliar, 1 without a signal)", "not measured"],
        ["unfamiliar ones, of those measured", "1 of 3", "not measured"],
    ]
    assert "<td>2 of 6 (1 unfamiliar, 1 without a signal)</td>" in re.sub(r"<td[^>]*>", "<td>", to_html(found))


def test_a_run_differs_from_itself_by_nothing() -> None:
    run = of(simulated(problems=15, samples=5))
    found = comparison({"a": run, "b": run})
    assert {one.value for one in found.differences["b"].values()} == {0.0}
    assert {tuple(one.interval) for one in found.differences["b"].values()} == {(0.0, 0.0)}


def test_nothing_in_common_is_undefined() -> None:
    columns = measured(of(simulated(problems=5, samples=2)))["pass@1"]
    other = {f"x{name}": value for name, value in columns.items()}
    found = difference("pass@1", columns, other)
    assert not found.defined and found.reason == "no problem in common" and found.n == 0
    assert estimate("pass@1", columns).n == 5


def test_pairs_count_all_alike() -> None:
    data = simulated(problems=12, samples=6)
    won = pairs = 0
    for a in data:
        for b in data:
            if a["problem_id"] == b["problem_id"] and a["correct"] and not b["correct"]:
                pairs += 1
                won += a["score_mean_discounted"] > b["score_mean_discounted"]
    found = estimate("pairs", measured(of(data))["pairs"])
    assert found.value == pytest.approx(won / pairs) and found.n == pairs


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    for folder in ("a/x", "b/x", "c"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(GOLDEN, tmp_path / folder / "run.parquet")
    found = open_runs([tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "c"])
    names = list(found)
    assert [name.rpartition("/")[2] for name in names] == ["x", "x", "c"] and len(set(names)) == 3
    assert names[0].endswith("a/x") and not Path(names[0]).is_absolute()


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    shutil.copy(GOLDEN, tmp_path / "run.parquet")
    with pytest.raises(ConfigError, match="1 run to compare; name two at least"):
        open_runs([tmp_path])
    with pytest.raises(ConfigError, match="is named twice"):
        open_runs([tmp_path, tmp_path / ".." / tmp_path.name])
    with pytest.raises(StoreError, match="there is no such run"):
        open_runs([tmp_path, tmp_path / "gone"])


def test_pages_and_tables_hold_text_and_no_markup() -> None:
    name = "<script>alert(1)</script>|`x`"
    found = comparison({name: of(simulated(problems=9, samples=3)), "b": of(simulated(problems=9, samples=3, seed=2))})
    page = to_html(found)
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page
    text = "\n".join(markdown(table) for table in tables(found))
    assert "<script" not in text and "`x`" not in text.replace("\\`x\\`", "")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 4}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, ""),
        ("words", "words"),
        (3, "3"),
        (0.12345, "0.123"),
        (undefined(3, "m", "one class"), "undefined (one class; n 3)"),
        (point(0.00012, 3, "m"), "0.00012 (n 3)"),
        (Estimate(0.5, 0.25, 0.75, 3, "m"), "0.500 [0.250, 0.750] (n 3)"),
        (Difference(Estimate(0.5, 0.25, 0.75, 3, "m")), "0.500 [0.250, 0.750] (n 3), higher"),
        (Difference(Estimate(0.5, -0.25, 0.75, 3, "m")), "0.500 [-0.250, 0.750] (n 3), no difference shown"),
        (Difference(undefined(3, "m", "one class")), "undefined (one class; n 3)"),
    ],
)
def test_cells(cell: Cell, expected: str) -> None:
    assert shown(cell) == expected
