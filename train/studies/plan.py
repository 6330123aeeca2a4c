"""The plan of a study: every training with its settings and time. Imports no torch, so that a dry run is quick."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.presets import load_config
from irl_core.statistics.wording import listed
from irl_core.storage.training_run import FINAL
from irl_core.validation import nearest
from train.planning.describe import hours
from train.planning.plan import PRESETS
from train.studies.definitions import START, STUDIES, Arm, Backbone, Study

PROBLEMS, SAMPLES = 160, 16
LEAST_PROBLEMS, LEAST_CALIBRATION = 4, 20
MAX_SCALE = 20.0
MAX_SEEDS = 50
# No training run is evaluated while it trains, and none is stopped for what its discriminator does: that is a result.
COMMON = ("run.eval_every=0", "run.keep=1", "run.patience=1000000")


@dataclass(frozen=True, slots=True)
class Training:
    """A training run of a study: the ``name`` of its folder, its arm, seed and settings."""

    name: str
    arm: Arm
    seed: int
    config: TrainConfig

    @property
    def cost(self) -> float:
        """Seconds on a free core."""
        return seconds(self.config)


@dataclass(frozen=True, slots=True)
class Plan:
    """The training runs and settings of a study. ``trainings``: in the order in which they are done, seed by seed.
    ``start``: the likelihood training before them, of a study that has one of its own."""

    study: Study
    seeds: tuple[int, ...]
    scale: float
    trainings: tuple[Training, ...]
    start: TrainConfig | None = None

    @property
    def problems(self) -> int:
        """The number of problems that are sampled: all, and fewer below a scale of a half."""
        return scaled(self.study.problems or PROBLEMS, min(1.0, 2 * self.scale), LEAST_PROBLEMS)

    @property
    def starts(self) -> tuple[str, ...]:
        """The presets whose finished runs the arms start from, in the order in which they are trained."""
        configs = [*([self.start] if self.start else []), *(training.config for training in self.trainings)]
        names = [name for config in configs for name in prerequisites(config)]
        return tuple(dict.fromkeys(names))

    def backbone_config(self, backbone: Backbone, folder: Path) -> TrainConfig:
        """The likelihood training of a backbone from its random weights in ``folder``."""
        steps = scaled(backbone.steps, self.scale)
        changes = [f"run.steps={steps}", f"run.save_every={max(1, steps // 4)}", f"model.policy={folder}"]
        return load_config("demo-sft", [*COMMON, *changes, *backbone.settings], PRESETS)


def reads_rewards(plan: Plan, training: Training) -> bool:
    """Whether the reward of a training is read."""
    return plan.study.reading == "rewards" and training.config.method.needs_discriminator


def prerequisites(config: TrainConfig) -> Iterator[str]:
    """The presets that a training starts from, with those that they start from before them."""
    for name in config.run.after:
        yield from prerequisites(load_config(name, presets_dir=PRESETS))
        yield name


def make_plan(
    name: str,
    seeds: Sequence[int],
    scale: float,
    out: Path,
    demonstrations: int | None = None,
    arms: Sequence[str] = (),
) -> Plan:
    """What ``irl-lens study`` would do.

    Args:
        name: one of ``STUDIES``.
        seeds: every arm is trained once with each.
        scale: multiplies rounds, and below a half the problems and the steps of the start.
        out: the folder to write into.
        demonstrations: how many there are, of a study that is about their number; None: as its presets say.
        arms: these alone, with those whose rewards they follow; none stands for all.

    Raises:
        ConfigError: a name, a seed, a scale or a number of demonstrations that cannot be used.
    """
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}{nearest(name, list(STUDIES))}; there are: {', '.join(STUDIES)}")
    check_seeds(seeds)
    if not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        raise ConfigError(f"--scale is {scale}; a number above 0 and at most {MAX_SCALE:g} is expected")
    study = STUDIES[name]
    if demonstrations is not None:
        if not study.start:
            raise ConfigError(f"--demonstrations is {demonstrations}, but the study {name} has as many as problems")
        study = replace(study, settings=(*study.settings, f"data.demonstrations={demonstrations}"))
    if arms:
        study = replace(study, arms=chosen_arms(study, arms))
    trainings = [
        Training(f"{arm.name}-{seed}", arm, seed, configuration(study, arm, seed, scale, out))
        for seed in seeds
        for arm in study.arms
    ]
    return Plan(study, tuple(seeds), scale, tuple(trainings), start_configuration(study, scale))


def chosen_arms(study: Study, names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of those names, and those whose rewards they follow, in the study's order. Raises ConfigError."""
    known = {arm.name: arm for arm in study.arms}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"no arm {name!r} in {study.name}{nearest(name, list(known))}; there are: {', '.join(known)}"
            )
    wanted = {*names, *(known[name].reward for name in names)}
    return tuple(arm for arm in study.arms if arm.name in wanted)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ConfigError for too few or too many seeds, one twice, or one out of range."""
    given = ", ".join(map(str, seeds))
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise ConfigError(f"{len(seeds)} seeds; 1 to {MAX_SEEDS} are expected, such as 1, 2 and 3")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds {given}: one is named twice, and would count twice; name each once")
    odd = [seed for seed in seeds if not 0 <= seed < 2**32]
    if odd:
        raise ConfigError(f"seeds {given}: {odd[0]} is not between 0 and {2**32 - 1}")


def start_configuration(study: Study, scale: float) -> TrainConfig | None:
    """The settings of the study's own start."""
    if not study.start:
        return None
    settings = [*COMMON, *study.settings]
    steps = scaled(load_config(study.start, settings, PRESETS).run.steps, min(1.0, 2 * scale))
    return load_config(study.start, [*settings, f"run.steps={steps}"], PRESETS)


