"""The reward model: its heads by hand, its anchor, its batches, and that it comes back from a file as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from irl_core.checkpoints.manifest import verify
from irl_core.checkpoints.save import save_checkpoint
from irl_core.errors import CheckpointError
from irl_core.models.batching import collate
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import (
    HEAD_KINDS,
    INITIAL_ANCHOR,
    Discriminator,
    HeadKind,
    RewardHead,
    anchored,
    head_description,
    load_discriminator,
)
from irl_core.types import EncodedTrace
from tests.tiny import PROBLEM, expert_traces, scores_by, tiny_model, tiny_tokenizer
from train.optimizers import discriminator_files

ENCODER = TraceEncoder(tiny_tokenizer())
EXPERTS = expert_traces(ENCODER)
BATCH = collate(EXPERTS, ENCODER.pad_id)
OWN_KINDS = tuple(kind for kind in HEAD_KINDS if kind != "implicit")  # that one: test_comparisons.py
every_head = pytest.mark.parametrize("kind", OWN_KINDS)


def set_head(head: RewardHead, seed: int = 1) -> None:
    """Weights that are not the zeros of a new head."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.linear.weight.copy_(torch.randn(head.linear.weight.shape, generator=generator))
        head.linear.bias.fill_(0.25)
        if head.kind != "linear":
            head.anchor.fill_(0.7)


def discriminator(kind: HeadKind = "anchored", likelihood: Any = "own") -> Discriminator:
    result = Discriminator(tiny_model(8), kind, likelihood).eval()
    set_head(result.head)
    return result


def sampled_trace(length: int, seed: int) -> EncodedTrace:
    """A 'sample' with log-probabilities that no model gave it, so that one sees whose are used."""
    ids = torch.randint(4, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return ENCODER.encode(ENCODER.sampled_trace(PROBLEM, ids, [-0.01 * (n + 1) for n in range(length)]))


# -------------------------------------------------------------------------------------------- heads by hand


def head_of(kind: HeadKind) -> RewardHead:
    """``f(h) = 2 h_1 - h_2 + 0.5`` and ``a = 0.5``."""
    head = RewardHead(2, kind)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[2.0, -1.0]]))
        head.linear.bias.fill_(0.5)
    return head


HIDDEN = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])  # f = 2.5, -0.5, 1.5
PROMPT = torch.tensor([[0.0, 2.0]])  # f = -1.5
LOGPROBS = torch.tensor([[-1.0, -4.0, -100.0]])
MASK = torch.ones(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", [2.5, -0.5, 1.5]),
        # + 0.5 * -1, 0.5 * -4, 0.5 * -8: log p is clamped at -8
        ("anchored", [2.0, -2.5, -2.5]),
        # f(h_0) = -1.5, then the running sum of 2, -2.5, -2.5
        ("cumulative", [0.5, -2.0, -4.5]),
    ],
)
def test_heads_by_hand(kind: HeadKind, expected: list[float]) -> None:
    logits, start = head_of(kind)(HIDDEN, PROMPT, LOGPROBS, MASK)
    assert logits[0].tolist() == pytest.approx(expected)
    assert start.tolist() == [-1.5]


def test_credit_of_the_cumulative_head_is_its_increment() -> None:
    logits, start = head_of("cumulative")(HIDDEN, PROMPT, LOGPROBS, MASK)
    increments = torch.diff(torch.cat([start.unsqueeze(1), logits], dim=1))
    anchored, _ = head_of("anchored")(HIDDEN, PROMPT, LOGPROBS, MASK)
    torch.testing.assert_close(increments, anchored)


def test_a_masked_token_adds_nothing_to_the_sum() -> None:
    mask = torch.tensor([[True, False, True]])
    poisoned = LOGPROBS.masked_fill(~mask, float("nan"))
    logits, _ = head_of("cumulative")(HIDDEN, PROMPT, poisoned, mask)
    # -1.5 + 2 = 0.5, then -2.5 of the third token alone
    assert logits[0, [0, 2]].tolist() == pytest.approx([0.5, -2.0])


def test_below_the_floor_the_anchor_has_no_gradient() -> None:
    logprobs = torch.tensor([[-1.0, -8.5, -1e9]], requires_grad=True)
    head_of("anchored")(HIDDEN, PROMPT, logprobs, MASK)[0].sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.5, 0.0, 0.0]]


@every_head
def test_a_new_head_starts_at_the_anchor_alone(kind: HeadKind) -> None:
    fresh = Discriminator(tiny_model(8), kind).eval()
    output = fresh(BATCH)
    floor = output.logprobs.clamp(min=-8.0)
    expected = {"linear": 0 * floor, "anchored": 0.5 * floor, "cumulative": (0.5 * floor).cumsum(1)}[kind]
    mask = BATCH.response_mask
    torch.testing.assert_close(output.logits[mask], expected[mask])
    assert output.prompt_logit.eq(0.0).all()
    if kind != "linear":
        assert fresh.head.anchor.item() == INITIAL_ANCHOR == 0.5


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown head 'mlp'; choose one of linear, anchored, cumulative"):
        RewardHead(4, "mlp")  # type: ignore[arg-type]


