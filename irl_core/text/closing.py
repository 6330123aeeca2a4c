r"""Closing lines: whether a line states the final answer of a solution, and the answer.

Recognised are ``#### 12``, ``The answer is 12.``, ``A: 12``, ``**Final Answer:** 12``, ``\boxed{12}``, a label on one
line with its value on the next, and their like in Markdown and LaTeX.
"""

from __future__ import annotations

import re

from irl_core.text.answers import parse_number
from irl_core.types import Span

MAX_CLOSING_LENGTH = 240

ANNOTATION = re.compile(r"<<[^<>\r\n]{1,200}>>")
# What may precede a closing form in its line: Markdown, an emoji, 'Step 3:', '2.'
PREFIX = re.compile(
    r"(?:[^\w$\\(\[{<\"'.,;:!?+=/%]|[_\s]|=>){0,12}"
    r"(?:[Ss]tep[ \t]{1,4}[0-9]{1,4}[ \t*]{0,4}[:.)][ \t*]{0,4}|[0-9]{1,3}[.)][ \t]+)?"
)

_NUMBER = r"[-−–‑+]?\s?(?:\\?[$€£¥₹]\s?)?[-−]?(?:[0-9]|\.[0-9]|[½¼¾⅓⅔]|\\[dt]?frac)"
_OPENING = r"[*_\\(\[$`\s]{0,6}"
_LABEL = re.compile(
    r"(?:(?:so|thus|therefore|hence|and)[ ]?,?[ ]+)?(?:the[ ]+|my[ ]+|our[ ]+)?(?:final[ ]+|correct[ ]+)?"
    r"(?:answer|ans\.?|final[ ]+result|final[ ]+value)[ ]*(?:\([^()]{0,20}\)[ ]*)?"
    r"[*_]{0,3}[ ]*(?::|=|：|—|–|->|→|⇒)[ ]*[*_]{0,3}[ ]*(?P<answer>\S.*)$",
    re.IGNORECASE,
)
_BARE_LABEL = re.compile(
    rf"(?:the[ ]+)?(?:final[ ]+answer|answer|ans\.?)[ ]+(?:-[ ]+)?(?P<answer>{_OPENING}{_NUMBER}.*)$", re.IGNORECASE
)
_SHORT_LABEL = re.compile(rf"A[ ]*[:.][ ]*(?P<answer>(?:\*\*|\\boxed\{{|\\\()?{_NUMBER}.*)$")
_SENTENCE = re.compile(
    r"(?:(?:so|thus|therefore|hence|and|finally|in[ ]conclusion|consequently)[ ]?,?[ ]+)?"
    r"(?:(?:the|our|my)[ ]+)?[*_]{0,3}(?:final[ ]+|correct[ ]+)?answer[*_]{0,3}"
    r"(?:[ ]+(?:to[ ](?:the|this)[ ](?:problem|question)))?(?:,?[ ]+(?:therefore|thus|then))?"
    r",?[ ]+"
    r"(?:is[ ]equal[ ]to|is|was|equals|comes[ ](?:out[ ])?to|(?:would|must|should|will)[ ]be)"
    r"(?:[ ]+(?:therefore|thus|then|simply|exactly))?[ ]*:?[ ]*(?P<answer>\S.*)$",
    re.IGNORECASE,
)
_BOX = r"\\(?:boxed|fbox|framebox)\s{0,2}"
_BOX_START = re.compile(_BOX + r"(?:\{|(?P<bare>[^\s{}$\\,.;]+(?:\.[0-9]+)?))")
_BRACES = r"\{[^{}]*(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*){0,4}\}[^{}]*){0,8}\}"  # nested twice at most
_BOXED_ONLY = re.compile(rf"[$\\(\[* ]{{0,6}}(?P<answer>{_BOX}(?:{_BRACES}|[^\s{{}}$\\]+))[$\\)\]*. ]{{0,6}}$")
_ASSIGNED = re.compile(rf"\\?[A-Za-z](?:[A-Za-z ]{{0,30}})\s?=\s?(?P<answer>{_OPENING}{_NUMBER}[^=]*)$")
_NUMBER_ONLY = re.compile(rf"[*\\(\[]{{0,4}}{_NUMBER}[0-9,./]*\s?%?[*\\)\]$.]{{0,4}}")
_LABEL_ALONE = re.compile(
    r"(?:####|(?:the[ ]+)?(?:final[ ]+|correct[ ]+)?(?:answer|ans|final[ ]+result)(?:[ ]+is)?)"
    r"[ ]*[*_]{0,3}[ ]*[:：]?[ ]*[*_]{0,3}",
    re.IGNORECASE,
)
_ANOTHER_PROBLEM = re.compile(
    r"^[#*_>\s]{0,8}(?:question|problem|exercise)[ ]+#?[0-9]{1,4}[*_ ]{0,4}$"
    r"|^[#*_>\s]{0,8}(?:now,?[ ]+)?(?:(?:next|new|another|second)[ ]+)?"
    r"(?:question|problem|q|exercise|task|instruction|user|human|student)"
    r"[ ]*(?:#?[0-9]{1,4})?[ ]*[*_]{0,3}[ ]*[:：.]"
    r"|(?<=[.!?0-9])[ \t]+(?:question|problem|q)[ ]*[0-9]{0,4}[ ]*[:：]"
    r"|^\s{0,4}(?:<\|(?:im_start\|>\s?)?user|\[INST\]|<\|start_header_id\|>user)",
    re.IGNORECASE | re.MULTILINE,
)


