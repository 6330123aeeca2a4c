"""Rewards carried between tokenizers by characters: golden spans, then any text with Qwen2's and Llama 3's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from irl_core.checkpoints.save import save_checkpoint
from irl_core.data.gsm8k import gsm8k
from irl_core.errors import CheckpointError, ConfigError, InputError
from irl_core.models.batching import collate
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.token_alignment import carried_from, carry_levels, check_same_tokens
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import Discriminator
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from irl_core.types import Span, Trace
from tests.tiny import scores_by, tiny_config, tiny_lens
from train import optimizers
from train.backends.tiny import build_model, train_tokenizer

EMOJI = "\U0001f9d1\u200d\U0001f680"


def levels(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def carried(values: Any, source: Sequence[Span], target: Sequence[Span], start: float = 0.0) -> list[float]:
    return list(carry_levels(values, source, target, start).tolist())


# ------------------------------------------------------------------------------------------------ by hand


def test_the_level_is_that_of_the_token_that_covers_the_last_character() -> None:
    # '12 cm': the discriminator reads 1|2| cm|end, the policy 12| c|m|end and then the other way round
    own, policy = [(0, 1), (1, 2), (2, 5), (5, 5)], [(0, 2), (2, 4), (4, 5), (5, 5)]
    assert carried(levels(1, 2, 3, 4), own, policy) == [2, 3, 3, 4]
    assert carried(levels(1, 2, 3, 4), policy, own) == [1, 1, 3, 4]


def test_pieces_of_a_character_go_in_order_and_the_last_to_the_last() -> None:
    whole, two, four = [(0, 1)], [(0, 1)] * 2, [(0, 1)] * 4
    assert carried(levels(1, 2, 3, 4), four, two) == [2, 4]
    assert carried(levels(1, 2), two, four) == [1, 1, 2, 2]
    assert carried(levels(1, 2, 3, 4), four, whole) == [4]
    assert carried(levels(7), whole, four) == [7, 7, 7, 7]
    # a space with the first byte of the character after it, as Qwen2 and Llama 3 have them
    assert carried(levels(1, 2), [(0, 2), (1, 2)], [(0, 1), (1, 2), (1, 2)]) == [1, 1, 2]


def test_what_has_been_read_is_never_unread() -> None:
    # e with its accent apart: one normalised character of two bytes for the one, e and two bytes for the other
    assert carried(levels(1, 2), [(0, 2), (0, 2)], [(0, 1), (1, 2), (1, 2)]) == [2, 2, 2]


def test_the_end_token_has_the_end_tokens_level_also_where_nothing_was_written() -> None:
    assert carried(levels(5), [(0, 0)], [(0, 0)]) == [5]
    assert carried(levels(1, 5), [(0, 3), (3, 3)], [(0, 2), (2, 3), (3, 3)]) == [1, 1, 5]
    assert carried(levels(1), [(0, 3)], [(0, 2), (2, 3)]) == [1, 1]  # cut off: neither has an end token
    assert carried(levels(1, 2), [(0, 1), (1, 3)], [(0, 3), (3, 3)]) == [2, 2]  # only one of them has


def test_before_the_first_token_the_level_is_the_prompts() -> None:
    assert carried(levels(1), [(1, 2)], [(0, 1), (1, 2)], start=-3.0) == [-3, 1]
    assert carried(levels(), [], [(0, 1)], start=-3.0) == [-3]
    assert carried(levels(1), [(0, 1)], []) == []


def test_one_level_a_token() -> None:
    with pytest.raises(ValueError, match="2 levels with 1 spans"):
        carry_levels(levels(1, 2), [(0, 1)], [(0, 1)], 0.0)


def test_a_discriminator_anchored_to_the_policy_needs_its_tokens() -> None:
    check_same_tokens("a", "a", "policy")
    check_same_tokens("a", "b", "own")
    with pytest.raises(ConfigError, match=r"set discriminator\.likelihood to own"):
        check_same_tokens("a", "b", "policy")


# ---------------------------------------------------------------------------------------------- any text


@cache
def _encoder(folder: Path) -> TraceEncoder:
    from transformers import AutoTokenizer

    return TraceEncoder(AutoTokenizer.from_pretrained(folder, local_files_only=True))


@pytest.fixture(scope="session")
def pair(shared: Path) -> tuple[TraceEncoder, TraceEncoder]:
    """Llama 3's tokens (digits in triples) and Qwen2's (single digits, NFC)."""
    folders = shared / "tokenizers" / "llama3", shared / "tokenizers" / "qwen2"
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("the tokenizers of the shared data are not here")
    return _encoder(folders[0]), _encoder(folders[1])


def assert_carried(policy: TraceEncoder, discriminator: TraceEncoder, trace: Trace) -> None:
    """What must hold for the discriminator's levels at the policy's tokens, whatever the text."""
    to_spans = policy.encode(trace).spans
    from_spans = discriminator.encode(replace(trace, token_ids=None, logprobs=None)).spans
    values = np.random.default_rng(len(trace.text)).normal(size=len(from_spans)).astype(np.float32)
    index = carried_from(from_spans, to_spans)
    found = carry_levels(values, from_spans, to_spans, -1.5)
    assert found.shape == (len(to_spans),) and np.isfinite(found).all() and found.dtype == np.float32
    assert (np.diff(index) >= 0).all() and (index >= 0).all() and (index < len(from_spans)).all()
    for token, (start, end) in zip(index, to_spans, strict=True):
        low, high = from_spans[token]
        assert low <= max(start, end - 1) and (high >= end or low == high), "not the token of its last character"
    if len(to_spans):
        assert index[-1] == len(from_spans) - 1
        assert abs(total_credit(found, -1.5) - total_credit(values, -1.5)) < 1e-6
    assert np.array_equal(carry_levels(values, from_spans, from_spans, -1.5), values), "identity"


def total_credit(raw: Any, start: float) -> float:
    """The sum of r_t - r_(t-1), which telescopes to the last level less the prompt's."""
    return float(np.diff(raw.astype(np.float64), prepend=start).sum())


