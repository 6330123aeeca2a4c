"""Warnings of a run by hand: when each begins, when it is over, when going on is useless, and that a resume agrees."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from irl_core.config import DiscriminatorConfig, ModelConfig, PolicyConfig, RunConfig, TrainConfig
from train.failures import diverged
from train.monitoring.health import Findings, Health, finite

CONFIG = TrainConfig(
    run=RunConfig(method="irl", patience=3), policy=PolicyConfig(prompts_per_round=2, num_generations=4)
)
SFT = replace(CONFIG, run=replace(CONFIG.run, method="sft"))
GRPO = replace(CONFIG, run=replace(CONFIG.run, method="grpo"))
GOOD = {
    "rollout/samples": 8.0, "rollout/truncated": 0.25, "rollout/zero_spread_groups": 1.0,
    "rollout/logprob_mismatch": 0.001, "disc/accuracy_expert": 0.75, "disc/accuracy_policy": 0.75,
    "disc/accuracy_perturbed": 0.5,
}  # fmt: skip
PERFECT = {"disc/accuracy_expert": 1.0, "disc/accuracy_policy": 1.0, "disc/accuracy_perturbed": 1.0}
SPREADLESS = {"rollout/zero_spread_groups": 2.0}


def run(config: TrainConfig, *changes: dict[str, float]) -> tuple[Health, list[Findings]]:
    """Steps 1, 2, ... of good metrics with these changes."""
    health = Health(config)
    return health, [health.check(step, GOOD | change) for step, change in enumerate(changes, 1)]


def test_a_healthy_run_says_nothing() -> None:
    health, found = run(CONFIG, {}, {}, {})
    assert found == [Findings()] * 3
    assert health.warnings == 0


@pytest.mark.parametrize(
    ("change", "words", "mend"),
    [
        ({"rollout/samples": 7.0}, "not all 2 x 4 completions were sampled", "policy.sampler"),
        ({"rollout/samples": 0.0}, "a group is short or empty", "policy.sampling_tokens"),
        ({"rollout/truncated": 1.0}, "every sampled completion was cut off", r"data.max_completion_tokens (512)"),
        ({"rollout/logprob_mismatch": 0.11}, "more than 0.1 nats from the trainer's", "policy.sampler to loop"),
    ],
)
def test_what_one_step_shows_is_said_once_and_once_when_it_is_over(
    change: dict[str, float], words: str, mend: str
) -> None:
    health, (first, second, third, fourth) = run(CONFIG, {}, change, change, {})
    assert first == Findings()
    (line,) = second.begun
    assert line.startswith("step 2: ") and words in line and mend in line
    assert third == Findings()
    (line,) = fourth.over
    assert line.startswith("step 4: over, after 2 in a row: ")
    assert health.warnings == 1


def test_the_limits_themselves_are_fine() -> None:
    _, found = run(CONFIG, {"rollout/logprob_mismatch": 0.1, "rollout/truncated": 0.99, "rollout/samples": 8.0})
    assert found == [Findings()]


def test_a_second_spell_is_a_second_warning() -> None:
    health, found = run(CONFIG, {"rollout/truncated": 1.0}, {}, {"rollout/truncated": 1.0})
    assert [len(f.begun) for f in found] == [1, 0, 1]
    assert health.warnings == 2


# --------------------------------------------------------------------------------------------- the discriminator


def test_a_perfect_discriminator_is_said_after_patience_and_stops_after_twice_that() -> None:
    health, found = run(CONFIG, *[PERFECT] * 6)
    assert [len(f.begun) for f in found] == [0, 0, 1, 0, 0, 0]
    assert "right on every solution" in found[2].begun[0] and "(for 3 steps)" in found[2].begun[0]
    assert "lower discriminator.learning_rate" in found[2].begun[0]
    assert [f.stop is not None for f in found] == [False] * 5 + [True]
    assert found[5].stop is not None and "(for 6 steps)" in found[5].stop
    assert health.warnings == 1


def test_one_class_told_wrong_is_not_perfect() -> None:
    nearly = PERFECT | {"disc/accuracy_perturbed": 0.99}
    assert run(CONFIG, *[nearly] * 6)[1] == [Findings()] * 6
    # where there are no perturbed traces, two classes are all there is
    health = Health(CONFIG)
    two = {"disc/accuracy_expert": 1.0, "disc/accuracy_policy": 1.0}
    assert [len(health.check(step, two).begun) for step in (1, 2, 3)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("expert", "policy", "perturbed", "blind"),
    [
        (1.0, 0.0, 0.0, True),  # everything is called expert: (1 + 0) / 2
        (0.0, 1.0, 1.0, True),  # nothing is
        (0.5, 0.52, 0.5, True),  # (0.5 + 0.51) / 2 = 0.505
        (0.54, 0.5, 0.5, True),  # 0.52, the margin itself
        (0.55, 0.5, 0.5, False),  # 0.525
        (0.5, 0.4, 0.4, False),  # 0.45: worse than a coin is not blind
        (0.9, 0.2, 0.0, True),  # (0.9 + 0.1) / 2
    ],
)
def test_a_blind_discriminator_by_its_balanced_accuracy(
    expert: float, policy: float, perturbed: float, blind: bool
) -> None:
    values = {
        "disc/accuracy_expert": expert, "disc/accuracy_policy": policy, "disc/accuracy_perturbed": perturbed,
    }  # fmt: skip
    _, found = run(CONFIG, *[values] * 6)
    assert ("no better than chance" in "".join(found[2].begun)) == blind
    assert (found[5].stop is not None) == blind


def test_a_break_starts_the_count_anew() -> None:
    _, found = run(CONFIG, PERFECT, PERFECT, {}, PERFECT, PERFECT)
    assert found == [Findings()] * 5


def test_a_resumed_run_that_stopped_has_twice_its_patience_again() -> None:
    _, found = run(CONFIG, *[PERFECT] * 12)
    assert [step for step, f in enumerate(found, 1) if f.stop] == [6, 12]


def test_a_wasserstein_critic_has_no_zero() -> None:
    config = replace(CONFIG, discriminator=DiscriminatorConfig(loss="wasserstein", weight_clip=0.1))
    assert run(config, *[PERFECT] * 6)[1] == [Findings()] * 6


def test_what_a_method_does_not_learn_is_not_watched() -> None:
    assert run(GRPO, *[PERFECT] * 6)[1] == [Findings()] * 6
    assert run(SFT, *[PERFECT | {"rollout/truncated": 1.0}] * 6)[1] == [Findings()] * 6


# -------------------------------------------------------------------------------------------------- spread, steps


def test_rounds_without_spread_are_said_after_five_and_stop() -> None:
    health, found = run(CONFIG, *[SPREADLESS] * 6)
    assert [len(f.begun) for f in found] == [0, 0, 0, 0, 1, 0]
    assert "policy learns nothing" in found[4].begun[0] and "policy.num_generations" in found[4].begun[0]
    assert [f.stop is not None for f in found] == [False] * 5 + [True]  # patience 3
    assert health.warnings == 1


def test_a_step_that_tells_nothing_neither_breaks_nor_counts() -> None:
    # rounds of warm-up train no policy, and so have no spread
    waiting = {key: value for key, value in GOOD.items() if "spread" not in key}
    health = Health(CONFIG)
    rows = [GOOD | SPREADLESS] * 4 + [waiting] * 3 + [GOOD | SPREADLESS]
    found = [health.check(step, row) for step, row in enumerate(rows, 1)]
    assert [len(f.begun) for f in found] == [0] * 7 + [1]


@pytest.mark.parametrize("cut", range(1, 9))
def test_counts_survive_a_resume(cut: int) -> None:
    changes: list[dict[str, float]] = [
        PERFECT, {"rollout/truncated": 1.0}, PERFECT, PERFECT, PERFECT | SPREADLESS, {}, SPREADLESS,
        PERFECT | SPREADLESS, PERFECT,
    ]  # fmt: skip
    rows = [{"step": step, **GOOD, **change} for step, change in enumerate(changes, 1)]
    unbroken, resumed = Health(CONFIG), Health.after(CONFIG, rows[:cut])
    expected = [unbroken.check(int(row["step"]), row) for row in rows]
    assert [resumed.check(int(row["step"]), row) for row in rows[cut:]] == expected[cut:]
    assert (resumed.warnings, resumed.streaks) == (unbroken.warnings, unbroken.streaks)
    assert unbroken.warnings == 2  # all truncated at step 2, perfect for 3 steps at step 5


# ------------------------------------------------------------------------------------------------ not a number


@pytest.mark.parametrize("key", ["disc/loss", "policy/loss", "policy/grad_norm", "disc/grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_or_gradient_that_is_no_number_ends_the_run(key: str, value: float) -> None:
    with pytest.raises(FloatingPointError, match=f"{key} is {value}"):
        finite(GOOD | {key: value}, CONFIG)


def test_in_float16_such_an_update_was_skipped() -> None:
    half = replace(CONFIG, model=ModelConfig(dtype="float16"))
    good, left_out = finite({"policy/loss": 0.5, "policy/grad_norm": math.nan, "disc/loss": math.inf}, half)
    assert good == {"policy/loss": 0.5, "policy/update_skipped": 1.0, "disc/update_skipped": 1.0}
    assert left_out == []


def test_twenty_skipped_updates_are_said() -> None:
    half = replace(CONFIG, model=ModelConfig(dtype="float16"), run=replace(CONFIG.run, patience=12))
    _, found = run(half, *[{"policy/update_skipped": 1.0}] * 24)
    assert [step for step, f in enumerate(found, 1) if f.begun] == [20]
    assert "set model.dtype to bfloat16" in found[19].begun[0]
    assert found[23].stop is not None


def test_other_values_that_are_no_numbers_are_left_out_by_name() -> None:
    good, left_out = finite({"policy/loss": 0.5, "rollout/logprob_mismatch": math.inf}, CONFIG)
    assert good == {"policy/loss": 0.5}
    assert left_out == ["rollout/logprob_mismatch is inf, and is left out of the metrics"]


def test_the_reason_names_the_settings_to_lower() -> None:
    reason = diverged(FloatingPointError("the gradient's norm is nan; lower the learning rate and resume"))
    assert reason.startswith("the gradient's norm is nan. The checkpoints are whole")
    assert "policy.learning_rate" in reason and "resume" not in reason
