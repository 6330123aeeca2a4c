"""How long a training takes, by phase, on a stated machine. An estimate: no torch, no network.

Arithmetic and traffic are counted in closed form and divided by shares of a machine's published peaks; decoding also
takes a fixed time a layer for Python and kernel launches. Lengths are typical ones, since limits are rarely reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irl_core.config import TrainConfig
from train.planning.architectures import BYTES, Architecture
from train.planning.memory import (
    ALONE,
    PHASES,
    Pair,
    Phase,
    Processes,
    discriminator_traces,
    head_parameters,
    samples_at_once,
    trained_parameters,
    weight_bytes,
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Published peaks: dense matrix products in bfloat16 and float32 (10^12 a second), memory traffic (10^9 bytes a
    second), memory (10^9 bytes)."""

    name: str
    tflops: float
    float32_tflops: float
    traffic: float
    memory_gb: float


A100 = Machine("A100 40 GB", 312, 19.5, 1555, 40)
CPU = Machine("2 CPU cores", 0.05, 0.05, 20, 8)
# By what torch calls them; the first that fits.
MACHINES = {
    "A100": A100,
    "H200": Machine("H200", 989, 67, 4800, 141),
    "H100": Machine("H100", 989, 67, 3350, 80),
    "L40S": Machine("L40S", 362, 91, 864, 48),
    "RTX 4090": Machine("RTX 4090", 165, 82, 1008, 24),
}

