"""Rounds of a tiny pair that several processes train together, and what each of them found.

``accelerate launch ... -m tests.worlds FOLDER`` writes ``FOLDER/rank-R.pt``, which one process alone can compare with
its own ``outcomes``. Plain descent throughout: a weight moves by the rate times its gradient.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from irl_core import distributed as world_module
from irl_core.config import ClassWeights, LoraConfig, TrainConfig
from irl_core.distributed import World
from irl_core.models.packed_attention import use_packed_attention
from irl_core.models.pretrained import adapter_weights, with_adapters
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import Discriminator
from irl_core.text.segmentation import make_trace
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.grpo import GRPOTrainer
from irl_core.training.optimizer_step import Learner
from irl_core.training.sft import SFTTrainer
from irl_core.types import EncodedTrace, Source
from tests.tiny import EXPERTS, changed, expert_traces, pair_config, plain_learner, tiny_model, tiny_tokenizer
from train.backends.tiny import build_model, train_tokenizer
from train.distributed import end_world, sampler_for, shard, start_world

FIFTH = (
    "A bus goes 50 km in 1 hour. How far does it go in 4 hours?",
    "In 4 hours it goes 50 * 4 = <<50*4=200>>200 km.\n#### 200",
    "200",
)


@dataclass(frozen=True)
class Case:
    """What differs from ``pair_config``: sections of the configuration, and how the pair is made."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: int = 1
    adapters: bool = False
    sharded: bool = False
    other_tokens: bool = False

    def config(self) -> TrainConfig:
        config = changed(pair_config(), "policy", prompts_per_round=5, max_grad_norm=1e9)
        config = changed(config, "discriminator", max_grad_norm=1e9)
        for section, values in self.sections.items():
            config = changed(config, section, **values)
        return config


SHARDED = {"adapters": True, "sharded": True}
CASES = {
    "linear": Case({"discriminator": {"head": "linear"}}),
    "cumulative": Case({"discriminator": {"head": "cumulative"}}),
    "anchored to the policy": Case({"discriminator": {"likelihood": "policy"}}),
    "the paper's": Case(
        {
            "discriminator": {"head": "linear", "perturbation_labels": "whole_trace"},
            "policy": {"standardise_over": "last"},
        }
    ),
    "one spread a batch": Case(
        {"discriminator": {"head": "cumulative"}, "policy": {"advantage": "trace", "standardise_over": "batch"}}
    ),
    "many micro-batches": Case({"run": {"batch_tokens": 150}}),
    "packed": Case({"run": {"batch_tokens": 400}, "model": {"packing": True}}),
    "several updates": Case({"policy": {"updates_per_round": 2}, "discriminator": {"updates_per_round": 3}}),
    "a class on one process alone": Case(  # only the first problem can be changed so
        {"discriminator": {"perturbations": ("unit_or_rate",), "class_weights": ClassWeights(perturbed=4.0)}}
    ),
    "likelihood and departures": Case(
        {"discriminator": {"likelihood_weight": 0.3, "policy_labels": "from_departed_equation"}}
    ),
    "gradient penalty": Case(
        {"discriminator": {"loss": "wasserstein", "gradient_penalty": 0.7}, "run": {"batch_tokens": 300}}
    ),
    "clipped critic": Case({"discriminator": {"loss": "wasserstein", "weight_clip": 0.01}}),
    "sparse": Case({"discriminator": {"loss": "sequence"}}),
    "reference": Case({"policy": {"kl_coefficient": 0.5, "temperature": 0.8}}),
    "replay": Case({"discriminator": {"replay": 0.7, "replay_capacity": 20}}, rounds=3),
    "frozen policy": Case({"discriminator": {"warmup_rounds": 1}}, rounds=2),
    "other tokens": Case(other_tokens=True),
    "grpo": Case({"run": {"method": "grpo"}}),
    "sft": Case({"run": {"method": "sft"}, "policy": {"batch_size": 5, "prompt_loss_weight": 0.2}}),
    "adapters": Case(adapters=True),
    "sharded": Case({"run": {"batch_tokens": 150}}, rounds=2, **SHARDED),
    "sharded, checkpointed": Case({"model": {"gradient_checkpointing": True}}, **SHARDED),
    "sharded, anchored to the policy": Case({"discriminator": {"likelihood": "policy"}}, **SHARDED),
    "sharded, reference": Case({"policy": {"kl_coefficient": 0.5}}, **SHARDED),
    "sharded grpo": Case({"run": {"method": "grpo"}}, **SHARDED),
    "sharded sft": Case({"run": {"method": "sft", "batch_tokens": 150}}, **SHARDED),
}


def experts(encoder: TraceEncoder) -> list[EncodedTrace]:
    """Five problems: an odd number, of which two processes get two and three."""
    problem, solution, answer = FIFTH
    last = make_trace(problem, solution, reference_answer=answer, source=Source.EXPERT, problem_id=str(len(EXPERTS)))
    return [*expert_traces(encoder), encoder.encode(last)]


def model_of(case: Case, seed: int, model: Any | None = None) -> Any:
    """A tiny model, with adapters that already do something where the case asks for them."""
    model = tiny_model(seed) if model is None else model
    if case.adapters:
        lora = LoraConfig(rank=4, targets=("q_proj", "v_proj", "down_proj"))
        model = with_adapters(model.requires_grad_(False), lora)
        with torch.no_grad():
            for name, parameter in sorted(model.named_parameters()):
                if parameter.requires_grad:
                    drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name) + seed))
                    parameter.copy_(0.3 * drawn)
    if case.config().model.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if case.config().model.packing:
        use_packed_attention(model)
    return model


