"""The data that flows through the system: frozen, validated, independent of any model.

Character spans are half-open ``(start, end)`` offsets into ``Trace.text``, the completion exactly as it was
written or sampled. Step indices are 0-based everywhere; outside conventions convert in ``irl_core.data.formats``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]
Floats = npt.NDArray[np.float32]


class Layout(StrEnum):
    """How a solution is written; decides where its steps and its final answer are."""

    THINK_ANSWER = "think-answer"
    GSM8K = "gsm8k"
    NUMBERED = "numbered"
    PLAIN = "plain"


class Source(StrEnum):
    """Where a trace comes from. Expert traces are class 1 of the discriminator, all others class 0."""

    EXPERT = "expert"
    POLICY = "policy"
    PERTURBED = "perturbed"
    EXTERNAL = "external"


def number_of(step: int | None) -> int | None:
    """The number, from 1, that a 0-based step has wherever one reads; None where there is none."""
    return None if step is None else step + 1


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a solution. ``role`` is ``answer`` for a closing line such as ``#### 12``."""

    start: int
    end: int
    text: str
    role: Literal["reasoning", "answer"] = "reasoning"

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end or len(self.text) != self.end - self.start:
            raise ValueError(f"step span ({self.start}, {self.end}) does not fit {len(self.text)} characters of text")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known to be right about a trace: its first wrong step (None = no error) and the kind of mistake."""

    first_error_step: int | None
    kind: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.first_error_step is not None and self.first_error_step < 0:
            raise ValueError(f"first_error_step is {self.first_error_step}; it is 0-based, or None for no error")


@dataclass(frozen=True, slots=True)
class Trace:
    """A problem with one solution, segmented.

    ``answer`` is the final answer found in the text (None = none found), ``reference_answer`` the right one,
    ``correct`` their agreement (None = not known). ``token_ids`` and ``logprobs`` are those the completion was
    sampled with; a sampled completion is never re-tokenised.
    """

    problem: str
    text: str
    steps: tuple[Step, ...]
    layout: Layout
    source: Source = Source.EXTERNAL
    trace_id: str = ""
    problem_id: str = ""
    answer: str | None = None
    reference_answer: str | None = None
    correct: bool | None = None
    truth: Truth | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    finished: bool = True
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        position = 0
        for number, step in enumerate(self.steps):
            if step.start < position or self.text[step.start : step.end] != step.text:
                raise ValueError(f"step {number} at ({step.start}, {step.end}) overlaps or is not in the text")
            position = step.end
        if self.truth and self.truth.first_error_step is not None and self.truth.first_error_step >= len(self.steps):
            raise ValueError(f"first_error_step {self.truth.first_error_step} of {len(self.steps)} steps")
        if self.token_ids is not None and self.logprobs is not None and len(self.token_ids) != len(self.logprobs):
            raise ValueError(f"{len(self.token_ids)} token ids with {len(self.logprobs)} log-probabilities")


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A perturbed copy of a solution: new text, the changed span in it, the first wrong step, the kind."""

    text: str
    span: Span
    first_error_step: int
    kind: str

    def __post_init__(self) -> None:
        if not 0 <= self.span[0] <= self.span[1] <= len(self.text):
            raise ValueError(f"changed span {self.span} lies outside a text of {len(self.text)} characters")


@dataclass(frozen=True, slots=True)
class EncodedTrace:
    """A trace as tokens: ``completion_ids[i]`` covers ``trace.text[spans[i][0]:spans[i][1]]``.

    The end-of-turn token, where the completion is finished, is the last of ``completion_ids`` with the empty
    span ``(len(text), len(text))``. Several tokens of one character share its span.
    """

    trace: Trace
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        if len(self.spans) != len(self.completion_ids):
            raise ValueError(f"{len(self.completion_ids)} completion tokens with {len(self.spans)} spans")
        if not self.prompt_ids:
            raise ValueError("an encoded trace needs at least one prompt token")


@dataclass(frozen=True, slots=True)
class Standardisation:
    """Mean and standard deviation that raw rewards are standardised with, and the traces they were taken from.

    A standard deviation of 0 means 'no signal': standardised rewards are then exactly 0.
    """

    mean: float
    std: float
    origin: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std >= 0):
            raise ValueError(f"mean {self.mean} and standard deviation {self.std} must be finite, the latter >= 0")


@dataclass(frozen=True, slots=True)
class ScoredTrace:
    """A trace with the discriminator's reward on every token of the completion.

    ``raw`` (T,) float32: the logit, eq. 4. ``logprobs`` (T,): the policy's log-probability of each token.
    ``prompt_reward``: the logit at the last prompt token, r_0 of the credit. All other signals (standardised,
    discounted, credit) are computed from these without a model: see ``irl_core.reward.rewards``.
    ``prompt_logprob``: mean log-probability of the prompt's tokens under the policy, None where it did not run.
    """

    encoded: EncodedTrace
    raw: Floats
    logprobs: Floats
    prompt_reward: float
    standardisation: Standardisation
    checkpoint: str = ""
    prompt_logprob: float | None = None

    def __post_init__(self) -> None:
        expected = (len(self.encoded.completion_ids),)
        if self.raw.shape != expected or self.logprobs.shape != expected:
            raise ValueError(f"rewards {self.raw.shape} and log-probabilities {self.logprobs.shape}, tokens {expected}")

    @property
    def trace(self) -> Trace:
        return self.encoded.trace

    @property
    def has_signal(self) -> bool:
        """Whether every reward is finite and they are not all the same."""
        return bool(np.isfinite(self.raw).all() and self.raw.size > 1 and np.ptp(self.raw) > 0)


Decision = Literal["error", "no_error", "uncertain"]


@dataclass(frozen=True, slots=True)
class Localisation:
    """The answer to 'where does it go wrong?': ``first_error_step`` is set exactly when the decision is ``error``.

    ``step_scores`` has one score a step (NaN where a step has no token); lower = more suspect. ``confidence`` is
    in [0, 1]; ``rule`` names the signal, the reduction and the choice; ``threshold`` the calibrated limit, and
    ``uncertain_threshold`` that of 'uncertain' (None = there is none, or it is not known). ``score_tells`` is whether
    held-out solutions of a higher score were more often right; None = not known, as of a trace that was stored by a
    version that did not write it.
    """

    decision: Decision
    first_error_step: int | None
    confidence: float
    rule: str
    threshold: float
    step_scores: tuple[float, ...]
    uncertain_threshold: float | None = None
    score_tells: bool | None = True

    def __post_init__(self) -> None:
        if (self.decision == "error") != (self.first_error_step is not None):
            raise ValueError(f"decision {self.decision!r} with first_error_step {self.first_error_step}")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence {self.confidence} is outside [0, 1]")
