"""Estimated time of a training, by phase, on a stated machine. No torch, no network.

Arithmetic and memory traffic are counted in closed form and divided by shares of a machine's published peaks; decoding
also takes a fixed time a layer for Python and kernel launches. Lengths are typical ones: limits are rarely reached.
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
    groups_of_round,
    head_parameters,
    samples_at_once,
    trained_parameters,
    weight_bytes,
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's published peaks: dense matrix products in bfloat16 and float32 (10^12 operations a second), memory
    traffic (10^9 bytes a second), memory (10^9 bytes)."""

    name: str
    tflops: float
    float32_tflops: float
    traffic: float
    memory_gb: float

    @property
    def float32_rate(self) -> float:
        """Operations a second that float32 products reach."""
        return FLOAT32_SHARE * self.float32_tflops * 1e12

    def rate(self, dtype: str) -> float:
        """Operations a second that products in ``dtype`` reach."""
        return self.float32_rate if dtype == "float32" else COMPUTE_SHARE * self.tflops * 1e12

    @property
    def bytes_a_second(self) -> float:
        """Memory traffic that is reached."""
        return TRAFFIC_SHARE * self.traffic * 1e9


A100 = Machine("A100 40 GB", 312, 19.5, 1555, 40)
CPU = Machine("2 CPU cores", 0.05, 0.05, 20, 8)
AMX_CPU = Machine("2 CPU cores with AMX", 2.0, 0.26, 20, 24)
CPUS = (CPU, AMX_CPU)
# By a part of torch's name for the device; the first that fits.
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
    """Seconds of an average step by phase, of all evaluations together, of the start, and of the calibration at the end
    (0 without a discriminator)."""

    machine: Machine
    steps: int
    step: dict[Phase, float]
    evaluations: float
    start: float
    calibration: float = 0.0

    @property
    def step_seconds(self) -> float:
        """Seconds of an average step."""
        return sum(self.step.values())

    @property
    def total(self) -> float:
        """Seconds of the whole training."""
        return self.start + self.steps * self.step_seconds + self.evaluations + self.calibration


def cpu_of(config: TrainConfig) -> Machine | None:
    """The machine that a training made for a CPU is estimated for: of the tiny backend, or of small pretrained models
    whose traces share prompts. None of others."""
    if config.model.backend == "tiny":
        return CPU
    return AMX_CPU if config.model.shared_prompts else None


def machine_named(device: str) -> Machine | None:
    """The machine of torch's name for a device; None where its peaks are not known here."""
    return next((machine for key, machine in MACHINES.items() if key in device), None)


def typical_lengths(config: TrainConfig) -> tuple[int, int]:
    """Typical numbers of tokens of a prompt and of a completion, within the configured limits."""
    prompt, completion = DEMO_LENGTHS if config.data.source == "demo" else LENGTHS
    return min(prompt, config.data.max_prompt_tokens), min(completion, config.data.max_completion_tokens)


