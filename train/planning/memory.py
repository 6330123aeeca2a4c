"""Estimated memory of a training, by part, before anything is loaded. No torch, no network.

The bytes that a token of a layer keeps for the backward pass were counted on transformers' Llama, Qwen2 and Qwen3
layers with and without adapters (``tests/unit/test_estimate.py`` counts them again); what a pass needs beyond that was
read off the allocator. Lengths are taken at their limits, so that the estimate is of the worst batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from irl_core.config import TrainConfig
from train.planning.architectures import BYTES, Architecture

Phase = Literal["always", "sampling", "discriminator", "scoring", "policy"]
PHASES: tuple[Phase, ...] = ("sampling", "discriminator", "scoring", "policy")

GB = 1e9
RESERVE = 0.1  # of all but weights and libraries: blocks that the allocator cannot use again
LIBRARIES_GPU, LIBRARIES_CPU = 0.9e9, 0.6e9  # context, kernels and their workspaces; Python with torch and transformers
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a scale of 8 bit for 64 weights, and one of 32 bit for 256 scales
INT8_BYTES = 1.0
ADAPTER_BYTES = 4  # float32, gradients too
# Of bitsandbytes' moments of 8 bit: two bytes, and a scale of 32 bit for 256 of each.
MOMENT_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0 + 8 / 256, "paged_adamw_8bit": 2.0 + 8 / 256}
# Logits that exist at once in a chunk (``irl_core.models.logprobs``) or a draw (``irl_core.policy.draws``),
# and the bytes of each.
LOGITS_AT_ONCE, READ_AT_ONCE_ON_CPU, DRAWN_AT_ONCE = 2**27, 2**23, 2**26
LOGIT_BYTES_TRAINED, LOGIT_BYTES_READ, LOGIT_BYTES_DRAWN = 16, 8, 40
RANK = "model.lora.rank"


@dataclass(frozen=True, slots=True)
class Pair:
    """The shapes of policy and discriminator; the latter None in likelihood training and with outcome rewards."""

    policy: Architecture
    discriminator: Architecture | None = None


@dataclass(frozen=True, slots=True)
class Processes:
    """The number of processes that share the work; ``sharded``: they share the decoders' frozen weights too (FSDP)."""

    size: int = 1
    sharded: bool = False


ALONE = Processes()


@dataclass(frozen=True, slots=True)
class Part:
    """Something that takes ``bytes`` during a phase, and the setting that makes it smaller, where there is one."""

    name: str
    bytes: float
    phase: Phase = "always"
    setting: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """The parts of a training's memory. Parts of one phase are not there in another: the largest phase counts."""

    parts: tuple[Part, ...]

    def of(self, phase: Phase) -> float:
        """Bytes of all parts of a phase."""
        return sum(part.bytes for part in self.parts if part.phase == phase)

    @property
    def largest_phase(self) -> Phase:
        """The phase that needs the most."""
        return max(PHASES, key=self.of)

    @property
    def total(self) -> float:
        """Bytes at the peak."""
        return self.of("always") + self.of(self.largest_phase)

    def at_peak(self) -> list[Part]:
        """The parts that are there at the peak, largest first."""
        there = [part for part in self.parts if part.phase in ("always", self.largest_phase)]
        return sorted(there, key=lambda part: -part.bytes)


def estimate_memory(config: TrainConfig, pair: Pair, processes: Processes = ALONE, *, gpu: bool = True) -> Memory:
    """The memory of one process, by part.

    Args:
        config: the resolved configuration.
        pair: the shapes of the models.
        processes: the processes that share the work.
        gpu: whether it runs on a GPU.

    Raises:
        ConfigError: adapters on layers that the models do not have.
    """
    parts = [
        Part("libraries", LIBRARIES_GPU if gpu else LIBRARIES_CPU),
        *weight_parts(config, pair, processes),
        *sampling_parts(config, pair, processes),
        *discriminator_parts(config, pair, processes, gpu),
        *policy_update_parts(config, pair, processes),
    ]
    parts = [part for part in parts if part.bytes > 0]
    of_phase = {phase: sum(part.bytes for part in parts if part.phase == phase) for phase in PHASES}
    fragmentation = [Part("fragmentation", RESERVE * used, phase) for phase, used in of_phase.items() if used]
    return Memory((*parts, *fragmentation))


# ------------------------------------------------------------------------------------------------------- weights


def trained_parameters(config: TrainConfig, shape: Architecture) -> int:
    """Number of trained parameters of a model without its head: the adapters', or all."""
    lora = config.model.lora
    return shape.adapter_parameters(lora.rank, lora.targets) if lora.rank else shape.parameters


def head_parameters(config: TrainConfig, shape: Architecture) -> int:
    """Number of parameters of the discriminator's head: a linear layer of one output, and the likelihood's weight."""
    return shape.hidden + 1 + (config.discriminator.head != "linear")


def weight_bytes(config: TrainConfig, shape: Architecture) -> float:
    """Bytes of a model's weights: the decoder's linear layers quantised or not, the rest never."""
    model = config.model
    if not model.lora.rank:
        return 4.0 * shape.parameters  # whatever the precision that is computed in
    return linear_bytes(config, shape) + BYTES[model.dtype] * (shape.embedding_parameters + shape.small_parameters)


def linear_bytes(config: TrainConfig, shape: Architecture) -> float:
    """Bytes of the decoder's linear layers."""
    if config.model.quantisation == "nf4":
        return NF4_BYTES * shape.linear_parameters
    if config.model.quantisation == "int8":
        rows = shape.layers * sum(out for _, out in shape.linear_shapes().values())
        return INT8_BYTES * shape.linear_parameters + 4.0 * rows
    return float(BYTES[config.model.dtype] * shape.linear_parameters)


def weight_parts(config: TrainConfig, pair: Pair, processes: Processes) -> Iterator[Part]:
    """Weights, adapters and the optimiser's moments."""
    model = config.model
    models = [("policy", pair.policy, trained_parameters(config, pair.policy))]
    if pair.discriminator is not None:
        trained = trained_parameters(config, pair.discriminator) + head_parameters(config, pair.discriminator)
        models.append(("discriminator", pair.discriminator, trained))
    held = "model.quantisation" if model.quantisation != "nf4" else None
    if not model.lora.rank:  # what is quantised cannot be trained
        held = RANK if model.backend != "tiny" else None
    moments = "model.optimiser" if model.optimiser == "adamw" and model.backend != "tiny" else None
    for name, shape, trained in models:
        divided = linear_bytes(config, shape) if processes.sharded and model.lora.rank else 0.0
        weights = weight_bytes(config, shape) - divided * (1 - 1 / processes.size)
        yield Part(f"{name}: weights", weights, setting=held)
        if divided:
            yield Part(f"{name}: layers made whole", 2 * divided / shape.layers)
        if model.lora.rank:
            yield Part(f"{name}: adapters", ADAPTER_BYTES * trained, setting=RANK)
        elif model.dtype != "float32":
            yield Part(f"{name}: weights cast to {model.dtype}", 2.0 * shape.parameters, setting=held)
        yield Part(f"{name}: optimiser", MOMENT_BYTES[model.optimiser] * trained, setting=moments)
    if config.policy.needs_reference:
        reference = 0.0 if model.lora.rank else 4.0 * pair.policy.parameters
        yield Part("reference: weights", reference, setting=held)


# ------------------------------------------------------------------------------------------------ activations


def longest_trace(config: TrainConfig) -> int:
    """Number of tokens of prompt and completion at their limits."""
    return config.data.max_prompt_tokens + config.data.max_completion_tokens


def micro_batch_tokens(config: TrainConfig, traces: int) -> int:
    """Number of tokens of the largest micro-batch of so many traces; a trace longer than the budget stands alone."""
    longest = longest_trace(config)
    return max(longest, min(config.run.batch_tokens, traces * longest))


def saved_bytes(config: TrainConfig, shape: Architecture) -> float:
    """Bytes that one token of one decoder layer keeps for the backward pass."""
    hidden, wide, attended, keys = shape.hidden, shape.intermediate, shape.attention_width, shape.kv_width
    norms = 4 * shape.heads + 8
    if shape.family == "qwen3":  # of queries and keys
        norms += by_precision(config, adapters=4, float32=8, cast=6) * (attended + keys) + 4 * (
            shape.heads + shape.kv_heads
        )
    if config.model.lora.rank:  # frozen layers keep nothing, adapters their input in float32
        inner = 4 * config.model.lora.rank * len(set(config.model.lora.targets) - {"lm_head"})
        return 28 * hidden + 8 * attended + 4 * keys + 10 * wide + inner + norms
    if config.model.dtype == "float32":
        return 24 * hidden + 8 * attended + 8 * keys + 16 * wide + norms
    return 26 * hidden + 4 * attended + 4 * keys + 8 * wide + norms


def working_bytes(config: TrainConfig, shape: Architecture) -> float:
    """Bytes a token that the backward pass of one layer needs beside `saved_bytes`: gradients of activations."""
    hidden, wide = (
        by_precision(config, adapters=14, float32=6, cast=6),
        by_precision(config, adapters=8, float32=8, cast=5),
    )
    return hidden * shape.hidden + wide * shape.intermediate


def forward_bytes(config: TrainConfig, shape: Architecture) -> float:
    """Bytes that one token needs in a pass without gradients, in the widest of its layers."""
    hidden, wide = (
        by_precision(config, adapters=12, float32=16, cast=16),
        by_precision(config, adapters=16, float32=12, cast=8),
    )
    return hidden * shape.hidden + wide * shape.intermediate


def by_precision(config: TrainConfig, *, adapters: int, float32: int, cast: int) -> int:
    """One of three figures: for frozen weights under adapters, for float32, or for float32 cast where they compute."""
    if config.model.lora.rank:
        return adapters
    return float32 if config.model.dtype == "float32" else cast


def dequantised_bytes(config: TrainConfig, shape: Architecture) -> float:
    """Bytes of the widest linear layer in the precision that it is computed in, where weights are quantised."""
    if config.model.quantisation == "none":
        return 0.0
    return 2.0 * max(a * b for a, b in shape.linear_shapes().values())


def logit_chunk_bytes(shape: Architecture, tokens: int, bytes_each: int, at_once: int = LOGITS_AT_ONCE) -> float:
    """Bytes of the logits that exist at once."""
    rows = min(tokens, max(1, at_once // shape.vocabulary))
    return float(bytes_each * rows * shape.vocabulary)


def update_parts(
    config: TrainConfig, name: str, shape: Architecture, phase: Phase, tokens: int, trained: int, *, reads_logits: bool
) -> Iterator[Part]:
    """Activations, logits and gradients of one micro-batch of ``tokens``, with ``trained`` parameters."""
    checkpointing = config.model.gradient_checkpointing
    width = BYTES[config.model.dtype] if config.model.lora.rank else 4
    layers = 1 if checkpointing else shape.layers
    saved = saved_bytes(config, shape) * layers + working_bytes(config, shape) + 12 * shape.hidden
    smaller = "run.batch_tokens" if checkpointing or config.model.backend == "tiny" else "model.gradient_checkpointing"
    if checkpointing:
        yield Part(f"{name}: checkpoints of layers", tokens * width * shape.hidden * shape.layers, phase, smaller)
    yield Part(f"{name}: activations", tokens * saved + dequantised_bytes(config, shape), phase, smaller)
    if reads_logits:  # a chunk is freed before the backward pass through the layers
        chunk = logit_chunk_bytes(shape, tokens, LOGIT_BYTES_TRAINED)
        yield Part(f"{name}: a chunk of logits", max(0.0, chunk - tokens * saved * checkpointing), phase)
    yield Part(f"{name}: gradients", ADAPTER_BYTES * trained, phase, RANK if config.model.lora.rank else None)


def groups_of_round(config: TrainConfig, processes: Processes) -> int:
    """Number of groups (problems) of a round on one process."""
    return -(-config.policy.prompts_per_round // processes.size)


def policy_update_parts(config: TrainConfig, pair: Pair, processes: Processes) -> Iterator[Part]:
    """The update of the policy."""
    settings = config.policy
    traces = -(-settings.batch_size // processes.size)
    if config.method.samples_policy:
        traces = groups_of_round(config, processes) * (settings.num_generations + settings.expert_in_group)
    tokens, trained = micro_batch_tokens(config, traces), trained_parameters(config, pair.policy)
    yield from update_parts(config, "policy", pair.policy, "policy", tokens, trained, reads_logits=True)


def discriminator_parts(config: TrainConfig, pair: Pair, processes: Processes, gpu: bool) -> Iterator[Part]:
    """The update of the discriminator, and the scoring by it (in which the policy reads the expert traces)."""
    shape, settings = pair.discriminator, config.discriminator
    if shape is None:
        return
    traces = discriminator_traces(config, processes)
    tokens, own = micro_batch_tokens(config, int(traces)), settings.head != "linear" and settings.likelihood == "own"
    trained = trained_parameters(config, shape) + head_parameters(config, shape)
    yield from update_parts(config, "discriminator", shape, "discriminator", tokens, trained, reads_logits=own)
    if settings.gradient_penalty:  # no fast kernel has a second derivative, and the graph of the first is kept whole
        scores = 16.0 * tokens * longest_trace(config) * shape.heads * shape.layers
        yield Part("discriminator: attention twice differentiated", scores, "discriminator", "run.batch_tokens")
    read = micro_batch_tokens(config, groups_of_round(config, processes) * (config.policy.num_generations + 1))
    widest = max(forward_bytes(config, s) + 8 * s.hidden for s in (pair.policy, shape))
    whole = max(dequantised_bytes(config, s) for s in (pair.policy, shape))
    yield Part("both: activations", read * widest + whole, "scoring", "run.batch_tokens")
    at_once = LOGITS_AT_ONCE if gpu else READ_AT_ONCE_ON_CPU
    yield Part("both: a chunk of logits", logit_chunk_bytes(pair.policy, read, LOGIT_BYTES_READ, at_once), "scoring")


def discriminator_traces(config: TrainConfig, processes: Processes) -> float:
    """Number of traces that the discriminator learns from in a round on one process: of each problem the expert's, the
    samples, replayed ones, and perturbed copies of the expert trace and of one sample; or the labelled ones."""
    settings, samples = config.discriminator, config.policy.num_generations
    if not config.method.samples_policy:
        return -(-config.policy.batch_size // processes.size)
    of_problem = 1 + samples * (1 + settings.replay) + (2 if settings.perturbations else 0)
    return of_problem * groups_of_round(config, processes)


def samples_at_once(config: TrainConfig, processes: Processes = ALONE) -> int:
    """The largest number of samples that are decoded together: in a round, or in an evaluation."""
    wanted = 0
    if config.method.samples_policy:
        wanted = groups_of_round(config, processes) * config.policy.num_generations
    if config.run.eval_every:
        wanted = max(wanted, -(-config.run.eval_problems // processes.size) * config.run.eval_samples)
    return min(wanted, max(1, config.policy.sampling_tokens // longest_trace(config)))


def sampling_parts(config: TrainConfig, pair: Pair, processes: Processes) -> Iterator[Part]:
    """The cache of the samples, and the work of reading prompts and decoding."""
    shape, rows = pair.policy, samples_at_once(config, processes)
    if not rows:
        return
    tokens, dtype = rows * longest_trace(config), config.model.dtype
    key = "policy.sampling_tokens"
    yield Part("policy: cache of the samples", tokens * shape.kv_bytes(dtype) * (1 + 2 / shape.layers), "sampling", key)
    reading = rows * config.data.max_prompt_tokens * forward_bytes(config, shape)
    repeated = 2.0 * tokens * shape.attention_width * BYTES[dtype]  # a layer's keys and values, for every query head
    drawing = min(rows * shape.vocabulary, DRAWN_AT_ONCE) * LOGIT_BYTES_DRAWN
    work = max(reading, repeated + drawing) + dequantised_bytes(config, shape)
    yield Part("policy: decoding", work, "sampling", key)
    if processes.sharded and config.model.lora.rank:
        rest = linear_bytes(config, shape) * (1 - 1 / processes.size)
        yield Part("policy: divided weights made whole", rest, "sampling")
