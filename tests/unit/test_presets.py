"""The presets: all load, the paper's have the paper's numbers, and what stands beside each other differs as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from irl_core.config import TrainConfig
from irl_core.presets import load_config, preset_names
from train.planning.memory import estimate_memory
from train.planning.presets import GROUPS, all_presets, described, group_of, listed, pair_of

PRESETS = Path(__file__).resolve().parents[2] / "train" / "configs"
NAMES = preset_names(PRESETS)
L8, L3, L1 = (f"meta-llama/Llama-{size}-Instruct" for size in ("3.1-8B", "3.2-3B", "3.2-1B"))
Q7, Q3, Q15, Q05, M15 = (f"Qwen/Qwen2.5-{size}-Instruct" for size in ("7B", "3B", "1.5B", "0.5B", "Math-1.5B"))
# Policy, discriminator, learning rate of the policy.
PAIRS = {
    "llama-8b-1b": (L8, L1, 1e-4),
    "llama-3b-1b": (L3, L1, 1e-4),
    "qwen-3b-05b": (Q3, Q05, 1e-5),
    "qwen-7b-15b": (Q7, Q15, 1e-5),
    "qwen-7b-05b": (Q7, Q05, 1e-5),
    "qwen-7b-math15b": (Q7, M15, 1e-5),
}
BASELINES = {"llama-8b": (L8, 1e-4), "llama-3b": (L3, 1e-4), "qwen-3b": (Q3, 1e-5), "qwen-7b": (Q7, 1e-5)}
ABLATIONS = {
    "ablation-no-perturbation": {"discriminator": {"perturbations": []}},
    "ablation-wasserstein": {"discriminator": {"loss": "wasserstein", "weight_clip": 0.01}},
    "ablation-sparse": {"discriminator": {"loss": "sequence"}, "policy": {"advantage": "trace", "trace_score": "last"}},
    "ablation-unstandardised": {"policy": {"standardise_over": "none"}},
    "ablation-expert-errors-10": {"data": {"expert_errors": 0.1}},
    "ablation-expert-errors-30": {"data": {"expert_errors": 0.3}},
    "ablation-expert-errors-50": {"data": {"expert_errors": 0.5}},
}
# What one objective has in the place of demo-irl's.
OBJECTIVES: dict[str, dict[str, Any]] = {
    "demo-best-of-n": {"policy": {"update": "best_of_n"}},
    "demo-preferences": {"policy": {"update": "preferences"}},
    "demo-relativistic": {"discriminator": {"loss": "relativistic"}},
    "demo-maxent": {
        "policy": {"advantage": "credit", "gamma": 1.0, "baseline": "leave_one_out"},
        "discriminator": {"loss": "maxent"},
    },
    "demo-implicit": {
        "policy": {"advantage": "credit", "gamma": 1.0, "baseline": "leave_one_out"},
        "discriminator": {"head": "implicit", "likelihood": "policy", "loss": "outcome", "likelihood_weight": 0.0},
    },
    "demo-process": {
        "run": {"method": "process", "steps": 120},
        "policy": {"batch_size": 64},
        "discriminator": {
            "perturbations": [
                "offset_number",
                "carry_wrong_value",
                "wrong_operand",
                "drop_step",
                "unit_or_rate",
                "wrong_operation",
            ],
            "tail": 0.0,
            "warmup_rounds": 120,
        },
    },
}
TEACHING = ("demo-teach-base", "demo-teach-start", "demo-teach")
SMALL = ("gsm8k-sft", "gsm8k-irl", "gsm8k-qwen-05b-sft", "gsm8k-qwen-05b")
REAL = [name for name in NAMES if not name.startswith("demo") and name not in SMALL]


def preset(name: str) -> TrainConfig:
    return load_config(name, presets_dir=PRESETS)


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What ``other`` says where it differs from ``one``, nested."""
    found = {}
    for key, value in other.items():
        if isinstance(value, dict):
            if below := differences(one[key], value):
                found[key] = below
        elif one[key] != value:
            found[key] = value
    return found


def between(one: str, other: str) -> dict[str, Any]:
    found = differences(preset(one).to_dict(), preset(other).to_dict())
    del found["run"]["preset"]
    return {section: keys for section, keys in found.items() if keys}