def estimate_durations(
    config: TrainConfig, pair: Pair, processes: Processes = ALONE, *, machine: Machine = A100
) -> Durations:
    """Seconds of each phase on one of ``processes``, which share the work."""
    work = Workload(config, pair, processes, machine)
    step: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
    if config.method.reads_labels:
        step |= discriminator_seconds(work)
    elif not config.method.samples_policy:
        traces = -(-config.policy.batch_size // processes.size)
        step["policy"] = work.update(pair.policy, traces, with_logits=True)
    else:
        step |= round_seconds(work)
    run = config.run
    evaluations = 0.0
    if run.eval_every:
        problems = -(-run.eval_problems // processes.size)
        evaluations = -(-run.steps // run.eval_every) * work.sampling(problems, run.eval_samples)
    loaded = sum(weight_bytes(config, shape) for shape in (pair.policy, pair.discriminator) if shape is not None)
    start = START_SECONDS + loaded / (DISK * 1e9)
    return Durations(machine, run.steps, step, evaluations, start, calibration_seconds(work))


def calibration_seconds(work: Workload) -> float:
    """Seconds of the calibration at the end: samples of held-out problems, and both models reading these, the problems'
    expert solutions and a perturbed copy of each."""
    shape, run = work.pair.discriminator, work.config.run
    if shape is None:
        return 0.0
    problems, anchored = run.calibration_problems, work.config.discriminator.head != "linear"
    samples, solutions = problems * run.calibration_samples, 2.0 * problems
    seconds = work.sampling(problems, run.calibration_samples)
    seconds += work.forward(shape, samples + solutions, with_logits=anchored)
    return seconds + work.forward(work.pair.policy, solutions, with_logits=True)


def round_seconds(work: Workload) -> dict[Phase, float]:
    """Seconds of each phase of an average round; the policy waits while the discriminator is warmed up."""
    settings, disc, shapes = work.config.policy, work.config.discriminator, work.pair
    groups = groups_of_round(work.config, work.processes)
    members = groups * (settings.num_generations + settings.expert_in_group)
    step: dict[Phase, float] = {"sampling": work.sampling(groups, settings.num_generations)}
    learning = 1.0  # the share of the rounds in which the policy learns
    if shapes.discriminator is not None:
        learning = max(0.0, 1 - disc.warmup_rounds / work.config.run.steps)
        step |= discriminator_seconds(work)
        scored = work.forward(shapes.discriminator, members, with_logits=disc.head != "linear")
        step["scoring"] = learning * (scored + work.forward(shapes.policy, members, with_logits=True))
    policy = settings.updates_per_round * work.update(shapes.policy, members, with_logits=True)
    if settings.needs_reference:
        policy += settings.updates_per_round * work.forward(shapes.policy, members, with_logits=True)
    step["policy"] = learning * policy
    return step


def discriminator_seconds(work: Workload) -> dict[Phase, float]:
    """Seconds of the discriminator's updates in a round."""
    settings, shape = work.config.discriminator, work.pair.discriminator
    if shape is None:
        return {}
    read = discriminator_traces(work.config, work.processes)
    update = work.update(shape, read, with_logits=settings.head != "linear")
    return {"discriminator": settings.updates_per_round * update}


@dataclass(frozen=True, slots=True)
class Workload:
    """The passes of a training's models on a machine, in seconds."""

    config: TrainConfig
    pair: Pair
    processes: Processes
    machine: Machine

    def layer_launches(self, shape: Architecture) -> float:
        """Seconds for Python and kernel launches of a forward pass."""
        model = self.config.model
        adapters = ADAPTERS_SECONDS if model.lora.rank else 0.0
        return shape.layers * (LAYER_SECONDS + adapters + (QUANTISED_SECONDS if model.quantisation != "none" else 0.0))

    def weight_traffic(self, shape: Architecture) -> float:
        """Bytes that reading all weights once moves: those of 4 and 8 bit are also written and read in 16."""
        dequantised = 4.0 * shape.linear_parameters if self.config.model.quantisation != "none" else 0.0
        return weight_bytes(self.config, shape) + dequantised

    def passes(self, shape: Architecture, tokens: float, traces: float, logits: float, times: float) -> float:
        """Seconds of ``times`` matrix passes (a forward pass is one, gradients of the inputs another)."""
        length, machine = tokens / max(1.0, traces), self.machine
        attention = 2 * shape.layers * tokens * length * shape.attention_width  # half of the square is masked
        products = 2 * shape.linear_parameters * tokens + attention + 2 * shape.vocabulary * shape.hidden * logits
        batches = max(1.0, tokens / self.config.run.batch_tokens)
        waiting = max(self.weight_traffic(shape) / machine.bytes_a_second, self.layer_launches(shape))
        once = max(products / machine.rate(self.config.model.dtype), batches * waiting)
        lora = self.config.model.lora
        adapters = 2 * tokens * shape.adapter_parameters(lora.rank, lora.targets) / machine.float32_rate
        return times * (once + adapters)

    def forward(self, shape: Architecture, traces: float, *, with_logits: bool) -> float:
        """Seconds to read traces of typical length, without gradients."""
        prompt, completion = typical_lengths(self.config)
        logits = traces * completion * with_logits
        return self.passes(shape, traces * (prompt + completion), traces, logits, 1.0)

    def update(self, shape: Architecture, traces: float, *, with_logits: bool) -> float:
        """Seconds of one step of an optimiser on traces of typical length: forward, gradients of inputs and (of what is
        trained) of weights, and with gradient checkpointing the forward pass again; then the moments."""
        model = self.config.model
        times = 2.0 + (0.0 if model.lora.rank else 1.0) + model.gradient_checkpointing
        prompt, completion = typical_lengths(self.config)
        logits = traces * completion * with_logits
        seconds = self.passes(shape, traces * (prompt + completion), traces, logits, times)
        trained = trained_parameters(self.config, shape) + head_parameters(self.config, shape)
        if model.lora.rank:  # the gradients of the adapters' own weights
            seconds += 2 * traces * (prompt + completion) * trained / self.machine.float32_rate
        return seconds + 28 * trained / self.machine.bytes_a_second  # weight, gradient and moments, read and written

    def sampling(self, prompts: int, samples: int) -> float:
        """Seconds to draw samples of so many prompts: reading the prompts, then one token of every sample at a time
        until the longest of a batch has ended."""
        shape, (prompt, completion) = self.pair.policy, typical_lengths(self.config)
        rows = prompts * samples
        if not rows:
            return 0.0
        batches = -(-rows // max(1, min(rows, samples_at_once(self.config, self.processes))))
        together = rows / batches
        longest = min(LONGEST * completion, self.config.data.max_completion_tokens)
        reading = self.passes(shape, together * prompt, together, together, 1.0)
        return batches * (reading + longest * self.decoding_step(together))

    def decoding_step(self, rows: float) -> float:
        """Seconds to decode one token of so many samples."""
        shape, model, machine = self.pair.policy, self.config.model, self.machine
        cached = rows * sum(typical_lengths(self.config)) * shape.kv_bytes(model.dtype)
        logits = rows * shape.vocabulary * LOGIT_TRAFFIC
        adapters = BYTES["float32"] * shape.adapter_parameters(model.lora.rank, model.lora.targets)
        moved = self.weight_traffic(shape) + adapters + cached + logits
        products = 2 * rows * (shape.linear_parameters + shape.vocabulary * shape.hidden)
        return max(products / machine.rate(model.dtype), moved / machine.bytes_a_second, self.layer_launches(shape))


def assumptions(durations: Durations, config: TrainConfig) -> Iterator[str]:
    """The assumptions of an estimate, a line each."""
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