def configuration(study: Study, arm: Arm, seed: int, scale: float, out: Path) -> TrainConfig:
    """The settings of a training run: ``irl-lens train`` with these would be the same."""
    settings = [*COMMON, *study.settings, *arm.settings, f"run.seed={seed}"]
    if study.start:
        start = start_folder(out) / FINAL
        reads = load_config(arm.preset, settings, PRESETS).method.needs_discriminator
        settings += ["run.after=[]", f"model.policy={start}", f"model.discriminator={start if reads else 'null'}"]
    if arm.reward:
        settings.append(f"model.discriminator={out / 'runs' / f'{arm.reward}-{seed}' / FINAL}")
    if arm.backbone:
        settings.append(f"model.discriminator={backbone_folder(study, arm.backbone, out)}")
    config = load_config(arm.preset, settings, PRESETS)
    warmup = scaled(config.discriminator.warmup_rounds, scale) if config.method.needs_discriminator else 0
    learning = scaled(config.run.steps - config.discriminator.warmup_rounds * bool(warmup), scale)
    sizes = [
        f"run.steps={warmup + learning}",
        f"discriminator.warmup_rounds={warmup}",
        f"run.calibration_problems={scaled(config.run.calibration_problems, scale, LEAST_CALIBRATION)}",
    ]
    if arm.as_long_as:
        other = next(one for one in STUDIES[study.name].arms if one.name == arm.as_long_as)
        time = seconds(configuration(study, other, seed, scale, out))
        sizes[0] = f"run.steps={max(1, round(time / (config.policy.batch_size * SECONDS_LIKELIHOOD)))}"
    return load_config(arm.preset, [*settings, *sizes], PRESETS)


def start_folder(out: Path) -> Path:
    """The folder of the training run of a study's own start."""
    return out / "starts" / START


def backbone_folder(study: Study, name: str, out: Path) -> Path:
    """The folder of a backbone's checkpoint."""
    backbone = next(one for one in study.backbones if one.name == name)
    return out / "starts" / (f"{name}/final" if backbone.steps else f"{name}-untrained")


def scaled(count: int, scale: float, least: int = 1) -> int:
    """``count`` at a scale; 0 stays 0."""
    return max(least, round(count * scale)) if count else 0


# -------------------------------------------------------------------------------------------------------- time

# Seconds a trace, of the demo's models on a free core: medians over the rounds of 'study teach' (docs/studies.md). A
# trace of a likelihood step takes longer than one of a round, whose batches are larger.
SECONDS_SAMPLED, SECONDS_DISCRIMINATOR, SECONDS_SCORED, SECONDS_POLICY = 0.005, 0.006, 0.006, 0.021
SECONDS_LIKELIHOOD = 0.024


def seconds(config: TrainConfig) -> float:
    """Seconds of a training on a free core."""
    run, policy = config.run, config.policy
    if not config.method.samples_policy:
        each = SECONDS_DISCRIMINATOR if config.method.needs_discriminator else SECONDS_LIKELIHOOD
        return run.steps * policy.batch_size * each
    traces = policy.prompts_per_round * policy.num_generations
    if not config.method.needs_discriminator:
        return run.steps * traces * (SECONDS_SAMPLED + SECONDS_POLICY)
    read = traces + policy.prompts_per_round * (1 + bool(config.discriminator.perturbations))
    twice = 1 + (config.discriminator.gradient_penalty > 0)
    learning = run.steps - config.discriminator.warmup_rounds
    calibration = run.calibration_problems * 8 * (SECONDS_SAMPLED + SECONDS_SCORED)
    every = traces * SECONDS_SAMPLED + read * SECONDS_DISCRIMINATOR * twice * config.discriminator.updates_per_round
    return run.steps * every + learning * traces * (SECONDS_SCORED + SECONDS_POLICY) + calibration


def reading_seconds(plan: Plan) -> float:
    """Seconds to sample one policy on the held-out problems, or to read as many samples with one discriminator."""
    return plan.problems * SAMPLES * SECONDS_SAMPLED


def plan_lines(plan: Plan, missing: Sequence[str] = ()) -> Iterator[str]:
    """What a study would do, a line each. ``missing``: presets that have to be trained before."""
    study = plan.study
    yield f"{study.title}: {study.question}"
    total = 0.0
    for name in missing:
        cost = seconds(load_config(name, presets_dir=PRESETS))
        total += cost
        yield f"{name}: trained first; about {hours(cost)}"
    if plan.start is not None:
        cost = seconds(plan.start)
        total += cost
        yield (
            f"the start: {study.start}, {plan.start.data.demonstrations:,} demonstrations; "
            f"{plan.start.run.steps} steps; about {hours(cost)}"
        )
    for backbone in study.backbones:
        config = plan.backbone_config(backbone, Path(backbone.name)) if backbone.steps else None
        cost = seconds(config) if config else 0.0
        total += cost
        steps = f"{config.run.steps} steps of likelihood; about {hours(cost)}" if config else "random weights"
        yield f"backbone {backbone.name}: {steps}"
    for training in plan.trainings:
        total += training.cost
        settings = listed(training.arm.settings) if training.arm.settings else "as the preset"
        yield (
            f"{training.name}: {training.arm.title}; {training.arm.preset}, {settings}; "
            f"{training.config.run.steps} steps; about {hours(training.cost)}"
        )
    policies = len(plan.trainings) + len(plan.seeds)
    read = sum(reads_rewards(plan, training) for training in plan.trainings)
    cost = (policies + read) * reading_seconds(plan)
    yield (
        f"{policies} policies (the start with each seed) on the same {plan.problems} held-out problems x {SAMPLES} "
        f"samples; {read} discriminators on the same samples of the start; about {hours(cost)}"
    )
    yield f"in all about {hours(total + cost)} on a free core"