# ------------------------------------------------------------------------- the whole against a plain loop


def plain_rewards(model: Discriminator, encoded: EncodedTrace) -> tuple[list[float], float]:
    """One trace, one token at a time, with the definitions of the module's docstring."""
    ids, start = [*encoded.prompt_ids, *encoded.completion_ids], len(encoded.prompt_ids)
    with torch.no_grad():
        output = model.backbone(input_ids=torch.tensor([ids]), output_hidden_states=True)
        hidden, logits = output.hidden_states[-1][0], output.logits[0].log_softmax(-1)
        level = [model.head.linear(state).item() for state in hidden]
    anchor = 0.0 if model.head.kind == "linear" else model.head.anchor.item()
    values = [level[t] + anchor * max(logits[t - 1, ids[t]].item(), -8.0) for t in range(start, len(ids))]
    if model.head.kind == "cumulative":
        values = [level[start - 1] + sum(values[: n + 1]) for n in range(len(values))]
    return values, level[start - 1]


@every_head
def test_a_batch_equals_the_plain_loop_one_by_one(kind: HeadKind) -> None:
    model = discriminator(kind)
    output = model(BATCH)
    for row, encoded in enumerate(EXPERTS):
        values, start = plain_rewards(model, encoded)
        torch.testing.assert_close(
            output.logits[row, : len(values)].detach(), torch.tensor(values), atol=1e-3, rtol=1e-4
        )
        assert output.prompt_logit[row].item() == pytest.approx(start, abs=1e-4)


def test_the_reward_of_a_token_does_not_see_what_follows() -> None:
    one = EXPERTS[0]
    other = EncodedTrace(one.trace, one.prompt_ids, (*one.completion_ids[:20], 99, 98), one.spans[:22])
    for kind in OWN_KINDS:
        model = discriminator(kind)
        whole, cut = (model(collate([trace], 0)).logits[0, :20] for trace in (one, other))
        torch.testing.assert_close(whole, cut, atol=1e-4, rtol=1e-4)


def test_the_anchor_is_the_backbones_own_likelihood() -> None:
    model = discriminator()
    torch.testing.assert_close(model(BATCH).logprobs, completion_logprobs(model.backbone, BATCH))


def test_the_anchor_to_the_policy_uses_what_it_is_given() -> None:
    model = discriminator(likelihood="policy")
    given = torch.full(BATCH.response_mask.shape, -2.0)
    low = model(BATCH, given)
    high = model(BATCH, given + 1.0)
    assert torch.equal(low.logprobs, given)
    # a = 0.7 a nat
    difference = (high.logits - low.logits)[BATCH.response_mask]
    torch.testing.assert_close(difference, torch.full_like(difference, 0.7))


def test_the_anchor_to_the_policy_does_not_run_without() -> None:
    with pytest.raises(ValueError, match=r"anchored to the policy's likelihood: pass policy_logprobs \(B, T\)"):
        discriminator(likelihood="policy")(BATCH)


def test_a_linear_head_can_be_given_an_anchor_to_the_policy_when_it_is_trained() -> None:
    learned, given = discriminator("linear"), torch.full(BATCH.response_mask.shape, -2.0)
    given[0, 0] = -50.0
    judge = anchored(learned, 0.5)
    before, after = learned(BATCH), judge(BATCH, given)
    gained = (after.logits - before.logits)[BATCH.response_mask]
    assert gained[0].item() == pytest.approx(-4.0)  # the floor of -8
    torch.testing.assert_close(gained[1:], torch.full_like(gained[1:], -1.0))
    torch.testing.assert_close(after.prompt_logit, before.prompt_logit)
    assert head_description(judge) == {"kind": "anchored", "likelihood": "policy"}
    with pytest.raises(ValueError, match="the head is anchored; only a linear one"):
        anchored(judge, 0.5)


def test_a_linear_head_needs_no_likelihood() -> None:
    assert discriminator("linear", "policy")(BATCH).logits.isfinite().all()


def test_the_head_is_float32_above_a_bfloat16_backbone() -> None:
    half = Discriminator(tiny_model(8).bfloat16(), "anchored").eval()
    set_head(half.head)
    assert {parameter.dtype for parameter in half.head.parameters()} == {torch.float32}
    output = half(BATCH)
    assert output.logits.dtype == output.prompt_logit.dtype == torch.float32
    exact = discriminator()(BATCH).logits[BATCH.response_mask]
    # bfloat16 has 8 bits: rewards of up to about 20 agree to a few per cent of their spread
    assert (output.logits[BATCH.response_mask] - exact).abs().mean() < 0.1 * exact.std()


@every_head
def test_every_part_learns(kind: HeadKind) -> None:
    model = discriminator(kind)
    model(BATCH).logits[BATCH.response_mask].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


# ------------------------------------------------------------------------------------------------- scoring


def as_tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.asarray(value))


