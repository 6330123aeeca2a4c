"""What a study trains, what it refuses, and what it makes of measures over seeds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irl_core.checkpoints.load import load_json
from irl_core.errors import ConfigError
from irl_core.evaluation.per_problem import Columns
from irl_core.presets import load_config
from irl_core.report.tables import shown
from irl_core.statistics.bootstrap import RESAMPLES
from train.planning.plan import PRESETS
from train.studies import report as study_report
from train.studies.claims import CLAIMS, POLICIES, REWARDS
from train.studies.definitions import START, STUDIES
from train.studies.plan import SECONDS_POLICY, SECONDS_SAMPLED, Plan, make_plan, plan_lines, scaled, seconds
from train.studies.report import PASS, REWARD, StudyReport, compared, figures, gains, paragraphs, tables
from train.studies.runner import begin
from train.studies.seen import Seen, seen_by

OUT = Path("out")
ALLOWED = {
    "backbones": {"model.discriminator"},
    "perturbation": {"discriminator.perturbations"},
    "wasserstein": {"discriminator.loss", "discriminator.weight_clip", "discriminator.gradient_penalty"},
}


def flat(document: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def settings(plan: Plan, name: str) -> dict[str, Any]:
    return flat(next(one for one in plan.trainings if one.name == name).config.to_dict())


def changed(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


# --------------------------------------------------------------------------------------------------- what is asked


def test_the_papers_four_tables_have_a_study_each() -> None:
    assert {name: study.published for name, study in STUDIES.items() if study.published} == {
        "policies": 2, "backbones": 3, "perturbation": 4, "wasserstein": 5,
    }  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_arms_differ_only_in_what_the_study_is_about(name: str) -> None:
    plan = make_plan(name, (1, 2), 1.0, OUT)
    first, *others = plan.study.arms
    for other in others:
        found = changed(settings(plan, f"{first.name}-1"), settings(plan, f"{other.name}-1"))
        assert found and found <= ALLOWED[name], other.name


def test_the_policies_start_alike_and_have_as_many_updates() -> None:
    plan = make_plan("policies", (1,), 1.0, OUT)
    irl, sft, grpo = (settings(plan, f"{name}-1") for name in ("irl", "sft", "grpo"))
    assert irl["model.policy"] == sft["model.policy"] == grpo["model.policy"] == "runs/demo-sft/final"
    assert changed(irl, grpo) == {
        "run.preset", "run.method", "run.steps", "run.calibration_problems", "run.after", "model.discriminator",
        "discriminator.warmup_rounds",
    }  # fmt: skip
    assert irl["run.steps"] - irl["discriminator.warmup_rounds"] == grpo["run.steps"] == 80
    # SFT learns from the very expert traces of IRL's rounds: as many a round, and as many rounds.
    assert (sft["run.steps"], sft["policy.batch_size"]) == (irl["run.steps"], irl["policy.prompts_per_round"])
    assert {key: sft[key] for key in sft if key.startswith("data.")} == {
        key: irl[key] for key in irl if key.startswith("data.")
    }


@pytest.mark.parametrize("name", STUDIES)
def test_seeds_differ_in_their_seed_alone(name: str) -> None:
    plan = make_plan(name, (4, 9), 1.0, OUT)
    assert [one.name for one in plan.trainings] == [f"{a.name}-{s}" for s in (4, 9) for a in plan.study.arms]
    for arm in plan.study.arms:
        one, other = settings(plan, f"{arm.name}-4"), settings(plan, f"{arm.name}-9")
        own = {"model.discriminator"} if arm.reward else set()  # that of the seed's own training of another arm
        assert changed(one, other) == {"run.seed"} | own and (one["run.seed"], other["run.seed"]) == (4, 9)


@pytest.mark.parametrize("name", STUDIES)
def test_no_run_is_judged_or_stopped_while_it_trains(name: str) -> None:
    for training in make_plan(name, (1,), 1.0, OUT).trainings:
        assert training.config.run.eval_every == 0 and 2 * training.config.run.patience > training.config.run.steps


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("name", STUDIES)
def test_a_scale_multiplies_rounds_and_leaves_some(name: str, scale: float) -> None:
    full, plan = make_plan(name, (1,), 1.0, OUT), make_plan(name, (1,), scale, OUT)
    most = 320 if name == "teach" else 160
    for one, other in zip(full.trainings, plan.trainings, strict=True):
        whole, part = one.config, other.config
        if one.arm.as_long_as:
            continue
        waiting = [config.discriminator.warmup_rounds for config in (whole, part)]
        assert part.run.steps > waiting[1] if part.run.method == "irl" else part.run.steps >= 1
        assert part.run.steps == pytest.approx(whole.run.steps * scale, abs=1.5)
        if whole.run.method == "irl":
            assert waiting[1] == scaled(waiting[0], scale)
            assert part.run.calibration_problems >= 20
    assert plan.problems == {0.01: max(4, most // 50), 0.3: 0.6 * most, 1.0: most, 2.5: most}[scale]


def test_nothing_stays_nothing() -> None:
    assert (scaled(0, 5.0), scaled(10, 0.001), scaled(10, 0.25)) == (0, 1, 2)


@pytest.mark.parametrize(
    ("name", "seeds", "scale", "said"),
    [
        ("polices", (1,), 1.0, "no study 'polices'; nearest is 'policies'; there are: policies, backbones, perturb"),
        ("../etc", (1,), 1.0, "no study '../etc'; there are: "),
        ("policies", (), 1.0, "0 seeds; 1 to 50 are expected, such as 1, 2 and 3"),
        ("policies", range(51), 1.0, "51 seeds; 1 to 50 are expected"),
        ("policies", (1, 2, 1), 1.0, "seeds 1, 2, 1: one is named twice, and would count twice; name each once"),
        ("policies", (1, -2), 1.0, "seeds 1, -2: -2 is not between 0 and 4294967295"),
        ("policies", (2**32,), 1.0, "seeds 4294967296: 4294967296 is not between"),
        ("policies", (1,), 0.0, "--scale is 0.0; a number above 0 and at most 20 is expected"),
        ("policies", (1,), math.nan, "--scale is nan"),
        ("policies", (1,), math.inf, "--scale is inf"),
        ("policies", (1,), 21.0, "--scale is 21.0"),
    ],
)
def test_what_cannot_be_studied_is_refused_in_words(name: str, seeds: Any, scale: float, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_plan(name, seeds, scale, OUT)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("name", STUDIES)
def test_a_dry_run_names_every_training_with_its_time(name: str) -> None:
    plan = make_plan(name, (1, 2, 3), 1.0, OUT)
    lines = list(plan_lines(plan, ["demo-sft"]))
    for training in plan.trainings:
        (line,) = [line for line in lines if line.startswith(f"{training.name}: ")]
        assert f"{training.config.run.steps} steps; about " in line
    assert any(line.startswith("demo-sft: trained first; about ") for line in lines)
    # a table of the paper: under two hours on two cores, and the starts before
    assert not plan.study.published or sum(training.cost for training in plan.trainings) < 6600
    assert lines[-1].startswith("in all about ")


def test_what_costs_more_is_estimated_longer() -> None:
    plan = make_plan("wasserstein", (1,), 1.0, OUT)
    bce, clipped, penalty = (training.cost for training in plan.trainings)
    assert bce == clipped < penalty < 2 * bce
    policies = make_plan("policies", (1,), 1.0, OUT)
    irl, sft, grpo = (seconds(training.config) for training in policies.trainings)
    assert sft < grpo < irl
    # 80 rounds of 192 samples, each drawn and learnt from
    assert grpo == pytest.approx(80 * 192 * (SECONDS_SAMPLED + SECONDS_POLICY))


def test_backbones_are_made_of_the_starts_shape_and_trained_like_it() -> None:
    plan = make_plan("backbones", (1,), 0.5, OUT)
    small, nothing = plan.study.backbones
    assert settings(plan, "small-1")["model.discriminator"] == "out/starts/small/final"
    assert settings(plan, "nothing-1")["model.discriminator"] == "out/starts/nothing-untrained"
    config = plan.backbone_config(small, OUT / "starts/small-untrained")
    assert (config.run.method, config.run.steps, config.model.policy) == ("sft", 500, "out/starts/small-untrained")
    assert (nothing.steps, nothing.smaller) == (0, 1)
    assert plan.starts == ("demo-sft", "demo-expert")


# ------------------------------------------------------------------------------------ problems without demonstrations


def teaching(scale: float = 1.0, demonstrations: int | None = None) -> Plan:
    return make_plan("teach", (1,), scale, OUT, demonstrations)


def test_all_arms_of_teach_see_the_same_demonstrations_and_start_alike() -> None:
    plan = teaching()
    assert plan.start is not None and plan.starts == ("demo-teach-base",)
    assert (plan.start.run.method, plan.start.data.demonstrations) == ("sft", 300)
    for training in plan.trainings:
        config = training.config
        assert config.data == plan.start.data, training.name
        assert config.run.after == () and config.model.policy == "out/starts/start/final"
        reads = config.method.needs_discriminator
        reward = "out/runs/process-1/final" if training.arm.name == "process_reward" else "out/starts/start/final"
        assert config.model.discriminator == (reward if reads else None)
    base = load_config("demo-teach-base", presets_dir=PRESETS).data.families
    assert set(base).isdisjoint(plan.start.data.families) and len({*base, *plan.start.data.families}) == 31
    assert plan.start.data.families == plan.study.families
    assert plan.start.data.demonstrated_families == dict(plan.study.parts)["families with demonstrations"]


def test_the_arms_of_teach_differ_in_update_and_reward_alone() -> None:
    plan = teaching()
    irl = settings(plan, "irl-1")
    found = {arm.name: changed(irl, settings(plan, f"{arm.name}-1")) for arm in plan.study.arms}
    assert found["preferences"] == {"policy.update"}
    assert found["best_of_n"] == {"policy.update", "policy.expert_in_group"}
    # the neighbours of the method are what their presets are
    for name, preset in (
        ("relativistic", "demo-relativistic"),
        ("maxent", "demo-maxent"),
        ("implicit", "demo-implicit"),
        ("process", "demo-process"),
    ):
        known = flat(load_config(preset, presets_dir=PRESETS).to_dict())
        plain = flat(load_config("demo-irl", presets_dir=PRESETS).to_dict())
        assert found[name] == changed(known, plain) - {"run.preset"}
        assert all(settings(plan, f"{name}-1")[key] == known[key] for key in found[name])
    assert found["start_reward"] == {"discriminator.updates_per_round", "discriminator.warmup_rounds", "run.steps"}
    assert found["start_best_of_n"] == found["start_reward"] | found["best_of_n"]
    assert found["process_reward"] == found["start_reward"] | {"model.discriminator"}
    assert found["grpo"] == {"run.method", "model.discriminator", "discriminator.warmup_rounds", "run.steps"}
    assert found["right_of_n"] == found["grpo"] | found["best_of_n"]
    # as many updates of the policy, on as many samples
    for name in ("start_reward", "start_best_of_n", "process_reward", "grpo", "right_of_n"):
        assert settings(plan, f"{name}-1")["run.steps"] == irl["run.steps"] - irl["discriminator.warmup_rounds"]


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_the_likelihood_control_takes_the_time_of_the_learned_reward(scale: float) -> None:
    costs = {one.arm.name: one.cost for one in teaching(scale).trainings}
    assert costs["likelihood"] == pytest.approx(costs["irl"], rel=0.02)
    assert costs["start_reward"] < costs["irl"]


def test_the_number_of_demonstrations_can_be_told() -> None:
    plan = teaching(demonstrations=10)
    assert {one.config.data.demonstrations for one in plan.trainings} == {10} == {plan.start.data.demonstrations}
    with pytest.raises(ConfigError, match="--demonstrations is 10, but the study policies has as many as problems"):
        make_plan("policies", (1,), 1.0, OUT, 10)


def test_some_arms_can_be_made_alone_and_the_others_later(tmp_path: Path) -> None:
    alone = make_plan("teach", (1,), 1.0, tmp_path, arms=("process_reward", "irl"))
    assert [one.name for one in alone.trainings] == [
        "irl-1",
        "process-1",
        "process_reward-1",
    ]  # whose reward it follows
    whole = make_plan("teach", (1,), 1.0, tmp_path)
    assert set(alone.trainings) < set(whole.trainings)
    with pytest.raises(ConfigError, match="no arm 'gpro' in teach; nearest is 'grpo'; there are: likelihood"):
        make_plan("teach", (1,), 1.0, tmp_path, arms=("gpro",))
    begin(tmp_path, alone, resume=True)
    for plan in (whole, alone):
        begin(tmp_path, plan, resume=True)
        assert load_json(tmp_path / "order.json")["settings"].keys() == {one.name for one in whole.trainings}
    with pytest.raises(ConfigError, match=r"holds a study that differs in scale \(then 1.0, now 2.0\), settings; name"):
        begin(tmp_path, make_plan("teach", (1,), 2.0, tmp_path, arms=("irl",)), resume=True)


def test_parts_and_what_was_seen_are_told() -> None:
    plan, rng = teaching(), np.random.default_rng(0)
    texts = {f"p{i}": family for i, family in enumerate(["wages"] * 6 + ["farm"] * 6)}
    policies = {"start": {1: {"pass@1": drawn(rng, 0.3)}}, "irl": {1: {"pass@1": drawn(rng, 0.6)}}}
    about: Any = {
        "created": "2026-01-02", "starts": {}, "failed": {}, "machine":
        {"processor": "A chip", "cores": 2, "threads": 1, "gpu": None},
    }  # fmt: skip
    seen = {"irl": [Seen(300, 0, 1440, 90, 5e3, 80, 60.0), Seen(300, 0, 1440, 110, 5e3, 80, 120.0)]}
    found = figures(plan, (1,), policies, {}, {}, about, seen, texts)
    shown = found.parts["families with demonstrations"].figures["irl"]["pass@1"]
    assert shown.n == 6
    assert shown.value == pytest.approx(np.mean([policies["irl"][1]["pass@1"][f"p{i}"][0] for i in range(6)]))
    made = {table.title: table for table in tables(found)}
    assert made["What each arm has seen"].rows == [
        ["learned reward, surrogate", "300", "0", "1,440", "100", "5,000", "80", "1.5"]
    ]
    assert {"Policies, families without any", "Policies, families without any: differences"} <= made.keys()
    assert not any("ublished" in title for title in made)
    words = "the policy of 'learned reward, surrogate' is right more often than the start, in families without any"
    assert words in " ".join(paragraphs(found))


def test_what_a_run_has_seen_is_counted(tmp_path: Path) -> None:
    rows = [{"step": n + 1, "rollout/samples": 192, "time/step_s": 2.0} for n in range(140)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    irl, grpo, sft = (
        seen_by(next(one.config for one in teaching().trainings if one.arm.name == name), tmp_path)
        for name in ("irl", "grpo", "likelihood")
    )
    # 60 rounds of 24 demonstrated problems, 80 of 6 and of 18 bare ones
    assert irl == Seen(300, 0, 60 * 24 + 80 * 6, 80 * 18, 140 * 192, 80, 280.0)
    assert (grpo.by_policy, grpo.by_discriminator, grpo.bare, grpo.updates) == (0, 0, 80 * 18, 80)
    process = seen_by(next(one.config for one in teaching().trainings if one.arm.name == "process"), tmp_path)
    assert (process.by_policy, process.by_discriminator, process.bare, process.updates) == (0, 120 * 64, 0, 0)
    steps = next(one.config.run.steps for one in teaching().trainings if one.arm.name == "likelihood")
    assert (sft.by_policy, sft.bare, sft.updates) == (24 * steps, 0, steps)


# ------------------------------------------------------------------------------------------------------ over seeds


def drawn(rng: np.random.Generator, ease: float, problems: int = 12) -> Columns:
    return {f"p{i}": (float(np.clip(rng.normal(ease, 0.2), 0, 1)), 1.0) for i in range(problems)}


def test_the_interval_over_seeds_against_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    runs = {seed: {"pass@1": drawn(rng, 0.4 + 0.1 * seed)} for seed in (1, 2, 3)}
    start = {seed: {"pass@1": drawn(rng, 0.4)} for seed in (1, 2, 3)}
    found = compared({"start": start, "irl": runs}, PASS)
    figure = found.figures["irl"]["pass@1"]
    matrix = {
        arm: np.array([[value for value, _ in one["pass@1"].values()] for one in by_seed.values()])
        for arm, by_seed in (("start", start), ("irl", runs))
    }
    assert figure.value == pytest.approx(matrix["irl"].mean())
    assert figure.n == 36
    differences = matrix["irl"] - matrix["start"]
    (between,) = found.differences
    assert (between.ours, between.theirs) == ("irl", "start")
    assert between.figures["pass@1"].value == pytest.approx(differences.mean())
    loop = np.random.default_rng(1)
    for one, table in ((figure, matrix["irl"]), (between.figures["pass@1"], differences)):
        means = []
        for _ in range(RESAMPLES):  # problems and seeds, both with replacement
            problems, seeds = loop.integers(12, size=12), loop.integers(3, size=3)
            means.append(np.mean([[table[s, p] for p in problems] for s in seeds]))
        low, high = np.quantile(means, [0.025, 0.975])
        assert one.low == pytest.approx(low, abs=0.02) and one.high == pytest.approx(high, abs=0.02)


def test_few_problems_over_seeds_have_no_interval() -> None:
    runs = {seed: {"pass@1": {"a": (0.5, 1.0), "b": (0.5, 1.0)}} for seed in (1, 2)}
    figure = compared({"irl": runs}, PASS).figures["irl"]["pass@1"]
    assert figure.value == 0.5 and figure.interval is None


def test_a_seed_that_one_arm_lacks_is_in_no_difference() -> None:
    rng = np.random.default_rng(2)
    start = {1: {"pass@1": drawn(rng, 0.5)}, 2: {"pass@1": {f"p{i}": (0.0, 1.0) for i in range(12)}}}
    irl = {1: {"pass@1": drawn(rng, 0.5)}}
    (between,) = compared({"start": start, "irl": irl}, PASS).differences
    ours, theirs = (np.mean([v for v, _ in one[1]["pass@1"].values()]) for one in (irl, start))
    assert between.figures["pass@1"].value == pytest.approx(ours - theirs)
    assert between.figures["pass@1"].n == 12
    assert compared({"start": start, "irl": {}}, PASS).differences[0].figures == {}


def test_what_reranking_adds_is_less_the_same_problems_of_the_samples() -> None:
    given = {"pass@1": {"a": (0.25, 1.0), "b": (0.5, 1.0)}, "majority": {"a": (0.0, 1.0), "b": (1.0, 1.0)}}
    read = {"bce": {1: {"best": {"a": (1.0, 1.0), "b": (1.0, 1.0)}}, 2: {"best": {"a": (0.0, 1.0), "b": (1.0, 1.0)}}}}
    found = gains(read, given)["bce"]
    assert found["best_over_random"].value == pytest.approx((0.625 + 0.125) / 2)
    assert found["best_over_majority"].value == pytest.approx((0.5 + 0.0) / 2)
    assert found.keys() == {"best_over_random", "best_over_majority"}


# ----------------------------------------------------------------------------------------------------- what is said


def report(
    name: str = "policies", seeds: tuple[int, ...] = (1, 2), done: int = 2, gain: float = 0.3, **more: Any
) -> StudyReport:
    plan, rng = make_plan(name, seeds, 1.0, OUT), np.random.default_rng(0)
    arms = ["start", *(arm.name for arm in plan.study.arms)]
    names = {arm: gain * (arm == arms[1]) for arm in arms}
    policies = {
        arm: {seed: {"pass@1": drawn(rng, 0.3 + more), "pass@16": drawn(rng, 0.6)} for seed in seeds[:done]}
        for arm, more in names.items()
    }
    rewards = {
        arm: {s: {"best_lowest": drawn(rng, 0.6), "pairs_lowest": drawn(rng, 0.7)} for s in seeds[:done]}
        for arm in arms[1:]
    }
    about = {
        "created": "2026-01-02T03:04:05+00:00", "starts": {"demo-sft": "a" * 64}, "failed": {},
        "machine": {"processor": "A chip", "cores": 2, "threads": 1, "gpu": None}, **more,
    }  # fmt: skip
    return figures(plan, seeds[:done], policies, rewards, {"pass@1": drawn(rng, 0.3)}, about)


def test_what_a_study_shows_is_only_what_the_intervals_allow() -> None:
    found = report()
    (shown,) = [text for text in paragraphs(found) if text.startswith("Shown: ")]
    (open_,) = [text for text in paragraphs(found) if text.startswith("Not shown, nor the opposite: ")]
    (one,) = [d for d in found.policies.differences if (d.ours, d.theirs) == ("irl", "start")]
    gain = one.figures["pass@1"]
    assert gain.low > 0
    assert f"the policy of 'IRL' is right more often than the start ({gain.words})" in shown
    (one,) = [d for d in found.policies.differences if (d.ours, d.theirs) == ("sft", "start")]
    assert one.figures["pass@1"].low < 0 < one.figures["pass@1"].high
    assert f"the policy of 'SFT' is right more often than the start ({one.figures['pass@1'].words})" in open_


def test_a_claim_on_an_arm_that_comes_first_is_told_the_right_way_round() -> None:
    found = report()  # differences are those of the later arm less the earlier one
    (one,) = [d for d in found.policies.differences if (d.ours, d.theirs) == ("sft", "irl")]
    less = one.figures["pass@1"]
    assert less.high < 0
    words = f"the policy of 'IRL' is right more often than that of 'SFT' ({-less.value:.3f} [{-less.high:.3f}, "
    assert words in " ".join(text for text in paragraphs(found) if text.startswith("Shown: "))
    worse = replace(one, figures={"pass@1": replace(less, value=-less.value, low=-less.high, high=-less.low)})
    turned = replace(found, policies=replace(found.policies, differences=[worse]))
    (said,) = [text for text in paragraphs(turned) if text.startswith("The opposite is shown: ")]
    assert said.endswith(f": the policy of 'IRL' is right more often than that of 'SFT' ({less.words}).")


@pytest.mark.parametrize("name", STUDIES)
def test_every_claim_is_on_arms_measures_and_problems_of_its_study(name: str) -> None:
    study = STUDIES[name]
    arms = {START, *(arm.name for arm in study.arms)}
    parts = {POLICIES, REWARDS, *(title for title, _ in study.parts)}
    for claim in CLAIMS[name]:
        assert {*claim.ours, claim.theirs} <= arms and claim.among in parts
        assert claim.measure in (REWARD if claim.among == REWARDS else PASS)
        assert claim.among != REWARDS or study.reading == "rewards"
    assert {one for claim in CLAIMS[name] for one in (*claim.ours, claim.theirs)} >= arms - {"process"}


def test_conditions_are_told() -> None:
    text = " ".join(paragraphs(report()))
    assert "2 seeds; 16 samples of each of 160 held-out problems" in text
    assert "All arms start from demo-sft (sha256 aaaaaaaaaaaa)" in text
    assert "CPU (A chip, 2 cores), 2026-01-02" in text and "Unfinished" not in text
    part = " ".join(paragraphs(replace(report(done=1, failed={"irl-2": "the loss is nan"}), scale=0.5)))
    assert "1 seed;" in part and "Unfinished: seeds 1 of 2 are done." in part
    assert "At 0.5 of the full number of rounds." in part
    assert "problems resampled; no spread over seeds" in part and "problems and seeds resampled together" in text
    assert "Diverged, and counted in no figure of its arm: irl-2 (the loss is nan)." in part


@pytest.mark.parametrize("name", [name for name, one in STUDIES.items() if one.published])
def test_published_figures_stand_apart_and_are_marked(name: str) -> None:
    found = report(name)
    *measured, last = tables(found)
    assert last.title.startswith("Published, cited") and "arXiv 2510.01857" in f"{last.rows} {last.note}"
    assert all("ublished" not in table.title and "arXiv" not in str(table) for table in measured)
    if name == "policies":
        assert last.rows[0][:2] == ("Llama-3.2-3B, IRL", "0.32 [0.30, 0.33]")
    else:
        assert f"table {found.published} (" in last.rows[0][1]


def test_every_figure_has_its_n_and_interval() -> None:
    found = report("perturbation")
    for table in tables(found)[:-1]:
        cells = [shown(cell) for row in table.rows for cell in row[1:] if cell is not None]
        assert cells and all("[" in text and "(n " in text for text in cells), table.title
    assert [len(table.rows) for table in tables(found)[:-1]] == [4, 6, 3, 3, 3]
    arms = [row[0] for row in tables(found)[0].rows]
    assert arms == ["the start", "no perturbation", "the paper's three kinds", "seven kinds"]
    assert len(list(combinations(arms, 2))) == 6


def test_the_three_files_hold_the_same(tmp_path: Path) -> None:
    found = report("wasserstein", failed={"penalty-1": "loss <b>nan</b> | x"})
    study_report.write(found, tmp_path)
    document = json.loads((tmp_path / "study.json").read_text())
    assert document["paragraphs"] == paragraphs(found)
    shown, page = (tmp_path / "study.md").read_text(), (tmp_path / "study.html").read_text()
    assert shown.startswith("# Wasserstein critic in place of the classifier\n")
    value = document["policies"]["figures"]["bce"]["pass@1"]["value"]
    assert f"{value:.3f}" in shown and f"{value:.3f}" in page
    assert "<b>" not in page and "&lt;b&gt;nan" in page and "<b>" not in shown
    assert not list(tmp_path.glob("*.tmp"))
