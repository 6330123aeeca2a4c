"""Segmentation of a solution into steps, with their spans and roles, and its final answer.

Every function is linear in the length of the text. Spans are half-open character offsets into the text as given.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, takewhile

from irl_core.text.answers import compare_answers
from irl_core.text.closing import (
    ANNOTATION,
    MAX_CLOSING_LENGTH,
    PREFIX,
    another_problem,
    clean_answer,
    closing_answer,
    cued_answer,
    is_label,
    is_number_alone,
    is_value,
)
from irl_core.text.preambles import announces, is_heading
from irl_core.types import Layout, Source, Span, Step, Trace, Truth

_LINE = re.compile(r"[^\r\n]+")
_WORD = re.compile(r"\w")
_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE)
_MARKUP = re.compile(
    r"\\(?:begin|end)\{[^{}]{1,30}\}(?:\{[^{}]{0,30}\})?[ \t]*(?:\\\\)?|`{3,}[\w+-]{0,20}|~{3,}\w{0,20}"
    r"|</?[a-z]{1,10} ?/?>"
)
_ORDINAL = r"(?:[0-9]{1,4}|[IVX]{1,5}|[A-J]|(?i:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve))"
_STEP_MARK = re.compile(
    r"(?:^[#*_>\-\t ]{0,12}|(?<=[.!?)>][ ]))(?:step|Step|STEP|[ÉéEe]tape|Schritt|Paso|Passo|Шаг)[ \t]{0,4}#?"
    rf"{_ORDINAL}(?!\w)(?=[ \t]{{0,4}}[:.)*\-–—\r\n]|$)|^[#*_>\t ]{{0,12}}第[0-9]{{1,3}}步",
    re.MULTILINE,
)
_BEFORE_MARK = r"^[#*_>\t ]{0,12}"
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
# Numberings of a list, each with the names of its numbers from 1 on; None: digits.
_LIST_MARKS: tuple[tuple[re.Pattern[str], Sequence[str] | None], ...] = (
    (re.compile(_BEFORE_MARK + r"\(?([0-9]{1,3})[.):](?=[ \t*]|[^\W\d])", re.MULTILINE), None),
    (re.compile(_BEFORE_MARK + r"([0-9]{1,2})\ufe0f?\u20e3", re.MULTILINE), None),
    (re.compile(_BEFORE_MARK + r"([①-⑳])", re.MULTILINE), [chr(ord("①") + n) for n in range(20)]),
    (re.compile(_BEFORE_MARK + r"\(?([a-zA-Z])[.)](?=[ \t*])", re.MULTILINE), "abcdefghijklmnopqrstuvwxyz"),
    (re.compile(_BEFORE_MARK + r"\(?([ivxIVX]{1,4})[.)](?=[ \t*])", re.MULTILINE), _ROMAN),
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]”’*]{0,3}(?=\s)|(?<=[。！？])(?=.)")
_CALCULATES = re.compile(r"[=<>]|[0-9] ?[-+*/x\u00d7\u00f7\u2212] ?[0-9]")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|Mrs?|Ms|Dr|Prof|St|No|vs|etc|approx|e\.g|i\.e|lbs?|oz|ft|hrs?|min|Jr|Sr)\.$"
)


def _trim(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


# ---------------------------------------------------------------- reasoning


def line_spans(text: str, start: int, end: int) -> list[Span]:
    r"""Non-blank lines, trimmed; a label and its value on the next line are one.

    A line of markup (``\[``, ``---``, ``\begin{align}``, the fence of a code block) joins its neighbour.
    """
    spans: list[Span] = []
    only_markup = False  # in the last span
    for match in _LINE.finditer(text, start, end):
        low, high = _trim(text, match.start(), match.end())
        if low >= high:
            continue
        markup = not _WORD.search(text, low, high) or bool(_MARKUP.fullmatch(text, low, high))
        below_label = spans and is_value(text[low:high]) and is_label(text[slice(*spans[-1])])
        if spans and (markup or only_markup or below_label):
            spans[-1] = (spans[-1][0], high)
            only_markup = only_markup and markup
        else:
            spans.append((low, high))
            only_markup = markup
    return spans


def sentence_spans(text: str, start: int, end: int) -> list[Span]:
    """Sentences of one line, trimmed. A point inside 3.5 or $1,000.00 ends none, nor one before a lower-case letter."""
    spans: list[Span] = []
    low = start
    for match in _SENTENCE_END.finditer(text, start, end):
        cut = match.end()
        following = text[cut : cut + 4].lstrip()[:1]
        if following.islower() or _ABBREVIATION.search(text, max(low, cut - 8), cut):
            continue
        if cut - low <= 8 and re.fullmatch(r"\s*[0-9]{1,3}[.)]", text[low:cut]):
            continue
        spans.append(_trim(text, low, cut))
        low = cut
    spans.append(_trim(text, low, end))
    return [span for span in spans if span[0] < span[1]]


def step_marks(text: str, start: int, end: int) -> list[int]:
    """Where numbered steps start: every 'Step n', else the lines '1.', '(a)', '①', ... when they count up from 1."""
    steps = [match.start() for match in _STEP_MARK.finditer(text, start, end)]
    if steps:
        return steps
    for pattern, names in _LIST_MARKS:
        marks: list[int] = []
        for match in pattern.finditer(text, start, end):
            expected = str(len(marks) + 1) if names is None else names[min(len(marks), len(names) - 1)]
            if match[1].lower() == expected or (names is None and int(match[1]) == len(marks) + 1):
                marks.append(match.start())
        if len(marks) > 1:
            return marks
    return []


def _split_hashes(text: str, span: Span) -> list[Span]:
    """A line that ends in '#### 12' as two spans: what is before it, and that."""
    at = text.rfind("####", *span)
    if at <= span[0] or span[1] - at > MAX_CLOSING_LENGTH or not text[at - 1].isspace():
        return [span]
    if closing_answer(text[at : span[1]]) in (None, "") or PREFIX.fullmatch(text, span[0], at):
        return [span]
    return [_trim(text, span[0], at), (at, span[1])]


def _split_closing_sentence(text: str, span: Span) -> list[Span]:
    """A last line 'She pays 3 + 4 = 7. The answer is 7.' as two spans."""
    if span[1] - span[0] > 4 * MAX_CLOSING_LENGTH:
        return [span]
    sentences = sentence_spans(text, *span)
    if len(sentences) < 2 or closing_answer(text[slice(*span)]) is not None:
        return [span]
    last = sentences[-1]
    return [(span[0], sentences[-2][1]), last] if closing_answer(text[slice(*last)]) is not None else [span]


def _split_run_on(text: str, span: Span) -> list[Span]:
    """A line 'The answer is 14. Question: ...' as two spans: the second is of another problem."""
    another = another_problem(text, span[0] + 1, span[1])
    if another is None or closing_answer(text[span[0] : another[0]]) is None:
        return [span]
    return [_trim(text, span[0], another[0]), _trim(text, another[0], span[1])]


def plain_steps(text: str, start: int, end: int) -> Iterator[tuple[Span, bool]]:
    """The lines of a stretch of reasoning, closing sentences split off, each with whether it is a closing line. A
    preamble ("Let's think step by step.", 'Here is the solution:') is no step of its own: it belongs to the first."""
    first = preamble(text, start, end)
    steps = list(lines_and_sentences(text, start if first is None else first[1], end))
    if first is not None and (not steps or steps[0][1]):
        yield first, False
    elif first is not None:
        steps[0] = ((first[0], steps[0][0][1]), False)
    yield from steps


def preamble(text: str, start: int, end: int) -> Span | None:
    """The lines and sentences that a stretch of reasoning begins with and that only announce what follows."""
    lines = line_spans(text, start, end)  # a label and its value are one line
    heads = bool(lines) and is_heading(text[slice(*lines[0])])
    found = lines[:1] if heads else []
    for line in lines[len(found) :]:
        sentences = sentence_spans(text, *line)
        announced = list(takewhile(lambda span: announces(text[slice(*span)]), sentences))
        found += announced
        if len(announced) < len(sentences):
            break
    return (found[0][0], found[-1][1]) if found else None


def lines_and_sentences(text: str, start: int, end: int) -> Iterator[tuple[Span, bool]]:
    """The lines of a stretch of reasoning, or the sentences of its one line, each with whether it closes."""
    whole = [part for line in line_spans(text, start, end) for part in _split_run_on(text, line)]
    lines = [part for line in whole for part in _split_hashes(text, line)]
    if lines:
        lines[-1:] = _split_closing_sentence(text, lines[-1])
    closing = [closing_answer(text[slice(*span)]) is not None for span in lines]
    reasoning = [span for span, closes in zip(lines, closing, strict=True) if not closes]
    for span, closes in zip(lines, closing, strict=True):
        if len(reasoning) > 1 or closes:
            yield span, closes
        else:
            for sentence in sentence_spans(text, *span):
                yield sentence, closing_answer(text[slice(*sentence)]) is not None


def _cut_at(spans: Sequence[Span], marks: Sequence[int], text: str) -> Iterator[Span]:
    """The spans, cut wherever a mark falls inside one."""
    for start, end in spans:
        cuts = [start, *marks[bisect_right(marks, start) : bisect_right(marks, end - 1)], end]
        for low, high in pairwise(cuts):
            low, high = _trim(text, low, high)
            if low < high:
                yield low, high


def numbered_steps(text: str, start: int, end: int, marks: Sequence[int]) -> Iterator[tuple[Span, bool]]:
    """Steps from mark to mark, and each closing line. The text before the first mark is a step where it calculates;
    else it belongs to the first step, so that steps count as the text does."""
    lines = [part for line in line_spans(text, start, end) for part in _split_hashes(text, line)]
    parts = list(_cut_at(lines, marks, text))
    if parts:
        parts[-1:] = _split_closing_sentence(text, parts[-1])
    block: Span | None = None
    first = 0 if _CALCULATES.search(text, start, marks[0]) else 1
    number = -1
    for low, high in parts:
        closes = closing_answer(text[low:high]) is not None
        mine = max(bisect_right(marks, low), first)
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
    marks = step_marks(text, start, end)
    pieces = numbered_steps(text, start, end, marks) if marks else plain_steps(text, start, end)
    steps = [Step(low, high, text[low:high], "answer" if closes else "reasoning") for (low, high), closes in pieces]
    if marks:
        return Layout.NUMBERED, steps
    hashes = any(step.role == "answer" and "####" in step.text for step in steps)
    return (Layout.GSM8K if hashes or ANNOTATION.search(text, start, end) else Layout.PLAIN), steps


# ---------------------------------------------------------------- tags


def tag_pairs(text: str) -> dict[str, tuple[Span, Span]]:
    """Opening and closing tag of each well-formed pair, by name: once each, in order, not nested in another.

    A ``</think>`` that no tag opens, with more text behind it, was opened by the chat template. What follows a closed
    answer as another problem has tags of its own, which are not looked at.
    """
    tags_of: dict[str, list[re.Match[str]]] = {"think": [], "answer": []}
    limit = len(text)
    for tag in _TAG.finditer(text):
        if tag.start() >= limit:
            break
        tags_of[tag[2].lower()].append(tag)
        if tag[2].lower() == "answer" and tag[1] and limit == len(text):
            another = another_problem(text, tag.end())
            limit = another[0] if another else limit + 1
    pairs = {
        name: (tags[0].span(), tags[1].span())
        for name, tags in tags_of.items()
        if len(tags) == 2 and not tags[0][1] and tags[1][1]
    }
    thought = tags_of["think"]
    if len(thought) == 1 and thought[0][1] and text[: thought[0].start()].strip() and text[thought[0].end() :].strip():
        pairs["think"] = ((0, 0), thought[0].span())
    if len(pairs) == 2 and pairs["think"][1][1] > pairs["answer"][0][0]:
        return {}
    return pairs


def tagged_steps(text: str, tags: Mapping[str, tuple[Span, Span]]) -> tuple[list[Step], str | None]:
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
            # the answer of the tag's last closing line; where it has none, all of its content
            content = text[low:high]
            closing = [closing_answer(content[slice(*span)]) for span in line_spans(content, 0, len(content))]
            answer = next((stated for stated in reversed(closing) if stated), clean_answer(content) or None)
        elif low < high:
            steps.extend(_reasoning(text, low, high)[1])
    return steps, answer


# ---------------------------------------------------------------- public


def segment(text: str) -> tuple[Layout, tuple[Step, ...], str | None]:
    """The layout of a solution, its steps in order, and its final answer as written (None = none found).

    Steps never overlap, are never blank, ``text[step.start:step.end] == step.text``, and together cover every
    non-blank character outside well-formed think and answer tags. Unclosed, repeated or nested tags are text.
    Closing lines ('#### 12', 'The answer is 12.', 'A: 12', the answer tag) have the role ``answer``. A text that is
    not blank has at least one step. The last answer stated counts; an answer tag's before all others.
    """
    tags = tag_pairs(text)
    steps, answer = tagged_steps(text, tags) if tags else ([], None)
    layout = Layout.THINK_ANSWER
    if not steps:
        layout, steps = _reasoning(text, 0, len(text))
    elif "answer" not in tags:
        last = steps[-1]
        if last.role == "reasoning" and is_number_alone(last.text):
            steps[-1] = replace(last, role="answer")
    return layout, tuple(steps), answer or _stated_answer(text, steps)


def _stated_answer(text: str, steps: Sequence[Step]) -> str | None:
    """The answer of the last closing line that states one, else of the last line with a cue or a box.

    Where the text runs on into another problem after an answer, only what is before that counts.
    """
    closing = [step for step in steps if step.role == "answer"]
    answers = [(step, closing_answer(step.text) or clean_answer(step.text.replace("#", ""))) for step in closing]
    stated = [(step, answer) for step, answer in answers if answer]
    another = another_problem(text, stated[0][0].end) if stated else None
    own = [answer for step, answer in stated if another is None or step.start < another[0]]
    if own:
        return own[-1]
    cued = (cued_answer(step.text) for step in reversed(steps))
    return next((answer for answer in cued if answer), None)


def with_reference(trace: Trace, answer: str | None) -> Trace:
    """The trace judged by the right answer, as it is where that is None; one that was cut off is never correct."""
    if answer is None:
        return trace
    correct = compare_answers(trace.answer or "", answer) if trace.finished else False
    return replace(trace, reference_answer=answer, correct=correct)


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
    """A trace of ``text``, segmented, its answer parsed, and ``correct`` set where it can be told.

    ``correct`` is None without a reference, and where no answer is found or it cannot be compared with the reference. A
    completion that was cut off (``finished=False``) is never correct, whatever number it broke off at.
    """
    layout, steps, answer = segment(text)
    correct = None
    if reference_answer is not None:
        correct = compare_answers(answer or "", reference_answer) if finished else False
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
