"""Signals, ranking and JSON with hand-computed values; the lens on an untrained checkpoint whose rewards are known."""

from __future__ import annotations

import json
import math
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irl_core.errors import CheckpointError, InputError
from irl_core.policy.familiarity import compared_with_held_out, prompt_logprob
from irl_core.report.inspection_json import to_json
from irl_core.reward.token_scores import (
    group_standardisation,
    majority_answer,
    rank,
    restandardise,
    signals,
    trace_score,
)
from irl_core.scorer import MAX_PROBLEM_CHARACTERS, MAX_SAMPLES, Lens, check_inputs
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Localisation, ScoredTrace, Standardisation, Trace
from tests.tiny import PROBLEM, SOLUTION

UNIT = Standardisation(2.0, 0.5, "by hand")


def hand_scored(raw: list[float], text: str = "a\nb\nc\nd", prompt_reward: float = 0.5) -> ScoredTrace:
    """One token for each of the first characters of ``text``."""
    trace = make_trace("p", text)
    spans = tuple((index, index + 1) for index in range(len(raw)))
    encoded = EncodedTrace(trace, (1,), tuple(range(len(raw))), spans)
    values = np.array(raw, dtype=np.float32)
    return ScoredTrace(encoded, values, -values, prompt_reward, UNIT, "by-hand")


def answered(*answers: str | None) -> list[Trace]:
    return [make_trace("p", "no answer here" if one is None else f"x\n#### {one}") for one in answers]


def test_signals_by_hand() -> None:
    views = signals(hand_scored([3.0, 2.0, 0.0]), gamma=0.5)
    assert views.raw.tolist() == [3.0, 2.0, 0.0]
    # (r - 2) / 0.5
    assert views.standardised.tolist() == [2.0, 0.0, -4.0]
    # backwards: -4; 0 + 0.5 * -4 = -2; 2 + 0.5 * -2 = 1
    assert views.discounted.tolist() == [1.0, -2.0, -4.0]
    # 3 - 0.5, 2 - 3, 0 - 2
    assert views.credit.tolist() == [2.5, -1.0, -2.0]


def test_no_spread_gives_exactly_zero() -> None:
    flat = restandardise([hand_scored([3.0, 2.0])], Standardisation(2.5, 0.0, "flat"))[0]
    views = signals(flat)
    assert views.standardised.tolist() == [0.0, 0.0]
    assert views.discounted.tolist() == [0.0, 0.0]


def test_signals_of_no_token() -> None:
    views = signals(hand_scored([]))
    assert views.raw.size == views.discounted.size == 0
    assert math.isnan(trace_score(hand_scored([]), "minimum"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean", 5 / 3),  # (3 + 2 + 0) / 3
        ("last", 0.0),
        ("minimum", 0.0),
        ("product", -math.log(2 * (1 + math.exp(-3)) * (1 + math.exp(-2)))),
        ("credit_sum", -0.5),  # last - prompt reward
        ("credit_minimum", -2.0),
        ("mean_discounted", -5 / 3),  # of the standardised: (1 - 2 - 4) / 3
    ],
)
def test_trace_scores_by_hand(kind: str, expected: float) -> None:
    assert trace_score(hand_scored([3.0, 2.0, 0.0]), kind, gamma=0.5) == pytest.approx(expected, abs=1e-6)


def test_what_the_model_cannot_judge_stands_behind_what_it_can_in_the_order_given() -> None:
    scored = [hand_scored([value, value]) for value in (1.0, 3.0, 2.0, 4.0)]
    assert rank(scored, "mean") == [3, 1, 2, 0]
    assert rank(scored, "mean", judged=[True, False, True, False]) == [2, 0, 1, 3]
    assert rank(scored, "mean", judged=[False] * 4) == [0, 1, 2, 3]


def test_unknown_trace_score_and_gamma_are_named() -> None:
    with pytest.raises(InputError, match="Unknown trace score 'best'; choose one of mean_discounted"):
        trace_score(hand_scored([1.0]), "best")
    with pytest.raises(InputError, match=re.escape("gamma is 1.5; choose a value between 0 and 1.")):
        signals(hand_scored([1.0]), gamma=1.5)


