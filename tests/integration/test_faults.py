"""The faults known from other implementations (METHOD): none of them here, seen through the whole loop.

Faults 4 and 5 have their tests beside the functions (test_rewards, test_losses, test_encoding), fault 8 in
test_training.
"""

from __future__ import annotations

import ast
import copy
import math
import random
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.models.batching import collate
from irl_core.models.logprobs import hidden_states, prompt_logprobs
from irl_core.models.tokenization import TraceEncoder
from irl_core.text.segmentation import make_trace
from irl_core.training import negatives
from irl_core.training.groups import Group
from irl_core.training.negatives import Example
from irl_core.training.sft import SFTTrainer
from irl_core.types import EncodedTrace, Perturbation, Source
from tests.tiny import (
    EXPERTS,
    changed,
    examples_of,
    expert_traces,
    pair_config,
    perturbed_of,
    plain_learner,
    scores_by,
    tiny_model,
    tiny_tokenizer,
    tiny_trainer,
    update_discriminator_of,
)
from train.training_state import learners_of

REPOSITORY = Path(__file__).resolve().parents[2]
ENCODER = TraceEncoder(tiny_tokenizer())
TRACES = expert_traces(ENCODER)


def as_sample(problem: int, text: str, *, finished: bool = True) -> EncodedTrace:
    ids = ENCODER.encode(make_trace("p", text, finished=finished)).completion_ids
    question, _, answer = EXPERTS[problem]
    trace = ENCODER.sampled_trace(question, ids, [-1.0] * len(ids), reference_answer=answer, problem_id=str(problem))
    return ENCODER.encode(trace)


def wrong_solutions() -> list[Group]:
    """A sample with a wrong sum of its own for each problem."""
    texts = ("12 + 2 = <<12+2=14>>14\n#### 14", "5 + 2 = 7\n#### 7", "60 + 3 = 63\n#### 63", "9 + 4 = 13\n#### 13")
    return [Group(TRACES[number], (as_sample(number, text),)) for number, text in enumerate(texts)]


def settings(**sections: dict[str, Any]) -> TrainConfig:
    result = pair_config()
    for section, values in sections.items():
        result = changed(result, section, **values)
    return result


# --------------------------------------------------------- 1, 13: a reward belongs to the token it stands beside


