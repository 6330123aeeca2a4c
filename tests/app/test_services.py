"""The queue before a model: bounded, given up, right results for each, counted."""

from __future__ import annotations

import threading
from pathlib import Path

import fakes
import pytest

from app.inspect.request import Request
from app.inspect.scoring_queue import MAX_WAITING, Desk, GivenUp, Refused, Ticket
from irl_core.errors import InputError


@pytest.fixture
def desk() -> Desk:
    return Desk(Path("fake"), "cpu", fakes.load)


class Held:
    """A factory that loads only when the test lets it."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, path: Path, device: str) -> fakes.FakeLens:
        assert self.go.wait(10)
        return fakes.FakeLens()


def test_a_pasted_solution_is_scored_once_and_not_sampled(desk: Desk) -> None:
    found = desk.submit(Request("How many?", "7 + 4 = 11\n#### 11", "11")).result()
    assert (desk.calls["load"], desk.calls["score"], desk.calls["sample"]) == (1, 1, 0)
    assert found.scored[0].trace.correct is True


def test_twenty_sessions_get_their_own_results(desk: Desk) -> None:
    tickets = [desk.submit(Request("How many?", f"{n} + 0 = {n}\n#### {n}")) for n in range(20)]
    answers = [ticket.result().scored[0].trace.answer for ticket in tickets]
    assert answers == [str(n) for n in range(20)]
    assert desk.calls["load"] == 1


def test_the_queue_says_how_many_are_ahead_and_is_bounded() -> None:
    held = Held()
    desk = Desk(Path("fake"), "cpu", held)
    tickets = [desk.submit(Request("How many?", "1")) for _ in range(MAX_WAITING)]
    assert [ticket.ahead() for ticket in tickets] == list(range(MAX_WAITING))
    with pytest.raises(Refused, match="Busy: 32 requests are ahead"):
        desk.submit(Request("How many?", "1"))
    held.go.set()
    assert all(ticket.result().checkpoint == "fake-irl" for ticket in tickets)
    assert tickets[0].ahead() == 0


def test_sessions_of_many_samples_do_not_fill_the_queue_and_one_session_waits_once() -> None:
    held = Held()
    desk = Desk(Path("fake"), "cpu", held)
    taken, refused = [], []
    for number in range(33):
        try:
            taken.append(desk.submit(Request("How many?", n=64), f"session {number}"))
        except Refused as error:
            refused.append(str(error))
    assert len(taken) == 4 and len(set(refused)) == 1
    assert refused[0].startswith("Busy: 256 solutions are ahead, and with yours more than 256, the most allowed.")
    taken.pop().give_up()
    small = [desk.submit(Request("How many?", "1"), f"small {number}") for number in range(20)]  # 1 trace each
    with pytest.raises(Refused, match="Busy: 1 request of this session is ahead, the most allowed"):
        desk.submit(Request("How many?", "1"), "small 3")
    small[3].give_up()
    again = desk.submit(Request("How many?", "1"), "small 3")
    taken[0].give_up()  # it is being served, and still in the queue; its session may ask again all the same
    after = desk.submit(Request("How many?", "1"), "session 0")
    held.go.set()
    assert again.result().checkpoint == after.result().checkpoint == "fake-irl"


def test_what_a_session_gave_up_itself_is_not_called_ahead_of_it() -> None:
    held = Held()
    desk = Desk(Path("fake"), "cpu", held)
    first = desk.submit(Request("How many?", "1"), "mine")
    first.give_up()  # it is being served, until its next report
    again = desk.submit(Request("How many?", "2"), "mine")
    other = desk.submit(Request("How many?", "3"), "another")
    assert (again.ahead(), other.ahead()) == (0, 2)
    held.go.set()
    assert again.result().checkpoint == other.result().checkpoint == "fake-irl"


def test_a_ticket_given_up_leaves_the_queue_and_the_next_is_served() -> None:
    held = Held()
    desk = Desk(Path("fake"), "cpu", held)
    first, second, third = (desk.submit(Request("How many?", "1")) for _ in range(3))
    second.give_up()
    second.give_up()
    assert third.ahead() == 1
    first.give_up()  # being served: it ends at its next report
    held.go.set()
    assert third.result().checkpoint == "fake-irl"
    with pytest.raises(GivenUp):
        first.result()


def test_a_failure_releases_the_desk(desk: Desk) -> None:
    with pytest.raises(InputError, match="The problem is empty"):
        desk.submit(Request(" ", "1")).result()
    assert desk.submit(Request("How many?", "1")).result().checkpoint == "fake-irl"


def test_out_of_memory_is_said_plainly_and_the_next_request_works(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(self: object, traces: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(fakes.FakeLens, "score", exhausted)
        with pytest.raises(Refused, match="Not enough memory"):
            desk.submit(Request("How many?", "1")).result()
    assert desk.submit(Request("How many?", "1")).result().checkpoint == "fake-irl"


def test_sampling_reports_progress_and_judges_against_the_right_answer(desk: Desk) -> None:
    seen: list[tuple[int, int]] = []
    original = Ticket.report

    def report(self: Ticket, stage: str, done: int = 0, total: int = 0) -> None:
        original(self, stage, done, total)
        if total:
            seen.append((done, total))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ticket, "report", report)
        found = desk.submit(Request("How many?", "", "11", n=6, seed=3)).result()
    assert seen == [(n, 6) for n in range(1, 7)]
    assert [one.trace.correct for one in found.scored] == [one.trace.answer == "11" for one in found.scored]