def test_rank_keeps_the_order_of_equals_and_puts_undefined_last() -> None:
    scored = [hand_scored([1.0]), hand_scored([float("nan")]), hand_scored([2.0]), hand_scored([1.0])]
    assert rank(scored, "minimum") == [2, 0, 3, 1]


def test_majority_counts_equal_numbers_together() -> None:
    assert majority_answer(answered("1,000", "7", "1000.0")) == ("1,000", 2)


def test_majority_tie_goes_to_the_first_and_none_is_none() -> None:
    assert majority_answer(answered("7", "8", None)) == ("7", 1)
    assert majority_answer(answered(None)) is None
    assert majority_answer([]) is None


def test_group_statistics_by_hand() -> None:
    unit = group_standardisation([np.array([1.0, 2.0], np.float32), np.array([6.0], np.float32)])
    # mean 9 / 3; squares 4 + 1 + 9 = 14, over n - 1 = 2
    assert unit == Standardisation(3.0, math.sqrt(7.0), "group of 2 samples")


def test_group_without_two_numbers_has_no_signal() -> None:
    unit = group_standardisation([np.array([np.nan, 4.0, np.inf], np.float32)])
    assert (unit.mean, unit.std) == (4.0, 0.0)


def test_what_the_reward_says_alone_is_told_from_the_verdict() -> None:
    scored = hand_scored([3.0, 2.0], text="3 + 4 = 8\n#### 8")
    where = Localisation("no_error", None, 0.75, "raw/min/argmin", -1.0, (2.0, 3.0))
    (trace,) = to_json([scored], [where], problem="p", checkpoint="demo", familiarity=[None])["traces"]
    assert (trace["verdict"]["kind"], trace["verdict"]["step_number"]) == ("error", 1)
    alone = {"decision": "no_error", "first_error_step": None, "first_error_step_number": None, "confidence": 0.75}
    assert trace["reward"] == alone
    assert {name: trace[name] for name in alone} == alone


