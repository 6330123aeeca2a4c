"""Weights read from a file lie in memory as those that torch made."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from train.training_state import ALIGNMENT, align, is_misaligned


def askew(values: torch.Tensor) -> torch.Tensor:
    """The same values, four bytes behind where torch would put them."""
    room = torch.empty(values.numel() + 1)
    return room[1:].copy_(values.reshape(-1)).view(values.shape)


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(askew(torch.arange(6.0).view(2, 3)))
        self.tied = torch.nn.Parameter(self.weight.data)
        self.straight = torch.nn.Parameter(torch.ones(3))
        self.counts: torch.Tensor
        self.register_buffer("counts", torch.arange(5)[1:])
        self.register_buffer("scale", askew(torch.tensor([0.5, 2.0])))


def learner(model: Any) -> Any:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.weight.grad = torch.ones(2, 3)
    optimizer.step()
    state = optimizer.state[model.weight]
    state["exp_avg"] = askew(state["exp_avg"])
    return SimpleNamespace(model=model, optimizer=optimizer)


def test_what_lies_askew_is_copied_and_no_value_changes() -> None:
    policy, discriminator, reference = learner(Tied()), learner(Tied()), Tied()
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (policy.model, discriminator.model, reference)]
    moments = policy.optimizer.state[policy.model.weight]["exp_avg"].clone()
    straight = policy.model.straight.data_ptr()
    assert is_misaligned(policy.model.weight.data)
    align([policy, discriminator], reference)
    for model, values in zip((policy.model, discriminator.model, reference), before, strict=True):
        for name, value in model.state_dict().items():
            assert torch.equal(value, values[name])
            assert name == "counts" or value.data_ptr() % ALIGNMENT == 0
        assert model.tied.data_ptr() == model.weight.data_ptr()  # one weight under two names
    assert policy.model.straight.data_ptr() == straight
    found = policy.optimizer.state[policy.model.weight]["exp_avg"]
    assert torch.equal(found, moments)
    assert found.data_ptr() % ALIGNMENT == 0
    # the optimiser still moves what the model computes with
    policy.model.weight.grad = torch.ones(2, 3)
    policy.optimizer.step()
    assert not torch.equal(policy.model.weight, before[0]["weight"])


@pytest.mark.parametrize("rest", [{}, {"reference": None}, {"reference": object()}])
def test_trainers_without_the_rest(rest: dict[str, Any]) -> None:
    # the last reference is the policy itself without its adapters, which is no module
    policy = learner(Tied())
    align([policy], **rest)
    assert not is_misaligned(policy.model.weight.data)


def test_files_give_tensors_that_lie_askew(tmp_path: Path) -> None:
    # the reason for all this; where it no longer holds, this module can go
    save_file({"a": torch.zeros(3), "b": torch.zeros(5), "c": torch.zeros(7)}, tmp_path / "x.safetensors")
    assert any(is_misaligned(value) for value in load_file(tmp_path / "x.safetensors").values())


def test_other_kinds_are_left_alone() -> None:
    assert not is_misaligned(torch.arange(5)[1:])  # whole numbers have no rounding
    assert not is_misaligned(torch.nn.Parameter(askew(torch.ones(3))))  # its .data is looked at
    paged: Any = askew(torch.ones(3))
    paged.is_paged = True
    assert not is_misaligned(paged)
