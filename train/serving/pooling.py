"""Sequences of tokens for ``/pooling``, and what is answered of them."""

from __future__ import annotations

from collections.abc import Sequence

from irl_core.errors import InputError
from irl_core.scorer import Lens
from train.serving.messages import MOST_TRACES, PoolingRequest, Usage
from train.serving.queue import Scored


def rows_of_messages(found: Scored) -> list[float]:
    """A value a token of the conversation: the rewards of the solution's, and the prompt's logit before them."""
    start = [found.scored.prompt_reward] * len(found.scored.encoded.prompt_ids)
    return [*start, *map(float, found.scored.raw)]


def sequences_of(lens: Lens, asked: PoolingRequest) -> list[list[int]]:
    """The tokens of texts or tokens that were asked for.

    Raises:
        InputError: the checkpoint's head reads more than tokens, there are too many sequences, or one is too long, too
            short, or has ids that the model does not have.
    """
    kind = getattr(lens.discriminator.head, "kind", "of a process-reward model")  # which reads marked steps
    if kind != "linear":
        raise InputError(
            f"input: checkpoint {lens.name} has the head {kind!r}, whose rewards begin where a solution begins; send "
            "messages (the problem, the solution), or use /score."
        )
    given = asked.input or []
    several = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    if not 1 <= len(several) <= MOST_TRACES:
        raise InputError(f"input: {len(several)} sequences; 1 to {MOST_TRACES} are answered at once.")
    encoder = lens.discriminator_encoder or lens.encoder
    sequences: list[list[int]] = []
    for number, one in enumerate(several):
        if isinstance(one, str):
            with lens.lock:
                ids = encoder.tokenizer(spelt(one, number), add_special_tokens=asked.add_special_tokens)["input_ids"]
        else:
            ids = list(one)  # type: ignore[arg-type]
        check_sequence(lens, ids, number)
        sequences.append(ids)
    return sequences


def spelt(text: str, number: int) -> str:
    """The text itself. Raises InputError where it holds half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"input.{number}: character {error.start} is half of a surrogate pair; remove it.") from None
    return text


def check_sequence(lens: Lens, ids: Sequence[int], number: int) -> None:
    """Raise InputError for a sequence that the discriminator cannot read."""
    vocabulary = lens.discriminator.backbone.get_input_embeddings().weight.shape[0]
    if not 2 <= len(ids) <= lens.context_window:
        raise InputError(f"input.{number}: {len(ids):,} tokens; 2 to {lens.context_window:,} are read.")
    if max(ids) >= vocabulary:
        raise InputError(f"input.{number}: token {max(ids):,}; the model has {vocabulary:,} tokens.")


def usage_of(rows: Sequence[Sequence[float]]) -> Usage:
    """The tokens that were read."""
    total = sum(map(len, rows))
    return {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0}
