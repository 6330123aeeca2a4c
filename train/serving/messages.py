"""What is asked and answered over HTTP: the fields of requests, checked, and the shapes of answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from irl_core.report.inspection_json import InspectedTrace
from irl_core.scorer import MAX_PROBLEM_CHARACTERS, MAX_SOLUTION_CHARACTERS

MOST_TRACES = 64  # of one request
MOST_TOKENS = 2**17  # of one sequence, checked against the model's own limit later
Problem = Annotated[str, Field(max_length=MAX_PROBLEM_CHARACTERS)]
Solution = Annotated[str, Field(max_length=MAX_SOLUTION_CHARACTERS)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=2, max_length=MOST_TOKENS)]


class Strict(BaseModel):
    """Fields that are not known are refused, and none is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ToScore(Strict):
    """A problem with a solution; ``finished``: whether the solution ended, and was not cut off."""

    problem: Problem
    solution: Solution
    id: Annotated[str, Field(max_length=200)] = ""
    reference_answer: Annotated[str, Field(max_length=1000)] | None = None
    finished: bool = True


class ScoreRequest(Strict):
    """``POST /score``. ``gamma``: discount of the discounted view."""

    traces: Annotated[list[ToScore], Field(min_length=1, max_length=MOST_TRACES)]
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.9


class ChatMessage(BaseModel):
    """A message of a conversation, with its text."""

    role: Literal["system", "user", "assistant"]
    content: Solution


class PoolingRequest(BaseModel):
    """``POST /pooling``: the fields of vLLM's that mean something here. Others are left alone, as vLLM does, but for
    those in ``REFUSED``, which would change the answer."""

    model_config = ConfigDict(extra="allow")

    input: Solution | list[Solution] | TokenIds | list[TokenIds] | None = None
    messages: list[ChatMessage] | None = None
    task: str | None = None
    add_special_tokens: bool = True
    use_activation: bool | None = None
    encoding_format: str = "float"


REFUSED = ("truncate_prompt_tokens", "dimensions", "chat_template", "softmax", "activation", "normalize")


class ScoreAnswer(TypedDict):
    """The answer of ``/score``: a trace as ``irl-lens inspect --json`` describes it, for each that was asked for."""

    checkpoint: str
    default_trace_score: str
    traces: list[AnsweredTrace]


class AnsweredTrace(InspectedTrace):
    """A trace's findings with the id that it was asked with."""

    id: str


class PooledData(TypedDict):
    """A row a token, each with the one label's value."""

    index: int
    object: Literal["pooling"]
    data: list[list[float]]


class Usage(TypedDict):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class PoolingAnswer(TypedDict):
    """The answer of ``/pooling``, as vLLM's."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[PooledData]
    usage: Usage


class Fault(TypedDict):
    """What went wrong, as vLLM's and OpenAI's servers say it."""

    message: str
    type: str
    param: str | None
    code: int


def fault(message: str, code: int, param: str | None = None) -> dict[str, Any]:
    """The body of an answer that says what went wrong."""
    kinds = {400: "BadRequestError", 401: "Unauthorized", 404: "NotFoundError", 413: "TooLarge", 503: "Overloaded"}
    error: Fault = {"message": message, "type": kinds.get(code, "Error"), "param": param, "code": code}
    return {"error": error}
