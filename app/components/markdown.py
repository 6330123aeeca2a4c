"""Texts for Streamlit elements that read Markdown: foreign ones escaped, counts with their nouns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from app.analysis.differences import Part
from irl_core.text.quantities import Quantity

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~&])")
_ADDRESS = re.compile(r"(?<=\w:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)


def plain(text: str) -> str:
    """``text`` with every character escaped that Markdown, directives or formulas give a meaning to.

    An address would become a link all the same: it is broken by a word joiner, which is not seen."""
    return _SPECIAL.sub(r"\\\1", _ADDRESS.sub("\u2060", text))


def counted(number: int, noun: str) -> str:
    """A number with its noun: '1 trace', '1,200 traces'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def marked_differences(parts: Sequence[Part]) -> str:
    """Two texts as one: what stands in both as it is, what the first alone has struck, what the other has marked."""
    marks = {"both": "{}", "here": ":red-background[~~{}~~]", "other": ":green-background[{}]"}
    drawn: list[str] = []
    for part in parts:
        for number, line in enumerate(part.text.split("\n")):
            drawn.append("  \n" if number else "")
            words = line.strip()
            blanks = line.partition(words) if words else (line, "", "")
            drawn += [blanks[0], marks[part.side].format(plain(words)) if words else "", blanks[2]]
    return "".join(drawn)


def marked_quantities(problem: str, odd: Sequence[Quantity]) -> str:
    """A problem's text with the quantities marked that its solution never uses."""
    drawn: list[str] = []
    position = 0
    for one in odd:
        if one.uses:
            continue
        drawn += [plain(problem[position : one.start]), f":orange-background[{plain(problem[one.start : one.end])}]"]
        position = one.end
    text = "".join([*drawn, plain(problem[position:])])
    return "  \n".join(line.strip() for line in text.split("\n"))  # blanks before a line would make it code


# ----------------------------------------------------------------------------------- foreign texts that are rendered

_MATHS = re.compile(
    r"\\\[(?P<block>.+?)\\\]|\\\((?P<inline>.+?)\\\)|\$\$(?P<dollars>.+?)\$\$|\$(?! )(?P<dollar>[^$\n]+?)(?<! )\$",
    re.DOTALL,
)
_LIKE_MATHS = re.compile(r"[\\^_{}]")  # what stands between two prices has none of these
_OPERAND = r"[-\u2212(\[ ]*(?:[0-9][0-9.,]*%?|[0-9]*[A-Za-z])[)\] ]*"  # a number, or a letter of its own: no word
_OPERATORS = "-\u2212+*/=\u00d7\u00f7\u00b7\u2248\u2260\u2264\u2265>"
_SUM = re.compile(rf"(?:{_OPERAND}[{_OPERATORS}])*{_OPERAND}")  # an equation or a sum, from end to end
_CALCULATES = re.compile(r"[+*=\u00d7\u00f7\u00b7\u2248\u2260\u2264\u2265>]")  # no mere range or rate of prices
_NOT_MATHS = re.compile(r"[`<]|!\[|\]\(|://|:\w+\[|\n\s*\n")
_RENDERS = re.compile(r"\*\*\S|^#{1,3} \S|^[ \t]*\|.*\|[ \t]*$|^```|\\\(|\\\[|\\[a-z]{3,}\{|\$\$", re.MULTILINE)
_NOT_RENDERED = re.compile(r"([\\\[\]!<>$:~&])")
_PERCENT = re.compile(r"(?<!\\)%")  # LaTeX takes it for the beginning of a comment
_ESCAPED_PERCENT = r"\\%"
_MOST_MATHS = 2000
_MOST_SUM = 200


def has_markup(text: str) -> bool:
    """Whether a text reads otherwise where its Markdown and LaTeX are rendered."""
    return _RENDERS.search(text) is not None or next(_formulas(text), None) is not None


def rendered(text: str) -> str:
    """``text`` as Markdown of which headings, lists, emphasis, tables, code and LaTeX are drawn, and nothing else: no
    link, no picture, no markup of HTML or of the page; an amount of dollars is no formula."""
    parts: list[str] = []
    position = 0
    for start, end, formula in _formulas(text):
        parts += [_drawn(text[position:start]), formula]
        position = end
    return "".join([*parts, _drawn(text[position:])])


def _formulas(text: str) -> Iterator[tuple[int, int, str]]:
    """The formulas of a text, each with where it starts and ends."""
    found = _MATHS.search(text)
    while found is not None:
        name, end = found.lastgroup or "", found.end()
        body = found[name].strip()
        single = name == "dollar"
        if single and not _is_formula(body, text[end : end + 1]):
            end -= 1  # the second of two amounts may open a formula
        elif body and len(body) <= _MOST_MATHS and not _NOT_MATHS.search(body):
            sign = "$" if single or name == "inline" else "$$"
            yield found.start(), end, f"{sign}{_PERCENT.sub(_ESCAPED_PERCENT, ' '.join(body.split()))}{sign}"
        found = _MATHS.search(text, end)


def _is_formula(body: str, following: str) -> bool:
    """Whether what stands between two single dollars is a formula, and not between two amounts of money."""
    if _LIKE_MATHS.search(body):
        return True
    if following.isdigit() or len(body) > _MOST_SUM or not _SUM.fullmatch(body):
        return False
    return bool(_CALCULATES.search(body)) or body.isalpha()


def _drawn(text: str) -> str:
    """A text without maths; each line of it stays one, outside tables."""
    escaped = _NOT_RENDERED.sub(r"\\\1", _ADDRESS.sub("\u2060", text))
    return re.sub(r"(?<![|\n])\n(?=[^\n|])", "  \n", escaped)