@pytest.mark.parametrize("batch_tokens", [1, 150, 8192])
def test_scores_come_in_the_order_of_the_traces(batch_tokens: int) -> None:
    traces = [EXPERTS[1], EXPERTS[2], sampled_trace(5, 0), EXPERTS[0], EXPERTS[3], sampled_trace(9, 1)]
    model = discriminator()
    scores = scores_by(model, traces, batch_tokens=batch_tokens)
    assert len(scores) == len(traces)
    for encoded, one in zip(traces, scores, strict=True):
        raw, logprobs, start = one.raw, one.logprobs, one.prompt_reward
        values, expected_start = plain_rewards(model, encoded)
        assert raw.shape == logprobs.shape == (len(encoded.completion_ids),)
        assert raw.dtype == logprobs.dtype == np.float32
        torch.testing.assert_close(as_tensor(raw), torch.tensor(values), atol=1e-3, rtol=1e-4)
        assert start == pytest.approx(expected_start, abs=1e-4)


def test_scored_logprobs_are_the_recorded_ones_else_the_policys() -> None:
    policy, model = tiny_model(7), discriminator()
    recorded, expert = sampled_trace(6, 0), EXPERTS[0]
    own, policys = scores_by(model, [recorded, expert], policy, batch_tokens=1)
    assert own.logprobs.tolist() == pytest.approx([-0.01 * (n + 1) for n in range(6)])
    expected = completion_logprobs(policy, collate([expert], 0))[0].detach()
    torch.testing.assert_close(as_tensor(policys.logprobs), expected, atol=1e-4, rtol=1e-4)
    (without,) = scores_by(model, [expert])
    expected = completion_logprobs(model.backbone, collate([expert], 0))[0].detach()
    torch.testing.assert_close(as_tensor(without.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_recorded_logprobs_do_not_depend_on_the_batch() -> None:
    recorded = sampled_trace(6, 0)
    alone = scores_by(discriminator(), [recorded], tiny_model(7))[0].logprobs
    together = scores_by(discriminator(), [recorded, EXPERTS[0]], tiny_model(7))[0].logprobs
    torch.testing.assert_close(as_tensor(together), as_tensor(alone))


def test_scoring_leaves_the_policy_in_its_mode_and_no_gradient() -> None:
    policy, model = tiny_model(7).train(), discriminator().train()
    scores_by(model, EXPERTS, policy)
    assert policy.training
    assert all(p.grad is None for p in [*policy.parameters(), *model.parameters()])


def test_nothing_to_score() -> None:
    assert scores_by(discriminator(), []) == []


# --------------------------------------------------------------------------------------------- to files and back


def saved(model: Discriminator, directory: Path) -> Path:
    files = discriminator_files(model) | {"config.json": {"format": 1, "name": "t", "kind": "tiny"}}
    save_checkpoint(directory, files)
    verify(directory)
    return directory / "discriminator"


@every_head
def test_a_discriminator_comes_back_as_it_was(kind: HeadKind, tmp_path: Path) -> None:
    model = discriminator(kind)
    loaded = load_discriminator(saved(model, tmp_path / "checkpoint"))
    assert (loaded.head.kind, loaded.likelihood, loaded.training) == (kind, "own", False)
    expected, found = model.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    assert torch.equal(model(BATCH).logits, loaded(BATCH).logits)


def test_whose_likelihood_anchors_is_saved_too(tmp_path: Path) -> None:
    loaded = load_discriminator(saved(discriminator(likelihood="policy"), tmp_path / "checkpoint"))
    with pytest.raises(ValueError, match="pass policy_logprobs"):
        loaded(BATCH)


def test_a_bfloat16_backbone_keeps_its_float32_head(tmp_path: Path) -> None:
    half = Discriminator(tiny_model(8).bfloat16(), "anchored").eval()
    set_head(half.head)
    loaded = load_discriminator(saved(half, tmp_path / "checkpoint"))
    assert loaded.head.linear.weight.dtype == torch.float32
    assert torch.equal(loaded.head.linear.weight, half.head.linear.weight)
    for name, value in half.backbone.state_dict().items():
        assert torch.equal(loaded.backbone.state_dict()[name], value), name
        assert value.dtype == torch.bfloat16


def test_a_lost_or_foreign_head_is_named(tmp_path: Path) -> None:
    folder = saved(discriminator("linear"), tmp_path / "checkpoint")
    (folder / "head.json").write_text('{"kind": "anchored", "likelihood": "own"}')
    with pytest.raises(CheckpointError, match=r"(?s)head\.safetensors does not fit a anchored head.*anchor"):
        load_discriminator(folder)
    (folder / "head.json").write_text('{"kind": "mlp", "likelihood": "own"}')
    with pytest.raises(CheckpointError, match="no known head; kinds are linear, anchored, cumulative"):
        load_discriminator(folder)
    (folder / "head.json").write_text('{"kind": "linear", "likelihood": "own"}')
    (folder / "head.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"head\.safetensors"):
        load_discriminator(folder)
