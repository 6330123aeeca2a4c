"""Formats of chats and of logged samples: ``messages``, trl's completions, lm-evaluation-harness, Inspect AI."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from irl_core.data.fields import FieldError, Row, first_value, identifier, limited, reference_answer
from irl_core.data.jsonl import kind_of
from irl_core.text.segmentation import make_trace
from irl_core.types import Trace

MOST_SAMPLES = 1_000  # of one row
REFERENCES = ("answer", "reference_answer", "ground_truth", "ground_truth_answer", "target", "final_answer")
QUESTIONS = ("question", "problem", "query", "input", "Question", "Problem")
VERDICTS = ("exact_match", "math_verify", "acc")  # lm-evaluation-harness's metrics that judge the final answer
_REPLY = re.compile(r"(?:<\|im_end\|>)?\n(?:<\|im_start\|>)?assistant\n(?:<think>\n(?:\n</think>\n\n)?)?\Z")


# --------------------------------------------------------------------------------------------------- messages


def read_messages(row: Row) -> Trace:
    """A chat: the one question of a user, and the assistant's last message as its solution."""
    turns = _turns("messages", row["messages"])
    if turns[-1][0] != "assistant":
        raise FieldError("messages", f"the last message is of {turns[-1][0]!r}; the assistant's is expected")
    return make_trace(
        _question("messages", turns[:-1]),
        turns[-1][1],
        reference_answer=reference_answer(row, *REFERENCES),
        trace_id=identifier(row, "id", "trace_id"),
        problem_id=identifier(row, "problem_id"),
    )


def read_completions(row: Row) -> Trace:
    """A prompt with its completion, texts or chats: trl's logged completions, and its rows of prompt and completion.

    A prompt that was rendered in ChatML, its special tokens kept or left out, is the user's message in it.
    """
    values = {name: row[name] for name in row if name.endswith(("reward", "reward_func", "_reward_func"))}
    extra = {name: f"{value:.6g}" for name, value in values.items() if type(value) in (int, float)}
    if type(row.get("step")) is int:
        extra["training_step"] = str(row["step"])
    return make_trace(
        only_question(row, "prompt"),
        _last_words(row, "completion"),
        reference_answer=reference_answer(row, *REFERENCES, "solution"),
        trace_id=identifier(row, "id", "trace_id"),
        problem_id=identifier(row, "problem_id"),
        extra=extra,
    )


def only_question(row: Row, name: str) -> str:
    """The question in a prompt, text or chat. Raises FieldError where there is none, or more than one."""
    _, value = first_value(row, name)
    if not isinstance(value, str):
        return _question(name, _turns(name, value))
    return _told(name, _unrendered(value))


def _unrendered(text: str) -> str:
    """The user's message of a prompt rendered in ChatML, with special tokens or without; other texts as they are."""
    end = _REPLY.search(text[-120:])
    body = text[: end.start() - min(120, len(text))] if end else ""
    body = body.removeprefix("<|im_start|>")
    if body.startswith("system\n"):
        mark = "<|im_start|>user\n" if "<|im_start|>user\n" in body else "\nuser\n"
        return body.partition(mark)[2].strip() or text
    return body.removeprefix("user\n").strip() if body.startswith("user\n") else text


def _last_words(row: Row, name: str) -> str:
    _, value = first_value(row, name)
    return _told(name, value) if isinstance(value, str) else _turns(name, value)[-1][1]


def _question(name: str, turns: Sequence[tuple[str, str]]) -> str:
    """The user's message, where there is one alone: what came before a second one belongs to it, and is no problem."""
    asked = [text for role, text in turns if role == "user"]
    if len(asked) != 1:
        raise FieldError(name, f"{len(asked)} messages of the user; a chat of one question and its solution is read")
    if others := {role for role, _ in turns} - {"user", "system", "developer"}:
        raise FieldError(name, f"a message of {sorted(others)[0]!r} before the solution; a question alone is expected")
    return asked[0]


def _turns(name: str, value: Any) -> list[tuple[str, str]]:
    """Role and text of each message of a chat."""
    if isinstance(value, Mapping) and isinstance(value.get("role"), list) and isinstance(value.get("content"), list):
        value = [{"role": role, "content": text} for role, text in zip(value["role"], value["content"], strict=False)]
    if not isinstance(value, list) or not value:
        raise FieldError(name, f"{kind_of(value)} where a list of messages is expected")
    turns = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise FieldError(name, f"message {number} is no object with role and content")
        turns.append((message["role"][:40], _told(f"{name}[{number}]", message_text(name, number, message))))
    return turns


def message_text(name: str, number: int, message: Mapping[str, Any]) -> str:
    """The text of a message, its reasoning in think tags before it. Raises FieldError for what is no text."""
    content = message.get("content")
    parts = [content] if isinstance(content, str) or content is None else content
    if not isinstance(parts, list):
        raise FieldError(name, f"message {number} has {kind_of(content)} as its content")
    thought, said = [str(message.get("reasoning_content") or message.get("reasoning") or "")], []
    for part in parts:
        if part is None or isinstance(part, str):
            said.append(part or "")
        elif isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
            said.append(part["text"])
        elif isinstance(part, Mapping) and part.get("type") in ("reasoning", "thinking"):
            thought.append(str(part.get("reasoning") or part.get("thinking") or ""))
        else:
            kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
            raise FieldError(name, f"message {number} holds {str(kind)[:40]!r}, which is no text")
    reasoning = "\n".join(filter(str.strip, thought)).strip()
    return (f"<think>\n{reasoning}\n</think>\n" if reasoning else "") + "\n".join(said)


