"""Ways to an answer that use the reward: which solution is answered with, and how many tokens it took."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from irl_core import strategies
from irl_core.text.segmentation import make_trace
from irl_core.types import Localisation, Trace
from tests.app.fakes import FakeLens

PROBLEM = "Ben has 9 pens and gets 4 more. How many pens does he have?"


class Written(FakeLens):
    """A lens that samples the texts it is given, a word a token, and rewards them by what they say."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        super().__init__()
        self.texts, self.asked = texts, []
        self.encoder = Words()  # type: ignore[assignment]
        self.context_window = 1000

    def sample(self, problem: str, n: int, seed: int, *, begun: str = "", **options: Any) -> list[Trace]:
        self.asked.append((begun, n, options))
        written = [begun + text for text in self.texts[begun]][:n]
        assert len(written) == n
        limit = options.get("max_new_tokens")
        cut = [text if limit is None else " ".join(text.split(" ")[:limit]) for text in written]
        return [
            make_trace(problem, text, token_ids=tuple(range(len(text.split(" ")))), finished="####" in text)
            for text in cut
        ]

    def score(self, traces: list[Trace]) -> list[Any]:
        scored = [self._scored(one) for one in traces]
        values = [-5.0 if "bad" in one.text else 1.0 for one in traces]
        return [replace(one, raw=np.full_like(one.raw, value)) for one, value in zip(scored, values, strict=True)]

    def locate(self, scored: Any) -> Localisation:
        bad = next((n for n, step in enumerate(scored.trace.steps) if "bad" in step.text), None)
        return Localisation("no_error" if bad is None else "error", bad, 1.0, "", 0.0, ())


class Words:
    """An encoder of which only the tokens of a beginning are asked."""

    def encode_prompt(self, problem: str) -> tuple[int, ...]:
        return (1, 2)

    def encode(self, trace: Trace) -> Any:
        return type("Encoded", (), {"completion_ids": tuple(range(len(trace.text.split(" "))))})()


def test_a_revision_keeps_what_is_before_the_error_and_counts_the_new_tokens() -> None:
    lens = Written({"": ["9 + 4 = 13\nbad line\n#### 9"], "9 + 4 = 13\n": ["so 13\n#### 13"]})
    made = strategies.self_revision(lens, PROBLEM, 1)  # type: ignore[arg-type]
    assert made.trace.text == "9 + 4 = 13\nso 13\n#### 13" and made.trace.answer == "13"
    assert made.draft is not None and made.draft.trace.text.startswith("9 + 4 = 13\nbad")
    assert made.kept == len("9 + 4 = 13\n")
    first, whole, beginning = (len(one.split(" ")) for one in (made.draft.trace.text, made.trace.text, "9 + 4 = 13\n"))
    assert made.tokens == first + whole - beginning


def test_a_revision_that_is_no_better_is_not_taken() -> None:
    lens = Written({"": ["good\nbad\n#### 9"], "good\n": ["bad bad\n#### 13"]})
    made = strategies.self_revision(lens, PROBLEM, 1)  # type: ignore[arg-type]
    assert (made.trace.answer, made.draft, made.kept) == ("9", None, 0)
    nothing = strategies.self_revision(Written({"": ["fine\n#### 13"]}), PROBLEM, 1)  # type: ignore[arg-type]
    assert (nothing.trace.answer, nothing.draft) == ("13", None)


def test_what_was_written_is_told_in_words() -> None:
    (draft,) = Written({}).score([make_trace(PROBLEM, "one\nbad\n#### 9")])
    whole = make_trace(PROBLEM, "one\ntwo\n#### 13")
    told = "Written by self-revision: 1,200 tokens in all. "
    said = {
        kept: strategies.in_words("self-revision", strategies.Answered(whole, 1200, draft, kept)) for kept in (0, 4, 8)
    }
    assert said[0] == told + "Nothing of the first draft was kept."
    assert said[4] == told + "Its first step is of the first draft; from step 2 it is written anew."
    assert said[8] == told + "Its first 2 steps are of the first draft; from step 3 it is written anew."
    assert "Its first draft stands" in strategies.in_words("self-revision", strategies.Answered(whole, 9))
    assert strategies.in_words("guided decoding", strategies.Answered(whole, 9)) == (
        "Written by guided decoding: 9 tokens in all."
    )


def test_only_the_best_beginnings_are_written_to_their_end() -> None:
    good = " ".join(["fine"] * strategies.FIRST_LOOK)
    bad = " ".join(["bad"] * strategies.FIRST_LOOK)
    texts = {"": [f"{bad} #### 9", f"{good} #### 9", f"{bad} #### 9", f"{good} #### 9"], good: [" more\n#### 13"]}
    lens = Written(texts)
    made = strategies.early_rejection(lens, PROBLEM, 1, samples=4, kept=0.5)  # type: ignore[arg-type]
    assert made.trace.answer == "13"
    assert [(begun, n) for begun, n, _ in lens.asked] == [("", 4), (good, 1), (good, 1)]
    rest = len(f"{good} more\n#### 13".split(" ")) - strategies.FIRST_LOOK
    assert made.tokens == 4 * strategies.FIRST_LOOK + 2 * rest


def test_the_best_line_is_gone_on_with() -> None:
    lens = Written({"": ["bad\n", "9 + 4 = 13\n"], "9 + 4 = 13\n": ["bad #### 9", "#### 13"]})
    made = strategies.guided_decoding(lens, PROBLEM, 1, width=2)  # type: ignore[arg-type]
    assert made.trace.text == "9 + 4 = 13\n#### 13"
    assert all(options["until_line"] for _, _, options in lens.asked)
    stuck = Written({"": ["", ""]})
    stuck.sample = lambda problem, n, seed, **options: [make_trace(problem, options["begun"])] * n  # type: ignore[method-assign]
    stuck.score = lambda traces: [lens._scored(make_trace(PROBLEM, "9"))] * len(traces)  # type: ignore[method-assign]
    assert strategies.guided_decoding(stuck, PROBLEM, 1, width=2).tokens == 0  # type: ignore[arg-type]


def test_a_beginning_that_fills_the_window_is_answered_with() -> None:
    lens = Written({"": ["9 + 4 = 13\n", "bad\n"]})
    lens.context_window = 7  # two of the prompt, five of the line
    assert strategies.guided_decoding(lens, PROBLEM, 1, width=2).trace.text == "9 + 4 = 13\n"  # type: ignore[arg-type]


def test_a_vote_without_an_answer_takes_the_first() -> None:
    traces = [make_trace(PROBLEM, text) for text in ("no answer here", "#### 12", "#### 12.0", "#### 9")]
    assert strategies.elected(traces).text == "#### 12"
    assert strategies.elected(traces[:1]) is traces[0]


def test_the_control_takes_what_is_likeliest() -> None:
    lens = Written({"": []})
    scored = lens.score([make_trace(PROBLEM, "9"), make_trace(PROBLEM, "bad")])
    likely = [
        replace(one, logprobs=np.full_like(one.logprobs, value)) for one, value in zip(scored, (-2, -1), strict=True)
    ]
    assert (strategies.by_reward(likely), strategies.by_likelihood(likely)) == ([0, 1], [1, 0])


WAYS = {**strategies.STRATEGIES, **strategies.CONTROLS}


@pytest.mark.parametrize("name", list(WAYS))
def test_every_way_answers_with_a_real_model(name: str, lens: Any) -> None:
    made, again = WAYS[name](lens, PROBLEM, 1), WAYS[name](lens, PROBLEM, 1)
    assert made.tokens > 0 and (again.trace.text, again.tokens) == (made.trace.text, made.tokens)
