"""The exported page, the CSV and the words, from the plain data of an inspection."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from typing import Any

import pandas as pd
import pytest

from irl_core.report.csv_export import csv_of, safe_cell, to_csv
from irl_core.report.heatmap.export import embed, to_html
from irl_core.report.heatmap.payload import ranges
from irl_core.reward.wording import signed

HOSTILE = "</script><img src=x onerror=alert(1)> $5 and $10 \u2028 \x00 \U0001f600 <!--"


def a_token(start: int, end: int, text: str, raw: float | None) -> dict[str, Any]:
    values = dict.fromkeys(("standardised", "discounted", "credit"), 0.5)
    return {"start": start, "end": end, "text": text[start:end], "raw": raw, **values, "logprob": -0.25, "id": 7}


def a_result(text: str, **changes: Any) -> dict[str, Any]:
    middle = len(text) // 2
    trace = {
        "text": text, "answer": "5", "correct": None, "trace_score": -1.5, "decision": "error", "first_error_step": 0,
        "confidence": 0.75, "rule": "minimum credit", "threshold": -1.0, "familiarity": None, "cannot_judge": None,
        "verdict": {"kind": "error", "by": "reward", "step": 0, "headline": f"First error: {text}", "findings": []},
        "steps": [{"start": 0, "end": len(text), "text": text, "score": -2.5, "name": "step 1", "role": "reasoning"}],
        "tokens": [a_token(0, middle, text, 1.0), a_token(middle, len(text), text, -1.0)], "arithmetic": [],
        "quantities": [],
    }  # fmt: skip
    return {"checkpoint": "fake", "problem": text, "traces": [{**trace, **changes}]}


def embedded(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_embedded_data_is_the_result_unchanged() -> None:
    result = a_result(HOSTILE)
    assert embedded(to_html(result), "irl-lens-result") == result


def test_hostile_text_does_not_appear_as_markup() -> None:
    page = to_html(a_result(HOSTILE))
    assert "<img" not in page
    assert page.count("</script>") == 3  # two data elements and the renderer, none from the text
    assert embed("</script>") == '"\\u003c/script\\u003e"'


def test_the_policy_allows_the_pages_own_script_and_style_and_no_request() -> None:
    page = to_html(a_result("1 + 1 = 2"))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy and policy[1].startswith("default-src 'none';")
    for tag in ("script", "style"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert inside
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert not re.search(r"https?://", page)


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_html(a_result("1", threshold=float("nan")))


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "\t=1", " =1", "\uff1d1", "\ufeff=1", "\0-1"])
def test_a_cell_that_a_spreadsheet_would_compute_is_made_inert(text: str) -> None:
    assert safe_cell(text) == "'" + text


def test_other_cells_stay_as_they_are() -> None:
    assert [safe_cell(text) for text in ("pens", "3 = 3", "", " ")] == ["pens", "3 = 3", "", " "]


LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize("end", [*LINE_ENDS, "\r\n"])
def test_no_line_end_in_a_text_makes_a_live_cell(end: str) -> None:
    text = f"pens{end}=cmd(){end} +1{end}3 = 3"
    safe = f"pens{end}'=cmd(){end}' +1{end}3 = 3"
    assert safe_cell(text) == safe
    sheet = csv_of(pd.DataFrame({text: [text, None], "value": [1.5, 2.0]}))
    assert sheet == f'"{safe}","value"\n"{safe}",1.5\n"",2.0\n'
    tokens = to_csv(a_result(text))
    told = [row["text"] for row in csv.DictReader(io.StringIO(tokens, newline=""))]
    assert told == [safe_cell(part) for part in (text[: len(text) // 2], text[len(text) // 2 :])]
    for row in (*sheet.splitlines(), *tokens.splitlines()):
        assert not row.lstrip(' ",').startswith(tuple("=+-@")), row


def test_csv_has_a_row_a_token_with_its_values() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(a_result("=2+2")))))
    assert [row["text"] for row in rows] == ["'=2", "'+2"]
    assert [(row["start"], row["end"], row["step_number"], row["raw"], row["id"]) for row in rows] == [
        ("0", "2", "1", "1.0", "7"), ("2", "4", "1", "-1.0", "7")]  # fmt: skip
    assert [(row["trace_number"], row["token_number"]) for row in rows] == [("1", "1"), ("1", "2")]  # as on the page


def test_every_token_in_the_csv_says_whether_the_model_can_judge_its_trace() -> None:
    unlike = {"score": -5.0, "percentile": None, "unknown_share": 0.0, "familiar": False, "reason": "its wording"}
    barred = a_result("2+2", cannot_judge=True, familiarity=unlike)
    silent = a_result("2+2", cannot_judge=True)  # without a signal, and its familiarity not measured
    both = {**barred, "traces": [*barred["traces"], *silent["traces"], *a_result("2+2")["traces"]]}
    read = pd.read_csv(io.StringIO(to_csv(both))).astype(object)
    read = read.where(read.notna(), None)
    told = read.groupby("trace_number")[["cannot_judge", "familiar"]].agg(lambda column: column.tolist())
    assert told["cannot_judge"].tolist() == [[True, True], [True, True], [None, None]]
    assert told["familiar"].tolist() == [[False, False], [None, None], [None, None]]


def test_the_scale_is_fixed_and_grows_with_gamma_for_discounted_rewards_only() -> None:
    # 3 * sqrt(1 / (1 - 0.9)) = 9.487; 3 * sqrt(1 / 0.01) = 30 where gamma is 1
    assert ranges(0.9) == {"raw": 6.0, "standardised": 3.0, "credit": 3.0, "discounted": 9.5}
    assert (ranges(0.0)["discounted"], ranges(1.0)["discounted"]) == (3.0, 30.0)


def test_numbers_carry_their_sign() -> None:
    assert [signed(value) for value in (1.0, -1.0, 0.0, -0.001, None)] == [
        "+1.00", "\u22121.00", "0.00", "0.00", "no signal"]  # fmt: skip
