"""Score solutions with a checkpoint and say where they go wrong: what the command line and the app share.

``Lens`` holds the loaded models; everything below it works on ``ScoredTrace`` alone and runs no model, so a slider
may call it as often as it likes. Torch and transformers are imported when a checkpoint is loaded, not before.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from irl_core.types import EncodedTrace, Floats, Localisation, ScoredTrace, Source, Standardisation, Trace

if TYPE_CHECKING:
    from torch import Tensor

    from irl_core.encoding import TraceEncoder
    from irl_core.localisation import Calibration
    from irl_core.policy import Rollout

DEFAULT_GAMMA = 0.9
DEFAULT_BATCH_TOKENS = 8192
MAX_PROBLEM_CHARACTERS = 20_000
MAX_SOLUTION_CHARACTERS = 20_000
MAX_SAMPLES = 64
DEFAULT_NEW_TOKENS = 256
UNFAMILIAR_QUANTILE = 0.01
UNKNOWN_SHARE_LIMIT = 0.02

Scope = Literal["reference", "group"]


class InputError(ValueError):
    """An input that a user can mend: the message names the value, the limit and the mend, and is shown as it is."""


@dataclass(frozen=True, slots=True)
class Signals:
    """The four views of one trace's tokens, each ``(T,)`` float32."""

    raw: Floats
    standardised: Floats
    discounted: Floats
    credit: Floats


@dataclass(frozen=True, slots=True)
class Familiarity:
    """How much a problem is like those that the checkpoint was made for.

    ``score``: mean log-probability per prompt token under the policy. ``percentile``: the share (0-100) of held-out
    problems that score lower. ``unknown_share``: the share of tokens that the tokenizer does not know. ``familiar`` and
    ``percentile`` are None where the checkpoint stores no held-out quantiles: not measured is not the same as familiar.
    """

    score: float
    percentile: float | None
    unknown_share: float
    familiar: bool | None
    reason: str


def check_text(name: str, text: str, limit: int) -> None:
    """Refuse a text that is blank or longer than ``limit`` characters.

    Raises:
        InputError: naming what was given and the limit.
    """
    if not text.strip():
        raise InputError(f"The {name} is empty. Write or paste some text.")
    if len(text) > limit:
        raise InputError(f"The {name} has {len(text):,} characters; the limit is {limit:,}. Shorten it.")


def check_inputs(problem: str, solution: str | None = None) -> None:
    """Refuse a blank or overlong problem, or solution where one is given. Raises InputError."""
    check_text("problem", problem, MAX_PROBLEM_CHARACTERS)
    if solution is not None:
        check_text("solution", solution, MAX_SOLUTION_CHARACTERS)


