"""The studies of ``irl-lens study``: what is trained, with which settings, and what is compared.

A study trains its arms once a seed, all from the same starts; the arms differ only in what the study is about. Imports
no torch: a dry run lists what would be trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.evaluation.wording import listed
from irl_core.presets import load_config
from irl_core.validation import nearest
from train.planning.describe import hours
from train.planning.plan import PRESETS

START = "start"
PROBLEMS, SAMPLES = 160, 16
LEAST_PROBLEMS, LEAST_CALIBRATION = 4, 20
MAX_SCALE = 20.0
MAX_SEEDS = 50
# No training run is evaluated while it trains, and none is stopped for what its discriminator does: that is a result.
COMMON = ("run.eval_every=0", "run.keep=1", "run.patience=1000000")

Reading = Literal["policies", "rewards"]


@dataclass(frozen=True, slots=True)
class Backbone:
    """A model that a study makes before its arms: random weights, then ``steps`` of the preset ``demo-sft``. Its width
    and depth are those of the policy's start divided by ``smaller``; it reads the same tokens."""

    name: str
    smaller: int = 1
    steps: int = 0
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the trainings that are compared: a preset with settings that differ from it. ``backbone``: the one of the
    study that the discriminator starts from."""

    name: str
    title: str
    preset: str
    settings: tuple[str, ...] = ()
    backbone: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """A comparison of arms. ``settings`` hold for every arm. ``reading``: what is measured, the policies alone or the
    rewards too. ``published``: the number of the paper's table; ``note``: how the study relates to it."""

    name: str
    title: str
    question: str
    published: int
    reading: Reading
    arms: tuple[Arm, ...]
    settings: tuple[str, ...] = ()
    backbones: tuple[Backbone, ...] = ()
    note: str = ""


# As many rounds as let three seeds of three or four arms end within two hours on two cores.
SHORT = ("run.steps=60", "discriminator.warmup_rounds=40", "run.calibration_problems=100")
PAPERS_KINDS = "[flip_operator, offset_number, swap_answer]"
ALL_KINDS = "[flip_operator, offset_number, swap_answer, carry_wrong_value, wrong_operand, drop_step, unit_or_rate]"

STUDIES = {
    study.name: study
    for study in (
        Study(
            "policies",
            "Policies: IRL, SFT, GRPO and the start",
            "Does the learned reward make a better policy than likelihood of the same experts, or than correctness?",
            2,
            "policies",
            (
                Arm("irl", "IRL", "demo-irl", ("run.calibration_problems=20",)),
                Arm("sft", "SFT", "demo-control"),
                Arm("grpo", "GRPO", "demo-grpo"),
            ),
            note="SFT is further likelihood training on the very expert traces of IRL's rounds. GRPO is rewarded for "
            "the right answer, and has as many updates of the policy as IRL.",
        ),
        Study(
            "backbones",
            "Backbones of the discriminator",
            "Does a discriminator with a better start give a better reward, and a better policy?",
            3,
            "rewards",
            (
                Arm("expert", "demo-expert", "demo-irl"),
                Arm("sft", "demo-sft, the policy's own start", "demo-irl", ("model.discriminator=null",)),
                Arm("small", "an eighth of the weights", "demo-irl", backbone="small"),
                Arm("nothing", "random weights", "demo-irl", backbone="nothing"),
            ),
            SHORT,
            (Backbone("small", smaller=2, steps=1000), Backbone("nothing")),
            note="The published table sets pretrained discriminators of several sizes and kinds beside each other. "
            "Here a start that saw more demonstrations, the policy's own, a smaller one (half the width and depth, "
            "trained like the policy's start) and one that saw nothing stand for them.",
        ),
        Study(
            "perturbation",
            "Perturbed experts as negatives",
            "Is the reward better where the discriminator also sees perturbed expert solutions?",
            4,
            "rewards",
            (
                Arm("none", "no perturbation", "demo-irl", ("discriminator.perturbations=[]",)),
                Arm("paper", "the paper's three kinds", "demo-irl", (f"discriminator.perturbations={PAPERS_KINDS}",)),
                Arm("all", "seven kinds", "demo-irl", (f"discriminator.perturbations={ALL_KINDS}",)),
            ),
            SHORT,
            note="The published table compares training with and without perturbed experts. The seven kinds are the "
            "three of the paper and four that leave every line looking right.",
        ),
        Study(
            "wasserstein",
            "Wasserstein critic in place of the classifier",
            "Does the Wasserstein loss give a better reward than binary cross-entropy?",
            5,
            "rewards",
            (
                Arm("bce", "binary cross-entropy", "demo-irl"),
                Arm(
                    "clipped", "Wasserstein, clipped head", "demo-irl",
                    ("discriminator.loss=wasserstein", "discriminator.weight_clip=0.5"),
                ),
                Arm(
                    "penalty", "Wasserstein, gradient penalty", "demo-irl",
                    ("discriminator.loss=wasserstein", "discriminator.gradient_penalty=1.0"),
                ),
            ),
            SHORT,
            note="The clip holds the head's weights alone, as at real size; its limit is where the anchor starts.",
        ),
    )
}  # fmt: skip


