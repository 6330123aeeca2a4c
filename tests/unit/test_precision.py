"""The precision that a CPU computes in, adapters that compute as their base does, and merged adapters."""

from __future__ import annotations

import pytest
import torch

from irl_core.errors import ConfigError, InputError
from irl_core.models import precision
from irl_core.models.batching import collate
from irl_core.models.logprobs import completion_logprobs, logprobs_of_hidden
from irl_core.models.precision import compile_layers, compute_adapters_in, cpu_precision, merged
from irl_core.models.pretrained import Base
from tests.small_models import random_model
from tests.unit.test_packing import VOCABULARY, lora, traces


def test_the_faster_precision_is_chosen_unless_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.bfloat16: 1.0, torch.float32: 8.0}
    monkeypatch.setattr(precision, "measured_seconds", lambda: seconds)
    monkeypatch.delenv(precision.PRECISION_VARIABLE, raising=False)
    assert cpu_precision() == "bfloat16"
    assert precision.cpu_precision_in_words().startswith("in bfloat16: bfloat16 products run at 8.0 times")
    seconds[torch.bfloat16] = 16.0
    assert cpu_precision() == "float32"
    assert precision.cpu_precision_in_words().startswith("in float32: bfloat16 products run at 0.5 times")
    monkeypatch.setenv(precision.PRECISION_VARIABLE, "bfloat16")
    assert cpu_precision() == "bfloat16"
    monkeypatch.setenv(precision.PRECISION_VARIABLE, "half")
    with pytest.raises(InputError, match="IRL_LENS_CPU_PRECISION is 'half'; set it to auto, bfloat16 or float32"):
        cpu_precision()


def test_a_measurement_is_made_once_and_is_a_time() -> None:
    precision.measured_seconds.cache_clear()
    first = precision.measured_seconds()
    assert all(0 < seconds < 10 for seconds in first.values())
    assert precision.measured_seconds() is first


def test_adapters_in_bfloat16_give_what_peft_gives_within_the_rounding() -> None:
    batch = collate(traces(), 0)
    plain = lora(random_model("llama", VOCABULARY, contrast=2.0).bfloat16())
    fused = lora(random_model("llama", VOCABULARY, contrast=2.0).bfloat16())
    compute_adapters_in(fused, torch.bfloat16)
    with torch.no_grad():
        wanted, found = completion_logprobs(plain, batch), completion_logprobs(fused, batch)
    torch.testing.assert_close(found, wanted, atol=0.15, rtol=0.05)
    completion_logprobs(fused, batch).sum().backward()
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in fused.parameters() if p.requires_grad)


def test_merged_adapters_give_the_same_in_float32() -> None:
    batch = collate(traces(), 0)
    model = lora(random_model("llama", VOCABULARY))
    model.get_base_model().pretrained_base = Base("smollm2-135m")
    with torch.no_grad():
        wanted = completion_logprobs(model, batch)
        whole = merged(model)
        torch.testing.assert_close(completion_logprobs(whole, batch), wanted, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name, _ in whole.named_parameters())
    assert whole.pretrained_base.name == "smollm2-135m"


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_frozen_heads_gradient_is_that_of_the_plain_way(temperature: float) -> None:
    torch.manual_seed(2)
    head = torch.nn.Linear(16, 400, bias=False).requires_grad_(False)
    targets, weights = torch.randint(400, (300,)), torch.randn(300)
    found = []
    for once in (True, False):
        hidden = torch.arange(300 * 16.0).view(300, 16).sin().requires_grad_()
        values = logprobs_of_hidden(hidden, head, targets, temperature=temperature, once=once, chunk=100)
        (values * weights).sum().backward()
        found.append((values.detach(), hidden.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_frozen_head_refuses_a_second_derivative() -> None:
    head = torch.nn.Linear(4, 9, bias=False).requires_grad_(False)
    hidden = torch.ones(3, 4, requires_grad=True)
    values = logprobs_of_hidden(hidden, head, torch.tensor([1, 2, 3]))
    (gradient,) = torch.autograd.grad(values.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"model.compile is true, and there is no C\+\+ compiler"):
        compile_layers(random_model("llama", VOCABULARY))


@pytest.mark.skipif(not any(map(precision.shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")
def test_compiled_layers_give_the_same_and_a_cache_still_works() -> None:
    batch = collate(traces(), 0)
    plain, compiled = (lora(random_model("llama", VOCABULARY)) for _ in range(2))
    compile_layers(compiled)
    torch.testing.assert_close(
        completion_logprobs(compiled, batch), completion_logprobs(plain, batch), atol=1e-4, rtol=1e-3
    )
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(compiled(ids, use_cache=True).logits, plain(ids, use_cache=True).logits)
