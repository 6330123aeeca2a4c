"""The policy of an evaluation as an engine serves it: the checkpoint's prompts, the engine's samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.engine import Drawn, EngineClient, asks_of
from irl_core.policy.engine_requests import Drawing, Engine
from irl_core.policy.kept_samples import KeptSamples
from irl_core.storage.schema import RefusedRow
from irl_core.types import Trace
from train.calibrate import problem_seed
from train.evaluate.problem_sets import Question
from train.evaluate.resumable import OnStep
from train.evaluate.rollouts import TEMPERATURE, TOP_P, LoadedPolicy
from train.evaluate.settings import KEPT


@dataclass(slots=True)
class EnginePolicy:
    """An engine that is sampled in place of the policy of ``of``, whose prompts, tokens and limits it is asked with."""

    of: LoadedPolicy
    client: EngineClient
    kept: KeptSamples

    @classmethod
    def open(cls, of: LoadedPolicy, engine: Engine, folder: Path) -> EnginePolicy:
        """The engine, once it answers; what it drew before for this evaluation is in ``folder``.

        Raises:
            EngineError: it does not answer.
            StoreError: what is in ``folder`` was drawn by another model.
        """
        client = EngineClient(engine, of.encoder)
        return cls(of, client, KeptSamples(folder / KEPT, client.requests.model))

    @property
    def encoder(self) -> TraceEncoder:
        """The encoder of the policy's tokens."""
        return self.of.encoder

    def sample(
        self, questions: Sequence[Question], samples: int, seed: int, on_step: OnStep
    ) -> tuple[list[Trace], list[RefusedRow]]:
        """``samples`` solutions of each question; a row for each sample that did not come, and for each question that
        is too long. Raises EngineError where the engine is gone."""
        asked, refused = self.of.fitting(questions)
        asks = [
            (question, ask)
            for question in asked
            for ask in asks_of(self.encoder, question.text, samples, problem_seed(seed, question.text))
        ]
        drawing = Drawing(self.of.max_new_tokens, TEMPERATURE, TOP_P, self.of.context)
        drawn = self.client.draw([ask for _, ask in asks], drawing, kept=self.kept, on_step=on_step)
        traces: list[Trace] = []
        for (question, ask), sample in zip(asks, drawn, strict=True):
            expert, trace_id = question.expert, f"{question.expert.problem_id}/{ask.number}"
            if not isinstance(sample, Drawn) or not sample.text.strip():
                reason = "the engine's text is blank" if isinstance(sample, Drawn) else sample.reason
                refused.append({"trace_id": trace_id, "message": f"no sample: {reason}"})
                continue
            traces.append(
                self.client.trace_of(
                    ask, sample, reference_answer=expert.reference_answer, problem_id=expert.problem_id,
                    trace_id=trace_id, truth=question.truth(sample.text), extra=question.extra,
                )
            )  # fmt: skip
        return traces, refused
