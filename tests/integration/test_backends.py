"""Pretrained pairs from end to end: tiny random Qwen2 and Llama models with the real tokenizers on real problems, and
where it is the backend alone that is looked at, one with a tokenizer of 300 tokens."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import verify
from irl_core.config import (
    DataConfig,
    DiscriminatorConfig,
    LoraConfig,
    ModelConfig,
    PolicyConfig,
    RunConfig,
    TrainConfig,
)
from irl_core.data.word_problems.generate import problems as word_problems
from irl_core.distributed import World
from irl_core.errors import ConfigError
from irl_core.models import pretrained
from irl_core.models.batching import collate
from irl_core.models.logprobs import completion_logprobs
from irl_core.scorer import Lens
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.grpo import GRPOTrainer
from tests.small_models import cached, edit_json, save_model
from tests.tiny import CALIBRATION, REFERENCE, changed, tiny_tokenizer
from train.backends import build, unsloth
from train.backends.transformers import AdapterReference
from train.training_state import TrainingState

CPU = torch.device("cpu")
LORA = LoraConfig(rank=4, alpha=8, targets=("q_proj", "v_proj", "down_proj"))
HELD: dict[str, dict[str, Any]] = {
    "full": {},
    "full-bf16": {"dtype": "bfloat16"},
    "lora": {"lora": LORA},
    "lora-bf16": {"lora": LORA, "dtype": "bfloat16", "gradient_checkpointing": True},
    "nf4": {"lora": LORA, "dtype": "bfloat16", "quantisation": "nf4", "optimiser": "adamw_8bit"},
    "nf4 paged": {"lora": LORA, "dtype": "bfloat16", "quantisation": "nf4", "optimiser": "paged_adamw_8bit"},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models as one would download them."""
    folder = tmp_path_factory.mktemp("hub")
    save_model(folder / "small", "llama", tiny_tokenizer(), dtype="bfloat16")
    return folder


@pytest.fixture(scope="module")
def real(hub: Path, shared: Path) -> Path:
    """GSM8K, and in the hub two models with the real tokenizers."""
    save_model(hub / "qwen", "qwen2", shared / "tokenizers" / "qwen2", dtype="bfloat16")
    save_model(hub / "llama", "llama", shared / "tokenizers" / "llama3", tie_word_embeddings=False, seed=1)
    rows = [json.loads(row) for row in (shared / "data" / "gsm8k" / "train.jsonl").read_text().splitlines()]
    return shortest(rows, hub / "gsm8k.jsonl")


@pytest.fixture(scope="module")
def made(hub: Path) -> Path:
    """Problems of our generator."""
    rows = [{"question": problem.text, "answer": problem.solution} for problem in word_problems(3, 200, "train")]
    return shortest(rows, hub / "made.jsonl")


def shortest(rows: list[dict[str, str]], path: Path) -> Path:
    """The 40 rows with the shortest solutions as a file; the last 28 are to be held out."""
    chosen = sorted(rows, key=lambda row: (len(row["answer"]), row["question"]))[:40]
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return path


