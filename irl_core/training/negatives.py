"""The discriminator's examples: expert traces, the policy's samples, replayed samples and perturbed copies."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from irl_core.config import DiscriminatorConfig
from irl_core.distributed import World
from irl_core.models.tokenization import TraceEncoder
from irl_core.text.divergence import departed_token, departure, first_difference
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
        groups: this process's groups, in the policy's tokens.
        pair: says which tokens the discriminator reads.
        settings: labels, perturbations and replay.
        replay: samples of earlier rounds; this round's are added where ``settings.replay`` is on.
        seed: the seed of a purpose and a number in this round.
    """
    read = pair.in_discriminator_tokens
    groups = [replace(g, expert=read(g.expert), samples=tuple(map(read, g.samples))) for g in groups]
    experts = [Example(group.expert) for group in groups]
    current = [Example(s, sample_departure(group.expert, s, settings)) for group in groups for s in group.samples]
    old = replayed(current, replay, settings, pair.world, random.Random(seed("replay", 0))) if settings.replay else []
    changed: list[Example] = []
    for group in groups:
        rng = random.Random(seed("perturb", group.number))
        changed += perturbed(group, settings, pair.discriminator_encoder, rng)
    return experts + current + old + changed


def sample_departure(expert: EncodedTrace, sample: EncodedTrace, settings: DiscriminatorConfig) -> int:
    """Index of the first token of a sample that is labelled non-expert, by ``policy_labels``."""
    if settings.policy_labels == "whole_trace":
        return 0
    if settings.policy_labels == "from_departed_equation":
        return departed_token(sample.spans, departure(expert.trace.text, sample.trace.text))
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
    """Perturbed copies of the expert trace and of one sample of a group.

    A perturbation that does not apply, or that leads to the expert's text, gives no example. The copy of the expert
    trace is non-expert from its first changed token on (``perturbation_labels``), that of a sample as a whole.
    """
    kinds = tuple(settings.perturbations)
    for original in (group.expert, rng.choice(group.samples)) if kinds else ():
        change = perturb(original.trace, rng, kinds)
        if change is None or change.text == group.expert.trace.text:
            continue
        changed = make_trace(
            original.trace.problem, change.text, source=Source.PERTURBED, finished=original.trace.finished
        )
        encoded = encoder.encode(changed)
        from_start = original is not group.expert or settings.perturbation_labels == "whole_trace"
        yield Example(encoded, 0 if from_start else first_difference(encoded.completion_ids, original.completion_ids))