COMPUTE_SHARE, FLOAT32_SHARE, TRAFFIC_SHARE = 0.4, 0.6, 0.7
LAYER_SECONDS = 0.5e-3  # Python and launches of one decoder layer; a backward pass takes as long again
ADAPTERS_SECONDS, QUANTISED_SECONDS = 0.8e-3, 0.3e-3  # more where there are adapters; where weights are dequantised
START_SECONDS = 20.0  # Python, its libraries, the data, and what the first step takes longer
DISK = 1.0  # 10^9 bytes of weights read a second
LOGIT_TRAFFIC = 40  # bytes a logit while a token is drawn
# Typical tokens of a prompt and a completion: of the demo's generator, else of GSM8K with our presets' instruction
# (prompts 111 in Llama 3's tokens and 123 in Qwen2's, expert solutions 90 and 102; models write longer ones).
DEMO_LENGTHS, LENGTHS = (33, 61), (120, 200)
LONGEST = 2.5  # how many times longer than the average the last sample of a batch to end is


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds of an average step by phase, of all evaluations and of the start; ``total`` in seconds."""

    machine: Machine
    steps: int
    step: dict[Phase, float]
    evaluations: float
    start: float

    @property
    def step_seconds(self) -> float:
        return sum(self.step.values())

    @property
    def total(self) -> float:
        return self.start + self.steps * self.step_seconds + self.evaluations


def machine_named(device: str) -> Machine | None:
    """The machine by the name that torch gives a device; None where its peaks are not known here."""
    return next((machine for key, machine in MACHINES.items() if key in device), None)


def typical_lengths(config: TrainConfig) -> tuple[int, int]:
    """Tokens of a prompt and of a completion, within the configured limits."""
    prompt, completion = DEMO_LENGTHS if config.data.source == "demo" else LENGTHS
    return min(prompt, config.data.max_prompt_tokens), min(completion, config.data.max_completion_tokens)


def estimate_durations(
    config: TrainConfig, pair: Pair, processes: Processes = ALONE, *, machine: Machine = A100
) -> Durations:
    """Seconds of each phase on one of ``processes``, which share the work."""
    work = _Work(config, pair, processes, machine)
    step: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
    if not config.method.samples_policy:
        traces = -(-config.policy.batch_size // processes.size)
        step["policy"] = work.update(pair.policy, traces, with_logits=True)
    else:
        _adversarial(work, step)
    problems = -(-config.run.eval_problems // processes.size)
    evaluation = work.sampling(problems, config.run.eval_samples) if config.run.eval_every else 0.0
    loaded = sum(weight_bytes(config, shape) for shape in (pair.policy, pair.discriminator) if shape is not None)
    start = START_SECONDS + loaded / (DISK * 1e9)
    return Durations(machine, config.run.steps, step, work.evaluations * evaluation, start)


def _adversarial(work: _Work, step: dict[Phase, float]) -> None:
    """Fill in the phases of an average round; the policy waits while the discriminator is warmed up."""
    settings, disc, shapes = work.config.policy, work.config.discriminator, work.pair
    groups = -(-settings.prompts_per_round // work.processes.size)
    members = groups * (settings.num_generations + settings.expert_in_group)
    learning = 1.0
    step["sampling"] = work.sampling(groups, settings.num_generations)
    if shapes.discriminator is not None:
        learning = max(0.0, 1 - disc.warmup_rounds / work.config.run.steps)
        anchored = disc.head != "linear"
        seen, updates = groups * discriminator_traces(work.config), disc.updates_per_round
        step["discriminator"] = updates * work.update(shapes.discriminator, seen, with_logits=anchored)
        scored = work.forward(shapes.discriminator, members, with_logits=anchored)
        step["scoring"] = learning * (scored + work.forward(shapes.policy, members, with_logits=True))
    policy = settings.updates_per_round * work.update(shapes.policy, members, with_logits=True)
    if settings.kl_coefficient:
        policy += settings.updates_per_round * work.forward(shapes.policy, members, with_logits=True)
    step["policy"] = learning * policy


@dataclass(frozen=True, slots=True)
class _Work:
    """The arithmetic of passes on a machine."""

    config: TrainConfig
    pair: Pair
    processes: Processes
    machine: Machine

    @property
    def lengths(self) -> tuple[int, int]:
        return typical_lengths(self.config)

    @property
    def evaluations(self) -> int:
        run = self.config.run
        return -(-run.steps // run.eval_every) if run.eval_every else 0

    @property
    def layer_seconds(self) -> float:
        model = self.config.model
        adapters = ADAPTERS_SECONDS if model.lora.rank else 0.0
        return LAYER_SECONDS + adapters + (QUANTISED_SECONDS if model.quantisation != "none" else 0.0)

    @property
    def _rate(self) -> float:
        """Products a second in the precision that is computed in."""
        if self.config.model.dtype == "float32":
            return FLOAT32_SHARE * self.machine.float32_tflops * 1e12
        return COMPUTE_SHARE * self.machine.tflops * 1e12

    @property
    def _float32_rate(self) -> float:
        return FLOAT32_SHARE * self.machine.float32_tflops * 1e12

    @property
    def _traffic(self) -> float:
        return TRAFFIC_SHARE * self.machine.traffic * 1e9

    def _read(self, shape: Architecture) -> float:
        """Bytes that reading all weights once moves: those of 4 and 8 bit are also written and read in 16."""
        moved = weight_bytes(self.config, shape)
        return moved + (4.0 * shape.linear_parameters if self.config.model.quantisation != "none" else 0.0)

    def _pass(self, shape: Architecture, tokens: float, traces: float, logits: float, times: float) -> float:
        """Seconds of ``times`` matrix passes (a forward pass is one, gradients of the inputs another)."""
        length = tokens / max(1.0, traces)
        attention = 2 * shape.layers * tokens * length * shape.attention_width  # half of the square is masked
        products = 2 * shape.linear_parameters * tokens + attention + 2 * shape.vocabulary * shape.hidden * logits
        batches = max(1.0, tokens / self.config.run.batch_tokens)
        passes = max(products / self._rate, batches * max(self._read(shape) / self._traffic, self._launches(shape)))
        lora = self.config.model.lora
        adapters = 2 * tokens * shape.adapter_parameters(lora.rank, lora.targets) / self._float32_rate
        return times * (passes + adapters)

    def _launches(self, shape: Architecture) -> float:
        return shape.layers * self.layer_seconds

    def forward(self, shape: Architecture, traces: float, *, with_logits: bool) -> float:
        """Seconds to read traces of typical length, without gradients."""
        prompt, completion = self.lengths
        logits = traces * completion * with_logits
        return self._pass(shape, traces * (prompt + completion), traces, logits, 1.0)

    def update(self, shape: Architecture, traces: float, *, with_logits: bool) -> float:
        """Seconds of one step of an optimiser on traces of typical length: forward, gradients of inputs and (of what is
        trained) of weights, and with gradient checkpointing the forward pass again; then the moments."""
        model = self.config.model
        times = 2.0 + (0.0 if model.lora.rank else 1.0) + model.gradient_checkpointing
        prompt, completion = self.lengths
        logits = traces * completion * with_logits
        seconds = self._pass(shape, traces * (prompt + completion), traces, logits, times)
        trained = trained_parameters(self.config, shape) + head_parameters(self.config, shape)
        if model.lora.rank:  # the gradients of the adapters' own weights
            seconds += 2 * traces * (prompt + completion) * trained / self._float32_rate
        return seconds + 28 * trained / self._traffic  # weight, gradient and moments, read and written

    def sampling(self, prompts: int, samples: int) -> float:
        """Seconds to draw samples of so many prompts: reading the prompts, then one token of every sample at a time
        until the longest of a batch has ended."""
        shape, (prompt, completion) = self.pair.policy, self.lengths
        rows = prompts * samples
        if not rows:
            return 0.0
        batches = -(-rows // max(1, min(rows, samples_at_once(self.config, self.processes))))
        together = rows / batches
        longest = min(LONGEST * completion, self.config.data.max_completion_tokens)
        reading = self._pass(shape, together * prompt, together, together, 1.0)
        return batches * (reading + longest * self._token(together))

    def _token(self, rows: float) -> float:
        """Seconds of one decoding step of so many samples."""
        shape, (prompt, completion) = self.pair.policy, self.lengths
        cached = rows * (prompt + completion) * shape.kv_bytes(self.config.model.dtype)
        logits = rows * shape.vocabulary * LOGIT_TRAFFIC
        lora = self.config.model.lora
        adapters = BYTES["float32"] * shape.adapter_parameters(lora.rank, lora.targets)
        moved = self._read(shape) + adapters + cached + logits
        products = 2 * rows * (shape.linear_parameters + shape.vocabulary * shape.hidden)
        return max(products / self._rate, moved / self._traffic, self._launches(shape))


def assumptions(durations: Durations, config: TrainConfig) -> Iterator[str]:
    """What an estimate rests on, in words."""
    machine, (prompt, completion) = durations.machine, typical_lengths(config)
    yield (
        f"{machine.name}: {COMPUTE_SHARE:.0%} of {machine.tflops:g} TFLOP/s, {FLOAT32_SHARE:.0%} of "
        f"{machine.float32_tflops:g} in float32, {TRAFFIC_SHARE:.0%} of {machine.traffic:g} GB/s"
    )
    yield (
        f"prompts of {prompt} tokens and completions of {completion}, the longest of a batch {LONGEST:g} times as long"
    )
    yield f"{durations.start:.0f} s to start: {START_SECONDS:g} s, and weights read at {DISK:g} GB/s"
    yield f"{1000 * LAYER_SECONDS:g} ms a layer and token for Python and launches, more with adapters and 4 bit"