def test_all_are_there() -> None:
    demo = {"demo-sft", "demo-expert", "demo-irl", "demo-control", "demo-grpo", *OBJECTIVES, *TEACHING}
    pairs = {name + suffix for name in PAIRS for suffix in ("", "-paper")}
    baselines = {f"{method}-{name}" for method in ("sft", "grpo") for name in BASELINES}
    assert set(NAMES) == demo | pairs | baselines | set(ABLATIONS) | set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_small_pretrained_models_are_trained_on_a_cpu_in_bfloat16_and_start_from_one_training(name: str) -> None:
    config = preset(name)
    assert (config.model.backend, config.model.dtype, config.model.quantisation) == ("transformers", "bfloat16", "none")
    assert config.model.shared_prompts and config.model.compile and config.data.styles
    if config.run.method == "irl":  # equal data: both models start from the same likelihood training
        (start,) = config.run.after
        assert config.model.policy == config.model.discriminator == f"runs/{start}/final"
        assert config.discriminator.policy_labels == "from_departed_value"
        assert 0 < config.discriminator.warmup_rounds < config.run.steps


@pytest.mark.parametrize("name", REAL)
def test_what_all_of_real_size_share(name: str) -> None:
    config = preset(name)
    assert config.model.backend == "transformers"
    assert (config.model.quantisation, config.model.dtype) == ("nf4", "bfloat16")
    assert (config.model.optimiser, config.model.gradient_checkpointing, config.model.packing) == (
        "paged_adamw_8bit", True, True
    )  # fmt: skip
    assert (config.model.lora.rank, config.model.lora.alpha, len(config.model.lora.targets)) == (128, 256, 7)
    assert (config.data.source, config.data.layout) == ("gsm8k", "think_answer")
    assert (config.data.max_prompt_tokens, config.data.max_completion_tokens) == (300, 824)
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert tag in config.data.instruction
    settings = config.policy
    assert (settings.schedule, settings.warmup_ratio, settings.betas) == ("cosine", 0.1, (0.9, 0.99))
    assert (settings.weight_decay, settings.max_grad_norm, settings.clip_eps) == (0.1, 1.0, 0.2)
    assert (settings.temperature, settings.top_p) == (1.0, 1.0)
    assert (config.run.eval_every, config.run.save_every) == (50, 50)
    # Calibration and evaluation take their own rows of those held out.
    assert config.run.calibration_problems + config.run.eval_problems <= config.data.held_out


@pytest.mark.parametrize("name", PAIRS)
def test_the_papers_pairs_have_its_numbers(name: str) -> None:
    config, (policy, discriminator, rate) = preset(f"{name}-paper"), PAIRS[name]
    assert (config.model.policy, config.model.discriminator) == (policy, discriminator)
    assert (config.run.method, config.run.steps) == ("irl", 500)
    settings, disc = config.policy, config.discriminator
    assert settings.learning_rate == rate
    # 16 completions at once, twice before an update, 16 of a prompt: two prompts.
    assert (settings.num_generations, settings.prompts_per_round, settings.updates_per_round) == (16, 2, 1)
    assert (settings.advantage, settings.gamma, settings.standardise_over) == ("discounted", 0.9, "last")
    assert (settings.baseline, settings.expert_in_group, settings.negative_weight) == ("group", True, 1.0)
    assert settings.kl_coefficient == 0.0
    assert (disc.head, disc.loss, disc.learning_rate, disc.head_learning_rate_factor) == ("linear", "bce", 1e-5, 1.0)
    assert (disc.target_expert, disc.target_other, disc.max_grad_norm) == (0.95, 0.05, 1.0)
    assert disc.perturbations == ("flip_operator", "offset_number", "swap_answer")
    assert (disc.perturbation_labels, disc.policy_labels) == ("whole_trace", "whole_trace")
    assert (disc.warmup_rounds, disc.updates_per_round, disc.replay, disc.likelihood_weight) == (0, 1, 0.0, 0.0)
    assert set(disc.class_weights.as_tuple()) == {1.0}


