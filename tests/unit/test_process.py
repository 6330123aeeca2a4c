"""Process supervision: labels of steps as examples, what is read, what is refused, and that the reward learns them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_core.config import DataConfig, RunConfig, TrainConfig
from irl_core.data.labelled_formats import trace_of_steps
from irl_core.errors import ConfigError
from irl_core.models.tokenization import TraceEncoder
from irl_core.training.process import ProcessTrainer, step_labels
from irl_core.types import EncodedTrace, Source, Truth
from tests.tiny import EXPERTS, changed, pair_config, plain_learner, tiny_tokenizer, tiny_trainer
from train.labelled_data import data_of, first_error, labels_to_calibrate, read_labelled

ENCODER = TraceEncoder(tiny_tokenizer())
SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def labelled(number: int, first: int | None) -> EncodedTrace:
    problem, solution, answer = EXPERTS[number]
    trace = trace_of_steps(problem, solution.split("\n"), Truth(first), reference_answer=answer, problem_id=str(number))
    return ENCODER.encode(trace)


def trainer(**discriminator: Any) -> ProcessTrainer:
    config = changed(changed(pair_config(), "run", method="process"), "discriminator", **discriminator)
    adversarial = tiny_trainer(changed(config, "run", method="irl"))
    return ProcessTrainer(
        policy=adversarial.policy, discriminator=plain_learner(adversarial.discriminator.model, 0.2), encoder=ENCODER,
        discriminator_encoder=ENCODER, config=config, sampler=adversarial.sampler,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- examples


def test_a_solution_is_right_up_to_its_first_wrong_step() -> None:
    encoded = labelled(0, 1)
    example = step_labels(encoded)
    assert example.encoded.trace.source is Source.POLICY
    text, (start, end) = encoded.trace.text, encoded.spans[example.departure]
    assert text[:end].rstrip().endswith("She") and text[:start].count("\n") <= 1
    assert encoded.spans[example.departure - 1][1] <= encoded.trace.steps[1].start


def test_a_solution_without_a_wrong_step_is_an_experts() -> None:
    assert step_labels(labelled(1, None)).encoded.trace.source is Source.EXPERT
    assert step_labels(labelled(1, 0)).departure == 0
    with pytest.raises(ValueError, match="has no label of its steps"):
        step_labels(replace(labelled(1, 0), trace=replace(labelled(1, 0).trace, truth=None)))


def test_the_reward_learns_the_labels_and_the_policy_stays() -> None:
    made = trainer(perturbations=(), tail=1.0)
    batch = [labelled(0, 1), labelled(1, None), labelled(2, 0), labelled(3, None)]
    policy = {name: value.clone() for name, value in made.policy.model.state_dict().items()}
    losses = [made.round(batch)["disc/loss"] for _ in range(25)]
    assert losses[-1] < losses[0] - 0.1 and made.round_number == 25
    assert all(torch.equal(policy[name], value) for name, value in made.policy.model.state_dict().items())
    wrong, right = made.pair.score([batch[0], batch[1]])
    departure = step_labels(batch[0]).departure
    assert wrong.raw[departure:].mean() < wrong.raw[:departure].mean()
    assert right.raw.mean() > wrong.raw[departure:].mean()


def test_what_follows_the_wrong_step_can_be_left_out() -> None:
    whole, cut = trainer(tail=1.0), trainer(tail=0.0)
    batch = [labelled(0, 0), labelled(1, None)]
    tokens = [made.round(batch)["train/tokens"] for made in (whole, cut)]
    kept = sum(start < batch[0].trace.steps[0].end for start, _ in batch[0].spans)
    assert tokens[0] - tokens[1] == len(batch[0].completion_ids) - kept > 0


# --------------------------------------------------------------------------------------------------------- data


def config_of(source: Path | str, **data: Any) -> TrainConfig:
    settings = {"source": str(source), "train_problems": 100, "held_out": 0} | data
    return TrainConfig(run=RunConfig(method="process"), data=DataConfig(**settings))


def stepwise(path: Path, rows: int, wrong: int = 2) -> Path:
    """Rows of trl's stepwise layout; of every so many one is wrong in its second step."""
    lines = [
        {
            "prompt": f"Add 1 and {n}, then 2.", "completions": [f"1 + {n} = {n + 1}.", f"{n + 1} + 2 = {n + 3}."],
            "labels": [True, not wrong or n % wrong != 0],
        }
        for n in range(rows)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_demos_labels_are_of_its_own_mistakes() -> None:
    data = data_of(config_of("demo", train_problems=30))
    right = [trace for trace in data.traces if first_error(trace) is None]
    wrong = [trace for trace in data.traces if first_error(trace) is not None]
    assert len(right) == 30 and 20 < len(wrong) <= 30
    originals = {trace.problem: trace.text for trace in right}
    for trace in wrong:
        steps = originals[trace.problem].splitlines()
        first = first_error(trace)
        assert trace.text != originals[trace.problem] and [s.text for s in trace.steps[:first]] == steps[:first]


def test_the_demos_labels_are_of_its_demonstrations_where_few_have_one() -> None:
    data = data_of(config_of("demo", train_problems=30, demonstrations=5))
    assert len({trace.problem for trace in data.traces}) == 5 < len(data.traces) and not data.bare


def test_rows_with_labels_of_steps_are_read_and_others_told(tmp_path: Path) -> None:
    path = stepwise(tmp_path / "rows.jsonl", 60)
    with path.open("a") as file:
        file.write('{"prompt": "Add.", "completions": ["1"], "labels": []}\n')
    said: list[str] = []
    data = data_of(config_of(path, held_out=20), say=said.append)
    assert len(data.traces) == 40 and [first_error(trace) for trace in data.traces[:3]] == [1, None, 1]
    assert "label for each of the 1 completions is expected" in said[0] and "left out: 1 of 61 rows" in said[1]
    held_out = labels_to_calibrate(config_of(path, held_out=20))
    assert len(held_out) == 20 and not {t.problem for t in held_out} & {t.problem for t in data.traces}
    assert [trace.correct for trace in held_out[:2]] == [False, True]


@pytest.mark.parametrize("name", ["prm800k.jsonl", "math_shepherd.jsonl", "stepwise"])
def test_the_fields_layouts_of_labelled_steps_are_data(name: str) -> None:
    traces = read_labelled(config_of(SAMPLES / name), lambda line: None)
    assert len(traces) > 1 and {first_error(trace) is None for trace in traces} == {True, False}


@pytest.mark.parametrize(
    ("rows", "wrong", "held_out", "said"),
    [
        (40, 2, 10, "there are 10 held-out problems with labels to calibrate on, and 20 are the least"),
        (40, 0, 20, "leaves 20 labelled solutions to train on, 0 of them with a wrong step"),
        (15, 2, 20, "data.held_out is 20, but data.source"),
    ],
)
def test_too_little_is_refused_before_the_training(
    rows: int, wrong: int, held_out: int, said: str, tmp_path: Path
) -> None:
    source = stepwise(tmp_path / "rows.jsonl", rows, wrong)
    with pytest.raises(ConfigError) as error:
        data_of(config_of(source, held_out=held_out), say=lambda line: None)
    assert said in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("layout", "think_answer"), ("styles", True), ("expert_errors", 0.2)])
def test_what_would_rewrite_labelled_solutions_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"data.{key} is .*, which rewrites solutions, and run.method is 'process'"):
        config_of("demo", **{key: value})
