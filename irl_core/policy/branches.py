"""Other ways on from a place in a solution: the likeliest next tokens, and solutions that share its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irl_core.text.segmentation import make_trace
from irl_core.types import ScoredTrace, Source, Trace

if TYPE_CHECKING:
    from irl_core.models.tokenization import TraceEncoder


@dataclass(frozen=True, slots=True)
class Branch:
    """A token that may stand at a place of a solution.

    Attributes:
        text: its characters; empty for the one that ends the solution.
        logprob: the policy's log-probability of it there.
        reward, credit: the discriminator's raw reward on it there, and its change from the token before.
        written: whether it is the one that the solution has.
    """

    text: str
    token_id: int
    logprob: float
    reward: float
    credit: float
    written: bool


def likeliest(model: Any, ids: Sequence[int], most: int, vocabulary: int) -> list[tuple[int, float]]:
    """The likeliest next tokens behind ``ids`` with their log-probabilities, the likeliest first.

    ``vocabulary``: ids from there on stand for no token.
    """
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        output = model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False, logits_to_keep=1)
        values, chosen = output.logits[0, -1].float().log_softmax(-1)[:vocabulary].topk(most)
    return list(zip(chosen.tolist(), values.tolist(), strict=True))


def with_token(encoder: TraceEncoder, scored: ScoredTrace, place: int, token_id: int, logprob: float) -> Trace:
    """The solution up to a place, and one token there."""
    ids = (*scored.encoded.completion_ids[:place], token_id)
    logprobs = (*scored.logprobs[:place].tolist(), logprob)
    return encoder.sampled_trace(scored.trace.problem, ids, logprobs)


def branch(scored: ScoredTrace, token_id: int, written: int, logprob: float) -> Branch:
    """What a trace of `with_token` says of its last token, once it is scored; ``written``: the id that stands there."""
    raw, (start, end) = scored.raw, scored.encoded.spans[-1]
    before = scored.prompt_reward if len(raw) < 2 else float(raw[-2])
    text = scored.trace.text[start:end]
    return Branch(text, token_id, logprob, float(raw[-1]), float(raw[-1]) - before, token_id == written)


def ids_of(encoder: TraceEncoder, begun: str) -> tuple[int, ...]:
    """The tokens of the beginning of a solution; none where it is empty."""
    return encoder.encode(make_trace("-", begun, finished=False)).completion_ids if begun else ()


def continued(encoder: TraceEncoder, problem: str, begun: Sequence[int], rollout: Sequence[int], number: int) -> Trace:
    """A sampled completion behind the tokens that a solution was begun with."""
    ids = (*begun, *rollout)
    text, _ = encoder.spans_of_ids(ids)
    return make_trace(
        problem, text, source=Source.POLICY, token_ids=ids, finished=bool(rollout) and rollout[-1] in encoder.end_ids,
        trace_id=f"sample-{number}",
    )  # fmt: skip
