"""The traces of an evaluation and the rows they become: samples, corrupted copies, probes, scored or read only."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import verify
from irl_core.config import PolicyConfig
from irl_core.data.reward_hacking import probe_traces
from irl_core.errors import InputError
from irl_core.models.batching import collate, token_budget_batches
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.pretrained import load_causal_lm, load_encoder
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.sampling import make_sampler
from irl_core.scorer import Lens
from irl_core.storage.rows import row_of, unscored_row
from irl_core.storage.schema import RefusedRow, ScoredRow
from irl_core.text.divergence import first_difference
from irl_core.text.perturbations import ALL_KINDS, corrupt
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Source, Trace, Truth
from train.calibrate import problem_seed
from train.evaluate.problem_sets import Question
from train.evaluate.resumable import Made, OnStep, Part

TEMPERATURE, TOP_P = 1.0, 0.95
QUESTIONS_AT_ONCE = 16  # whose samples are one part of a file
TRACES_AT_ONCE = 256
BATCH_TOKENS = 8192
MAX_PROBED = 200

Floats = npt.NDArray[np.float32]
T = TypeVar("T")


def windows(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, ``size`` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


# ------------------------------------------------------------------------------------------------------ sampling


@dataclass(frozen=True, slots=True)
class Voice:
    """A policy that is asked: its model, its tokens, and how long its solutions may be."""

    name: str
    model: Any
    encoder: TraceEncoder
    max_new_tokens: int
    context: int
    settings: PolicyConfig

    @classmethod
    def of(cls, lens: Lens) -> Voice:
        """The policy of a loaded checkpoint."""
        return cls._of(lens.name, lens.policy, lens.encoder, lens.config, lens.context_window)

    @classmethod
    def load(cls, path: Path, device: str) -> Voice:
        """The policy of a checkpoint, calibrated or not. Raises CheckpointError."""
        verify(path)
        config = load_json(path / "config.json")
        model = load_causal_lm(path / "policy", device)
        encoder = load_encoder(path, model, str(config.get("instruction", "")))
        return cls._of(str(config["name"]), model, encoder, config, int(model.config.max_position_embeddings))

    @classmethod
    def _of(cls, name: str, model: Any, encoder: TraceEncoder, config: Any, context: int) -> Voice:
        trained = config["train_config"]
        length = int(trained["data"]["max_completion_tokens"])
        return cls(name, model, encoder, length, context, _settings(trained["policy"], model))

    def answers(
        self, questions: Sequence[Question], samples: int, seed: int, on_step: OnStep
    ) -> tuple[list[Trace], list[RefusedRow]]:
        """``samples`` solutions of each question, and the questions that were too long to be asked."""
        asked, refused = self._short_enough(questions)
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
            self._trace(question, rollout, number)
            for question, rollouts in zip(asked, drawn, strict=True)
            for number, rollout in enumerate(rollouts)
        ]
        return traces, refused

    def _trace(self, question: Question, rollout: Any, number: int) -> Trace:
        text, _ = self.encoder.spans_of_ids(rollout.token_ids)
        expert = question.expert
        return self.encoder.sampled_trace(
            expert.problem, rollout.token_ids, rollout.logprobs, reference_answer=expert.reference_answer,
            problem_id=expert.problem_id, trace_id=f"{expert.problem_id}/{number}", truth=question.truth(text),
            extra=question.known,
        )  # fmt: skip

    def _short_enough(self, questions: Sequence[Question]) -> tuple[list[Question], list[RefusedRow]]:
        asked: list[Question] = []
        refused: list[RefusedRow] = []
        for question in questions:
            tokens = len(self.encoder.encode_prompt(question.text)) + self.max_new_tokens
            if tokens <= self.context:
                asked.append(question)
            else:
                message = f"the problem and {self.max_new_tokens:,} tokens need {tokens:,}; {self.context:,} are read"
                refused.append({"problem_id": question.expert.problem_id, "message": message})
        return asked, refused


def _settings(trained: Mapping[str, Any], model: Any) -> PolicyConfig:
    """How the policy was sampled in training; on a CPU our own loop, which is as fast there."""
    if not next(model.parameters()).is_cuda:
        return PolicyConfig()
    return PolicyConfig(**{name: trained[name] for name in ("sampler", "cache", "sampling_tokens") if name in trained})


def scored_samples(voice: Voice, lens: Lens, questions: Sequence[Question], samples: int, seed: int) -> Iterator[Part]:
    """Samples of the policy, scored by the discriminator."""
    for some in windows(questions, QUESTIONS_AT_ONCE):

        def make(on_step: OnStep, some: Sequence[Question] = some) -> Made:
            traces, refused = voice.answers(some, samples, seed, on_step)
            return scored_rows(lens, [voice.encoder.encode(trace) for trace in traces]), refused

        yield Part(len(some) * samples, make)


def read_samples(
    voice: Callable[[], Voice], questions: Sequence[Question], samples: int, seed: int, run_id: str
) -> Iterator[Part]:
    """Samples of a policy that no discriminator reads; ``voice`` is called when the first of them is made."""
    loaded: list[Voice] = []
    for some in windows(questions, QUESTIONS_AT_ONCE):

        def make(on_step: OnStep, some: Sequence[Question] = some) -> Made:
            if not loaded:
                loaded.append(voice())
            one = loaded[0]
            traces, refused = one.answers(some, samples, seed, on_step)
            return [read_row(one.encoder.encode(trace), one.name, run_id) for trace in traces], refused

        yield Part(len(some) * samples, make)


def read_row(encoded: EncodedTrace, name: str, run_id: str) -> ScoredRow:
    """The row of a sampled trace that no discriminator has read."""
    assert encoded.trace.logprobs is not None
    return unscored_row(encoded, np.asarray(encoded.trace.logprobs, dtype=np.float32), run_id=run_id, checkpoint=name)


def scored_rows(lens: Lens, encoded: Sequence[EncodedTrace]) -> list[ScoredRow]:
    """Rows of traces, in order."""
    return [row_of(one, lens.locate(one), run_id=lens.name) for one in lens.score_encoded(encoded, BATCH_TOKENS)]


def scored_traces(lens: Lens, traces: Sequence[Trace]) -> Iterator[Part]:
    """Traces that are there already, scored; those that are blank or too long are refused."""
    for some in windows(traces, TRACES_AT_ONCE):

        def make(on_step: OnStep, some: Sequence[Trace] = some) -> Made:
            encoded, refused = encodable(lens, some)
            return scored_rows(lens, encoded), refused

        yield Part(len(some), make)


def encodable(lens: Lens, traces: Sequence[Trace]) -> tuple[list[EncodedTrace], list[RefusedRow]]:
    """The traces as tokens, and those that the checkpoint cannot read."""
    encoded: list[EncodedTrace] = []
    refused: list[RefusedRow] = []
    for trace in traces:
        try:
            encoded.append(lens.encode(trace))
        except InputError as error:
            refused.append({"trace_id": trace.trace_id, "message": str(error)})
    return encoded, refused


# ------------------------------------------------------------------------------------- corrupted copies and probes


def corrupted_traces(encoder: TraceEncoder, experts: Sequence[Trace], seed: int) -> list[Trace]:
    """One corrupted copy of each expert solution for each kind that applies, with its first wrong step and token."""
    return [
        trace
        for expert in experts
        for trace in _corrupted(encoder, expert, random.Random(f"perturbed-{seed}-{expert.problem}"))
    ]


def _corrupted(encoder: TraceEncoder, expert: Trace, rng: random.Random) -> Iterator[Trace]:
    honest = encoder.encode(replace(expert, token_ids=None, logprobs=None)).completion_ids
    for kind in ALL_KINDS:
        change = corrupt(expert, rng, (kind,))
        if change is None:
            continue
        trace = make_trace(
            expert.problem, change.text, reference_answer=expert.reference_answer, source=Source.PERTURBED,
            problem_id=expert.problem_id, trace_id=f"{expert.problem_id}/{kind}",
            truth=Truth(change.first_error_step, kind),
        )  # fmt: skip
        first = first_difference(honest, encoder.encode(trace).completion_ids)
        extra = {"perturbed_kind": kind, "perturbed_from_token": str(first), "honest_trace_id": expert.trace_id}
        yield replace(trace, extra={**extra, "reference_solution": expert.text})


def probes_with_honest(experts: Sequence[Trace], seed: int) -> list[Trace]:
    """Each of the first expert solutions, and the probes made of it."""
    found = []
    for expert in experts[:MAX_PROBED]:
        honest = replace(expert, token_ids=None, logprobs=None)
        rng = random.Random(f"probes-{seed}-{expert.problem}")
        found += [honest, *(trace for _, trace in probe_traces(honest, experts, rng))]
    return found


# ---------------------------------------------------------------------------------------------------- likelihood


def logprobs_under(model: Any, encoded: Sequence[EncodedTrace], pad_id: int) -> list[Floats]:
    """The log-probability of every token of each trace (T,) under another model that reads the same tokens."""
    found: list[Floats] = [np.zeros(0, dtype=np.float32)] * len(encoded)
    lengths = [len(one.prompt_ids) + len(one.completion_ids) for one in encoded]
    device = next(model.parameters()).device
    for indices in token_budget_batches(lengths, BATCH_TOKENS):
        with torch.no_grad():
            batch = collate([encoded[i] for i in indices], pad_id).to(device)
            rows = completion_logprobs(model, batch).cpu().numpy()
        for row, index in enumerate(indices):
            found[index] = rows[row, : lengths[index] - len(encoded[index].prompt_ids)].copy()
    return found
