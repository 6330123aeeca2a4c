"""Columns of a scored run: by hand, against torch, and as an earlier release wrote them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch

from irl_core.errors import StoreError
from irl_core.policy.familiarity import Familiarity
from irl_core.reward.rewards import standardise
from irl_core.reward.rewards import trace_score as score_rows
from irl_core.reward.token_scores import trace_score
from irl_core.storage import schema, scored_run
from irl_core.storage.rows import (
    answer_tokens,
    familiarity_of,
    localisation_of,
    row_of,
    scored_of,
    trace_of,
    unscored_row,
    verdict_of,
)
from irl_core.storage.run_writer import write_run
from irl_core.storage.schema import (
    ANSWER_SCORE,
    COLUMNS,
    FORMAT_COLUMNS,
    SUMMARY_COLUMNS,
)
from irl_core.storage.scored_run import read_batches, read_row, read_run, read_trace
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Localisation, ScoredTrace, Source, Standardisation, Truth

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "scored_run.parquet"
TAGGED = "<think>\n2 + 3 = 5\n</think>\n<answer>\n5\n</answer>"


def scored(text: str, raw: list[float], spans: list[tuple[int, int]], **changes: Any) -> ScoredTrace:
    """A trace with these rewards; standardised with mean 1 and standard deviation 2."""
    known = {"trace_id": "t", "problem_id": "p", "reference_answer": "5"} | changes
    encoded = EncodedTrace(make_trace("How many?", text, **known), (7,), tuple(range(len(raw))), tuple(spans))
    rewards = np.array(raw, dtype=np.float32)
    return ScoredTrace(encoded, rewards, -np.ones_like(rewards), 0.5, Standardisation(1.0, 2.0, "held-out"), "demo")


def row(one: ScoredTrace, **changes: Any) -> dict[str, Any]:
    steps = len(one.trace.steps)
    where = Localisation("no_error", None, 0.5, "raw/min/argmin", -1.0, (0.0,) * steps)
    return row_of(one, where, run_id="r", **changes)


class TestScores:
    # the tokens: "2 + 3 = 5", the line break, "#### ", "5" and the end; the answer line holds the third and the fourth
    text = "2 + 3 = 5\n#### 5"
    spans = ((0, 9), (9, 10), (10, 15), (15, 16), (16, 16))

    def test_by_hand(self) -> None:
        found = row(scored(self.text, [2, 0, 3, -1, 5], list(self.spans)), gamma=0.5)
        # credit 2 - 0.5, 0 - 2, 3 - 0, -1 - 3, 5 + 1
        assert found["score_credit_minimum"] == -4.0
        # standardised (3 - 1) / 2 = 1 and (-1 - 1) / 2 = -1; discounted 1 + 0.5 * -1 = 0.5 and -1; mean -0.25
        assert found[ANSWER_SCORE] == pytest.approx(-0.25)

    def test_agrees_with_torch_under_the_mask_of_the_answer(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(20):
            one = scored(self.text, rng.normal(size=5).tolist(), list(self.spans))
            mask = torch.tensor([[False, False, True, True, False]])
            raw = torch.from_numpy(one.raw)[None]
            units = standardise(raw, mask, torch.tensor([1.0]), torch.tensor([2.0]))
            expected = float(score_rows(units, mask, "mean_discounted", gamma=0.9)[0])
            assert row(one)[ANSWER_SCORE] == pytest.approx(expected, rel=1e-5, abs=1e-6)

    def test_no_spread_is_no_signal(self) -> None:
        one = scored(self.text, [2, 0, 3, -1, 5], list(self.spans))
        assert row(replace(one, standardisation=Standardisation(1.0, 0.0, "x")))[ANSWER_SCORE] == 0.0

    def test_the_answer_scope(self) -> None:
        def scope(text: str, *spans: tuple[int, int]) -> list[bool]:
            trace = make_trace("p", text)
            return answer_tokens(spans, trace.steps, trace.answer).tolist()

        assert scope(self.text, *self.spans) == [False, False, True, True, False]
        # the tags belong to no step; the line break after the answer closes it
        at = TAGGED.index("5\n</answer>")
        assert scope(TAGGED, (0, 17), (17, at), (at, at + 1), (at + 1, at + 2), (at + 2, len(TAGGED))) == [
            False, False, True, True, False,
        ]  # fmt: skip
        # no closing line: the last step that holds the answer
        boxed = "2 + 3 = 5.\nSo she has \\boxed{5} pens."
        assert scope(boxed, (0, 10), (11, 20), (20, len(boxed))) == [False, True, True]
        assert scope("No idea at all.", (0, 5), (5, 15)) == [False, False]

    def test_no_answer_no_score(self) -> None:
        one = scored("No idea at all.", [1, 2], [(0, 5), (5, 15)])
        assert row(one)[ANSWER_SCORE] is None
        empty = scored("5", [], [])
        assert row(empty)["score_credit_minimum"] is None and row(empty)[ANSWER_SCORE] is None


class TestFormats:
    def test_by_hand(self) -> None:
        # four tags, each once and on its own line: 4 x 0.125; exactly the format; an integer
        found = row(scored(TAGGED, [1, 2], [(0, 17), (17, len(TAGGED))]))
        assert [found[name] for name in FORMAT_COLUMNS] == [0.5, 0.5, 0.5, 0.5]
        plain = row(scored("#### 5.5", [1, 2], [(0, 5), (5, 8)]))
        assert [plain[name] for name in FORMAT_COLUMNS] == [0, 0, 0, 0]
        assert [row(scored("#### 5", [1], [(0, 6)]))[name] for name in FORMAT_COLUMNS] == [0, 0, 0, 0.5]


class TestPerturbed:
    honest, text = "2 + 3 = 5\n#### 5", "2 + 3 = 6\n#### 6"
    spans = ((0, 8), (8, 9), (9, 15), (15, 16))

    def perturbed(self, **extra: str) -> dict[str, Any]:
        return row(
            scored(
                self.text, [1, 2, 3, 4], list(self.spans), source=Source.PERTURBED,
                truth=Truth(0, "offset number"), extra=extra,
            )
        )  # fmt: skip

    def test_what_it_says_of_itself_counts(self) -> None:
        extra = {"perturbed_kind": "swap", "perturbed_from_token": "2", "honest_trace_id": "t/honest"}
        found = self.perturbed(reference_solution=self.honest, **extra)
        assert (found["perturbed_kind"], found["perturbed_from_token"]) == ("swap", 2)
        assert (found["honest_trace_id"], found["probe"]) == ("t/honest", None)
        assert dict(found["extra"]) == extra

    def test_else_it_is_told_from_the_honest_text(self) -> None:
        # the first character that differs is the 8th, 5 against 6: the second token reaches past it
        found = self.perturbed(reference_solution=self.honest)
        assert (found["perturbed_kind"], found["perturbed_from_token"]) == ("offset number", 1)
        assert self.perturbed()["perturbed_from_token"] is None
        assert self.perturbed(reference_solution=self.text)["perturbed_from_token"] is None

    def test_other_traces_are_not_perturbed(self) -> None:
        one = scored(self.text, [1, 2, 3, 4], list(self.spans), truth=Truth(0, "slip"),
                     extra={"reference_solution": self.honest, "probe": "padding"})  # fmt: skip
        found = row(one)
        assert (found["perturbed_kind"], found["perturbed_from_token"], found["probe"]) == (None, None, "padding")

    def test_it_comes_back_as_it_was(self, tmp_path: Path) -> None:
        extra = {"perturbed_kind": "swap", "perturbed_from_token": "2", "reference_solution": self.honest}
        one = scored(self.text, [1, 2, 3, 4], list(self.spans), source=Source.PERTURBED, extra=extra)
        write_run(tmp_path / "r.parquet", [row(one)], {})
        assert read_trace(tmp_path / "r.parquet", "t").trace == one.trace


class TestUnscored:
    def test_everything_but_the_discriminators_is_there(self, tmp_path: Path) -> None:
        one = scored("2 + 3 = 5\n#### 5", [2, 0, 3, -1, 5], list(TestScores.spans))
        found = unscored_row(one.encoded, one.logprobs, run_id="r", checkpoint="start")
        assert set(found) == set(COLUMNS.names)
        full = row(one)
        same = [name for name in COLUMNS.names if found[name] == full[name]]
        assert {"problem_id", "text", "answer", "correct", "length", "log_prob_mean", *FORMAT_COLUMNS} <= set(same)
        assert (found["score_mean"], found["decision"], found["prompt_reward"]) == (None, None, None)
        write_run(tmp_path / "r.parquet", [found], {})
        stored = read_row(tmp_path / "r.parquet", "t")
        assert trace_of(stored) == one.trace
        assert [token["raw"] for token in stored["tokens"]] == [None] * 5
        with pytest.raises(StoreError, match="solution 't' has no rewards: no discriminator has read it"):
            read_trace(tmp_path / "r.parquet", "t")
        with pytest.raises(ValueError, match="no discriminator has read it"):
            scored_of(stored)


# ---------------------------------------------------------------------------------------------------- files


def many_rows() -> list[dict[str, Any]]:
    rng, rows = np.random.default_rng(1), []
    for number in range(5):
        extra = {"reference_solution": TestPerturbed.honest, "probe": "padding", "n": str(number)}
        one = scored(
            TestPerturbed.text, rng.normal(size=4).tolist(), list(TestPerturbed.spans), trace_id=f"t{number}",
            source=Source.PERTURBED, truth=Truth(0, "slip"), extra=extra,
        )  # fmt: skip
        rows.append(row(one))
    rows.append(row(scored("No idea at all.", [1, math.nan], [(0, 5), (5, 15)], trace_id="t5")))
    return rows


def test_filters_on_computed_columns(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_run(path, many_rows(), {})
    whole = read_run(path, ["trace_id", ANSWER_SCORE]).to_pandas()
    limit = float(whole[ANSWER_SCORE].median())
    found = read_run(path, ["trace_id"], (pc.field(ANSWER_SCORE) > limit) & (pc.field("probe") == "padding"))
    assert found.column_names == ["trace_id"]
    assert found.column(0).to_pylist() == whole["trace_id"][whole[ANSWER_SCORE] > limit].tolist()
    assert read_run(path, ["trace_id"], pc.field("length") > 99).num_rows == 0


def test_summaries_read_no_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "r.parquet", many_rows(), {})
    asked: list[Any] = []
    original = scored_run.pa.dataset.dataset

    class Watched:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self.data = original(*arguments, **named)

        def to_batches(self, **named: Any) -> Any:
            asked.extend(named["columns"])
            return self.data.to_batches(**named)

    monkeypatch.setattr(pyarrow.dataset, "dataset", Watched)
    read_run(tmp_path / "r.parquet", SUMMARY_COLUMNS)
    assert asked == SUMMARY_COLUMNS and "tokens" not in asked


def test_batches_are_small(tmp_path: Path) -> None:
    one = many_rows()[0]
    count = 2 * scored_run.ROWS_PER_GROUP + 1
    write_run(tmp_path / "r.parquet", [{**one, "trace_id": str(number)} for number in range(count)], {})
    sizes = [table.num_rows for table in read_batches(tmp_path / "r.parquet", ["trace_id"])]
    assert max(sizes) <= scored_run.ROWS_PER_GROUP and sum(sizes) == count


def test_a_file_of_this_version_stays_readable() -> None:
    """Eight samples of the embedded default, stored once; one has no answer. Its rows are made again from its traces:
    a change of a column's meaning needs a new version."""
    assert pq.read_schema(GOLDEN).metadata[scored_run.VERSION_KEY] == b"2"
    for stored in read_run(GOLDEN).to_pylist():
        again = row_of(scored_of(stored), localisation_of(stored), run_id=stored["run_id"])
        for name, value in again.items():
            if name == "score_product":  # it came with version 5
                assert stored[name] is None and value is not None
                continue
            assert value == (pytest.approx(stored[name], rel=1e-5) if isinstance(value, float) else stored[name]), name
    frame = read_run(GOLDEN, ["trace_id", "answer", "integer_answer", "score_credit_minimum", ANSWER_SCORE]).to_pandas()
    assert frame["integer_answer"].tolist() == [0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5]
    assert frame[ANSWER_SCORE].isna().tolist() == frame["answer"].isna().tolist()
    for index, trace_id in enumerate(frame["trace_id"]):
        one = read_trace(GOLDEN, trace_id)
        assert frame["score_credit_minimum"][index] == pytest.approx(trace_score(one, "credit_minimum"), rel=1e-5)
        if one.trace.answer is not None:  # the answer scope: '#### N', without the end token's empty span
            line = one.trace.text.rindex("####")
            mask = torch.tensor([[line <= start < end for start, end in one.encoded.spans]])
            unit, raw = one.standardisation, torch.from_numpy(one.raw)[None]
            values = standardise(raw, mask, torch.tensor([unit.mean]), torch.tensor([unit.std]))
            expected = float(score_rows(values, mask, "mean_discounted", gamma=0.9)[0])
            assert frame[ANSWER_SCORE][index] == pytest.approx(expected, rel=1e-4)


