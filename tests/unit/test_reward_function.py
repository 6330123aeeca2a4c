"""The reward as a function for other projects' trainers: what it returns, and two steps of trl's own trainer."""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from irl_core.errors import InputError
from irl_core.reward.token_scores import trace_score
from irl_core.reward_function import RewardFunction, completion_text, problem_of, reward_function, rewarded
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from tests.tiny import EXPERTS, PROBLEM, SOLUTION, tiny_model, tiny_tokenizer

WRONG = "There are 3 * 4 = <<3*4=12>>11 pens.\n#### 9"


def told(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.mark.parametrize("kind", [None, "mean", "credit_sum"])
def test_the_reward_is_the_trace_score_of_score(lens: Lens, kind: str | None) -> None:
    scored = lens.score([make_trace(PROBLEM, SOLUTION), make_trace(PROBLEM, WRONG)])
    expected = [trace_score(one, kind or lens.default_trace_score) for one in scored]
    reward = reward_function(lens, score=kind)
    assert reward(prompts=[PROBLEM, PROBLEM], completions=[SOLUTION, WRONG]) == expected
    assert reward.of(PROBLEM, WRONG) == pytest.approx(expected[1], abs=1e-6)
    assert expected[0] != expected[1]


def test_conversations_give_what_their_texts_give(lens: Lens) -> None:
    reward = reward_function(lens)
    prompt = [told("Be brief.", "system"), told("Ignored."), told("", "assistant"), told(PROBLEM)]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": SOLUTION}]}]
    plain = reward([PROBLEM], [SOLUTION])
    assert reward([prompt], [[told(SOLUTION, "assistant")]]) == plain == reward([prompt], [parts])


def test_messages_may_be_objects() -> None:
    @dataclass
    class Message:
        role: str
        content: Any

    assert problem_of([Message("user", "a"), Message("assistant", "b")]) == "a"
    assert completion_text([Message("assistant", "b"), Message("tool", "x"), Message("assistant", "c")]) == "b\n\nc"
    assert problem_of([]) == "" and completion_text([Message("assistant", None)]) == ""


def test_the_problem_may_stand_in_a_column(lens: Lens) -> None:
    reward = reward_function(lens, problem_column="question")
    assert reward(["<|user|> x"], [SOLUTION], question=[PROBLEM]) == reward_function(lens)([PROBLEM], [SOLUTION])
    with pytest.raises(InputError, match="no column 'question'; it has answer"):
        reward([PROBLEM], [SOLUTION], answer=["10"])


def test_the_instruction_of_the_checkpoint_is_not_read_twice(lens: Lens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens.encoder, "instruction", "Think.")
    assert reward_function(lens).problems([f"Think.\n\n{PROBLEM}", PROBLEM], {}) == [PROBLEM, PROBLEM]


def test_a_completion_that_was_cut_off_has_no_end_token(lens: Lens) -> None:
    reward, end = reward_function(lens, end_ids=[3]), lens.encoder.end_ids[0]
    ended, cut = (reward.encoded(PROBLEM, "12 pens", ids) for ids in ([5, 3], [5, 6]))
    assert ended is not None and cut is not None
    assert ended.completion_ids == (*cut.completion_ids, end)


def test_what_cannot_be_read_has_the_lowest_reward_of_its_call(lens: Lens) -> None:
    logged: dict[str, float] = {}
    texts = [SOLUTION, "", WRONG, "7 " * 400]
    rewards = reward_function(lens)([PROBLEM] * 4, texts, log_metric=logged.__setitem__)
    assert rewards[1] == rewards[3] == min(rewards[0], rewards[2]) and all(map(math.isfinite, rewards))
    assert logged == {"irl_lens/unreadable": 0.5}
    assert reward_function(lens, unreadable=-20.0)([PROBLEM] * 4, texts)[1::2] == [-20.0, -20.0]
    assert reward_function(lens)([PROBLEM], [" "]) == [0.0] and math.isnan(reward_function(lens).of(PROBLEM, " "))


def test_what_is_wrong_is_named(lens: Lens) -> None:
    with pytest.raises(InputError, match="Unknown trace score 'best'; choose one of mean_discounted"):
        reward_function(lens, score="best")
    with pytest.raises(InputError, match=r"gamma is 1\.5"):
        reward_function(lens, gamma=1.5)
    with pytest.raises(InputError, match="2 completions with 1 problems"):
        reward_function(lens)([PROBLEM], [SOLUTION, SOLUTION])
    with pytest.raises(InputError, match="unreadable=NUMBER"):
        rewarded(object, reward_function(lens))


def test_the_trainers_recognise_it(lens: Lens) -> None:
    """verifiers before 0.2 calls a function with a whole group where its parameters are plural, and logs its name."""
    reward = reward_function(lens)
    assert {"prompts", "completions"} <= set(inspect.signature(reward).parameters)
    assert reward.__name__ == "irl_lens" and RewardFunction.__name__ == "RewardFunction"
    group: dict[str, Any] = {"answers": ["10"], "states": [{}], "tasks": [None], "infos": [{}], "parser": None}
    assert len(reward(prompts=[[told(PROBLEM)]], completions=[[told(SOLUTION, "assistant")]], **group)) == 1


@pytest.mark.filterwarnings("ignore")
def test_two_steps_of_trls_trainer(lens: Lens, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer, model = copy.deepcopy(tiny_tokenizer()), tiny_model()
    seen: list[tuple[str, str, float]] = []

    class Watched(RewardFunction):
        def __call__(self, prompts: Any, completions: Any, completion_ids: Any = None, **columns: Any) -> list[float]:
            rewards = RewardFunction.__call__(self, prompts, completions, completion_ids, **columns)
            texts = map(completion_text, completions)
            seen.extend(zip(map(problem_of, prompts), texts, rewards, strict=True))
            return rewards

    made = reward_function(lens, end_ids=[tokenizer.eos_token_id])
    settings = GRPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, num_generations=4, learning_rate=1e-2,
        max_completion_length=4, use_cpu=True, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True,
        seed=3,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": [told(problem)]} for problem, _, _ in EXPERTS])
    trainer = GRPOTrainer(
        model=model, reward_funcs=Watched(lens, made.score, end_ids=made.end_ids), args=settings, train_dataset=rows,
        processing_class=tokenizer,
    )  # fmt: skip
    before = model.lm_head.weight.detach().clone()
    trainer.train()
    steps = [line for line in trainer.state.log_history if "reward" in line]
    assert len(steps) == 2 and len(seen) == 8 and len({problem for problem, _, _ in seen}) == 2
    for number, line in enumerate(steps):
        group = [reward for _, _, reward in seen[4 * number : 4 * number + 4]]
        assert line["rewards/irl_lens/mean"] == pytest.approx(sum(group) / 4, abs=1e-5)
        assert len(set(group)) > 1
    assert not before.equal(model.lm_head.weight)
