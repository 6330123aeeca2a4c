"""The reward over HTTP: answers are those of `score`, and whatever is refused is refused by name."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_core.errors import InputError
from irl_core.models.batching import collate
from irl_core.policy.familiarity import Familiarity
from irl_core.report.inspection_json import inspected
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace
from tests.serving import served
from tests.tiny import EXPERTS, PROBLEM, SOLUTION, tiny_lens
from train.serving import guard, messages
from train.serving.guard import Tokens

WRONG = "There are 3 * 4 = <<3*4=12>>11 pens.\n#### 9"
TOKEN = "0123456789abcdef-secret"
AS_JSON = {"content-type": "application/json"}


@pytest.fixture
def client(lens: Lens) -> Iterator[Any]:
    with served(lens) as client:
        yield client


def to_score(*solutions: str, **more: Any) -> dict[str, Any]:
    return {"traces": [{"problem": PROBLEM, "solution": solution, **more} for solution in solutions]}


def refusal(answer: Any) -> str:
    """What an answer that is none says; its status must be the one that it names."""
    body = answer.json()
    assert set(body) == {"error"} and body["error"]["code"] == answer.status_code
    return str(body["error"]["message"])


# ------------------------------------------------------------------------------------------------------- /score


def expected_of(lens: Lens, *texts: tuple[str, str]) -> list[dict[str, Any]]:
    """What `irl-lens inspect --json` says of each, computed one by one."""
    found: list[dict[str, Any]] = []
    for problem, solution in texts:
        (one,) = lens.score([make_trace(problem, solution)])
        known: Familiarity = lens.familiarity(problem, solution)
        found.append(json.loads(json.dumps(inspected(one, lens.locate(one), known, 0.9, lens.default_trace_score))))
    return found


def same(found: Any, expected: Any) -> bool:
    """Whether two results are equal; numbers up to the rounding of another batch."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return isinstance(found, float) and math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-5)
    return bool(found == expected)


def test_an_answer_is_what_score_finds(lens: Lens, client: Any) -> None:
    answer = client.post("/score", json=to_score(SOLUTION, WRONG)).json()
    assert (answer["checkpoint"], answer["default_trace_score"]) == ("tiny", "minimum")
    expected = expected_of(lens, (PROBLEM, SOLUTION), (PROBLEM, WRONG))
    assert [one.pop("id") for one in answer["traces"]] == ["", ""]
    assert same(answer["traces"], expected) and not same(answer["traces"], expected[::-1])
    assert answer["traces"][1]["arithmetic"][0]["text"] and len(answer["traces"][0]["tokens"]) > 10


