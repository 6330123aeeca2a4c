"""The samplers on CUDA: draws as on the CPU and compiled static caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from irl_core.policy.draws import inverse_cdf
from irl_core.policy.generate import GenerateSampler
from irl_core.policy.protocol import Rollout
from irl_core.policy.sampling import LoopSampler
from tests.small_models import random_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

VOCABULARY = 320
ENDS = tuple(range(20))
PROMPTS = [[30 + place] * length for place, length in enumerate((5, 40, 300))]
SHAPE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}  # heads of width 64


def a_model(device: str = "cuda", dtype: torch.dtype = torch.float32) -> Any:
    return random_model("qwen2", VOCABULARY, **SHAPE).to(device, dtype)


def sampled(sampler: Any, model: Any, **settings: Any) -> list[list[Rollout]]:
    return sampler(model, PROMPTS, **({"num_samples": 8, "max_new_tokens": 40, "seeds": [1, 2, 3]} | settings))


def ids_of(groups: list[list[Rollout]]) -> list[list[tuple[int, ...]]]:
    return [[one.token_ids for one in rows] for rows in groups]


def test_the_inverse_never_draws_what_has_no_probability() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    probabilities = torch.rand(256, 152_064, device="cuda", generator=generator)
    probabilities[torch.rand(256, 152_064, device="cuda", generator=generator) < 0.99] = 0.0
    for number in (0.0, 0.25, 1 - 2**-53, 1.0):
        given = torch.full((256,), number, device="cuda", dtype=torch.float64)
        ids = inverse_cdf(probabilities, given)
        assert probabilities.gather(1, ids.unsqueeze(1)).gt(0).all()
        assert torch.equal(ids.cpu(), inverse_cdf(probabilities.cpu(), given.cpu()))


def test_a_gpu_draws_what_the_cpu_draws() -> None:
    here, there = (sampled(LoopSampler(ENDS, 0), a_model(device)) for device in ("cpu", "cuda"))
    assert ids_of(here) == ids_of(there)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_draws_what_the_loop_draws(cache: Any) -> None:
    model = a_model()
    assert ids_of(sampled(GenerateSampler(ENDS, 0, cache), model)) == ids_of(sampled(LoopSampler(ENDS, 0), model))
