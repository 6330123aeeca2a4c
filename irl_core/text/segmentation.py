"""Text to steps: where each step of a written solution starts and ends, and what its final answer is.

Every function is linear in the length of the text. Spans are half-open character offsets into the text as given.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from irl_core.text.answers import answers_agree, parse_number
from irl_core.types import Layout, Source, Span, Step, Trace, Truth

MAX_CLOSING_LENGTH = 240

_LINE = re.compile(r"[^\r\n]+")
_WORD = re.compile(r"\w")
_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE)
_ANNOTATION = re.compile(r"<<[^<>\r\n]{1,200}>>")
_STEP_MARK = re.compile(
    r"(?:^[#*_>\-\t ]{0,12}|(?<=[.!?)>][ ]))(?:step|Step|STEP)[ \t]{1,4}[0-9]{1,4}(?![0-9])"
    r"(?=[ \t]{0,4}[:.)*\-–—\r\n]|$)",
    re.MULTILINE,
)
_LIST_MARK = re.compile(r"^[*_>\t ]{0,12}([0-9]{1,3})[.)](?=[ \t*])", re.MULTILINE)
_PREFIX = re.compile(
    r"[#*_>\-\s]{0,12}(?:[Ss]tep[ \t]{1,4}[0-9]{1,4}[ \t*]{0,4}[:.)][ \t*]{0,4}|[0-9]{1,3}[.)][ \t]+)?"
)

_NUMBER = r"[-−+]?\s?(?:\\?[$€£]\s?)?[-−]?(?:[0-9]|\.[0-9])"
_HASHES = re.compile(rf"####[ \t]*(?P<answer>{_NUMBER}.*)?$")
_LABEL = re.compile(
    r"(?:the[ ]+)?(?:final[ ]+|correct[ ]+)?answer[ ]*(?:\*\*)?[ ]*(?::|=)[ ]*(?:\*\*)?[ ]*(?P<answer>\S.*)$",
    re.IGNORECASE,
)
_SHORT_LABEL = re.compile(rf"A[ ]*:[ ]*(?P<answer>(?:\*\*|\\boxed\{{|\\\()?{_NUMBER}.*)$")
_SENTENCE = re.compile(
    r"(?:(?:so|thus|therefore|hence|and|finally|in[ ]conclusion)[ ]?,?[ ]+)?"
    r"(?:the|our|my)[ ]+(?:final[ ]+|correct[ ]+)?answer"
    r"(?:[ ]+(?:to[ ]the[ ](?:problem|question)))?[ ]+(?:is|equals|would[ ]be|must[ ]be)[ ]*:?[ ]*(?P<answer>\S.*)$",
    re.IGNORECASE,
)
_BOXED_ONLY = re.compile(r"[$\\(\[* ]{0,6}\\boxed\{(?P<answer>[^{}]*(?:\{[^{}]*\}[^{}]*){0,8})\}[$\\)\]*. ]{0,6}$")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]”’*]{0,3}(?=\s)|(?<=[。！？])(?=.)")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|Mrs?|Ms|Dr|Prof|St|No|vs|etc|approx|e\.g|i\.e|lbs?|oz|ft|hrs?|min|Jr|Sr)\.$"
)
_NUMBER_ONLY = re.compile(rf"[*\\(\[]{{0,4}}{_NUMBER}[0-9,./]*\s?%?[*\\)\]$.]{{0,4}}")


def _trim(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


# ---------------------------------------------------------------- closing lines


def _clean(answer: str) -> str:
    """An answer without what surrounds it: markdown, math delimiters, a box, the full stop of its sentence."""
    boxed = _last_boxed(answer)
    if boxed is not None:
        return boxed
    answer = answer.strip().strip("*_`").strip().rstrip(".")
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("$", "$")):
        if len(answer) > len(opening) + len(closing) and answer.startswith(opening) and answer.endswith(closing):
            answer = answer[len(opening) : -len(closing)]
    return answer.strip().rstrip(".").rstrip("*_ ").rstrip(".").strip()


def _last_boxed(text: str) -> str | None:
    r"""The contents of the last ``\boxed{...}`` of ``text`` (braces may nest), or None."""
    at = text.rfind("\\boxed{")
    if at < 0:
        return None
    depth, start = 1, at + len("\\boxed{")
    for position in range(start, min(len(text), start + MAX_CLOSING_LENGTH)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip() or None
    return None


def _closing_answer(line: str) -> str | None:
    """The answer that a closing line states, cleaned ('' = a closing line without one); None = not a closing line."""
    if len(line) > MAX_CLOSING_LENGTH:
        return None
    hashes = line.find("####")
    if hashes >= 0 and _PREFIX.fullmatch(line[:hashes]):
        found = _HASHES.match(line, hashes)
        return _clean(found["answer"] or "") if found and not _is_heading(found["answer"]) else None
    prefix = _PREFIX.match(line)
    body = line[prefix.end() if prefix else 0 :].strip()
    for pattern in (_SHORT_LABEL, _LABEL, _SENTENCE, _BOXED_ONLY):
        found = pattern.match(body)
        if found and _states_answer(found["answer"], pattern in (_LABEL, _BOXED_ONLY)):
            return _clean(found["answer"])
    return None


def _is_heading(answer: str | None) -> bool:
    """Whether what follows '####' is the numbered heading '#### 1. Find the cost' rather than an answer."""
    return bool(answer and re.match(r"[0-9]{1,3}[.)][ \t]+[^\W\d]", answer))


def _states_answer(answer: str, labelled: bool) -> bool:
    """Whether a remainder is an answer and nothing else: no equation in it, and a number unless it is labelled."""
    if _last_boxed(answer) is not None:
        return True
    if "=" in answer or len(_clean(answer)) > 80:
        return False
    return labelled or bool(re.match(rf"[*\\(\[$` ]{{0,6}}{_NUMBER}", answer))


def _cued_answer(line: str) -> str | None:
    """The answer of a line that also reasons: 'The answer is 3 + 4 = 7.' or 'So she pays \\boxed{7}.'"""
    boxed = _last_boxed(line)
    if boxed is not None:
        return boxed
    if len(line) > MAX_CLOSING_LENGTH or "=" not in line:
        return None
    prefix = _PREFIX.match(line)
    found = _SENTENCE.match(line, prefix.end() if prefix else 0)
    last = _clean(_ANNOTATION.sub("", found["answer"]).rpartition("=")[2]) if found else ""
    return last if last and parse_number(last) is not None else None


# ---------------------------------------------------------------- reasoning


def _lines(text: str, start: int, end: int) -> list[Span]:
    """Non-blank lines, trimmed. A line without a letter or digit ('\\[', '---') joins its neighbour."""
    spans: list[Span] = []
    for found in _LINE.finditer(text, start, end):
        low, high = _trim(text, found.start(), found.end())
        if low >= high:
            continue
        bare = not _WORD.search(text, low, high)
        if spans and (bare or not _WORD.search(text, *spans[-1])):
            spans[-1] = (spans[-1][0], high)
        else:
            spans.append((low, high))
    return spans


def _sentences(text: str, start: int, end: int) -> list[Span]:
    """Sentences of one line, trimmed. A point inside 3.5 or $1,000.00 ends none, nor one before a lower-case letter."""
    spans: list[Span] = []
    low = start
    for found in _SENTENCE_END.finditer(text, start, end):
        cut = found.end()
        following = text[cut : cut + 4].lstrip()[:1]
        if following.islower() or _ABBREVIATION.search(text, max(low, cut - 8), cut):
            continue
        if cut - low <= 8 and re.fullmatch(r"\s*[0-9]{1,3}[.)]", text[low:cut]):
            continue
        spans.append(_trim(text, low, cut))
        low = cut
    spans.append(_trim(text, low, end))
    return [span for span in spans if span[0] < span[1]]


def _marks(text: str, start: int, end: int) -> list[int]:
    """Where numbered steps start: every 'Step n', else the lines '1.', '2.', ... when they count up from 1."""
    steps = [found.start() for found in _STEP_MARK.finditer(text, start, end)]
    if steps:
        return steps
    marks: list[int] = []
    for found in _LIST_MARK.finditer(text, start, end):
        if int(found[1]) == len(marks) + 1:
            marks.append(found.start())
    return marks if len(marks) > 1 else []


def _split_hashes(text: str, span: Span) -> list[Span]:
    """A line that ends in '#### 12' as two spans: what is before it, and that."""
    at = text.rfind("####", *span)
    if at <= span[0] or span[1] - at > MAX_CLOSING_LENGTH or not text[at - 1].isspace():
        return [span]
    if _closing_answer(text[at : span[1]]) in (None, "") or _PREFIX.fullmatch(text, span[0], at):
        return [span]
    return [_trim(text, span[0], at), (at, span[1])]


def _split_closing_sentence(text: str, span: Span) -> list[Span]:
    """A last line 'She pays 3 + 4 = 7. The answer is 7.' as two spans."""
    if span[1] - span[0] > 4 * MAX_CLOSING_LENGTH:
        return [span]
    sentences = _sentences(text, *span)
    if len(sentences) < 2 or _closing_answer(text[slice(*span)]) is not None:
        return [span]
    last = sentences[-1]
    return [(span[0], sentences[-2][1]), last] if _closing_answer(text[slice(*last)]) is not None else [span]


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[Span, bool]]:
    """The lines of a stretch of reasoning, closing sentences split off, each with whether it is a closing line."""
    lines = [part for line in _lines(text, start, end) for part in _split_hashes(text, line)]
    if lines:
        lines[-1:] = _split_closing_sentence(text, lines[-1])
    closing = [_closing_answer(text[slice(*span)]) is not None for span in lines]
    reasoning = [span for span, closes in zip(lines, closing, strict=True) if not closes]
    for span, closes in zip(lines, closing, strict=True):
        if len(reasoning) > 1 or closes:
            yield span, closes
        else:
            for sentence in _sentences(text, *span):
                yield sentence, _closing_answer(text[slice(*sentence)]) is not None


def _cut_at(spans: Sequence[Span], marks: Sequence[int], text: str) -> Iterator[Span]:
    """The spans, cut wherever a mark falls inside one."""
    for start, end in spans:
        cuts = [start, *marks[bisect_right(marks, start) : bisect_right(marks, end - 1)], end]
        for low, high in pairwise(cuts):
            low, high = _trim(text, low, high)
            if low < high:
                yield low, high


def _numbered(text: str, start: int, end: int, marks: Sequence[int]) -> Iterator[tuple[Span, bool]]:
    """Steps from mark to mark; what is before the first is a step; closing lines are steps of their own."""
    lines = [part for line in _lines(text, start, end) for part in _split_hashes(text, line)]
    block: Span | None = None
    number = -1
    for low, high in _cut_at(lines, marks, text):
        closes = _closing_answer(text[low:high]) is not None
        mine = bisect_right(marks, low)
        if block and (closes or mine != number):
            yield block, False
            block = None
        if closes:
            yield (low, high), True
        else:
            block = (block[0] if block else low, high)
        number = mine
    if block:
        yield block, False


def _reasoning(text: str, start: int, end: int) -> tuple[Layout, list[Step]]:
    marks = _marks(text, start, end)
    pieces = _numbered(text, start, end, marks) if marks else _pieces(text, start, end)
    steps = [Step(low, high, text[low:high], "answer" if closes else "reasoning") for (low, high), closes in pieces]
    if marks:
        return Layout.NUMBERED, steps
    hashes = any(step.role == "answer" and "####" in step.text for step in steps)
    return (Layout.GSM8K if hashes or _ANNOTATION.search(text, start, end) else Layout.PLAIN), steps


# ---------------------------------------------------------------- tags


def _tags(text: str) -> dict[str, tuple[Span, Span]]:
    """Opening and closing tag of each well-formed pair, by name: once each, in order, not nested in another."""
    found: dict[str, list[re.Match[str]]] = {"think": [], "answer": []}
    for tag in _TAG.finditer(text):
        found[tag[2].lower()].append(tag)
    pairs = {
        name: (tags[0].span(), tags[1].span())
        for name, tags in found.items()
        if len(tags) == 2 and not tags[0][1] and tags[1][1]
    }
    if len(pairs) == 2 and pairs["think"][1][1] > pairs["answer"][0][0]:
        return {}
    return pairs


def _tagged(text: str, tags: Mapping[str, tuple[Span, Span]]) -> tuple[list[Step], str | None]:
    """The steps of a text with tags; the answer tag's contents are one step. The tags belong to no step."""
    edges = sorted(span for pair in tags.values() for span in pair)
    bounds = [0, *(edge for span in edges for edge in span), len(text)]
    inside_answer = tags["answer"][0][1] if "answer" in tags else -1
    steps: list[Step] = []
    answer: str | None = None
    for start, end in zip(bounds[::2], bounds[1::2], strict=True):
        low, high = _trim(text, start, end)
        if start == inside_answer and low < high:
            steps.append(Step(low, high, text[low:high], "answer"))
            answer = _tag_answer(text[low:high])
        elif low < high:
            steps.extend(_reasoning(text, low, high)[1])
    return steps, answer


