"""A lens without models: rewards follow from the text by rules that a test can do by hand.

A token is a run of letters, a digit, or one other character; an emoji is three tokens on one span; an end token
closes. Raw rewards: a word +1.5, a digit +0.75, the sign ``=`` -3, everything else exactly 0. A problem with the word
'slowly' takes a second a solution.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np

from irl_core.checkpoints.find import CheckpointInfo
from irl_core.policy.branches import Branch
from irl_core.policy.familiarity import Familiarity
from irl_core.reward.token_scores import signals
from irl_core.scorer import check_inputs
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Localisation, ScoredTrace, Source, Standardisation, Trace

THRESHOLD = -2.0
calls: Counter[str] = Counter()
slow = {"seconds": 0.0}


def pieces(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for match in re.finditer(r"[^\W\d_]{1,12}|.", text, re.DOTALL):
        spans.extend([match.span()] * (3 if ord(match[0][0]) > 0xFFFF else 1))
    return [*spans, (len(text), len(text))]


def reward(piece: str) -> float:
    if piece.isalpha():
        return 1.5
    if piece.isdigit():
        return 0.75
    return -3.0 if piece == "=" else 0.0


class FakeLens:
    name = "fake-irl"  # as a checkpoint calls itself; its folder, by which it is listed, is another word
    device = computes_on = "cpu"
    default_trace_score = "minimum"

    def score(self, traces: list[Trace]) -> list[ScoredTrace]:
        calls["score"] += 1
        time.sleep(slow["seconds"] + sum("slowly" in trace.problem for trace in traces))
        return [self._scored(trace) for trace in traces]

    def _scored(self, trace: Trace) -> ScoredTrace:
        spans = pieces(trace.text)
        raw = np.array([reward(trace.text[start:end]) for start, end in spans], dtype=np.float32)
        if "broken" in trace.text:
            raw[:] = np.nan
        encoded = EncodedTrace(trace, (1,), tuple(range(100, 100 + len(spans))), tuple(spans))
        logprobs = np.full(len(spans), -0.5, dtype=np.float32)
        return ScoredTrace(encoded, raw, logprobs, 0.0, Standardisation(0.5, 1.0, "held-out solutions"), self.name)

    def sample(
        self,
        problem: str,
        n: int,
        seed: int,
        *,
        temperature: float = 1.0,
        begun: str = "",
        on_progress: object = None,
    ) -> list[Trace]:
        calls["sample"] += 1
        rng = random.Random(seed)
        traces = []
        for number in range(n):
            time.sleep(slow["seconds"])
            if callable(on_progress):
                on_progress(number + 1, n)
            answer = rng.choice((11, 11, 14))
            text = begun + f"She has {answer - 4} pens and gets 4 more.\n{answer - 4} + 4 = {answer}\n#### {answer}"
            traces.append(make_trace(problem, text, source=Source.POLICY, trace_id=f"sample-{number + 1}"))
        return traces

    def branches(self, scored: ScoredTrace, place: int) -> list[Branch]:
        """The written token, then a digit and the end, with the rewards of this lens."""
        before = float(scored.raw[place - 1]) if place else 0.0
        start, end = scored.encoded.spans[place]
        texts = [scored.trace.text[start:end], "1", ""]
        return [
            Branch(text, number, -0.5 - number, reward(text), reward(text) - before, number == 0)
            for number, text in enumerate(texts)
        ]

    def locate(self, scored: ScoredTrace) -> Localisation:
        credit = signals(scored, 0.9).credit
        scores = []
        for step in scored.trace.steps:
            inside = [i for i, (a, b) in enumerate(scored.encoded.spans) if a < step.end and b > step.start]
            scores.append(float(credit[inside].min()) if inside else float("nan"))
        rule = "credit, minimum of a step, first under the threshold"
        if "unsure" in scored.trace.text:
            return Localisation("uncertain", None, 0.5, rule, THRESHOLD, tuple(scores))
        bad = next((i for i, score in enumerate(scores) if score < THRESHOLD), None)
        decision = "no_error" if bad is None else "error"
        return Localisation(decision, bad, 0.875, rule, THRESHOLD, tuple(scores))

    def familiarities(self, scored: list[ScoredTrace]) -> list[Familiarity]:
        return [self.familiarity(one.trace.problem, one.trace.text) for one in scored]

    def familiarity(self, problem: str, text: str | None = None) -> Familiarity:
        check_inputs(problem, text)
        strange = "quantum" in problem
        reason = "99% of held-out problems are worded in a way more likely to the policy" if strange else "usual words"
        return Familiarity(-1.0, 0.0 if strange else 50.0, 0.0, not strange, reason)


def load(path: Path, device: str) -> FakeLens:
    calls["load"] += 1
    return FakeLens()


def catalogue() -> list[CheckpointInfo]:
    provenance = {"command": "none: a fake for tests", "seed": 7}
    config = {"name": FakeLens.name, "kind": "tiny", "localisation": {}}
    return [
        CheckpointInfo("fake", Path("/nonexistent/fake"), True, "", provenance, config),
        CheckpointInfo("damaged", Path("/nonexistent/damaged"), False, "model.safetensors: wrong sha256"),
    ]
