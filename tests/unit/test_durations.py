"""Estimates of time, against the arithmetic that they are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from irl_core.config import TrainConfig
from irl_core.presets import load_config
from train.planning import duration
from train.planning.architectures import KNOWN
from train.planning.duration import A100, CPU, MACHINES, Machine, assumptions, estimate_durations, machine_named
from train.planning.memory import Pair, Processes

PRESETS = Path(__file__).resolve().parents[2] / "train" / "configs"
LLAMA_8B = KNOWN["meta-llama/Llama-3.1-8B-Instruct"].shape
LLAMA_1B = KNOWN["meta-llama/Llama-3.2-1B-Instruct"].shape
PAIR = Pair(LLAMA_8B, LLAMA_1B)
FAST = Machine("without limits", 1e9, 1e9, 1e9, 1e9)


def preset(name: str, *overrides: str) -> TrainConfig:
    return load_config(name, overrides, PRESETS)


def step(config: TrainConfig, pair: Pair = PAIR, **options: Any) -> dict[str, float]:
    return dict(estimate_durations(config, pair, **options).step)


def test_decoding_waits_for_launches_on_a_fast_machine() -> None:
    # 500 tokens (2.5 times 200) and the prompts before them, 32 layers of 0.5 + 0.8 + 0.3 ms each.
    found = step(preset("llama-8b-1b"), machine=FAST)["sampling"]
    assert found == pytest.approx(501 * 32 * 1.6e-3)
    plain = preset("llama-8b-1b", "model.quantisation=none", "model.lora.rank=0", "model.optimiser=adamw")
    assert step(plain, machine=FAST)["sampling"] == pytest.approx(501 * 32 * 0.5e-3)


def test_decoding_waits_for_memory_on_a_slow_one() -> None:
    slow = replace(FAST, traffic=100.0)  # 70 GB/s
    config = preset("llama-8b-1b", "model.quantisation=none", "model.lora.rank=16")
    # Weights in bfloat16, adapters in float32, the cache of 32 samples of 320 tokens, 40 bytes a logit.
    moved = 2 * LLAMA_8B.parameters + 4 * 41_943_040 + 32 * 320 * 131_072 + 32 * 128_256 * 40
    reading = 2 * LLAMA_8B.parameters / 70e9
    assert step(config, machine=slow)["sampling"] == pytest.approx(reading + 500 * moved / 70e9, rel=1e-6)


def test_completions_do_not_pass_their_limit() -> None:
    found = step(preset("llama-8b-1b", "data.max_completion_tokens=100"), machine=FAST)["sampling"]
    assert found == pytest.approx(101 * 32 * 1.6e-3)


def test_what_does_not_fit_at_once_is_sampled_in_turns() -> None:
    once, twice = preset("llama-8b-1b"), preset("llama-8b-1b", f"policy.sampling_tokens={16 * 1124}")
    assert step(twice, machine=FAST)["sampling"] == pytest.approx(2 * step(once, machine=FAST)["sampling"])


def test_an_update_by_hand() -> None:
    # One trace, float32, all weights: three passes (forward, inputs, weights) of 2 products a weight and token.
    config = preset("sft-llama-8b", "model.quantisation=none", "model.lora.rank=0", "model.dtype=float32",
                    "model.optimiser=adamw", "model.gradient_checkpointing=false", "policy.batch_size=1")  # fmt: skip
    machine = Machine("no traffic", 1.0, 1.0, 1e12, 1.0)
    tokens, logits = 320, 200
    attention = 2 * 32 * tokens * tokens * 4096
    products = 2 * LLAMA_8B.linear_parameters * tokens + attention + 2 * 128_256 * 4096 * logits
    found = step(config, Pair(LLAMA_8B), machine=machine)
    assert found["policy"] == pytest.approx(3 * products / 0.6e12, rel=1e-6)
    assert found["sampling"] == found["discriminator"] == found["scoring"] == 0.0
    checkpointed = replace(config, model=replace(config.model, gradient_checkpointing=True))
    assert step(checkpointed, Pair(LLAMA_8B), machine=machine)["policy"] == pytest.approx(4 / 3 * found["policy"], 1e-6)


def test_the_policy_waits_while_the_discriminator_is_warmed_up() -> None:
    waiting = preset("llama-8b-1b")  # 50 of 550 rounds
    at_once = preset("llama-8b-1b", "discriminator.warmup_rounds=0")
    assert step(waiting)["policy"] == pytest.approx(step(at_once)["policy"] * 500 / 550)
    assert step(waiting)["discriminator"] == step(at_once)["discriminator"]


def test_outcome_rewards_need_no_discriminator() -> None:
    found = step(preset("grpo-llama-8b"), Pair(LLAMA_8B))
    assert found["discriminator"] == found["scoring"] == 0.0 < found["policy"]


def test_processes_share_a_round() -> None:
    config = preset("llama-8b-1b", "policy.prompts_per_round=8")
    alone, eight = step(config, machine=CPU), step(config, machine=CPU, processes=Processes(8))
    assert eight["policy"] < 0.2 * alone["policy"]
    assert eight["sampling"] < alone["sampling"]


def test_all_evaluations_are_counted() -> None:
    config = preset("llama-8b-1b")
    found = estimate_durations(config, PAIR, machine=FAST)
    # 550 / 50 = 11 evaluations of 256 samples, 58 of which are decoded at once: five turns of 501 passes.
    assert found.evaluations == pytest.approx(11 * 5 * 501 * 32 * 1.6e-3)
    rounds = 550 * sum(found.step.values())
    assert found.total == pytest.approx(found.start + rounds + found.evaluations + found.calibration)
    never = replace(config, run=replace(config.run, eval_every=0))
    assert estimate_durations(never, PAIR).evaluations == 0.0


def test_machines_are_known_by_the_names_that_torch_gives() -> None:
    assert machine_named("NVIDIA A100-SXM4-40GB") is A100
    assert machine_named("NVIDIA H200") is MACHINES["H200"]
    assert machine_named("NVIDIA H100 80GB HBM3") is MACHINES["H100"]
    assert machine_named("Unknown 9000") is None
    faster = estimate_durations(preset("llama-8b-1b"), PAIR, machine=MACHINES["H200"])
    assert faster.total < estimate_durations(preset("llama-8b-1b"), PAIR).total


def test_assumptions_are_said() -> None:
    config = preset("llama-8b-1b")
    text = "\n".join(assumptions(estimate_durations(config, PAIR), config))
    assert "A100 40 GB: 40% of 312 TFLOP/s, 60% of 19.5 in float32, 70% of 1555 GB/s" in text
    assert "prompts of 120 tokens and completions of 200, the longest of a batch 2.5 times as long" in text
    assert duration.typical_lengths(preset("llama-8b-1b", "data.max_completion_tokens=100")) == (120, 100)
    demo = preset("demo-irl")
    assert "prompts of 33 tokens and completions of 61" in "\n".join(assumptions(estimate_durations(demo, PAIR), demo))


def test_the_calibration_is_counted_where_there_is_a_discriminator() -> None:
    config = preset("llama-8b-1b")
    found = estimate_durations(config, PAIR, machine=FAST).calibration
    fewer = replace(config, run=replace(config.run, calibration_problems=config.run.calibration_problems // 2))
    assert 0.4 * found < estimate_durations(fewer, PAIR, machine=FAST).calibration < 0.7 * found
    alone = Pair(PAIR.policy)
    assert estimate_durations(preset("sft-llama-8b"), alone, machine=FAST).calibration == 0.0
