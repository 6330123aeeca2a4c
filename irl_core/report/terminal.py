"""An inspection in the terminal: the verdict, the exact text with a colour behind each token, the step scores.

Model output is only ever the content of ``rich.text.Text``, never markup, and its control characters are drawn as
visible signs, so it can neither colour nor move anything. A terminal of 16 colours gets two of them, from a third of
the scale's mark on: black on yellow below zero, white on blue above. Without colour (``NO_COLOR``, a pipe, a dumb
terminal) tokens are marked with brackets there: ``[-2.1 text]`` below zero, ``[+2.1 text]`` above.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from irl_core.report.heatmap.payload import VIEW_NAMES, VIEWS, Tone, ranges, ranked_words, share, titles, tone_of
from irl_core.report.inspection_json import InspectedTrace, InspectionResult
from irl_core.reward.wording import score_words, signed
from irl_core.text.visible import visible

BLUE, ORANGE = (33, 102, 172), (217, 95, 2)
BRACKET_SHARE = 1 / 3
FEW_COLOURS = ("standard", "windows")
LOW_STYLE, HIGH_STYLE = Style.parse("black on yellow"), Style.parse("bright_white on blue")
VERDICT_STYLES: Mapping[Tone, str] = {"error": "bold red", "good": "bold green", "neutral": "bold"}

Tokens = Sequence[Mapping[str, Any]]


def background(value: float | None, half: float) -> tuple[int, int, int]:
    """Red, green and blue behind a token: exactly white at zero (and where undefined), blue above, orange below, half
    of either at ``half``."""
    if value is None:
        return 255, 255, 255
    target = BLUE if value > 0 else ORANGE
    red, green, blue = (round(255 + (end - 255) * abs(share(value, half))) for end in target)
    return red, green, blue


def pieces(text: str, tokens: Tokens) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Pieces of ``text`` with their tokens, in order and whole: a character that several tokens share goes to the first
    of them, text that no token covers comes with None."""
    position = 0
    for token in tokens:
        if token["start"] > position:
            yield text[position : token["start"]], None
            position = token["start"]
        if token["end"] > position:
            yield text[position : token["end"]], token
            position = token["end"]
    if position < len(text):
        yield text[position:], None


def coloured(trace: Mapping[str, Any], view: str, half: float) -> Text:
    """The trace's exact text with the value of ``view`` as each token's background; white is exactly zero."""
    result = Text()
    for piece, token in pieces(trace["text"], trace["tokens"]):
        style = None
        if token:
            colour = background(token[view], half)
            dark = sum(weight * part for weight, part in zip((0.299, 0.587, 0.114), colour, strict=True)) < 128
            ink = Color.from_rgb(255, 255, 255) if dark else Color.from_rgb(0, 0, 0)
            style = Style(color=ink, bgcolor=Color.from_rgb(*colour))
        result.append(visible(piece), style=style)
    return result


def in_two_colours(trace: Mapping[str, Any], view: str, half: float) -> Text:
    """The same for 16 colours, whose shades differ by terminal: tokens from a third of ``half`` on have one of two."""
    result = Text()
    for piece, token in pieces(trace["text"], trace["tokens"]):
        value = token[view] if token else None
        style = None
        if value is not None and abs(value) >= BRACKET_SHARE * half:
            style = LOW_STYLE if value < 0 else HIGH_STYLE
        result.append(visible(piece), style=style)
    return result


def bracketed(trace: Mapping[str, Any], view: str, half: float) -> Text:
    """The same without colour: tokens from a third of ``half`` on are in brackets, behind their value."""
    result = Text()
    for piece, token in pieces(trace["text"], trace["tokens"]):
        value = token[view] if token else None
        if value is None or abs(value) < BRACKET_SHARE * half or not piece.strip():
            result.append(visible(piece))
            continue
        body = piece.lstrip()
        lead, body, tail = piece[: -len(body)], body.rstrip(), body[len(body.rstrip()) :]
        result.append(visible(f"{lead}[{value:+.1f} {body}]{tail}"))
    return result


def step_lines(trace: Mapping[str, Any]) -> Text:
    """A line for each step with its score; an arrow marks the one that the verdict names."""
    result = Text()
    for index, step in enumerate(trace["steps"]):
        first = index == trace["verdict"]["step"]
        mark = "→" if first else " "
        name = "answer" if step["role"] == "answer" else step["name"].removeprefix("step ")
        line = f"{mark}{name:>7} {signed(step['score']):>9}  {visible(' '.join(step['text'].split()))}\n"
        result.append(line, style="bold" if first else None)
    return result


def scores_line(rule: str, view: str) -> str:
    """What stands above the steps: of what their scores are, and which view shows the tokens that they come from."""
    words, signal = score_words(rule)
    if not words:
        return "Steps and their scores (lower is more suspect):"
    seen = "as coloured above" if signal == view else f"--view {signal} colours those" if signal in VIEWS else ""
    return f"Steps, each scored by the {words} ({'; '.join(filter(None, (seen, 'lower is more suspect')))}):"


def print_result(
    console: Console,
    result: InspectionResult,
    *,
    view: str,
    gamma: float,
    score_name: str,
) -> None:
    """Print an inspection: every trace with its verdict, tokens and steps.

    Args:
        console: where to.
        result: the inspection.
        view: the signal behind the tokens' colours.
        gamma: the discount of the discounted rewards.
        score_name: the name of the trace score.
    """
    half = ranges(gamma)[view]
    console.print(Text(f"Checkpoint {visible(result['checkpoint'])}"), style="dim")
    console.print(Text(visible(result["problem"])))
    for title, trace in zip(titles(result["traces"]), result["traces"], strict=True):
        console.rule(Text(visible(title)), align="left")
        print_trace(console, trace, view, half)
        if len(result["traces"]) > 1 and not trace["cannot_judge"]:
            console.print(Text(ranked_words(trace, score_name)), style="dim")


def print_trace(console: Console, trace: InspectedTrace, view: str, half: float) -> None:
    """Print one trace; ``half`` is the value of half colour. Where the model cannot judge it, its text is plain."""
    said = trace["verdict"]
    console.print(Text(visible(said["headline"])), style=VERDICT_STYLES[tone_of(said)], soft_wrap=True)
    for finding in said["findings"]:
        console.print(Text(visible(finding["says"])), soft_wrap=True)
    if trace["cannot_judge"]:
        console.print(Text(visible(trace["text"])), soft_wrap=True)
        return
    plain = console.no_color or console.color_system is None
    edge = BRACKET_SHARE * half
    if plain:
        drawn, scale = bracketed, f"in brackets from {edge:.1f} away from 0 on"
    elif console.color_system in FEW_COLOURS:
        drawn, scale = in_two_colours, f"on yellow from {signed(-edge, 1)} down, on blue from {signed(edge, 1)} up"
    else:
        drawn, scale = coloured, f"half orange at {signed(-half, 1)}, white at 0, half blue at {signed(half, 1)}"
    console.print(drawn(trace, view, half), soft_wrap=plain)
    console.print(
        Text(f"{view} (pages say: {VIEW_NAMES[view]}): {scale}"),
        style=None if console.color_system in FEW_COLOURS else "dim",
    )
    console.print(Text(scores_line(trace["rule"], view)), soft_wrap=True)
    console.print(step_lines(trace), end="", soft_wrap=True)