@pytest.mark.parametrize("name", PAIRS)
def test_ours_differs_from_the_papers_by_the_objective_alone(name: str) -> None:
    assert between(f"{name}-paper", name) == {
        "run": {"steps": 550},
        "policy": {"standardise_over": "all"},
        "discriminator": {
            "head": "anchored", "head_learning_rate_factor": 10.0, "likelihood_weight": 0.3, "warmup_rounds": 50,
            "warmup_learning_rate": 1e-4, "perturbation_labels": "from_corruption",
            "policy_labels": "from_departed_equation",
            "perturbations": [
                "flip_operator", "offset_number", "swap_answer", "carry_wrong_value", "wrong_operand", "drop_step",
                "unit_or_rate",
            ],
        },
    }  # fmt: skip
    ours, paper = preset(name), preset(f"{name}-paper")
    assert ours.discriminator.likelihood == "own"
    assert ours.run.steps - ours.discriminator.warmup_rounds == paper.run.steps


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_one_thing(name: str) -> None:
    assert between("qwen-3b-05b-paper", name) == ABLATIONS[name]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_beside_the_papers_changes_what_it_is_about(name: str) -> None:
    assert between("demo-irl", name) == OBJECTIVES[name]


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_have_the_papers_numbers(name: str) -> None:
    policy, rate = BASELINES[name]
    sft, grpo = preset(f"sft-{name}"), preset(f"grpo-{name}")
    assert (sft.run.method, sft.run.steps, sft.model.policy) == ("sft", 500, policy)
    assert (sft.policy.batch_size, sft.policy.learning_rate, sft.policy.prompt_loss_weight) == (32, 1e-5, 0.0)
    assert (grpo.run.method, grpo.run.steps, grpo.model.policy) == ("grpo", 500, policy)
    assert (grpo.policy.prompts_per_round, grpo.policy.num_generations, grpo.policy.learning_rate) == (2, 16, rate)
    assert not grpo.policy.expert_in_group
    assert grpo.model.discriminator is None


@pytest.mark.parametrize("name", REAL)
def test_every_one_of_real_size_fits_40_gb(name: str) -> None:
    config = preset(name)
    assert estimate_memory(config, pair_of(config)).total < 40e9


def test_every_file_says_what_it_is() -> None:
    for path in sorted(PRESETS.glob("*.yaml")):
        assert path.read_text().startswith("# "), path.name


def test_the_list_is_grouped_and_names_models_memory_and_time() -> None:
    text = list(listed())
    headings = [line for line in text if line in GROUPS.values()]
    assert headings == list(GROUPS.values())
    rows = {line.split()[0]: line for line in text if line.startswith("  ")}
    assert set(rows) == set(NAMES)
    row = rows["llama-8b-1b-paper"].split()
    assert row[1:4] == ["irl", "500", "steps"] and row[-3:] == ["Llama-3.1-8B", "+", "Llama-3.2-1B"]
    assert 20 < float(row[4]) < 40 and row[5] == "GB" and 1 < float(row[6]) < 20 and row[7] == "h"
    assert rows["sft-qwen-3b"].endswith("Qwen2.5-3B")
    assert max(map(len, text)) <= 120


@pytest.mark.parametrize(
    ("name", "group"),
    [("demo-irl", "demo"), ("qwen-7b-05b", "pairs"), ("ablation-sparse", "ablations"), ("grpo-qwen-3b", "baselines")],
)
def test_groups(name: str, group: str) -> None:
    assert group_of(name) == group


def test_one_preset_is_described() -> None:
    text = "\n".join(described("llama-8b-1b"))
    assert text.startswith("The paper's main pair. Our objective.\n\nllama-8b-1b: irl, 550 steps")
    assert f"{L8}: 8.03 B parameters, 335.54 M trained" in text
    assert f"Llama Community License, to be accepted on https://huggingface.co/{L8}" in text
    assert "A100 40 GB is planned for: it fits" in text and "head: anchored" in text
    assert "the CPU" not in "\n".join(described("demo-sft"))


def test_all_presets_as_data() -> None:
    found = {one.name: one.to_json() for one in all_presets()}
    assert next(iter(found)) == "demo-best-of-n" and sorted(found) == NAMES
    demo = found["demo-irl"]
    assert demo["group"] == GROUPS["demo"] and demo["about"].startswith("The embedded default: adversarial training")
    assert demo["configuration"] == load_config("demo-irl", presets_dir=PRESETS).to_dict()
    row = next(line.split() for line in listed() if line.split()[:1] == ["demo-irl"])
    assert row[4:] == [f"{demo['memory_bytes'] / 1e9:.1f}", "GB", f"{demo['seconds'] / 60:.0f}", "min"]