ALPHABET = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(["12", "1234567", " 3", "\u0301", "e\u0301", "\u1100\u1161", EMOJI, "\n\n", "<|eot_id|>", "�"]),
)
TEXTS = st.lists(ALPHABET, max_size=40).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, finished=st.booleans())
@example(text="", finished=True)
@example(text="She pays $1,234.50 \U0001f600\U0001f9d1\u200d\U0001f680 e\u0301 \u1112\u1161\u11ab", finished=True)
@example(text="a\u0323\u0301b\u0315\u0300\u05ae\u0062", finished=False)  # NFC reorders combining marks
def test_any_text_between_the_real_tokenizers(
    pair: tuple[TraceEncoder, TraceEncoder], text: str, finished: bool
) -> None:
    llama, qwen = pair
    trace = replace(make_trace("What is 1 + 1?", text), finished=finished)
    assert_carried(llama, qwen, trace)
    assert_carried(qwen, llama, trace)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), text=TEXTS)
def test_sampled_tokens_need_not_be_how_the_text_would_be_tokenised(
    pair: tuple[TraceEncoder, TraceEncoder], data: st.DataObject, text: str
) -> None:
    llama, qwen = pair
    ids = llama.encode(make_trace("p", text)).completion_ids[:-1]
    cut = data.draw(st.integers(0, len(ids)))  # breaks off anywhere, inside a character too
    noise = data.draw(st.lists(st.integers(0, 127_999), max_size=5))
    sampled = (*ids[:cut], *noise)
    trace = llama.sampled_trace("p", sampled, [0.0] * len(sampled))
    assert llama.encode(trace).completion_ids == sampled, "the tokens as sampled, not as the text is tokenised"
    assert_carried(llama, qwen, trace)


def test_digits_of_a_number_share_its_level(pair: tuple[TraceEncoder, TraceEncoder]) -> None:
    llama, qwen = pair
    trace = make_trace("p", "1234")
    assert llama.encode(trace).spans == ((0, 3), (3, 4), (4, 4))
    assert qwen.encode(trace).spans == ((0, 1), (1, 2), (2, 3), (3, 4), (4, 4))
    assert carried(levels(1, 2, 3, 4, 5), qwen.encode(trace).spans, llama.encode(trace).spans) == [3, 4, 5]
    assert carried(levels(1, 2, 3), llama.encode(trace).spans, qwen.encode(trace).spans) == [1, 1, 1, 2, 3]


