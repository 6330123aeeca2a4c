"""The discriminator's step of a round: labelled traces, their weights, the configured loss, optimiser updates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence

from irl_core.config import DiscriminatorConfig, TrainConfig
from irl_core.distributed import World
from irl_core.reward.discriminator import DiscriminatorOutput
from irl_core.reward.rewards import masked_mean
from irl_core.training import losses
from irl_core.training.metrics import Metrics, class_metrics
from irl_core.training.model_pair import ModelPair, trace_logprobs
from irl_core.training.negatives import Example
from irl_core.training.optimizer_step import Learner
from irl_core.types import EncodedTrace, Source

CLASS_OF = {Source.EXPERT: 0, Source.POLICY: 1, Source.PERTURBED: 2}


@dataclass(frozen=True, slots=True)
class WeightedExamples:
    """The examples of a discriminator step on this process.

    Attributes:
        examples: ``B`` labelled traces.
        weights: ``(B, T)`` of their tokens; ``(B, 1)`` of whole traces for ``sequence``. All processes' sum to 1.
        classes: ``(B,)`` the traces' classes, as in ``CLASS_OF``.
        total: number of examples on all processes.
    """

    examples: Sequence[Example]
    weights: Tensor
    classes: Tensor
    total: int


def weigh(examples: Sequence[Example], settings: DiscriminatorConfig, world: World) -> WeightedExamples:
    """Weights that balance the classes over the examples of all processes; every process must call it."""
    own = [(CLASS_OF[e.encoded.trace.source], e.departure, step_numbers(e.encoded)) for e in examples]
    everyone = world.gather(own)
    classes, departures = torch.tensor([(kind, departure) for kind, departure, _ in everyone]).unbind(1)
    shares = dict(enumerate(settings.class_weights.as_tuple()))
    if settings.loss == "sequence":
        weights = losses.balanced_weights(classes, shares).unsqueeze(1)
    else:
        numbers = [torch.tensor(steps, dtype=torch.long) for _, _, steps in everyone]
        places = pad_sequence(numbers, batch_first=True, padding_value=-1)
        mask = places >= 0
        segments = losses.segment_weights(classes, mask.sum(1), departures, shares)
        expert = losses.expert_tokens(classes == 0, departures, mask.shape[1])
        weights = losses.token_weights(segments, mask, expert)
        if settings.balance == "steps":
            weights = losses.balance_places(weights, expert, places.clamp(min=0))
    first = world.offset(len(own))
    mine = slice(first, first + len(own))
    return WeightedExamples(examples, weights[mine], classes[mine], len(classes))


def step_numbers(encoded: EncodedTrace) -> list[int]:
    """The number, from 0, of the step that each completion token ends in or follows."""
    starts = [step.start for step in encoded.trace.steps]
    return [max(0, bisect_right(starts, end - 1) - 1) for _, end in encoded.spans]


def update_discriminator(
    learner: Learner,
    pair: ModelPair,
    examples: Sequence[Example],
    config: TrainConfig,
    on_progress: Callable[[str], None] = lambda phase: None,
) -> Metrics:
    """``updates_per_round`` optimiser steps on the round's examples, in micro-batches of at most ``batch_tokens``.

    Args:
        learner: the optimiser of ``pair.discriminator``.
        pair: its policy anchors a head whose ``likelihood`` is the policy's, and is not trained.
        examples: this process's share, in the discriminator's tokens.
        config: the training's settings.
        on_progress: called with ``discriminator`` before each micro-batch.

    Returns:
        Loss and gradient norm of the last update, and mean reward and accuracy of each class of traces.
    """
    settings, world = config.discriminator, pair.world
    batch = weigh(examples, settings, world)
    encoded = [example.encoded for example in examples]
    pair.discriminator.train()
    mean_logits: dict[int, float] = {}  # of the last update, by the number of the example

    def loss_of(indices: list[int]) -> tuple[Tensor, Metrics]:
        on_progress("discriminator")
        loss, means = discriminator_loss(batch, indices, pair, config)
        for index, mean in zip(indices, means.tolist(), strict=True):
            mean_logits.setdefault(index, mean)  # a micro-batch repeated for sharded weights counts once
        tokens = sum(len(encoded[index].completion_ids) for index in indices)
        return loss, {"disc/loss": loss.item(), "train/tokens": float(tokens)}

    metrics: Metrics = {}
    for _ in range(settings.updates_per_round):
        mean_logits.clear()
        with differentiable_twice(settings.gradient_penalty > 0):
            step = learner.update(encoded, pair.discriminator_batching, loss_of, settings.max_grad_norm, world)
        metrics = step.sums | {"disc/grad_norm": step.grad_norm}
        if settings.loss == "wasserstein" and settings.weight_clip:
            losses.clip_weights(list(pair.discriminator.head.parameters()), settings.weight_clip)
    return metrics | class_metrics([(int(batch.classes[i]), mean) for i, mean in mean_logits.items()], world)


def discriminator_loss(
    batch: WeightedExamples, indices: Sequence[int], pair: ModelPair, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """The part of the step's loss of the examples at ``indices``, and the mean logit of each, ``(len(indices),)``.

    The classification loss of all micro-batches, less ``likelihood_weight`` times the expert traces' mean
    log-probability under the discriminator's own language model, plus the gradient penalty at its input embeddings.
    """
    settings, device = config.discriminator, next(pair.discriminator.parameters()).device
    examples = [batch.examples[i] for i in indices]
    encoded = [example.encoded for example in examples]
    rows = pair.discriminator_batching.collate(encoded).to(device)
    embeddings = None
    if settings.gradient_penalty:
        embed = pair.discriminator.backbone.get_input_embeddings()
        embeddings = embed(rows.input_ids).detach().requires_grad_()
    recorded = None
    if pair.discriminator.likelihood == "policy":
        recorded = trace_logprobs(pair.policy, encoded, rows, pair.world)
    output: DiscriminatorOutput = pair.discriminator(rows, recorded, embeddings)
    expert = torch.tensor([e.encoded.trace.source is Source.EXPERT for e in examples], device=device)
    departure = torch.tensor([e.departure for e in examples], device=device)
    weights = fitted(batch.weights[indices], rows.response_mask.shape[1]).to(device)
    loss = classification_loss(output.logits, rows.response_mask, expert, departure, weights, settings)
    if settings.likelihood_weight and expert.any():
        own = masked_mean(output.logprobs, rows.response_mask)[expert].sum()
        loss = loss - settings.likelihood_weight * own / config.policy.prompts_per_round
    if embeddings is not None:
        lengths = None if rows.cu_seqlens is None else rows.cu_seqlens.diff().tolist()
        penalty = losses.gradient_penalty(output.logits, embeddings, rows.response_mask, lengths)
        loss = loss + settings.gradient_penalty * penalty * len(examples) / batch.total
    return loss, masked_mean(output.logits.detach(), rows.response_mask)


def classification_loss(
    logits: Tensor, mask: Tensor, expert: Tensor, departure: Tensor, weights: Tensor, settings: DiscriminatorConfig
) -> Tensor:
    """The configured loss (``bce``, ``wasserstein`` or ``sequence``) of one micro-batch; scalar.

    Args:
        logits: ``(B, T)``.
        mask: ``(B, T)``, True at completion tokens.
        expert: ``(B,)`` bool, whether the trace is an expert's.
        departure: ``(B,)``, the first token that is not the expert's.
        weights: ``(B, T)``, see ``WeightedExamples``.
        settings: kind of loss and smoothed targets.
    """
    if settings.loss == "sequence":
        labels = torch.where(expert, settings.target_expert, settings.target_other)
        return losses.sequence_bce(logits, mask, labels, weights[:, 0])
    if settings.loss == "wasserstein":
        return losses.wasserstein(logits, losses.expert_tokens(expert, departure, mask.shape[1]), weights)
    targets = losses.token_targets(expert, mask, departure, expert=settings.target_expert, other=settings.target_other)
    return losses.discriminator_bce(logits, targets, weights)


def fitted(weights: Tensor, width: int) -> Tensor:
    """``weights`` ``(B, W)`` cut or filled with 0 to ``(B, width)``: a micro-batch is as wide as its longest trace."""
    return F.pad(weights, (0, max(0, width - weights.shape[1])))[:, :width]


@contextmanager
def differentiable_twice(wanted: bool) -> Iterator[None]:
    """Use attention that has a second derivative inside the block, where ``wanted``: the fast kernels have none.

    A checkpointed layer is computed again in the backward pass, which therefore belongs inside the block too.
    """
    if not wanted:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield
