"""How much memory a training needs, by part, before anything is loaded. An estimate: no torch, no network.

What a token of a layer keeps for the backward pass was counted on transformers' Llama, Qwen2 and Qwen3 layers with and
without adapters (``tests/unit/test_estimate.py`` counts it again); what a pass works with beyond that was read off the
allocator. Lengths are taken at their limits, so that the estimate is of the worst batch.
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
LOGITS_AT_ONCE, DRAWN_AT_ONCE = 2**27, 2**26
LOGIT_BYTES_TRAINED, LOGIT_BYTES_READ, LOGIT_BYTES_DRAWN = 16, 8, 40
_RANK = "model.lora.rank"


@dataclass(frozen=True, slots=True)
class Pair:
    """The shapes of policy and discriminator, which likelihood training and outcome rewards do not have."""

    policy: Architecture
    discriminator: Architecture | None = None


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes share the work; ``sharded``: and the frozen weights of the decoders (FSDP)."""

    size: int = 1
    sharded: bool = False


ALONE = Processes()


@dataclass(frozen=True, slots=True)
class Part:
    """What takes ``bytes`` during a phase, and the setting that makes it smaller, where there is one."""

    name: str
    bytes: float
    phase: Phase = "always"
    setting: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """The parts. What is there in one phase alone is not there in another: the largest phase counts."""

    parts: tuple[Part, ...]

    def of(self, phase: Phase) -> float:
        """Bytes of all parts of a phase."""
        return sum(part.bytes for part in self.parts if part.phase == phase)

    @property
    def largest_phase(self) -> Phase:
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

    Raises:
        ConfigError: adapters on layers that the models do not have.
    """
    parts = [Part("libraries", LIBRARIES_GPU if gpu else LIBRARIES_CPU)]
    parts += _weights(config, pair, processes)
    parts += _sampling(config, pair, processes)
    parts += _discriminator_phases(config, pair, processes)
    parts += _policy_update(config, pair, processes)
    kept = [part for part in parts if part.bytes > 0]
    return Memory((*kept, *_reserve(kept)))


def _reserve(parts: list[Part]) -> Iterator[Part]:
    for phase in PHASES:
        used = sum(part.bytes for part in parts if part.phase == phase)
        if used:
            yield Part("fragmentation", RESERVE * used, phase)


# ------------------------------------------------------------------------------------------------------- what is kept


def trained_parameters(config: TrainConfig, shape: Architecture) -> int:
    """Of one model, its head left out: the adapters, or everything."""
    lora = config.model.lora
    return shape.adapter_parameters(lora.rank, lora.targets) if lora.rank else shape.parameters


def head_parameters(config: TrainConfig, shape: Architecture) -> int:
    """Of the discriminator's head: a linear layer of one output, and the weight of the likelihood."""
    return shape.hidden + 1 + (config.discriminator.head != "linear")


def weight_bytes(config: TrainConfig, shape: Architecture) -> float:
    """Bytes of a model as it is held: the linear layers of the decoder quantised or not, the rest never."""
    model = config.model
    if not model.lora.rank:
        return 4.0 * shape.parameters  # whatever the precision that is computed in
    return _linear_bytes(config, shape) + BYTES[model.dtype] * (shape.embedding_parameters + shape.small_parameters)


def _linear_bytes(config: TrainConfig, shape: Architecture) -> float:
    if config.model.quantisation == "nf4":
        return NF4_BYTES * shape.linear_parameters
    if config.model.quantisation == "int8":
        rows = shape.layers * sum(out for _, out in shape.linear_shapes().values())
        return INT8_BYTES * shape.linear_parameters + 4.0 * rows
    return float(BYTES[config.model.dtype] * shape.linear_parameters)


def _models(config: TrainConfig, pair: Pair) -> Iterator[tuple[str, Architecture, int]]:
    """Name, shape and trained parameters of the models of a training."""
    yield "policy", pair.policy, trained_parameters(config, pair.policy)
    if pair.discriminator is not None:
        shape = pair.discriminator
        yield "discriminator", shape, trained_parameters(config, shape) + head_parameters(config, shape)


def _weights(config: TrainConfig, pair: Pair, processes: Processes) -> Iterator[Part]:
    model = config.model
    held = "model.quantisation" if model.quantisation != "nf4" else None
    if not model.lora.rank:  # what is quantised cannot be trained
        held = _RANK if model.backend != "tiny" else None
    moments = "model.optimiser" if model.optimiser == "adamw" and model.backend != "tiny" else None
    for name, shape, trained in _models(config, pair):
        divided = _linear_bytes(config, shape) if processes.sharded and model.lora.rank else 0.0
        weights = weight_bytes(config, shape) - divided * (1 - 1 / processes.size)
        yield Part(f"{name}: weights", weights, setting=held)
        if divided:
            yield Part(f"{name}: layers made whole", 2 * divided / shape.layers)
        if model.lora.rank:
            yield Part(f"{name}: adapters", ADAPTER_BYTES * trained, setting=_RANK)
        elif model.dtype != "float32":
            yield Part(f"{name}: weights cast to {model.dtype}", 2.0 * shape.parameters, setting=held)
        yield Part(f"{name}: optimiser", MOMENT_BYTES[model.optimiser] * trained, setting=moments)
    if config.policy.kl_coefficient:
        reference = 0.0 if model.lora.rank else 4.0 * pair.policy.parameters
        yield Part("reference: weights", reference, setting=held)


# ----------------------------------------------------------------------------------------------- what a pass works with


def longest_trace(config: TrainConfig) -> int:
    """Tokens of prompt and completion at their limits."""
    return config.data.max_prompt_tokens + config.data.max_completion_tokens


def _batch(config: TrainConfig, traces: int) -> int:
    """Tokens of the largest micro-batch of so many traces; a trace longer than the budget stands alone."""
    longest = longest_trace(config)
    return max(longest, min(config.run.batch_tokens, traces * longest))


def saved_bytes(config: TrainConfig, shape: Architecture) -> float:
    """What one token of one decoder layer keeps for the backward pass."""
    hidden, wide, attended, keys = shape.hidden, shape.intermediate, shape.attention_width, shape.kv_width
    norms = 4 * shape.heads + 8
    if shape.family == "qwen3":  # of queries and keys
        norms += _each(config, adapters=4, float32=8, cast=6) * (attended + keys) + 4 * (shape.heads + shape.kv_heads)
    if config.model.lora.rank:  # frozen layers keep nothing, adapters their input in float32
        inner = 4 * config.model.lora.rank * len(set(config.model.lora.targets) - {"lm_head"})
        return 28 * hidden + 8 * attended + 4 * keys + 10 * wide + inner + norms
    if config.model.dtype == "float32":
        return 24 * hidden + 8 * attended + 8 * keys + 16 * wide + norms
    return 26 * hidden + 4 * attended + 4 * keys + 8 * wide + norms


def _working_bytes(config: TrainConfig, shape: Architecture) -> float:
    """What the backward pass of one layer needs beside that, a token: gradients on their way."""
    hidden, wide = _each(config, adapters=14, float32=6, cast=6), _each(config, adapters=8, float32=8, cast=5)
    return hidden * shape.hidden + wide * shape.intermediate


def _forward_bytes(config: TrainConfig, shape: Architecture) -> float:
    """What one token needs in a pass without gradients, in the widest of its layers."""
    hidden, wide = _each(config, adapters=12, float32=16, cast=16), _each(config, adapters=16, float32=12, cast=8)
    return hidden * shape.hidden + wide * shape.intermediate


def _each(config: TrainConfig, *, adapters: int, float32: int, cast: int) -> int:
    """A figure by how weights are held: frozen under adapters, in float32, or so and cast where they compute."""
    if config.model.lora.rank:
        return adapters
    return float32 if config.model.dtype == "float32" else cast


def _dequantised(config: TrainConfig, shape: Architecture) -> float:
    """The widest linear layer as it is computed with."""
    if config.model.quantisation == "none":
        return 0.0
    return 2.0 * max(a * b for a, b in shape.linear_shapes().values())


def _chunk(shape: Architecture, tokens: int, bytes_each: int) -> float:
    rows = min(tokens, max(1, LOGITS_AT_ONCE // shape.vocabulary))
    return float(bytes_each * rows * shape.vocabulary)


def _update(
    config: TrainConfig, name: str, shape: Architecture, phase: Phase, tokens: int, trained: int, *, reads_logits: bool
) -> Iterator[Part]:
    """Activations, logits and gradients of one micro-batch."""
    checkpointing = config.model.gradient_checkpointing
    width = BYTES[config.model.dtype] if config.model.lora.rank else 4
    layers = 1 if checkpointing else shape.layers
    saved = saved_bytes(config, shape) * layers + _working_bytes(config, shape) + 12 * shape.hidden
    smaller = "run.batch_tokens" if checkpointing or config.model.backend == "tiny" else "model.gradient_checkpointing"
    if checkpointing:
        yield Part(f"{name}: checkpoints of layers", tokens * width * shape.hidden * shape.layers, phase, smaller)
    yield Part(f"{name}: activations", tokens * saved + _dequantised(config, shape), phase, smaller)
    if reads_logits:  # a chunk is done with before the layers are gone back through
        chunk = _chunk(shape, tokens, LOGIT_BYTES_TRAINED)
        yield Part(f"{name}: a chunk of logits", max(0.0, chunk - tokens * saved * checkpointing), phase)
    yield Part(f"{name}: gradients", ADAPTER_BYTES * trained, phase, _RANK if config.model.lora.rank else None)


def _groups(config: TrainConfig, processes: Processes) -> int:
    """Problems of a round on one process."""
    settings = config.policy
    return -(-settings.prompts_per_round // processes.size)


def _policy_update(config: TrainConfig, pair: Pair, processes: Processes) -> Iterator[Part]:
    settings = config.policy
    traces = -(-settings.batch_size // processes.size)
    if config.method.samples_policy:
        traces = _groups(config, processes) * (settings.num_generations + settings.expert_in_group)
    tokens, trained = _batch(config, traces), trained_parameters(config, pair.policy)
    yield from _update(config, "policy", pair.policy, "policy", tokens, trained, reads_logits=True)


def _discriminator_phases(config: TrainConfig, pair: Pair, processes: Processes) -> Iterator[Part]:
    """Its update, and the scoring by it (in which the policy reads the expert traces)."""
    shape, settings = pair.discriminator, config.discriminator
    if shape is None:
        return
    traces = discriminator_traces(config) * _groups(config, processes)
    tokens, own = _batch(config, int(traces)), settings.head != "linear" and settings.likelihood == "own"
    trained = trained_parameters(config, shape) + head_parameters(config, shape)
    yield from _update(config, "discriminator", shape, "discriminator", tokens, trained, reads_logits=own)
    if settings.gradient_penalty:  # no fast kernel has a second derivative, and the graph of the first is kept whole
        scores = 16.0 * tokens * longest_trace(config) * shape.heads * shape.layers
        yield Part("discriminator: attention twice differentiated", scores, "discriminator", "run.batch_tokens")
    read = _batch(config, _groups(config, processes) * (config.policy.num_generations + 1))
    widest = max(_forward_bytes(config, s) + 8 * s.hidden for s in (pair.policy, shape))
    whole = max(_dequantised(config, s) for s in (pair.policy, shape))
    yield Part("both: activations", read * widest + whole, "scoring", "run.batch_tokens")
    yield Part("both: a chunk of logits", _chunk(pair.policy, read, LOGIT_BYTES_READ), "scoring")


def discriminator_traces(config: TrainConfig) -> float:
    """Traces that the discriminator learns from for each problem of a round: the expert's, the samples, replayed ones,
    and corrupted copies of the expert trace and of one sample."""
    settings, samples = config.discriminator, config.policy.num_generations
    return 1 + samples * (1 + settings.replay) + (2 if settings.perturbations else 0)


def samples_at_once(config: TrainConfig, processes: Processes = ALONE) -> int:
    """Most samples that are decoded together: in a round, or in an evaluation."""
    longest = longest_trace(config)
    wanted = 0
    if config.method.samples_policy:
        wanted = _groups(config, processes) * config.policy.num_generations
    if config.run.eval_every:
        wanted = max(wanted, -(-config.run.eval_problems // processes.size) * config.run.eval_samples)
    return min(wanted, max(1, config.policy.sampling_tokens // longest))


def _sampling(config: TrainConfig, pair: Pair, processes: Processes) -> Iterator[Part]:
    shape, rows = pair.policy, samples_at_once(config, processes)
    if not rows:
        return
    tokens, dtype = rows * longest_trace(config), config.model.dtype
    key = "policy.sampling_tokens"
    yield Part("policy: cache of the samples", tokens * shape.kv_bytes(dtype) * (1 + 2 / shape.layers), "sampling", key)
    reading = rows * config.data.max_prompt_tokens * _forward_bytes(config, shape)
    repeated = 2.0 * tokens * shape.attention_width * BYTES[dtype]  # a layer's keys and values, for every query head
    drawing = min(rows * shape.vocabulary, DRAWN_AT_ONCE) * LOGIT_BYTES_DRAWN
    work = max(reading, repeated + drawing) + _dequantised(config, shape)
    yield Part("policy: decoding", work, "sampling", key)
    if processes.sharded and config.model.lora.rank:
        rest = _linear_bytes(config, shape) * (1 - 1 / processes.size)
        yield Part("policy: divided weights made whole", rest, "sampling")
