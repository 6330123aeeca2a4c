"""The configured limits of prompt and completion, in tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irl_core.config import TrainConfig
from irl_core.types import Trace

if TYPE_CHECKING:
    from irl_core.models.tokenization import TraceEncoder

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """The configured limits of prompt and completion, in tokens; without an ``encoder`` every trace is within them.

    ``template`` is the number of tokens that the chat template adds to a problem.
    """

    encoder: TraceEncoder | None
    max_prompt: int
    max_completion: int
    template: int = 0

    @classmethod
    def of(cls, config: TrainConfig, encoder: TraceEncoder | None) -> LengthLimits:
        """The limits of a configuration."""
        template = 0 if encoder is None else len(encoder.encode_prompt(""))
        return cls(encoder, config.data.max_prompt_tokens, config.data.max_completion_tokens, template)

    def prompt(self, trace: Trace) -> bool:
        """Whether the prompt is short enough."""
        if self.encoder is None or surely_at_most(trace.problem, self.max_prompt - self.template):
            return True
        return len(self.encoder.encode_prompt(trace.problem)) <= self.max_prompt

    def completion(self, trace: Trace) -> bool:
        """Whether the completion, with its end token, is short enough."""
        if self.encoder is None or surely_at_most(trace.text, self.max_completion - 1):
            return True
        return len(self.encoder.encode(trace).completion_ids) <= self.max_completion

    def only(self, traces: list[Trace], say: Say) -> list[Trace]:
        """The traces within the limits; the number of others is said."""
        long_prompt = [not self.prompt(trace) for trace in traces]
        long_completion = [not self.completion(trace) for trace in traces]
        kept = [
            trace
            for trace, prompt, completion in zip(traces, long_prompt, long_completion, strict=True)
            if not (prompt or completion)
        ]
        if len(kept) < len(traces):
            say(
                f"left out of training: {len(traces) - len(kept):,} of {len(traces):,} solutions; {sum(long_prompt):,} "
                f"prompts are over data.max_prompt_tokens = {self.max_prompt}, {sum(long_completion):,} solutions over "
                f"data.max_completion_tokens = {self.max_completion}"
            )
        return kept


def surely_at_most(text: str, tokens: int) -> bool:
    """Whether a text has no more tokens for certain: at worst a tokenizer spells each ASCII character by itself."""
    return len(text) <= tokens and text.isascii()