def _tag_answer(content: str) -> str | None:
    """The answer that an answer tag holds: that of its last closing line where it has one, else all of it."""
    closing = [_closing_answer(content[slice(*span)]) for span in _lines(content, 0, len(content))]
    stated = [answer for answer in closing if answer]
    return stated[-1] if stated else _clean(content) or None


def _bare_number_last(text: str, steps: list[Step]) -> list[Step]:
    """Steps of a text with think tags alone: a last line that is nothing but a number is its answer."""
    last = steps[-1]
    if last.role == "reasoning" and _NUMBER_ONLY.fullmatch(last.text):
        return [*steps[:-1], Step(last.start, last.end, last.text, "answer")]
    return steps


# ---------------------------------------------------------------- public


def segment(text: str) -> tuple[Layout, tuple[Step, ...], str | None]:
    """The layout of a solution, its steps in order, and its final answer as written (None = none found).

    Steps never overlap, are never blank, ``text[step.start:step.end] == step.text``, and together cover every
    non-blank character outside well-formed think and answer tags. Unclosed, repeated or nested tags are text.
    Closing lines ('#### 12', 'The answer is 12.', 'A: 12', the answer tag) have the role ``answer``. A text that is
    not blank has at least one step. The last answer stated counts; an answer tag's before all others.
    """
    tags = _tags(text)
    steps, answer = _tagged(text, tags) if tags else ([], None)
    layout = Layout.THINK_ANSWER
    if not steps:
        layout, steps = _reasoning(text, 0, len(text))
    elif "answer" not in tags:
        steps = _bare_number_last(text, steps)
    return layout, tuple(steps), answer or _stated_answer(steps)