def clean_answer(answer: str) -> str:
    """An answer without its surroundings: Markdown, math delimiters, a box, the full stop of its sentence."""
    boxed = last_boxed(answer)
    if boxed is not None:
        return boxed
    answer = answer.strip().strip("*_`").strip().rstrip(".")
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$")):
        if len(answer) > len(opening) + len(closing) and answer.startswith(opening) and answer.endswith(closing):
            answer = answer[len(opening) : -len(closing)]
    return answer.strip().rstrip(".").strip("*_ ").rstrip(".").strip()


def last_boxed(text: str) -> str | None:
    r"""The contents of the last ``\boxed{...}`` of ``text``, also ``\fbox{2}`` and ``\boxed 2``; None without one."""
    at = max(text.rfind("\\boxed"), text.rfind("\\fbox"), text.rfind("\\framebox"))
    box = _BOX_START.match(text, at) if at >= 0 else None
    if box is None:
        return None
    if box["bare"]:
        return box["bare"].strip("*_. ") or None
    depth, start = 1, box.end()
    for position in range(start, min(len(text), start + MAX_CLOSING_LENGTH)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip() or None
    return None


def closing_answer(line: str) -> str | None:
    """The answer that a closing line states, cleaned ('' = a closing line without one); None = not a closing line.

    A label with its value on the next line is one closing line here: ``Final Answer:\\n12``.
    """
    if len(line) > MAX_CLOSING_LENGTH:
        return None
    lines = [part for part in re.split(r"[\r\n]+", line) if re.search(r"\w|####", part)]  # without lines of markup
    if len(lines) > 1:
        return clean_answer("\n".join(lines[1:])) if is_label(lines[0]) else None
    line = lines[0] if lines else line
    hashes = line.find("####")
    if hashes >= 0 and PREFIX.fullmatch(line[:hashes]):
        return _answer_after_hashes(line[hashes + 4 :])
    prefix = PREFIX.match(line)
    return stated_answer(line[prefix.end() if prefix else 0 :].strip())


def stated_answer(body: str) -> str | None:
    """The answer that a line's body states, by the first closing form that matches."""
    for pattern in (_SHORT_LABEL, _LABEL, _SENTENCE, _BOXED_ONLY, _BARE_LABEL):
        match = pattern.match(body)
        labelled = pattern in (_LABEL, _BOXED_ONLY) or (
            match is not None and body[: match.start("answer")].rstrip("* ").endswith(":")
        )
        if match and is_answer(match["answer"], labelled):
            answer = clean_answer(match["answer"])
            assigned = _ASSIGNED.match(answer)  # 'x = 12'
            return clean_answer(assigned["answer"]) if assigned else answer
    return None


def is_answer(answer: str, labelled: bool) -> bool:
    """Whether a remainder is an answer and nothing else: no equation in it, and a number unless it is labelled."""
    if last_boxed(answer) is not None:
        return True
    if "=" in answer and not _ASSIGNED.match(answer.strip("*_$ \\()[]")):
        return False
    return len(clean_answer(answer)) <= 80 and (labelled or bool(re.match(_OPENING + _NUMBER, answer)))


def _answer_after_hashes(rest: str) -> str | None:
    """What follows '####': an answer, '' for none, None for a heading such as '#### 1. Find the cost'."""
    plain = rest.strip()
    if not plain:
        return ""
    bare = plain.lstrip("*_`#=≈~✅✔☑ \t\ufe0f")
    if re.match(r"[0-9]{1,3}[.)][ \t]+[^\W\d]", bare):
        return None
    stated = stated_answer(bare)
    if stated is not None:
        return stated
    assigned = _ASSIGNED.match(bare.rstrip("*_` "))
    if assigned:
        return clean_answer(assigned["answer"])
    return clean_answer(plain.lstrip("=≈~ ")) if re.match(_OPENING + _NUMBER, bare) else None


def cued_answer(line: str) -> str | None:
    """The answer of a line that also reasons: 'The answer is 3 + 4 = 7.' or 'So she pays \\boxed{7}.'"""
    boxed = last_boxed(line)
    if boxed is not None:
        return boxed
    if len(line) > MAX_CLOSING_LENGTH or "=" not in line:
        return None
    prefix = PREFIX.match(line)
    sentence = _SENTENCE.match(line, prefix.end() if prefix else 0)
    last = clean_answer(ANNOTATION.sub("", sentence["answer"]).rpartition("=")[2]) if sentence else ""
    return last if last and parse_number(last) is not None else None


def is_label(line: str) -> bool:
    """Whether a line is nothing but the label of an answer, whose value is then on the next: '### Final Answer'."""
    plain = line.strip().rstrip("$\\[( \t\r\n")
    prefix = PREFIX.match(plain) if plain != "####" else None
    return len(plain) <= 60 and bool(_LABEL_ALONE.fullmatch(plain, prefix.end() if prefix else 0))


def is_value(line: str) -> bool:
    """Whether a line can be the value below a label: a box, or a number with at most a few words."""
    plain = line.strip()
    if len(plain) > 80 or "=" in plain or re.match(r"[0-9]{1,3}[.)]\s+\D", plain):
        return bool(_BOXED_ONLY.fullmatch(plain))
    return last_boxed(plain) is not None or bool(re.match(_OPENING + _NUMBER, plain))


def is_number_alone(text: str) -> bool:
    """Whether a text is nothing but a number in its markup."""
    return bool(_NUMBER_ONLY.fullmatch(text))


def another_problem(text: str, start: int, end: int | None = None) -> Span | None:
    """Where, from ``start`` on, a completion runs on into another problem: 'Question: ...', a turn of the user's."""
    match = _ANOTHER_PROBLEM.search(text, start, len(text) if end is None else end)
    return match.span() if match else None
