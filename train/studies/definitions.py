"""The studies of ``irl-lens study``: what is trained, with which settings, and what is compared.

A study trains its arms once a seed, all from the same starts; the arms differ only in what the study is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

START = "start"

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
    study that the discriminator starts from; ``reward``: the arm whose finished one it is. ``as_long_as``: a likelihood
    training takes as many steps as fill the time of this arm."""

    name: str
    title: str
    preset: str
    settings: tuple[str, ...] = ()
    backbone: str = ""
    reward: str = ""
    as_long_as: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """A comparison of arms. ``settings`` hold for every arm. ``reading``: what is measured, the policies alone or the
    rewards too. ``published``: the number of the paper's table, 0 for none; ``note``: how the study relates to it.
    ``start``: the preset of a likelihood training, made in the study's folder, that both models start from; without one
    they start from what the presets name. ``parts``: the families of held-out
    problems by the title that they are also told apart under; none stands for all families together."""

    name: str
    title: str
    question: str
    published: int
    reading: Reading
    arms: tuple[Arm, ...]
    settings: tuple[str, ...] = ()
    backbones: tuple[Backbone, ...] = ()
    note: str = ""
    problems: int = 0
    start: str = ""
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def families(self) -> tuple[str, ...]:
        """The families of the held-out problems; none stands for all."""
        return tuple(name for _, families in self.parts for name in families)


# As many rounds as let three seeds of three or four arms end within two hours on two cores.
SHORT = ("run.steps=60", "discriminator.warmup_rounds=40", "run.calibration_problems=100")
PAPERS_KINDS = "[flip_operator, offset_number, swap_answer]"
ALL_KINDS = "[flip_operator, offset_number, swap_answer, carry_wrong_value, wrong_operand, drop_step, unit_or_rate]"

SHOWN = ("heights", "production", "percentages", "tickets", "wages", "discount", "coins", "commute")
UNSHOWN = ("mixture", "tank", "farm", "garden_rows", "profit", "minutes")
# As in the presets demo-maxent and demo-implicit.
AGAINST_OTHERS = ("policy.advantage=credit", "policy.gamma=1.0", "policy.baseline=leave_one_out")
IMPLICIT = (
    "discriminator.loss=outcome", "discriminator.head=implicit", "discriminator.likelihood=policy",
    "discriminator.likelihood_weight=0.0",
)  # fmt: skip
PROCESS = (  # as in demo-process
    "run.method=process", "run.steps=120", "policy.batch_size=64", "discriminator.warmup_rounds=120",
    "discriminator.tail=0.0", "discriminator.perturbations=[offset_number, carry_wrong_value, wrong_operand, "
    "drop_step, unit_or_rate, wrong_operation]",
)  # fmt: skip
# The demonstration of a problem that has one is among those that the best is chosen from.
BEST_OF_N = ("policy.update=best_of_n", "policy.expert_in_group=true")
NO_WARM_UP = ("discriminator.warmup_rounds=0", "run.steps=80")

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
            note="SFT is further likelihood training on the very expert solutions of IRL's rounds. GRPO is rewarded "
            "for the right answer, and has as many updates of the policy as IRL.",
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
        Study(
            "teach",
            "Problems without demonstrations",
            "Does a reward learned on a few demonstrations teach the policy on problems that have none?",
            0,
            "rewards",
            (
                Arm("likelihood", "likelihood of the demonstrations, as long", "demo-teach-start", as_long_as="irl"),
                Arm(
                    "start_reward", "reward: the start's likelihood", "demo-teach",
                    ("discriminator.updates_per_round=0", *NO_WARM_UP),
                ),
                Arm(
                    "start_best_of_n", "reward: the start's likelihood, best of 8 by likelihood", "demo-teach",
                    ("discriminator.updates_per_round=0", *NO_WARM_UP, *BEST_OF_N),
                ),
                Arm("irl", "learned reward, surrogate", "demo-teach"),
                Arm("best_of_n", "learned reward, best of 8 by likelihood", "demo-teach", BEST_OF_N),
                Arm("preferences", "learned reward, preferences", "demo-teach", ("policy.update=preferences",)),
                Arm("relativistic", "relativistic reward", "demo-teach", ("discriminator.loss=relativistic",)),
                Arm("maxent", "maximum-entropy reward", "demo-teach", ("discriminator.loss=maxent", *AGAINST_OTHERS)),
                Arm("implicit", "implicit reward of outcomes", "demo-teach", (*IMPLICIT, *AGAINST_OTHERS)),
                Arm("process", "process supervision: the reward alone", "demo-teach", PROCESS),
                Arm(
                    "process_reward", "reward of labelled steps", "demo-teach",
                    ("discriminator.updates_per_round=0", *NO_WARM_UP), reward="process",
                ),
                Arm(
                    "grpo", "outcome reward (GRPO)", "demo-teach",
                    ("run.method=grpo", "model.discriminator=null", *NO_WARM_UP),
                ),
                Arm(
                    "right_of_n", "outcome reward, the right ones of 8 by likelihood", "demo-teach",
                    ("run.method=grpo", "model.discriminator=null", *NO_WARM_UP, *BEST_OF_N),
                ),
            ),
            problems=320,
            start="demo-teach-start",
            parts=(("families with demonstrations", SHOWN), ("families without any", UNSHOWN)),
            note="Policy, discriminator and likelihood control start from the same likelihood of the demonstrations, "
            "and see no other. The likelihood control trains on them for the estimated time of the learned reward. "
            "GRPO, and the right ones of 8 after it, are told whether the answers of the bare problems are right, "
            "which no other arm is; the implicit reward is told it of the problems that have a demonstration. Process "
            "supervision has labels of generated mistakes in the demonstrations; its policy is the start, and that of "
            "the next row follows its reward.",
        ),
    )
}  # fmt: skip
