"""The HTTP interface of a loaded checkpoint: ``/score``, ``/pooling``, ``/health``, ``/metrics``.

Whatever is refused is refused by name, with the limit and the fix; no answer holds a traceback, and no log a text.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from irl_core.errors import InputError, UserError
from irl_core.report.inspection_json import inspected
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from irl_core.types import Trace
from train.serving.guard import Guard, Tokens
from train.serving.messages import (
    REFUSED,
    AnsweredTrace,
    PoolingAnswer,
    PoolingRequest,
    ScoreAnswer,
    ScoreRequest,
    ToScore,
    fault,
)
from train.serving.metrics import Metrics
from train.serving.pooling import rows_of_messages, sequences_of, usage_of
from train.serving.queue import Job, QueueFull, Scored, ScoringQueue

PATHS = ("/score", "/pooling", "/health", "/metrics")


def build_app(lens: Lens, queue: ScoringQueue, metrics: Metrics, tokens: Tokens) -> Guard:
    """The application (ASGI) that answers for a loaded checkpoint."""
    app = FastAPI(title="irl-lens", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/score")
    async def score(asked: ScoreRequest, request: Request) -> Response:
        found = await answer_of(queue, Job(traces=[trace_of(one) for one in asked.traces]), request)
        return await as_json(score_answer, lens, asked, found)

    @app.post("/pooling")
    async def pooling(asked: PoolingRequest, request: Request) -> Response:
        check_pooling(asked)
        if asked.messages is not None:
            found = await answer_of(queue, Job(traces=[trace_of_messages(lens, asked)]), request)
            rows = [rows_of_messages(found[0])]
        else:
            sequences = await asyncio.to_thread(sequences_of, lens, asked)
            rows = await answer_of(queue, Job(sequences=sequences), request)
        return await as_json(pooling_answer, lens, asked, rows)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "checkpoint": lens.name, "waiting": queue.waiting}

    @app.get("/metrics")
    async def measured() -> Response:
        return PlainTextResponse(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    app.add_exception_handler(UserError, user_fault)
    app.add_exception_handler(RequestValidationError, field_fault)
    app.add_exception_handler(HTTPException, http_fault)
    app.add_exception_handler(Exception, own_fault)
    return Guard(app, PATHS, tokens, metrics)


async def answer_of(queue: ScoringQueue, job: Job, request: Request) -> Any:
    """The answer of a job. Raises QueueFull, and the UserError that it met."""
    request.state.traces = job.size
    found = await asyncio.wrap_future(queue.submit(job))
    request.state.tokens = job.tokens
    return found


async def as_json(make: Any, *arguments: Any) -> Response:
    """What ``make`` makes, as JSON, null for a number that is not finite; in a thread, since it takes a millisecond a
    trace. pydantic's writer takes a fifth of the standard library's time."""

    def body() -> bytes:
        return to_json(make(*arguments), inf_nan_mode="null")

    return Response(await asyncio.to_thread(body), media_type="application/json")


# ------------------------------------------------------------------------------------------------------- /score


def trace_of(asked: ToScore) -> Trace:
    """A trace as it was asked for."""
    return make_trace(
        asked.problem, asked.solution, trace_id=asked.id, reference_answer=asked.reference_answer,
        finished=asked.finished,
    )  # fmt: skip


def score_answer(lens: Lens, asked: ScoreRequest, found: Sequence[Scored]) -> ScoreAnswer:
    """The answer of ``/score``."""
    kind = lens.default_trace_score
    traces: list[AnsweredTrace] = [
        {"id": one.id, **inspected(what.scored, what.where, what.known, asked.gamma, kind)}  # type: ignore[typeddict-item]
        for one, what in zip(asked.traces, found, strict=True)
    ]
    return {"checkpoint": lens.name, "default_trace_score": kind, "traces": traces}


# ----------------------------------------------------------------------------------------------------- /pooling


def check_pooling(asked: PoolingRequest) -> None:
    """Raise InputError for what ``/pooling`` does not do."""
    if asked.task not in (None, "token_classify"):
        raise InputError(f"task: {asked.task[:40]!r} asked for; this server does token_classify alone.")
    if asked.encoding_format != "float":
        raise InputError(f"encoding_format: {asked.encoding_format[:40]!r} asked for; this server answers with float.")
    given = [name for name in REFUSED if (asked.model_extra or {}).get(name) is not None]
    if given:
        raise InputError(f"{given[0]}: is not done here; leave it out.")
    if (asked.input is None) == (asked.messages is None):
        raise InputError("input: give input (a text, tokens, or a list of either) or messages, one of the two.")


def trace_of_messages(lens: Lens, asked: PoolingRequest) -> Trace:
    """The trace of a conversation. Raises InputError unless it is a problem with its solution."""
    messages = asked.messages or []
    if [one.role for one in messages] != ["user", "assistant"]:
        raise InputError(
            f"messages: {', '.join(one.role for one in messages[:6]) or 'none'} given; a user's message with the "
            "problem and an assistant's with the solution are read."
        )
    problem, instruction = messages[0].content, lens.encoder.instruction
    if instruction:  # encoding adds it
        problem = problem.removeprefix(instruction).lstrip()
    return make_trace(problem, messages[1].content)


def pooling_answer(lens: Lens, asked: PoolingRequest, rows: Sequence[Sequence[float]]) -> PoolingAnswer:
    """The answer of ``/pooling``: the logits, or their sigmoids unless ``use_activation`` is false, as vLLM does."""

    def value(logit: float) -> list[float]:
        if asked.use_activation is False:
            return [logit]
        return [1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))]

    return {
        "id": f"pool-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": lens.name,
        "data": [
            {"index": number, "object": "pooling", "data": [value(logit) for logit in row]}
            for number, row in enumerate(rows)
        ],
        "usage": usage_of(rows),
    }


# ------------------------------------------------------------------------------------------------------- faults


async def user_fault(request: Request, error: Exception) -> Response:
    """What a client can mend; a full queue says when to come again."""
    if isinstance(error, QueueFull):
        return JSONResponse(fault(str(error), 503), 503, headers={"Retry-After": str(error.retry_after)})
    return JSONResponse(fault(printable(str(error)), 400), 400)


async def field_fault(request: Request, error: Exception) -> Response:
    """The first field that cannot be read, by name; its value is not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse(fault(f"The body is no JSON: {printable(str(first['ctx']['error']))[:300]}", 400), 400)
    place = ".".join(printable(str(part))[:60] for part in first["loc"] if part != "body") or "the body"
    more = f" ({len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    message = f"{place}: {printable(first['msg'])[:300]}{more}"
    return JSONResponse(fault(message, 400, place), 400)


async def own_fault(request: Request, error: Exception) -> Response:
    """A fault of ours, which the log has."""
    return JSONResponse(fault(f"A fault of the server; its log has it under {request.state.request}", 500), 500)


async def http_fault(request: Request, error: Exception) -> Response:
    """A path or a method that there is not, a body that is no JSON."""
    assert isinstance(error, HTTPException)
    known = "; there are POST /score, POST /pooling, GET /health and GET /metrics"
    message = f"{error.detail}{known if error.status_code in (404, 405) else ''}"
    return JSONResponse(fault(message, error.status_code), error.status_code, headers=error.headers)


def printable(text: str) -> str:
    """A text that JSON can hold: halves of surrogate pairs are written out."""
    return text.encode("utf-8", "backslashreplace").decode()
