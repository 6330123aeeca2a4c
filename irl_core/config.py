"""The training configuration, validated by pydantic; ``irl_core.presets`` reads it from files.

An unknown key is an error that names the nearest key; a wrong value is one that names the key, the value and what is
expected. Nothing in a configuration is executed. ``TrainConfig()`` holds the defaults; a preset states what differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, cast, get_args

import yaml
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from irl_core.config_checks import REWRITING, check_bare_prompts, check_labels
from irl_core.errors import ConfigError
from irl_core.methods import METHODS, Method
from irl_core.settings import Settings, expand_aliases
from irl_core.validation import (
    STRICT,
    Count,
    CountOrZero,
    Flag,
    Momentum,
    NotNegative,
    Number,
    Positive,
    Range,
    Rate,
    Share,
    Text,
    Whole,
    validated,
)  # fmt: skip

PerturbationKind = Literal[
    "flip_operator", "offset_number", "swap_answer", "carry_wrong_value", "wrong_operand", "drop_step", "unit_or_rate",
    "wrong_operation",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class RunConfig:
    """Method, length, evaluation and checkpoints of a training run. Intervals are in steps; 0 = never.

    ``batch_tokens``: largest micro-batch in tokens, padding included; results do not depend on it. ``after``: presets
    whose finished training runs this one starts from. ``eval_*``: pass@1 on held-out problems; the checkpoint with the
    best is kept. ``patience``: steps of a collapsed discriminator after which to warn; twice as many stop the training.
    """

    preset: Text = ""
    after: tuple[Text, ...] = ()
    method: Literal["sft", "irl", "grpo", "process"] = "irl"
    seed: Annotated[Whole, Range(0, 2**32 - 1)] = 0
    steps: Count = 500
    save_every: CountOrZero = 50
    keep: Count = 3
    eval_every: CountOrZero = 0
    eval_problems: Count = 64
    eval_samples: Count = 4
    patience: Count = 50
    trackers: tuple[Literal["wandb", "trackio"], ...] = ()
    calibration_problems: Count = 200
    calibration_samples: Count = 8
    batch_tokens: Count = 16384


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class DataConfig:
    """Training problems and expert solutions. Lengths are in tokens.

    ``source``: ``demo`` (generated word problems), ``gsm8k``, or the path of a JSONL file. ``families``: those that the
    demo's problems are drawn from; none stands for all. ``drills``: bare sums mixed
    into the demo's training problems, to teach arithmetic first. ``layout``: the form of expert solutions.
    ``styles``: show each expert solution in another style at every visit (marks, operators, restated facts, closing
    line). ``instruction``: text before every problem. ``demonstrations``: so many training problems have an expert
    solution, all others are bare (see ``policy.bare_prompts``); 0: every one has. With the demo's source they are of
    the ``demonstrated_families`` (none: of all). ``held_out``: rows at the end of a source that training never
    sees, for calibration and evaluation. ``expert_errors``: share of expert traces replaced by a perturbed copy (an
    ablation of the experts' quality).
    """

    source: Text = "demo"
    families: tuple[Text, ...] = ()
    train_problems: Count = 7473
    held_out: CountOrZero = 300
    drills: CountOrZero = 0
    demonstrations: CountOrZero = 0
    demonstrated_families: tuple[Text, ...] = ()
    layout: Literal["as_written", "think_answer"] = "as_written"
    styles: Flag = False
    instruction: Text = ""
    expert_errors: Share = 0.0
    max_prompt_tokens: Count = 512
    max_completion_tokens: Count = 512


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021), kept in float32. ``rank`` 0 trains every weight instead."""

    rank: CountOrZero = 0
    alpha: Count = 32
    dropout: Momentum = 0.0
    targets: tuple[Text, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ModelConfig:
    """Models, their precision and their adapters.

    ``policy`` and ``discriminator``: our checkpoints (a training run's ``final``; of a pair its discriminator, with the
    head); with the backends ``transformers`` and ``unsloth`` also model folders or names on the hub. The backend
    ``tiny`` builds a Llama of the given shape where no policy is named. ``packing``: several sequences in one row,
    without padding. ``shared_prompts``: on the CPU, traces of one problem also share its prompt. ``compile``: fuse the
    operations of each layer with torch.compile (on the CPU; needs a C++ compiler, takes half a minute at the start).
    """

    backend: Literal["tiny", "transformers", "unsloth"] = "tiny"
    policy: Text | None = None
    policy_revision: Text | None = None
    discriminator: Text | None = None
    discriminator_revision: Text | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantisation: Literal["none", "int8", "nf4"] = "none"
    lora: LoraConfig = field(default_factory=LoraConfig)
    gradient_checkpointing: Flag = False
    packing: Flag = False
    shared_prompts: Flag = False
    compile: Flag = False
    optimiser: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    hidden_size: Count = 128
    layers: Count = 4
    heads: Count = 4
    intermediate_size: Count = 384
    vocab_size: Annotated[Whole, Range(2)] = 1024
    context: Count = 512

    @property
    def batch_layout(self) -> Literal["padded", "packed", "shared_prompts"]:
        """How traces stand in a batch, see ``irl_core.models.batching``."""
        if self.shared_prompts:
            return "shared_prompts"
        return "packed" if self.packing else "padded"

    def __post_init__(self) -> None:
        tiny = self.backend == "tiny"
        if tiny and self.hidden_size % (2 * self.heads):
            raise ConfigError(
                f"model.hidden_size is {self.hidden_size}; it must be a multiple of 2 * model.heads = {2 * self.heads}"
            )
        if tiny and (self.quantisation != "none" or self.lora.rank):
            raise ConfigError(
                "model.backend is 'tiny', whose weights are all trained in full; set model.lora.rank to 0 and "
                "model.quantisation to none, or take the backend transformers"
            )
        if not tiny and self.policy is None:
            raise ConfigError(
                f"model.backend is {self.backend!r} without a model; set model.policy to a name or a folder"
            )
        if self.quantisation != "none" and not self.lora.rank:
            raise ConfigError(
                f"model.quantisation is {self.quantisation!r}, and quantised weights cannot be trained; "
                "set model.lora.rank (16, say), or quantisation to none"
            )
        if self.lora.rank and not self.lora.targets:
            raise ConfigError(
                "model.lora.targets is empty; name the layers that get adapters, such as [q_proj, v_proj]"
            )
        if self.backend == "unsloth" and self.packing:
            raise ConfigError("model.packing is true, but unsloth brings its own attention; set it to false")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class PolicyConfig:
    """Sampling, advantages and policy updates (with ``sft``: the likelihood training).

    ``update``: the clipped surrogate of the advantages (the paper's, eq. 6); ``best_of_n``, likelihood of the best
    sample of each problem (expert iteration, Anthony et al. 2017); or ``preferences``, of its best over its worst (DPO
    against the policy's start, with ``preference_beta``, and ``preference_likelihood`` times the best one's mean
    log-probability, without which reasoning suffers: Pang et al. 2024). Both rank by ``trace_score``, with ``grpo`` by
    correctness.
    ``advantage``: the discounted sum of standardised rewards (the paper's, eq. 5) or of credit, the soft minimum, or
    ``trace``: the ``trace_score`` standardised within the group, on every token (GRPO with the learned reward).
    ``unknown_answer``: with outcome rewards (``grpo``), whether a sample whose answer is missing or cannot be compared
    has no advantage, or counts as wrong. ``negative_weight`` scales advantages below 0; at 0 the policy only follows
    what is better than its group.
    ``sampler``: our decoding loop, transformers' ``generate`` (with a dynamic or static ``cache``), or a serving
    ``engine`` that is given the adapters of every round (``docs/plug-in.md``); ``sampling_tokens`` bounds the cached
    tokens (prompt and completion) of the samples decoded at once.
    ``max_new_tokens``: of a sample in training; 0 = ``data.max_completion_tokens``.
    ``bare_prompts``: of the ``prompts_per_round``, how many have no demonstration in the rounds in which the policy
    learns: their samples are rewarded, and the discriminator does not learn from them.
    """

    learning_rate: Rate = 1e-4
    warmup_ratio: Share = 0.1
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    batch_size: Count = 16
    prompts_per_round: Count = 8
    bare_prompts: CountOrZero = 0
    num_generations: Count = 8
    updates_per_round: Count = 1
    update: Literal["surrogate", "best_of_n", "preferences"] = "surrogate"
    preference_beta: Positive = 0.1
    preference_likelihood: NotNegative = 1.0
    sampler: Literal["loop", "generate", "engine"] = "loop"
    cache: Literal["dynamic", "static"] = "dynamic"
    sampling_tokens: Count = 262144
    max_new_tokens: CountOrZero = 0
    temperature: Annotated[Number, Range(0, 10, above=True)] = 1.0
    top_p: Annotated[Number, Range(0, 1, above=True)] = 1.0
    gamma: Share = 0.9
    advantage: Literal["discounted", "credit", "minimum", "trace"] = "discounted"
    trace_score: Literal["mean_discounted", "mean", "last", "minimum", "product", "credit_sum", "credit_minimum"] = (
        "credit_sum"
    )
    baseline: Literal["group", "leave_one_out"] = "group"
    standardise_over: Literal["last", "all", "batch", "none"] = "all"
    expert_in_group: Flag = True
    unknown_answer: Literal["left_out", "wrong"] = "left_out"
    negative_weight: Share = 1.0
    clip_eps: Momentum = 0.2
    kl_coefficient: NotNegative = 0.0
    prompt_loss_weight: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    weight_decay: NotNegative = 0.0
    betas: tuple[Momentum, Momentum] = (0.9, 0.99)

    @property
    def needs_reference(self) -> bool:
        """Whether the policy's start is kept, frozen, beside it."""
        return bool(self.kl_coefficient) or self.update == "preferences"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ClassWeights:
    """Weights of the classes of tokens in the discriminator's loss."""

    expert: NotNegative = 1.0
    policy: NotNegative = 1.0
    perturbed: NotNegative = 1.0

    def as_tuple(self) -> tuple[float, float, float]:
        """The weights in the order of the classes: expert, policy, perturbed."""
        return self.expert, self.policy, self.perturbed


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class DiscriminatorConfig:
    """The reward model: head, labels, loss and update.

    ``loss``: cross-entropy of tokens (the paper's) or of whole traces (``sequence``), a Wasserstein critic;
    ``relativistic``, which of two solutions of a problem is the expert's, with a tie (of ``tie_margin``) where a sample
    does not depart from it (RARO); ``maxent``, the demonstrations' likelihood with importance-weighted samples
    (rePIRL); or ``outcome``, whether the answer is right, which with the head ``implicit`` is PRIME's.
    ``weight_clip`` (of the head) and ``gradient_penalty`` (at the input embeddings): 0 = off. ``replay``: earlier
    samples added as negatives, as a share of the round's own, from the last ``replay_capacity``. ``policy_labels``:
    which tokens of a sample are labelled non-expert: all (the paper), those from the first that differs from the
    expert's, or those from the first equation (or value, however it was come by) or answer that the expert does not
    have. ``balance``: whether the expert's tokens and the others weigh the same over all ``traces`` alone, or at each
    of the ``steps``, so that the place does not tell them apart. ``likelihood_weight``: weight of the expert traces'
    likelihood beside the classification. ``final_anchor``: weight of the policy's log-probability that a linear head is
    given when the training has ended (``irl_core.reward.discriminator.anchored``). ``perturbed_copies`` of each expert
    trace. ``updates_per_round``: at 0 the discriminator stays what it starts as, which with an anchored head is a
    likelihood. ``tail``: share of the other traces that are read to their end; the rest only to the end of the step in
    which they depart. ``minibatches``: parts that a round's problems are split into, each with its own updates.
    """

    head: Literal["linear", "anchored", "cumulative", "implicit"] = "anchored"
    likelihood: Literal["own", "policy"] = "own"
    loss: Literal["bce", "wasserstein", "sequence", "relativistic", "maxent", "outcome"] = "bce"
    tie_margin: NotNegative = 0.5
    learning_rate: Rate = 5e-5
    head_learning_rate_factor: Positive = 10.0
    warmup_rounds: CountOrZero = 0
    warmup_learning_rate: Rate = 5e-4
    updates_per_round: CountOrZero = 1
    minibatches: Count = 1
    target_expert: Share = 0.95
    target_other: Share = 0.05
    class_weights: ClassWeights = field(default_factory=ClassWeights)
    balance: Literal["traces", "steps"] = "traces"
    perturbations: tuple[PerturbationKind, ...] = get_args(PerturbationKind)
    perturbed_copies: Count = 1
    perturbation_labels: Literal["from_corruption", "whole_trace"] = "from_corruption"
    policy_labels: Literal["whole_trace", "from_departure", "from_departed_equation", "from_departed_value"] = (
        "whole_trace"
    )
    gradient_penalty: NotNegative = 0.0
    weight_clip: NotNegative = 0.0
    replay: NotNegative = 0.0
    replay_capacity: Count = 4096
    tail: Share = 1.0
    likelihood_weight: NotNegative = 0.0
    final_anchor: NotNegative = 0.0
    max_grad_norm: Positive = 1.0

    def __post_init__(self) -> None:
        if self.final_anchor and self.head != "linear":
            raise ConfigError(
                f"discriminator.final_anchor is {self.final_anchor}, but a head of the kind {self.head} has an anchor "
                "already; set it to 0, or head to linear"
            )
        if self.target_other >= self.target_expert:
            raise ConfigError(
                f"discriminator.target_other is {self.target_other}; "
                f"it must be below target_expert {self.target_expert}"
            )
        if self.likelihood_weight and (self.head == "linear" or self.likelihood == "policy"):
            raise ConfigError(
                f"discriminator.likelihood_weight is {self.likelihood_weight}, but only a head anchored to its own "
                "likelihood has one to train; set it to 0, or head to anchored and likelihood to own"
            )
        if self.head == "implicit" and self.likelihood != "policy":
            raise ConfigError(
                "discriminator.head is 'implicit', the log-ratio to the policy, and discriminator.likelihood is "
                f"{self.likelihood!r}; set it to policy"
            )
        if self.replay and self.loss in ("relativistic", "maxent"):
            raise ConfigError(
                f"discriminator.replay is {self.replay}, but the loss {self.loss} compares a sample with its problem's "
                "demonstration, which is not replayed; set it to 0"
            )
        if self.loss == "wasserstein" and not (self.weight_clip or self.gradient_penalty):
            raise ConfigError(
                "discriminator.loss is 'wasserstein' without a bound; set discriminator.gradient_penalty or weight_clip"
            )


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TrainConfig:
    """All settings of a training run. Settings that contradict each other raise ConfigError."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        policy = self.policy
        if policy.standardise_over == "batch" and policy.advantage != "trace":
            raise ConfigError(
                f"policy.standardise_over is 'batch' with the advantage {policy.advantage!r}; only trace knows it, "
                "take all, last or none"
            )
        if self.model.quantisation == "int8" and self.method.needs_discriminator:
            raise ConfigError(
                "model.quantisation is 'int8', in which what a discriminator says of a solution depends on the "
                "solutions beside it (by up to 1.5 nat a token); set it to none, or to nf4 above 1.5 billion parameters"
            )
        group_size = policy.num_generations + (policy.expert_in_group and self.method.needs_discriminator)
        learned = self.method.needs_discriminator and self.discriminator.updates_per_round > 0
        check_bare_prompts(policy.bare_prompts, policy.prompts_per_round, self.data.demonstrations, learned)
        if self.method.reads_labels:
            rewriting = {key: (getattr(self.data, key), getattr(DataConfig(), key)) for key in REWRITING}
            check_labels(self.run.method, self.discriminator.loss, rewriting)
        if self.method.samples_policy and group_size < 2:
            raise ConfigError(
                f"policy.num_generations is {policy.num_generations}; a group needs at least 2 solutions to compare"
            )

    @property
    def method(self) -> Method:
        """The training method, with what it needs."""
        return METHODS[self.run.method]

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> TrainConfig:
        """The configuration in a (nested) mapping such as ``to_dict`` gives; missing keys take their defaults."""
        return validated(cls, expand_aliases(document), ConfigError)

    def to_dict(self) -> Settings:
        """Plain nested dictionaries and lists, fit for YAML and JSON; ``from_dict`` reads them back."""
        return cast(Settings, to_jsonable_python(self))

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, itself a file that ``load_config`` takes."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of the canonical JSON: equal settings, equal fingerprint, on every machine."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()