def _stated_answer(steps: Sequence[Step]) -> str | None:
    """The answer of the last closing line that states one, else of the last line with a cue or a box."""
    for step in reversed(steps):
        if step.role == "answer":
            stated = _closing_answer(step.text) or _clean(step.text.replace("#", ""))
            if stated:
                return stated
    cued = (_cued_answer(step.text) for step in reversed(steps))
    return next((answer for answer in cued if answer), None)


def make_trace(
    problem: str,
    text: str,
    *,
    reference_answer: str | None = None,
    source: Source = Source.EXTERNAL,
    trace_id: str = "",
    problem_id: str = "",
    truth: Truth | None = None,
    token_ids: Sequence[int] | None = None,
    logprobs: Sequence[float] | None = None,
    finished: bool = True,
    extra: Mapping[str, str] | None = None,
) -> Trace:
    """A trace of ``text``, segmented, its answer parsed, and ``correct`` set where the right answer is known.

    A completion that was cut off (``finished=False``) is never correct, whatever number it broke off at.
    """
    layout, steps, answer = segment(text)
    correct = None
    if reference_answer is not None:
        correct = finished and answer is not None and answers_agree(answer, reference_answer)
    return Trace(
        problem=problem,
        text=text,
        steps=steps,
        layout=layout,
        source=source,
        trace_id=trace_id,
        problem_id=problem_id,
        answer=answer,
        reference_answer=reference_answer,
        correct=correct,
        truth=truth,
        token_ids=None if token_ids is None else tuple(token_ids),
        logprobs=None if logprobs is None else tuple(logprobs),
        finished=finished,
        extra=dict(extra or {}),
    )
