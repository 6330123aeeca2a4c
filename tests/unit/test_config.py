"""The training configuration: inheritance, overrides, ranges, and errors that name the nearest key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from irl_core.config import LoraConfig, ModelConfig, PerturbationKind, RunConfig, TrainConfig
from irl_core.errors import ConfigError
from irl_core.presets import load_config, preset_names
from irl_core.text.perturbations import ALL_KINDS
from irl_core.validation import Range

REPOSITORY = Path(__file__).resolve().parents[2]


def preset(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_round_trip_through_dict_yaml_and_json(tmp_path: Path) -> None:
    config = TrainConfig()
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TrainConfig.from_dict(yaml.safe_load(config.to_yaml())) == config
    named = dataclasses.replace(config, run=dataclasses.replace(config.run, preset="resolved"))
    assert load_config(preset(tmp_path, "resolved", config.to_yaml())) == named


def test_fingerprint_is_the_hash_of_the_canonical_json() -> None:
    config = TrainConfig()
    text = json.dumps(config.to_dict(), sort_keys=True, separators=(",", ":"))
    assert config.fingerprint() == hashlib.sha256(text.encode()).hexdigest()
    assert TrainConfig.from_dict({"seed": 1}).fingerprint() != config.fingerprint()
    assert TrainConfig.from_dict({"seed": 0}).fingerprint() == config.fingerprint()


def test_a_preset_is_laid_over_its_bases(tmp_path: Path) -> None:
    root = "steps: 10\npolicy: {gamma: 0.5, betas: [0.8, 0.9]}\ndiscriminator: {class_weights: {expert: 2}}\n"
    preset(tmp_path, "_root", root)
    preset(tmp_path, "middle", "base: _root\npolicy: {batch_size: 4}\ndiscriminator: {class_weights: {policy: 3}}\n")
    preset(tmp_path, "leaf", "base: middle\nrun: {steps: 30}\npolicy: {betas: [0.7, 0.6]}\n")
    config = load_config("leaf", presets_dir=tmp_path)
    assert (config.run.steps, config.run.preset) == (30, "leaf")
    assert (config.policy.gamma, config.policy.batch_size, config.policy.betas) == (0.5, 4, (0.7, 0.6))
    weights = config.discriminator.class_weights
    assert (weights.expert, weights.policy, weights.perturbed) == (2.0, 3.0, 1.0)
    assert preset_names(tmp_path) == ["leaf", "middle"]


def test_a_file_elsewhere_may_build_on_a_preset(tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    presets.mkdir()
    preset(presets, "paper", "policy: {num_generations: 16}\n")
    path = preset(tmp_path, "mine", "base: paper\nseed: 3\n")
    config = load_config(path, ["steps=7"], presets)
    assert (config.policy.num_generations, config.run.seed, config.run.steps, config.run.preset) == (16, 3, 7, "mine")


def test_overrides_apply_in_order_and_are_typed(tmp_path: Path) -> None:
    preset(tmp_path, "p", "steps: 10\n")
    overrides = [
        "steps=100",
        "seed=7",
        "policy.learning_rate=1e-5",
        "model.policy=Qwen/Qwen2.5-3B-Instruct",
        "policy.expert_in_group=false",
        "discriminator.perturbations=[drop_step]",
        "discriminator.class_weights.policy=2",
        "policy.betas=[0.5, 0.6]",
        "steps=101",
    ]
    config = load_config("p", overrides, tmp_path)
    assert (config.run.steps, config.run.seed) == (101, 7)
    assert config.policy.learning_rate == 1e-5  # YAML 1.1 reads 1e-5 as text
    assert config.model.policy == "Qwen/Qwen2.5-3B-Instruct"
    assert config.policy.expert_in_group is False
    assert config.discriminator.perturbations == ("drop_step",)
    assert config.discriminator.class_weights.policy == 2.0
    assert config.policy.betas == (0.5, 0.6)
    assert load_config("p", ["model.policy=a", "model.policy=null"], tmp_path).model.policy is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.learning_rat=1", "unknown key 'policy.learning_rat'; nearest is 'policy.learning_rate'"),
        ("learning_rate=1", "unknown key 'learning_rate'; nearest is 'policy.learning_rate'"),
        ("num_generation=4", "unknown key 'num_generation'; nearest is 'policy.num_generations'"),
        ("polcy.gamma=1", "unknown key 'polcy'; nearest is 'policy'"),
        (
            "discriminator.class_weights.expart=1",
            "unknown key 'discriminator.class_weights.expart'; nearest is 'discriminator.class_weights.expert'",
        ),
        ("run.zzzz=1", "unknown key 'run.zzzz'; known here: preset, after, method"),
        ("steps=many", "run.steps is 'many' (text)"),
        ("steps=1.5", "run.steps is 1.5 (a number with a point); a whole number is expected"),
        ("steps=true", "run.steps is True (true/false); a whole number is expected"),
        ("data.source=!!binary eA==", "data.source is b'x' (other); text is expected"),
        ("steps=0", "run.steps is 0; it must lie in [1, inf)"),
        ("policy.gamma=1.01", "policy.gamma is 1.01; it must lie in [0, 1]"),
        ("policy.learning_rate=0", "policy.learning_rate is 0.0; it must lie in (0, 1]"),
        ("policy.betas=[0.9, 1]", "policy.betas[1] is 1.0; it must lie in [0, 1)"),
        ("policy.betas=[0.9]", "policy.betas has 1 entries; 2 are expected"),
        ("policy.betas=0.9", "policy.betas is 0.9 (a number with a point); a list such as [a, b] is expected"),
        ("policy.gamma=.nan", "policy.gamma is nan; a finite number is expected"),
        ("policy.gamma=high", "policy.gamma is 'high' (text); a number is expected"),
        ("policy.expert_in_group=1", "policy.expert_in_group is 1 (a whole number); true or false is expected"),
        ("model.policy=7", "model.policy is 7 (a whole number); text is expected"),
        ("run.method=ilr", "run.method is 'ilr'; one of sft, irl, grpo, process is expected; nearest is 'irl'"),
        ("discriminator.perturbations=[drop]", "discriminator.perturbations[0] is 'drop'; one of flip_operator"),
        ("policy=1", "policy is 1; keys with values are expected"),
        ("run.seed.x=1", "run.seed is {'x': 1}"),
        ("steps", "override 'steps'; key.sub=value is expected"),
        ("=3", "override '=3'; key.sub=value is expected"),
        ("steps=[", "run.steps: '[' is not a YAML value"),
        ("discriminator.final_anchor=0.5", "discriminator.final_anchor is 0.5, but a head of the kind anchored has an"),
        ("model.hidden_size=100", "model.hidden_size is 100; it must be a multiple of 2 * model.heads = 8"),
        ("model.backend=unsloth", "model.backend is 'unsloth' without a model; set model.policy to a name or a folder"),
        ("discriminator.target_other=0.95", "target_other is 0.95; it must be below target_expert 0.95"),
        ("discriminator.loss=wasserstein", "without a bound; set discriminator.gradient_penalty or weight_clip"),
    ],
)
def test_errors_name_key_value_and_what_is_expected(tmp_path: Path, override: str, message: str) -> None:
    preset(tmp_path, "p", "{}")
    with pytest.raises(ConfigError) as caught:
        load_config("p", [override], tmp_path)
    assert message in str(caught.value)


def test_an_empty_section_is_the_default(tmp_path: Path) -> None:
    preset(tmp_path, "p", "run:\npolicy:\nsteps: 3\n")
    config = load_config("p", ["policy.gamma=0.5"], tmp_path)
    assert (config.run.steps, config.policy.gamma, config.policy.batch_size) == (3, 0.5, 16)


def test_a_group_needs_two_traces() -> None:
    alone: dict[str, Any] = {"policy": {"num_generations": 1}}
    assert TrainConfig.from_dict(alone).policy.expert_in_group  # the sample and the expert: two
    with pytest.raises(ConfigError, match=r"policy\.num_generations is 1; a group needs at least 2"):
        TrainConfig.from_dict(alone | {"run": {"method": "grpo"}})
    assert TrainConfig.from_dict(alone | {"run": {"method": "sft"}}).policy.num_generations == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [", "p.yaml: not readable as YAML"),
        ("- 1\n", "p.yaml: holds list; keys with values are expected"),
        ("policy: {gamma: 0.5, gamma: 0.6}\n", "p.yaml: the key 'gamma' is given twice"),
        ("base: p\n", "its base leads back to itself (p.yaml -> p.yaml)"),
        ("base: [p]\n", "p.yaml: base is ['p']; the name of a preset"),
        ("base: nowhere\n", "no preset 'nowhere'"),
        ("run: !!python/object/apply:os.system ['touch ran']\n", "p.yaml: not readable as YAML"),
        ("steps: 1\nrun: 5\n", "run is 5"),
        ("steps: 1\nrun: {steps: 1}\n", "the key 'run.steps' is given twice, also as 'steps'"),
    ],
)
def test_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    preset(tmp_path, "p", text)
    with pytest.raises(ConfigError) as caught:
        load_config("p", presets_dir=tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_an_unknown_preset_names_the_nearest_and_all(tmp_path: Path) -> None:
    preset(tmp_path, "demo-irl", "")
    preset(tmp_path, "paper", "")
    assert load_config("paper", presets_dir=tmp_path).run.preset == "paper"
    with pytest.raises(ConfigError, match=r"no preset 'demo-ilr'; nearest is 'demo-irl'; there are: demo-irl, paper"):
        load_config("demo-ilr", presets_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"no preset '\.\./paper'"):
        load_config("../paper", presets_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"the configuration file .*missing\.yaml' is not there"):
        load_config(tmp_path / "missing.yaml")


def test_ranges_say_which_ends_count() -> None:
    assert str(Range(0, 1, above=True)) == "(0, 1]" and str(Range(1)) == "[1, inf)"
    assert not Range(0, 1, above=True).holds(0) and Range(0, 1).holds(0)
    assert not Range(0, 1, below=True).holds(1) and Range(0, 1).holds(1)


def test_every_perturbation_can_be_named() -> None:
    assert set(get_args(PerturbationKind)) == set(ALL_KINDS)


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, irl_core.config; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_int8_is_for_baselines_alone() -> None:
    held = ModelConfig(backend="transformers", policy="a/b", quantisation="int8", lora=LoraConfig(rank=8))
    for method in ("sft", "grpo"):
        assert TrainConfig(run=RunConfig(method=method), model=held).model.quantisation == "int8"
    with pytest.raises(
        ConfigError, match=r"what a discriminator says of a solution depends on the solutions beside it .*nf4"
    ):
        TrainConfig(run=RunConfig(method="irl"), model=held)