def trainer_of(case: Case, world: World) -> AdversarialTrainer | GRPOTrainer | SFTTrainer:
    config, encoder = case.config(), TraceEncoder(tiny_tokenizer())
    world = replace(world, sharded=case.sharded and world.size > 1)
    policy = model_of(case, 7)
    reading, base = encoder, None
    if case.other_tokens:
        other = train_tokenizer([f"{problem} {solution}" for problem, solution, _ in EXPERTS[:2]], 285)
        reading, base = TraceEncoder(other), build_model(config, other)
    torch.manual_seed(0)
    discriminator = Discriminator(model_of(case, 8, base), config.discriminator.head, config.discriminator.likelihood)
    for model in (policy, discriminator.backbone):
        shard(model, world, torch.device("cpu"))
    if config.run.method == "sft":
        return SFTTrainer(policy=trainable(policy), encoder=encoder, config=config, world=world)
    sampler = sampler_for(config, encoder, world)
    reference = tiny_model(9) if config.policy.kl_coefficient else None
    if config.run.method == "grpo":
        return GRPOTrainer(
            policy=trainable(policy), encoder=encoder, config=config, sampler=sampler, reference=reference, world=world
        )
    return AdversarialTrainer(
        policy=trainable(policy), discriminator=trainable(discriminator), encoder=encoder,
        discriminator_encoder=reading, config=config, sampler=sampler, reference=reference, world=world,
    )  # fmt: skip


def trainable(model: Any) -> Learner:
    learner = plain_learner(model, 0.02)
    learner.optimizer.param_groups[0]["params"] = [p for p in model.parameters() if p.requires_grad]
    return learner


def named(learner: Learner) -> dict[str, Tensor]:
    return {name: p for name, p in learner.model.named_parameters() if p.requires_grad}


def recorder(learner: Learner, steps: list[dict[str, Tensor]]) -> Callable[..., None]:
    """Keep the gradients with which each step is taken."""

    def record(*arguments: Any) -> None:
        steps.append({name: p.grad.clone() for name, p in named(learner).items() if p.grad is not None})

    return record


def outcome(case: Case, world: World) -> dict[str, Any]:
    """Gradients of every step, metrics of every round, samples, and the weights in the end."""
    trainer = trainer_of(case, world)
    learners = {"policy": trainer.policy}
    if isinstance(trainer, AdversarialTrainer):
        learners["discriminator"] = trainer.discriminator
    gradients: dict[str, list[dict[str, Tensor]]] = {name: [] for name in learners}
    for name, learner in learners.items():
        learner.optimizer.register_step_pre_hook(recorder(learner, gradients[name]))
    samples, metrics = [], []
    for _ in range(case.rounds):
        logged = trainer.round(experts(trainer.encoder))
        metrics.append({key: value for key, value in logged.items() if not key.startswith("time/")})
        if not isinstance(trainer, SFTTrainer):
            own = [trace.completion_ids for group in trainer.groups for trace in group.samples]
            samples += world.gather(own)
        if case.adapters and world.is_main:  # what one process alone does to save may not change what it does later
            trained = [getattr(learner.model, "backbone", learner.model) for learner in learners.values()]
            files = [adapter_weights(model) for model in trained]
    weights = {
        name: {key: p.detach().clone() for key, p in named(learner).items()} for name, learner in learners.items()
    }
    found = {"gradients": gradients, "metrics": metrics, "samples": samples, "weights": weights}
    found["held"] = sum(held(p) for p in trainer.policy.model.get_decoder().layers.parameters() if not p.requires_grad)
    if case.adapters and world.is_main:
        found["files"] = {f"{n}/{key}": value.clone() for n, part in enumerate(files) for key, value in part.items()}
    return found


def held(parameter: Any) -> int:
    """Numbers of a parameter that lie on this process now."""
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()


def exchanges(world: World) -> dict[str, Any]:
    """What ``World`` gives this process. Gradients and values are its number, from 1, times 1, 10, 100 and 1000; the
    second gradient is missing on the last process, the third on all."""
    number = world.rank + 1
    weights = [torch.nn.Parameter(torch.full((size,), float(number * 10**n))) for n, size in enumerate((3, 2, 4, 5))]
    for n, weight in enumerate(weights):
        weight.grad = torch.full_like(weight, float(number * 10**n))
    weights[2].grad = None
    if number == world.size:
        weights[1].grad = None
    world.sum_gradients(weights)
    sums = [None if weight.grad is None else weight.grad.tolist() for weight in weights]
    world.copy_from_main(weights)
    sharded = replace(world, sharded=True)
    return {
        "sums": sums, "copied": [weight.tolist() for weight in weights], "gathered": world.gather(["a", "b"][:number]),
        "offset": world.offset(number), "any": (world.any(world.rank == 1), world.any(False)),
        "share": world.share(range(5)), "even": sharded.even([[n] for n in range(number)]),
        "must pass": (world.must_pass(world.is_main), sharded.must_pass(world.is_main), sharded.must_pass(False)),
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    world, _ = start_world(pair_config())
    folder = Path(sys.argv[1])
    found: dict[str, Any] = {name: outcome(case, world) for name, case in CASES.items()}
    world_module.BUCKET = 4
    found["exchanges"] = exchanges(world)
    torch.save(found, folder / f"rank-{world.rank}.pt")
    world.barrier()
    end_world()


if __name__ == "__main__":
    main()
