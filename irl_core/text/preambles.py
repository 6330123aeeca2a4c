"""Sentences that announce a solution and say nothing of the problem ('Let me solve this problem.'); they are no steps.

Only what is known to be an announcement counts as one: a sentence without a number may be reasoning that decides the
operation ('Since each box holds the same, we multiply.'), which is a step.
"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 300  # characters
_HEADING: Final = re.compile(r"[^0-9=]*(?::\W*|step[ -]by[ -]step\W*)", re.IGNORECASE)

_US: Final = (
    r"(?:let me|let us|let['’]?s|(?:i|we)(?: will| shall| can| should| must|['’]ll| need to| have to| want to"
    r"|(?: am| are|['’]m|['’]re) (?:asked|going) to))"
)
_WORKS: Final = (
    r"(?:solve|work|find|figure|calculate|compute|determine|think|reason|break|look|see|know|start|begin|analy[sz]e"
    r"|understand|walk|tackle|approach|answer|consider|take a look|go(?= over| through|\W*$))"
)
# Words of a quantity or of an operation: a sentence with one of them says something of the problem.
_CLAIMS: Final = re.compile(
    r"[0-9=<>+*/\u00d7\u00f7%]|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w*teen|\w*ty-\w+"
    r"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|dozens?|half|halves|thirds?|quarters?"
    r"|twice|thrice|double[sd]?|triple[sd]?|once|pairs?|add(?:s|ed|ing|ition)?|subtract\w*|multipl\w*|divi[ds]\w*|plus"
    r"|minus|times|halv\w*|same|equal\w*|each|every|per|more|less|fewer|left|remain\w*|since|because|percent\w*"
    r"|sums?|differences?|products?|ratios?|averages?|combin\w*|deduct\w*|remov\w*|away|together|(?<!step )by"
    rf"|(?<=, )so (?!{_US} {_WORKS}))\b",
    re.IGNORECASE,
)
_ANNOUNCES: Final = re.compile(
    r"\W*(?:"
    r"(?:ok(?:ay)?|sure|certainly|of course|great|alright|all right|well|hi|hello|hmm+|absolutely)(?: thing| question)?"
    rf"|(?:(?:ok(?:ay)?|sure|alright|all right|well|so|now|first|first of all|to begin|to start)[,.!]? )*{_US}"
    rf"(?: now| first| just| carefully)*,? (?:{_WORKS})\b.*"
    rf"|(?:we|i) (?:need|want|have to find|are asked|are looking for|must find)\b.*\b{_US} {_WORKS}\b.*"
    r"|(?:here(?: is|['’]s)|(?:this|below) is) (?:how|my|the|a|what)\b.*\b(?:solution|solve|work|reasoning)\b.*"
    rf"|to (?:solve|answer|find|work out|figure out)\b[^,]*, ?{_US} {_WORKS}\b.*"
    r")\W*",
    re.IGNORECASE | re.DOTALL,
)


def is_heading(line: str) -> bool:
    """Whether the first line of a solution only announces it: it ends in a colon, or in 'step by step', and has no
    number."""
    return 0 < len(line) <= MOST and _HEADING.fullmatch(line) is not None


def announces(sentence: str) -> bool:
    """Whether a sentence only announces what follows."""
    return 0 < len(sentence) <= MOST and _ANNOUNCES.fullmatch(sentence) is not None and not _CLAIMS.search(sentence)