@pytest.fixture(autouse=True)
def calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration has tests of its own, and a random model nothing to calibrate."""
    from train import calibrate

    found = {"reference": REFERENCE, "localisation": CALIBRATION.to_json(), "default_trace_score": "minimum"}
    monkeypatch.setattr(calibrate, "calibrated", lambda trainer, config, kept: found)


@pytest.fixture(scope="module")
def configured(hub: Path, made: Path) -> Any:
    """``configured(held, head, name, source)``: two rounds of the named model."""

    def make(
        held: str = "lora", head: str = "anchored", name: str = "small", source: Path = made, **model: Any
    ) -> TrainConfig:
        return TrainConfig(
            run=RunConfig(seed=3, steps=2, save_every=1, calibration_problems=20),
            data=DataConfig(
                source=str(source), held_out=28, instruction="Think step by step.", max_prompt_tokens=600,
                max_completion_tokens=100,
            ),
            model=ModelConfig(backend="transformers", policy=str(hub / name), **(HELD[held] | model)),
            policy=PolicyConfig(prompts_per_round=2, num_generations=2, learning_rate=1e-3),
            discriminator=DiscriminatorConfig(head=head, learning_rate=1e-3),  # type: ignore[arg-type]
        )  # fmt: skip

    return make


@contextmanager
def connection_cut(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    cache.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(constants, "HF_HUB_CACHE", str(cache))
        patched.setattr(constants, "HF_HUB_OFFLINE", True)
        yield cache


def started(config: TrainConfig, state: Path | None = None) -> tuple[TrainingState, Any]:
    session = TrainingState.start(config, state)
    assert isinstance(session.trainer, AdversarialTrainer if config.method.needs_discriminator else GRPOTrainer)
    return session, session.trainer


def weights(trainer: AdversarialTrainer, *, trained: bool) -> dict[str, torch.Tensor]:
    return {
        f"{number}.{name}": parameter.detach().clone()
        for number, model in enumerate((trainer.policy.model, trainer.discriminator.model))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad is trained
    }


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if torch.equal(one[name], other[name])]


# ------------------------------------------------------------------------------------- a run, its state, its result


def test_outcome_rewards_open_no_discriminator_and_resume_exactly(configured: Any, tmp_path: Path) -> None:
    config = changed(configured("lora-bf16", discriminator="nobody/there"), "run", method="grpo")
    session, trainer = started(config)
    assert not hasattr(trainer, "discriminator")
    session.round()
    session.save(tmp_path / "step-000001")
    assert not (tmp_path / "step-000001" / "discriminator").exists()
    metrics = session.round()
    resumed, again = started(config, tmp_path / "step-000001")
    assert untimed(resumed.round()) == untimed(metrics)
    first, second = (dict(one.policy.model.named_parameters()) for one in (trainer, again))
    assert same(first, second) == list(first)
    described = load_json(session.finish(tmp_path / "final") / "config.json")
    assert described["kind"] == "transformers" and "head" not in described


@pytest.mark.parametrize(
    ("held", "head", "name"),
    [
        ("lora-bf16", "linear", "llama"), ("nf4", "anchored", "qwen"), ("full", "linear", "small"),
        ("full-bf16", "anchored", "small"), ("lora", "anchored", "small"), ("nf4", "linear", "small"),
        ("nf4 paged", "cumulative", "small"),
    ],
)  # fmt: skip
def test_a_run_learns_resumes_exactly_and_is_loaded_with_the_same_rewards(
    held: str, head: str, name: str, configured: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    problems = {} if name == "small" else {"source": request.getfixturevalue("real")}
    config = configured(held, head, name, **problems)
    session, trainer = started(config)
    before, frozen = weights(trainer, trained=True), weights(trainer, trained=False)
    assert {value.dtype for value in before.values()} == {torch.float32}
    if config.model.lora.rank:
        assert all("lora_" in key or ".head." in key for key in before)
    else:
        assert not frozen
    session.round()
    session.save(tmp_path / "step-000001")
    metrics = session.round()
    assert all(torch.isfinite(torch.tensor(value)) for value in metrics.values())
    assert same(frozen, weights(trainer, trained=False)) == list(frozen)
    after = weights(trainer, trained=True)
    # A learns a step after B, which begins at 0; a random model's likelihood lies below what the anchor still reads
    stuck = [key for key in same(before, after) if "lora_A" not in key and "1.backbone.lm_head" not in key]
    assert not stuck
    # killed after the save and resumed: the second round is the same
    verify(tmp_path / "step-000001")
    resumed, again = started(config, tmp_path / "step-000001")
    assert untimed(resumed.round()) == untimed(metrics)
    assert same(after, weights(again, trained=True)) == list(after)
    # finished: the lens gives the rewards of the discriminator in memory
    lens = Lens.load(session.finish(tmp_path / "final"), "cpu")
    assert lens.config["kind"] == "transformers" and lens.encoder.instruction == "Think step by step."
    (scored,) = lens.score([session.data.traces[0]])
    batch = collate([trainer.encoder.encode(session.data.traces[0])], 0)
    with torch.no_grad():
        expected = trainer.discriminator.model.eval()(batch).logits[0]
    # weights trained in full are float32, and a lens computes with them in float32 whatever training computed in
    # and it scores with adapters added to the weights, rounded to their type, and reads a prompt by itself
    # where the processor has bfloat16, bitsandbytes multiplies NF4 by kernels whose rounding depends on the shape
    tolerance = {"lora": 1e-4, "full": 1e-6}.get(held, 0.02)
    torch.testing.assert_close(torch.from_numpy(scored.raw), expected, atol=tolerance, rtol=0)
    assert lens.encoder.end_ids == trainer.encoder.end_ids
    for trace in session.data.traces:  # the tokenizer that was saved spells as that of the model
        assert lens.encoder.encode(trace) == trainer.encoder.encode(trace)


def test_likelihood_training_needs_no_discriminator(configured: Any, tmp_path: Path) -> None:
    config = changed(configured("lora"), "run", method="sft")
    session = TrainingState.start(config)
    first = session.round()["policy/loss"]
    assert session.round()["policy/loss"] < first + 1.0
    files = sorted(path.name for path in session.finish(tmp_path / "final").iterdir())
    assert "discriminator" not in files and "policy" in files


def test_a_run_goes_on_from_the_adapters_of_another(configured: Any, tmp_path: Path) -> None:
    sft = TrainingState.start(changed(configured("nf4"), "run", method="sft"))
    sft.round()
    start = sft.finish(tmp_path / "final")
    config = changed(configured("nf4"), "model", policy=str(start))
    session, trainer = started(config)
    trained = {name: p for name, p in sft.trainer.policy.model.named_parameters() if p.requires_grad}
    for number, model in enumerate((trainer.policy.model, trainer.discriminator.model.backbone)):
        found = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert found.keys() == trained.keys()
        assert all(torch.equal(found[name], value) for name, value in trained.items()), number
    session.round()
    for key, value, message in (
        ("lora", replace(LORA, rank=8), r"model\.lora\.rank is 8, but the adapters in model\.policy have 4; set it so"),
        ("lora", replace(LORA, targets=("q_proj",)), r"model\.lora\.targets is \['q_proj'\]"),
        ("quantisation", "none", "model.quantisation is none, but the adapters in model.policy have nf4"),
        ("dtype", "float32", "model.dtype is float32, but the adapters in model.policy have bfloat16"),
    ):
        with pytest.raises(ConfigError, match=message):
            TrainingState.start(changed(config, "model", **{key: value}))


def test_adapters_on_a_whole_checkpoint_of_ours(configured: Any, tmp_path: Path) -> None:
    sft = TrainingState.start(changed(configured("full"), "run", method="sft"))
    sft.round()
    start = sft.finish(tmp_path / "final")
    _, trainer = started(changed(configured("lora"), "model", policy=str(start)))
    base = pretrained.base_of(trainer.policy.model)
    assert base is not None and base.name == str(start / "policy")
    expected = sft.trainer.policy.model.state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(trainer.policy.model.get_decoder().layers[0].mlp.up_proj.weight, expected)


def test_a_discriminator_of_a_finished_run_goes_on(configured: Any, tmp_path: Path) -> None:
    config = configured("lora")
    session, trainer = started(config)
    session.round()
    final = session.finish(tmp_path / "final")
    further = changed(config, "model", discriminator=str(final))
    _, again = started(further)
    found, expected = again.discriminator.model.state_dict(), trainer.discriminator.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    wanted = "discriminator.head is 'linear' and likelihood 'own', but model.discriminator has 'anchored' and 'own'"
    with pytest.raises(ConfigError, match=wanted):
        started(changed(further, "discriminator", head="linear"))


# ---------------------------------------------------------------------------------------------------- two tokenizers


def test_a_discriminator_with_tokens_of_its_own(configured: Any, hub: Path, real: Path, tmp_path: Path) -> None:
    config = changed(configured("lora", source=real), "model", discriminator=str(hub / "llama"))
    config = changed(config, "discriminator", replay=1.0)
    session, trainer = started(config)
    assert trainer.discriminator_encoder is not None
    assert trainer.discriminator_encoder.fingerprint() != trainer.encoder.fingerprint()
    assert trainer.discriminator_encoder.instruction == "Think step by step."
    session.round()
    session.save(tmp_path / "step-000001")
    metrics = session.round()
    resumed, _ = started(config, tmp_path / "step-000001")
    assert untimed(resumed.round()) == untimed(metrics)
    lens = Lens.load(session.finish(tmp_path / "final"), "cpu")
    assert lens.discriminator_encoder is not None
    assert lens.discriminator_encoder.fingerprint() == trainer.discriminator_encoder.fingerprint()
    with pytest.raises(ConfigError, match=r"discriminator\.likelihood is 'policy', but the discriminator's tokenizer"):
        started(changed(config, "discriminator", likelihood="policy"))


def test_equal_vocabularies_share_one_encoder(configured: Any, tmp_path: Path) -> None:
    save_model(tmp_path / "smaller", "llama", tiny_tokenizer(), seed=5)
    config = changed(configured("lora"), "model", discriminator=str(tmp_path / "smaller"))
    models = build.build(config, None, World(), CPU)
    assert models.discriminator_encoder is models.encoder


# --------------------------------------------------------------------------------------------------------- gradients


def gradients(config: TrainConfig, trace: Any) -> dict[str, torch.Tensor]:
    """Of the policy, for the likelihood of a trace."""
    models = build.build(changed(config, "run", method="sft"), None, World(), CPU)
    model = models.policy.train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.manual_seed(len(name))
                parameter.normal_(std=0.1)
    batch = collate([models.encoder.encode(trace)], 0)
    completion_logprobs(model, batch).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def trace(configured: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return TrainingState.start(changed(configured(), "run", method="sft")).data.traces[0]


@pytest.mark.parametrize("held", list(HELD))
def test_gradients_are_finite_float32_and_of_what_is_trained(held: str, configured: Any, trace: Any) -> None:
    config = configured(held)
    found = gradients(config, trace)
    assert found and {value.dtype for value in found.values()} == {torch.float32}
    assert all(torch.isfinite(value).all() and value.abs().sum() > 0 for value in found.values())
    if config.model.lora.rank:
        assert len(found) == 2 * 2 * len(LORA.targets) and all("lora_" in name for name in found)


@pytest.mark.parametrize("held", ["full", "lora", "nf4"])
def test_checkpointing_changes_no_gradient(held: str, configured: Any, trace: Any) -> None:
    plain = gradients(configured(held), trace)
    checkpointed = gradients(configured(held, gradient_checkpointing=True), trace)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(value, checkpointed[name], msg=name)


def test_weights_trained_in_full_are_float32_and_compute_in_bfloat16(configured: Any, trace: Any) -> None:
    models = build.build(configured("full-bf16"), None, World(), CPU)
    assert {p.dtype for p in models.policy.parameters()} == {torch.float32}
    batch = collate([models.encoder.encode(trace)], 0)
    hidden = models.policy.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    assert models.policy.get_output_embeddings()(hidden).dtype == torch.bfloat16
    assert models.policy(input_ids=batch.input_ids).logits.dtype == torch.bfloat16
    # updates of a common size are kept: bfloat16 would round 0.02 + 1e-5 back to 0.02
    assert torch.tensor(0.02, dtype=torch.bfloat16) + 1e-5 == torch.tensor(0.02, dtype=torch.bfloat16)


def test_packed_rows_give_the_same_log_probabilities(configured: Any, trace: Any) -> None:
    from irl_core.models.batching import pack

    config = changed(configured("lora", packing=True), "policy", kl_coefficient=0.1)
    models = build.build(config, None, World(), CPU)
    encoded = [models.encoder.encode(trace), models.encoder.encode(replace(trace, problem="How many?"))]
    assert models.discriminator is not None
    for model in (models.policy, models.discriminator.backbone, models.reference):
        with torch.no_grad():
            packed = completion_logprobs(model, pack(encoded))
            padded = completion_logprobs(model, collate(encoded, 0))
        torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-4)


def test_the_first_policy_is_the_model_itself(configured: Any, hub: Path, trace: Any) -> None:
    models = build.build(configured("lora"), None, World(), CPU)
    batch = collate([models.encoder.encode(trace)], 0)
    plain = pretrained.load_whole(hub / "small", dtype="float32")
    with torch.no_grad():
        assert torch.equal(completion_logprobs(models.policy, batch), completion_logprobs(plain, batch))


def test_the_same_seed_draws_the_same_adapters(configured: Any) -> None:
    one, other = (build.build(configured("lora"), None, World(), CPU) for _ in range(2))
    third = build.build(changed(configured("lora"), "run", seed=4), None, World(), CPU)
    name = next(name for name, _ in one.policy.named_parameters() if "lora_A" in name)
    assert torch.equal(one.policy.get_parameter(name), other.policy.get_parameter(name))
    assert not torch.equal(one.policy.get_parameter(name), third.policy.get_parameter(name))


# ------------------------------------------------------------------------------------------------------ the reference


@pytest.mark.parametrize("begun", ["base", "adapters"])
@pytest.mark.parametrize("held", ["lora-bf16", "nf4"])
def test_the_reference_inside_the_policy_equals_a_copy(
    held: str, begun: str, configured: Any, trace: Any, tmp_path: Path
) -> None:
    config = changed(configured(held), "policy", kl_coefficient=0.1)
    config = changed(config, "model", lora=replace(LORA, dropout=0.1))
    if begun == "adapters":
        sft = TrainingState.start(changed(config, "run", method="sft"))
        sft.round()
        config = changed(config, "model", policy=str(sft.finish(tmp_path / "final")))
    models = build.build(config, None, World(), CPU)
    assert isinstance(models.reference, AdapterReference)
    batch = collate([models.encoder.encode(trace)], 0)
    policy = models.policy.train()
    # built again, not copied: a copy's layers would call the original's, which are wrapped to compute in bfloat16
    duplicate = build.build(config, None, World(), CPU).policy.train().requires_grad_(False)
    for module in duplicate.modules():  # 8-bit layers compute differently in evaluation; only dropout is switched off
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainable = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert trainable and not any(pretrained.REFERENCE_ADAPTER in name for name in trainable)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name in trainable:
                parameter.add_(0.05)

    def learn(reference: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        policy.zero_grad()
        torch.manual_seed(0)
        logprobs = completion_logprobs(policy, batch)
        with torch.no_grad():
            before = completion_logprobs(reference, batch)
        (logprobs - before).square().mean().backward()
        return before, {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}

    inside, found = learn(models.reference)
    outside, expected = learn(duplicate)
    assert torch.equal(inside, outside)
    assert found.keys() == expected.keys() == trainable
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert {name for name, p in policy.named_parameters() if p.requires_grad} == trainable


@pytest.mark.parametrize("held", ["full", "lora"])
def test_the_reference_is_the_start_also_after_a_resume(held: str, configured: Any, tmp_path: Path) -> None:
    config = changed(configured(held), "policy", kl_coefficient=0.5)
    session, _ = started(config)
    session.round()
    session.save(tmp_path / "step-000001")
    metrics = session.round()
    resumed, _ = started(config, tmp_path / "step-000001")
    assert untimed(resumed.round()) == untimed(metrics)


# ----------------------------------------------------------------------------------------------------- wrong settings


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"policy": "nowhere"}, "model.policy: 'nowhere' is no folder that is there, nor a name on the hub"),
        ("model", {"policy": "../up"}, r"model\.policy: '\.\./up' is no folder"),
        ("model", {"discriminator": "a/b/c"}, r"model\.discriminator: 'a/b/c' is no folder"),
        ("model", {"lora": replace(LORA, targets=("nothing",))}, r"model\.policy: adapters do not fit the model"),
        ("data", {"max_prompt_tokens": 2000}, r"come to 2,100; model\.policy reads 1,024: lower them"),
    ],
)
def test_a_wrong_setting_is_one_plain_line(
    section: str, values: dict[str, Any], message: str, configured: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        TrainingState.start(changed(configured("lora"), section, **values))
    assert "\n" not in str(raised.value)


def test_a_model_on_the_hub_without_a_connection(
    configured: Any, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection_cut(tmp_path / "cache", monkeypatch) as cache:
        config = changed(configured("lora"), "model", policy="Qwen/Qwen2.5-3B-Instruct")
        wanted = rf"model\.policy: Qwen/Qwen2.5-3B-Instruct is not \(or not whole\) in the cache {cache}"
        with pytest.raises(ConfigError, match=wanted):
            TrainingState.start(config)
        commit = "0123456789" * 4
        cached(cache, "Qwen/Qwen2.5-3B-Instruct", hub / "small", commit)
        session, trainer = started(config)
        base = pretrained.base_of(trainer.policy.model)
        assert base == pretrained.Base("Qwen/Qwen2.5-3B-Instruct", commit, "none", "float32")
        session.save(tmp_path / "step-000001")
        assert load_json(tmp_path / "step-000001" / "policy" / "base.json")["revision"] == commit
        started(config, tmp_path / "step-000001")


def test_a_template_or_tokenizer_that_does_not_fit(configured: Any, hub: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(hub / "small", tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", chat_template=...)
    config = changed(configured("lora"), "model", policy=str(folder))
    with pytest.raises(ConfigError, match=r"model\.policy: the tokenizer in .*bare: .*no chat template; use the tok"):
        TrainingState.start(config)


def test_bitsandbytes_is_asked_for_by_name(configured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"quantisation nf4 needs bitsandbytes, .* pip install bitsandbytes"):
        TrainingState.start(configured("nf4"))


# ------------------------------------------------------------------------------------------------------------ unsloth


@pytest.fixture
def fast_config(configured: Any) -> TrainConfig:
    config = changed(configured("nf4"), "model", backend="unsloth", gradient_checkpointing=True)
    return changed(config, "policy", sampler="generate")


def test_unsloth_that_is_not_installed(fast_config: TrainConfig, tmp_path: Path) -> None:
    if "unsloth" in sys.modules or pretrained.importlib.util.find_spec("unsloth"):
        pytest.skip("unsloth is installed")
    wanted = r"'unsloth', but unsloth is not installed: pip install -e \"\.\[gpu\]\", or train without it: --set "
    with pytest.raises(ConfigError, match=wanted + r"model\.backend=transformers"):
        TrainingState.start(fast_config)


def fake_package(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "unsloth.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise NotImplementedError('Unsloth cannot find any torch accelerator? You need a GPU.')",
            r"unsloth does not start here: Unsloth cannot find any torch accelerator\? You need a GPU\. Mend that, or",
        ),
        ("raise ImportError('Please install unsloth_zoo\\nby hand')", r"start here: Please install unsloth_zoo\. Mend"),
        ("import unsloth_zoo_that_is_not_there", "but unsloth_zoo_that_is_not_there is not installed: pip install -e"),
        ("class FastLanguageModel: pass", "needs a GPU, and there is none; use one, or train without it"),
    ],
)
def test_unsloth_without_a_gpu(
    code: str, message: str, fast_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    fake_package(tmp_path, code, monkeypatch)
    with pytest.raises(ConfigError, match=message) as raised:
        TrainingState.start(fast_config)
    sys.modules.pop("unsloth", None)
    assert "\n" not in str(raised.value) and "--set model.backend=transformers" in str(raised.value)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("policy", {"sampler": "loop"}, r"policy\.sampler is 'loop' with the cache 'dynamic'.* set policy\.sampler to"),
        ("policy", {"cache": "static"}, "with the cache 'static'"),
        ("model", {"lora": LoraConfig(), "quantisation": "none"}, r"with model\.lora\.rank 0; set it to 16"),
    ],
)
def test_what_unsloth_cannot_do(
    section: str, values: dict[str, Any], message: str, fast_config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingState.start(changed(fast_config, section, **values))


class FastLanguageModel:
    """What we call of unsloth's, done with transformers and peft; keeps what it was called with."""

    def __init__(self) -> None:
        self.loaded: list[dict[str, Any]] = []
        self.adapted: list[dict[str, Any]] = []
        self.modes: list[Any] = []

    def from_pretrained(self, **given: Any) -> tuple[Any, None]:
        self.loaded.append(given)
        quantisation = "nf4" if given["load_in_4bit"] else "none"
        dtype = str(given["dtype"]).removeprefix("torch.")
        model = pretrained.load_whole(Path(given["model_name"]), dtype=dtype, quantisation=quantisation)  # type: ignore[arg-type]
        return model, None

    def get_peft_model(self, model: Any, **given: Any) -> Any:
        import peft

        self.adapted.append(given)
        names = ("r", "lora_alpha", "lora_dropout", "target_modules", "bias")
        settings = peft.LoraConfig(**{name: given[name] for name in names}, task_type="CAUSAL_LM")
        torch.manual_seed(given["random_state"])
        return peft.get_peft_model(model, settings)

    def for_training(self, model: Any, use_gradient_checkpointing: Any) -> Any:
        self.modes.append(use_gradient_checkpointing)
        return model.train()  # as unsloth does


