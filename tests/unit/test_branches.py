"""Other ways on from a place in a solution, with a model of random weights whose rewards follow from likelihood."""

from __future__ import annotations

import pytest

from irl_core.errors import InputError
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from irl_core.types import ScoredTrace
from tests.tiny import PROBLEM, SOLUTION, tiny_lens


@pytest.fixture(scope="module")
def lens() -> Lens:
    return tiny_lens()


@pytest.fixture(scope="module")
def scored(lens: Lens) -> ScoredTrace:
    return lens.score([make_trace(PROBLEM, SOLUTION)])[0]


@pytest.mark.parametrize("place", [0, 7, -1])
def test_the_written_token_stands_before_the_likeliest_others(lens: Lens, scored: ScoredTrace, place: int) -> None:
    place %= len(scored.raw)
    found = lens.branches(scored, place, 4)
    assert [one.written for one in found] == [True] + [False] * 4
    assert found[0].token_id == scored.encoded.completion_ids[place]
    assert found[0].reward == pytest.approx(scored.raw[place], abs=1e-4)
    before = scored.prompt_reward if place == 0 else float(scored.raw[place - 1])
    for one in found:  # the tiny lens: raw = 0.5 * max(log p, -8)
        assert one.reward == pytest.approx(0.5 * max(one.logprob, -8), abs=1e-3)
        assert one.credit == pytest.approx(one.reward - before, abs=1e-3)
    others = [one.logprob for one in found[1:]]
    assert others == sorted(others, reverse=True) and len({one.token_id for one in found}) == 5
    start, end = scored.encoded.spans[place]
    assert found[0].text == SOLUTION[start:end]


def test_samples_go_on_behind_the_beginning(lens: Lens) -> None:
    begun = SOLUTION.split("\n")[0] + "\n"
    one, two = lens.sample(PROBLEM, 2, 3, max_new_tokens=12, begun=begun)
    assert one.text.startswith(begun) and two.text.startswith(begun) and one.text != two.text
    assert lens.sample(PROBLEM, 2, 3, max_new_tokens=12, begun=begun) == [one, two]
    assert len(one.token_ids or ()) <= 12 + len(lens.encoder.encode(make_trace("x", begun, finished=False)).spans)
    lens.score([one, two])


def test_a_beginning_beyond_the_context_is_refused(lens: Lens) -> None:
    with pytest.raises(InputError, match="reads at most 160"):
        lens.sample(PROBLEM, 1, 0, begun=SOLUTION * 5)