def test_many_requests_at_once_are_batched_and_each_has_its_own_answer(lens: Lens, client: Any) -> None:
    asked = [(problem, solution) for problem, solution, _ in EXPERTS] * 3
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        problem, solution = asked[number]
        body = {"traces": [{"problem": problem, "solution": solution, "id": str(number)}]}
        answers[number] = client.post("/score", json=body).json()["traces"][0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
    with lens.lock:  # the model is busy: they gather
        for thread in threads:
            thread.start()
        while client.queue.waiting < len(asked) - 1:
            threading.Event().wait(0.005)
    for thread in threads:
        thread.join()
    assert [answers[number].pop("id") for number in range(len(asked))] == list(map(str, range(len(asked))))
    assert same([answers[number] for number in range(len(asked))], expected_of(lens, *asked))
    sizes = {
        line.split()[0]: float(line.split()[1]) for line in client.get("/metrics").text.splitlines() if line[0] != "#"
    }
    assert sizes["irl_lens_traces_total"] == 12 and sizes["irl_lens_batch_traces_count"] < 12


def batches_of(client: Any, lens: Lens, requests: int) -> list[Any]:
    """The jobs of each batch that so many requests become, which gather before a model that is busy."""
    seen: list[Any] = []
    whole = client.queue.scored

    def watched(jobs: Any) -> Any:
        seen.append(jobs)
        return whole(jobs)

    client.queue.scored = watched
    threads = [
        threading.Thread(target=client.post, args=("/score",), kwargs={"json": to_score(SOLUTION)})
        for _ in range(requests)
    ]
    with lens.lock:  # no trace is read
        for thread in threads:
            thread.start()
        while client.queue.waiting < requests:
            threading.Event().wait(0.005)
    for thread in threads:
        thread.join()
    return seen


def test_a_batch_stays_within_the_token_budget(lens: Lens) -> None:
    length = len(lens.encode(make_trace(PROBLEM, SOLUTION)).completion_ids) + len(lens.encoder.encode_prompt(PROBLEM))
    with served(lens, batch_tokens=2 * length + 1) as client:
        tokens = [sum(job.tokens for job in jobs) for jobs in batches_of(client, lens, 9)]
    assert sum(tokens) == 9 * length and max(tokens) == 2 * length


def test_half_of_what_is_about_is_taken_at_once(lens: Lens) -> None:
    with served(lens) as client:
        sizes = [len(jobs) for jobs in batches_of(client, lens, 9)]
    assert sum(sizes) == 9 and max(sizes) == 4  # half of nine, or of the one that came first and the eight behind it


def test_a_cut_off_solution_has_no_end_token(client: Any) -> None:
    whole, cut = (
        client.post("/score", json=to_score(SOLUTION, finished=finished)).json()["traces"][0]["tokens"]
        for finished in (True, False)
    )
    assert len(whole) == len(cut) + 1


def test_the_right_answer_may_be_given(client: Any) -> None:
    answer = client.post("/score", json=to_score(SOLUTION, WRONG, reference_answer="10", id="a")).json()
    assert [(one["id"], one["correct"]) for one in answer["traces"]] == [("a", True), ("a", False)]


# ----------------------------------------------------------------------------------------------------- /pooling


@pytest.fixture
def linear() -> Iterator[Any]:
    """A client of a lens whose head is linear, and random."""
    from irl_core.reward.discriminator import Discriminator

    lens = tiny_lens()
    lens.discriminator = Discriminator(lens.discriminator.backbone, "linear").eval()
    torch.manual_seed(3)
    torch.nn.init.normal_(lens.discriminator.head.linear.weight)
    with served(lens) as client:
        client.lens = lens
        yield client


def logits_of(lens: Lens, ids: list[int]) -> list[float]:
    """The head at every token of a sequence."""
    one = EncodedTrace(make_trace("", ""), tuple(ids[:1]), tuple(ids[1:]), ((0, 0),) * (len(ids) - 1))
    with torch.no_grad():
        output = lens.discriminator(collate([one], 0))
    return [float(output.prompt_logit[0]), *output.logits[0].tolist()]


def test_pooling_gives_a_row_a_token_as_vllm_does(linear: Any) -> None:
    ids = [5, 6, 7, 8, 9, 10]
    for asked, expected in (
        ({"input": ids}, [ids]),
        ({"input": [ids, ids[:3]]}, [ids, ids[:3]]),
        ({"input": PROBLEM}, [linear.lens.encoder.tokenizer(PROBLEM).input_ids]),
    ):
        answer = linear.post(
            "/pooling", json={"model": "any", "task": "token_classify", "use_activation": False, **asked}
        )
        body = answer.json()
        assert (body["object"], body["model"], body["usage"]["prompt_tokens"]) == (
            "list",
            "tiny",
            sum(map(len, expected)),
        )
        assert [(one["index"], one["object"]) for one in body["data"]] == [(n, "pooling") for n in range(len(expected))]
        for one, sequence in zip(body["data"], expected, strict=True):
            assert one["data"] == [pytest.approx([value], abs=1e-5) for value in logits_of(linear.lens, sequence)]


def test_pooling_gives_probabilities_unless_logits_are_asked_for(linear: Any) -> None:
    asked = {"input": [[5, 6, 7]]}
    logits = linear.post("/pooling", json=asked | {"use_activation": False}).json()["data"][0]["data"]
    chances = linear.post("/pooling", json=asked).json()["data"][0]["data"]
    assert chances == [[pytest.approx(1 / (1 + math.exp(-logit)))] for (logit,) in logits]


def test_a_conversation_has_the_rewards_of_score_at_its_solution(lens: Lens, client: Any) -> None:
    chat = [{"role": "user", "content": PROBLEM}, {"role": "assistant", "content": SOLUTION}]
    body = client.post("/pooling", json={"messages": chat, "use_activation": False}).json()
    (one,) = lens.score([make_trace(PROBLEM, SOLUTION)])
    rows = [value for (value,) in body["data"][0]["data"]]
    prompt = len(one.encoded.prompt_ids)
    assert rows[:prompt] == [pytest.approx(one.prompt_reward, abs=1e-5)] * prompt
    assert rows[prompt:] == pytest.approx(one.raw.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"input": PROBLEM, "task": "embed"}, "task: 'embed' asked for; this server does token_classify alone"),
        ({"input": PROBLEM, "encoding_format": "base64"}, "encoding_format: 'base64'"),
        ({"input": PROBLEM, "truncate_prompt_tokens": 5}, "truncate_prompt_tokens: is not done here"),
        ({}, "give input .* or messages"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages: user given; a user's message"),
        ({"input": [[5] * 300]}, "input.0: 300 tokens; 2 to 160 are read"),
        ({"input": [[5, 6], [5, 5000]]}, "input.1: token 5,000; the model has 300 tokens"),
        ({"input": [[5]]}, "input"),
        ({"input": ["a \ud800"]}, "input"),
        ({"input": ["a b"] * 65}, "65 sequences; 1 to 64"),
    ],
)
def test_pooling_refuses_by_name(asked: dict[str, Any], said: str, linear: Any) -> None:
    answer = linear.post("/pooling", content=json.dumps(asked), headers=AS_JSON)
    assert answer.status_code == 400
    assert re.search(said, refusal(answer))


