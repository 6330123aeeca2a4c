"""A checkpoint small enough to be made in a test: random weights, own tokenizer, a calibration set by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from irl_core.config import DataConfig, DiscriminatorConfig, ModelConfig, PolicyConfig, RunConfig, TrainConfig
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.sampling import LoopSampler
from irl_core.reward.discriminator import Discriminator
from irl_core.reward.localisation import Calibration, Rule
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.discriminator_step import update_discriminator
from irl_core.training.groups import Group
from irl_core.training.grpo import GRPOTrainer
from irl_core.training.model_pair import ModelPair, TraceRewards
from irl_core.training.negatives import Example, labelled_examples, perturbed
from irl_core.training.optimizer_step import Learner
from irl_core.types import EncodedTrace, Source
from train.backends.tiny import build_model, train_tokenizer

PROBLEM = "Ada has 3 boxes with 4 pens each. She gives away 2 pens. How many pens are left?"
SOLUTION = "There are 3 * 4 = <<3*4=12>>12 pens.\nShe keeps 12 - 2 = <<12-2=10>>10 pens.\n#### 10"
CONTEXT = 160
REFERENCE = {
    "mean": -2.0,
    "std": 0.5,
    "prompt_reward_mean": 0.0,
    "prompt_logprob_quantiles": [[0.0, -9.0], [0.01, -8.0], [0.5, -6.0], [1.0, -4.0]],
}
CALIBRATION = Calibration(
    rule=Rule("raw", "min"),
    threshold=-3.0,
    uncertain_threshold=-2.5,
    alpha=0.1,
    uncertain_alpha=0.2,
    n=2,
    null_scores=(-3.0, -2.5),
    error_logit=(0.0, 1.0),
    correct_logit=(0.0, 1.0),
)


def tiny_config() -> TrainConfig:
    """Two layers of width 16; the seed fixes every weight."""
    size = ModelConfig(hidden_size=16, layers=2, heads=2, intermediate_size=32, vocab_size=300, context=CONTEXT)
    return TrainConfig(run=RunConfig(seed=7, steps=2), model=size)


def tiny_lens() -> Lens:
    """Policy and discriminator backbone have the same weights, so raw = 0.5 * max(log p, -8) exactly."""
    tokenizer = train_tokenizer([PROBLEM, SOLUTION] * 8, 300)
    config = tiny_config()
    policy = build_model(config, tokenizer).eval()
    discriminator = Discriminator(build_model(config, tokenizer), "anchored", "own").eval()
    described = {
        "format": 1,
        "name": "tiny",
        "kind": "tiny",
        "head": "anchored",
        "provenance": {"command": "test", "seed": 7},
        "reference": REFERENCE,
        "localisation": CALIBRATION.to_json(),
        "default_trace_score": "minimum",
    }
    return Lens(
        name="tiny",
        config=described,
        policy=policy,
        discriminator=discriminator,
        encoder=TraceEncoder(tokenizer),
        calibration=CALIBRATION,
        fingerprint="0" * 64,
    )


# ------------------------------------------------------------------------------------- a pair of 19 k parameters

# Four problems with an expert solution each; different numbers, so that no solution fits another's problem.
EXPERTS = (
    (PROBLEM, SOLUTION, "10"),
    (
        "Bo buys 5 pears at $2 each and pays with $20. What is his change?",
        "The pears cost 5 * 2 = $<<5*2=10>>10.\nHe gets 20 - 10 = $<<20-10=10>>10 back.\n#### 10",
        "10",
    ),
    (
        "A train goes 60 km in 1 hour. How far does it go in 3 hours?",
        "In 3 hours it goes 60 * 3 = <<60*3=180>>180 km.\n#### 180",
        "180",
    ),
    (
        "Cy has 9 stamps and Di has 4 more. How many have they together?",
        "Di has 9 + 4 = <<9+4=13>>13 stamps.\nTogether they have 9 + 13 = <<9+13=22>>22.\n#### 22",
        "22",
    ),
)
VOCABULARY = 300


@cache
def tiny_tokenizer() -> Any:
    """A tokenizer trained on ``EXPERTS``; made once, so never change it: copy it."""
    return train_tokenizer([f"{problem}\n{solution}" for problem, solution, _ in EXPERTS] * 4, VOCABULARY)


def pair_config(**run: Any) -> TrainConfig:
    """Two layers of width 24, four prompts a round with three samples of at most twelve tokens each."""
    size = ModelConfig(hidden_size=24, layers=2, heads=2, intermediate_size=48, vocab_size=VOCABULARY, context=256)
    return TrainConfig(
        run=RunConfig(**{"seed": 7, "steps": 20} | run),
        data=DataConfig(max_completion_tokens=12),
        model=size,
        policy=PolicyConfig(prompts_per_round=4, num_generations=3, learning_rate=1e-3),
        discriminator=DiscriminatorConfig(learning_rate=2e-3),
    )


def tiny_model(seed: int = 7, contrast: float = 8.0) -> Any:
    """A random Llama; ``contrast`` scales its matrices, else every token would be about as likely as any other."""
    config = pair_config(seed=seed)
    model = build_model(config, tiny_tokenizer()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(contrast)
    return model


def expert_traces(encoder: TraceEncoder) -> list[EncodedTrace]:
    """``EXPERTS``, encoded."""
    return [
        encoder.encode(
            make_trace(
                problem, solution, reference_answer=answer, source=Source.EXPERT, problem_id=str(number), trace_id="e"
            )
        )
        for number, (problem, solution, answer) in enumerate(EXPERTS)
    ]


def plain_learner(model: Any, learning_rate: float) -> Learner:
    """Plain descent at a constant rate: a parameter moves by the rate times its gradient, large gradients or small."""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    return Learner(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))


def tiny_trainer(config: TrainConfig | None = None, *, learning_rate: float = 0.05) -> Any:
    """The method's trainer on fresh copies of the same models; SGD, so that updates compare to rounding error."""
    config = config or pair_config()
    settings = config.discriminator
    torch.manual_seed(0)
    encoder = TraceEncoder(tiny_tokenizer())
    policy, sampler = plain_learner(tiny_model(7), learning_rate), LoopSampler(encoder.end_ids, encoder.pad_id)
    if config.run.method == "grpo":
        return GRPOTrainer(policy=policy, encoder=encoder, config=config, sampler=sampler)
    discriminator = Discriminator(tiny_model(8), settings.head, settings.likelihood)
    return AdversarialTrainer(
        policy=policy, discriminator=plain_learner(discriminator, learning_rate), encoder=encoder,
        discriminator_encoder=encoder, config=config, sampler=sampler,
    )  # fmt: skip


