"""The traces of an evaluation and the rows they become: samples, perturbed copies, probes, scored or read only."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from irl_core.checkpoints.description import trained_with
from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import verify
from irl_core.config import PolicyConfig
from irl_core.data.reward_hacking import probe_traces
from irl_core.errors import CheckpointError
from irl_core.models.batching import collate, token_budget_batches
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.pretrained import context_window, load_causal_lm, load_encoder
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.protocol import Rollout
from irl_core.policy.sampling import make_sampler
from irl_core.scorer import Lens
from irl_core.storage.rows import row_of, unscored_row
from irl_core.storage.schema import RefusedRow, ScoredRow
from irl_core.text.divergence import first_difference
from irl_core.text.perturbations import ALL_KINDS, perturb
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Floats, Source, Trace, Truth
from irl_core.validation import validated
from train.calibrate import problem_seed
from train.evaluate.problem_sets import Question
from train.evaluate.resumable import OnStep, Part
from train.score_file import ScoredRows, encode_all

TEMPERATURE, TOP_P = 1.0, 0.95
QUESTIONS_AT_ONCE = 16  # whose samples are one part of a file
TRACES_AT_ONCE = 256
BATCH_TOKENS = 8192
MAX_PROBED = 200

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, ``size`` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


# ------------------------------------------------------------------------------------------------------ sampling


class SampledPolicy(Protocol):
    """What solutions are sampled from: a policy that is loaded, or an engine in its place."""

    @property
    def encoder(self) -> TraceEncoder:
        """The encoder of its tokens."""

    def sample(
        self, questions: Sequence[Question], samples: int, seed: int, on_step: OnStep
    ) -> tuple[list[Trace], list[RefusedRow]]:
        """``samples`` solutions of each question, and a row for what could not be had."""


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy to sample: its model, its tokens, and how long its solutions may be."""

    name: str
    model: Any
    encoder: TraceEncoder
    max_new_tokens: int
    context: int
    settings: PolicyConfig

    @classmethod
    def of(cls, lens: Lens) -> LoadedPolicy:
        """The policy of a loaded checkpoint."""
        return cls.of_config(lens.name, lens.policy, lens.encoder, lens.config, lens.context_window)

    @classmethod
    def load(cls, path: Path, device: str) -> LoadedPolicy:
        """The policy of a checkpoint, calibrated or not. Raises CheckpointError."""
        verify(path)
        config = load_json(path / "config.json")
        model = load_causal_lm(path / "policy", device)
        encoder = load_encoder(path, model, config.get("instruction", ""))
        return cls.of_config(config["name"], model, encoder, config, context_window(model))

    @classmethod
    def of_config(
        cls, name: str, model: Any, encoder: TraceEncoder, config: Mapping[str, Any], context: int
    ) -> LoadedPolicy:
        """The policy with the sampler of its training; on a CPU with our own loop, which is as fast there."""
        settings, longest = PolicyConfig(), trained_with(config, "data").get("max_completion_tokens")
        if type(longest) is not int or longest < 1:
            raise CheckpointError(
                f"{name}: train_config.data.max_completion_tokens is {str(longest)[:40]}; a whole number above 0 is "
                "expected"
            )
        if next(model.parameters()).is_cuda:
            trained = trained_with(config, "policy")
            sampling = {key: trained[key] for key in ("sampler", "cache", "sampling_tokens") if key in trained}
            if sampling.get("sampler") == "engine":  # another evaluation's, if it runs at all
                del sampling["sampler"]
            settings = validated(PolicyConfig, sampling, CheckpointError, f"{name}: train_config.policy.")
        return cls(name, model, encoder, longest, context, settings)

    def fitting(self, questions: Sequence[Question]) -> tuple[list[Question], list[RefusedRow]]:
        """The questions that fit the context with a solution of the longest kind, and a row for each other one."""
        asked: list[Question] = []
        refused: list[RefusedRow] = []
        for question in questions:
            tokens = len(self.encoder.encode_prompt(question.text)) + self.max_new_tokens
            if tokens <= self.context:
                asked.append(question)
                continue
            message = f"the problem and {self.max_new_tokens:,} tokens need {tokens:,}; {self.context:,} are read"
            refused.append({"problem_id": question.expert.problem_id, "message": message})
        return asked, refused

    def sample(
        self, questions: Sequence[Question], samples: int, seed: int, on_step: OnStep
    ) -> tuple[list[Trace], list[RefusedRow]]:
        """``samples`` solutions of each question, and the questions that are too long for the context."""
        asked, refused = self.fitting(questions)
        drawn = make_sampler(self.settings, self.encoder)(
            self.model,
            [self.encoder.encode_prompt(question.text) for question in asked],
            num_samples=samples,
            max_new_tokens=self.max_new_tokens,
            seeds=[problem_seed(seed, question.text) for question in asked],
            temperature=TEMPERATURE,
            top_p=TOP_P,
            on_step=on_step,
        )
        traces = [
            self.trace_of(question, rollout, number)
            for question, rollouts in zip(asked, drawn, strict=True)
            for number, rollout in enumerate(rollouts)
        ]
        return traces, refused

    def trace_of(self, question: Question, rollout: Rollout, number: int) -> Trace:
        """A rollout as a trace, with the first error where the generator's checker knows it."""
        text, _ = self.encoder.spans_of_ids(rollout.token_ids)
        expert = question.expert
        return self.encoder.sampled_trace(
            expert.problem, rollout.token_ids, rollout.logprobs, reference_answer=expert.reference_answer,
            problem_id=expert.problem_id, trace_id=f"{expert.problem_id}/{number}", truth=question.truth(text),
            extra=question.extra,
        )  # fmt: skip