def test_a_head_that_begins_at_the_solution_takes_conversations_alone(client: Any) -> None:
    assert "has the head 'anchored'" in refusal(client.post("/pooling", json={"input": PROBLEM}))


def test_a_model_that_judges_steps_takes_conversations_alone(linear: Any) -> None:
    linear.lens.discriminator.head = torch.nn.Linear(16, 2)
    assert "has the head 'of a process-reward model'" in refusal(linear.post("/pooling", json={"input": PROBLEM}))


# -------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "^The body is no JSON: "),
        ("[" * 100_000, "error parsing|JSON|valid dictionary"),
        ("[]", "the body: "),
        ({"traces": []}, "traces: List should have at least 1 item"),
        (to_score(*["x"] * 65), "traces: List should have at most 64 items"),
        ({"traces": [{"problem": PROBLEM}]}, "traces.0.solution: Field required"),
        (to_score(SOLUTION, mood="good"), "traces.0.mood: Extra inputs are not permitted"),
        (to_score(SOLUTION) | {"gamma": 2}, "gamma: Input should be less than or equal to 1"),
        (to_score("x" * 20_001), "traces.0.solution: String should have at most 20000"),
        (to_score(SOLUTION, " "), "traces.1: The solution is empty"),
        (to_score("7 " * 300), r"traces.0: .* checkpoint tiny reads at most 160"),
        (to_score("12 \ud800"), "traces.0"),
        (to_score(SOLUTION, id="\ud800"), "traces.0.id"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(body: Any, said: str, client: Any) -> None:
    answer = client.post("/score", content=body if isinstance(body, str) else json.dumps(body), headers=AS_JSON)
    assert answer.status_code == 400 and re.search(said, refusal(answer)), answer.text
    assert client.post("/score", json=to_score(SOLUTION)).status_code == 200


def test_a_path_or_method_that_there_is_not_names_those_that_there_are(client: Any) -> None:
    assert "there are POST /score" in refusal(client.get("/nothing"))
    assert client.get("/score").status_code == 405 and "Method Not Allowed" in refusal(client.get("/score"))
    assert client.get("/docs").status_code == 404 == client.get("/openapi.json").status_code


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(client: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(guard, "MOST_BYTES", 1000)
    body = json.dumps(to_score("1 " * 600)).encode()
    assert "over 1,000 bytes" in refusal(client.post("/score", content=body, headers=AS_JSON))
    streamed = client.post("/score", content=iter([body[:400], body[400:1100], body[1100:]]), headers=AS_JSON)
    assert streamed.status_code == 413 and "over 1,000 bytes" in refusal(streamed)


def test_a_full_queue_says_when_to_come_again(lens: Lens) -> None:
    with served(lens, limit=2) as client:
        assert "3 solutions asked for; the queue holds 2" in refusal(
            client.post("/score", json=to_score(*[SOLUTION] * 3))
        )
        client.queue.waiting = 2
        answer = client.post("/score", json=to_score(SOLUTION))
        assert answer.status_code == 503 and 1 <= int(answer.headers["retry-after"]) <= 60
        assert "2 solutions wait before the model and the limit is 2" in refusal(answer)
        client.queue.waiting = 0
        assert client.post("/score", json=to_score(SOLUTION)).status_code == 200


def test_one_that_fails_does_not_fail_those_beside_it(lens: Lens) -> None:
    with served(lens) as client:
        whole = client.queue.scored

        def fails_on_wrong(jobs: Any) -> Any:
            if any(trace.text == WRONG for job in jobs for trace in job.traces):
                raise InputError("Out of memory with batches of 4,096 tokens")
            return whole(jobs)

        client.queue.scored = fails_on_wrong
        statuses: dict[str, int] = {}

        def ask(text: str) -> None:
            statuses[text] = client.post("/score", json=to_score(text)).status_code

        threads = [threading.Thread(target=ask, args=(text,)) for text in (SOLUTION, WRONG, "12 pens")]
        with lens.lock:
            for thread in threads:
                thread.start()
            while client.queue.waiting < 2:
                threading.Event().wait(0.005)
        for thread in threads:
            thread.join()
        assert statuses == {SOLUTION: 200, WRONG: 400, "12 pens": 200}


def test_a_fault_of_ours_is_in_the_log_and_not_in_the_answer(lens: Lens, caplog: pytest.LogCaptureFixture) -> None:
    with served(lens) as client, caplog.at_level(logging.INFO, "irl_lens.serve"):
        client.queue.scored = lambda jobs: 1 / 0
        answer = client.post("/score", json=to_score(SOLUTION), headers={"x-request-id": "mine-7"})
        assert answer.status_code == 500 and "its log has it under mine-7" in refusal(answer)
        assert "ZeroDivisionError" not in answer.text
        line = json.loads(caplog.records[-1].message)
        assert line["status"] == 500 and "ZeroDivisionError" in line["fault"]
        del client.queue.scored
        assert client.post("/score", json=to_score(SOLUTION)).status_code == 200


# ------------------------------------------------------------------------------------------ who, how many, log


def test_only_who_has_a_token_may_ask(lens: Lens, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"# who may\nada {TOKEN}\n")
    with served(lens, tokens=Tokens.read(tmp_path / "tokens")) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            for path in ("/score", "/pooling", "/metrics", "/nothing"):
                answer = client.post(path, json=to_score(SOLUTION), headers=headers)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").json()["status"] == "ok"
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert client.post("/score", json=to_score(SOLUTION), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "has no token, and nobody could ask"), ("ada short", "line 1: 'NAME TOKEN' is expected"), (TOKEN, "line 1")],
)
def test_a_file_of_tokens_that_lets_nobody_in_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        Tokens.read(tmp_path / "tokens")
    assert TOKEN not in str(error.value)
    with pytest.raises(InputError, match="cannot be read"):
        Tokens.read(tmp_path / "absent")