def examples_of(trainer: AdversarialTrainer, groups: Sequence[Group]) -> list[Example]:
    """The discriminator's examples of a round with these groups."""
    return labelled_examples(groups, trainer.pair, trainer.config.discriminator, trainer.replay, trainer.seed)


def perturbed_of(trainer: AdversarialTrainer, group: Group, rng: random.Random) -> Iterator[Example]:
    """The perturbed copies of a group."""
    return perturbed(group, trainer.config.discriminator, trainer.discriminator_encoder, rng)


def update_discriminator_of(trainer: AdversarialTrainer, examples: Sequence[Example]) -> dict[str, float]:
    """A discriminator step on these examples."""
    return update_discriminator(trainer.discriminator, trainer.pair, examples, trainer.config)


def scores_by(
    discriminator: Discriminator, traces: Sequence[EncodedTrace], policy: Any = None, *, batch_tokens: int = 8192
) -> list[TraceRewards]:
    """Rewards of traces in the discriminator's tokens; without a ``policy`` the log-probabilities are its own."""
    encoder = TraceEncoder(tiny_tokenizer())
    return ModelPair(policy or discriminator.backbone, discriminator, encoder, encoder, batch_tokens).score(traces)


def changed(config: TrainConfig, section: str, **values: Any) -> TrainConfig:
    """``config`` with other values in one section."""
    return replace(config, **{section: replace(getattr(config, section), **values)})