class Lens:
    """A checkpoint, loaded: policy, discriminator, tokenizer and calibration, with one lock around all of them.

    Every method that runs a model or the tokenizer takes the lock, so a lens may be shared by threads.
    """

    def __init__(
        self,
        *,
        name: str,
        config: Mapping[str, Any],
        policy: Any,
        discriminator: Any,
        encoder: TraceEncoder,
        calibration: Calibration,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self.config = dict(config)
        self.policy = policy
        self.discriminator = discriminator
        self.encoder = encoder
        self.calibration = calibration
        self.device = device
        self.lock = threading.RLock()

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Lens:
        """The lens of the checkpoint at ``path``, every file verified before it is read.

        ``device`` is a torch device name; ``auto`` takes the GPU where there is one.

        Raises:
            CheckpointError: the directory is not a whole, untouched checkpoint.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from irl_core.checkpoints import load_json, verify
        from irl_core.discriminator import load_discriminator
        from irl_core.encoding import TraceEncoder
        from irl_core.localisation import Calibration

        verify(path)
        config = load_json(path / "config.json")
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        safely = {"local_files_only": True, "trust_remote_code": False}
        policy = AutoModelForCausalLM.from_pretrained(path / "policy", use_safetensors=True, **safely)
        return cls(
            name=config["name"],
            config=config,
            policy=policy.to(chosen).eval(),
            discriminator=load_discriminator(path / "discriminator").to(chosen).eval(),
            encoder=TraceEncoder(AutoTokenizer.from_pretrained(path, **safely)),
            calibration=Calibration.from_json(config["localisation"]),
            device=chosen,
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the checkpoint comes from: command, preset, seed, date, data, steps, code version."""
        return dict(self.config.get("provenance", {}))

    @property
    def default_trace_score(self) -> str:
        """The trace score that ranked best on held-out problems when the checkpoint was made."""
        return str(self.config.get("default_trace_score", "minimum"))

    @property
    def context_window(self) -> int:
        """The longest prompt plus completion, in tokens, that both models accept."""
        return min(_window(self.policy), _window(self.discriminator))

    @property
    def reference(self) -> Standardisation:
        """Mean and spread of raw rewards on held-out solutions, stored with the checkpoint."""
        stored = self.config["reference"]
        return Standardisation(stored["mean"], stored["std"], f"held-out solutions of checkpoint {self.name}")

    def encode(self, trace: Trace) -> EncodedTrace:
        """``trace`` as tokens. Raises InputError for a blank or overlong text, or one outside the context window."""
        check_inputs(trace.problem, trace.text)
        with self.lock:
            encoded = self.encoder.encode(trace)
        self._check_window(
            len(encoded.prompt_ids) + len(encoded.completion_ids), "The problem and the solution are too long"
        )
        return encoded

    def score(
        self,
        traces: Sequence[Trace],
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        standardise_over: Scope = "reference",
    ) -> list[ScoredTrace]:
        """The traces with a reward on every token, in the order given.

        ``standardise_over``: ``reference`` takes the checkpoint's held-out statistics, ``group`` those of these traces
        (which must then be solutions of one problem).

        Raises:
            InputError: a trace that ``encode`` refuses.
        """
        return self.score_encoded([self.encode(trace) for trace in traces], batch_tokens, standardise_over)

    def score_encoded(
        self, encoded: Sequence[EncodedTrace], batch_tokens: int = DEFAULT_BATCH_TOKENS, over: Scope = "reference"
    ) -> list[ScoredTrace]:
        """As ``score``, for traces that are tokens already."""
        from irl_core.discriminator import score_traces

        if not encoded:
            return []
        with self.lock:
            scored = score_traces(self.discriminator, self.policy, encoded, self.device, batch_tokens)
        unit = self.reference if over == "reference" else group_standardisation([raw for raw, _, _ in scored])
        return [
            ScoredTrace(trace, raw, logprobs, prompt_reward, unit, self.name)
            for trace, (raw, logprobs, prompt_reward) in zip(encoded, scored, strict=True)
        ]

    def sample(
        self,
        problem: str,
        n: int,
        seed: int,
        *,
        temperature: float = 1.0,
        top_p: float = 0.95,
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Trace]:
        """``n`` solutions sampled from the policy, the same for the same seed on a CPU.

        ``on_progress(done, total)`` is called after each token position with positions, at most ``max_new_tokens``.
        A completion that reached the limit has ``finished=False``.

        Raises:
            InputError: a blank or overlong problem, or ``n`` outside 1..MAX_SAMPLES.
        """
        if not 1 <= n <= MAX_SAMPLES:
            raise InputError(f"{n} samples asked for; choose between 1 and {MAX_SAMPLES}.")
        check_inputs(problem)
        with self.lock:
            prompt = self.encoder.encode_prompt(problem)
            self._check_window(len(prompt) + 1, "The problem is too long")
            length = min(max_new_tokens, self.context_window - len(prompt))
            rollouts = self._rollouts(prompt, n, seed, temperature, top_p, length, on_progress)
            return [
                self.encoder.sampled_trace(problem, one.token_ids, one.logprobs, trace_id=f"sample-{number}")
                for number, one in enumerate(rollouts, start=1)
            ]

    def _rollouts(
        self,
        prompt: Sequence[int],
        n: int,
        seed: int,
        temperature: float,
        top_p: float,
        length: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> list[Rollout]:
        import torch

        from irl_core.policy import sample

        groups = sample(
            self.policy,
            [prompt],
            num_samples=n,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=length,
            end_ids=self.encoder.end_ids,
            pad_id=self.encoder.pad_id,
            generator=torch.Generator(device=self.device).manual_seed(seed),
            on_step=on_progress,
        )
        return list(groups[0])

    def locate(self, scored: ScoredTrace) -> Localisation:
        """Where the trace first goes wrong, by the checkpoint's calibrated rule. Runs no model."""
        from irl_core.localisation import locate

        return locate(named_signals(scored), scored.encoded.spans, scored.trace.steps, self.calibration)

    def familiarity(self, problem: str, text: str | None = None) -> Familiarity:
        """How much ``problem`` is like the held-out problems of the checkpoint; measured, never guessed."""
        check_inputs(problem, text)
        with self.lock:
            prompt = self.encoder.encode_prompt(problem)
            self._check_window(len(prompt), "The problem is too long")
            score = prompt_logprob(self.policy, prompt)
            unknown = self._unknown_share(problem if text is None else f"{problem}\n{text}")
        quantiles = self.config["reference"].get("prompt_logprob_quantiles")
        return judge_familiarity(score, unknown, quantiles)

    def _unknown_share(self, text: str) -> float:
        tokenizer = self.encoder.tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids.count(tokenizer.unk_token_id) / max(len(ids), 1)

    def _check_window(self, tokens: int, what: str) -> None:
        if tokens > self.context_window:
            raise InputError(
                f"{what}: {tokens:,} tokens; checkpoint {self.name} reads at most {self.context_window:,}. "
                "Shorten the text or choose a checkpoint with a longer context."
            )


def _window(model: Any) -> int:
    return int(model.config.max_position_embeddings)


def prompt_logprob(policy: Any, prompt_ids: Sequence[int]) -> float:
    """Mean log-probability, in nats per token, of the prompt's tokens after the first under ``policy``.

    What ``Familiarity`` compares, and what the quantiles stored in a checkpoint must be computed with. A prompt of
    one token gives 0.0.
    """
    import torch

    if len(prompt_ids) < 2:
        return 0.0
    with torch.inference_mode():
        ids = torch.tensor([list(prompt_ids)], device=policy.device)
        logits = policy(input_ids=ids).logits[0, :-1].float()
        picked = logits.log_softmax(-1).gather(1, ids[0, 1:, None])
    return float(picked.mean())


def judge_familiarity(score: float, unknown_share: float, quantiles: Sequence[Sequence[float]] | None) -> Familiarity:
    """Compare a prompt's ``score`` with held-out ``quantiles``: pairs ``[q, value]`` with ascending ``q`` in [0, 1]."""
    if not quantiles:
        reason = "this checkpoint stores no held-out problems to compare with"
        return Familiarity(score, None, unknown_share, None, reason)
    levels, values = zip(*quantiles, strict=True)
    percentile = 100.0 * float(np.interp(score, values, levels, left=0.0, right=1.0))
    reasons = []
    if percentile < 100 * UNFAMILIAR_QUANTILE:
        limit = np.interp(UNFAMILIAR_QUANTILE, levels, values)
        reasons.append(
            f"{1 - UNFAMILIAR_QUANTILE:.0%} of held-out problems are worded in a way more likely to the policy "
            f"({score:.2f} nats per token; limit {limit:.2f})"
        )
    if unknown_share > UNKNOWN_SHARE_LIMIT:
        reasons.append(
            f"{unknown_share:.0%} of its pieces are unknown to the tokenizer ({UNKNOWN_SHARE_LIMIT:.0%} at most)"
        )
    if reasons:
        return Familiarity(score, percentile, unknown_share, False, "; ".join(reasons))
    reason = f"more likely to the policy than {percentile:.0f} % of held-out problems ({score:.2f} nats per token)"
    return Familiarity(score, percentile, unknown_share, True, reason)


def group_standardisation(rewards: Sequence[Floats]) -> Standardisation:
    """Mean and standard deviation (n - 1) over all tokens of a group of traces.

    Rewards that are not finite are left out; fewer than two values give a standard deviation of 0, 'no signal'.
    """
    values = np.concatenate([np.asarray(raw, dtype=np.float64) for raw in rewards])
    values = values[np.isfinite(values)]
    mean = float(values.mean()) if values.size else 0.0
    std = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return Standardisation(mean, std, f"group of {len(rewards)} samples")


def _row(values: Floats) -> Tensor:
    import torch

    return torch.from_numpy(np.array(values, dtype=np.float32)).unsqueeze(0)


def _standardised(scored: ScoredTrace, raw: Tensor) -> Tensor:
    import torch

    from irl_core.rewards import standardise

    unit = scored.standardisation
    return standardise(raw, torch.ones_like(raw, dtype=torch.bool), torch.tensor([unit.mean]), torch.tensor([unit.std]))


def signals(scored: ScoredTrace, gamma: float = DEFAULT_GAMMA) -> Signals:
    """The four views of a trace: raw, standardised, discounted (of the standardised, eq. 5) and credit. Runs no model.

    Raises:
        InputError: gamma outside [0, 1].
    """
    import torch

    from irl_core.rewards import credit, discount

    if not 0.0 <= gamma <= 1.0:
        raise InputError(f"gamma is {gamma}; choose a value between 0 and 1.")
    if scored.raw.size == 0:
        return Signals(scored.raw, scored.raw, scored.raw, scored.raw)
    raw = _row(scored.raw)
    keep = torch.ones_like(raw, dtype=torch.bool)
    standardised = _standardised(scored, raw)
    credits = credit(raw, keep, torch.tensor([scored.prompt_reward]))
    views = (raw, standardised, discount(standardised, keep, gamma), credits)
    return Signals(*(view[0].numpy() for view in views))


def named_signals(scored: ScoredTrace, gamma: float = DEFAULT_GAMMA) -> dict[str, Floats]:
    """The signals by name, with the policy's log-probability: what ``localisation`` chooses from."""
    views = signals(scored, gamma)
    return {
        "raw": views.raw,
        "standardised": views.standardised,
        "discounted": views.discounted,
        "credit": views.credit,
        "logprob": scored.logprobs,
    }


def trace_score(scored: ScoredTrace, kind: str, gamma: float = DEFAULT_GAMMA) -> float:
    """One number for ranking; higher is more expert-like. ``kind``: one of ``irl_core.rewards.TRACE_SCORES``.

    ``mean_discounted`` is taken of the standardised rewards (eq. 5), the others of the raw ones. NaN for no token.

    Raises:
        InputError: an unknown kind, or gamma outside [0, 1].
    """
    import torch

    from irl_core.rewards import TRACE_SCORES
    from irl_core.rewards import trace_score as score_rows

    if kind not in TRACE_SCORES:
        raise InputError(f"Unknown trace score {kind!r}; choose one of {', '.join(TRACE_SCORES)}.")
    if not 0.0 <= gamma <= 1.0:
        raise InputError(f"gamma is {gamma}; choose a value between 0 and 1.")
    if scored.raw.size == 0:
        return math.nan
    raw = _row(scored.raw)
    values = _standardised(scored, raw) if kind == "mean_discounted" else raw
    keep = torch.ones_like(raw, dtype=torch.bool)
    prompt = torch.tensor([scored.prompt_reward])
    return float(score_rows(values, keep, kind, prompt_reward=prompt, gamma=gamma)[0])  # type: ignore[arg-type]


def rank(scored: Sequence[ScoredTrace], kind: str, gamma: float = DEFAULT_GAMMA) -> list[int]:
    """Indices of the traces, best first; equal scores keep their order, undefined ones come last."""
    values = [trace_score(one, kind, gamma) for one in scored]
    return sorted(range(len(values)), key=lambda index: -values[index] if math.isfinite(values[index]) else math.inf)


def majority_answer(traces: Sequence[Trace]) -> tuple[str, int] | None:
    """The answer most traces agree on and their number; the first written wins a tie. None where none has an answer.

    Answers agree as numbers: 1,000 = 1000.0.
    """
    from irl_core.verifiable import answers_agree

    votes: list[tuple[str, int]] = []
    for answer in (trace.answer for trace in traces if trace.answer is not None):
        for index, (known, count) in enumerate(votes):
            if answers_agree(answer, known):
                votes[index] = (known, count + 1)
                break
        else:
            votes.append((answer, 1))
    return max(votes, key=lambda vote: vote[1]) if votes else None


def restandardise(scored: Sequence[ScoredTrace], unit: Standardisation) -> list[ScoredTrace]:
    """The same traces with rewards measured in another unit; no model runs."""
    return [replace(one, standardisation=unit) for one in scored]


def to_json(
    scored: Sequence[ScoredTrace],
    localisations: Sequence[Localisation],
    *,
    problem: str,
    checkpoint: str,
    gamma: float = DEFAULT_GAMMA,
    kind: str = "minimum",
) -> dict[str, Any]:
    """The result of an inspection as plain data, ready for ``json.dumps``; a number that is not finite becomes None.

    Returns:
        ``{checkpoint, problem, traces: [{text, answer, correct, trace_score, decision, first_error_step, confidence,
        rule, threshold, steps: [{start, end, text, score}], tokens: [{start, end, text, raw, standardised,
        discounted, credit, logprob}], arithmetic: [{start, end, text, value, stated}]}]}``. Spans are character
        offsets into ``text``; ``first_error_step`` is 0-based; ``arithmetic`` lists the false equations.
    """
    traces = [_trace_json(one, where, gamma, kind) for one, where in zip(scored, localisations, strict=True)]
    return {"checkpoint": checkpoint, "problem": problem, "traces": traces}


def _trace_json(scored: ScoredTrace, where: Localisation, gamma: float, kind: str) -> dict[str, Any]:
    trace = scored.trace
    return {
        "text": trace.text,
        "answer": trace.answer,
        "correct": trace.correct,
        "trace_score": _number(trace_score(scored, kind, gamma)),
        "decision": where.decision,
        "first_error_step": where.first_error_step,
        "confidence": _number(where.confidence),
        "rule": where.rule,
        "threshold": _number(where.threshold),
        "steps": _steps_json(trace, where),
        "tokens": _tokens_json(scored, gamma),
        "arithmetic": false_arithmetic(trace.text),
    }


def _steps_json(trace: Trace, where: Localisation) -> list[dict[str, Any]]:
    return [
        {"start": step.start, "end": step.end, "text": step.text, "score": _number(score)}
        for step, score in zip(trace.steps, where.step_scores, strict=True)
    ]


def _tokens_json(scored: ScoredTrace, gamma: float) -> list[dict[str, Any]]:
    values = {name: view for name, view in named_signals(scored, gamma).items()}
    names = ("raw", "standardised", "discounted", "credit", "logprob")
    text = scored.trace.text
    return [
        {"start": start, "end": end, "text": text[start:end], **{name: _number(values[name][index]) for name in names}}
        for index, (start, end) in enumerate(scored.encoded.spans)
    ]


def false_arithmetic(text: str) -> list[dict[str, Any]]:
    """The equations in ``text`` that do not hold: span, text, exact value and stated value; empty where all hold."""
    from irl_core.arithmetic import find_equations

    return [
        {
            "start": equation.start,
            "end": equation.end,
            "text": equation.text,
            "value": _number(equation.value),
            "stated": _number(equation.stated),
        }
        for equation in find_equations(text)
        if not equation.true
    ]


def _number(value: Any) -> int | float | None:
    """A JSON number: whole values as int where they were exact, None for what is not finite."""
    if getattr(value, "denominator", None) == 1:
        return int(value)
    try:
        number = float(value)
    except OverflowError:  # an exact fraction beyond the largest float
        return None
    return number if math.isfinite(number) else None