def test_gsm8k_between_the_real_tokenizers(pair: tuple[TraceEncoder, TraceEncoder], shared: Path) -> None:
    llama, qwen = pair
    for trace in islice(gsm8k("train", shared / "data" / "gsm8k"), 300):
        assert isinstance(trace, Trace)
        assert_carried(llama, qwen, trace)
        assert_carried(qwen, llama, trace)


# ------------------------------------------------------------------------------------------------ in the lens


@pytest.fixture
def mixed_lens() -> Lens:
    """A lens whose discriminator reads single bytes, its policy the pieces of a trained tokenizer."""
    lens = tiny_lens()
    own = train_tokenizer([], 260)
    lens.discriminator_encoder = TraceEncoder(own)
    lens.discriminator = Discriminator(build_model(tiny_config(), own), "anchored", "own").eval()
    return lens


def test_a_lens_scores_in_the_discriminators_tokens_and_shows_the_policys(mixed_lens: Lens) -> None:
    trace = make_trace("Is 1 + 1 = 2?", "Yes, 1 + 1 = 2.")
    (scored,) = mixed_lens.score([trace])
    assert mixed_lens.discriminator_encoder is not None
    own = mixed_lens.discriminator_encoder.encode(trace)
    (alone,) = scores_by(mixed_lens.discriminator, [own])
    spans = mixed_lens.encoder.encode(trace).spans
    assert len(own.spans) == len(trace.text) + 1 > len(spans) == len(scored.raw)
    assert scored.encoded.spans == spans and scored.prompt_reward == pytest.approx(alone.prompt_reward, abs=1e-6)
    np.testing.assert_allclose(scored.raw, [alone.raw[max(a, b - 1)] for a, b in spans], atol=1e-6)
    batch = collate([scored.encoded], mixed_lens.encoder.pad_id)
    logprobs = completion_logprobs(mixed_lens.policy, batch).detach()[0]
    np.testing.assert_allclose(scored.logprobs, logprobs, atol=1e-6)


def test_the_window_counts_the_tokens_of_the_reader_that_needs_more(mixed_lens: Lens) -> None:
    trace = make_trace("How many pens are left?", "pens pens " * 14)
    policy = mixed_lens.encoder.encode(trace)
    assert len(policy.prompt_ids) + len(policy.completion_ids) < mixed_lens.context_window == 160
    with pytest.raises(InputError, match="too long: 166 tokens"):
        mixed_lens.score([trace])


def saved(lens: Lens, folder: Path) -> Path:
    """A checkpoint with two tokenizers, as a run leaves it."""
    assert lens.discriminator_encoder is not None
    files = optimizers.model_files("policy", lens.policy) | optimizers.discriminator_files(lens.discriminator)
    files |= optimizers.tokenizer_files(lens.encoder.tokenizer, folder / "a")
    files |= optimizers.tokenizer_files(lens.discriminator_encoder.tokenizer, folder / "b", "discriminator/tokenizer")
    save_checkpoint(folder / "mixed", {**files, "config.json": lens.config | {"instruction": "Think first."}})
    return folder / "mixed"


def test_a_checkpoint_with_two_tokenizers_scores_as_it_did(mixed_lens: Lens, tmp_path: Path) -> None:
    again = Lens.load(saved(mixed_lens, tmp_path), device="cpu")
    assert again.encoder.instruction == "Think first."
    assert again.discriminator_encoder is not None and mixed_lens.discriminator_encoder is not None
    mixed_lens.encoder = TraceEncoder(mixed_lens.encoder.tokenizer, "Think first.")
    mixed_lens.discriminator_encoder = TraceEncoder(mixed_lens.discriminator_encoder.tokenizer, "Think first.")
    trace = make_trace("Is 1 + 1 = 2?", "Yes, 1 + 1 = 2.")
    (before,), (after,) = mixed_lens.score([trace]), again.score([trace])
    np.testing.assert_allclose(after.raw, before.raw, atol=1e-6)
    np.testing.assert_allclose(after.logprobs, before.logprobs, atol=1e-6)
    assert after.prompt_reward == pytest.approx(before.prompt_reward, abs=1e-6)


def test_a_checkpoint_whose_discriminator_could_not_be_read_is_refused(mixed_lens: Lens, tmp_path: Path) -> None:
    mixed_lens.discriminator.likelihood = "policy"
    with pytest.raises(CheckpointError, match=r"likelihood is 'policy', which needs the policy's tokens"):
        Lens.load(saved(mixed_lens, tmp_path), device="cpu")