def test_the_log_has_a_line_a_request_and_no_text_of_it(lens: Lens, caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens({guard.hashed(TOKEN): "ada"})
    with served(lens, tokens=tokens) as client, caplog.at_level(logging.INFO, "irl_lens.serve"):
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = client.post("/score", json=to_score(SOLUTION, WRONG), headers=headers)
        client.post("/score", json=to_score(""), headers=headers | {"x-request-id": "bad\tid"})
        client.get("/" + "x" * 300, headers=headers)
    scored, refused, other = (json.loads(record.message) for record in caplog.records)
    assert scored["request"] == answer.headers["x-request-id"] and len(scored["request"]) == 32
    assert (scored["who"], scored["path"], scored["status"], scored["traces"]) == ("ada", "/score", 200, 2)
    assert scored["tokens"] > 50 and scored["seconds"] > 0
    assert (refused["status"], other["path"], other["status"]) == (400, "other", 404) and "\t" not in refused["request"]
    assert not any(text in caplog.text for text in ("pens", TOKEN, "xxx"))


def test_metrics_count_requests_traces_and_tokens(lens: Lens, client: Any) -> None:
    client.post("/score", json=to_score(SOLUTION, WRONG))
    client.post("/score", json=to_score(""))
    text = client.get("/metrics").text
    assert 'irl_lens_requests_total{path="/score",status="200"} 1.0' in text
    assert 'irl_lens_requests_total{path="/score",status="400"} 1.0' in text
    scored = lens.score([make_trace(PROBLEM, SOLUTION), make_trace(PROBLEM, WRONG)])
    read = sum(len(one.encoded.prompt_ids) + len(one.encoded.completion_ids) for one in scored)
    assert f"irl_lens_tokens_total {read}.0" in text and "irl_lens_waiting_traces 0.0" in text


def test_limits_of_a_request_are_those_of_the_scorer() -> None:
    from irl_core import scorer

    fields = messages.ToScore.model_json_schema()["properties"]
    assert fields["problem"]["maxLength"] == scorer.MAX_PROBLEM_CHARACTERS
    assert fields["solution"]["maxLength"] == scorer.MAX_SOLUTION_CHARACTERS