def test_json_is_the_documented_schema() -> None:
    scored = hand_scored([3.0, float("nan")], text="3 + 4 = 8\n#### 8")
    where = Localisation("error", 0, 0.75, "credit/min", -1.0, (-2.0, math.nan))
    result = to_json([scored], [where], problem="p", checkpoint="demo", familiarity=[None], gamma=0.5)
    assert list(result) == ["checkpoint", "problem", "traces"]
    trace = result["traces"][0]
    assert list(trace) == [
        "text", "answer", "correct", "verdict", "familiarity", "cannot_judge", "trace_score", "reward", "decision",
        "first_error_step", "first_error_step_number", "confidence", "rule", "threshold", "steps", "tokens",
        "arithmetic", "quantities",
    ]  # fmt: skip
    assert (trace["verdict"]["kind"], trace["verdict"]["by"], trace["verdict"]["step"]) == ("error", "arithmetic", 0)
    assert trace["verdict"]["headline"] == "Step 1: 3 + 4 is 7, not 8"
    assert (trace["decision"], trace["first_error_step"], trace["confidence"]) == (None, None, None)  # NaN: no signal
    assert trace["cannot_judge"] is True
    assert trace["reward"] == dict.fromkeys(trace["reward"])  # the reward's alone, which has no say here
    assert trace["steps"] == [
        {"number": 1, "name": "step 1", "start": 0, "end": 9, "text": "3 + 4 = 8", "score": -2.0, "role": "reasoning"},
        {
            "number": 2, "name": "the answer line", "start": 10, "end": 16, "text": "#### 8", "score": None,
            "role": "answer",
        },
    ]  # fmt: skip
    assert trace["tokens"][0] == {
        "start": 0, "end": 1, "text": "3", "raw": 3.0, "standardised": 2.0, "discounted": None, "credit": 2.5,
        "logprob": -3.0,
    }  # fmt: skip
    assert trace["tokens"][1]["raw"] is None
    assert trace["arithmetic"] == [{"start": 0, "end": 9, "text": "3 + 4 = 8", "value": 7, "stated": 8}]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("problem", "solution", "message"),
    [
        ("", None, "The problem is empty"),
        (" \n\t", None, "The problem is empty"),
        ("p", "  ", "The solution is empty"),
        ("x" * 20_001, None, "The problem has 20,001 characters; the limit is 20,000"),
        ("p", "x" * 1_000_000, "The solution has 1,000,000 characters; the limit is 20,000"),
    ],
)
def test_unusable_texts_are_refused(problem: str, solution: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_inputs(problem, solution)


def test_a_text_of_the_limit_is_accepted() -> None:
    check_inputs("x" * MAX_PROBLEM_CHARACTERS)


def test_familiarity_percentile_is_interpolated() -> None:
    quantiles = [[0.0, -4.0], [0.5, -2.0], [1.0, -1.0]]
    known = compared_with_held_out(-3.0, 0.0, quantiles)  # half way between the 0 % and the 50 % quantile
    assert known.percentile == pytest.approx(25.0)
    assert known.familiar is True


def test_unfamiliar_wording_and_unknown_tokens_say_why() -> None:
    quantiles = [[0.0, -4.0], [0.01, -3.0], [1.0, -1.0]]
    found = compared_with_held_out(-9.0, 0.5, quantiles)
    assert found.familiar is False and found.percentile == 0.0
    assert "mean log-probability of a token \u22129.00, limit \u22123.00" in found.reason
    assert "the tokenizer does not know 50% of its pieces (limit 2%)" in found.reason


def test_familiarity_without_quantiles_is_not_measured() -> None:
    found = compared_with_held_out(-1.0, 0.0, None)
    assert found.familiar is None and found.percentile is None


# ------------------------------------------------------------------------------------------------------- lens


def test_rewards_of_the_untrained_anchored_head_are_half_the_log_probability(lens: Lens) -> None:
    scored = lens.score([make_trace(PROBLEM, SOLUTION)])[0]
    expected = 0.5 * np.maximum(scored.logprobs, -8.0)
    np.testing.assert_allclose(scored.raw, expected, rtol=1e-5)
    assert scored.standardisation == Standardisation(-2.0, 0.5, "held-out solutions of checkpoint tiny")
    assert scored.checkpoint == "tiny"


def test_tokens_join_to_the_text(lens: Lens) -> None:
    text = "x 😀 = $5 and $10\x00\u202e\nThe answer is 10"
    scored = lens.score([make_trace(PROBLEM, text)])[0]
    joined, position = "", 0
    for start, end in scored.encoded.spans:
        joined += text[max(start, position) : end]
        position = max(position, end)
    assert joined == text


def test_order_and_values_do_not_depend_on_the_batch(lens: Lens) -> None:
    traces = [make_trace(PROBLEM, SOLUTION), make_trace(PROBLEM, "#### 3"), make_trace(PROBLEM, "One step.\n#### 10")]
    together, alone = lens.score(traces), [lens.score([trace])[0] for trace in traces]
    for one, other in zip(together, alone, strict=True):
        assert one.trace == other.trace
        np.testing.assert_allclose(one.raw, other.raw, atol=1e-5)


def test_same_seed_same_samples_and_scores(lens: Lens) -> None:
    first, second = (lens.sample(PROBLEM, 3, seed=11, max_new_tokens=12) for _ in range(2))
    assert [trace.token_ids for trace in first] == [trace.token_ids for trace in second]
    scores = [lens.score(traces, standardise_over="group") for traces in (first, second)]
    for one, other in zip(*scores, strict=True):
        assert np.array_equal(one.raw, other.raw)
    assert scores[0][0].standardisation.origin == "group of 3 samples"
    others = lens.sample(PROBLEM, 3, seed=12, max_new_tokens=12)
    assert [trace.token_ids for trace in others] != [trace.token_ids for trace in first]


def test_progress_is_reported_and_unfinished_is_said(lens: Lens) -> None:
    calls: list[tuple[int, int]] = []
    traces = lens.sample(PROBLEM, 2, seed=0, max_new_tokens=5, on_progress=lambda *call: calls.append(call))
    assert calls[0] == (1, 5) and calls == sorted(calls)
    assert all(trace.finished or len(trace.token_ids or ()) == 5 for trace in traces)
    assert [trace.trace_id for trace in traces] == ["sample-1", "sample-2"]


def test_the_context_window_is_a_limit_that_names_itself(lens: Lens) -> None:
    long = "3 + 4 = 7. " * 60
    with pytest.raises(InputError, match=r"[\d,]+ tokens; checkpoint tiny reads at most 160"):
        lens.score([make_trace(PROBLEM, long)])
    with pytest.raises(InputError, match="The problem is too long: "):
        lens.sample(long, 1, seed=0)


@pytest.mark.parametrize("n", [0, -1, MAX_SAMPLES + 1])
def test_number_of_samples_is_limited(lens: Lens, n: int) -> None:
    with pytest.raises(InputError, match=f"{n} samples asked for; choose between 1 and {MAX_SAMPLES}"):
        lens.sample(PROBLEM, n, seed=0)


def test_location_does_not_depend_on_the_unit_shown(lens: Lens) -> None:
    scored = lens.score([make_trace(PROBLEM, SOLUTION)])[0]
    other = restandardise([scored], Standardisation(100.0, 7.0, "another"))[0]
    assert lens.locate(scored) == lens.locate(other)
    assert len(lens.locate(scored).step_scores) == len(scored.trace.steps)


def test_prompt_log_probability_is_the_mean_over_tokens(lens: Lens) -> None:
    import torch

    prompt = lens.encoder.encode_prompt(PROBLEM)
    with torch.no_grad():
        table = lens.policy(input_ids=torch.tensor([prompt])).logits[0].log_softmax(-1)
    one_by_one = [float(table[index, token]) for index, token in enumerate(prompt[1:])]
    assert prompt_logprob(lens.policy, prompt) == pytest.approx(sum(one_by_one) / len(one_by_one), abs=1e-5)
    assert prompt_logprob(lens.policy, prompt[:1]) == 0.0


def test_familiarity_of_the_lens_uses_stored_quantiles(lens: Lens, monkeypatch: Any) -> None:
    assert lens.familiarity(PROBLEM).familiar is True  # random weights: about -log(300) = -5.7 nats a token
    reference = {**lens.config["reference"], "prompt_logprob_quantiles": [[0.0, -1.0], [1.0, -0.5]]}
    monkeypatch.setitem(lens.config, "reference", reference)
    assert lens.familiarity(PROBLEM).familiar is False


def test_scoring_tells_how_familiar_a_problem_is_and_it_is_not_read_again(lens: Lens, monkeypatch: Any) -> None:
    traces = [make_trace(PROBLEM, SOLUTION), make_trace(PROBLEM, "3 + 4 = 8"), make_trace("Ada has 3 pens.", "3 = 3")]
    alone = [lens.familiarity(one.problem, one.text) for one in traces]
    scored = lens.score(traces)
    sampled = lens.score(lens.sample(PROBLEM, 2, seed=0, max_new_tokens=4))  # have their log-probabilities already
    assert [one.prompt_logprob for one in sampled] == [None, None]
    read: list[str] = []
    plain = lens._prompt_score
    monkeypatch.setattr(lens, "_prompt_score", lambda problem: (read.append(problem), plain(problem))[1])
    for one, wanted in zip(lens.familiarities(scored), alone, strict=True):
        assert (one.familiar, one.unknown_share) == (wanted.familiar, wanted.unknown_share)
        assert one.score == pytest.approx(wanted.score, abs=1e-4)
    assert read == []
    assert lens.familiarities(sampled)[1].score == pytest.approx(alone[0].score, abs=1e-6)
    assert read == [PROBLEM]


def test_samples_can_end_with_their_line(lens: Lens) -> None:
    ends = lens.encoder.line_ends
    decoded = [lens.encoder.tokenizer.decode([one]) for one in ends]
    assert ends and all("\n" in text for text in decoded) and not set(ends) & set(lens.encoder.end_ids)
    lines = lens.sample(PROBLEM, 16, seed=3, max_new_tokens=60, until_line=True)
    assert all("\n" not in one.text[:-1] for one in lines)
    ended = [one for one in lines if one.text.endswith("\n")]
    assert ended and not any(one.finished for one in ended)


def test_ids_that_do_not_spell_the_text_are_refused(lens: Lens) -> None:
    sampled = lens.sample(PROBLEM, 1, seed=0, max_new_tokens=4)[0]
    with pytest.raises(InputError, match="do not spell its text"):
        lens.score([replace(sampled, text=sampled.text + "!", steps=())])


def saved(lens: Lens, folder: Path, **changes: Any) -> Path:
    from irl_core.checkpoints.save import save_checkpoint
    from train import optimizers

    files = optimizers.model_files("policy", lens.policy) | optimizers.discriminator_files(lens.discriminator)
    files |= optimizers.tokenizer_files(lens.encoder.tokenizer, folder / "scratch")
    config = {key: value for key, value in (lens.config | changes).items() if value is not None}
    save_checkpoint(folder / "tiny", {**files, "config.json": config})
    return folder / "tiny"


def test_a_saved_checkpoint_loads_as_the_same_lens(lens: Lens, tmp_path: Path) -> None:
    again = Lens.load(saved(lens, tmp_path), device="cpu")
    trace = make_trace(PROBLEM, SOLUTION)
    one, other = lens.score([trace])[0], again.score([trace])[0]
    assert np.array_equal(one.raw, other.raw) and np.array_equal(one.logprobs, other.logprobs)
    assert one.encoded == other.encoded and one.prompt_reward == other.prompt_reward
    assert lens.locate(one) == again.locate(other)
    assert [t.token_ids for t in again.sample(PROBLEM, 2, 5, max_new_tokens=8)] == [
        t.token_ids for t in lens.sample(PROBLEM, 2, 5, max_new_tokens=8)
    ]
    assert (again.name, again.provenance, len(again.fingerprint)) == ("tiny", {"command": "test", "seed": 7}, 64)


def test_a_checkpoint_that_was_not_calibrated_says_so(lens: Lens, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json has no localisation: the checkpoint was not calibrated"):
        Lens.load(saved(lens, tmp_path, localisation=None))


def test_a_changed_file_is_refused(lens: Lens, tmp_path: Path) -> None:
    folder = saved(lens, tmp_path)
    head = folder / "discriminator" / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match=r"head\.safetensors"):
        Lens.load(folder)


def test_a_gpu_that_cannot_be_used_is_said_plainly(lens: Lens, tmp_path: Path, monkeypatch: Any) -> None:
    import torch

    folder = saved(lens, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(InputError, match=f"Device {device} asked for; torch can use 0 GPUs here. Choose cpu"):
            Lens.load(folder, device)
    assert Lens.load(folder, "auto").device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="Device cuda:1 asked for; torch can use 1 GPUs here"):
        Lens.load(folder, "cuda:1")
    with pytest.raises(InputError, match="The device is 'gpu'; choose auto, cpu or cuda"):
        Lens.load(folder, "gpu")


def test_running_out_of_memory_is_said_and_the_next_request_works(lens: Lens, monkeypatch: Any) -> None:
    import torch

    from irl_core.training.model_pair import ModelPair

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trace = make_trace(PROBLEM, SOLUTION)
    with monkeypatch.context() as patched:
        patched.setattr(ModelPair, "score", full)
        with pytest.raises(InputError, match="Out of memory with batches of 64 tokens; choose fewer"):
            lens.score([trace], batch_tokens=64)
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(len(lens.score([trace]))))
    thread.start()
    thread.join(timeout=30)
    assert done == [1]  # the lock was given back


def test_many_threads_share_a_lens(lens: Lens) -> None:
    texts = [f"She has {number} pens.\n#### {number}" for number in range(12)]
    alone = [lens.score([make_trace(PROBLEM, text)])[0].raw for text in texts]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda text: lens.score([make_trace(PROBLEM, text)])[0].raw, texts))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