# -------------------------------------------------------------------------------------------------------- a plan


@dataclass(frozen=True, slots=True)
class Training:
    """A training run of a study: the ``name`` of its folder, its arm, seed and settings."""

    name: str
    arm: Arm
    seed: int
    config: TrainConfig

    @property
    def cost(self) -> float:
        """Seconds on two free cores."""
        return seconds(self.config)


@dataclass(frozen=True, slots=True)
class Plan:
    """The training runs and settings of a study. ``trainings``: in the order in which they are done, seed by seed."""

    study: Study
    seeds: tuple[int, ...]
    scale: float
    trainings: tuple[Training, ...]

    @property
    def problems(self) -> int:
        """The number of problems that are sampled: all, and fewer below a scale of a half."""
        return scaled(PROBLEMS, min(1.0, 2 * self.scale), LEAST_PROBLEMS)

    @property
    def starts(self) -> tuple[str, ...]:
        """The presets whose finished runs the arms start from, in the order in which they are trained."""
        names = [name for training in self.trainings for name in prerequisites(training.config)]
        return tuple(dict.fromkeys(names))

    def backbone_config(self, backbone: Backbone, folder: Path) -> TrainConfig:
        """The likelihood training of a backbone from its random weights in ``folder``."""
        steps = scaled(backbone.steps, self.scale)
        changes = [f"run.steps={steps}", f"run.save_every={max(1, steps // 4)}", f"model.policy={folder}"]
        return load_config("demo-sft", [*COMMON, *changes, *backbone.settings], PRESETS)


def prerequisites(config: TrainConfig) -> Iterator[str]:
    """The presets that a training starts from, with those that they start from before them."""
    for name in config.run.after:
        yield from prerequisites(load_config(name, presets_dir=PRESETS))
        yield name


def make_plan(name: str, seeds: Sequence[int], scale: float, out: Path) -> Plan:
    """What ``irl-lens study`` would do.

    Args:
        name: one of ``STUDIES``.
        seeds: every arm is trained once with each.
        scale: multiplies rounds, and below a half the problems.
        out: the folder to write into.

    Raises:
        ConfigError: a name, a seed or a scale that cannot be used.
    """
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}{nearest(name, list(STUDIES))}; there are: {', '.join(STUDIES)}")
    check_seeds(seeds)
    if not (math.isfinite(scale) and 0 < scale <= MAX_SCALE):
        raise ConfigError(f"--scale is {scale}; a number above 0 and at most {MAX_SCALE:g} is expected")
    study = STUDIES[name]
    trainings = [
        Training(f"{arm.name}-{seed}", arm, seed, configuration(study, arm, seed, scale, out))
        for seed in seeds
        for arm in study.arms
    ]
    return Plan(study, tuple(seeds), scale, tuple(trainings))


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


def configuration(study: Study, arm: Arm, seed: int, scale: float, out: Path) -> TrainConfig:
    """The settings of a training run: ``irl-lens train`` with these would be the same."""
    settings = [*COMMON, *study.settings, *arm.settings, f"run.seed={seed}"]
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
    return load_config(arm.preset, [*settings, *sizes], PRESETS)


def backbone_folder(study: Study, name: str, out: Path) -> Path:
    """The folder of a backbone's checkpoint."""
    backbone = next(one for one in study.backbones if one.name == name)
    return out / "starts" / (f"{name}/final" if backbone.steps else f"{name}-untrained")


def scaled(count: int, scale: float, least: int = 1) -> int:
    """``count`` at a scale; 0 stays 0."""
    return max(least, round(count * scale)) if count else 0


# -------------------------------------------------------------------------------------------------------- time

# Seconds a trace, of the demo's models on two free cores (measured; docs/studies.md).
SECONDS_SAMPLED, SECONDS_DISCRIMINATOR, SECONDS_SCORED, SECONDS_POLICY = 0.009, 0.016, 0.0025, 0.014


def seconds(config: TrainConfig) -> float:
    """Seconds of a training on two free cores."""
    run, policy = config.run, config.policy
    if not config.method.samples_policy:
        return run.steps * policy.batch_size * SECONDS_POLICY
    traces = policy.prompts_per_round * policy.num_generations
    if not config.method.needs_discriminator:
        return run.steps * traces * (SECONDS_SAMPLED + SECONDS_POLICY)
    read = traces + policy.prompts_per_round * (1 + bool(config.discriminator.perturbations))
    twice = 1 + (config.discriminator.gradient_penalty > 0)
    learning = run.steps - config.discriminator.warmup_rounds
    calibration = run.calibration_problems * 8 * (SECONDS_SAMPLED + SECONDS_SCORED)
    every = traces * SECONDS_SAMPLED + read * SECONDS_DISCRIMINATOR * twice
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
    read = len(plan.trainings) * (study.reading == "rewards")
    cost = (policies + read) * reading_seconds(plan)
    yield (
        f"{policies} policies (the start with each seed) on the same {plan.problems} held-out problems x {SAMPLES} "
        f"samples; {read} discriminators on the same samples of the start; about {hours(cost)}"
    )
    yield f"in all about {hours(total + cost)} on two free cores"
