"""The discriminator's examples: expert traces, the policy's samples, replayed samples and perturbed copies."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from irl_core.config import DiscriminatorConfig
from irl_core.distributed import World
from irl_core.models.tokenization import TraceEncoder
from irl_core.text.divergence import departed_token, departure, first_difference, value_departure
from irl_core.text.perturbations import perturb
from irl_core.text.segmentation import make_trace
from irl_core.training.groups import Group
from irl_core.training.model_pair import ModelPair
from irl_core.types import EncodedTrace, Source


@dataclass(frozen=True, slots=True)
class Example:
    """A trace that the discriminator learns from, in the discriminator's tokens.

    ``departure`` is the index of the first completion token that is not the expert's: those before it count as expert
    (see ``irl_core.training.losses.expert_tokens``). 0 makes the whole trace non-expert; ignored for expert traces.
    """

    encoded: EncodedTrace
    departure: int = 0


def labelled_examples(
    groups: Sequence[Group],
    pair: ModelPair,
    settings: DiscriminatorConfig,
    replay: deque[Example],
    seed: Callable[[str, int], int],
) -> list[Example]:
    """The round's expert traces, samples, replayed samples and perturbed copies, in this order.

    Args:
        groups: this process's groups, in the policy's tokens; those of bare problems give no example.
        pair: says which tokens the discriminator reads.
        settings: labels, perturbations and replay.
        replay: samples of earlier rounds; this round's are added where ``settings.replay`` is on.
        seed: the seed of a purpose and a number in this round.
    """
    read = pair.in_discriminator_tokens
    groups = [replace(g, expert=read(g.expert), samples=tuple(map(read, g.samples))) for g in groups if g.demonstrated]
    experts = [Example(group.expert) for group in groups]
    current = [Example(s, sample_departure(group.expert, s, settings)) for group in groups for s in group.samples]
    old = replayed(current, replay, settings, pair.world, random.Random(seed("replay", 0))) if settings.replay else []
    changed: list[Example] = []
    for group in groups:
        rng = random.Random(seed("perturb", group.number))
        changed += perturbed(group, settings, pair.discriminator_encoder, rng)
    others = current + old + changed
    if settings.tail < 1:
        rng = random.Random(seed("tail", 0))
        others = [one if rng.random() < settings.tail else without_tail(one) for one in others]
    return experts + others


def by_problem(examples: Sequence[Example], parts: int) -> list[list[Example]]:
    """The examples in at most ``parts`` parts of about as many problems each; those of a problem stay together."""
    families: dict[str, list[Example]] = {}
    for example in examples:
        families.setdefault(example.encoded.trace.problem, []).append(example)
    found = list(families.values())
    parts = max(1, min(parts, len(found)))  # a process without a demonstration takes part in the step all the same
    return [[one for family in found[part::parts] for one in family] for part in range(parts)]


def without_tail(example: Example) -> Example:
    """The example up to the end of the step in which it departs: how it goes on from a mistake teaches little."""
    encoded = example.encoded
    if example.departure >= len(encoded.spans):
        return example
    at = encoded.spans[example.departure][0]
    end = next((step.end for step in encoded.trace.steps if step.end > at), len(encoded.trace.text))
    kept = sum(start < end for start, _ in encoded.spans)
    if kept <= example.departure:
        return example
    shorter = replace(encoded, completion_ids=encoded.completion_ids[:kept], spans=encoded.spans[:kept])
    return replace(example, encoded=shorter)


def sample_departure(expert: EncodedTrace, sample: EncodedTrace, settings: DiscriminatorConfig) -> int:
    """Index of the first token of a sample that is labelled non-expert, by ``policy_labels``."""
    if settings.policy_labels == "whole_trace":
        return 0
    if settings.policy_labels == "from_departed_equation":
        return departed_token(sample.spans, departure(expert.trace.text, sample.trace.text))
    if settings.policy_labels == "from_departed_value":
        at = value_departure(expert.trace.problem, expert.trace.text, sample.trace.text)
        return departed_token(sample.spans, at)
    return first_difference(sample.completion_ids, expert.completion_ids)


def replayed(
    current: Sequence[Example],
    replay: deque[Example],
    settings: DiscriminatorConfig,
    world: World,
    rng: random.Random,
) -> list[Example]:
    """This process's share of the earlier samples drawn for this round; ``current`` is then added to ``replay``.

    Every process keeps the samples of all of them, so what is drawn does not depend on the number of processes.
    """
    everyone = world.gather(current)
    old = rng.sample(list(replay), min(len(replay), int(settings.replay * len(everyone))))
    replay.extend(everyone)
    while len(replay) > settings.replay_capacity:
        replay.popleft()
    return world.share(old)


def perturbed(
    group: Group, settings: DiscriminatorConfig, encoder: TraceEncoder, rng: random.Random
) -> Iterator[Example]:
    """``perturbed_copies`` of the expert trace and one of a sample of a group.

    A perturbation that does not apply, or that leads to the expert's text, gives no example. A copy is non-expert from
    its first changed token on (``perturbation_labels``), that of a sample from where the sample is, if that is earlier.
    """
    kinds = tuple(settings.perturbations)
    originals = [group.expert] * settings.perturbed_copies + [rng.choice(group.samples)] if kinds else []
    for original in originals:
        change = perturb(original.trace, rng, kinds)
        if change is None or change.text == group.expert.trace.text:
            continue
        changed = make_trace(
            original.trace.problem, change.text, source=Source.PERTURBED, finished=original.trace.finished
        )
        encoded = encoder.encode(changed)
        departure = first_difference(encoded.completion_ids, original.completion_ids)
        if settings.perturbation_labels == "whole_trace":
            departure = 0
        elif original is not group.expert:
            departure = min(departure, sample_departure(group.expert, original, settings))
        yield Example(encoded, departure)