def test_rewards_are_read_at_their_own_tokens_and_none_after_the_end() -> None:
    trainer = tiny_trainer()
    model = trainer.discriminator.model
    with torch.no_grad():
        model.head.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
    scored = trainer.pair.score(TRACES)[0]
    raw, logprobs = scored.raw, scored.logprobs
    first = TRACES[0]
    ids = torch.tensor([[*first.prompt_ids, *first.completion_ids]])
    with torch.no_grad():
        hidden = model.backbone(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        likely = trainer.policy.model(input_ids=ids).logits[0].log_softmax(-1)
        own = model.backbone(input_ids=ids).logits[0].log_softmax(-1)
        levels = model.head.linear(hidden).squeeze(1)
    assert len(raw) == len(first.completion_ids) == len(first.spans)
    for token in (0, len(raw) - 2, len(raw) - 1):  # the first, the last of the answer, the end of the turn
        at = len(first.prompt_ids) + token
        anchor = 0.5 * max(own[at - 1, ids[0, at]].item(), -8.0)
        assert raw[token] == pytest.approx(levels[at].item() + anchor, abs=1e-3)
        assert logprobs[token] == pytest.approx(likely[at - 1, ids[0, at]].item(), abs=1e-3)
    start, end = first.spans[-2]
    assert first.trace.text[start:end] == "0"  # of '#### 10'


# ------------------------------------------------------------ 2: a perturbation that did not apply is no negative


def test_a_text_without_a_sum_gives_no_negative() -> None:
    words = as_sample(0, "She has some pens left.")
    bare = ENCODER.encode(make_trace(EXPERTS[0][0], "Some are left.", source=Source.EXPERT))
    assert not list(perturbed_of(tiny_trainer(), Group(bare, (words,)), random.Random(0)))


@pytest.mark.parametrize("seed", range(8))
def test_every_perturbed_trace_differs_from_what_it_was_made_of(seed: int) -> None:
    trainer = tiny_trainer()
    for group in wrong_solutions():
        originals = {group.expert.trace.text, group.samples[0].trace.text}
        for example in perturbed_of(trainer, group, random.Random(seed)):
            assert example.encoded.trace.text not in originals
            assert example.departure < len(example.encoded.completion_ids)


# --------------------------------------------------------------- 3: a prompt keeps its own perturbed trace


@pytest.mark.parametrize("seed", range(5))
def test_each_perturbed_trace_stands_under_its_own_problem(seed: int) -> None:
    # no group is left out or shifted, also where one has no perturbation (the third: words only)
    words = ENCODER.encode(make_trace(EXPERTS[2][0], "It goes far.", source=Source.EXPERT))
    groups = wrong_solutions()
    groups[2] = Group(words, (as_sample(2, "Far."),))
    solutions = {number: [g.expert.trace.text, g.samples[0].trace.text] for number, g in enumerate(groups)}
    trainer = tiny_trainer()
    trainer.round_number = seed
    examples = examples_of(trainer, groups)
    perturbed = [one.encoded for one in examples if one.encoded.trace.source is Source.PERTURBED]
    assert len(perturbed) >= 4
    for one in perturbed:
        nearest = max(
            (number for number in solutions),
            key=lambda number: max(SequenceMatcher(None, text, one.trace.text).ratio() for text in solutions[number]),
        )
        assert one.trace.problem == EXPERTS[nearest][0]
        assert one.prompt_ids == groups[nearest].expert.prompt_ids


# ------------------------------------------------------------------------ 6: traces of a batch do not see each other


def test_a_trace_does_not_see_its_neighbours() -> None:
    model = tiny_trainer().discriminator.model
    others = [as_sample(1, "7"), as_sample(3, "9 + 4 = 13. " * 6)]
    alone = scores_by(model, [TRACES[0]])[0].raw
    for company in ([TRACES[0], *others], [*others, TRACES[0]]):
        found = scores_by(model, company)[company.index(TRACES[0])].raw
        torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(alone), atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------ 7: micro-batches do what the full batch does


def parameters(*models: Any) -> list[Tensor]:
    return [value.clone() for model in models for value in model.state_dict().values()]


@pytest.mark.parametrize(
    "discriminator",
    [
        {},
        {"loss": "wasserstein", "weight_clip": 0.5},
        {"loss": "sequence"},
        {"head": "cumulative", "updates_per_round": 2},
        {"likelihood": "policy"},
        {"likelihood_weight": 0.5},
        {"class_weights": {"expert": 2.0, "policy": 1.0, "perturbed": 0.5}, "replay": 1.0},
    ],
    ids=lambda values: ",".join(values) or "default",
)
def test_the_micro_batch_budget_does_not_change_an_update(discriminator: dict[str, Any]) -> None:
    document = pair_config().to_dict()
    document["discriminator"] |= discriminator
    results = []
    for budget in (1, 200, 100_000):
        document["run"]["batch_tokens"] = budget
        trainer = tiny_trainer(TrainConfig.from_dict(document))
        metrics = [trainer.round(TRACES) for _ in range(2)]
        results.append((parameters(trainer.policy.model, trainer.discriminator.model), metrics))
    for found, metrics in results[:-1]:
        for one, other in zip(found, results[-1][0], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
        for mine, whole in zip(metrics, results[-1][1], strict=True):
            kept = {key: value for key, value in mine.items() if not key.startswith("time/")}
            assert kept == pytest.approx({key: whole[key] for key in kept}, abs=1e-3)


def supervised(budget: int) -> SFTTrainer:
    config = settings(run={"method": "sft", "batch_tokens": budget}, policy={"prompt_loss_weight": 0.3})
    return SFTTrainer(policy=plain_learner(tiny_model(7), 0.05), encoder=ENCODER, config=config)


def test_the_micro_batch_budget_does_not_change_likelihood_training() -> None:
    results = []
    for budget in (1, 100_000):
        trainer = supervised(budget)
        metrics = [trainer.round(TRACES) for _ in range(3)]
        results.append((parameters(trainer.policy.model), [one["policy/loss"] for one in metrics]))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert results[0][1] == pytest.approx(results[1][1], abs=1e-4)
    assert results[0][1][2] < results[0][1][0]


def test_prompt_logprobs_are_those_of_the_prompts_tokens() -> None:
    model = tiny_model(7)
    batch = collate(TRACES, ENCODER.pad_id)
    values = prompt_logprobs(model, batch, hidden_states(model, batch))
    expected = []
    for one in TRACES:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([one.prompt_ids])).logits[0].log_softmax(-1)
        expected += [logits[t - 1, one.prompt_ids[t]] for t in range(1, len(one.prompt_ids))]
    torch.testing.assert_close(values.detach(), torch.stack(expected), atol=1e-4, rtol=1e-4)


# ----------------------------------------------------------------- 9: labels and settings that change nothing


def first_update(config: TrainConfig) -> list[Tensor]:
    trainer = tiny_trainer(config)
    trainer.round(TRACES)
    return parameters(*(learner.model for learner in learners_of(trainer).values()))


def matters(**sections: dict[str, Any]) -> bool:
    """Whether settings change what a round does, or are refused."""
    try:
        found = first_update(settings(**sections))
    except ConfigError:
        return True
    pairs = zip(found, first_update(pair_config()), strict=False)  # the policy's first; outcome rewards have no more
    return any(not torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    "sections",
    [
        {"discriminator": {"target_expert": 0.8}},
        {"discriminator": {"target_other": 0.3}},
        {"discriminator": {"perturbation_labels": "whole_trace"}},
        {"discriminator": {"perturbations": ("offset_number",)}},
        {"discriminator": {"likelihood_weight": 1.0}},
        {"discriminator": {"head": "linear"}},
        {"discriminator": {"likelihood": "policy"}},
        {"discriminator": {"max_grad_norm": 0.1}},
        {"policy": {"gamma": 0.5}},
        {"policy": {"advantage": "credit"}},
        {"policy": {"advantage": "minimum"}},
        {"policy": {"standardise_over": "last"}},
        {"policy": {"standardise_over": "none", "max_grad_norm": 100.0}},
        {"policy": {"baseline": "leave_one_out"}},
        {"policy": {"expert_in_group": False}},
        {"policy": {"temperature": 0.5}},
        {"policy": {"top_p": 0.5}},
        {"policy": {"num_generations": 2}},
        {"run": {"seed": 8}},
        {"run": {"method": "grpo"}},
    ],
    ids=str,
)
def test_a_setting_changes_the_update(sections: dict[str, dict[str, Any]]) -> None:
    assert matters(**sections)


def test_the_gradient_penalty_is_not_ignored() -> None:
    bounded = settings(discriminator={"loss": "wasserstein", "weight_clip": 0.5})
    both = settings(discriminator={"loss": "wasserstein", "weight_clip": 0.5, "gradient_penalty": 10.0})
    pairs = zip(first_update(bounded), first_update(both), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_the_likelihood_weight_is_refused_where_there_is_no_likelihood_to_train() -> None:
    for head in ({"head": "linear"}, {"likelihood": "policy"}):
        with pytest.raises(ConfigError, match="only a head anchored to its own likelihood"):
            settings(discriminator={**head, "likelihood_weight": 1.0})


@pytest.mark.parametrize(
    "targets",
    [(0.95, 0.05), (1.0, 0.0), (0.45, 0.05), (0.95, 0.55)],
    ids=str,
)
def test_no_class_is_left_out_whatever_the_targets(targets: tuple[float, float]) -> None:
    # a new linear head is at logit 0, D = 1/2, which costs log 2 against any target; the weights sum to 1
    config = settings(discriminator={"target_expert": targets[0], "target_other": targets[1], "head": "linear"})
    trainer = tiny_trainer(config)
    metrics = update_discriminator_of(trainer, examples_of(trainer, wrong_solutions()))
    assert metrics["disc/loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_swapped_labels_are_seen() -> None:
    # the same texts with the sources exchanged: the loss of a new anchored head is another
    expert, sample = TRACES[2], as_sample(2, "60 + 3 = 63\n#### 63")
    first = update_discriminator_of(tiny_trainer(), [Example(expert), Example(sample)])["disc/loss"]
    other = [
        Example(EncodedTrace(make_trace("p", "x", source=source), one.prompt_ids, one.completion_ids, one.spans))
        for one, source in ((expert, Source.POLICY), (sample, Source.EXPERT))
    ]
    assert update_discriminator_of(tiny_trainer(), other)["disc/loss"] != pytest.approx(first, abs=1e-2)


# ---------------------------------------------------------------- 10: what a model writes is never executed


def test_a_sampled_expression_is_read_as_text(tmp_path: Path) -> None:
    target = tmp_path / "written"
    for text, correct in (  # none is right, and the first two cannot be compared with a number
        (f"#### __import__('pathlib').Path({str(target)!r}).touch()", None),
        ("#### 9**9**9**9", None),
        ("#### 11 or exit()", False),
    ):
        sample = as_sample(0, f"2 * 2 = 4\n{text}")
        assert sample.trace.correct is correct
        trainer = tiny_trainer()
        trainer.update_policy(trainer.score([Group(TRACES[0], (sample, sample))]))
    assert not target.exists()


def test_no_module_can_execute_or_unpickle() -> None:
    for path in [*(REPOSITORY / "irl_core").rglob("*.py"), *(REPOSITORY / "train").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path.name
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "joblib", "marshal", "shelve"} & set(names), path.name
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr not in ("load", "save"), path.name


# -------------------------------------------------------------------------------- 11: cut off is not finished


def test_truncated_samples_are_marked_and_end_without_an_end_token() -> None:
    trainer = tiny_trainer()
    samples = [sample for group in trainer.sample_groups(TRACES) for sample in group.samples]
    assert any(not sample.trace.finished for sample in samples)
    for sample in samples:
        ended = sample.completion_ids[-1] in ENCODER.end_ids
        assert sample.trace.finished == ended
        assert ended or len(sample.completion_ids) == 12
        assert sample.trace.finished or sample.trace.correct is False


def test_a_truncated_right_answer_earns_nothing() -> None:
    # '#### 10' with and without an end: cut off, the next digit could have been anything
    whole, cut = as_sample(0, "#### 10"), as_sample(0, "#### 10", finished=False)
    assert (whole.trace.correct, cut.trace.correct) == (True, False)
    trainer = tiny_trainer(settings(run={"method": "grpo"}, policy={"expert_in_group": False}))
    scored = trainer.score([Group(TRACES[0], (whole, cut))])
    assert scored.advantages[0][scored.mask[0]].gt(0).all()
    assert scored.advantages[1][scored.mask[1]].lt(0).all()


def test_the_perturbed_copy_of_a_truncated_sample_is_truncated_too() -> None:
    cut = as_sample(0, "There are 3 * 4 = <<3*4=12>>12 pens.\nShe keeps 12 - 2 = <<12-2=10>>10", finished=False)
    trainer = tiny_trainer()
    *_, perturbed = perturbed_of(trainer, Group(TRACES[0], (cut,)), random.Random(0))
    assert not set(perturbed.encoded.completion_ids) & set(ENCODER.end_ids)


# ------------------------------------------------------------- 12: the expert is never among its own negatives


def test_a_perturbation_that_gives_the_expert_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = EXPERTS[0][1]
    monkeypatch.setattr(negatives, "perturb", lambda trace, rng, kinds: Perturbation(text, (0, 1), 0, "offset_number"))
    assert not list(perturbed_of(tiny_trainer(), wrong_solutions()[0], random.Random(0)))


@pytest.mark.parametrize("kinds", [("offset_number",), ("flip_operator",), ("swap_answer",)])
def test_a_repaired_sample_is_no_negative(kinds: tuple[str, ...]) -> None:
    # one offset, one operator, one answer away from the expert's text: some seeds lead back to it
    slips = ("60 * 2 = <<60*2=180>>180", "60 + 3 = <<60+3=180>>180", "60 * 3 = <<60*3=180>>180")
    samples = [EXPERTS[2][1].replace("60 * 3 = <<60*3=180>>180", slip) for slip in slips]
    trainer = tiny_trainer(settings(discriminator={"perturbations": kinds}))
    for seed in range(20):
        for sample in samples:
            group = Group(TRACES[2], (as_sample(2, sample),))
            for example in perturbed_of(trainer, group, random.Random(seed)):
                assert example.encoded.trace.text != TRACES[2].trace.text


def test_two_trainers_share_no_weight() -> None:
    """The comparisons above rest on it."""
    first = tiny_trainer()
    second = tiny_trainer()
    before = copy.deepcopy(parameters(second.policy.model, second.discriminator.model))
    first.round(TRACES)
    for one, other in zip(before, parameters(second.policy.model, second.discriminator.model), strict=True):
        assert torch.equal(one, other)
