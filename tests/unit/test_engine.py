"""Samples of a serving engine: every one accounted for, whatever the server does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irl_core.errors import EngineError, InputError, StoreError
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.engine import Drawn, EngineClient, Lost, asks_of, samples_of
from irl_core.policy.engine_requests import Drawing, Engine
from irl_core.policy.kept_samples import KeptSamples
from irl_core.scorer import Lens
from tests.engine_server import Answer, Body, completion, engine_server
from tests.tiny import PROBLEM, SOLUTION
from train.cli.inspect import inspect

PLAIN = Drawing(32, context=160)


def drawn_from(
    url: str, encoder: TraceEncoder, count: int = 3, **options: Any
) -> tuple[list[Drawn | Lost], list[float]]:
    """So many samples of a problem, and the pauses between tries."""
    pauses: list[float] = []
    with EngineClient(Engine(url, **options), encoder, pause=pauses.append) as client:
        return client.draw(asks_of(encoder, PROBLEM, count, 5), PLAIN), pauses


def ids_of(encoder: TraceEncoder, text: str) -> list[int]:
    return list(encoder.tokenizer(text, add_special_tokens=False).input_ids)


# ---------------------------------------------------------------------------------------------- what is asked


def test_a_request_a_sample_with_its_own_seed(lens: Lens) -> None:
    with engine_server(lambda body: completion(f"{body['seed']}")) as server:
        drawn, _ = drawn_from(f"{server.url}/v1/", lens.encoder, 4, key="k-1")
        again, _ = drawn_from(server.url, lens.encoder, 2)
    texts = [one.text for one in drawn if isinstance(one, Drawn)]
    assert len(set(texts)) == 4 and texts[:2] == [one.text for one in again if isinstance(one, Drawn)]
    body = server.asked[0]
    assert body["prompt"] == list(lens.encoder.encode_prompt(PROBLEM)) and body["model"] == "tiny"
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["stream"]) == (32, 1.0, 1.0, False)
    assert all(headers["authorization"] == "Bearer k-1" for headers in server.headers[:4])
    assert "authorization" not in server.headers[4]


def test_several_at_once_and_no_more(lens: Lens) -> None:
    both = threading.Barrier(3, timeout=20)

    def answer(body: Body) -> Answer:
        both.wait()
        return completion("x")

    with engine_server(answer) as server:
        drawn, _ = drawn_from(server.url, lens.encoder, 6, parallel=3)
    assert len(drawn) == 6 and server.most_running == 3


@pytest.mark.parametrize("telling", ["beside the text", "with each log-probability"])
def test_tokens_that_the_engine_tells_are_kept(telling: str, lens: Lens) -> None:
    ids, end = ids_of(lens.encoder, SOLUTION), lens.encoder.end_ids[0]
    more: dict[str, Any] = (
        {"token_ids": [*ids, end]}
        if telling == "beside the text"
        else {"logprobs": {"content": [{"id": token, "logprob": -1.0} for token in ids]}}
    )
    with engine_server(lambda body: completion(SOLUTION, **more)) as server:
        traces, notes = samples_of(Engine(server.url), lens.encoder, PROBLEM, 2, 0, context=160)
    assert traces[0].token_ids == (*ids, end) and traces[0].logprobs is None and traces[0].finished and not notes
    assert [one.trace_id for one in traces] == ["sample-1", "sample-2"] and traces[0].source == "policy"
    scored = lens.score(traces)
    assert scored[0].encoded.completion_ids == (*ids, end) and (scored[0].logprobs < 0).all()


@pytest.mark.parametrize("ids", [None, [5, 6], [10**9], "5", [True], [-1]])
def test_tokens_that_do_not_spell_the_text_are_not_taken(ids: Any, lens: Lens) -> None:
    with engine_server(lambda body: completion("12 pens", "length", token_ids=ids, read=1)) as server:
        traces, notes = samples_of(Engine(server.url), lens.encoder, PROBLEM, 2, 0, context=160)
    assert traces[0].token_ids is None and traces[0].text == "12 pens" and not traces[0].finished
    assert "2 samples came without tokens that spell them" in notes[0]
    assert "before 2 samples the engine read another number of tokens" in notes[1]


def test_an_engine_that_takes_texts_alone_gets_them(lens: Lens) -> None:
    def answer(body: Body) -> Answer:
        if not isinstance(body["prompt"], str):
            return 400, {"detail": "prompt must be a string."}
        return completion("x")

    with engine_server(answer) as server:
        drawn, pauses = drawn_from(server.url, lens.encoder, 3, parallel=1)
    assert all(isinstance(one, Drawn) for one in drawn) and not pauses
    assert len(server.asked) == 5, "once with all fields, once with fewer, then texts"
    text = server.asked[-1]["prompt"]
    assert server.asked[-1]["top_k"] == 0 and ids_of(lens.encoder, text) == list(lens.encoder.encode_prompt(PROBLEM))


def test_fields_that_an_engine_refuses_are_left_out(lens: Lens) -> None:
    def answer(body: Body) -> Answer:
        return (422, {"detail": "Unexpected fields"}) if "return_token_ids" in body else completion("x")

    with engine_server(answer) as server:
        drawn, _ = drawn_from(server.url, lens.encoder, 3, parallel=1)
        _, notes = samples_of(Engine(server.url), lens.encoder, PROBLEM, 1, 0, context=160)
    assert all(isinstance(one, Drawn) for one in drawn) and len(server.asked) == 6
    assert isinstance(server.asked[-1]["prompt"], list) and "top_k" not in server.asked[-1]
    assert "the engine refuses top_k, min_p and repetition_penalty: it may draw by defaults of its own" in notes[0]


def test_one_request_that_is_refused_does_not_change_how_the_others_are_asked(lens: Lens) -> None:
    bad = asks_of(lens.encoder, PROBLEM, 3, 5)[1].seed
    with engine_server(lambda body: (400, {"error": "no"}) if body["seed"] == bad else completion("x")) as server:
        drawn, _ = drawn_from(server.url, lens.encoder, 3, parallel=1)
    assert drawn == [Drawn("x", True), Lost("status 400: no"), Drawn("x", True)]
    assert all(isinstance(body["prompt"], list) and "top_k" in body for body in server.asked) and len(server.asked) == 3


def test_a_request_that_is_refused_in_every_way_is_lost(lens: Lens) -> None:
    with engine_server(lambda body: (400, {"error": {"message": "too long"}})) as server:
        drawn, _ = drawn_from(server.url, lens.encoder, 2, parallel=1)
    assert drawn == [Lost("status 400: too long")] * 2 and len(server.asked) == 6


# ------------------------------------------------------------------------------------------------ what goes wrong


def answers(*given: Answer) -> Callable[[Body], Answer]:
    """One answer after the other, the last again and again."""
    left = list(given)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


def test_an_engine_that_still_loads_its_model_is_waited_for_as_long_as_a_request_may_take(lens: Lens) -> None:
    answers = iter([(503, {"error": {"message": "Loading model"}})] * 12)
    with engine_server(lambda body: next(answers, completion("x"))) as server:
        drawn, pauses = drawn_from(server.url, lens.encoder, 1)
    assert drawn == [Drawn("x", True)] and len(pauses) == 12 and max(pauses) == 30.0
    with engine_server(lambda body: (503, {"error": {"message": "Loading model"}})) as server:
        (lost,), pauses = drawn_from(server.url, lens.encoder, 1, timeout=100)
    assert isinstance(lost, Lost) and "Loading model" in lost.reason and 100 <= sum(pauses) < 130


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_engine_is_asked_again(status: int, lens: Lens) -> None:
    with engine_server(answers((status, {"error": "busy"}), (status, b"busy"), completion("x"))) as server:
        drawn, pauses = drawn_from(server.url, lens.encoder, 1)
    assert drawn == [Drawn("x", True)] and len(pauses) == 2 and 0.5 <= pauses[0] < pauses[1] < 1.5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((500, {"error": {"message": "no\x1bway"}}), r"status 500: no\\x1bway"),
        ((200, b"{"), "an answer that is no JSON"),
        ((200, b"[" * 100_000), "an answer that is no JSON"),
        ((200, b"[1]"), "an answer that is no JSON object"),
        ((200, {"choices": []}), "an answer without a text"),
        ((200, {"choices": [{"text": 3}]}), "an answer without a text"),
        ((200, {"choices": "abc"}), "an answer without a text"),
        (completion("1 " * 2000), "an answer of 4,000 characters, where 32 tokens were asked for"),
        (completion("7 1 " * 60), r"an answer of \d+ tokens, where \d+ fit"),
        (completion("x\ud800"), "an answer that holds half of a surrogate pair"),
    ],
)
def test_a_sample_that_does_not_come_is_named_and_the_others_go_on(answer: Answer, reason: str, lens: Lens) -> None:
    bad = asks_of(lens.encoder, PROBLEM, 3, 5)[1].seed
    with engine_server(lambda body: answer if body["seed"] == bad else completion("x")) as server:
        drawn, _ = drawn_from(server.url, lens.encoder, 3, retries=1)
    assert drawn[0] == drawn[2] == Drawn("x", True)
    assert isinstance(drawn[1], Lost)
    assert re.search(reason, drawn[1].reason), drawn[1].reason


def test_more_tokens_than_were_asked_for_are_not_taken(lens: Lens) -> None:
    ids = ids_of(lens.encoder, SOLUTION)
    assert len(ids) > 32
    with engine_server(lambda body: completion(SOLUTION, token_ids=ids)) as server:
        drawn, _ = drawn_from(server.url, lens.encoder, 1, retries=0)
    assert drawn == [Lost(f"an answer of {len(ids)} tokens, where 32 fit")]


def test_a_timeout_is_named(lens: Lens) -> None:
    over = threading.Event()
    bad = asks_of(lens.encoder, PROBLEM, 2, 5)[0].seed

    def answer(body: Body) -> Answer:
        if body["seed"] == bad:
            over.wait(20)
        return completion("x")

    with engine_server(answer) as server:
        with EngineClient(Engine(server.url), lens.encoder) as client:
            client.requests.http.timeout = 0.5
            drawn = client.draw(asks_of(lens.encoder, PROBLEM, 2, 5), PLAIN)
        over.set()
    assert drawn == [Lost("it took longer than the timeout"), Drawn("x", True)]
    assert len(server.asked) == 2, "it would take as long again"


def test_a_server_that_is_gone_ends_it_and_what_came_is_kept(lens: Lens, tmp_path: Path) -> None:
    asks, kept = asks_of(lens.encoder, PROBLEM, 6, 5), KeptSamples(tmp_path / "kept.jsonl", "tiny")
    with engine_server(lambda body: completion(f"{body['seed']}")) as server:
        client = EngineClient(Engine(server.url, parallel=1, retries=1), lens.encoder, pause=lambda seconds: None)

        def stop_after_three(done: int, total: int) -> None:
            if done == 3:
                server.stop()

        with pytest.raises(EngineError, match="is gone after 2 tries"):
            client.draw(asks, PLAIN, kept=kept, on_step=stop_after_three)
    came = KeptSamples(tmp_path / "kept.jsonl", "tiny").known
    assert 3 <= len(came) < 6

    with (
        engine_server(lambda body: completion(f"{body['seed']}")) as server,
        EngineClient(Engine(server.url), lens.encoder) as client,
    ):
        steps: list[tuple[int, int]] = []
        drawn = client.draw(
            asks, PLAIN, kept=KeptSamples(tmp_path / "kept.jsonl", "tiny"), on_step=lambda *step: steps.append(step)
        )
        assert len(server.asked) == 6 - len(came) and steps[-1] == (6, 6)
    assert [one.text for one in drawn if isinstance(one, Drawn)] == [f"{ask.seed}" for ask in asks]


def test_what_is_raised_while_it_draws_ends_it(lens: Lens) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with (
        engine_server(lambda body: completion("x")) as server,
        EngineClient(Engine(server.url, parallel=1), lens.encoder) as client,
    ):
        with pytest.raises(KeyboardInterrupt):
            client.draw(asks_of(lens.encoder, PROBLEM, 50, 5), PLAIN, on_step=stop)
        assert len(server.asked) < 50


def test_a_line_that_was_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    kept = KeptSamples(path, "tiny")
    kept.add("a", ("one", True, (1, 2)))
    kept.add("b", ("two", False, None))
    path.write_text(path.read_text()[:-4])
    again = KeptSamples(path, "tiny")
    assert again.known == {"a": ("one", True, (1, 2))}
    again.add("c", ("three", True, None))
    assert KeptSamples(path, "tiny").known == {"a": ("one", True, (1, 2)), "c": ("three", True, None)}
    with pytest.raises(
        StoreError, match="samples of the engine's model 'tiny', and this one has 'other'; name another"
    ):
        KeptSamples(path, "other")


# -------------------------------------------------------------------------------------- what is refused at once


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://a:99999", "http://me:pw@host", "http://x?y"]
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(InputError, match="http://HOST:PORT is expected"):
        Engine(url)


def test_numbers_out_of_bounds() -> None:
    with pytest.raises(InputError, match="parallel is 0; choose 1 or more"):
        Engine("http://x", parallel=0)
    assert "secret" not in repr(Engine("http://x", key="secret"))


def test_where_no_engine_is_or_not_that_model(lens: Lens) -> None:
    with engine_server(lambda body: completion("x"), "one", "two") as server:
        with pytest.raises(EngineError, match=r"has 2 models; name one of its own with --engine-model: one, two"):
            EngineClient(Engine(server.url), lens.encoder)
        assert EngineClient(Engine(server.url, "two"), lens.encoder).requests.model == "two"
    with pytest.raises(EngineError, match=r"No engine answers at http://127\.0\.0\.1:\d+/v1/models"):
        EngineClient(Engine(server.url), lens.encoder)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_engine_that_refuses_all_says_so_once(status: int, lens: Lens) -> None:
    with (
        engine_server(lambda body: (status, {"error": {"message": "no"}})) as server,
        pytest.raises(EngineError, match=rf"refuses \(status {status}: no\); set IRL_LENS_ENGINE_KEY"),
    ):
        drawn_from(server.url, lens.encoder, 3)


def test_a_problem_that_is_too_long_or_no_sample_at_all(lens: Lens) -> None:
    with engine_server(lambda body: completion(" ")) as server:
        with pytest.raises(InputError, match=r"The problem has \d+ tokens; at most 9 are read"):
            samples_of(Engine(server.url), lens.encoder, PROBLEM, 2, 0, context=10)
        with pytest.raises(EngineError, match=r"None of 2 samples came from the engine at .*: blank"):
            samples_of(Engine(server.url), lens.encoder, PROBLEM, 2, 0, context=160)


# ------------------------------------------------------------------------------------------------ the commands


def test_inspect_samples_from_an_engine(monkeypatch: pytest.MonkeyPatch, lens: Lens, capsys: Any) -> None:
    monkeypatch.setattr("train.cli.inspect.load_lens", lambda checkpoint, device: lens)
    texts = {ask.seed: text for ask, text in zip(asks_of(lens.encoder, PROBLEM, 2, 7), (SOLUTION, ""), strict=True)}
    with engine_server(lambda body: completion(texts[body["seed"]])) as server:
        inspect(PROBLEM, samples=2, seed=7, as_json=True, engine=server.url)
    printed = capsys.readouterr()
    assert [one["text"] for one in json.loads(printed.out)["traces"]] == [SOLUTION]
    assert "1 of 2 samples did not come: blank" in printed.err
    with pytest.raises(InputError, match="--engine: nothing is sampled"):
        inspect(PROBLEM, solution=SOLUTION, engine=server.url)
    with pytest.raises(InputError, match="--engine-model 'x': there is no engine"):
        inspect(PROBLEM, samples=1, engine_model="x")