def test_every_column_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "scored-runs.md").read_text()
    assert f"Schema version {schema.SCHEMA_VERSION}" in page
    missing = [name for name in COLUMNS.names if f"| `{name}` |" not in page]
    assert not missing


# ------------------------------------------------------------------------------------------------- familiarity


def test_familiarity_and_its_consequence_are_columns_and_come_back() -> None:
    one = scored(TestScores.text, [2, 0, 3, -1, 5], list(TestScores.spans))
    unlike = Familiarity(-4.5, 0.25, 0.125, False, "odd words")
    found = row(one, familiarity=unlike)
    assert (found["cannot_judge"], found["familiar"], found["familiarity"]) == (True, False, -4.5)
    assert familiarity_of(found) == unlike
    assert verdict_of(found).ruling.kind == "cannot_judge"
    usual = Familiarity(-1.5, 50.0, 0.0, True, "usual words")
    assert verdict_of(row(one, familiarity=usual)).ruling.kind == "no_error"
    assert row(one, familiarity=usual)["cannot_judge"] is False
    unmeasured = row(one)
    assert (unmeasured["cannot_judge"], familiarity_of(unmeasured)) == (None, None)
    silent = scored(TestScores.text, [2, 2, 2, 2, 2], list(TestScores.spans))
    assert row(silent)["cannot_judge"] is True  # no signal, whatever the text


def test_an_older_file_opens_and_says_that_familiarity_was_not_measured(tmp_path: Path) -> None:
    one = scored(TestScores.text, [2, 0, 3, -1, 5], list(TestScores.spans))
    path = tmp_path / "old.parquet"
    write_run(path, [row(one)], {"n": 1})
    table = pq.read_table(path).drop_columns(list(schema.ADDED_COLUMNS))
    metadata = {**table.schema.metadata, scored_run.VERSION_KEY: b"2"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    old = read_row(path, "t")
    assert [old[name] for name in schema.ADDED_COLUMNS] == [None] * len(schema.ADDED_COLUMNS)  # type: ignore[literal-required]
    assert list(old) == COLUMNS.names
    assert read_run(path, ["trace_id", "cannot_judge"]).to_pylist() == [{"trace_id": "t", "cannot_judge": None}]
    assert read_run(path, None, pc.field("familiar").is_null()).num_rows == 1
    assert [finding.says for finding in verdict_of(old).findings][-1] == "Familiarity: not measured."
    pq.write_table(table.drop_columns(["answer"]).replace_schema_metadata(metadata), path)
    with pytest.raises(StoreError, match="no column answer"):
        read_run(path)