def test_the_wiring_of_unsloth(
    fast_config: TrainConfig, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = FastLanguageModel()
    module = types.ModuleType("unsloth")
    module.FastLanguageModel = fast  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unsloth", module)
    monkeypatch.setattr(unsloth.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("train.training_state.training_device", lambda: CPU)
    session, trainer = started(fast_config)
    assert [call["model_name"] for call in fast.loaded] == [str(hub / "small")] * 2
    first = fast.loaded[0]
    assert (first["load_in_4bit"], first["load_in_8bit"], first["load_in_16bit"]) == (True, False, False)
    assert first["max_seq_length"] == 2 * (600 + 100) and first["trust_remote_code"] is False
    assert first["use_gradient_checkpointing"] == "unsloth" and first["use_exact_model_name"] is True
    assert [call["random_state"] for call in fast.adapted] == [3, 4]
    assert fast.adapted[0]["target_modules"] == list(LORA.targets)
    monkeypatch.setattr(trainer, "sampler", LoopOf(trainer))
    session.round()
    assert fast.modes and set(fast.modes) == {"unsloth"}
    session.save(tmp_path / "step-000001")
    metrics = session.round()
    resumed, again = started(fast_config, tmp_path / "step-000001")
    monkeypatch.setattr(again, "sampler", LoopOf(again))
    assert untimed(resumed.round()) == untimed(metrics)
    lens = Lens.load(session.finish(tmp_path / "final"), "cpu")  # by transformers and peft alone
    (scored,) = lens.score([session.data.traces[0]])
    batch = collate([trainer.encoder.encode(session.data.traces[0])], 0)
    with torch.no_grad():
        expected = trainer.discriminator.model.eval()(batch).logits[0]
    torch.testing.assert_close(torch.from_numpy(scored.raw), expected, atol=0.05, rtol=0.05)


def LoopOf(trainer: AdversarialTrainer) -> Any:
    """Our own decoding loop: the stand-in for unsloth has no decoder of its own."""
    from irl_core.policy.sampling import LoopSampler

    return LoopSampler(trainer.encoder.end_ids, trainer.encoder.pad_id)
