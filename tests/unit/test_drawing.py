"""Drawing by inverse of the cumulative distribution: against sums in exact arithmetic, and at its corners."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
import torch
from scipy.stats import chisquare

from irl_core.policy import draws
from irl_core.policy.draws import Drawing, at_or_before, check_finite, inverse_cdf, nucleus, uniforms

LAST = math.nextafter(1.0, 0.0)  # the largest number below 1


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------- uniform numbers


def test_numbers_depend_on_the_seed_the_sample_and_the_position_alone() -> None:
    long, short = uniforms(5, 2, 40), uniforms(5, 2, 7)
    assert torch.equal(long[:7], short)
    assert not torch.equal(uniforms(6, 2, 7), short) and not torch.equal(uniforms(5, 1, 7), short)
    assert long.dtype == torch.float64 and long.min() >= 0 and long.max() < 1


def test_numbers_are_the_same_in_every_release() -> None:
    # What a seed gives is stored with runs: changing it changes every run that is resumed.
    assert uniforms(7, 0, 2).tolist() == pytest.approx([0.0012269512003861838, 0.7111452245837583], abs=1e-15)


def test_numbers_are_uniform_across_samples() -> None:
    first = torch.stack([uniforms(seed, sample, 1) for seed in range(100) for sample in range(20)]).flatten()
    assert chisquare(torch.histc(first, 20, 0, 1).tolist()).pvalue > 0.01


# -------------------------------------------------------------------------------------------------------- the nucleus


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.5, [0.5, 0, 0, 0]), (0.51, [0.5, 0, 0.25, 0]), (0.75, [0.5, 0, 0.25, 0]), (0.8, [0.5, 0.125, 0.25, 0])],
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: list[float]) -> None:
    # sorted 0.5, 0.25, 0.125, 0.0625: sums 0.5, 0.75, 0.875, 0.9375 (powers of two: exact)
    probabilities = torch.tensor([[0.5, 0.125, 0.25, 0.0625]])
    assert nucleus(probabilities, top_p).tolist() == [kept]


def test_a_nucleus_is_never_empty() -> None:
    assert nucleus(torch.tensor([[0.25, 0.75]]), 1e-9).tolist() == [[0.0, 0.75]]


def test_of_equally_likely_tokens_the_first_are_in() -> None:
    kept = nucleus(torch.full((1, 64), 1 / 64), 0.25)
    assert kept[0, :16].eq(1 / 64).all() and kept[0, 16:].eq(0).all()


# ---------------------------------------------------------------------------------------------------------- the inverse


def test_the_inverse_by_hand() -> None:
    # sums 0.5, 0.5, 0.75, 1: a number on a border belongs to the id that begins there
    probabilities = torch.tensor([[0.5, 0.0, 0.25, 0.25]]).expand(6, 4)
    given = numbers(0.0, 0.4999, 0.5, 0.7499, 0.75, LAST)
    assert inverse_cdf(probabilities, given).tolist() == [0, 0, 2, 2, 3, 3]


def test_rows_need_not_sum_to_one() -> None:
    # sums 0.125, 0.5 of a total of 0.5: 0.2 of it is 0.1, 0.3 of it is 0.15
    assert inverse_cdf(torch.tensor([[0.125, 0.375]]).expand(2, 2), numbers(0.2, 0.3)).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_has_no_probability_is_never_drawn(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(512, 300, generator=generator)
    probabilities[torch.rand(512, 300, generator=generator) < 0.9] = 0.0
    probabilities[:, :20] = probabilities[:, 280:] = 0.0
    probabilities[:, 150] += 1e-3  # no row without any
    for given in (torch.zeros(512), torch.ones(512), torch.full((512,), LAST), torch.rand(512, generator=generator)):
        ids = inverse_cdf(probabilities, given.to(dtype))
        assert probabilities.gather(1, ids.unsqueeze(1)).gt(0).all()


def test_past_the_last_possible_id_that_one_is_taken() -> None:
    # in float32 a number can round up to 1, and its product with the total to the total itself
    probabilities = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.25, 0.0, 0.25]])
    assert inverse_cdf(probabilities, torch.ones(2, dtype=torch.float32)).tolist() == [1, 3]


def test_a_step_at_an_impossible_id_moves_back_to_the_last_possible_one() -> None:
    # parallel sums may differ from one id to the next though nothing was added
    probabilities = torch.tensor([[0.5, 0.0, 0.0, 0.5], [0.0, 0.4, 0.6, 0.0]])
    assert at_or_before(probabilities, torch.tensor([[2], [2]])).tolist() == [[0], [2]]
    assert at_or_before(probabilities, torch.tensor([[1], [3]])).tolist() == [[0], [2]]


@pytest.mark.parametrize("scale", [0.01, 6.0])
def test_borders_are_exact_in_a_large_vocabulary(scale: float) -> None:
    # 152k ids, all about as likely or of very different shares: each number falls to the id whose exact interval holds
    # it, to 1e-12. Sums in float32 are off by 6e-8.
    generator = torch.Generator().manual_seed(1)
    probabilities = (torch.randn(152_064, generator=generator) * scale).softmax(-1)
    sums = [0, *accumulate(int(share * 2**100) for share in probabilities.tolist())]
    places = torch.randint(1, 152_064, (24,), generator=generator).tolist()
    given = [sums[place] / sums[-1] + nudge for place in places for nudge in (-1e-11, 1e-11)]
    drawn = inverse_cdf(probabilities.expand(48, -1), numbers(*given)).tolist()
    for number, token in zip(given, drawn, strict=True):
        assert sums[token] / sums[-1] - 1e-12 <= number < sums[token + 1] / sums[-1] + 1e-12


# ------------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1, 0.0]),
        ({"temperature": 2.0}, [x**0.5 for x in (0.4, 0.3, 0.2, 0.1, 0.0)]),
        ({"temperature": 0.5}, [x**2 for x in (0.4, 0.3, 0.2, 0.1, 0.0)]),
        ({"top_p": 0.6}, [0.4, 0.3, 0.0, 0.0, 0.0]),
        ({"vocab_size": 3}, [0.4, 0.3, 0.2, 0.0, 0.0]),
        # the nucleus is that of the ids that may be drawn: 4/9 and 3/9 do not reach 0.8, 0.4 and 0.3 and 0.2 would
        ({"vocab_size": 3, "top_p": 0.77}, [0.4, 0.3, 0.0, 0.0, 0.0]),
    ],
)
def test_draws_follow_the_distribution_asked_for(settings: dict[str, float], expected: list[float]) -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]).log() + 5.0
    count = 100_000
    draw = Drawing(**settings)  # type: ignore[arg-type]
    ids, logprobs = draw(logits.expand(count, 5), torch.rand(count, dtype=torch.float64, generator=seeded(3)))
    seen = torch.bincount(ids, minlength=5)
    possible = [place for place, share in enumerate(expected) if share]
    assert set(ids.unique().tolist()) == set(possible)
    shares = torch.tensor([expected[place] for place in possible], dtype=torch.float64)
    wanted = shares / shares.sum() * count
    assert chisquare(seen[possible].numpy(), wanted.numpy()).pvalue > 0.01
    # the log-probabilities are those of the model: temperature 1, all ids
    torch.testing.assert_close(logprobs, torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]).log()[ids])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_temperature_zero_takes_the_likeliest_that_may_be_drawn() -> None:
    logits = torch.tensor([[0.1, 0.7, 0.2, 3.0], [5.0, 0.0, 0.0, 6.0]])
    ids, logprobs = Drawing(temperature=0.0, vocab_size=3)(logits, numbers(0.9, 0.9))
    assert ids.tolist() == [1, 0]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[[0, 1], [1, 0]])


def test_many_rows_are_drawn_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, given = torch.randn(10, 50, generator=seeded(0)), torch.rand(10, dtype=torch.float64, generator=seeded(1))
    draw = Drawing(temperature=0.8, top_p=0.9)
    whole = draw(logits, given)
    monkeypatch.setattr(draws, "LOGITS_AT_ONCE", 150)
    parts = draw(logits, given)
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


def test_half_precision_logits_give_float32_log_probabilities() -> None:
    logits = torch.randn(4, 50, generator=seeded(0)).bfloat16()
    ids, logprobs = Drawing()(logits, numbers(0.1, 0.4, 0.6, 0.9))
    assert logprobs.dtype == torch.float32
    expected = logits.double().log_softmax(-1).gather(1, ids.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"temperature": 0.0}])
def test_logits_that_are_no_numbers_show_in_the_log_probability(value: float, settings: dict[str, float]) -> None:
    logits = torch.zeros(2, 30)
    logits[1, 7] = value
    _, logprobs = Drawing(**settings)(logits, numbers(0.5, 0.5))  # type: ignore[arg-type]
    assert math.isfinite(logprobs[0]) and not math.isfinite(logprobs[1])
    check_finite([float(logprobs[0])], 4)
    with pytest.raises(FloatingPointError, match=r"not finite at completion token 3 of prompt 4 \(nan\); lower policy"):
        check_finite([-1.0, float(logprobs[1])], 4, position=2)


def test_an_id_of_logit_minus_infinity_is_never_drawn() -> None:
    logits = torch.zeros(64, 30)
    logits[:, ::2] = -math.inf
    ids, logprobs = Drawing()(logits, torch.linspace(0, LAST, 64, dtype=torch.float64))
    assert ids.remainder(2).eq(1).all()
    torch.testing.assert_close(logprobs, torch.full((64,), -math.log(15)))