def _told(name: str, text: Any) -> str:
    if not isinstance(text, str):
        raise FieldError(name, f"{kind_of(text)} where text is expected")
    if not text.strip():
        raise FieldError(name, "empty")
    return limited(name, text)


# ------------------------------------------------------------------------------------- lm-evaluation-harness


def read_lm_eval(row: Row) -> list[Trace]:
    """A logged sample of lm-evaluation-harness: each response to a document, judged by its target and its metric."""
    document = row["doc"] if isinstance(row["doc"], Mapping) else {}
    question = next((document[name] for name in QUESTIONS if isinstance(document.get(name), str)), None)
    problem = _told("doc", _prompt(row) if question is None else question)
    responses = _responses(row["resps"])
    reference = reference_answer(row, "target")
    names = [name for name in VERDICTS if row.get(name) in (0, 1) and len(responses) == 1]
    traces = []
    for number, response in enumerate(responses):
        trace = make_trace(
            problem,
            _told("resps", response),
            reference_answer=reference,
            trace_id=f"{identifier(row, 'doc_id')}/{number}" if row.get("doc_id") is not None else "",
        )
        verdict = trace.correct if trace.correct is not None or not names else bool(row[names[0]])
        traces.append(replace(trace, correct=verdict))
    return traces


def one_filter(reader: Callable[[Row], list[Trace]]) -> Callable[[Row], list[Trace]]:
    """A reader that takes each response once: the harness writes its samples again for each of a task's filters."""
    first: list[str] = []

    def read(row: Row) -> list[Trace]:
        name = str(row.get("filter", ""))[:80]
        first.append(name) if not first else None
        if name != first[0]:
            raise FieldError("filter", f"the samples of filter {first[0]!r} again, under {name!r}")
        return reader(row)

    return read


def _responses(value: Any) -> list[Any]:
    """The texts in ``resps``: a list for each request of a list of repeats."""
    texts = [text for entry in value for text in (entry if isinstance(entry, list) else [entry])] if value else []
    if not 1 <= len(texts) <= MOST_SAMPLES:
        raise FieldError("resps", f"{len(texts):,} responses; 1 to {MOST_SAMPLES:,} are expected")
    if any(isinstance(text, list) for text in texts):
        raise FieldError("resps", "log-likelihoods of choices; completions that were generated are expected")
    return texts


def _prompt(row: Row) -> Any:
    """The prompt of a sample's first request, or the last user message where it is a rendered chat."""
    arguments = row.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = arguments.get("gen_args_0")
        value = arguments.get("arg_0") if isinstance(arguments, Mapping) else None
    else:
        value = arguments[0][0] if isinstance(arguments, list) and arguments and arguments[0] else None
    if isinstance(value, str) and value.startswith('[{"role"'):
        return _question("arguments", _turns("arguments", json.loads(value)))
    return value


# ------------------------------------------------------------------------------------------------- Inspect AI


def read_inspect(row: Row) -> list[Trace]:
    """A sample of an Inspect AI log: each choice of the model's output, judged by the target and by its scorer."""
    if row.get("error"):
        raise FieldError("error", "the sample ended in an error")
    value = row["input"]
    problem = _told("input", value) if isinstance(value, str) else _question("input", _turns("input", value))
    output = row["output"] if isinstance(row["output"], Mapping) else {}
    choices = [one for one in output.get("choices") or [] if isinstance(one, Mapping)]
    if not 1 <= len(choices) <= MOST_SAMPLES:
        raise FieldError("output", f"{len(choices):,} choices; 1 to {MOST_SAMPLES:,} are expected")
    targets = row["target"] if isinstance(row["target"], list) else [row["target"]]
    reference = reference_answer({"target": targets[0]}, "target") if len(targets) == 1 else None
    verdict = _verdict(row.get("scores")) if len(choices) == 1 else None
    traces = []
    for number, choice in enumerate(choices):
        message = choice.get("message")
        text = message_text("output", number + 1, message if isinstance(message, Mapping) else {})
        trace = make_trace(
            problem,
            _told("output", text),
            reference_answer=reference,
            trace_id="/".join([identifier(row, "id"), identifier(row, "epoch"), str(number)]),
            finished=choice.get("stop_reason") not in ("max_tokens", "model_length"),
        )
        traces.append(replace(trace, correct=verdict if trace.correct is None else trace.correct))
    return traces


def _verdict(scores: Any) -> bool | None:
    """What the one scorer of a sample says: C or 1 for right, I or 0 for wrong; None where it says anything else."""
    if not isinstance(scores, Mapping) or len(scores) != 1:
        return None
    (score,) = scores.values()
    value = score.get("value") if isinstance(score, Mapping) else None
    return {"C": True, "1": True, "1.0": True, "I": False, "0": False, "0.0": False}.get(str(value))
