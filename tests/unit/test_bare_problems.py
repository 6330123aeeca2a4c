"""Problems without a demonstration: where they come from, what a round makes of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_core.config import DataConfig, TrainConfig
from irl_core.errors import ConfigError
from irl_core.models.tokenization import TraceEncoder
from irl_core.text.segmentation import make_trace
from irl_core.training.groups import Group, group_members
from irl_core.types import EncodedTrace
from tests.tiny import (
    EXPERTS,
    changed,
    examples_of,
    expert_traces,
    pair_config,
    tiny_tokenizer,
    tiny_trainer,
    update_discriminator_of,
)  # fmt: skip
from train.data import ExpertData, demo_problems, training_data

ENCODER = TraceEncoder(tiny_tokenizer())
TRACES = expert_traces(ENCODER)
MONEY, GROUND = ("wages", "coins"), ("area", "fence")


def demo(**data: Any) -> TrainConfig:
    settings = {"train_problems": 60, "families": (*MONEY, *GROUND), "demonstrations": 8} | data
    return changed(pair_config(), "data", **settings)


def bare(number: int) -> EncodedTrace:
    problem, _, answer = EXPERTS[number]
    return ENCODER.encode(make_trace(problem, "", reference_answer=answer, problem_id=str(number)))


# ------------------------------------------------------------------------------------------------------- data


def test_some_problems_are_demonstrated_and_the_others_bare() -> None:
    data = training_data(demo())
    assert (len(data.traces), len(data.bare)) == (8, 52)
    assert all(trace.text and trace.reference_answer for trace in data.traces)
    assert all(not trace.text and trace.reference_answer for trace in data.bare)
    assert not {trace.problem for trace in data.traces} & {trace.problem for trace in data.bare}
    assert [trace.problem for trace in data.traces] == [one.text for one in demo_problems(demo(), "train", 8)]


def test_demonstrations_of_some_families_and_bare_problems_of_all() -> None:
    data = training_data(demo(demonstrated_families=MONEY))
    assert {trace.extra["family"] for trace in data.traces} == set(MONEY)
    assert {trace.extra["family"] for trace in data.bare} == {*MONEY, *GROUND}


def test_the_generators_families_can_be_chosen() -> None:
    for split in ("train", "held_out"):
        families = [one.family for one in demo_problems(demo(families=MONEY), split, 30)]
        assert set(families) == set(MONEY)
    # none: as it always was
    assert len({one.family for one in demo_problems(demo(families=()), "train", 200)}) > 20


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"families": ("wages", "wage")}, "data.families: unknown family 'wage'; use one of ages, area"),
        ({"demonstrations": 61}, "data.demonstrations is 61, but 60 of 60 training problems can have one; lower it"),
        ({"demonstrated_families": ("ages",)}, "data.demonstrations is 8, but 0 of 60 training problems can have one"),
    ],
)
def test_data_that_is_not_there_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        training_data(demo(**data))
    assert str(error.value).startswith(said)


def test_a_file_is_divided_likewise_and_a_problem_with_a_demonstration_is_never_bare(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + 1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"} for n in (1, 2, 3, 4, 1, 5)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(source=str(path), held_out=1, demonstrations=2)
    config = TrainConfig(run=changed(pair_config(), "run", method="grpo").run, data=data)
    found = training_data(config, say=lambda line: None)
    assert [trace.problem for trace in found.traces] == ["What is 1 + 1?", "What is 2 + 1?"]
    assert [trace.problem for trace in found.bare] == ["What is 3 + 1?", "What is 4 + 1?"]
    everything = changed(changed(config, "data", demonstrations=5), "policy", bare_prompts=1)
    with pytest.raises(ConfigError, match="which leaves none of 5 training problems bare"):
        training_data(everything, say=lambda line: None)


def test_a_round_has_so_many_bare_problems_and_each_is_visited_once_an_epoch() -> None:
    traces, problems = ([make_trace(f"{kind}{n}", "x") for n in range(6)] for kind in ("d", "b"))
    data = ExpertData(traces, 3, bare=problems)

    def names(rounds: Sequence[int]) -> list[list[str]]:
        return [[trace.problem for trace in data.batch(number, 5, 3)] for number in rounds]

    found = names(range(4))
    assert [[name[0] for name in one] for one in found] == [["d", "d", "b", "b", "b"]] * 4
    for two in (found[:2], found[2:]):
        assert sorted(name for one in two for name in one[2:]) == sorted(trace.problem for trace in problems)
    assert names((2, 0, 3, 1)) == [found[2], found[0], found[3], found[1]]
    assert [trace.problem for trace in data.batch(1, 2)] == found[1][:2]  # demonstrations as without bare problems


# ------------------------------------------------------------------------------------------------------ rounds


def test_bare_problems_teach_the_policy_and_not_the_discriminator() -> None:
    trainer = tiny_trainer(changed(pair_config(), "policy", expert_in_group=True))
    groups = trainer.sample_groups([TRACES[0], bare(1)])
    assert [group.demonstrated for group in groups] == [True, False]
    alone = examples_of(trainer, groups[:1])
    assert examples_of(trainer, groups) == alone
    members = group_members(groups, with_expert=True)
    assert members.group_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]  # a bare problem has no expert trace in its group
    scored = trainer.score(groups)
    assert len(scored.traces) == 7 and scored.advantages[4:].any()
    assert trainer.rewards is not None and len(trainer.rewards) == 6


def test_the_experts_likelihood_is_a_mean_over_the_experts_there_are() -> None:
    weighed = changed(pair_config(), "discriminator", likelihood_weight=0.5, perturbations=())
    trainer = tiny_trainer(weighed)
    examples = examples_of(trainer, trainer.sample_groups(TRACES[:2]))
    losses = []
    for prompts in (2, 4, 9):
        fresh = tiny_trainer(changed(weighed, "policy", prompts_per_round=prompts))
        losses.append(update_discriminator_of(fresh, examples)["disc/loss"])
    assert losses[0] == losses[1] == losses[2]


def test_a_round_with_bare_problems_alone_and_a_discriminator_that_stays() -> None:
    trainer = tiny_trainer(changed(pair_config(), "discriminator", updates_per_round=0))
    policy, discriminator = (
        {name: value.clone() for name, value in model.state_dict().items()}
        for model in (trainer.policy.model, trainer.discriminator.model)
    )
    metrics = trainer.round([bare(0), bare(1), bare(2), bare(3)])
    assert "disc/loss" not in metrics and "policy/loss" in metrics
    assert all(torch.equal(discriminator[name], v) for name, v in trainer.discriminator.model.state_dict().items())
    assert any(not torch.equal(policy[name], v) for name, v in trainer.policy.model.state_dict().items())


def test_the_samples_of_bare_problems_are_graded() -> None:
    trainer = tiny_trainer(changed(pair_config(), "run", method="grpo"))
    (group,) = trainer.sample_groups([bare(0)])
    assert isinstance(group, Group) and {one.trace.reference_answer for one in group.samples} == {"10"}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"policy": {"bare_prompts": 4}}, "policy.bare_prompts is 4; of 4 problems a round (policy.prompts_per_round) "
         "3 at most can be bare, since one is to teach the reward"),
        ({"policy": {"bare_prompts": 5}, "run": {"method": "grpo"}}, "policy.bare_prompts is 5; of 4 problems a round "
         "(policy.prompts_per_round) 4 at most can be bare"),
        ({"policy": {"bare_prompts": 3}}, "policy.bare_prompts is 3, but every training problem has a demonstration"),
    ],
)  # fmt: skip
def test_rounds_that_cannot_be_are_refused(sections: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        config = pair_config()
        for section, values in reversed(sections.items()):
            config = changed(config, section, **values)
    assert str(error.value).startswith(said)
