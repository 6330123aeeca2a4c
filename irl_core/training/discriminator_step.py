"""The discriminator's step of a round: labelled traces, their weights, the configured loss, optimiser updates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence

from irl_core.config import DiscriminatorConfig, TrainConfig
from irl_core.distributed import World
from irl_core.reward.discriminator import DiscriminatorOutput
from irl_core.reward.rewards import masked, masked_mean
from irl_core.training import losses
from irl_core.training.comparisons import Comparison, maximum_entropy, relativistic, slopes_of, trace_level
from irl_core.training.metrics import Metrics, class_metrics, totals
from irl_core.training.model_pair import ModelPair, trace_logprobs
from irl_core.training.negatives import Example
from irl_core.training.optimizer_step import Learner
from irl_core.types import EncodedTrace, Source

COMPARED = ("relativistic", "maxent")  # losses of whole traces of one problem against each other
CLASS_OF = {Source.EXPERT: 0, Source.POLICY: 1, Source.PERTURBED: 2}


@dataclass(frozen=True, slots=True)
class WeightedExamples:
    """The examples of a discriminator step on this process.

    Attributes:
        examples: ``B`` labelled traces.
        weights: ``(B, T)`` of their tokens, or ``(B, 1)`` of whole traces, of which all processes' sum to 1; of a loss
            that compares traces its slopes ``(B, 1)`` with respect to their scores.
        classes: ``(B,)`` the traces' classes, as in ``CLASS_OF``; by ``outcome`` right, wrong, and not known.
        total: number of examples on all processes.
        experts: number of expert traces among them.
    """

    examples: Sequence[Example]
    weights: Tensor
    classes: Tensor
    total: int
    experts: int


def weigh(examples: Sequence[Example], settings: DiscriminatorConfig, world: World) -> WeightedExamples:
    """Weights that balance the classes over the examples of all processes; every process must call it."""
    own = [(class_of(e, settings), e.departure, step_numbers(e.encoded)) for e in examples]
    everyone = world.gather(own)
    classes, departures = torch.tensor([(kind, departure) for kind, departure, _ in everyone]).unbind(1)
    shares = dict(enumerate(settings.class_weights.as_tuple()))
    if settings.loss == "outcome":
        shares[CLASS_OF[Source.PERTURBED]] = 0.0  # here the class of those whose answer nobody can judge
    if settings.loss in COMPARED:
        weights = torch.zeros(len(everyone), 1)
    elif settings.loss in ("sequence", "outcome"):
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
    experts = sum(world.gather([sum(e.encoded.trace.source is Source.EXPERT for e in examples)]))
    return WeightedExamples(examples, weights[mine], classes[mine], len(classes), experts)


def class_of(example: Example, settings: DiscriminatorConfig) -> int:
    """The class of an example: that of its source, or by ``outcome`` right (0), wrong (1), and not known (2)."""
    trace = example.encoded.trace
    if settings.loss != "outcome":
        return CLASS_OF[trace.source]
    right = True if trace.correct is None and trace.source is Source.EXPERT else trace.correct
    return 2 if right is None else 1 - right


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
    if not settings.updates_per_round:
        return {}
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
        compared: Metrics = {}
        if settings.loss in COMPARED:
            batch, compared = with_slopes(batch, pair, settings)
            pair.discriminator.train()
        with differentiable_twice(settings.gradient_penalty > 0):
            step = learner.update(encoded, pair.discriminator_batching, loss_of, settings.max_grad_norm, world)
        metrics = step.sums | compared | {"disc/grad_norm": step.grad_norm}
        if settings.loss == "wasserstein" and settings.weight_clip:
            losses.clip_weights(list(pair.discriminator.head.parameters()), settings.weight_clip)
    known = [(int(batch.classes[i]), mean) for i, mean in mean_logits.items()]
    return metrics | class_metrics([one for one in known if settings.loss != "outcome" or one[0] < 2], world)


def with_slopes(
    batch: WeightedExamples, pair: ModelPair, settings: DiscriminatorConfig
) -> tuple[WeightedExamples, Metrics]:
    """The examples weighted by the slope of a loss that compares traces, and that loss; every process must call it."""
    encoded, comparisons = [example.encoded for example in batch.examples], comparisons_of(batch.examples)
    scores, logprobs = trace_levels(pair, encoded, settings)
    scores.requires_grad_()
    problems = max(1, sum(pair.world.gather([len(comparisons)])))
    if settings.loss == "maxent":
        lengths = torch.tensor([float(max(1, len(one.completion_ids))) for one in encoded])
        loss = maximum_entropy(scores, logprobs, lengths, comparisons, settings.head) / problems
    else:
        loss = relativistic(scores, comparisons, settings.tie_margin) / problems
    slopes = slopes_of(loss, scores) if comparisons else torch.zeros_like(scores)
    return replace(batch, weights=slopes.unsqueeze(1)), totals({"disc/loss": loss.item()}, pair.world)


def comparisons_of(examples: Sequence[Example]) -> list[Comparison]:
    """The demonstration of each problem against the other traces of it; a problem without either gives none."""
    families: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        families.setdefault(example.encoded.trace.problem, []).append(number)
    found = []
    for numbers in families.values():
        experts = [n for n in numbers if examples[n].encoded.trace.source is Source.EXPERT]
        others = [n for n in numbers if n not in experts]
        tied = tuple(examples[n].departure >= len(examples[n].encoded.completion_ids) for n in others)
        sampled = tuple(examples[n].encoded.trace.source is Source.POLICY for n in others)
        if experts and others:
            found.append(Comparison(experts[0], tuple(others), tied, sampled))
    return found


@torch.no_grad()
def trace_levels(
    pair: ModelPair, encoded: Sequence[EncodedTrace], settings: DiscriminatorConfig
) -> tuple[Tensor, Tensor]:
    """The score of each trace ``(B,)``, and with ``maxent`` its log-probability under the policy, else 0."""
    scores, logprobs = torch.zeros(len(encoded)), torch.zeros(len(encoded))
    pair.discriminator.eval()
    device, batching = next(pair.discriminator.parameters()).device, pair.discriminator_batching
    for indices, _ in pair.world.even(batching.split(encoded)):
        chosen = [encoded[index] for index in indices]
        rows, recorded = batching.collate(chosen).to(device), None
        if settings.loss == "maxent" or pair.discriminator.likelihood == "policy":
            recorded = trace_logprobs(pair.policy, chosen, rows, pair.world)
            logprobs[indices] = masked(recorded, rows.response_mask).sum(1).float().cpu()
        logits = pair.discriminator(rows, recorded).logits
        scores[indices] = trace_level(logits, rows.response_mask, settings.head).cpu()
    return scores, logprobs


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
    positive = (batch.classes[indices] == 0).to(device)
    departure = torch.tensor([e.departure for e in examples], device=device)
    weights = fitted(batch.weights[indices], rows.response_mask.shape[1]).to(device)
    loss = classification_loss(output.logits, rows.response_mask, positive, departure, weights, settings)
    if settings.likelihood_weight and expert.any():
        own = masked_mean(output.logprobs, rows.response_mask)[expert].sum()
        loss = loss - settings.likelihood_weight * own / (batch.experts * settings.minibatches)
    if embeddings is not None:
        lengths = None if rows.cu_seqlens is None else rows.cu_seqlens.diff().tolist()
        penalty = losses.gradient_penalty(output.logits, embeddings, rows.response_mask, lengths)
        loss = loss + settings.gradient_penalty * penalty * len(examples) / batch.total
    return loss, masked_mean(output.logits.detach(), rows.response_mask)


def classification_loss(
    logits: Tensor, mask: Tensor, expert: Tensor, departure: Tensor, weights: Tensor, settings: DiscriminatorConfig
) -> Tensor:
    """The configured loss of one micro-batch; scalar.

    Args:
        logits: ``(B, T)``.
        mask: ``(B, T)``, True at completion tokens.
        expert: ``(B,)`` bool, whether the trace is an expert's, or by ``outcome`` right.
        departure: ``(B,)``, the first token that is not the expert's.
        weights: ``(B, T)``, see ``WeightedExamples``.
        settings: kind of loss and smoothed targets.
    """
    if settings.loss in COMPARED:
        return (trace_level(logits, mask, settings.head) * weights[:, 0]).sum()
    if settings.loss in ("sequence", "outcome"):
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