# --------------------------------------------------------------------------------------------- parts of a file


def scored_samples(
    policy: SampledPolicy, lens: Lens, questions: Sequence[Question], samples: int, seed: int
) -> Iterator[Part]:
    """Samples of the policy, scored by the discriminator."""
    for some in chunks(questions, QUESTIONS_AT_ONCE):

        def make(on_step: OnStep, some: Sequence[Question] = some) -> ScoredRows:
            traces, refused = policy.sample(some, samples, seed, on_step)
            return ScoredRows(scored_rows(lens, [policy.encoder.encode(trace) for trace in traces]), refused)

        yield Part(len(some) * samples, make)


def unscored_samples(
    load: Callable[[], LoadedPolicy], questions: Sequence[Question], samples: int, seed: int, run_id: str
) -> Iterator[Part]:
    """Samples of a policy that no discriminator reads; ``load`` is called when the first of them is made."""
    loaded: list[LoadedPolicy] = []
    for some in chunks(questions, QUESTIONS_AT_ONCE):

        def make(on_step: OnStep, some: Sequence[Question] = some) -> ScoredRows:
            if not loaded:
                loaded.append(load())
            policy, rows = loaded[0], []
            traces, refused = policy.sample(some, samples, seed, on_step)
            for trace in traces:
                logprobs = np.asarray(trace.logprobs, dtype=np.float32)
                rows.append(unscored_row(policy.encoder.encode(trace), logprobs, run_id=run_id, checkpoint=policy.name))
            return ScoredRows(rows, refused)

        yield Part(len(some) * samples, make)


def scored_traces(lens: Lens, traces: Sequence[Trace]) -> Iterator[Part]:
    """Traces that are there already, scored; those that are blank or too long are refused."""
    for some in chunks(traces, TRACES_AT_ONCE):

        def make(on_step: OnStep, some: Sequence[Trace] = some) -> ScoredRows:
            encoded, refused = encode_all(lens, some)
            return ScoredRows(scored_rows(lens, encoded), refused)

        yield Part(len(some), make)


def scored_rows(lens: Lens, encoded: Sequence[EncodedTrace]) -> list[ScoredRow]:
    """Rows of traces, in order."""
    scored = lens.score_encoded(encoded, BATCH_TOKENS)
    return [
        row_of(one, lens.locate(one), run_id=lens.name, familiarity=known)
        for one, known in zip(scored, lens.familiarities(scored), strict=True)
    ]


# ------------------------------------------------------------------------------------- perturbed copies and probes


def perturbed_traces(encoder: TraceEncoder, experts: Sequence[Trace], seed: int) -> list[Trace]:
    """A perturbed copy of each expert solution for each kind that applies, with its first wrong step and token."""
    traces = []
    for expert in experts:
        rng = random.Random(f"perturbed-{seed}-{expert.problem}")
        honest = encoder.encode(replace(expert, token_ids=None, logprobs=None)).completion_ids
        for kind in ALL_KINDS:
            change = perturb(expert, rng, (kind,))
            if change is None:
                continue
            trace = make_trace(
                expert.problem, change.text, reference_answer=expert.reference_answer, source=Source.PERTURBED,
                problem_id=expert.problem_id, trace_id=f"{expert.problem_id}/{kind}",
                truth=Truth(change.first_error_step, kind),
            )  # fmt: skip
            first = first_difference(honest, encoder.encode(trace).completion_ids)
            extra = {"perturbed_kind": kind, "perturbed_from_token": str(first), "honest_trace_id": expert.trace_id}
            traces.append(replace(trace, extra={**extra, "reference_solution": expert.text}))
    return traces


def probes_with_honest(experts: Sequence[Trace], seed: int) -> list[Trace]:
    """Each of the first expert solutions, and the reward-hacking probes made of it."""
    traces = []
    for expert in experts[:MAX_PROBED]:
        honest = replace(expert, token_ids=None, logprobs=None)
        rng = random.Random(f"probes-{seed}-{expert.problem}")
        traces += [honest, *(trace for _, trace in probe_traces(honest, experts, rng))]
    return traces


# ---------------------------------------------------------------------------------------------------- likelihood


def logprobs_under(model: Any, encoded: Sequence[EncodedTrace], pad_id: int) -> list[Floats]:
    """The log-probability of every token of each trace, (T,) each, under another model that reads the same tokens."""
    logprobs: list[Floats] = [np.zeros(0, dtype=np.float32)] * len(encoded)
    lengths = [len(one.prompt_ids) + len(one.completion_ids) for one in encoded]
    device = next(model.parameters()).device
    for indices in token_budget_batches(lengths, BATCH_TOKENS):
        with torch.no_grad():
            batch = collate([encoded[i] for i in indices], pad_id).to(device)
            rows = completion_logprobs(model, batch).cpu().numpy()
        for row, index in enumerate(indices):
            logprobs[index] = rows[row, : lengths[index] - len(encoded[index].prompt_ids)].copy()
    return logprobs
