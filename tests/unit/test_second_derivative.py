"""The gradient penalty: a second derivative, which neither packed rows nor checkpointed layers may change."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from irl_core.models import packed_attention
from irl_core.training.discriminator_step import differentiable_twice
from tests.tiny import changed, examples_of, expert_traces, pair_config, tiny_trainer, update_discriminator_of


@functools.cache
def update(packed: bool, checkpointed: bool, device: str = "cpu") -> tuple[dict[str, Tensor], float]:
    """The gradients of one step of the critic, and its loss."""
    config = changed(pair_config(), "discriminator", loss="wasserstein", gradient_penalty=0.7)
    trainer = tiny_trainer(changed(config, "model", packing=packed))
    critic = trainer.discriminator.model.to(device)
    trainer.policy.model.to(device)
    torch.manual_seed(1)
    for parameter in critic.head.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape).to(device)  # zeros would leave nothing to penalise
    for model in (trainer.policy.model, critic.backbone):
        if packed:
            packed_attention.use_packed_attention(model)
    if checkpointed:
        critic.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found: dict[str, Tensor] = {}

    def record(*arguments: object) -> None:
        found.update({name: p.grad.clone() for name, p in critic.named_parameters() if p.grad is not None})

    trainer.discriminator.optimizer.register_step_pre_hook(record)
    examples = examples_of(trainer, trainer.sample_groups(expert_traces(trainer.encoder)))
    return found, update_discriminator_of(trainer, examples)["disc/loss"]


@pytest.mark.parametrize(("packed", "checkpointed"), [(False, True), (True, False), (True, True)])
def test_the_penalty_is_a_trace_s_however_it_is_computed(packed: bool, checkpointed: bool) -> None:
    expected, loss = update(False, False)
    found, same = update(packed, checkpointed)
    assert same == pytest.approx(loss, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float((found[name] - value).abs().max()) <= 1e-4 * float(value.abs().max()), name


def test_the_kernel_for_packed_rows_has_no_second_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    query = type("OnGpu", (), {"shape": (1, 4, 9, 64), "is_cuda": True, "dtype": torch.bfloat16, "device": "cuda"})()
    assert packed_attention._varlen_runs(query, query)
    with differentiable_twice(True):
        assert not packed_attention._varlen_runs(query, query)
    with differentiable_twice(False):
        assert packed_attention._varlen_runs(query, query)
