"""The training configuration: typed, validated, from YAML presets with ``base:`` and ``--set key=value`` overrides.

An unknown key is an error that names the nearest key; a wrong value names the key, the value and what is expected.
Nothing in a configuration is ever executed. ``TrainConfig()`` is the default; every preset is a difference from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import yaml

MAX_FILE_BYTES = 1_000_000
ALIASES = {"steps": "run.steps", "seed": "run.seed"}


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the key, the value and the mend."""


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive limits of a number; ``above`` excludes the lower one, ``below`` the upper one."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        left = "(" if self.above or math.isinf(self.low) else "["
        right = ")" if self.below or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Rate = Annotated[float, Range(0, 1, above=True)]
Momentum = Annotated[float, Range(0, 1, below=True)]
PerturbationKind = Literal[
    "flip_operator",
    "offset_number",
    "swap_answer",
    "carry_wrong_value",
    "wrong_operand",
    "drop_step",
    "unit_or_rate",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What is run and what is kept. Intervals are in steps; 0 = never. ``batch_tokens`` bounds a micro-batch (padding
    included); results do not depend on it. ``after`` names presets whose finished runs this one starts from."""

    preset: str = ""
    after: tuple[str, ...] = ()
    method: Literal["sft", "irl", "grpo"] = "irl"
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    steps: Count = 500
    save_every: CountOrZero = 50
    keep: Count = 3
    calibration_problems: Count = 200
    batch_tokens: Count = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """``source``: ``demo`` (generated word problems), ``gsm8k``, or the path of a JSONL file. Lengths in tokens.

    ``drills``: bare sums mixed into the demo's training problems, to teach arithmetic first.
    """

    source: str = "demo"
    train_problems: Count = 7473
    drills: CountOrZero = 0
    max_completion_tokens: Count = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which models: their shape, or the checkpoints whose policies ``policy`` and ``discriminator`` start from."""

    backend: Literal["tiny"] = "tiny"
    policy: str | None = None
    discriminator: str | None = None
    hidden_size: Count = 128
    layers: Count = 4
    heads: Count = 4
    intermediate_size: Count = 384
    vocab_size: Annotated[int, Range(2)] = 1024
    context: Count = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Sampling, advantages and the update of the policy (for ``sft``: the likelihood training).

    ``advantage``: the discounted sum of standardised rewards (the paper's, eq. 5) or of credit, the soft minimum, or
    ``trace``: the ``trace_score`` standardised within the group, on every token (GRPO with the learned reward).
    ``negative_weight`` scales advantages below 0; at 0 the policy only follows what is better than its group.
    """

    learning_rate: Rate = 1e-4
    warmup_ratio: Share = 0.1
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    batch_size: Count = 16
    prompts_per_round: Count = 8
    num_generations: Count = 8
    updates_per_round: Count = 1
    temperature: Annotated[float, Range(0, 10, above=True)] = 1.0
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0
    gamma: Share = 0.9
    advantage: Literal["discounted", "credit", "minimum", "trace"] = "discounted"
    trace_score: Literal["mean_discounted", "mean", "last", "minimum", "credit_sum", "credit_minimum"] = "credit_sum"
    baseline: Literal["group", "leave_one_out"] = "group"
    standardise_over: Literal["last", "all", "batch", "none"] = "all"
    expert_in_group: bool = True
    negative_weight: Share = 1.0
    clip_eps: Momentum = 0.2
    kl_coefficient: NotNegative = 0.0
    prompt_loss_weight: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    weight_decay: NotNegative = 0.0
    betas: tuple[Momentum, Momentum] = (0.9, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassWeights:
    """Weight of each class of tokens in the discriminator's loss."""

    expert: NotNegative = 1.0
    policy: NotNegative = 1.0
    perturbed: NotNegative = 1.0

    def as_tuple(self) -> tuple[float, float, float]:
        """The weights in the order of the classes: expert, policy, perturbed."""
        return self.expert, self.policy, self.perturbed


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscriminatorConfig:
    """The reward model: head, labels, loss and update. ``weight_clip`` (of the head) and
    ``gradient_penalty`` (at the input embeddings) 0 = off.

    ``replay``: earlier samples added as negatives, as a share of the round's own, from the last ``replay_capacity``.
    ``policy_labels``: which tokens of a sample are non-expert: all (the paper's), those from the first that differs
    from the expert's, or those from the first equation or answer that the expert does not have.
    ``likelihood_weight``: how much the expert traces' likelihood counts beside the classification.
    """

    head: Literal["linear", "anchored", "cumulative"] = "anchored"
    likelihood: Literal["own", "policy"] = "own"
    loss: Literal["bce", "wasserstein", "sequence"] = "bce"
    learning_rate: Rate = 5e-5
    head_learning_rate_factor: Positive = 10.0
    warmup_rounds: CountOrZero = 0
    warmup_learning_rate: Rate = 5e-4
    updates_per_round: Count = 1
    target_expert: Share = 0.95
    target_other: Share = 0.05
    class_weights: ClassWeights = field(default_factory=ClassWeights)
    perturbations: tuple[PerturbationKind, ...] = get_args(PerturbationKind)
    perturbation_labels: Literal["from_corruption", "whole_trace"] = "from_corruption"
    policy_labels: Literal["whole_trace", "from_departure", "from_departed_equation"] = "whole_trace"
    gradient_penalty: NotNegative = 0.0
    weight_clip: NotNegative = 0.0
    replay: NotNegative = 0.0
    replay_capacity: Count = 4096
    likelihood_weight: NotNegative = 0.0
    max_grad_norm: Positive = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All of a training run's settings, validated. Raises ConfigError where settings contradict each other."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        _check_tiny_shape(self.model)
        _check_group(self)
        _check_discriminator(self.discriminator)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> TrainConfig:
        """The configuration in a (nested) mapping such as ``to_dict`` gives; missing keys take their defaults."""
        return cast(TrainConfig, _build(cls, _expand_aliases(document), ""))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries and lists, fit for YAML and JSON; ``from_dict`` reads them back."""
        return cast(dict[str, Any], _plain(dataclasses.asdict(self)))

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, itself a file that ``load_config`` takes."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of the canonical JSON: equal settings, equal fingerprint, on every machine."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _check_tiny_shape(model: ModelConfig) -> None:
    if model.hidden_size % (2 * model.heads):
        raise ConfigError(
            f"model.hidden_size is {model.hidden_size}; it must be a multiple of 2 * model.heads = {2 * model.heads}"
        )


def _check_group(config: TrainConfig) -> None:
    size = config.policy.num_generations + (config.policy.expert_in_group and config.run.method == "irl")
    if config.policy.standardise_over == "batch" and config.policy.advantage != "trace":
        raise ConfigError(
            f"policy.standardise_over is 'batch' with the advantage {config.policy.advantage!r}; only trace knows it, "
            "take all, last or none"
        )
    if config.run.method != "sft" and size < 2:
        raise ConfigError(
            f"policy.num_generations is {config.policy.num_generations}; a group needs at least 2 traces to compare"
        )


def _check_discriminator(disc: DiscriminatorConfig) -> None:
    if disc.target_other >= disc.target_expert:
        raise ConfigError(
            f"discriminator.target_other is {disc.target_other}; it must be below target_expert {disc.target_expert}"
        )
    if disc.likelihood_weight and (disc.head == "linear" or disc.likelihood == "policy"):
        raise ConfigError(
            f"discriminator.likelihood_weight is {disc.likelihood_weight}, but only a head anchored to its own "
            "likelihood has one to train; set it to 0, or head to anchored and likelihood to own"
        )
    if disc.loss == "wasserstein" and not (disc.weight_clip or disc.gradient_penalty):
        raise ConfigError(
            "discriminator.loss is 'wasserstein' without a bound; set discriminator.gradient_penalty or weight_clip"
        )


# --------------------------------------------------------------------------------------------------- loading


def load_config(
    path_or_preset: str | Path, overrides: Sequence[str] = (), presets_dir: Path | None = None
) -> TrainConfig:
    """The configuration of a preset (a name in ``presets_dir``) or of a YAML file, with overrides applied in order.

    A file may name another as its ``base:`` (looked for beside it, then among the presets); its keys are laid over
    the base's. Each override is ``key.sub=value``, the value in YAML. Raises ConfigError.
    """
    path = _find(str(path_or_preset), presets_dir)
    document = _read_with_bases(path, presets_dir, ())
    for override in overrides:
        document = _merge(document, _parse_override(override))
    config = TrainConfig.from_dict(document)
    return config if config.run.preset else replace(config, run=replace(config.run, preset=path.stem))


def preset_names(presets_dir: Path) -> list[str]:
    """The names of the presets in a folder, sorted; a file whose name begins with ``_`` is only a base."""
    return sorted(path.stem for path in presets_dir.glob("*.yaml") if not path.name.startswith("_"))


def _find(name: str, presets_dir: Path | None) -> Path:
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ConfigError(f"the configuration file {name!r} is not there")
        return Path(name)
    names = preset_names(presets_dir) if presets_dir else []
    path = presets_dir / f"{name}.yaml" if presets_dir and re.fullmatch(r"[\w.-]+", name) else None
    if path is None or not path.is_file():
        raise ConfigError(f"no preset {name!r}{_nearest(name, names)}; there are: {', '.join(names) or 'none'}")
    return path


def _read_with_bases(path: Path, presets_dir: Path | None, above: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in above:
        chain = " -> ".join(step.name for step in (*above, resolved))
        raise ConfigError(f"{path.name}: its base leads back to itself ({chain}); remove one 'base:'")
    document = _read_yaml(path)
    base = document.pop("base", None)
    document = _expand_aliases(document)
    if base is None:
        return document
    if not isinstance(base, str):
        raise ConfigError(f"{path.name}: base is {base!r}; the name of a preset or of a YAML file is expected")
    beside = path.parent / (base if base.endswith((".yaml", ".yml")) else f"{base}.yaml")
    base_path = beside if beside.is_file() else _find(base, presets_dir)
    return _merge(_read_with_bases(base_path, presets_dir, (*above, resolved)), document)


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key given twice is an error instead of silently the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise ConfigError(f"the key {twice!r} is given twice, line {node.start_mark.line + 1} on; remove one")
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ConfigError(f"{path.name}: {size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path.name}: not readable as YAML ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path.name}: holds {type(document).__name__}; keys with values are expected")
    return document


def _parse_override(override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    key = ALIASES.get(key.strip(), key.strip())
    if not separator or not key:
        raise ConfigError(f"override {override!r}; key.sub=value is expected, such as run.steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {text!r} is not a YAML value; put quotes around text") from error
    for part in reversed(key.split(".")):
        value = {part: value}
    return cast(dict[str, Any], value)


def _expand_aliases(document: Mapping[str, Any]) -> dict[str, Any]:
    expanded = {key: value for key, value in document.items() if key not in ALIASES}
    for alias, target in ALIASES.items():
        if alias in document:
            section, _, leaf = target.partition(".")
            if isinstance(expanded.get(section), Mapping) and leaf in expanded[section]:
                raise ConfigError(f"the key {target!r} is given twice, also as {alias!r}; remove one")
            expanded = _merge(expanded, {section: {leaf: document[alias]}})
    return expanded


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``: mappings merge, everything else (lists too) replaces."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if not isinstance(value, Mapping) or below is None:
            merged[key] = value
        elif isinstance(below, Mapping):
            merged[key] = _merge(below, value)
        else:
            raise ConfigError(f"{key} is {below!r}; keys with values are expected")
    return merged


# ------------------------------------------------------------------------------------------------ validating


def _build(kind: type, document: Any, key: str) -> Any:
    """An instance of the dataclass ``kind`` from a mapping, every value checked; ``key`` is where it stands."""
    document = {} if document is None else document
    if not isinstance(document, Mapping):
        raise ConfigError(f"{key} is {document!r}; keys with values are expected")
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for name, value in document.items():
        full = f"{key}.{name}" if key else str(name)
        if name not in hints:
            raise ConfigError(f"unknown key {full!r}{_nearest_key(str(name), key, list(hints))}")
        values[name] = _convert(value, hints[name], full)
    return kind(**values)


def _convert(value: Any, hint: Any, key: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _in_range(_convert(value, arguments[0], key), arguments[1], key)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            near = _nearest(str(value), [str(choice) for choice in arguments])
            raise ConfigError(f"{key} is {value!r}; one of {', '.join(map(str, arguments))} is expected{near}")
        return value
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _convert(value, inner, key)
    if origin is tuple:
        return _convert_list(value, arguments, key)
    if dataclasses.is_dataclass(hint):
        return _build(cast(type, hint), value, key)
    return _scalar(value, hint, key)


def _convert_list(value: Any, arguments: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{key} is {_shown(value)}; a list such as [a, b] is expected")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigError(f"{key} has {len(value)} entries; {len(arguments)} are expected")
    pairs = enumerate(zip(value, arguments, strict=True))
    return tuple(_convert(entry, hint, f"{key}[{number}]") for number, (entry, hint) in pairs)


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_GIVEN = _NAMES | {
    bool: "true/false",
    float: "a number with a point",
    type(None): "nothing",
    list: "a list",
    dict: "keys",
}


def _scalar(value: Any, kind: type, key: str) -> Any:
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-5 (no point) as text
        value = _number(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{key} is {_shown(value)}; {_NAMES[kind]} is expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} is {value}; a finite number is expected")
    return value


def _shown(value: Any) -> str:
    return f"{str(value)[:80] if not isinstance(value, str) else repr(value[:80])} ({_GIVEN.get(type(value), 'other')})"


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _in_range(value: Any, limits: Range, key: str) -> Any:
    if not limits.holds(value):
        raise ConfigError(f"{key} is {value}; it must lie in {limits}")
    return value


def _nearest_key(name: str, section: str, siblings: list[str]) -> str:
    near = difflib.get_close_matches(name, siblings, n=1)
    if near:
        return _suggest(f"{section}.{near[0]}" if section else near[0])
    leaves = _leaves(TrainConfig, "")
    by_name = {leaf.rpartition(".")[2]: leaf for leaf in reversed(leaves)}
    near = difflib.get_close_matches(name, list(by_name), n=1)
    return _suggest(by_name[near[0]]) if near else f"; known here: {', '.join(siblings)}"


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return _suggest(near[0]) if near else ""


def _suggest(name: str) -> str:
    return f"; nearest is {name!r}"


def _leaves(kind: type, section: str) -> list[str]:
    """Every key as dotted text: ``run.seed``, ``model.lora.rank``, ..."""
    leaves: list[str] = []
    for name, hint in get_type_hints(kind).items():
        full = f"{section}.{name}" if section else name
        leaves += _leaves(cast(type, hint), full) if dataclasses.is_dataclass(hint) else [full]
    return leaves


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value
